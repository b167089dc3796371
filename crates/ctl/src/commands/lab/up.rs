//! `lab up`

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cluster_lab::{Lab, LabOptions};

use super::{DEFAULT_NAME, explain, status};
use crate::Invocation;
use crate::contexts::{self, Store};
use crate::error::Error;
use crate::values::amount::bytes;
use crate::values::duration::duration;
use crate::values::port::port;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of managers; 1, 3 or 5 make sense
    #[arg(long, value_name = "N", default_value_t = 3)]
    managers: usize,

    /// Number of workers
    #[arg(long, value_name = "N", default_value_t = 3)]
    workers: usize,

    /// The lab's name, and its context's
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,

    /// Forward a loopback port of this machine to a published port of the cluster
    #[arg(long, value_name = "[IP:]PORT:PUBLISHED", value_parser = expose)]
    expose: Vec<(SocketAddr, u16)>,

    /// Where cluster-manager and cluster-worker are (default: beside this program)
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,

    /// The lab's network, a /24
    #[arg(long, value_name = "IP")]
    subnet: Option<Ipv4Addr>,

    /// How often workers report that they live
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    heartbeat_period: Option<Duration>,

    /// Silence after which a worker counts as lost
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    lease: Option<Duration>,

    /// Give each node a disk of so many bytes for its data, so that it can be filled (in memory)
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    disk: Option<u64>,

    /// An argument for every manager
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    manager_arg: Vec<String>,

    /// An argument for every worker
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    worker_arg: Vec<String>,
}

fn expose(text: &str) -> Result<(SocketAddr, u16), String> {
    let shape = || "write [IP:]PORT:PUBLISHED, such as 8080:80".to_owned();
    let (listen, published) = text.rsplit_once(':').ok_or_else(shape)?;
    let published = u16::try_from(port(published)?).map_err(|_| shape())?;
    let listen: SocketAddr = match listen.rsplit_once(':') {
        Some(_) => listen.parse().map_err(|_| shape())?,
        None => {
            let number = u16::try_from(port(listen)?).map_err(|_| shape())?;
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), number)
        }
    };
    Ok((listen, published))
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let options = options(args)?;
    let begin = Instant::now();
    let lab = Lab::up(&options).map_err(|error| explain(&error))?;
    adopt_context(&lab)?;
    let line = format!(
        "lab {} is up after {:.1} s: {} managers, {} workers; it is the current context",
        args.name,
        begin.elapsed().as_secs_f64(),
        args.managers,
        args.workers
    );
    invocation.printer.say(&line);
    for (listen, published) in &args.expose {
        invocation.printer.say(&format!("{listen} leads to port {published} of the workers"));
    }
    status::print(&lab, crate::output::Format::Table, invocation)
}

fn options(args: &Args) -> Result<LabOptions, Error> {
    let own = std::env::current_exe()
        .map_err(|error| Error::refused("finding this program's file").cause(error.to_string()))?;
    let beside = own.parent().map(PathBuf::from).unwrap_or_default();
    let mut options = LabOptions::new(&args.name, args.bin_dir.clone().unwrap_or(beside));
    options.helper = own;
    options.managers = args.managers;
    options.workers = args.workers;
    options.expose.clone_from(&args.expose);
    options.heartbeat_period = args.heartbeat_period;
    options.lease = args.lease;
    options.disk = args.disk;
    options.manager_args.clone_from(&args.manager_arg);
    options.worker_args.clone_from(&args.worker_arg);
    if let Some(subnet) = args.subnet {
        options.subnet = subnet;
    }
    Ok(options)
}

/// A lab of the same name from before is another cluster; its context is worthless.
fn adopt_context(lab: &Lab) -> Result<(), Error> {
    let mut context = contexts::load(&lab.context_file())?;
    context.name = lab.name().to_owned();
    let store = Store::of_user()?;
    store.save(&context, true)?;
    store.set_current(&context.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_ports_are_of_loopback_unless_said_otherwise() {
        assert_eq!(expose("8080:80"), Ok(("127.0.0.1:8080".parse().unwrap(), 80)));
        assert_eq!(expose("127.0.0.2:8080:80"), Ok(("127.0.0.2:8080".parse().unwrap(), 80)));
        for text in ["80", "x:80", "0:80", "80:0", "80:70000", "70000:80"] {
            assert!(expose(text).is_err(), "{text}");
        }
    }
}
