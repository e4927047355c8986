//! Notice of processes ended by the OOM killer.
//!
//! Source: `memory.oom_control` with `cgroup.event_control` (cgroup v1 `memcg_test`, `cgroups.rst` 2.4), `memory.events` with
//! inotify(7) (cgroup v2 "memory.events": a change makes a file modified event).

use super::dir::Dir;
use super::layout::Version;
use crate::error::{Doing, Result};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use sys::Context;

/// Room for one event of inotify, whose name is empty.
const EVENT_BYTES: usize = 64;

/// A descriptor that becomes readable when memory ran out, and when the cgroup goes away; [`OomEvents::drain`] makes it
/// wait for the next time. How many processes were killed, [`super::Cgroup::oom_kills`] says.
#[derive(Debug)]
pub struct OomEvents {
    fd: OwnedFd,
}

impl OomEvents {
    pub(super) fn watch(version: Version, memory: &Dir) -> Result<Self> {
        let fd = match version {
            Version::V1 => watch_v1(memory),
            Version::V2 => watch_v2(memory),
        };
        Ok(Self {
            fd: fd.doing("watching for memory running out")?,
        })
    }

    /// Takes the notices that have arrived.
    pub fn drain(&self) -> Result<()> {
        let mut buffer = [0; EVENT_BYTES];
        loop {
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => {
                    let error = Err(errno).call(|| "read(<oom events>)");
                    return error.doing("watching for memory running out");
                }
            }
        }
    }
}

impl AsFd for OomEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn watch_v1(memory: &Dir) -> sys::Result<OwnedFd> {
    let event =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).call(|| "eventfd2(0)")?;
    let control = memory.file("memory.oom_control", OFlags::RDONLY)?;
    let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    memory.write("cgroup.event_control", &line)?;
    Ok(event)
}

fn watch_v2(memory: &Dir) -> sys::Result<OwnedFd> {
    let fd =
        inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).call(|| "inotify_init1")?;
    let path = memory.path().join("memory.events");
    inotify::add_watch(&fd, &path, WatchFlags::MODIFY)
        .call(|| format!("inotify_add_watch({path:?}, IN_MODIFY)"))?;
    Ok(fd)
}
