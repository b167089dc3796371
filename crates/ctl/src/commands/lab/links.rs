//! `lab shape NODE`

use std::time::Duration;

use cluster_lab::{Direction, Lab, Link};

use super::fault::Way;
use super::{Which, explain};
use crate::Invocation;
use crate::error::Error;
use crate::values::duration::duration;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true)
    .args(["delay", "jitter", "loss", "rate"])))]
pub struct Args {
    /// A node, such as worker-1
    #[arg(value_name = "NODE")]
    node: String,

    /// Every frame is so much later
    #[arg(long, value_name = "DURATION", value_parser = millis)]
    delay: Option<u32>,

    /// Up to so much more delay, different for each frame; the order is kept
    #[arg(long, value_name = "DURATION", value_parser = millis)]
    jitter: Option<u32>,

    /// Of a hundred frames, so many are lost
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    loss: Option<u32>,

    /// Thousand bits a second, each way
    #[arg(long, value_name = "KBIT", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// Only what comes in, or only what goes out (default: both)
    #[arg(long)]
    direction: Option<Way>,

    /// Only what comes from or goes to this node, or `client`
    #[arg(long, value_name = "NODE")]
    peer: Option<String>,

    #[command(flatten)]
    which: Which,
}

fn millis(text: &str) -> Result<u32, String> {
    let millis: Duration = duration(text)?;
    u32::try_from(millis.as_millis()).map_err(|_| format!("`{text}` is too long"))
}

/// In millionths.
fn percent(text: &str) -> Result<u32, String> {
    let number: Option<f64> = text.trim_end_matches('%').parse().ok();
    match number.filter(|number| (0.0..=100.0).contains(number)) {
        // At most a million, which a u32 holds.
        Some(number) => Ok((number * 10_000.0).round() as u32),
        None => Err(format!("`{text}` is not a percentage; write for example 5%")),
    }
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let lab: Lab = args.which.open()?;
    let link = Link {
        loss_ppm: args.loss.unwrap_or_default(),
        delay_ms: args.delay.unwrap_or_default(),
        jitter_ms: args.jitter.unwrap_or_default(),
        rate_kbit: args.rate.unwrap_or_default(),
    };
    let ways = match args.direction {
        Some(way) => vec![Direction::from(way)],
        None => vec![Direction::In, Direction::Out],
    };
    for way in ways {
        lab.shape_one_way(&args.node, way, args.peer.as_deref(), link)
            .map_err(|error| explain(&error))?;
    }
    invocation.printer.data(&args.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_millionths() {
        assert_eq!(percent("5%"), Ok(50_000));
        assert_eq!(percent("0.1"), Ok(1000));
        for text in ["", "101", "-1", "x%", "NaN"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }
}
