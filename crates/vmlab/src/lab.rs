//! A lab: bringing it up, its machines' power, taking it down.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::accelerator::{self, Accelerator};
use crate::base::Base;
use crate::error::{Error, Result};
use crate::machine::{self, Machine};
use crate::state::{self, Folder, State, create, remove};
use crate::{network, qemu, ssh};

/// On real hardware a tenth of it does.
const BOOTS_WITHIN: Duration = Duration::from_secs(60);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything is kept here; absolute.
    pub folder: PathBuf,
    pub managers: usize,
    pub workers: usize,
    pub memory_mb: u32,
    /// Found out by a test boot unless given.
    pub accelerator: Option<Accelerator>,
    /// Where Debian packages come from; mmdebstrap's own choice unless given.
    pub mirror: Option<String>,
}

/// How one machine is.
#[derive(Clone, Debug)]
pub struct MachineStatus {
    pub machine: Machine,
    /// The qemu that runs it; `None` when it is off.
    pub pid: Option<i32>,
}

/// A lab that is up.
#[derive(Debug)]
pub struct VmLab {
    folder: Folder,
    base: Base,
    state: State,
    machines: Vec<Machine>,
}

impl VmLab {
    /// Makes the image that machines begin with, unless there is one; [`VmLab::up`] would too.
    pub fn prepare(options: &Options, say: &mut dyn FnMut(&str)) -> Result<()> {
        let folder = Folder::new(&options.folder);
        let _lock = folder.lock()?;
        // Disks of machines that are there build on the image as it is.
        if folder.load()?.is_some() {
            return Ok(());
        }
        make_base(&Base::at(folder.root()), options, say)
    }

    /// Starts what is missing of it and returns when every machine lets us in; `say` is told what
    /// is going on. What this call began is ended again if it fails; the machines' consoles are
    /// kept then.
    pub fn up(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let folder = Folder::new(&options.folder);
        let _lock = folder.lock()?;
        state::claim(folder.root())?;
        let machines = machine::all(options.managers, options.workers)?;
        let base = Base::at(folder.root());
        let before = folder.load()?;
        if before.is_none() {
            // What an interrupted start left; without its state nobody can use it.
            clear(&folder)?;
            state::claim(folder.root())?;
        }
        let outcome = Self::bring_up(options, folder.clone(), base, machines, before.clone(), say);
        if outcome.is_err() && before.is_none() {
            let _ = keep_logs(&folder);
            clear(&folder)?;
        }
        outcome
    }

    fn bring_up(
        options: &Options,
        folder: Folder,
        base: Base,
        machines: Vec<Machine>,
        before: Option<State>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let state = if let Some(state) = before {
            let wanted = State {
                managers: options.managers,
                workers: options.workers,
                memory_mb: options.memory_mb,
                ..state.clone()
            };
            if wanted != state {
                return Err(Error::OtherSize { found: state.size(), wanted: wanted.size() });
            }
            state
        } else {
            make_base(&base, options, say)?;
            create(&folder.run())?;
            let accelerator = match options.accelerator {
                Some(accelerator) => accelerator,
                None => accelerator::probe(&base, &folder.run())?,
            };
            say(&format!("machines run by {}", accelerator.shown()));
            State {
                managers: options.managers,
                workers: options.workers,
                memory_mb: options.memory_mb,
                accelerator,
                id: rand::random(),
            }
        };
        folder.store(&state)?;
        network::create(&machines)?;
        ssh::write_config(&folder, &base, &machines)?;
        let lab = Self { folder, base, state, machines };
        let begin = Instant::now();
        for machine in &lab.machines {
            if qemu::pid(&lab.folder, &machine.name()).is_none() {
                qemu::make_disk(&lab.folder, &lab.base, &machine.name())?;
                qemu::start(&lab.folder, &lab.base, &lab.state, machine)?;
            }
        }
        for machine in &lab.machines {
            lab.wait(&machine.name())?;
            say(&format!(
                "{} at {} lets us in after {:.0} s",
                machine.name(),
                machine.address(),
                begin.elapsed().as_secs_f64()
            ));
        }
        Ok(lab)
    }

    /// The lab that is up.
    pub fn open(folder: &Path) -> Result<Self> {
        let folder = Folder::new(folder);
        let state = folder.load()?.ok_or(Error::NotUp)?;
        let machines = machine::all(state.managers, state.workers)?;
        let base = Base::at(folder.root());
        Ok(Self { folder, base, state, machines })
    }

    /// Removes the lab, whatever state it is in, and says what could not be removed.
    pub fn down(folder: &Path, with_base: bool) -> Result<Vec<String>> {
        let folder = Folder::new(folder);
        let lock = folder.lock()?;
        clear(&folder)?;
        if with_base {
            Base::at(folder.root()).remove()?;
            remove(&folder.logs())?;
        }
        drop(lock);
        Ok(leftovers(&folder))
    }

    /// What `down` does, while a start of this very process is going on; nothing may come after.
    pub fn abandon(folder: &Path) -> Result<()> {
        let folder = Folder::new(folder);
        clear(&folder)?;
        // The start may have begun one more machine meanwhile, and can begin none without a folder.
        if leftovers(&folder).is_empty() { Ok(()) } else { clear(&folder) }
    }

    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    pub fn machine(&self, name: &str) -> Result<&Machine> {
        self.machines.iter().find(|machine| machine.name() == name).ok_or_else(|| {
            let known: Vec<_> = self.machines.iter().map(Machine::name).collect();
            Error::NoSuchMachine { name: name.to_owned(), known: known.join(", ") }
        })
    }

