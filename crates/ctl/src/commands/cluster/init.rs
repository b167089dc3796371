//! `cluster init --ssh USER@HOST… [--workers USER@HOST…]`
//!
//! Thin: each step is a command of the machine's own packages, run through the `ssh` program with the
//! user's settings for it. Every one of them may be given again, so this whole command may. Tokens go
//! over standard input: a command line can be read by every user of the machine.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use cluster_identity::Context;
use cluster_pb::control::v1::{GetClusterRequest, GetTokenRequest};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::Invocation;
use crate::client::Client;
use crate::contexts::Store;
use crate::error::Error;
use crate::text::{one_line, shortened};

/// One step on one machine: its own waiting is shorter.
const STEP_MAX: Duration = Duration::from_secs(300);
const ADMIN: &str = "/var/lib/cluster-manager/admin.json";
/// ssh's own failures.
const SSH_FAILED: i32 = 255;
const COMMAND_NOT_FOUND: i32 = 127;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Machines that become managers, as ssh names them; the first one founds the cluster. One, three
    /// or five; three survive the loss of one
    #[arg(long, required = true, num_args = 1.., value_name = "USER@HOST", value_delimiter = ',', value_parser = host)]
    ssh: Vec<String>,

    /// Machines that become workers
    #[arg(long, num_args = 1.., value_name = "USER@HOST", value_delimiter = ',', value_parser = host)]
    workers: Vec<String>,

    /// Name of the new cluster, and of its context here
    #[arg(long, value_name = "NAME", default_value = "cluster")]
    cluster_name: String,

    /// Address at which others reach the first manager, when that machine has several
    #[arg(long, value_name = "IP[:PORT]")]
    advertise: Option<String>,

    /// Let this check of the machines fail; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    ignore_preflight: Vec<String>,

    /// The ssh program
    #[arg(long, value_name = "PROGRAM", default_value = "ssh", hide = true)]
    ssh_program: OsString,
}

/// A leading dash would be an option of ssh.
fn host(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a host is needed".to_owned()),
        text if text.starts_with('-')
            || text.chars().any(|c| c.is_whitespace() || c.is_control()) =>
        {
            Err("use USER@HOST, or a host of your ssh configuration".to_owned())
        }
        text => Ok(text.to_owned()),
    }
}

pub async fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let [first, others @ ..] = args.ssh.as_slice() else {
        return Err(Error::usage("--ssh names no machine"));
    };
    let mut done = Vec::new();
    let mut cluster = found(args, first, invocation).await?;
    done.push(format!("{first} is the first manager"));
    for (role, hosts) in [("manager", others), ("worker", args.workers.as_slice())] {
        for host in hosts {
            let joined = join(args, &cluster, role, host, invocation).await;
            joined.map_err(|error| so_far(error, &done))?;
            done.push(format!("{host} is a {role}"));
        }
        if role == "manager" {
            // The first manager's own context names it alone; this one outlives it.
            let known =
                managers(&cluster, invocation).await.map_err(|error| so_far(error, &done))?;
            cluster.managers = known;
            Store::of_user()?.save(&cluster, false)?;
        }
    }
    invocation.printer.say(&format!(
        "done: {} managers, {} workers; `{}` is the current context",
        args.ssh.len(),
        args.workers.len(),
        cluster.name
    ));
    invocation.printer.data(&cluster.cluster_id)
}

/// What a failure leaves behind, and how to go on.
fn so_far(mut error: Error, done: &[String]) -> Error {
    error.causes.push(format!("so far: {}", done.join(", ")));
    error.hint("set that right, then give the same command again: it goes on from here")
}

/// The first manager, and the context of its cluster.
async fn found(args: &Args, first: &str, invocation: &mut Invocation) -> Result<Context, Error> {
    invocation.printer.say(&format!("{first}: founding the cluster"));
    let mut words =
        vec!["cluster-manager", "init", "--quiet", "--cluster-name", &args.cluster_name];
    if let Some(advertise) = &args.advertise {
        words.extend(["--advertise", advertise]);
    }
    let ignored = args.ignore_preflight.join(",");
    if !ignored.is_empty() {
        words.extend(["--ignore-preflight", &ignored]);
    }
    remote(args, first, &words, None).await?;
    invocation.printer.say(&format!("{first}: fetching the context"));
    let text = remote(args, first, &["cat", ADMIN], None).await?;
    let folder = private_folder()?;
    let file = folder.path().join("admin.json");
    let kept = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    kept.and_then(|mut kept| kept.write_all(text.as_bytes()))
        .map_err(|error| Error::refused("keeping the context").cause(error.to_string()))?;
    let context = crate::contexts::load(&file)?;
    let store = Store::of_user()?;
    store.save(&context, false).map_err(|error| {
        error.hint(format!(
            "`clusterctl context rm {}` forgets the other one; then give the same command again",
            context.name
        ))
    })?;
    store.set_current(&context.name)?;
    Ok(context)
}

