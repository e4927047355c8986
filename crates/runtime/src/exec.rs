//! Execution of a further process in a running container.
//!
//! The child is born in the container's pid namespace and cgroup, and joins the other namespaces at once by init's pidfd:
//! nothing is looked up by number, and nothing of the runtime's is visible to the container before the child has become the
//! container's (attacks 1 and 3).

use crate::api::{ExecRequest, Stdio, Target};
use crate::cgroup::Entry;
use crate::channel::{Channel, Message};
use crate::create::{Way, deliver_by_way, end, hide_from_others};
use crate::error::{Doing, Error, Result};
use crate::init::{become_root, fail, hide_keys, state};
use crate::launch::{Launch, Overrides};
use crate::limits::set_affinity;
use crate::namespaces::{BirthPlace, own, root_of};
use crate::procfs::Procfs;
use crate::resctrl::Resctrl;
use crate::{rootfs, stdio};
use oci::runtime::{Process, Status};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Pid, geteuid, setsid, umask};
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use sys::Context;
use sys::process::{Child, Namespaces, Spawn, close_inherited, setns, spawn};
use sys::root::Root;

/// A process executed in a container: a child of the calling process, which reaps it.
#[derive(Debug)]
pub struct Exec {
    /// The process.
    pub pid: Pid,
    /// A pidfd of it.
    pub pidfd: OwnedFd,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
    /// What of its configuration could not be had, where the specification asks for a warning.
    pub warnings: Vec<String>,
}

/// Executes a process in a running container, and returns when it was executed or with why it was not; it has ended then.
///
/// The calling process should have one thread; it becomes non-dumpable.
pub fn exec(target: &Target<'_>, request: ExecRequest<'_>) -> Result<Exec> {
    if !request.ignore_paused && target.cgroup.is_frozen()? {
        return Err(Error::State("cannot exec in a paused container".into()));
    }
    let ExecRequest {
        process,
        stdio,
        user,
        group_add,
        preserve_fds,
        sub_cgroups,
        ..
    } = request;
    let namespaces = own(target.spec);
    let overrides = Overrides {
        user,
        group_add,
        preserve_fds,
    };
    let users = namespaces.contains(Namespaces::USER);
    let mut missing = Vec::new();
    let launch = Launch::prepare(target.spec, process, overrides, false, users, &mut missing)?;
    let mut entry = match sub_cgroups {
        [] => target.cgroup.entry()?,
        parts => target.cgroup.below(parts)?.entry()?,
    };
    let linux = target.spec.linux.as_ref();
    if let Some(wanted) = linux.and_then(|linux| linux.intel_rdt.as_ref()) {
        entry.add(Resctrl::open(target.id, wanted)?.tasks()?);
    }
    let entering = Entering {
        target,
        namespaces,
        process,
        launch,
        procfs: Procfs::open()?,
        entry,
        stdio,
        follows_init: sub_cgroups.is_empty(),
        by_user_namespace: users && !geteuid().is_root(),
    };
    hide_from_others()?;
    let (ours, theirs) = Channel::pair()?;
    let child = entering.spawn(&ours, theirs)?;
    match Entering::attend(&ours) {
        Ok(terminal) => Ok(Exec {
            pid: child.pid,
            pidfd: child.pidfd,
            terminal,
            warnings: missing
                .iter()
                .map(|name| format!("capability {name} is not available"))
                .collect(),
        }),
        Err(error) => Err(error.undone(end(&child))),
    }
}

/// A process on its way into a container.
#[derive(Debug)]
struct Entering<'a> {
    target: &'a Target<'a>,
    namespaces: Namespaces,
    process: &'a Process,
    launch: Launch<'a>,
    procfs: Procfs,
    entry: Entry,
    stdio: Stdio,
    /// Whether it may be where init is when the container's own cgroup takes no process: unless another was asked for.
    follows_init: bool,
    /// Whether the user namespace must be entered before all else, even before birth: it is what gives an ordinary user the
    /// rights over the others.
    by_user_namespace: bool,
}

