//! Chooses the face of the binary, by its name and its first word, before any thread or async runtime starts.

mod daemon;
mod registry;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_owned();
    let rest: Vec<OsString> = arguments.collect();
    let first = rest.first().and_then(|word| word.to_str());
    match (name.to_str(), first) {
        (Some("hull-shim"), Some("shim")) | (Some("hull"), Some("shim")) => shim::main(),
        (Some("hulld"), _) => daemon::main(rest),
        (Some("hull-runtime"), _) => runtime::main(rest.into_iter()),
        (_, Some("daemon")) => daemon::main(rest.into_iter().skip(1)),
        (_, Some("registry")) => registry::main(rest.into_iter().skip(1)),
        (_, Some("runtime")) => runtime::main(rest.into_iter().skip(1)),
        _ => cli::main(std::iter::once(name).chain(rest)),
    }
}
