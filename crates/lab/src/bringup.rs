//! Building a lab: the machines, then the cluster on them.
//!
//! *Flow.* Switch and client; the first manager bootstraps and writes an admin context; tokens
//! are fetched with it; all other nodes join at once; `clusterctl` says when all are ready.
//! *On failure* everything is removed again and the error carries the log that explains it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::daemons::{daemon_env, manager_address, manager_argv, worker_argv, write_context};
use crate::error::{Error, Result};
use crate::exec::CLIENT;
use crate::forward::Mapping;
use crate::lab::{Lab, Role, require_root, start_forwarder};
use crate::node::Hall;
use crate::options::{LabOptions, Machine};
use crate::process::wait_for;
use crate::ready;
use crate::state::{Folder, Node, State};
use crate::teardown;

const BOOTSTRAP_WITHIN: Duration = Duration::from_secs(30);
/// Between questions to a cluster that is busy starting; each costs a process and a handshake.
const ASK_PAUSE: Duration = Duration::from_millis(40);
const TAIL_LINES: usize = 15;

pub(crate) fn up(options: &LabOptions) -> Result<Lab> {
    require_root()?;
    options.validate()?;
    check_programs(options)?;
    raise(options, |lab| build(lab, options))
}

/// Builds a lab with `build`, after whatever a killed `up` left behind under its name is gone.
fn raise(options: &LabOptions, build: impl FnOnce(&Lab) -> Result<()>) -> Result<Lab> {
    let lab = Lab::at(&options.base, &options.name)?;
    if lab.folder_ref().load()?.is_some_and(|state| state.complete) {
        return Err(Error::AlreadyUp { name: options.name.clone() });
    }
    // Whatever a killed `up` left behind under this name.
    teardown::remove(&lab)?;
    match build(&lab) {
        Ok(()) => Ok(lab),
        Err(error) => {
            // The first error is the one that matters; `down` can be asked again.
            let _ = teardown::remove(&lab);
            Err(error)
        }
    }
}

/// Builds only the machines, with whatever `argv` gives each as its agent.
pub(crate) fn up_machines(
    options: &LabOptions,
    argv: impl Fn(&Machine<'_>) -> Vec<String>,
) -> Result<Lab> {
    require_root()?;
    options.validate()?;
    check_tools(options)?;
    raise(options, |lab| {
        let folder = lab.folder_ref();
        let mut state = lay_out(folder, options)?;
        for node in &mut state.nodes {
            let data = folder.data(&node.name);
            let seat =
                Machine { name: &node.name, role: node.role, address: node.address, data: &data };
            node.argv = argv(&seat);
        }
        let names: Vec<_> = state.nodes.iter().map(|node| node.name.clone()).collect();
        let _lock = folder.lock()?;
        lab.hall(|hall| {
            hall.switch.create()?;
            hall.switch.plug(CLIENT, state.client)?;
            for name in &names {
                switch_on(lab, hall, &mut state, name)?;
            }
            state.complete = true;
            folder.save(&state)
        })
    })
}

fn check_programs(options: &LabOptions) -> Result<()> {
    for program in ["cluster-manager", "cluster-worker"] {
        let path = options.bin_dir.join(program);
        if !path.is_file() {
            return Err(missing(&path.display().to_string(), "build it with `cargo build`"));
        }
    }
    check_tools(options)
}

fn check_tools(options: &LabOptions) -> Result<()> {
    if !options.helper.is_file() {
        return Err(missing(&options.helper.display().to_string(), "build it with `cargo build`"));
    }
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        let tried =
            Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if tried.is_err() {
            return Err(missing(program, &format!("install it with `apt install {package}`")));
        }
    }
    Ok(())
}

fn missing(program: &str, fix: &str) -> Error {
    Error::MissingProgram { program: program.to_owned(), fix: fix.to_owned() }
}

