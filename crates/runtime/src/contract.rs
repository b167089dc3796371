//! What every runtime has to do, as cases that run on any of them.
//!
//! A case takes a [`Bench`], which makes runtime objects and says how the world around them looks.
//! [`contract_tests!`](crate::contract_tests) makes one test of each case. A case that needs what a
//! runtime cannot do (see [`Caps`](crate::Caps)) passes without running.
//!
//! Cases never sleep for a fixed time; they wait for a value, at most [`PATIENCE`].

mod bench;
mod exec;
mod isolation;
mod lifecycle;
mod logs;
mod process;
mod recovery;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

pub use bench::{Bench, EmbeddedBench, SimulatedBench};

use crate::observe::Caps;

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One case.
pub struct Case {
    /// Its name, the test's name.
    pub name: &'static str,
    /// Whether a runtime of these abilities has to pass it.
    pub applies: fn(&Caps) -> bool,
    /// The case itself; panics when the contract is broken.
    pub run: fn(Arc<dyn Bench>) -> Run,
}

/// A case under way.
pub type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// All cases.
pub fn cases() -> Vec<Case> {
    [
        lifecycle::cases(),
        process::cases(),
        isolation::cases(),
        logs::cases(),
        exec::cases(),
        recovery::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Runs one case and clears away everything it made, also when it fails.
pub async fn run_case(name: &str, bench: Arc<dyn Bench>) {
    let case =
        cases().into_iter().find(|case| case.name == name).expect("there is a case of this name");
    if !(case.applies)(&bench.runtime().caps()) {
        return;
    }
    let bounded = tokio::time::timeout(PATIENCE * 4, (case.run)(bench.clone()));
    let outcome = std::panic::AssertUnwindSafe(bounded).catch_unwind().await;
    bench.clear().await;
    match outcome {
        Ok(ran) => ran.expect("the case ends in time"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Waits for something that must happen.
async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen within {PATIENCE:?}: {what}"),
    }
}

/// Waits until a condition holds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A list of cases from async functions that take the bench.
macro_rules! case_list {
    ($($applies:expr => [$($name:ident),* $(,)?]),* $(,)?) => {
        pub fn cases() -> Vec<$crate::contract::Case> {
            vec![$($($crate::contract::Case {
                name: stringify!($name),
                applies: $applies,
                run: |bench| Box::pin($name(bench)),
            },)*)*]
        }
    };
}
use case_list;

/// Makes a test of every case: `contract_tests!(module_name, make_bench)`, where `make_bench` is a
/// function that gives an `Arc<dyn Bench>`.
#[macro_export]
macro_rules! contract_tests {
    ($module:ident, $bench:expr) => {
        $crate::contract_tests!(@each $module, $bench,
            // lifecycle
            an_exit_code_is_told, wait_is_repeatable_and_late, wait_may_be_dropped, a_kill_is_told_as_signal,
            stop_lets_it_end, stop_kills_after_the_grace, stop_of_a_created_one_is_quick, create_is_idempotent,
            start_is_idempotent, remove_is_idempotent, a_live_one_needs_force, unknown_ids_are_not_found,
            labels_select, events_wake, bad_specs_name_the_field, twenty_at_once, stats_cover_live_ones,
            // process
            commands_combine_as_docker_does, environment_folder_user_and_host_name, image_user_by_name,
            signals_reach_the_command, failed_creates_leave_nothing, nothing_is_left_after_remove,
            the_command_starts_only_at_start, what_cannot_be_executed_says_so,
            // isolation
            system_calls_are_filtered, capabilities_are_dockers, a_plain_user_holds_no_capability,
            read_only_root_is_read_only, mounts_are_there, limits_are_in_the_cgroup, limits_can_be_changed,
            the_pids_limit_holds, out_of_memory_of_the_command, out_of_memory_of_a_child, own_namespaces,
            network_namespace_by_path,
            // logs
            both_streams_are_kept, tail_and_since, follow_ends_with_the_container, follow_sees_rotation,
            long_and_unfinished_lines, logs_of_unknown_ids_fail,
            // exec
            exec_gives_output_and_code, exec_reads_stdin, exec_is_as_confined_as_the_container,
            exec_has_its_own_user_and_environment, exec_needs_a_running_container, exec_of_nothing_says_so,
            a_dropped_exec_is_killed, a_whole_exec_ends_with_its_children, many_execs_at_once,
            // recovery
            a_running_one_is_found_again, a_created_one_is_found_and_started, an_exit_while_away_is_replayed,
            a_lost_shim_is_replaced_at_once, a_lost_shim_is_replaced_after_a_restart, shim_and_container_lost_while_away,
            shim_and_container_lost_while_watched, an_unfinished_create_is_swept, damaged_folders_do_not_stop_recovery,
            damaged_state_of_a_living_one, foreign_cgroups_are_swept, a_reboot_is_told, a_reused_pid_is_left_alone,
            recover_twice_changes_nothing, logs_survive_a_lost_shim,
        );
    };
    (@each $module:ident, $bench:expr, $($name:ident),* $(,)?) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $crate::contract::run_case(stringify!($name), $bench()).await;
                }
            )*
            #[test]
            fn no_case_is_forgotten() {
                let listed = [$(stringify!($name)),*];
                for case in $crate::contract::cases() {
                    assert!(listed.contains(&case.name), "{} is not in the list of contract_tests!", case.name);
                }
            }
        }
    };
}
