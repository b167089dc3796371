//! A cluster comes up: three managers, three workers, and a client with a context file.

use anyhow::{Context as _, ensure};
use cluster_identity::Context as ContextFile;
use cluster_identity::net::Net;

use super::{SETUP, Sim};
use crate::client::Access;
use crate::manager::ManagerHost;
use crate::trace::seconds;

impl Sim {
    /// Three managers, three workers, and a client with a context file.
    pub(super) fn set_up(&mut self) -> anyhow::Result<()> {
        let deadline = self.now + SETUP;
        self.managers[0].start(self.now)?;
        self.until(deadline, "the first manager founds the cluster", |sim| {
            let known = |context: &cluster_manager::context::Context| {
                context.raft.view().state.cluster().is_some()
            };
            sim.leader() == Some(0) && sim.managers[0].context().is_some_and(|c| known(&c))
        })?;
        let client = self.managers.len() + self.workers.len();
        let net = Net::over(self.wires.of(client));
        let context = ContextFile::load(&self.managers[0].admin_context())?;
        let addresses: Vec<String> = self.managers.iter().map(ManagerHost::address).collect();
        let access = Access::new(&context, addresses.clone(), &net)?;
        self.access = Some(access.clone());
        self.client.start(self.now, std::future::pending())?;
        let manager_token = self.ask(deadline, {
            let access = access.clone();
            async move { access.token("manager").await }
        })?;
        let worker_token = self.ask(deadline, async move { access.token("worker").await })?;
        for number in 1..self.managers.len() {
            let first = vec![addresses[0].clone()];
            self.managers[number].join_with(first, manager_token.clone());
            self.managers[number].start(self.now)?;
        }
        for worker in &mut self.workers {
            worker.join_with(addresses.clone(), worker_token.clone());
            worker.start(self.now)?;
        }
        let (managers, workers) = (self.managers.len(), self.workers.len());
        self.until(deadline, "all managers and workers are members", |sim| {
            sim.managers.iter().all(|manager| {
                let Some(context) = manager.context() else { return false };
                let voters = context.raft.status().members.iter().filter(|m| m.voter).count();
                let state = context.raft.view().state;
                let ready = state.nodes().filter(|node| node.accepts_tasks()).count();
                voters == managers && ready == workers
            })
        })
    }

    fn ask<T: Send + 'static>(
        &mut self,
        deadline: u64,
        question: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    ) -> anyhow::Result<T> {
        let asked = self.client.beside(question).context("the client's machine is off")?;
        let mut asked = Some(asked);
        self.until(deadline, "the managers answer", |_| {
            asked.as_ref().is_some_and(tokio::task::JoinHandle::is_finished)
        })?;
        let answer = asked.take().and_then(futures::FutureExt::now_or_never);
        answer.context("the client did not answer")??
    }

    pub(super) fn until(
        &mut self,
        deadline: u64,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        while !holds(self) {
            ensure!(self.now < deadline, "within {:.0} s: {what}", seconds(SETUP));
            self.step()?;
        }
        Ok(())
    }
}
