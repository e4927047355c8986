//! The command line without the other faces of the binary: for its tests, and to try it against any Docker daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os(), Vec::new)
}
