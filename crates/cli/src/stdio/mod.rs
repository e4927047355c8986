//! A process' streams and this terminal: copying both ways, raw mode, window sizes, detach keys, signals.

mod attach;
mod detach;
mod signals;
pub(crate) mod stdin;
mod terminal;

pub(crate) use attach::{Attach, End, copy_frames, copy_raw};
pub(crate) use signals::Signals;
pub(crate) use terminal::{NoEcho, check_stdin, is_terminal, keep_size, make_redraw, size};
