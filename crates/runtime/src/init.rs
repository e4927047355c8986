//! The container's init, from its birth by clone3 to the execution of the container's program.
//!
//! It is a copy of the caller with every descriptor it needs, so that nothing is re-executed, parsed or looked up again. Each
//! step below is one step of the specification's create operation; whatever fails is told to the caller, who undoes.
//! Source: runtime.md "Lifecycle", config-linux.md.

use crate::api::{Rootfs, Stdio};
use crate::cgroup::{Entry, unified};
use crate::channel::{Channel, Message};
use crate::error::{Doing, Error, Result};
use crate::launch::Launch;
use crate::lsm::ExecLabel;
use crate::mounts::{DIRECTORY_MODE, Prepared, Site};
use crate::namespaces::{self, Plan};
use crate::procfs::Procfs;
use crate::{dev, hooks, masks, mounts, no_pivot, reaper, rootfs, stdio, sysctl};
use oci::runtime::{Hook, Hooks, Spec, State, Status, VERSION};
use rustix::fs::Mode;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{DumpableBehavior, Gid, Uid, set_dumpable_behavior, setsid, umask};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::Context;
use sys::process::{Namespaces, exit, new_session_keyring, setns, unshare};
use sys::root::Root;

/// The exit code of an init that failed; its error is told by the channel.
const FAILED: i32 = 1;

/// Everything a container is born with, checked and open.
#[derive(Debug)]
pub(crate) struct Birth<'a> {
    pub(crate) id: &'a str,
    /// Absolute.
    pub(crate) bundle: PathBuf,
    pub(crate) spec: &'a Spec,
    pub(crate) plan: Plan,
    /// Empty when init opens them.
    pub(crate) mounts: Vec<Prepared<'a>>,
    pub(crate) sysctls: BTreeMap<String, &'a str>,
    pub(crate) launch: Launch<'a>,
    pub(crate) procfs: Procfs,
    /// Unset when it comes with the first message, or init opens it.
    pub(crate) root: Option<OwnedFd>,
    pub(crate) entry: Entry,
    /// Below the mount points; known when there is one.
    pub(crate) cgroup: PathBuf,
    pub(crate) stdio: Stdio,
    pub(crate) reaper: bool,
    pub(crate) gate: Option<OwnedFd>,
    /// Whether a new session keyring hides the caller's.
    pub(crate) keyring: bool,
    /// See [`crate::Create::no_pivot`].
    pub(crate) no_pivot: bool,
    /// Whether the caller is an ordinary user: it may mount nothing, so that init opens the root and the mounts' sources, as
    /// that user, in the user namespace that gives it the rights.
    pub(crate) unprivileged: bool,
}

/// The hooks of a configuration, none if it has none.
pub(crate) fn hooks(spec: &Spec) -> &Hooks {
    static NONE: Hooks = Hooks {
        prestart: Vec::new(),
        create_runtime: Vec::new(),
        create_container: Vec::new(),
        start_container: Vec::new(),
        poststart: Vec::new(),
        poststop: Vec::new(),
    };
    spec.hooks.as_ref().unwrap_or(&NONE)
}

/// The state document of a container.
pub(crate) fn state(spec: &Spec, id: &str, bundle: &Path, status: Status, pid: i32) -> State {
    State {
        oci_version: VERSION.into(),
        id: id.into(),
        status,
        pid,
        bundle: bundle.into(),
        annotations: spec.annotations.clone(),
    }
}

