//! What packages say about our programs: manual pages, completions of shells and files of settings, all
//! taken from the definitions of their command lines, so that none of them can drift.
//!
//! What never lives here: prose of its own about single options. That is the help text beside the option.

mod pages;
mod settings;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

/// One of our programs.
pub struct Program {
    pub command: Command,
    /// Of the manual.
    pub section: &'static str,
    /// Of programs that systemd starts.
    pub unit: Option<&'static str>,
}

/// Those that people call.
pub fn programs() -> [Program; 3] {
    [
        Program {
            command: cluster_manager::cli::Program::command(),
            section: "8",
            unit: Some(include_str!("../../../deploy/systemd/cluster-manager.service")),
        },
        Program {
            command: cluster_worker::cli::Cli::command(),
            section: "8",
            unit: Some(include_str!("../../../deploy/systemd/cluster-worker.service")),
        },
        Program { command: cluster_ctl::Cli::command(), section: "1", unit: None },
    ]
}

/// Writes a folder for each program, with what its package installs: `man/`, `completions/` and, for
/// daemons, `default`.
pub fn write(folder: &Path) -> Result<()> {
    for Program { mut command, section, unit } in programs() {
        // Here and not on the machine that runs it: none of its variables belongs into a page.
        command = command.mut_args(|arg| arg.hide_env_values(true));
        let name = command.get_name().to_owned();
        let place = folder.join(&name);
        let (man, completions) = (place.join("man"), place.join("completions"));
        for folder in [&man, &completions] {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        pages::write(&command, section, &man).with_context(|| format!("pages of {name}"))?;
        for (shell, file) in [
            (Shell::Bash, name.clone()),
            (Shell::Zsh, format!("_{name}")),
            (Shell::Fish, format!("{name}.fish")),
        ] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command.clone(), &name, &mut script);
            fs::write(completions.join(&file), script)
                .with_context(|| format!("writing {file}"))?;
        }
        if let Some(unit) = unit {
            fs::write(place.join("default"), settings::file(&command, unit))
                .with_context(|| format!("writing the settings of {name}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_gets_pages_completions_and_daemons_settings() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        // A second time over the first.
        write(folder.path()).unwrap();
        let text = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
        assert!(text("cluster-manager/man/cluster-manager.8").starts_with(".ie"));
        assert!(text("cluster-manager/man/cluster-manager-recover.8").contains("from\\-snapshot"));
        assert!(text("cluster-worker/man/cluster-worker-image-load.8").contains("archive"));
        assert!(text("clusterctl/man/clusterctl-service-create.1").contains("\\-\\-replicas"));
        assert!(text("clusterctl/completions/clusterctl").contains("service"));
        assert!(text("cluster-worker/completions/_cluster-worker").contains("#compdef"));
        assert!(text("cluster-worker/completions/cluster-worker.fish").contains("mesh-port"));
        assert!(text("cluster-worker/default").contains("#CLUSTER_WORKER_MESH_PORT=7101\n"));
        assert!(!folder.path().join("clusterctl/default").exists());
    }
}
