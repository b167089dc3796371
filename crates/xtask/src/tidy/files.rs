//! Rules about source files: their names, lengths and words, and that the map names every crate.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cargo::Metadata;

use super::Findings;

const FOLDERS: [&str; 3] = ["crates", "tests", "examples"];
const LONG: usize = 400;
const TOO_LONG: usize = 800;
/// Spelled in two parts, so that this file does not find itself.
const FORBIDDEN: [(&str, &str); 4] = [
    (concat!("FIX", "ME"), "fix it before it is merged"),
    (concat!("to", "do!("), "write it"),
    (concat!("un", "implemented!("), "write it"),
    (concat!("dbg", "!("), "remove it"),
];
const LATER: &str = concat!("TO", "DO");

pub(super) fn check(metadata: &Metadata, findings: &mut Findings) -> Result<()> {
    let root = &metadata.workspace_root;
    for folder in FOLDERS {
        for path in sources(&root.join(folder))? {
            let text =
                fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            look_at(&shown, &text, findings);
        }
    }
    check_roots(metadata, findings)?;
    check_map(metadata, findings);
    Ok(())
}

fn look_at(path: &str, text: &str, findings: &mut Findings) {
    if path.ends_with("/mod.rs") {
        findings
            .problems
            .push(format!("{path}: name it after its folder instead (foo.rs beside foo/)"));
    }
    match text.lines().count() {
        ..=LONG => {}
        lines @ ..=TOO_LONG => {
            findings.warnings.push(format!("{path}: {lines} lines, aim for {LONG}"))
        }
        lines => {
            findings.problems.push(format!("{path}: {lines} lines, split it (at most {TOO_LONG})"))
        }
    }
    for (number, line) in (1..).zip(text.lines()) {
        for (word, fix) in FORBIDDEN {
            if line.contains(word) {
                findings.problems.push(format!("{path}:{number}: {word}: {fix}"));
            }
        }
        if line.contains(LATER) && !line.contains("TODO(#") {
            findings
                .problems
                .push(format!("{path}:{number}: {LATER} needs an issue: {LATER}(#12)"));
        }
    }
}

/// Every crate says at its root what lives in it.
fn check_roots(metadata: &Metadata, findings: &mut Findings) -> Result<()> {
    let kinds = ["lib", "bin", "proc-macro"];
    for package in &metadata.packages {
        let targets = package.targets.iter();
        for target in
            targets.filter(|target| target.kind.iter().any(|kind| kinds.contains(&kind.as_str())))
        {
            let path = &target.src_path;
            let text =
                fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let first = text.lines().find(|line| !line.trim().is_empty());
            if !first.is_some_and(|line| line.starts_with("//!")) {
                findings
                    .problems
                    .push(format!("{}: begin with a module doc (//!)", path.display()));
            }
        }
    }
    Ok(())
}

/// ARCHITECTURE.md is the map; a crate that is not on it cannot be found.
fn check_map(metadata: &Metadata, findings: &mut Findings) {
    let Ok(map) = fs::read_to_string(metadata.workspace_root.join("ARCHITECTURE.md")) else {
        findings.problems.push("ARCHITECTURE.md is missing".to_owned());
        return;
    };
    for package in &metadata.packages {
        let folder = package.manifest_path.parent().and_then(Path::file_name);
        let name = folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !map.contains(&format!("`{name}`"))
            && !map.contains(&format!("/{name}"))
            && !map.contains(&package.name)
        {
            findings.problems.push(format!("ARCHITECTURE.md does not mention {}", package.name));
        }
    }
}

/// All Rust files below, without what builds leave there.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                if entry.file_name() != "target" {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Findings {
        let mut findings = Findings::default();
        look_at(path, text, &mut findings);
        findings
    }

    #[test]
    fn unfinished_work_is_found_with_its_line() {
        for (word, _) in FORBIDDEN {
            let found = findings("a/b.rs", &format!("//! Doc.\nfn f() {{ {word} }}\n"));
            assert_eq!(found.problems.len(), 1, "{word}");
            assert!(found.problems[0].starts_with("a/b.rs:2:"), "{:?}", found.problems);
        }
        assert_eq!(findings("a.rs", &format!("// {LATER} later\n")).problems.len(), 1);
        assert!(findings("a.rs", &format!("// {LATER}(#7) later\n")).problems.is_empty());
    }

    #[test]
    fn long_files_warn_and_very_long_ones_fail() {
        let lines = |count: usize| "x\n".repeat(count);
        assert!(findings("a.rs", &lines(LONG)).warnings.is_empty());
        assert_eq!(findings("a.rs", &lines(LONG + 1)).warnings.len(), 1);
        assert_eq!(findings("a.rs", &lines(TOO_LONG + 1)).problems.len(), 1);
    }

    #[test]
    fn mod_rs_is_refused() {
        assert_eq!(findings("crates/a/src/b/mod.rs", "").problems.len(), 1);
    }
}
