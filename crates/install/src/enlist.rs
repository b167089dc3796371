//! From settings to a running member, or back to where it began.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::env_file::{self, Settings};
use crate::folder::user_of;
use crate::systemd::{self, Systemd, UnitState};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A unit that is not even starting by then will not.
const IDLE_MAX: Duration = Duration::from_secs(5);
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Ends of names: where the daemon keeps everything, and what is shown nowhere.
const DATA_DIR: &str = "_DATA_DIR";
const TOKEN: &str = "_TOKEN";
const HIDDEN: &str = "(not shown)";

/// How far a data folder's daemon has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has no identity.
    Stranger,
    /// It has an identity, and is not known to be a full member yet.
    Begun,
    Member,
}

/// What is to be done.
pub struct Plan<'a> {
    /// `cluster-worker`: program, package and unit are called alike.
    pub unit: &'a str,
    /// What the user gave, such as `cluster-worker join`.
    pub command: &'a str,
    pub env_file: &'a Path,
    /// The user's own file, whose settings win.
    pub defaults: &'a Path,
    pub data_dir: &'a Path,
    pub kept: Settings,
    /// Those of `kept` that the user named: a member that has others is not what was asked for.
    pub asked: Settings,
    /// Needed until it is a member: the token, and whom to ask.
    pub once: Settings,
    /// Further names that must not stay in the file of a member.
    pub transient: &'a [&'a str],
    pub standing: &'a dyn Fn() -> Standing,
    /// Bound on becoming ready.
    pub wait: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was, and nothing was changed.
    Already,
    /// It is now.
    Enlisted,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "there is no {unit}.service on this machine: install the package {unit} (`apt install \
         ./{unit}_*.deb`), then give this command again"
    )]
    NotInstalled { unit: String },
    #[error(transparent)]
    Systemd(#[from] systemd::Error),
    #[error(transparent)]
    Settings(#[from] env_file::Error),
    #[error(
        "{} sets {name}={theirs}, which wins over {name}={ours} of this command: take that line out, \
         or leave the option out here", path.display()
    )]
    Overruled { path: PathBuf, name: String, theirs: String, ours: String },
    #[error(
        "this machine is a member already, with {name}={theirs} and not {ours}: leave the option out, or \
         set {name} in {} and `systemctl restart {unit}`", defaults.display()
    )]
    Differs { unit: String, defaults: PathBuf, name: String, theirs: String, ours: String },
    #[error(
        "process {pid} uses {} and is not {unit}.service: stop it (`kill {pid}`), then give this \
         command again", dir.display()
    )]
    InUse { dir: PathBuf, pid: u32, unit: String },
    #[error(
        "{unit}.service runs, but {} has no identity: stop it (`systemctl stop {unit}`), then give \
         this command again", dir.display()
    )]
    RunsAsStranger { unit: String, dir: PathBuf },
    #[error(
        "{unit} did not start; nothing is left of this attempt. It said:\n{}\n{}",
        indented(words),
        again(command)
    )]
    Undone { unit: String, command: String, words: Vec<String> },
    #[error(
        "{unit} did not start, and this attempt could not be taken back: {problem}. It said:\n{}",
        indented(words)
    )]
    NotUndone { unit: String, problem: String, words: Vec<String> },
    #[error(
        "this machine has its certificate, but {unit} is not ready after {} s ({state}). It goes on \
         trying by itself: see `journalctl -u {unit} -f`, or give the same command again to wait{}. It \
         said:\n{}", after.as_secs(), token_stays(env_file.as_deref()), indented(words)
    )]
    NotReady {
        unit: String,
        after: Duration,
        state: String,
        /// The file that has the token still.
        env_file: Option<PathBuf>,
        words: Vec<String>,
    },
}

