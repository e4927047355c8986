//! From creation to deletion.

use super::Invocation;
use super::foreground::Foreground;
use super::log::{Log, rfc3339};
use super::streams::{check_console, hand_out, preserved};
use crate::api::{Create, Stdio};
use crate::cgroup::Cgroup;
use crate::create::{Container, create as create_container, start_at};
use crate::error::{Doing, Error, Result};
use crate::hooks;
use crate::init::hooks as hooks_of;
use crate::namespaces::own;
use crate::resctrl::Resctrl;
use crate::sealed;
use crate::sockets::{connect, listen};
use crate::state::{Known, Record, gate, read_bytes, start_ticks};
use oci::runtime::{Namespace, NamespaceKind, Spec, State, Status};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::process::{Pid, geteuid};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use sys::process::{Child, Namespaces};
use sys::{Context, signals};

/// How long a killed container may take to end.
const END_TIMEOUT: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

pub(super) fn create(invocation: &Invocation) -> Result<u8> {
    sealed::ensure()?;
    let new = New::prepare(invocation, true)?;
    let gate = listen(&gate(&new.directory), SocketType::SEQPACKET);
    let made = gate.and_then(|gate| new.create(invocation, Some(gate)));
    made.map(|_| 0)
        .map_err(|error| error.undone(invocation.store.forget(new.id)))
}

pub(super) fn run(invocation: &Invocation) -> Result<u8> {
    sealed::ensure()?;
    let detached = invocation.arguments.has("detach");
    let new = New::prepare(invocation, detached)?;
    let foreground = if detached {
        None
    } else {
        Some(Foreground::prepare())
    };
    let foreground = foreground.transpose();
    let made = foreground.and_then(|foreground| Ok((foreground, new.create(invocation, None)?)));
    let (foreground, mut container) =
        made.map_err(|error| error.undone(invocation.store.forget(new.id)))?;
    let known = invocation.store.find(new.id)?;
    if let Err(error) = container.start() {
        return Err(error.undone(destroy(&known, &invocation.log)));
    }
    let Some(foreground) = foreground else {
        return Ok(0);
    };
    let terminal = container.take_terminal();
    let code = foreground.attend(container.pid(), container.pidfd(), terminal)?;
    if !invocation.arguments.has("keep") {
        destroy(&known, &invocation.log)?;
    }
    Ok(code)
}

/// A container about to be created, its id reserved.
pub(super) struct New<'a> {
    pub(super) id: &'a str,
    pub(super) bundle: PathBuf,
    directory: PathBuf,
    pub(super) spec: Spec,
    preserve_fds: u32,
}

impl<'a> New<'a> {
    pub(super) fn prepare(invocation: &'a Invocation, detached: bool) -> Result<Self> {
        let id = invocation.id()?;
        let arguments = &invocation.arguments;
        let bundle = Path::new(arguments.value("bundle").unwrap_or("."));
        let bundle = std::fs::canonicalize(bundle)
            .call(|| format!("realpath({bundle:?})"))
            .doing("finding the bundle")?;
        let path = bundle.join(arguments.value("config").unwrap_or("config.json"));
        let config = read_bytes(&path)?
            .ok_or_else(|| Error::invalid(format!("there is no {}", path.display())))?;
        let mut spec: Spec = serde_json::from_slice(&config).map_err(|source| Error::Json {
            doing: format!("reading {}", path.display()).into(),
            source,
        })?;
        let (preserve_fds, variables) = preserved(invocation)?;
        let process = spec.process.as_mut();
        let terminal = process.as_ref().is_some_and(|process| process.terminal);
        if let Some(process) = process {
            process.env.extend(variables);
        }
        check_console(invocation, terminal, detached)?;
        let directory = invocation.store.reserve(id, &config)?;
        Ok(Self {
            id,
            bundle,
            directory,
            spec,
            preserve_fds,
        })
    }

    /// Creates it and puts it on record.
    fn create(&self, invocation: &Invocation, gate: Option<OwnedFd>) -> Result<Container> {
        let terminal = self
            .spec
            .process
            .as_ref()
            .is_some_and(|process| process.terminal);
        let request = Create {
            stdio: if terminal {
                Stdio::Terminal
            } else {
                Stdio::Inherit
            },
            preserve_fds: self.preserve_fds,
            gate,
            new_keyring: !invocation.arguments.has("no-new-keyring"),
            cgroup_manager: invocation.cgroup_manager,
            rootless: invocation.rootless,
            no_pivot: invocation.arguments.has("no-pivot"),
            ..Create::new(self.id, &self.bundle, &self.spec)
        };
        let mut container = create_container(request)?;
        for warning in container.warnings() {
            invocation.log.warning(warning);
        }
        let detached = invocation.arguments.value("console-socket").is_some();
        let terminal = if detached {
            container.take_terminal()
        } else {
            None
        };
        let (child, cgroup) = (container.child(), container.cgroup());
        match self.record(invocation, child, cgroup, terminal.as_ref()) {
            Ok(()) => Ok(container),
            Err(error) => Err(error.undone(container.destroy())),
        }
    }

