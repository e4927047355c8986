//! Creation of a container, on the caller's side: check everything, make the cgroup, let init be born, answer it until it
//! waits at the gate. What was made is undone when any of that fails.

use crate::api::{Create, Rootfs, Stdio};
use crate::cgroup::{Cgroup, CgroupManager, Entry, Unit, Wanted, unified};
use crate::channel::{Channel, Message};
use crate::criu::Restoring;
use crate::error::{Doing, Error, Result};
use crate::hooks::{self, reap};
use crate::init::{Birth, fail, hooks as hooks_of, state, wait_for_go};
use crate::launch::{Launch, Overrides};
use crate::mounts::Prepared;
use crate::namespaces::{self, BirthPlace, Plan};
use crate::procfs::Procfs;
use crate::resctrl::Resctrl;
use crate::{id_maps, mounts, net_devices, rootfs, sysctl};
use oci::runtime::{Hook, Linux, Spec, State, Status};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Signal, geteuid, pidfd_send_signal, set_dumpable_behavior,
};
use std::borrow::Cow;
use std::cell::RefCell;
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::Context;
use sys::process::{Child, Namespaces, Spawn, close_inherited, exit, setns, spawn};

/// A created container. Its init is a child of the calling process, which reaps it.
#[derive(Debug)]
pub struct Container {
    child: Child,
    cgroup: Cgroup,
    resctrl: Option<Resctrl>,
    /// Unset once the gate is open, or when it opens by a socket.
    channel: Option<Channel>,
    terminal: Option<OwnedFd>,
    warnings: Vec<String>,
    poststart: Vec<Hook>,
    state: State,
    /// Of one that is to be made of images: its init only holds a network namespace so far.
    restoring: Option<Box<Restoring>>,
}

/// Creates a container: everything up to the execution of its program, for which its init waits at the gate.
///
/// The calling process should have one thread; it becomes non-dumpable when the container shares a pid namespace. On error
/// nothing is left.
pub fn create(request: Create<'_>) -> Result<Container> {
    let (spec, rootfs, gated) = (request.spec, request.rootfs, request.gate.is_some());
    let mut warnings = Vec::new();
    let linux = spec.linux.as_ref();
    let resources = linux.and_then(|linux| linux.resources.as_ref());
    let wanted = Wanted {
        id: request.id,
        path: linux.and_then(|linux| linux.cgroups_path.as_deref()),
        manager: request.cgroup_manager,
        resources,
        annotations: &spec.annotations,
        rootless: request.rootless,
    };
    let mut birth = prepare(request, &mut warnings)?;
    let mut cgroup = Cgroup::create(&wanted)?;
    let wanted = linux.and_then(|linux| linux.intel_rdt.as_ref());
    let resctrl = cgroup.give_to_user(spec).and_then(|()| {
        let made = wanted.map(|wanted| Resctrl::create(birth.id, wanted));
        made.transpose()
    });
    let resctrl = resctrl.map_err(|error| error.undone(cgroup.destroy()))?;
    let born = bear(&mut birth, rootfs, &cgroup, resctrl.as_ref()).and_then(|born| {
        let settled = cgroup.settle(resources);
        settled.map_err(|error| error.undone(end(&born.0)))?;
        Ok(born)
    });
    match born {
        Ok((child, channel, terminal)) => {
            let pid = child.pid.as_raw_nonzero().get();
            Ok(Container {
                child,
                channel: (!gated).then_some(channel),
                terminal,
                warnings,
                poststart: hooks_of(spec).poststart.clone(),
                state: state(spec, birth.id, &birth.bundle, Status::Running, pid),
                cgroup,
                resctrl,
                restoring: None,
            })
        }
        Err(error) => {
            let undone = cgroup.kill().and_then(|()| cgroup.destroy());
            let undone = undone.and(resctrl.as_ref().map_or(Ok(()), Resctrl::destroy));
            Err(error.undone(undone.and(run_poststop(&birth))))
        }
    }
}

