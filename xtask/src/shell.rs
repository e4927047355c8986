//! Running programs, and speaking to the person who waits.

use crate::Result;
use std::io::Write;
use std::process::{Command, Stdio};

/// Says something on standard error.
pub(crate) fn say(text: &str) {
    // Nobody is left to be told when this fails.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints a result on standard output.
pub(crate) fn print(text: &str) {
    // As above.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Runs a program that has to succeed; its output is the task's.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    // What cargo tells of this crate would have other crates' build scripts run again, and all that depends on them built.
    let of_cargo = std::env::vars_os().map(|(name, _)| name);
    for name in of_cargo.filter(|name| is_of_crate(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    let status = command.args(arguments).status();
    let status = status.map_err(|error| format!("cannot run {program}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!(
        "{program} {} failed: {status}",
        arguments.join(" ")
    ))
}

/// Whether a variable is what cargo tells a program of the crate that it is of.
fn is_of_crate(name: &str) -> bool {
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// Whether a program is on the PATH.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// A program without input, whose output is thrown away.
pub(crate) fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}
