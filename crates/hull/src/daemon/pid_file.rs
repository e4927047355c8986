//! `--pidfile`: where others find the engine's process.

use std::path::{Path, PathBuf};

/// The file; it goes with the engine.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes it, unless it tells of a process that lives. The file of an engine that was killed is replaced.
    pub(super) fn write(path: impl AsRef<Path>) -> Result<Self, String> {
        let path = path.as_ref();
        let own = std::process::id();
        let found = std::fs::read_to_string(path).unwrap_or_default();
        let other: Option<u32> = found.trim().parse().ok();
        if let Some(other) = other.filter(|pid| *pid != own)
            && Path::new("/proc").join(other.to_string()).exists()
        {
            return Err(format!(
                "failed to start daemon: process with PID {other} is still running: {}",
                path.display()
            ));
        }
        let written = std::fs::write(path, own.to_string());
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Who has removed it before means the same.
        let _ = std::fs::remove_file(&self.path);
    }
}
