//! What is wrong with a spec, as far as that shows without touching the system.

use std::path::{Component, Path};

use crate::spec::{ContainerSpec, InvalidSpec, MIN_MEMORY_BYTES, Mount};

/// Longest argument or variable; the kernel's own limit is 128 KiB.
const MAX_STRING: usize = (128 << 10) - 1;

/// Arguments and variables together; the kernel takes a quarter of the stack limit, usually 2 MiB.
const MAX_COMMAND: usize = 1 << 20;

impl ContainerSpec {
    /// Everything that can be refused without touching the system.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        if self.image.layers.is_empty() {
            return Err(InvalidSpec::new("image.layers", "an image has at least one layer"));
        }
        for (index, layer) in self.image.layers.iter().enumerate() {
            // Overlay options are a list separated by these; a layer path cannot hold them.
            let text = layer.to_string_lossy();
            if !layer.is_absolute() || text.contains([':', ',', '\\']) {
                return Err(InvalidSpec::new(
                    format!("image.layers[{index}]"),
                    format!("`{text}` must be absolute, without `:`, `,` and `\\`"),
                ));
            }
        }
        let command = self.command();
        if command.first().is_none_or(|program| program.is_empty()) {
            return Err(InvalidSpec::new("args", "neither the image nor the spec names a command"));
        }
        if command.iter().any(|arg| arg.contains('\0')) {
            return Err(InvalidSpec::new("args", "an argument holds a NUL byte"));
        }
        for (index, (name, value)) in self.env.iter().enumerate() {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(InvalidSpec::new(
                    format!("env[{index}]"),
                    "a variable needs a name without `=` and no NUL byte",
                ));
            }
        }
        self.validate_size(&command)?;
        if self.limits.memory_bytes.is_some_and(|bytes| bytes < MIN_MEMORY_BYTES) {
            return Err(InvalidSpec::new(
                "limits.memory_bytes",
                format!("must be at least {MIN_MEMORY_BYTES} (4 MiB)"),
            ));
        }
        if self.limits.cpu_nanos.is_some_and(|nanos| nanos < 10_000_000) {
            return Err(InvalidSpec::new(
                "limits.cpu_nanos",
                "must be at least 10000000 (0.01 CPU)",
            ));
        }
        if self.limits.pids == Some(0) {
            return Err(InvalidSpec::new("limits.pids", "must be at least 1"));
        }
        if self.hostname.as_ref().is_some_and(|name| !valid_hostname(name)) {
            return Err(InvalidSpec::new("hostname", "1-64 letters, digits, `-` and `.`"));
        }
        if self.log.max_files == 0 || self.log.max_bytes < 4096 {
            return Err(InvalidSpec::new("log", "keep at least 1 file of at least 4096 bytes"));
        }
        self.validate_paths()
    }

    /// What the kernel would refuse at exec, after everything was set up.
    fn validate_size(&self, command: &[String]) -> Result<(), InvalidSpec> {
        let env = self.env.iter().map(|(name, value)| name.len() + value.len() + 2);
        let longest = command.iter().map(String::len).chain(env.clone()).max().unwrap_or(0);
        let total: usize = command.iter().map(|arg| arg.len() + 1).chain(env).sum();
        if longest > MAX_STRING {
            return Err(InvalidSpec::new(
                "env",
                format!(
                    "an argument or variable of {longest} bytes; at most {MAX_STRING}, put it in a file"
                ),
            ));
        }
        if total > MAX_COMMAND {
            return Err(InvalidSpec::new(
                "env",
                format!(
                    "arguments and variables of {total} bytes; at most {MAX_COMMAND}, put them in a file"
                ),
            ));
        }
        Ok(())
    }

    fn validate_paths(&self) -> Result<(), InvalidSpec> {
        if let Some(dir) = &self.workdir
            && !clean_absolute(dir)
        {
            return Err(InvalidSpec::new("workdir", "must be an absolute path without `..`"));
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            let field = |name: &str| format!("mounts[{index}].{name}");
            if !clean_absolute(mount.target()) || mount.target() == Path::new("/") {
                return Err(InvalidSpec::new(
                    field("target"),
                    "must be an absolute path below `/`, without `..`",
                ));
            }
            let host = match mount {
                Mount::Bind { source, .. } => Some(("source", source)),
                Mount::Volume { host_path, .. } => Some(("host_path", host_path)),
                Mount::Tmpfs { .. } => None,
            };
            if let Some((name, path)) = host
                && !clean_absolute(path)
            {
                return Err(InvalidSpec::new(field(name), "must be an absolute path without `..`"));
            }
        }
        Ok(())
    }
}

fn clean_absolute(path: &Path) -> bool {
    path.is_absolute()
        && !path.as_os_str().as_encoded_bytes().contains(&0)
        && !path.components().any(|part| matches!(part, Component::ParentDir))
}

fn valid_hostname(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
}
