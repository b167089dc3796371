//! `lab down`

use cluster_lab::{Lab, default_base};

use super::{Which, explain};
use crate::Invocation;
use crate::contexts::{self, Store};
use crate::error::Error;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    which: Which,
}

pub fn run(args: &Args, invocation: &mut Invocation) -> Result<(), Error> {
    let name = args.which.name();
    let base = default_base();
    let lab = Lab::open(&name);
    let cluster = lab.as_ref().ok().and_then(|lab| contexts::load(&lab.context_file()).ok());
    match lab {
        Ok(lab) => lab.down().map_err(|error| explain(&error))?,
        // What a killed `up` or `down` left is removed, too; a lab that never was is an error.
        Err(error) => {
            let left = Lab::leftovers_in(&base, &name).map_err(|error| explain(&error))?;
            if left.is_empty() {
                return Err(explain(&error));
            }
            Lab::remove_in(&base, &name).map_err(|error| explain(&error))?;
        }
    }
    let store = Store::of_user()?;
    let stored = store.load(&name).ok();
    if stored.map(|context| context.cluster_id) == cluster.map(|context| context.cluster_id)
        && store.names()?.contains(&name)
    {
        store.remove(&name)?;
    }
    invocation.printer.say(&format!("lab {name} is gone"));
    Ok(())
}