    /// Puts it on record, and hands out what its caller wants.
    pub(super) fn record(
        &self,
        invocation: &Invocation,
        init: &Child,
        cgroup: &Cgroup,
        terminal: Option<&OwnedFd>,
    ) -> Result<()> {
        let pid = init.pid;
        let rootfs = self
            .spec
            .root
            .as_ref()
            .map(|root| self.bundle.join(&root.path));
        let record = Record {
            id: self.id.to_owned(),
            pid: pid.as_raw_nonzero().get(),
            start_ticks: start_ticks(pid)
                .ok_or_else(|| Error::State("the container's init has ended".into()))?,
            bundle: self.bundle.clone(),
            rootfs: rootfs.unwrap_or_default(),
            cgroup: cgroup.path(),
            unit: cgroup.unit().cloned(),
            created: rfc3339(SystemTime::now()),
            owner: geteuid().as_raw(),
        };
        Known::save(&self.directory, &record)?;
        hand_out(invocation, pid, init.pidfd.as_fd(), terminal)
    }

    /// criu restores processes into a time namespace. Where the configuration has none, what is kept of it gets one, so that
    /// processes executed later have the same clocks.
    pub(super) fn note_time_namespace(&self, pid: Pid) -> Result<()> {
        let namespace = |process: &str| {
            let path = format!("/proc/{process}/ns/time");
            let found = rustix::fs::stat(path.as_str()).call(|| format!("stat({path:?})"));
            found
                .map(|found| found.st_ino)
                .doing("looking at the clocks")
        };
        let pid = pid.as_raw_nonzero().to_string();
        if own(&self.spec).contains(Namespaces::TIME) || namespace("self")? == namespace(&pid)? {
            return Ok(());
        }
        let mut spec = self.spec.clone();
        let linux = spec.linux.get_or_insert_default();
        linux.namespaces.push(Namespace {
            kind: NamespaceKind::Time,
            path: None,
        });
        Known::replace_spec(&self.directory, &spec)
    }
}

pub(super) fn start(invocation: &Invocation) -> Result<u8> {
    let known = invocation.store.find(invocation.id()?)?;
    match known.status()? {
        Status::Created => {}
        Status::Stopped => {
            return Err(Error::State(
                "cannot start a container that has stopped".into(),
            ));
        }
        _ => {
            return Err(Error::State(
                "cannot start an already running container".into(),
            ));
        }
    }
    // What the hooks are told is that it was started, however soon it ends.
    let state = State {
        status: Status::Running,
        ..known.state()?
    };
    let gate = connect(&known.gate(), SocketType::SEQPACKET)?;
    start_at(gate)?;
    // Whoever looks from now on finds it running.
    std::fs::remove_file(known.gate())
        .call(|| "unlink(<gate>)")
        .doing("removing the container's gate")?;
    // The lifecycle then goes on with the container's end (runtime.md "Lifecycle", step 9).
    hooks::run("poststart", &hooks_of(&known.spec).poststart, &state)
        .map_err(|error| error.undone(destroy(&known, &invocation.log)))?;
    Ok(0)
}

pub(super) fn kill(invocation: &Invocation) -> Result<u8> {
    let known = invocation.store.find(invocation.id()?)?;
    let signal = signal(
        invocation
            .arguments
            .words
            .get(1)
            .map_or("SIGTERM", String::as_str),
    )?;
    let cgroup = known.cgroup()?;
    let everybody = !own_pids(&known.spec) && signal == libc::SIGKILL && !cgroup.is_none();
    if invocation.arguments.has("all") || everybody {
        if cgroup.is_none() {
            return Err(Error::unsupported(
                "finding all processes of a container without a cgroup",
            ));
        }
        if signal == libc::SIGKILL {
            cgroup.kill()?;
            return Ok(0);
        }
        for pid in cgroup.processes()? {
            sent(signals::send_to(pid, signal))?;
        }
        return Ok(0);
    }
    let init = known
        .init()?
        .ok_or_else(|| Error::State("container not running".into()))?;
    sent(signals::send(init.as_fd(), signal))?;
    if signal == libc::SIGKILL && cgroup.is_frozen()? {
        cgroup.thaw()?;
    }
    Ok(0)
}