fn build(lab: &Lab, options: &LabOptions) -> Result<()> {
    let folder = lab.folder_ref();
    let mut state = lay_out(folder, options)?;
    let _lock = folder.lock()?;
    lab.hall(|hall| {
        hall.switch.create()?;
        hall.switch.plug(CLIENT, state.client)?;
        bootstrap(lab, hall, options, &mut state)?;
        join_others(lab, hall, options, &mut state)?;
        for (listen, port) in &options.expose {
            let workers = state.nodes.iter().filter(|node| node.role == Role::Worker);
            let targets = workers.map(|node| SocketAddr::from((node.address, *port))).collect();
            start_forwarder(hall, &mut state, &[Mapping { listen: *listen, targets }])?;
        }
        wait_ready(lab, hall, options, &state)?;
        state.complete = true;
        folder.save(&state)
    })
}

/// The folder with the plan of the lab in it, from which it can be removed again.
fn lay_out(folder: &Folder, options: &LabOptions) -> Result<State> {
    create_private(&options.base)?;
    create_private(&folder.path)?;
    let state = plan(options);
    folder.save(&state)?;
    write_hosts(folder, &state)?;
    Ok(state)
}

fn create_private(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::file("creating", path, source))
}

/// Names and addresses; command lines follow when the tokens are known.
fn plan(options: &LabOptions) -> State {
    let [a, b, c, _] = options.subnet.octets();
    let numbered = |role: Role, count: usize, first: u8| {
        let env = daemon_env(options);
        (1u8..).take(count).map(move |n| Node {
            name: format!("{role}-{n}"),
            role,
            address: Ipv4Addr::new(a, b, c, first + n),
            argv: Vec::new(),
            env: env.clone(),
            init: None,
        })
    };
    let managers = numbered(Role::Manager, options.managers, 10);
    let workers = numbered(Role::Worker, options.workers, 20);
    State {
        version: State::VERSION,
        name: options.name.clone(),
        complete: false,
        helper: options.helper.clone(),
        bin_dir: options.bin_dir.clone(),
        client: Ipv4Addr::new(a, b, c, 2),
        nodes: managers.chain(workers).collect(),
        cuts: Vec::new(),
        forwarders: Vec::new(),
        shapes: Vec::new(),
        relays: BTreeMap::new(),
        disk: options.disk,
    }
}

fn write_hosts(folder: &Folder, state: &State) -> Result<()> {
    let mut text = format!("127.0.0.1 localhost\n::1 localhost\n{} {CLIENT}\n", state.client);
    for node in &state.nodes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {}", node.address, node.name);
    }
    let path = folder.hosts();
    fs::write(&path, text).map_err(|source| Error::file("writing", path, source))
}

fn managers(state: &State) -> impl Iterator<Item = &Node> {
    state.nodes.iter().filter(|node| node.role == Role::Manager)
}

fn switch_on(lab: &Lab, hall: &Hall<'_>, state: &mut State, name: &str) -> Result<()> {
    let init = hall.switch_on(state, name)?;
    state.node_mut(name)?.init = Some(init);
    lab.folder_ref().save(state)
}

/// Starts the first manager and writes both context files from the one it leaves.
fn bootstrap(lab: &Lab, hall: &Hall<'_>, options: &LabOptions, state: &mut State) -> Result<()> {
    let folder = lab.folder_ref();
    let first = state.nodes[0].clone();
    let mut argv = manager_argv(options, folder, &first);
    argv.extend(["--bootstrap".to_owned(), "--cluster-name".to_owned(), options.name.clone()]);
    state.node_mut(&first.name)?.argv = argv;
    switch_on(lab, hall, state, &first.name)?;

    let admin = folder.data(&first.name).join("admin.json");
    let written = wait_for(BOOTSTRAP_WITHIN, || {
        if hall.agent_exit(&first.name).is_some() {
            return Some(Err(died(hall, folder, &first.name)));
        }
        let text = fs::read(&admin).ok()?;
        serde_json::from_slice::<serde_json::Value>(&text).ok().map(Ok)
    });
    let context = written.unwrap_or_else(|| {
        let what = format!("writing of {}", admin.display());
        Err(Error::TimedOut { what, within: BOOTSTRAP_WITHIN, detail: tail(folder, &first.name) })
    })?;

    let inside: Vec<_> = managers(state).map(manager_address).collect();
    write_context(&folder.client_context(), &context, &inside)?;
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mappings: Vec<_> =
        inside.iter().map(|target| Mapping { listen: loopback, targets: vec![*target] }).collect();
    let outside = start_forwarder(hall, state, &mappings)?;
    write_context(&folder.context(), &context, &outside)?;
    folder.save(state)
}

