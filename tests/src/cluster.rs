//! A lab under test.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use cluster_lab::{Lab, LabOptions, Place};
use serde_json::Value;

use crate::{http, install, until};

/// Bound on things that take well under a second on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);

/// A running lab; taken down, and checked for leftovers, when dropped.
pub struct Cluster {
    lab: Option<Lab>,
    name: String,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A task as `service ps --output json` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub id: String,
    pub slot: u64,
    pub node: String,
    pub desired: String,
    pub observed: String,
    pub error: String,
    pub message: String,
    pub exit_code: Option<i64>,
}

impl Task {
    pub fn is_running(&self) -> bool {
        self.desired == "running" && self.observed == "running"
    }
}

impl Cluster {
    /// Starts a lab and loads the example images on its workers.
    pub fn up(name: &str, managers: usize, workers: usize) -> Self {
        let cluster = Self::bare(name, managers, workers, |_| {});
        cluster.lab().load_image(&install::web_archive()).expect("the image loads");
        cluster
    }

    /// Starts a lab without images.
    pub fn bare(
        name: &str,
        managers: usize,
        workers: usize,
        adjust: impl FnOnce(&mut LabOptions),
    ) -> Self {
        let base = install::lab_base();
        std::fs::create_dir_all(base).expect("the folder for labs");
        Lab::remove_in(base, name).expect("what an earlier run left goes away");
        let mut options = LabOptions::new(name, install::bin_dir());
        options.base = base.to_owned();
        options.managers = managers;
        options.workers = workers;
        adjust(&mut options);
        let lab = match Lab::up(&options) {
            Ok(lab) => lab,
            Err(error) => {
                let mut text = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(error) = cause {
                    text.push_str(&format!(": {error}"));
                    cause = error.source();
                }
                panic!("the lab {name} does not come up: {text}");
            }
        };
        Self { lab: Some(lab), name: name.to_owned() }
    }

    pub fn lab(&self) -> &Lab {
        self.lab.as_ref().expect("the lab is up")
    }

    /// Runs `clusterctl` as the client would.
    pub fn ctl(&self, args: &[&str]) -> Ran {
        self.ctl_from(Place::Client, args)
    }

    pub fn ctl_from(&self, place: Place<'_>, args: &[&str]) -> Ran {
        self.ctl_with(place, &self.lab().client_context_file(), args)
    }

    /// Runs `clusterctl` with a context file of one's own.
    pub fn ctl_with(&self, place: Place<'_>, context: &Path, args: &[&str]) -> Ran {
        let program = install::bin_dir().join("clusterctl");
        let mut argv = vec![
            program.display().to_string(),
            "--context-file".to_owned(),
            context.display().to_string(),
        ];
        argv.extend(args.iter().map(|arg| (*arg).to_owned()));
        self.lab().exec_output(place, &argv).expect("clusterctl starts").into()
    }

    /// Runs `clusterctl`, which must succeed; answers what it printed.
    pub fn good(&self, args: &[&str]) -> String {
        let ran = self.ctl(args);
        assert_eq!(ran.code, 0, "clusterctl {args:?}: {ran:?}\n{}", self.story());
        ran.stdout
    }