fn indented(words: &[String]) -> String {
    if words.is_empty() {
        return "  (nothing)".to_owned();
    }
    words.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn token_stays(file: Option<&Path>) -> String {
    file.map_or_else(String::new, |file| {
        format!(" and take the join token out of {}, where it stays until then", file.display())
    })
}

fn again(command: &str) -> String {
    format!("Set right what it says, then give `{command}` again.")
}

/// Carries out the plan. `say` tells a person how far it is.
pub fn enlist(
    plan: &Plan<'_>,
    systemd: &Systemd,
    say: &mut dyn FnMut(&str),
) -> Result<Outcome, Error> {
    let state = systemd.state(&service(plan))?;
    if state.load == "not-found" {
        return Err(Error::NotInstalled { unit: plan.unit.to_owned() });
    }
    check_defaults(plan)?;
    // A daemon that is just starting has the lock, but may not have written who it is.
    let is_the_unit = |pid: u32| state.pid != 0 && (pid == state.pid || pid == 0);
    if let Some(pid) = user_of(plan.data_dir).filter(|pid| !is_the_unit(*pid)) {
        let dir = plan.data_dir.to_owned();
        return Err(Error::InUse { dir, pid, unit: plan.unit.to_owned() });
    }
    let before = (plan.standing)();
    let previous = env_file::read(plan.env_file)?;
    if before == Standing::Member {
        check_asked(plan, previous.as_deref())?;
    }
    match (state.is_active(), before) {
        (true, Standing::Member) => {
            // An earlier attempt may have ended before this.
            forget_once(plan)?;
            systemd.enable(&service(plan))?;
            return Ok(Outcome::Already);
        }
        (true, Standing::Stranger) => {
            let (unit, dir) = (plan.unit.to_owned(), plan.data_dir.to_owned());
            return Err(Error::RunsAsStranger { unit, dir });
        }
        _ => {}
    }
    // Else its failure would be taken for that of the start to come.
    if state.waits_for_restart() {
        systemd.stop(&service(plan))?;
    }
    prepare(plan, before, previous.as_deref())?;
    say(&format!("starting {}.service", plan.unit));
    let begun = systemd.enable(&service(plan)).and_then(|()| systemd.start(&service(plan)));
    let waited = match begun {
        Ok(()) => wait(plan, systemd, say),
        Err(error) => Err(Stopped {
            after: Duration::ZERO,
            state: "not started".to_owned(),
            words: vec![error.to_string()],
        }),
    };
    let Err(stopped) = waited else {
        forget_once(plan)?;
        return Ok(Outcome::Enlisted);
    };
    if (plan.standing)() != Standing::Stranger {
        return Err(not_ready(plan, stopped)?);
    }
    let unit = plan.unit.to_owned();
    let undone = systemd.disable(&service(plan)).map_err(Error::from).and_then(|()| {
        if (plan.standing)() == Standing::Stranger {
            return restore(plan, previous.as_deref()).map(|()| true);
        }
        // It got its certificate just before it was stopped: it goes on.
        systemd.enable(&service(plan))?;
        systemd.start(&service(plan))?;
        Ok(false)
    });
    match undone {
        Ok(true) => {
            let (command, words) = (plan.command.to_owned(), stopped.words);
            Err(Error::Undone { unit, command, words })
        }
        Ok(false) => Err(not_ready(plan, stopped)?),
        Err(error) => {
            let problem = cluster_daemon::chain(&error);
            Err(Error::NotUndone { unit, problem, words: stopped.words })
        }
    }
}

/// A member, or nearly: it is left to go on. What a member needs no more is taken out of its file.
fn not_ready(plan: &Plan<'_>, stopped: Stopped) -> Result<Error, Error> {
    if (plan.standing)() == Standing::Member {
        forget_once(plan)?;
    }
    let text = env_file::read(plan.env_file)?.unwrap_or_default();
    let has_token = env_file::parse(&text).iter().any(|(name, _)| name.ends_with(TOKEN));
    let env_file = has_token.then(|| plan.env_file.to_owned());
    let Stopped { after, state, words } = stopped;
    Ok(Error::NotReady { unit: plan.unit.to_owned(), after, state, env_file, words })
}

fn service(plan: &Plan<'_>) -> String {
    format!("{}.service", plan.unit)
}

/// What the user set for good must not silently win over what was asked for now.
fn check_defaults(plan: &Plan<'_>) -> Result<(), Error> {
    let text = env_file::read(plan.defaults)?.unwrap_or_default();
    let data_dir = plan.data_dir.to_string_lossy().into_owned();
    for (name, theirs) in env_file::parse(&text) {
        let given = plan.asked.iter().chain(&plan.once).find(|(other, _)| *other == name);
        let ours = match given {
            Some((_, ours)) => ours,
            // Where the daemon looks is where we look, whoever says so.
            None if name.ends_with(DATA_DIR) => &data_dir,
            None => continue,
        };
        if *ours != theirs {
            let shown = |value: &str| if name.ends_with(TOKEN) { HIDDEN } else { value }.to_owned();
            let (path, theirs, ours) = (plan.defaults.to_owned(), shown(&theirs), shown(ours));
            return Err(Error::Overruled { path, name, theirs, ours });
        }
    }
    Ok(())
}

/// What was asked for now must be what a member has, from its file or from the user's, which wins.
fn check_asked(plan: &Plan<'_>, previous: Option<&str>) -> Result<(), Error> {
    let defaults = env_file::read(plan.defaults)?.unwrap_or_default();
    let defaults = env_file::parse(&defaults);
    for (name, theirs) in env_file::parse(previous.unwrap_or_default()) {
        if defaults.iter().any(|(other, _)| *other == name) {
            // Compared already.
            continue;
        }
        let ours = plan.asked.iter().find(|(other, _)| *other == name);
        if let Some((_, ours)) = ours.filter(|(_, ours)| *ours != theirs) {
            let (unit, defaults) = (plan.unit.to_owned(), plan.defaults.to_owned());
            return Err(Error::Differs { unit, defaults, name, theirs, ours: ours.clone() });
        }
    }
    Ok(())
}

/// Settings before the start. A member's are left as they are.
fn prepare(plan: &Plan<'_>, before: Standing, previous: Option<&str>) -> Result<(), Error> {
    let settings = match (before, previous) {
        (Standing::Member, Some(_)) => return Ok(()),
        (Standing::Member, None) => plan.kept.clone(),
        _ => [plan.kept.as_slice(), &plan.once].concat(),
    };
    Ok(env_file::write(plan.env_file, plan.command, &settings)?)
}

/// Takes what was needed once out of the file.
fn forget_once(plan: &Plan<'_>) -> Result<(), Error> {
    let Some(text) = env_file::read(plan.env_file)? else { return Ok(()) };
    if !names_once(plan, &text) {
        return Ok(());
    }
    let settings = env_file::parse(&text).into_iter();
    let kept: Settings = settings.filter(|(name, _)| !is_once(plan, name)).collect();
    Ok(env_file::write(plan.env_file, plan.command, &kept)?)
}

/// Not for the file of a member.
fn is_once(plan: &Plan<'_>, name: &str) -> bool {
    plan.once.iter().any(|(once, _)| once == name) || plan.transient.contains(&name)
}

fn names_once(plan: &Plan<'_>, text: &str) -> bool {
    env_file::parse(text).iter().any(|(name, _)| is_once(plan, name))
}

/// The settings as they were before.
fn restore(plan: &Plan<'_>, previous: Option<&str>) -> Result<(), Error> {
    match previous {
        // What an interrupted attempt left is no more worth than this one; a member's is.
        Some(text) if !env_file::is_ours(text) || !names_once(plan, text) => {
            Ok(env_file::restore(plan.env_file, text)?)
        }
        _ => Ok(env_file::remove(plan.env_file)?),
    }
}

/// It did not become ready.
struct Stopped {
    after: Duration,
    state: String,
    words: Vec<String>,
}

fn wait(plan: &Plan<'_>, systemd: &Systemd, say: &mut dyn FnMut(&str)) -> Result<(), Stopped> {
    let begun = Instant::now();
    let (mut told, mut told_at) = (String::new(), begun);
    loop {
        let state = match systemd.state(&service(plan)) {
            Ok(state) => state,
            // A bus that is slow for a moment says nothing about the unit.
            Err(_) if begun.elapsed() < plan.wait => {
                thread::sleep(LOOK_EVERY);
                continue;
            }
            Err(_) => UnitState::default(),
        };
        if state.is_active() && (plan.standing)() == Standing::Member {
            return Ok(());
        }
        // Started again by systemd, it is another invocation, and what it said is in the one before.
        let invocation = if state.restarts == 0 { state.invocation.as_str() } else { "" };
        let words = || systemd.last_words(&service(plan), invocation);
        if has_ended(&state, begun.elapsed()) || begun.elapsed() >= plan.wait {
            let shown = format!("{} ({})", state.active, state.sub);
            return Err(Stopped { after: begun.elapsed(), state: shown, words: words() });
        }
        if state.status != told && !state.status.is_empty() {
            say(&state.status);
            told.clone_from(&state.status);
            told_at = Instant::now();
        } else if told_at.elapsed() >= SAY_EVERY {
            say(&format!("waiting for {} ({} s)", plan.unit, begun.elapsed().as_secs()));
            told_at = Instant::now();
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn has_ended(state: &UnitState, after: Duration) -> bool {
    let idle = matches!(state.active.as_str(), "inactive" | "") && after > IDLE_MAX;
    state.active == "failed" || state.waits_for_restart() || state.restarts > 0 || idle
}

#[cfg(test)]
mod tests;
