//! The runtime alone, as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::main(std::env::args_os().skip(1))
}
