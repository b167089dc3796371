//! The life of one task as a pure function: what is wanted and what is there give one action.
//!
//! No clock, no I/O, no memory: [`step`] is asked again after every change, and doing its answer
//! twice is harmless. A task is one attempt, so nothing here ever starts a container a second time;
//! replacing an attempt is the managers' business.

use cluster_model::Desired;

/// What the managers want, as far as it matters on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Goal {
    /// Set up and waiting.
    Ready,
    Running,
    /// Ended; what is kept of it stays readable.
    Stopped,
    /// Ended and forgotten.
    Gone,
}

impl Goal {
    pub fn of(desired: Desired) -> Self {
        match desired {
            Desired::Ready => Goal::Ready,
            // A task that ends by itself runs until it does.
            Desired::Running | Desired::Complete => Goal::Running,
            Desired::Shutdown => Goal::Stopped,
            Desired::Remove => Goal::Gone,
        }
    }
}

/// The container as the runtime tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Absent,
    Created,
    Running,
    Exited,
}

/// How far ending a running container has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopping {
    NotAsked,
    /// The stop signal was sent, and its grace period runs.
    Asked,
    /// The grace period is over.
    Overdue,
    /// SIGKILL was sent.
    Killed,
}

/// All that is known of a task on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The task's image is here and held.
    pub image: bool,
    /// The task has a network.
    pub attached: bool,
    pub container: Container,
    /// The final state was written down and reported; the attempt is over.
    pub settled: bool,
    /// No balancer sends anything new here, or there is no use in waiting for that.
    pub withdrawn: bool,
    /// No connection that was open is waited for any more.
    pub drained: bool,
    /// It is to end here whatever the managers want, and at once: it is unhealthy, or nobody has
    /// heard this node for too long.
    pub doomed: bool,
    pub stopping: Stopping,
}

/// The one thing to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    Wait,
    EnsureImage,
    Attach,
    Create,
    Start,
    /// Wait until the balancers have let go.
    AwaitWithdrawal,
    /// Wait until open connections have ended.
    Drain,
    /// Send the stop signal.
    Stop,
    Kill,
    /// Work out how the attempt ended, write it down, report it.
    Settle,
    /// Remove a container, its output and its files.
    Remove,
    Detach,
    /// Nothing is left: drop the task.
    Forget,
}

/// Says what to do next.
pub fn step(goal: Goal, facts: &Facts) -> Action {
    if facts.settled {
        return after_the_end(goal, facts);
    }
    let goal = if facts.doomed { goal.max(Goal::Stopped) } else { goal };
    match (goal, facts.container) {
        (_, Container::Exited) => Action::Settle,
        (Goal::Ready | Goal::Running, Container::Absent) => prepare(facts),
        (Goal::Ready, Container::Created | Container::Running) => Action::Wait,
        (Goal::Running, Container::Created) => Action::Start,
        (Goal::Running, Container::Running) => Action::Wait,
        (Goal::Stopped | Goal::Gone, Container::Absent) => Action::Settle,
        // It has not begun, so there is nothing to ask politely.
        (Goal::Stopped | Goal::Gone, Container::Created) => Action::Remove,
        (Goal::Stopped | Goal::Gone, Container::Running) => end(facts),
    }
}

fn prepare(facts: &Facts) -> Action {
    if !facts.image {
        Action::EnsureImage
    } else if !facts.attached {
        Action::Attach
    } else {
        Action::Create
    }
}

fn end(facts: &Facts) -> Action {
    match facts.stopping {
        Stopping::NotAsked if facts.doomed => Action::Stop,
        Stopping::NotAsked if !facts.withdrawn => Action::AwaitWithdrawal,
        Stopping::NotAsked if !facts.drained => Action::Drain,
        Stopping::NotAsked => Action::Stop,
        Stopping::Asked | Stopping::Killed => Action::Wait,
        Stopping::Overdue => Action::Kill,
    }
}

/// The network goes at once, the container with its output when the managers let go of the task.
fn after_the_end(goal: Goal, facts: &Facts) -> Action {
    if facts.attached {
        Action::Detach
    } else if goal != Goal::Gone {
        Action::Wait
    } else if facts.container != Container::Absent {
        Action::Remove
    } else {
        Action::Forget
    }
}

#[cfg(test)]
mod tests;
