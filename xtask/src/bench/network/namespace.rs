//! Network namespaces to measure in.

use crate::{Result, shell};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

/// Who keeps a namespace, and says when it is there. It ends by itself when whoever started it could not end it.
const HOLD: &str = "ip link set lo up; echo ready; exec sleep 3600";

/// A network namespace: one of our own that lasts as long as the value, or a container's.
pub(super) struct Namespace {
    holder: Option<Child>,
    netns: File,
    pid: u32,
}

impl Namespace {
    pub(super) fn new() -> Result<Self> {
        let failed = |error: std::io::Error| format!("unshare: {error}");
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", HOLD])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut ready = [0; 6];
        let output = holder.stdout.as_mut().ok_or("unshare has no output")?;
        output.read_exact(&mut ready).map_err(failed)?;
        let mut namespace = Self::of(holder.id())?;
        namespace.holder = Some(holder);
        Ok(namespace)
    }

    /// That of a process.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        let netns = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok(Self {
            holder: None,
            netns,
            pid,
        })
    }

    pub(super) fn netns(&self) -> &File {
        &self.netns
    }

    /// Runs `work` on a thread in the namespace; what it spawns is there, too.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.netns.as_fd(), kind)
                    .map_err(|error| error.to_string())?;
                work()
            });
            thread.join().map_err(|_| "a measurement panicked")?
        })
    }

    pub(super) fn sh(&self, script: &str) -> Result<()> {
        self.inside(|| shell::run("sh", &["-ec", script]))
    }

    /// The path by which `ip` knows it.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.pid)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            // It ends by itself, later, if it cannot be ended now.
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}