    /// Runs `clusterctl`, which must fail with this exit code and say each of these.
    pub fn bad(&self, code: i32, says: &[&str], args: &[&str]) {
        let ran = self.ctl(args);
        let shown: Vec<String> = args.iter().map(|arg| arg.chars().take(80).collect()).collect();
        assert_eq!(ran.code, code, "clusterctl {shown:?}: {ran:?}");
        for text in says {
            assert!(
                ran.stderr.contains(text),
                "clusterctl {shown:?} does not say `{text}`: {}",
                ran.stderr
            );
        }
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        let text = self.good(&all);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// All tasks of a service, history included.
    pub fn tasks(&self, service: &str) -> Vec<Task> {
        let tasks = self.json(&["service", "ps", service]);
        tasks.as_array().expect("a list of tasks").iter().map(task).collect()
    }

    pub fn running(&self, service: &str) -> Vec<Task> {
        self.tasks(service).into_iter().filter(Task::is_running).collect()
    }

    /// Waits until exactly `count` tasks run, in slots of their own.
    pub fn wait_running(&self, service: &str, count: usize, bound: Duration) -> Vec<Task> {
        until(&format!("{count} running tasks of {service}"), bound, || {
            let tasks = self.tasks(service);
            let running: Vec<Task> =
                tasks.iter().filter(|task| task.is_running()).cloned().collect();
            let slots: BTreeSet<u64> = running.iter().map(|task| task.slot).collect();
            if running.len() == count && slots.len() == count {
                Ok(running)
            } else {
                Err(format!("{tasks:#?}\n{}", self.story()))
            }
        })
        .0
    }

    /// Names and addresses of the workers that are on.
    pub fn workers(&self) -> Vec<(String, Ipv4Addr)> {
        let status = self.lab().status().expect("the lab's status");
        status
            .into_iter()
            .filter(|node| {
                node.role == cluster_lab::Role::Worker
                    && node.state == cluster_lab::NodeState::Running
            })
            .map(|node| (node.name, node.address))
            .collect()
    }

    pub fn address(&self, node: &str) -> Ipv4Addr {
        let status = self.lab().status().expect("the lab's status");
        status.into_iter().find(|known| known.name == node).expect("the node").address
    }

    /// Creates the web service on port 80 and waits until its replicas run.
    pub fn serve_web(&self, replicas: usize) -> Vec<Task> {
        let count = replicas.to_string();
        let line =
            ["service", "create", "--name", "web", "--replicas", &count, "--publish", "80:80"];
        self.good(&[&line[..], &["web:1"]].concat());
        self.wait_running("web", replicas, SOON)
    }

    /// Name of the managers' leader.
    pub fn leader(&self) -> String {
        until("a leader", SOON, || {
            let ran = self.ctl(&["node", "ls", "--output", "json"]);
            let nodes: Value =
                serde_json::from_str(&ran.stdout).map_err(|error| format!("{error}: {ran:?}"))?;
            let all = nodes.as_array().cloned().unwrap_or_default();
            all.iter()
                .find(|node| node["manager_status"] == "leader")
                .and_then(|node| node["name"].as_str().map(str::to_owned))
                .ok_or_else(|| format!("{nodes}"))
        })
        .0
    }

    /// One GET from the client's namespace.
    pub fn get(&self, address: Ipv4Addr, port: u16, path: &str) -> Result<(u16, String), String> {
        let path = path.to_owned();
        self.lab()
            .inside(Place::Client, move || http::get(address, port, &path))
            .map_err(|error| error.to_string())?
    }

    /// Waits until GETs at an address are answered by exactly these tasks.
    pub fn wait_answers(
        &self,
        address: Ipv4Addr,
        port: u16,
        tasks: &BTreeSet<String>,
        bound: Duration,
    ) {
        until(&format!("answers of {tasks:?} at {address}:{port}"), bound, || {
            let mut seen = BTreeSet::new();
            for _ in 0..3 * tasks.len().max(1) {
                let (status, body) = self.get(address, port, "/")?;
                if status != 200 {
                    return Err(format!("status {status}"));
                }
                seen.extend(tasks.iter().filter(|task| body.contains(task.as_str())).cloned());
                if !tasks.iter().any(|task| body.contains(task.as_str())) {
                    return Err(format!("another task answered: {body}"));
                }
            }
            if seen == *tasks { Ok(()) } else { Err(format!("only {seen:?} answered")) }
        });
    }

    /// The ends of all daemons' logs, for a test that failed.
    pub fn story(&self) -> String {
        let mut story = String::new();
        for node in self.lab().status().unwrap_or_default() {
            let log = std::fs::read_to_string(self.lab().log_path(&node.name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n");
            story.push_str(&format!("--- {} ({:?})\n{tail}\n", node.name, node.state));
        }
        story
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        if panicking {
            eprintln!("{}", self.story());
        }
        let Some(lab) = self.lab.take() else { return };
        let down = lab.down();
        let left = Lab::leftovers_in(install::lab_base(), &self.name);
        if !panicking {
            down.expect("the lab goes down");
            assert_eq!(
                left.expect("leftovers are looked for"),
                Vec::<String>::new(),
                "left behind"
            );
        }
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

fn task(value: &Value) -> Task {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Task {
        id: text("id"),
        slot: value["slot"].as_u64().unwrap_or(0),
        node: text("node"),
        desired: text("desired_state"),
        observed: text("observed_state"),
        error: text("error"),
        message: text("message"),
        exit_code: value["exit_code"].as_i64(),
    }
}