/// For the owner only, and gone afterwards.
fn private_folder() -> Result<tempfile::TempDir, Error> {
    tempfile::tempdir().map_err(|error| Error::refused("making a folder").cause(error.to_string()))
}

async fn join(
    args: &Args,
    cluster: &Context,
    role: &'static str,
    host: &str,
    invocation: &mut Invocation,
) -> Result<(), Error> {
    invocation.printer.say(&format!("{host}: joining as a {role}"));
    let mut client = Client::new(cluster, invocation.global.timeout)?;
    let request = GetTokenRequest { role: role.to_owned(), rotate: false };
    let token = client.get_token(request).await?.token;
    let managers = managers(cluster, invocation).await?;
    let program = format!("cluster-{role}");
    let mut words = vec![program.as_str(), "join", "--token", "-"];
    let ignored = args.ignore_preflight.join(",");
    if !ignored.is_empty() {
        words.extend(["--ignore-preflight", &ignored]);
    }
    words.extend(managers.iter().map(String::as_str));
    remote(args, host, &words, Some(token.as_str())).await.map(drop)
}

/// Addresses of all managers.
async fn managers(cluster: &Context, invocation: &Invocation) -> Result<Vec<String>, Error> {
    let mut client = Client::new(cluster, invocation.global.timeout)?;
    let known = client.get_cluster(GetClusterRequest { stale: true, ..Default::default() }).await?;
    Ok(known.managers.into_iter().map(|manager| manager.address).collect())
}

/// Runs a command as root on a machine; its stdout.
async fn remote(
    args: &Args,
    host: &str,
    words: &[&str],
    input: Option<&str>,
) -> Result<String, Error> {
    let ran = tokio::time::timeout(STEP_MAX, ssh(args, host, words, input)).await;
    let late = |_| Error::timed_out(format!("{host}: no end within {} s", STEP_MAX.as_secs()));
    let (code, out, said) = ran.map_err(late)??;
    if code == 0 {
        return Ok(out);
    }
    let doing = format!("{host}: `{} {}` failed", words[0], words.get(1).unwrap_or(&""));
    let mut error = match code {
        SSH_FAILED => Error::unreachable(format!("{host}: ssh failed")),
        _ => Error::refused(doing),
    };
    error.causes = said.lines().map(|line| shortened(&one_line(line), 300)).collect();
    Err(match code {
        SSH_FAILED => error.hint(format!(
            "`ssh {host} true` must work without a question: set up a key or an agent, and accept the \
             host's key once"
        )),
        COMMAND_NOT_FOUND => error.hint(format!("install the package {} there", words[0])),
        _ => error.hint(format!("set that right on {host}, then give the same command again")),
    })
}

async fn ssh(
    args: &Args,
    host: &str,
    words: &[&str],
    input: Option<&str>,
) -> Result<(i32, String, String), Error> {
    let failed = |error: std::io::Error| {
        Error::refused(format!("cannot run {}", args.ssh_program.to_string_lossy()))
            .cause(error.to_string())
            .hint("install the package openssh-client")
    };
    let quoted = shlex::try_join(words.iter().copied())
        .map_err(|error| Error::usage("a word cannot be quoted").cause(error.to_string()))?;
    // sbin is not in every user's path.
    let script = format!(
        "PATH=$PATH:/usr/sbin:/sbin; if [ \"$(id -u)\" = 0 ]; then {quoted}; else sudo -n {quoted}; fi"
    );
    // The user's own shell there may be of another kind.
    let script = shlex::try_join(["sh", "-c", &script])
        .map_err(|error| Error::usage("a word cannot be quoted").cause(error.to_string()))?;
    let mut child = Command::new(&args.ssh_program)
        .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "--", host, &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ended before it read tells why itself.
        let _ = stdin.write_all(input.unwrap_or_default().as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code().unwrap_or(SSH_FAILED), text(&output.stdout), text(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_cannot_be_options() {
        assert!(host("root@10.0.0.1").is_ok());
        for wrong in ["", "-oProxyCommand=x", "a b", "a\nb"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }
}
