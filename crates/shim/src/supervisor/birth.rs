//! The making of the container: its processes by the runtime or by criu, and the shim's ends of their streams.

use crate::failures::{runtime_failure, system};
use crate::process;
use crate::protocol::{Failure, Launch};
use crate::state;
use crate::watch::{Poll, Watched};
use oci::runtime::Spec;
use runtime::cgroup::OomEvents;
use runtime::{Container, Stdio};
use rustix::process::{Signal, WaitOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

/// Makes the container, and the shim's ends of its init's streams.
pub(super) fn create_container(
    launch: &Launch,
    spec: &Spec,
    terminal: bool,
) -> Result<(Container, process::Ends), Failure> {
    let (stdio, ends) = open_streams(terminal, launch.stdin)?;
    if let (true, Some(root)) = (spec.hooks.is_some() || launch.restore.is_some(), &spec.root) {
        // Hooks and criu find the root at its path; it is mounted nowhere else.
        std::fs::create_dir_all(launch.bundle.join(&root.path))
            .map_err(|error| system("mkdir", &error))?;
    }
    let rootfs = runtime::Rootfs::Overlay {
        lowers: &launch.lowers,
        upper: &launch.upper,
        work: &launch.work,
    };
    let made = match &launch.restore {
        None => runtime::create(runtime::Create {
            user: launch.user.as_deref(),
            group_add: &launch.groups,
            reaper: launch.reaper,
            rootfs,
            stdio,
            ..runtime::Create::new(&launch.id, &launch.bundle, spec)
        }),
        Some(restore) => runtime::prepare_restore(runtime::FromImages {
            id: &launch.id,
            bundle: &launch.bundle,
            spec,
            rootfs,
            stdio,
            criu: &restore.criu,
            images: &restore.images,
        }),
    };
    let mut container = made.map_err(|error| runtime_failure(&error))?;
    let ends = complete_streams(ends, container.take_terminal(), launch.stdin);
    let ends = ends.inspect_err(|_| abandon(&container))?;
    Ok((container, ends))
}

/// The streams of a new process: pipes, or a terminal that the runtime makes.
pub(super) fn open_streams(
    terminal: bool,
    stdin: bool,
) -> Result<(Stdio, Option<process::Ends>), Failure> {
    if terminal {
        return Ok((Stdio::Terminal, None));
    }
    let (stdio, ends) = process::pipes(stdin).map_err(|error| system("pipe2", &error))?;
    Ok((stdio, Some(ends)))
}

/// The shim's ends: the pipes', or those of the terminal that came back.
pub(super) fn complete_streams(
    pipes: Option<process::Ends>,
    terminal: Option<OwnedFd>,
    stdin: bool,
) -> Result<process::Ends, Failure> {
    let ends = match (pipes, terminal) {
        (Some(ends), _) => Ok(ends),
        (None, Some(master)) => process::terminal(master, stdin),
        (None, None) => Err(io::Error::other("the runtime gave no terminal")),
    };
    ends.map_err(|error| system("set up the process's streams", &error))
}

type Served = (OwnedFd, Watched<UnixListener>, Watched<OomEvents>);

/// What a made container is served with.
pub(super) fn serve_container(
    poll: &mut Poll,
    launch: &Launch,
    container: &Container,
) -> Result<Served, Failure> {
    let oom_events = container.cgroup().oom_events();
    let oom_events = oom_events.map_err(|error| runtime_failure(&error))?;
    let pidfd = container.pidfd().try_clone_to_owned();
    let pidfd = pidfd.map_err(|error| system("duplicate the pidfd", &error))?;
    let pid = container.pid().as_raw_pid();
    let recorded = state::record(&launch.bundle, pid, container.cgroup().path());
    let listener = recorded.and_then(|()| state::listen(&launch.bundle));
    let listener = listener.map_err(|error| system("make the container's socket", &error))?;
    Ok((pidfd, poll.watch(listener), poll.watch(oom_events)))
}

/// Undoes a container that cannot be supervised.
pub(super) fn abandon(container: &Container) {
    let _ = rustix::process::pidfd_send_signal(container.pidfd(), Signal::KILL);
    let _ = rustix::process::waitpid(Some(container.pid()), WaitOptions::empty());
    let _ = container.cgroup().destroy();
}