fn join_others(lab: &Lab, hall: &Hall<'_>, options: &LabOptions, state: &mut State) -> Result<()> {
    let folder = lab.folder_ref();
    // Only the first manager answers yet; no other could help a joining manager.
    let join = manager_address(&state.nodes[0]).to_string();
    let mut all: Vec<_> = managers(state).map(|node| manager_address(node).to_string()).collect();
    let others: Vec<Node> = state.nodes[1..].to_vec();
    let mut tokens: BTreeMap<String, String> = BTreeMap::new();
    for node in &others {
        let role = node.role.to_string();
        let token = match tokens.get(&role) {
            Some(token) => token.clone(),
            None => {
                tokens.entry(role.clone()).or_insert(fetch_token(lab, hall, state, &role)?).clone()
            }
        };
        let (mut argv, join) = match node.role {
            Role::Manager => (manager_argv(options, folder, node), join.clone()),
            Role::Worker => {
                // Each tries another manager first, so that sessions are spread.
                all.rotate_left(1);
                (worker_argv(options, folder, node), all.join(","))
            }
        };
        argv.extend(["--join".to_owned(), join, "--token".to_owned(), token]);
        state.node_mut(&node.name)?.argv = argv;
    }
    for node in &others {
        switch_on(lab, hall, state, &node.name)?;
    }
    Ok(())
}

/// Asks the first manager for a join token; it may still be electing itself.
fn fetch_token(lab: &Lab, hall: &Hall<'_>, state: &State, role: &str) -> Result<String> {
    let folder = lab.folder_ref();
    let first = &state.nodes[0].name;
    let program = state.helper.display().to_string();
    let argv = [program.as_str(), "cluster", "token", "--role", role, "--quiet"];
    let mut last = String::new();
    let fetched = wait_for(BOOTSTRAP_WITHIN, || {
        if hall.agent_exit(first).is_some() {
            return Some(Err(died(hall, folder, first)));
        }
        match ready::ask(lab, &argv) {
            Ok(text) => Some(Ok(text.trim().to_owned())),
            Err(reason) => {
                last = reason;
                sleep(ASK_PAUSE);
                None
            }
        }
    });
    fetched.unwrap_or_else(|| {
        let detail = format!("{last}\n{}", tail(folder, first));
        Err(Error::TimedOut {
            what: format!("a {role} token from {first}"),
            within: BOOTSTRAP_WITHIN,
            detail,
        })
    })
}

/// Polls until the cluster counts every node as ready.
fn wait_ready(lab: &Lab, hall: &Hall<'_>, options: &LabOptions, state: &State) -> Result<()> {
    let folder = lab.folder_ref();
    let begin = Instant::now();
    let mut missing = Vec::new();
    let reached = wait_for(options.ready_within, || {
        if let Some(dead) = state.nodes.iter().find(|node| hall.agent_exit(&node.name).is_some()) {
            return Some(Err(died(hall, folder, &dead.name)));
        }
        missing = ready::missing(lab, state);
        if missing.is_empty() {
            return Some(Ok(()));
        }
        sleep(ASK_PAUSE);
        None
    });
    reached.unwrap_or_else(|| {
        let mut detail = missing.join("; ");
        for node in
            state.nodes.iter().filter(|node| missing.iter().any(|line| line.contains(&node.name)))
        {
            let _ = write!(detail, "\n--- {} ---\n{}", node.name, tail(folder, &node.name));
        }
        Err(Error::TimedOut {
            what: "readiness of all nodes".to_owned(),
            within: begin.elapsed(),
            detail,
        })
    })
}

fn died(hall: &Hall<'_>, folder: &Folder, node: &str) -> Error {
    let how = hall.agent_exit(node).unwrap_or_else(|| "ended".to_owned());
    Error::NodeInit {
        node: node.to_owned(),
        reason: format!("its agent {how}; the end of its log:\n{}", tail(folder, node)),
    }
}

/// The last lines a node's agent logged.
fn tail(folder: &Folder, node: &str) -> String {
    let text = fs::read(folder.log(node)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
