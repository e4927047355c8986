//! Checkpoint and restore for who supervises a container itself, as the engine's shim does.
//!
//! The container's network namespace is left out of the images. A restore begins with a new one, which a process that does
//! nothing else holds ([`prepare_restore`]); it is connected, and only then everything else is restored in it
//! ([`crate::Container::start`]), so that sockets find the addresses they are bound to.

use super::checkpoint::{Checkpoint, Subject, checkpoint as dump};
use super::restore::{Restore, restore};
use super::{Criu, Options, joined};
use crate::api::{Rootfs, Stdio, Target};
use crate::cgroup::{Cgroup, CgroupManager, Wanted};
use crate::channel::{Channel, Message};
use crate::create::{Container, end};
use crate::error::{Doing, Error, Result};
use crate::init::{fail, state};
use crate::namespaces;
use crate::procfs::Procfs;
use crate::sysctl;
use oci::runtime::{NamespaceKind, Spec, Status};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::Context;
use sys::process::{
    Child, CloseRange, Namespaces, Spawn, close_from, close_inherited, exit, spawn,
};

/// A file that every directory of images has.
pub const IMAGES_MARK: &str = super::STREAMS;

/// A checkpoint to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewImages<'a> {
    /// The program.
    pub criu: &'a Path,
    /// An empty directory for them.
    pub images: &'a Path,
    /// Where criu's log goes; it is made unless it is there.
    pub work: &'a Path,
    /// Whether the container goes on.
    pub leave_running: bool,
}

/// Finds criu in `PATH`.
///
/// # Errors
/// It is not there; the error says how to get it.
pub fn find_criu() -> Result<PathBuf> {
    Criu::find(None).map(|criu| criu.path())
}

/// Makes images of a running container. Unless it is left running, its processes are killed in the end.
///
/// # Errors
/// What criu says cannot be kept; the container goes on then.
pub fn make_images(target: &Target<'_>, asked: &NewImages<'_>) -> Result<()> {
    let spec = target.spec;
    refuse_users(spec)?;
    let root = spec.root.as_ref();
    let root = root.ok_or_else(|| Error::invalid("the configuration has no root"))?;
    let subject = Subject {
        pid: target.init.as_raw_nonzero().get(),
        spec,
        rootfs: &target.bundle.join(&root.path),
        cgroup: target.cgroup,
        leaves_network: has_new_network(spec),
    };
    let checkpoint = Checkpoint {
        options: Options {
            images: asked.images.to_owned(),
            work: Some(asked.work.to_owned()),
            ..Options::default()
        },
        leave_running: asked.leave_running,
        ..Checkpoint::default()
    };
    dump(&Criu::at(asked.criu)?, &subject, &checkpoint)
}

/// A container to be made of images.
#[derive(Debug)]
pub struct FromImages<'a> {
    /// As of [`crate::Create`].
    pub id: &'a str,
    /// As of [`crate::Create`].
    pub bundle: &'a Path,
    /// The configuration: what it says of namespaces, mounts and limits counts, not what it says of the process.
    pub spec: &'a Spec,
    /// Where the root filesystem comes from.
    pub rootfs: Rootfs<'a>,
    /// What takes the place of pipes that the standard streams were; no terminal.
    pub stdio: Stdio,
    /// The program.
    pub criu: &'a Path,
    /// Where the images are.
    pub images: &'a Path,
}

/// Everything that the second half of a restore takes.
#[derive(Debug)]
pub(crate) struct Restoring {
    id: String,
    bundle: PathBuf,
    pub(crate) spec: Spec,
    layers: Option<Layers>,
    streams: [OwnedFd; 3],
    criu: Criu,
    images: PathBuf,
    /// Its end is that of the process that holds the network namespace.
    _holds: Channel,
}

/// As in [`Rootfs::Overlay`].
#[derive(Debug)]
struct Layers {
    lowers: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
}

/// Makes a container that has its cgroup and its network namespace; its processes come when it is started.
///
/// # Errors
/// A configuration that cannot be restored, or whatever a step fails with; nothing is left then.
pub fn prepare_restore(asked: FromImages<'_>) -> Result<Container> {
    let spec = asked.spec;
    refuse_users(spec)?;
    let Stdio::Fds {
        stdin,
        stdout,
        stderr,
    } = asked.stdio
    else {
        return Err(Error::unsupported(
            "the restore of a container with a terminal",
        ));
    };
    let criu = Criu::at(asked.criu)?;
    let linux = spec.linux.as_ref();
    let wanted = Wanted {
        id: asked.id,
        path: linux.and_then(|linux| linux.cgroups_path.as_deref()),
        manager: CgroupManager::Direct,
        resources: linux.and_then(|linux| linux.resources.as_ref()),
        annotations: &spec.annotations,
        rootless: false,
    };
    let cgroup = Cgroup::create(&wanted)?;
    let (child, holds) = match hold_network(spec) {
        Ok(held) => held,
        Err(error) => return Err(error.undone(cgroup.destroy())),
    };
    let pid = child.pid.as_raw_nonzero().get();
    let state = state(spec, asked.id, asked.bundle, Status::Created, pid);
    let layers = match asked.rootfs {
        Rootfs::Path => None,
        Rootfs::Overlay {
            lowers,
            upper,
            work,
        } => Some(Layers {
            lowers: lowers.to_vec(),
            upper: upper.to_owned(),
            work: work.to_owned(),
        }),
    };
    let restoring = Restoring {
        id: asked.id.to_owned(),
        bundle: asked.bundle.to_owned(),
        spec: spec.clone(),
        layers,
        streams: [stdin, stdout, stderr],
        criu,
        images: asked.images.to_owned(),
        _holds: holds,
    };
    Ok(Container::to_restore(child, cgroup, restoring, state))
}