    pub fn accelerator(&self) -> Accelerator {
        self.state.accelerator
    }

    /// What `down` removes; callers may keep files of their own here.
    pub fn run_folder(&self) -> PathBuf {
        self.folder.run()
    }

    pub fn status(&self) -> Vec<MachineStatus> {
        let status = |machine: &Machine| MachineStatus {
            machine: machine.clone(),
            pid: qemu::pid(&self.folder, &machine.name()),
        };
        self.machines.iter().map(status).collect()
    }

    /// Power off without a warning. One that is off stays off.
    pub fn power_off(&self, name: &str) -> Result<()> {
        self.machine(name)?;
        // The shared connection would only find out after minutes; ending it says nothing to the
        // machine that a user's closing of a terminal would not.
        ssh::disconnect(&self.folder, name);
        qemu::cut(&self.folder, name)
    }

    /// Power on, with the same disk; does not wait.
    pub fn power_on(&self, name: &str) -> Result<()> {
        let machine = self.machine(name)?;
        if qemu::pid(&self.folder, name).is_some() {
            return Ok(());
        }
        qemu::start(&self.folder, &self.base, &self.state, machine)
    }

    /// Waits until the machine lets us in.
    pub fn wait(&self, name: &str) -> Result<()> {
        let machine = self.machine(name)?;
        self.must_be_on(name)?;
        // Machines that boot at once share the processors.
        let count = u32::try_from(self.machines.len()).unwrap_or(u32::MAX);
        let within = BOOTS_WITHIN * count.max(2) * self.state.accelerator.patience().min(2);
        ssh::wait(&self.folder, machine, within)
    }

    fn must_be_on(&self, name: &str) -> Result<()> {
        match qemu::pid(&self.folder, name) {
            Some(_) => Ok(()),
            None => Err(Error::Off { machine: name.to_owned() }),
        }
    }

    /// Runs a shell script on the machine; returns what it printed.
    pub fn script(&self, name: &str, script: &str) -> Result<String> {
        self.machine(name)?;
        self.must_be_on(name)?;
        ssh::script(&self.folder, name, script)
    }

    /// The same with input; for what must be on no command line.
    pub fn script_with_input(&self, name: &str, script: &str, input: &[u8]) -> Result<String> {
        self.machine(name)?;
        self.must_be_on(name)?;
        ssh::script_with_input(&self.folder, name, script, input)
    }

    /// Copies files and folders into a folder of the machine.
    pub fn copy(&self, name: &str, files: &[&Path], target: &str) -> Result<()> {
        self.machine(name)?;
        self.must_be_on(name)?;
        ssh::copy(&self.folder, name, files, target)
    }

    /// `ssh` to the machine, with the caller's terminal.
    pub fn ssh(&self, name: &str, script: Option<&str>) -> Result<Command> {
        self.machine(name)?;
        self.must_be_on(name)?;
        Ok(ssh::command(&self.folder, name, script))
    }

    /// A program of this computer that will run on the machines' network.
    pub fn command(&self, program: &Path) -> Command {
        network::command(&program.to_string_lossy())
    }

    /// Runs `act` on a thread that is on the machines' network.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        network::inside(act)
    }

    /// Copies what machines and qemu said to a folder that outlives the lab; returns it.
    pub fn keep_logs(&self) -> Result<PathBuf> {
        keep_logs(&self.folder)
    }
}

fn make_base(base: &Base, options: &Options, say: &mut dyn FnMut(&str)) -> Result<()> {
    if base.is_fresh() {
        return Ok(());
    }
    let begin = Instant::now();
    say("making the Debian image, once");
    base.build(options.mirror.as_deref())?;
    say(&format!("the Debian image took {:.0} s", begin.elapsed().as_secs_f64()));
    Ok(())
}

/// Ends and removes everything of the lab but image and kept logs.
fn clear(folder: &Folder) -> Result<()> {
    for name in names(folder) {
        ssh::disconnect(folder, &name);
        qemu::cut(folder, &name)?;
    }
    network::remove()?;
    remove(&folder.run())?;
    state::release(folder.root())
}

/// The machines that have a disk, known or not to a state.
fn names(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.run()).into_iter().flatten().flatten();
    let machines = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| folder.disk(name).exists()));
    machines.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn keep_logs(folder: &Folder) -> Result<PathBuf> {
    let logs = folder.logs();
    create(&logs)?;
    for name in names(folder) {
        for (what, path) in [("console", folder.console(&name)), ("qemu", folder.qemu_log(&name))] {
            let target = logs.join(format!("{name}-{what}.log"));
            if path.exists() {
                fs::copy(&path, &target).map_err(|source| Error::file("copying", &path, source))?;
            }
        }
    }
    Ok(logs)
}

/// Processes whose command line names the lab's folder, and what else `down` should have removed.
fn leftovers(folder: &Folder) -> Vec<String> {
    let needle = folder.run().to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut left: Vec<String> = entries
        .filter_map(|entry| {
            let pid = entry.file_name().into_string().ok()?.parse::<u32>().ok()?;
            let line = String::from_utf8_lossy(&fs::read(entry.path().join("cmdline")).ok()?)
                .replace('\0', " ");
            line.contains(&needle).then(|| format!("process {pid} ({})", line.trim()))
        })
        .collect();
    if Path::new("/run/netns").join(network::NAMESPACE).exists() {
        left.push(format!("network namespace {}", network::NAMESPACE));
    }
    if folder.run().exists() {
        left.push(format!("folder {}", folder.run().display()));
    }
    left
}
