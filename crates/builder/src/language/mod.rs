//! The Dockerfile language: text to typed instructions.
//!
//! ```text
//! bytes ─lines─▶ logical lines with here-documents ─instruction─▶ typed instructions ─stages─▶ Dockerfile
//!                                                                        └─expand─▶ with variables replaced, when it runs
//! ```
//!
//! Nothing here touches a file, the network or the clock. A mistake is a [`Diagnostic`] with its place in the text.
//! Source: the Dockerfile reference of docker/dockerfile 1.20.

pub mod expand;

mod diagnostic;
mod directives;
mod heredoc;
mod instruction;
mod lines;
mod mount;
mod options;
mod stages;
pub(crate) mod suggest;
mod transfer;

pub use diagnostic::{Diagnostic, Position, excerpt, last_line};
pub use directives::{CheckDirective, Directives};
pub use heredoc::Heredoc;
pub use instruction::{
    ArgDeclaration, Command, From, Health, HealthTest, Instruction, Pair, Run, RunNetwork,
};
pub use lines::Notes;
pub use mount::{CacheSharing, Mount, MountKind};
pub use stages::{Dockerfile, Stage, Step, parse, parse_trigger};
pub use transfer::Transfer;

/// Bytes of a Dockerfile.
pub const DOCKERFILE_BYTES_MAX: usize = 4 << 20;
/// Instructions of a Dockerfile, those of all stages.
pub const INSTRUCTIONS_MAX: usize = 4096;
/// Here-documents of one instruction.
pub const HEREDOCS_MAX: usize = 64;
/// Bytes that one word may become when variables in it are replaced.
pub const WORD_BYTES_MAX: usize = 1 << 20;
