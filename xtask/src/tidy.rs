//! The rules that no compiler checks: who may know whom, and how files look.

mod edges;

use crate::{Result, shell};
use std::path::Path;
use std::process::Command;

/// Names that say nothing.
const DRAWERS: [&str; 5] = ["common", "core", "helpers", "misc", "utils"];

/// A line may be so long where rustfmt leaves it alone: in comments and texts.
const LINE_CHARS_MAX: usize = 240;

/// Words that mark something unfinished. Written in halves, so that this file does not contain them.
const UNFINISHED: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
];

/// Checks the whole tree and prints every violation.
pub(crate) fn run(root: &Path) -> Result<()> {
    let mut found = edges::check(root)?;
    let tracked = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-co", "--exclude-standard"])
        .output();
    let tracked = tracked.map_err(|error| format!("git ls-files: {error}"))?;
    for path in String::from_utf8_lossy(&tracked.stdout).lines() {
        // What is no text is not looked at.
        if let Ok(text) = std::fs::read_to_string(root.join(path)) {
            found.extend(check_file(path, &text));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    shell::say(&found.join("\n"));
    Err(format!("{} untidy places", found.len()))
}

fn check_file(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let is_rust = path.ends_with(".rs");
    let stem = Path::new(path)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    if is_rust && DRAWERS.contains(&stem) {
        found.push(format!(
            "{path}: a file is named for what is in it, not {stem}"
        ));
    }
    if is_rust && !text.starts_with("//!") {
        found.push(format!("{path}:1: a file begins with //! and its purpose"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let mut complain = |what: &str| found.push(format!("{path}:{number}: {what}"));
        let machine = concat!("/wo", "rk/");
        if line.contains(machine) {
            complain("the project does not know the machine it is built on");
        }
        if !is_rust {
            continue;
        }
        if line.ends_with([' ', '\t']) {
            complain("white space at the end of the line");
        }
        if line.chars().count() > LINE_CHARS_MAX {
            complain("the line is too long");
        }
        if UNFINISHED.iter().any(|word| line.contains(word)) {
            complain("nothing unfinished lands: do it, or write an issue");
        }
        let code = line.split("//").next().unwrap_or_default();
        if code.contains(concat!("uns", "afe {")) && !path.starts_with("crates/sys/") {
            complain("system calls by hand belong in crates/sys");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked_line_by_line() {
        let text = format!("//! Purpose.\nlet a = 1; \n// {}\n", UNFINISHED[0]);
        assert_eq!(check_file("crates/x/src/a.rs", &text).len(), 2);
        assert_eq!(check_file("crates/x/src/utils.rs", "fn a() {}\n").len(), 2);
        let raw = concat!("//! P.\nuns", "afe { f() }\n");
        assert_eq!(check_file("crates/x/src/a.rs", raw).len(), 1);
        assert!(check_file("crates/sys/src/a.rs", raw).is_empty());
        assert!(check_file("README.md", "a \n").is_empty());
    }

    #[test]
    fn this_tree_is_tidy() {
        run(&crate::root()).unwrap();
    }
}
