//! `lab kill|start|pause|resume|cut|heal|kill-agent|start-agent NODE…` and the like

use clap::ValueEnum;
use cluster_lab::{Direction, Lab};

use super::{Which, explain};
use crate::Invocation;
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Nodes, such as worker-1
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,

    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
pub struct CutArgs {
    #[command(flatten)]
    args: Args,

    /// Drop only what comes in, or only what goes out
    #[arg(long)]
    direction: Option<Way>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Way {
    In,
    Out,
}

impl From<Way> for Direction {
    fn from(way: Way) -> Self {
        match way {
            Way::In => Self::In,
            Way::Out => Self::Out,
        }
    }
}

pub fn run(
    args: &Args,
    invocation: &mut Invocation,
    act: impl Fn(&Lab, &str) -> cluster_lab::Result<()>,
) -> Result<(), Error> {
    let lab = args.which.open()?;
    for node in &args.nodes {
        act(&lab, node).map_err(|error| explain(&error))?;
        invocation.printer.data(node)?;
    }
    Ok(())
}

pub fn cut(args: &CutArgs, invocation: &mut Invocation) -> Result<(), Error> {
    run(&args.args, invocation, |lab, node| match args.direction {
        None => lab.cut(node),
        Some(way) => lab.cut_one_way(node, way.into()),
    })
}
