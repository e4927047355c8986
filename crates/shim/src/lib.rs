//! The supervisor of one container, its protocol and its log files.
pub mod log;
#[cfg(any())]
pub mod protocol;
pub mod protocol { #[derive(Debug,Clone)] pub struct LogConfig { pub path: std::path::PathBuf, pub max_bytes: Option<u64>, pub files_max: u32 } }