impl Entering<'_> {
    fn spawn(&self, ours: &Channel, theirs: Channel) -> Result<Child> {
        let unit = self.entry.attached_by();
        if self.by_user_namespace || unit.is_some() {
            let pids = self.namespaces.contains(Namespaces::PID);
            let pidfd = self.target.pidfd;
            let way = Way {
                users: self.by_user_namespace.then_some(pidfd),
                pids: pids.then_some(pidfd),
                unit,
            };
            let how = Spawn {
                cgroup: self.entry.born(),
                ..Spawn::default()
            };
            return deliver_by_way(way, how, move || {
                close_inherited(ours.as_fd());
                self.live(&theirs)
            });
        }
        let place = match self.namespaces.contains(Namespaces::PID) {
            true => Some(BirthPlace::set(self.target.pidfd)?),
            false => None,
        };
        let body = || {
            close_inherited(ours.as_fd());
            self.live(&theirs)
        };
        let bear = |cgroup: Option<BorrowedFd<'_>>| {
            let how = Spawn {
                cgroup,
                ..Spawn::default()
            };
            spawn(how, body)
        };
        let child = match bear(self.entry.born()) {
            // It hands controllers down, and takes no process any more (cgroup-v2.rst, "No Internal Process Constraint"): a
            // service manager is the container's init and has moved to a group below. So does what is executed.
            Err(error) if error.errno == Errno::BUSY && self.follows_init => {
                let beside = self.target.cgroup.group_of(self.target.init);
                beside.and_then(|group| bear(Some(group.as_fd())).doing("starting the process"))
            }
            child => child.doing("starting the process"),
        };
        match (place.map_or(Ok(()), BirthPlace::restore), child) {
            (Ok(()), child) => child,
            (Err(error), Ok(child)) => Err(error.undone(end(&child))),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// The caller's side, until the process was executed.
    fn attend(channel: &Channel) -> Result<Option<OwnedFd>> {
        let mut terminal = None;
        let mut executing = false;
        loop {
            match channel.receive()? {
                Some(Message::Ready(master)) => terminal = master,
                Some(Message::Executing) => executing = true,
                Some(Message::Failed(kind, message)) => {
                    return Err(Error::Container { kind, message });
                }
                Some(_) => return Err(Error::State("the process spoke out of turn".into())),
                None if executing => return Ok(terminal),
                None => {
                    return Err(Error::State(
                        "the process was killed while it was set up".into(),
                    ));
                }
            }
        }
    }

    /// The process's side.
    fn live(&self, channel: &Channel) -> Infallible {
        let Err(error) = self.run(channel);
        fail(channel, &error)
    }

    /// Init's root, where it is not that of a mount namespace of the container's own.
    fn foreign_root(&self) -> Result<Option<OwnedFd>> {
        if self.namespaces.contains(Namespaces::MOUNT) {
            return Ok(None);
        }
        let root = root_of(&self.procfs, self.target.init)?;
        // Init was there when its root was opened by its number: that is not another's by now.
        sys::signals::send(self.target.pidfd, 0).doing("looking for the container's init")?;
        Ok(Some(root))
    }

    fn run(&self, channel: &Channel) -> Result<Infallible> {
        sys::signals::reset().doing("resetting signals")?;
        umask(Mode::empty());
        let affinity = self.process.exec_cpu_affinity.as_ref();
        if let Some(cpus) = affinity.and_then(|affinity| affinity.initial.as_deref()) {
            set_affinity(cpus)?;
        }
        self.entry.enter()?;
        if let Some(cpus) = affinity.and_then(|affinity| affinity.last.as_deref()) {
            set_affinity(cpus)?;
        }
        self.launch.give_from_outside(None, &self.procfs)?;
        let label = self.launch.label(&self.procfs)?;
        let root = self.foreign_root()?;
        let mut others = self.namespaces.without(Namespaces::PID);
        if self.by_user_namespace {
            others = others.without(Namespaces::USER);
        }
        setns(self.target.pidfd, others).doing("joining the container's namespaces")?;
        if let Some(root) = root {
            rootfs::enter_detached(root.as_fd())?;
        }
        if self.namespaces.contains(Namespaces::USER) {
            become_root()?;
        }
        setsid().call(|| "setsid()").doing("making a session")?;
        hide_keys()?;
        let root = Root::open(Path::new("/")).doing("opening the container's root")?;
        let terminal = stdio::install(&self.stdio, &root, self.process.console_size)?;
        let ready = self.launch.become_user(&root, label)?;
        drop(root);
        if let Some(terminal) = terminal {
            channel.send(&Message::Ready(Some(terminal.master)))?;
        }
        let Target {
            id, bundle, spec, ..
        } = *self.target;
        let state = || {
            Ok(state(
                spec,
                id,
                bundle,
                Status::Running,
                self.procfs.own_pid()?,
            ))
        };
        Err(self.launch.execute(&ready, channel, state))
    }
}