/// Lets hooks undo what those of the creation have done; the first failure of one.
fn run_poststop(birth: &Birth<'_>) -> Result<()> {
    let state = state(birth.spec, birth.id, &birth.bundle, Status::Stopped, 0);
    let first = RefCell::new(None);
    hooks::run_all(
        "poststop",
        &hooks_of(birth.spec).poststop,
        &state,
        |error| {
            first.borrow_mut().get_or_insert_with(|| error.chain());
        },
    );
    match first.into_inner() {
        None => Ok(()),
        Some(failure) => Err(Error::State(failure.into())),
    }
}

impl Container {
    /// One that its start makes of images; `child` goes then.
    pub(crate) fn to_restore(
        child: Child,
        cgroup: Cgroup,
        restoring: Restoring,
        state: State,
    ) -> Self {
        Self {
            child,
            cgroup,
            resctrl: None,
            channel: None,
            terminal: None,
            warnings: Vec::new(),
            poststart: hooks_of(&restoring.spec).poststart.clone(),
            state,
            restoring: Some(Box::new(restoring)),
        }
    }

    /// Its init.
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// A pidfd of its init.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// Its init, as a child of the calling process.
    pub(crate) fn child(&self) -> &Child {
        &self.child
    }

    /// The master of its terminal, once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// What of the configuration could not be had, where the specification asks for a warning.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Ends it and removes its cgroup, and what is like one.
    pub fn destroy(&self) -> Result<()> {
        end(&self.child)?;
        self.cgroup.kill()?;
        self.cgroup.destroy()?;
        self.resctrl.as_ref().map_or(Ok(()), Resctrl::destroy)
    }

    /// Opens the gate, and waits until the program was executed or told why not. Init has ended in the latter case.
    ///
    /// One of [`crate::prepare_restore`] is restored, and has another init than before.
    pub fn start(&mut self) -> Result<()> {
        if let Some(restoring) = self.restoring.take() {
            let child = restoring.finish(&self.child, &mut self.cgroup)?;
            self.state.pid = child.pid.as_raw_nonzero().get();
            end(&std::mem::replace(&mut self.child, child))?;
            return hooks::run("poststart", &self.poststart, &self.state);
        }
        let Some(channel) = self.channel.take() else {
            return Err(Error::State("the container was started already".into()));
        };
        open(&channel, Some(&self.cgroup))?;
        hooks::run("poststart", &self.poststart, &self.state)
    }
}

/// Opens the gate that listens on a socket, given connected to it, and waits as [`Container::start`] does.
pub fn start_at(gate: OwnedFd) -> Result<()> {
    open(&Channel::from_fd(gate), None)
}

/// Opens the gate for an init that waits at it.
fn open(channel: &Channel, cgroup: Option<&Cgroup>) -> Result<()> {
    channel.send(&Message::Start)?;
    await_execution(channel, cgroup)
}

/// Waits for the end of the stream, which after the last word means that the program was executed.
fn await_execution(channel: &Channel, cgroup: Option<&Cgroup>) -> Result<()> {
    let mut executing = false;
    loop {
        match channel.receive()? {
            Some(Message::Executing) => executing = true,
            Some(Message::Failed(kind, message)) => return Err(Error::Container { kind, message }),
            None if executing => return Ok(()),
            None => return Err(gone(cgroup)),
            Some(_) => {
                return Err(Error::State(
                    "the container's init spoke out of turn".into(),
                ));
            }
        }
    }
}

/// Init ended without a word: most often for want of memory.
fn gone(cgroup: Option<&Cgroup>) -> Error {
    let oom = cgroup.is_some_and(|cgroup| cgroup.oom_kills().is_ok_and(|kills| kills > 0));
    Error::State(Cow::Borrowed(if oom {
        "the container's init was killed for want of memory: is its limit too low?"
    } else {
        "the container's init was killed"
    }))
}