/// What has ended meanwhile needs no signal.
fn sent(result: sys::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.errno != Errno::SRCH => Err(error).doing("sending the signal"),
        _ => Ok(()),
    }
}

fn own_pids(spec: &Spec) -> bool {
    let namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    namespaces
        .into_iter()
        .any(|namespace| namespace.kind == NamespaceKind::Pid)
}

/// The number of a signal given by number or by name, with or without `SIG`. Real-time signals are counted as glibc and
/// musl do, for the programs that get them: `RTMIN+3`, `RTMAX-1`.
fn signal(word: &str) -> Result<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    const NUMBERS: RangeInclusive<i32> = 1..=64;
    const REAL_TIME_MIN: i32 = 34;
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = NAMES.iter().zip(1..).find(|(known, _)| **known == name);
    let number = match (
        named,
        name.strip_prefix("RTMIN"),
        name.strip_prefix("RTMAX"),
    ) {
        (Some((_, number)), ..) => Some(number),
        (_, Some(""), _) => Some(REAL_TIME_MIN),
        (_, _, Some("")) => Some(*NUMBERS.end()),
        (_, Some(more), _) if more.starts_with('+') => more
            .parse()
            .ok()
            .and_then(|more: i32| REAL_TIME_MIN.checked_add(more)),
        (_, _, Some(less)) if less.starts_with('-') => {
            let number = less
                .parse()
                .ok()
                .and_then(|less: i32| less.checked_add(*NUMBERS.end()));
            number.filter(|number| *number >= REAL_TIME_MIN)
        }
        _ => word.parse().ok(),
    };
    number
        .filter(|number| NUMBERS.contains(number))
        .ok_or_else(|| Error::invalid(format!("unknown signal {word:?}")))
}

pub(super) fn delete(invocation: &Invocation) -> Result<u8> {
    let id = invocation.id()?;
    let force = invocation.arguments.has("force");
    let known = match invocation.store.find(id) {
        Err(Error::State(_)) if force => {
            invocation.store.forget(id)?;
            return Ok(0);
        }
        result => result?,
    };
    let status = known.status()?;
    if !force && status != Status::Stopped {
        let status = status.as_str();
        return Err(Error::State(
            format!(
                "cannot delete container {id} that is not stopped but {status} without --force"
            )
            .into(),
        ));
    }
    destroy(&known, &invocation.log)?;
    Ok(0)
}

/// Ends what still runs and removes everything.
pub(super) fn destroy(known: &Known, log: &Log) -> Result<()> {
    let cgroup = known.cgroup()?;
    if let Some(init) = known.init()? {
        sent(signals::send(init.as_fd(), libc::SIGKILL))?;
        if cgroup.is_frozen()? {
            cgroup.thaw()?;
        }
        let ended = poll(&mut [PollFd::new(&init, PollFlags::IN)], Some(&END_TIMEOUT))
            .call(|| "poll(<pidfd>)")
            .doing("waiting for the container's end")?;
        if ended == 0 {
            return Err(Error::State("the container outlives SIGKILL".into()));
        }
    }
    if !own_pids(&known.spec) {
        cgroup.kill()?;
    }
    cgroup.destroy()?;
    if let Some(wanted) = known.intel_rdt() {
        Resctrl::destroy_of(&known.record.id, wanted)?;
    }
    let state = known.state()?;
    known.remove()?;
    let poststop = &hooks_of(&known.spec).poststop;
    hooks::run_all("poststop", poststop, &state, |error| {
        log.warning(&error.chain());
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (word, expected) in [
            ("TERM", libc::SIGTERM),
            ("sigkill", libc::SIGKILL),
            ("2", libc::SIGINT),
            ("SIGWINCH", libc::SIGWINCH),
            ("37", 37),
            ("SIGRTMIN+3", 37),
            ("rtmin", 34),
            ("RTMAX", 64),
            ("SIGRTMAX-14", 50),
        ] {
            assert_eq!(signal(word).unwrap(), expected, "{word}");
        }
        for bad in [
            "", "0", "SIGNAL", "-9", "65", "RTMIN+31", "RTMIN-1", "RTMIN3", "RTMAX+1", "RTMAX-31",
        ] {
            assert!(signal(bad).is_err(), "{bad}");
        }
    }
}
