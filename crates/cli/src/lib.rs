//! The docker-style command line: parses, speaks to an engine through `client`, renders.
//!
//! ```text
//! app      the command tree; from argv to one command's run function
//! flags    the flags of a command, and the parser        help     what --help prints
//! parse/   values of flags to wire types                 go/      what Docker's clients inherit from Go's libraries
//! endpoint which engine, by which way                    context/ names for engines, on disk as Docker's client has them
//! session  the engine's client; starts hull's own        stdio    attached streams, the terminal, signals
//! registry/ credentials, and what speaks to registries   progress  bars of pull, push, load
//! pages    all of it as pages of one shape           completion/  scripts, and what they ask
//! container/ image/ volume network system …              one file for a command or a few that belong together
//! ```
//!
//! Invariants: nothing is decided here that the engine should decide, every flag is either put on the wire as Docker's
//! client does or refused by name, and exit codes are Docker's.

mod app;
mod build;
mod checkpoint;
mod completion;
mod config;
mod container;
mod context;
mod endpoint;
mod error;
mod flags;
mod format;
mod go;
mod help;
mod image;
mod inspect;
mod json;
mod man;
mod network;
mod objects;
mod output;
mod pages;
mod parse;
mod progress;
mod registry;
mod session;
mod spawn;
mod stdio;
mod system;
mod volume;

use std::ffi::OsString;
use std::process::ExitCode;

pub use pages::{Choice, Face};

/// Runs one command line, `args[0]` being the name the program was called by, and returns what to exit with. `faces` tells of
/// the commands that the program answers itself.
pub fn main(args: impl IntoIterator<Item = OsString>, faces: fn() -> Vec<Face>) -> ExitCode {
    match app::run(args.into_iter().collect(), faces) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(report) = error.report() {
                output::complain(&report);
            }
            ExitCode::from(error.exit_code())
        }
    }
}