/// Checks a request and opens what it names.
fn prepare<'a>(request: Create<'a>, warnings: &mut Vec<String>) -> Result<Birth<'a>> {
    let spec = request.spec;
    let bundle = std::path::absolute(request.bundle)
        .call(|| "getcwd")
        .doing("finding the bundle")?;
    let process = spec
        .process
        .as_ref()
        .ok_or_else(|| Error::invalid("the configuration has no process"))?;
    let linux = spec.linux.as_ref();
    linux.map_or(Ok(()), net_devices::check)?;
    let plan = Plan::new(spec)?;
    if request.reaper && !plan.new.contains(Namespaces::PID) {
        return Err(Error::invalid("an init process needs a new pid namespace"));
    }
    let overrides = Overrides {
        user: request.user,
        group_add: request.group_add,
        preserve_fds: request.preserve_fds,
    };
    let users = plan.has(Namespaces::USER);
    let mut missing = Vec::new();
    let launch = Launch::prepare(spec, process, overrides, true, users, &mut missing)?;
    warnings.extend(
        missing
            .iter()
            .map(|name| format!("capability {name} is not available")),
    );
    if request.no_pivot {
        warnings
            .push("without pivot_root a container that may call chroot can leave its root".into());
    }
    if request.cgroup_manager == CgroupManager::Disabled {
        warnings.push("without a cgroup no device rules are in force".into());
    }
    let procfs = Procfs::open()?;
    let own = namespaces::own(spec);
    let sysctls = linux
        .map(|linux| sysctl::check(linux, own))
        .transpose()?
        .unwrap_or_default();
    let unprivileged = !geteuid().is_root();
    let (mounts, root) = if unprivileged {
        check_unprivileged(&plan, request.rootfs)?;
        (Vec::new(), None)
    } else {
        open_sources(spec, &bundle, request.rootfs, &plan, &procfs)?
    };
    Ok(Birth {
        id: request.id,
        bundle,
        spec,
        plan,
        mounts,
        sysctls,
        launch,
        procfs,
        root,
        entry: Entry::default(),
        cgroup: PathBuf::new(),
        stdio: request.stdio,
        reaper: request.reaper,
        gate: request.gate,
        keyring: request.new_keyring,
        no_pivot: request.no_pivot,
        unprivileged,
    })
}

/// The sources of mounts, and the root unless it must wait for the container's user namespace.
fn open_sources<'a>(
    spec: &'a Spec,
    bundle: &Path,
    rootfs: Rootfs<'_>,
    plan: &Plan,
    procfs: &Procfs,
) -> Result<(Vec<Prepared<'a>>, Option<OwnedFd>)> {
    // What is mapped as a new user namespace is must wait for it.
    let waits = plan.new.contains(Namespaces::USER);
    let users = plan.joins(Namespaces::USER).map(AsFd::as_fd);
    // The kernel lists mounts by their age (since Linux 6.8): the root comes before what is below it.
    let root = match rootfs {
        Rootfs::Overlay { .. } if waits => None,
        rootfs => Some(rootfs::open(rootfs, spec, bundle, users)?),
    };
    if let Some(root) = root.as_ref().filter(|_| !plan.has(Namespaces::MOUNT)) {
        rootfs::refuse_detached(root.as_fd())?;
    }
    let mut mounts = mounts::prepare(spec, bundle, procfs)?;
    if !waits {
        mounts
            .iter_mut()
            .try_for_each(|mount| mount.map_ids(users))?;
    }
    Ok((mounts, root))
}

/// What it takes an ordinary user to create a container.
fn check_unprivileged(plan: &Plan, rootfs: Rootfs<'_>) -> Result<()> {
    if !plan.has(Namespaces::USER) {
        return Err(Error::invalid(
            "without root's rights a container needs a user namespace (spec --rootless)",
        ));
    }
    match rootfs {
        Rootfs::Path => Ok(()),
        Rootfs::Overlay { .. } => Err(Error::unsupported(
            "an overlay of layers without root's rights",
        )),
    }
}

