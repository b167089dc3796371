//! Deliberate bugs, so that the simulation can show that it would find them.
//!
//! Each stands where the real mistake would be made. Without `--cfg cluster_mutants`, which only
//! `cargo xtask sim` gives, [`is`] is a constant `false` and the compiler removes them all; with it, a
//! thread switches one on for itself. It is no feature of this crate: cargo would switch it on for
//! every program that is built beside the simulation.

macro_rules! mutants {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        /// A bug that can be switched on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant { $($(#[doc = $doc])* $name,)* }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Mutant] = &[$(Mutant::$name,)*];

            /// Its name on command lines.
            pub const fn name(self) -> &'static str {
                match self { $(Mutant::$name => $text,)* }
            }
        }
    };
}

mutants! {
    /// `apply` takes a task for a slot that is filled already.
    DoublePlacement = "double-placement";
    /// `apply` changes a service although it changed since it was read.
    ForgottenCompare = "forgotten-compare";
    /// `apply` takes reports that move a task backwards.
    StatusGoesBack = "status-goes-back";
    /// Whether a node has memory left is not looked at.
    Overcommit = "overcommit";
    /// `apply` depends on something that differs between managers.
    ImpureApply = "impure-apply";
    /// The log acknowledges what it has not synced.
    AckBeforeSync = "ack-before-sync";
    /// Reads answer from what this manager happens to have.
    StaleRead = "stale-read";
    /// Changed tasks do not wake the sessions of their nodes.
    LostWakeUp = "lost-wake-up";
    /// Workers take assignments that are older than what they hold.
    ForgottenFence = "forgotten-fence";
    /// Workers forget reports once they are sent, not once they are committed.
    ForgottenReport = "forgotten-report";
    /// A node that was down stays down when it is heard again.
    NodeStaysDown = "node-stays-down";
    /// Workers let containers run that are no longer assigned.
    KeptOrphans = "kept-orphans";
    /// A worker that restarts does not look for its containers.
    ForgottenContainers = "forgotten-containers";
    /// A manager does not write down for whom it voted.
    ForgottenVote = "forgotten-vote";
}

#[cfg(cluster_mutants)]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    /// Whether this build has the bugs.
    pub const AVAILABLE: bool = true;

    thread_local! {
        static PRESENT: Cell<Option<Mutant>> = const { Cell::new(None) };
        static NOISE: Cell<u64> = const { Cell::new(0) };
    }

    /// This thread behaves so from now on.
    pub fn switch(mutant: Option<Mutant>) {
        PRESENT.set(mutant);
    }

    /// Whether this thread behaves so.
    pub fn is(mutant: Mutant) -> bool {
        PRESENT.get() == Some(mutant)
    }

    /// Another number each time.
    pub fn noise() -> u64 {
        NOISE.set(NOISE.get() + 1);
        NOISE.get()
    }
}

#[cfg(not(cluster_mutants))]
mod switch {
    use super::Mutant;

    /// Whether this build has the bugs.
    pub const AVAILABLE: bool = false;

    /// Nothing to switch.
    pub fn switch(_: Option<Mutant>) {}

    /// Never.
    #[inline(always)]
    pub const fn is(_: Mutant) -> bool {
        false
    }

    /// Nothing.
    #[inline(always)]
    pub const fn noise() -> u64 {
        0
    }
}

pub use switch::*;