impl Birth<'_> {
    /// The life of the process.
    pub(crate) fn live(&self, channel: Channel) -> Infallible {
        let mut channel = channel;
        let Err(error) = self.run(&mut channel);
        fail(&channel, &error)
    }

    fn run(&self, channel: &mut Channel) -> Result<Infallible> {
        sys::signals::reset().doing("resetting signals")?;
        umask(Mode::empty());
        let (root, label) = self.isolate(channel)?;
        let root = Root::from_fd(root);
        let terminal = self.furnish(&root)?;
        self.run_creation_hooks(channel)?;
        if let Some(linux) = &self.spec.linux {
            masks::apply(&root, linux)?;
        }
        rootfs::restrict(root.as_fd(), self.spec)?;
        if !self.plan.has(Namespaces::MOUNT) {
            rootfs::enter_detached(root.as_fd())?;
        } else if self.no_pivot {
            no_pivot::enter(root.as_fd(), &self.procfs)?;
        } else {
            rootfs::enter(root.as_fd())?;
        }
        rootfs::propagate(root.as_fd(), self.spec)?;
        let mut ready = self.launch.become_user(&root, label)?;
        drop(root);
        channel.send(&Message::Ready(terminal))?;
        self.wait_at_gate(channel)?;
        self.run_hooks(
            "startContainer",
            &hooks(self.spec).start_container,
            Status::Created,
        )?;
        if self.reaper {
            ready.apply_label()?;
        }
        let channel = &*channel;
        let execute = || {
            self.launch
                .execute(&ready, channel, || self.state(Status::Created))
        };
        if !self.reaper {
            return Err(execute());
        }
        reaper::run(&self.launch, |set_up| {
            let error = set_up.err().unwrap_or_else(execute);
            fail(channel, &error)
        })
    }

    /// Everything up to a mount namespace of its own: who and where the process is. Returns the root, still detached, and the
    /// label of the execution, whose file takes rights to open that are gone soon.
    fn isolate(&self, channel: &Channel) -> Result<(OwnedFd, Option<ExecLabel>)> {
        self.entry.enter()?;
        for (kind, fd) in &self.plan.joined {
            // Processes enter the pid namespace by birth; the user namespace was entered before it.
            if *kind != Namespaces::PID && *kind != Namespaces::USER {
                setns(fd.as_fd(), *kind).doing("joining a namespace")?;
            }
        }
        if self.plan.new.contains(Namespaces::CGROUP) && !unified()? {
            unshare(Namespaces::CGROUP).doing("making a cgroup namespace")?;
        }
        let mut sent = None;
        if self.plan.new.contains(Namespaces::USER) {
            sent = wait_for_go(channel)?;
        }
        if self.plan.has(Namespaces::USER) {
            become_root()?;
            if self.plan.new.contains(Namespaces::IPC) {
                unshare(Namespaces::IPC).doing("making an IPC namespace")?;
            }
        }
        let label = self.launch.label(&self.procfs)?;
        let offsets = self.spec.linux.as_ref().map(|linux| &linux.time_offsets);
        if let Some(offsets) = offsets.filter(|offsets| !offsets.is_empty()) {
            namespaces::enter_time(&self.procfs, offsets)?;
        }
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .call(|| "prctl(PR_SET_DUMPABLE, 0)")
            .doing("protecting the process")?;
        setsid().call(|| "setsid()").doing("making a session")?;
        if self.keyring {
            hide_keys()?;
        }
        let root = match sent {
            Some(root) => root,
            None if self.unprivileged => rootfs::open(Rootfs::Path, self.spec, &self.bundle, None)?,
            None => {
                let root = self.root.as_ref().expect("what is not sent was inherited");
                root.try_clone()
                    .call(|| "dup(<root>)")
                    .doing("taking the root")?
            }
        };
        Ok((root, label))
    }

    /// What the container finds in its namespaces: names, mounts, devices, parameters.
    fn furnish(&self, root: &Root) -> Result<Option<OwnedFd>> {
        let spec = self.spec;
        if let Some(name) = spec.hostname.as_deref().filter(|name| !name.is_empty()) {
            rustix::system::sethostname(name.as_bytes())
                .call(|| format!("sethostname({name:?})"))
                .doing("setting the host name")?;
        }
        if let Some(name) = spec.domainname.as_deref().filter(|name| !name.is_empty()) {
            rustix::system::setdomainname(name.as_bytes())
                .call(|| format!("setdomainname({name:?})"))
                .doing("setting the domain name")?;
        }
        if self.plan.new.contains(Namespaces::NET) {
            sys::interface::set_loopback_up().doing("bringing the loopback interface up")?;
        }
        if self.plan.has(Namespaces::MOUNT) {
            rootfs::place(root.as_fd(), self.place().as_deref())?;
        }
        let site = Site {
            root,
            label: spec
                .linux
                .as_ref()
                .and_then(|linux| linux.mount_label.as_deref()),
            cgroup: &self.cgroup,
            cgroup_namespace: self.plan.has(Namespaces::CGROUP),
        };
        let opened;
        let mounts = if self.unprivileged {
            opened = mounts::prepare(spec, &self.bundle, &self.procfs)?;
            &opened
        } else {
            &self.mounts
        };
        for mount in mounts {
            site.mount(mount)?;
        }
        dev::populate(root, spec, self.plan.has(Namespaces::USER))?;
        sysctl::apply(&self.procfs, &self.sysctls)?;
        if let Some(process) = &spec.process {
            root.create_dir_all(&process.cwd, DIRECTORY_MODE)
                .doing_with(|| format!("making the working directory {}", process.cwd.display()))?;
        }
        let size = spec
            .process
            .as_ref()
            .and_then(|process| process.console_size);
        let terminal = stdio::install(&self.stdio, root, size)?;
        if let Some(terminal) = &terminal {
            terminal.bind_console(root)?;
        }
        Ok(terminal.map(|terminal| terminal.master))
    }

    /// Where hooks look for the root: those that prepare it reach into the mount namespace by the configuration's path.
    fn place(&self) -> Option<PathBuf> {
        let Hooks {
            prestart,
            create_runtime,
            create_container,
            ..
        } = hooks(self.spec);
        let hooked =
            !(prestart.is_empty() && create_runtime.is_empty() && create_container.is_empty());
        let root = self
            .spec
            .root
            .as_ref()
            .filter(|root| hooked && !root.path.as_os_str().is_empty());
        root.map(|root| self.bundle.join(&root.path))
    }

    fn run_creation_hooks(&self, channel: &Channel) -> Result<()> {
        let Hooks {
            prestart,
            create_runtime,
            create_container,
            ..
        } = hooks(self.spec);
        if !(prestart.is_empty() && create_runtime.is_empty()) {
            channel.send(&Message::Mounted)?;
            wait_for_go(channel)?;
        }
        self.run_hooks("createContainer", create_container, Status::Creating)
    }

    fn run_hooks(&self, kind: &str, hooks: &[Hook], status: Status) -> Result<()> {
        if hooks.is_empty() {
            Ok(())
        } else {
            hooks::run(kind, hooks, &self.state(status)?)
        }
    }

    fn state(&self, status: Status) -> Result<State> {
        Ok(state(
            self.spec,
            self.id,
            &self.bundle,
            status,
            self.procfs.own_pid()?,
        ))
    }

    /// Waits until somebody opens the gate: the caller, or whoever connects to its socket and says so.
    fn wait_at_gate(&self, channel: &mut Channel) -> Result<()> {
        let Some(gate) = &self.gate else {
            return match channel.receive()? {
                Some(Message::Start) => Ok(()),
                _ => Err(Error::State("the container's creator is gone".into())),
            };
        };
        loop {
            let caller = accept_with(gate, SocketFlags::CLOEXEC)
                .call(|| "accept4(<gate>)")
                .doing("waiting at the gate")?;
            let caller = Channel::from_fd(caller);
            if matches!(caller.receive(), Ok(Some(Message::Start))) {
                *channel = caller;
                return Ok(());
            }
        }
    }
}

/// Tells a failure, and ends the process.
pub(crate) fn fail(channel: &Channel, error: &Error) -> ! {
    let told = channel.send(&Message::Failed(error.kind(), error.chain()));
    // Without anybody to tell there is nobody to act on it either.
    drop(told);
    exit(FAILED)
}

/// Waits for the creator's word, and what may come with it.
pub(crate) fn wait_for_go(channel: &Channel) -> Result<Option<OwnedFd>> {
    match channel.receive()? {
        Some(Message::Go(fd)) => Ok(fd),
        _ => Err(Error::State("the container's creator is gone".into())),
    }
}

/// Leaves the caller's keys behind.
pub(crate) fn hide_keys() -> Result<()> {
    match new_session_keyring() {
        // A kernel without keys has none to hide.
        Err(error) if error.errno == rustix::io::Errno::NOSYS => Ok(()),
        result => result.doing("making a session keyring"),
    }
}

/// Becomes the user namespace's root, who owns what is made from now on.
pub(crate) fn become_root() -> Result<()> {
    let doing = "becoming root in the user namespace";
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
        .call(|| "setresgid(0)")
        .doing(doing)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
        .call(|| "setresuid(0)")
        .doing(doing)
}
