//! A manual page for each command, named as git names its own: `clusterctl-service-create`.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Command;
use clap_mangen::Man;

pub(crate) fn write(command: &Command, section: &str, folder: &Path) -> Result<()> {
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    page(&command, section, command.get_name(), folder)
}

fn page(command: &Command, section: &str, program: &str, folder: &Path) -> Result<()> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        page(sub, section, program, folder)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let page = Man::new(command.clone())
        .title(name.to_ascii_uppercase())
        .section(section)
        .source(program)
        .manual("Container cluster");
    let path = folder.join(format!("{name}.{section}"));
    let mut file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    page.render(&mut file).with_context(|| format!("writing {}", path.display()))
}