impl Restoring {
    /// Restores the processes in the network namespace of `holder`.
    pub(crate) fn finish(&self, holder: &Child, cgroup: &mut Cgroup) -> Result<Child> {
        let network = has_new_network(&self.spec)
            .then(|| namespaces::of(&Procfs::open()?, holder.pid, "net"))
            .transpose()?;
        let options = Options {
            images: self.images.clone(),
            ..Options::default()
        };
        let rootfs = match &self.layers {
            None => Rootfs::Path,
            Some(layers) => Rootfs::Overlay {
                lowers: &layers.lowers,
                upper: &layers.upper,
                work: &layers.work,
            },
        };
        let asked = Restore {
            options: &options,
            id: &self.id,
            bundle: &self.bundle,
            spec: &self.spec,
            rootfs,
            cgroup,
            entry: &cgroup.entry()?,
            lsm_profile: None,
            lsm_mount_context: None,
            console: None,
            streams: self.streams.each_ref().map(AsFd::as_fd),
            network: network.as_ref().map(AsFd::as_fd),
        };
        let child = restore(&self.criu, &asked)?;
        let linux = self.spec.linux.as_ref();
        let settled = cgroup.settle(linux.and_then(|linux| linux.resources.as_ref()));
        settled.map_err(|error| error.undone(end(&child)))?;
        Ok(child)
    }
}

/// criu makes a user namespace anew, which the network namespace does not belong to then.
fn refuse_users(spec: &Spec) -> Result<()> {
    match namespaces::own(spec).contains(Namespaces::USER) {
        true => Err(Error::unsupported(
            "checkpoint and restore of a container with a user namespace",
        )),
        false => Ok(()),
    }
}

/// Whether the container has a network namespace that is nobody else's.
fn has_new_network(spec: &Spec) -> bool {
    namespaces::own(spec).contains(Namespaces::NET)
        && joined(spec, NamespaceKind::Network).is_none()
}

/// A process in a network namespace as containers find theirs; it ends with the channel.
fn hold_network(spec: &Spec) -> Result<(Child, Channel)> {
    let procfs = Procfs::open()?;
    let new = has_new_network(spec);
    let mut parameters = match &spec.linux {
        Some(linux) => sysctl::check(linux, namespaces::own(spec))?,
        None => BTreeMap::new(),
    };
    // Those of other namespaces are in the images.
    parameters.retain(|name, _| new && name.starts_with("net/"));
    let (ours, theirs) = Channel::pair()?;
    let how = Spawn {
        namespaces: if new {
            Namespaces::NET
        } else {
            Namespaces::NONE
        },
        ..Spawn::default()
    };
    let child = spawn(how, || {
        close_inherited(ours.as_fd());
        let up = || match new {
            true => sys::interface::set_loopback_up().doing("bringing the loopback interface up"),
            false => Ok(()),
        };
        let held = up()
            .and_then(|()| sysctl::apply(&procfs, &parameters))
            .and_then(|()| theirs.send(&Message::Ready(None)))
            .and_then(|()| hold(&theirs));
        let Err(error) = held;
        fail(&theirs, &error)
    });
    let child = child.doing("making a network namespace")?;
    drop(theirs);
    let ready = match ours.receive() {
        Ok(Some(Message::Ready(_))) => Ok(()),
        Ok(Some(Message::Failed(kind, message))) => Err(Error::Container { kind, message }),
        Ok(_) => Err(Error::State(
            "the process that holds the network namespace ended".into(),
        )),
        Err(error) => Err(error),
    };
    match ready {
        Ok(()) => Ok((child, ours)),
        Err(error) => Err(error.undone(end(&child))),
    }
}

/// Waits, with nothing else open, until the other side is gone.
fn hold(channel: &Channel) -> Result<Infallible> {
    let doing = "holding the network namespace";
    rustix::stdio::dup2_stdin(channel)
        .call(|| "dup2")
        .doing(doing)?;
    close_from(1, CloseRange::Now).doing(doing)?;
    // Nothing is said any more: what comes is the end.
    let _ = rustix::io::retry_on_intr(|| rustix::io::read(rustix::stdio::stdin(), &mut [0]));
    exit(0)
}
