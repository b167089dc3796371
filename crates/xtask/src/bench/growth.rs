//! `cargo xtask bench growth`: how the cost of planning, applying, comparing and encoding grows with the
//! size of a cluster, as times and as plots.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::cargo;

const PLOTS: &str = "docs/plots";

#[derive(clap::Args)]
pub(super) struct Args {
    /// Only groups whose name contains this
    only: Option<String>,
    /// Keep the plots of all groups in docs/plots
    #[arg(long, conflicts_with = "only")]
    update: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let metadata = cargo::metadata()?;
    let drawn = metadata.target_directory.join("criterion");
    let mut bench = cargo::cargo(["bench", "--package", "cluster-growth", "--bench", "growth"]);
    cargo::run(bench.arg("--").args(&args.only))?;
    if !args.update {
        eprintln!("plots: {}/*/report/lines.svg; --update keeps them in {PLOTS}", drawn.display());
        return Ok(());
    }
    keep(&drawn, &metadata.workspace_root.join(PLOTS))
}

/// Copies the plot of each group, under the group's name.
fn keep(drawn: &Path, kept: &Path) -> Result<()> {
    fs::create_dir_all(kept).with_context(|| format!("making {}", kept.display()))?;
    let groups = fs::read_dir(drawn).with_context(|| format!("reading {}", drawn.display()))?;
    let mut count = 0;
    for group in groups {
        let group = group.with_context(|| format!("reading {}", drawn.display()))?;
        let plot = group.path().join("report/lines.svg");
        if plot.exists() {
            let name = kept.join(group.file_name()).with_extension("svg");
            fs::copy(&plot, &name).with_context(|| format!("copying {}", plot.display()))?;
            count += 1;
        }
    }
    ensure!(count > 0, "no plots in {}: the bench drew none", drawn.display());
    eprintln!("{count} plots kept in {}", kept.display());
    Ok(())
}
