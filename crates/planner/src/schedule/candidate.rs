//! A node with what it holds, this pass's placements included, and what speaks against it.

use cluster_model::fit::{self, Obstacle, Seeker, Supposed};
use cluster_model::spec::Resources;
use cluster_model::state::Usage;
use cluster_model::{Node, State, TaskSpec};

pub(crate) struct Candidate<'a> {
    pub node: &'a Node,
    pub used: Resources,
    pub tasks: u32,
    /// The part of `used` and `tasks` that is being stopped.
    pub leaving: Resources,
    pub leaving_tasks: u32,
    /// Tasks that wait for what is being stopped here; their room is not given to others.
    pub claims: Vec<&'a TaskSpec>,
    /// What keeps any task away.
    pub unusable: Option<Obstacle>,
}

impl<'a> Candidate<'a> {
    pub fn new(node: &'a Node, usage: Usage) -> Self {
        Self {
            node,
            used: usage.reserved,
            tasks: usage.tasks,
            leaving: usage.leaving,
            leaving_tasks: usage.leaving_tasks,
            claims: Vec::new(),
            unusable: fit::unusable(node),
        }
    }

    /// CPU and memory, beside what was promised.
    pub fn room(&self, spec: &TaskSpec) -> Option<Obstacle> {
        let capacity = self.node.description.capacity;
        fit::room(capacity, self.used, spec.reservations).or_else(|| {
            let short = !self.claims.is_empty()
                && fit::room(capacity, self.expected(), spec.reservations).is_some();
            short.then_some(Obstacle::Promised)
        })
    }

    /// What will be held when all that is being stopped has ended and those who wait came.
    pub fn expected(&self) -> Resources {
        let mut held = Resources {
            cpu_nanos: self.used.cpu_nanos.saturating_sub(self.leaving.cpu_nanos),
            memory_bytes: self.used.memory_bytes.saturating_sub(self.leaving.memory_bytes),
        };
        for claim in &self.claims {
            add(&mut held, claim.reservations);
        }
        held
    }

    /// What beside CPU, memory and constraints speaks against the node.
    pub fn extras(&self, state: &State, seeker: Seeker<'_>) -> Option<Obstacle> {
        if !fit::has_extras(seeker.spec) {
            return None;
        }
        fit::extras(state, self.node, seeker, Supposed::NOW).or_else(|| {
            let expected = Supposed { gone: &fit::leaving, come: &self.claims };
            let short = !self.claims.is_empty()
                && fit::extras(state, self.node, seeker, expected).is_some();
            short.then_some(Obstacle::Promised)
        })
    }

    /// The whole verdict on one task; none when the node can take it.
    pub fn obstacle(&self, state: &State, seeker: Seeker<'_>) -> Option<Obstacle> {
        if seeker.task.extras.target.is_some_and(|target| target != self.node.id) {
            return Some(Obstacle::Target);
        }
        self.unusable
            .or_else(|| fit::unmet(self.node, seeker.spec))
            .or_else(|| self.room(seeker.spec))
            .or_else(|| self.extras(state, seeker))
    }

    pub fn take(&mut self, spec: &TaskSpec) {
        add(&mut self.used, spec.reservations);
        self.tasks += 1;
    }

    /// A task that is here is looked at as if it were not.
    pub fn give_back(&mut self, spec: &TaskSpec) {
        let held = spec.reservations;
        self.used.cpu_nanos = self.used.cpu_nanos.saturating_sub(held.cpu_nanos);
        self.used.memory_bytes = self.used.memory_bytes.saturating_sub(held.memory_bytes);
        self.tasks = self.tasks.saturating_sub(1);
    }

    /// After tasks here were told to stop.
    pub fn refresh(&mut self, usage: Usage) {
        self.leaving = usage.leaving;
        self.leaving_tasks = usage.leaving_tasks;
    }

    pub fn free(&self) -> Resources {
        let Resources { cpu_nanos, memory_bytes } = self.node.description.capacity;
        Resources {
            cpu_nanos: cpu_nanos.saturating_sub(self.used.cpu_nanos),
            memory_bytes: memory_bytes.saturating_sub(self.used.memory_bytes),
        }
    }
}

fn add(to: &mut Resources, more: Resources) {
    to.cpu_nanos = to.cpu_nanos.saturating_add(more.cpu_nanos);
    to.memory_bytes = to.memory_bytes.saturating_add(more.memory_bytes);
}