/// Lets init be born and answers it until it waits at the gate. It is ended and reaped when that fails.
fn bear(
    birth: &mut Birth<'_>,
    rootfs: Rootfs<'_>,
    cgroup: &Cgroup,
    resctrl: Option<&Resctrl>,
) -> Result<(Child, Channel, Option<OwnedFd>)> {
    birth.entry = cgroup.entry()?;
    if let Some(resctrl) = resctrl {
        birth.entry.add(resctrl.tasks()?);
    }
    birth.cgroup = cgroup.relative_path().to_owned();
    if !birth.plan.new.contains(Namespaces::PID) {
        hide_from_others()?;
    }
    let (ours, theirs) = Channel::pair()?;
    let child = deliver(birth, &ours, theirs)?;
    // The process's ends of its streams are its own now.
    birth.stdio = Stdio::Inherit;
    match attend(birth, rootfs, cgroup, &child, &ours) {
        Ok(terminal) => Ok((child, ours, terminal)),
        Err(error) => Err(error.undone(end(&child))),
    }
}

/// Keeps processes that share a pid namespace with a child from tracing it before it has given up its rights (attack 1). A
/// child inherits that; it can only be set for the whole process.
pub(crate) fn hide_from_others() -> Result<()> {
    if !geteuid().is_root() {
        // Its own files in /proc would then be root's, and it could not write its children's id maps.
        return Ok(());
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .call(|| "prctl(PR_SET_DUMPABLE, 0)")
        .doing("protecting the process")
}

fn deliver(birth: &Birth<'_>, ours: &Channel, theirs: Channel) -> Result<Child> {
    let doing = "starting the container's init";
    let mut namespaces = birth.plan.new;
    if !unified()? {
        // The root of a cgroup namespace is where its maker is, and v1 hierarchies are entered only after birth.
        namespaces = namespaces.without(Namespaces::CGROUP);
    }
    if birth.plan.has(Namespaces::USER) {
        // Its message queues belong to who makes it: the user namespace's root, whom init becomes only after birth.
        namespaces = namespaces.without(Namespaces::IPC);
    }
    if birth
        .spec
        .linux
        .as_ref()
        .is_some_and(|linux| !linux.time_offsets.is_empty())
    {
        // They must be set before anybody is in it.
        namespaces = namespaces.without(Namespaces::TIME);
    }
    let how = Spawn {
        namespaces,
        cgroup: birth.entry.born(),
        sibling: false,
    };
    let body = move || {
        close_inherited(ours.as_fd());
        birth.live(theirs)
    };
    let pid_namespace = birth.plan.joins(Namespaces::PID);
    let users = birth.plan.joins(Namespaces::USER);
    let by_way = Way {
        users: users.map(AsFd::as_fd),
        pids: pid_namespace.map(AsFd::as_fd),
        unit: birth.entry.attached_by(),
    };
    if by_way.users.is_some() || by_way.unit.is_some() {
        return deliver_by_way(by_way, how, body);
    }
    let place = pid_namespace.map(BirthPlace::set).transpose()?;
    let child = spawn(how, body).doing(doing);
    match (place.map_or(Ok(()), BirthPlace::restore), child) {
        (Ok(()), child) => child,
        (Err(error), Ok(child)) => Err(error.undone(end(&child))),
        (Err(error), Err(_)) => Err(error),
    }
}

/// What a process enters before a child is born of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    /// A user namespace: new namespaces belong to that of their maker.
    pub(crate) users: Option<BorrowedFd<'a>>,
    /// A pid namespace, which only births enter.
    pub(crate) pids: Option<BorrowedFd<'a>>,
    /// A unit, which systemd moves it into.
    pub(crate) unit: Option<&'a Unit>,
}

impl Way<'_> {
    fn enter(&self) -> sys::Result<()> {
        for (fd, kind) in [(self.users, Namespaces::USER), (self.pids, Namespaces::PID)] {
            if let Some(fd) = fd {
                setns(fd, kind)?;
            }
        }
        Ok(())
    }
}

