//! drill
use std::path::Path;
#[derive(clap::Args)]
pub struct Args {}
pub fn run(_folder: &Path, _args: &Args) -> anyhow::Result<()> { Ok(()) }
