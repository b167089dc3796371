//! One manager on loopback, without a lab: for what its data folder and its flags do to it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::cluster::{Ran, SOON};
use crate::{install, until};

/// A data folder and a port of the machine's choice. It may lie on a file system of its own, which
/// only the managers started here see.
pub struct Folder {
    root: TempDir,
    port: u16,
    mounts: Option<Mounts>,
}

/// A process that keeps a private mount namespace alive until its stdin is closed.
struct Mounts(Child);

impl Mounts {
    fn run(&self, script: &str, path: &Path) {
        let status = Command::new("nsenter")
            .args(["-t", &self.0.id().to_string(), "-m", "sh", "-ec", script, "sh"])
            .arg(path)
            .status();
        assert!(status.expect("nsenter runs").success(), "{script}");
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Folder {
    #[expect(clippy::new_without_default, reason = "it asks the machine for a port")]
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("data")).expect("the data folder");
        // Nothing else here asks for this port before the manager does.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("the port").port();
        Self { root, port, mounts: None }
    }

    /// A folder on a file system in memory, of this size.
    pub fn of_size(size: &str) -> Self {
        let mut folder = Self::new();
        let script = "mount -t tmpfs -o size=\"$2\" tmpfs \"$1\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh"])
            .arg(folder.data())
            .arg(size)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut line = String::new();
        let out = holder.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("its answer");
        folder.mounts = Some(Mounts(holder));
        assert_eq!(line.trim(), "mounted");
        folder
    }

    /// Changes options of the folder's own file system, such as `size=64m` or `ro`.
    pub fn remount(&self, options: &str) {
        let mounts = self.mounts.as_ref().expect("a file system of its own");
        mounts.run(&format!("mount -o remount,{options} \"$1\""), &self.data());
    }

    /// The folder's path for the manager.
    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// A file of the folder as this process reaches it.
    pub fn file(&self, name: &str) -> PathBuf {
        let path = self.data().join(name);
        match &self.mounts {
            Some(Mounts(holder)) => {
                let inside = path.strip_prefix("/").expect("an absolute path");
                Path::new("/proc").join(holder.id().to_string()).join("root").join(inside)
            }
            None => path,
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The first segment of the log.
    pub fn segment(&self) -> PathBuf {
        self.file("raft/log/00000000000000000001.log")
    }

    fn command(&self, args: &[&str]) -> Command {
        let program = install::bin_dir().join("cluster-manager");
        let mut command = match &self.mounts {
            Some(Mounts(holder)) => {
                let mut command = Command::new("nsenter");
                command.args(["-t", &holder.id().to_string(), "-m"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        if !args.contains(&"--data-dir") {
            command.arg("--data-dir").arg(self.data());
        }
        if !args.contains(&"--listen") {
            command.args(["--listen", &self.address()]);
        }
        if !args.contains(&"--name") {
            command.args(["--name", "m1"]);
        }
        command.args(args);
        command
    }

    /// Starts a manager, which may or may not live.
    pub fn spawn(&self, args: &[&str]) -> Manager<'_> {
        let log = self.root.path().join("stderr");
        let stderr = File::create(&log).expect("a file for its log");
        let mut command = self.command(args);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        Manager { folder: self, child: child.expect("the manager starts"), log }
    }

    /// Starts a manager and waits until it answers; it is the only one of its cluster.
    pub fn start(&self, args: &[&str]) -> Manager<'_> {
        let mut manager = self.spawn(args);
        until("the manager answers", SOON, || {
            assert!(!manager.has_ended(), "the manager ended: {}", manager.told());
            let ran = manager.ctl(&["cluster", "info"]);
            if ran.code == 0 { Ok(()) } else { Err(format!("{ran:?}\n{}", manager.told())) }
        });
        manager
    }

    /// Runs a subcommand of the manager's program to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        let program = install::bin_dir().join("cluster-manager");
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).output().expect("the manager's program").into()
    }

    /// Starts a manager that joins the one in `first`, and waits until it is a member.
    pub fn join(&self, first: &Folder, name: &str, more: &[&str]) -> Manager<'_> {
        let context = first.file("admin.json");
        let ran = ctl(&context, &["cluster", "token", "--role", "manager", "--quiet"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let (address, token) = (first.address(), ran.stdout.trim().to_owned());
        let args = ["--join", &address, "--token", &token, "--name", name];
        let mut manager = self.spawn(&[&args, more].concat());
        until("the manager is a member", SOON, || {
            assert!(!manager.has_ended(), "the manager ended: {}", manager.told());
            let told = manager.told();
            if told.contains("manager ready") { Ok(()) } else { Err(told) }
        });
        manager
    }

    /// Starts a manager that must end by itself, with an error that says each of these.
    pub fn refused(&self, args: &[&str], says: &[&str]) {
        let ran = self.spawn(args).ended();
        let shown: Vec<String> = args.iter().map(|arg| arg.chars().take(80).collect()).collect();
        assert!(matches!(ran.code, 1 | 2), "{shown:?}: {ran:?}");
        let error = ran.stderr.find("error: ").map_or("", |at| &ran.stderr[at..]);
        for text in says {
            assert!(error.contains(text), "{shown:?} does not say `{text}`: {}", ran.stderr);
        }
    }
}

/// A manager that was started; killed when dropped.
pub struct Manager<'a> {
    folder: &'a Folder,
    child: Child,
    log: PathBuf,
}

impl Manager<'_> {
    /// What it wrote to its log so far.
    pub fn told(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_some()
    }

    /// Waits until it has ended by itself.
    pub fn ended(mut self) -> Ran {
        let status = until("the manager ends by itself", SOON, || {
            self.child.try_wait().expect("its state").ok_or_else(|| self.told())
        });
        Ran { code: status.0.code().unwrap_or(-1), stdout: String::new(), stderr: self.told() }
    }

    /// Asks it to stop, which it must do by itself and soon.
    pub fn stop(self) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").arg(pid).status();
        assert!(status.expect("kill runs").success());
        let ran = self.ended();
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    /// Runs `clusterctl` as its administrator.
    pub fn ctl(&self, args: &[&str]) -> Ran {
        ctl(&self.folder.file("admin.json"), args)
    }

    pub fn good(&self, args: &[&str]) -> String {
        let ran = self.ctl(args);
        assert_eq!(ran.code, 0, "clusterctl {args:?}: {ran:?}\n{}", self.told());
        ran.stdout
    }

    /// Writes something that must still be there later.
    pub fn write(&self, name: &str) {
        self.good(&["service", "create", "--detach", "--name", name, "--replicas", "0", "web:1"]);
    }

    /// Names of all services.
    pub fn services(&self) -> Vec<String> {
        let text = self.good(&["service", "ls", "--output", "json"]);
        let services: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let services = services.as_array().cloned().unwrap_or_default();
        services.iter().map(|known| known["name"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Manager<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The administrator's context of `first`, with the addresses of all of these; in `first`'s folder.
pub fn context_of(first: &Folder, all: &[&Folder]) -> PathBuf {
    let text = fs::read(first.file("admin.json")).expect("the context");
    let mut context: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    context["managers"] = all.iter().map(|folder| folder.address()).collect();
    let path = first.root.path().join("all.json");
    fs::write(&path, context.to_string()).expect("the context of all");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&path, private).expect("its mode");
    path
}

/// Runs `clusterctl` with a context file.
pub fn ctl(context: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(install::bin_dir().join("clusterctl"));
    command.arg("--context-file").arg(context).args(args).stdin(Stdio::null());
    command.output().expect("clusterctl runs").into()
}