/// Lets a child be born by a process in between, whose sibling it is.
pub(crate) fn deliver_by_way(
    way: Way<'_>,
    how: Spawn<'_>,
    body: impl FnOnce() -> Infallible,
) -> Result<Child> {
    let doing = "starting the container's init by another process";
    let (ours, theirs) = Channel::pair()?;
    let other_end = ours.as_fd();
    let middle = move || {
        close_inherited(other_end);
        let waited = way.unit.map_or(Ok(()), |_| wait_for_go(&theirs).map(drop));
        let sibling = Spawn {
            cgroup: None,
            sibling: true,
            ..how
        };
        let born = waited
            .and_then(|()| way.enter().doing(doing))
            .and_then(|()| spawn(sibling, body).doing(doing));
        let told = born.and_then(|child| theirs.send(&Message::Born(child.pid, child.pidfd)));
        match told {
            Ok(()) => exit(0),
            Err(error) => fail(&theirs, &error),
        }
    };
    // Who is in the cgroup when the child is born bears it there.
    let place = Spawn {
        cgroup: how.cgroup,
        ..Spawn::default()
    };
    let middle = spawn(place, middle).doing(doing)?;
    if let Some(unit) = way.unit {
        let attached = unit.attach(middle.pid);
        if let Err(error) = attached.and_then(|()| ours.send(&Message::Go(None))) {
            return Err(error.undone(end(&middle)));
        }
    }
    let answer = ours.receive();
    reap(middle.pid).doing(doing)?;
    match answer? {
        Some(Message::Born(pid, pidfd)) => Ok(Child { pid, pidfd }),
        Some(Message::Failed(kind, message)) => Err(Error::Container { kind, message }),
        _ => Err(gone(None)),
    }
}

/// Does what init asks for until it is ready; returns the master of its terminal.
fn attend(
    birth: &mut Birth<'_>,
    rootfs: Rootfs<'_>,
    cgroup: &Cgroup,
    child: &Child,
    channel: &Channel,
) -> Result<Option<OwnedFd>> {
    let spec = birth.spec;
    birth
        .launch
        .give_from_outside(Some(child.pid), &birth.procfs)?;
    if let Some(linux) = spec
        .linux
        .as_ref()
        .filter(|linux| !linux.net_devices.is_empty())
    {
        // The one it joins, or its own.
        let namespace = match birth.plan.joins(Namespaces::NET) {
            Some(joined) => joined,
            None => &namespaces::of(&birth.procfs, child.pid, "net")?,
        };
        net_devices::take_over(linux, namespace.as_fd())?;
    }
    if birth.plan.new.contains(Namespaces::USER) {
        let none = Linux::default();
        let linux = spec.linux.as_ref().unwrap_or(&none);
        let Linux {
            uid_mappings,
            gid_mappings,
            ..
        } = linux;
        id_maps::write(&birth.procfs, child.pid, uid_mappings, gid_mappings)?;
        let users = namespaces::of(&birth.procfs, child.pid, "user")?;
        birth
            .mounts
            .iter_mut()
            .try_for_each(|mount| mount.map_ids(Some(users.as_fd())))?;
        let root = match rootfs {
            Rootfs::Path => None,
            Rootfs::Overlay { .. } => Some(rootfs::open(
                rootfs,
                spec,
                &birth.bundle,
                Some(users.as_fd()),
            )?),
        };
        channel.send(&Message::Go(root))?;
    }
    loop {
        match channel.receive()? {
            Some(Message::Mounted) => {
                let pid = child.pid.as_raw_nonzero().get();
                let state = state(spec, birth.id, &birth.bundle, Status::Creating, pid);
                let hooks = hooks_of(spec);
                hooks::run("prestart", &hooks.prestart, &state)?;
                hooks::run("createRuntime", &hooks.create_runtime, &state)?;
                channel.send(&Message::Go(None))?;
            }
            Some(Message::Ready(terminal)) => return Ok(terminal),
            Some(Message::Failed(kind, message)) => return Err(Error::Container { kind, message }),
            Some(_) => {
                return Err(Error::State(
                    "the container's init spoke out of turn".into(),
                ));
            }
            None => return Err(gone(Some(cgroup))),
        }
    }
}

/// Kills and reaps a child.
pub(crate) fn end(child: &Child) -> Result<()> {
    let doing = "ending the container's init";
    match pidfd_send_signal(&child.pidfd, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => {
            return Err(errno)
                .call(|| "pidfd_send_signal(SIGKILL)")
                .doing(doing);
        }
    }
    reap(child.pid).doing(doing).map(drop)
}
