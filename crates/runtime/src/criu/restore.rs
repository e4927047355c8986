//! The making of a container of images.
//!
//! criu runs in a mount namespace of its own, where the root is a mount point as it needs one, and everything that is to be
//! mounted on is there; nothing of that is to be seen on the host. The first process restored is our child.

use super::rpc::{Fields, Kind, request};
use super::{
    Criu, Execution, LEFT_OUTSIDE, NETWORK_KEY, Options, ROOT, STREAMS, bound, bound_cgroups,
    external, is_pipe, joined, succeeded,
};
use crate::api::Rootfs;
use crate::cgroup::{Cgroup, Entry};
use crate::channel::send_with_fds;
use crate::error::{Doing, Error, Result};
use crate::hooks;
use crate::init::{hooks as hooks_of, state};
use crate::mounts::DIRECTORY_MODE;
use crate::mounts::filesystem::{attach, clone_tree, host};
use crate::sockets::connect;
use crate::state::read_bytes;
use crate::{namespaces, rootfs};
use oci::runtime::{Mount, NamespaceKind, Spec, Status};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::net::SocketType;
use rustix::process::{Pid, PidfdFlags, Signal, fchdir, kill_process, pidfd_open};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::Context;
use sys::process::{Child, Namespaces, setns, unshare};
use sys::root::Root;

const EVASIVE_DEVICES: u64 = 6;
const CG_ROOT: u64 = 25;
const RST_SIBLING: u64 = 26;
const INHERIT_FD: u64 = 27;
const JOIN_NS: u64 = 39;
const LSM_PROFILE: u64 = 53;
const LSM_MOUNT_CONTEXT: u64 = 63;

const LOG: &str = "restore.log";
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// What is asked for of a restore.
#[derive(Debug)]
pub(crate) struct Restore<'a> {
    pub(crate) options: &'a Options,
    pub(crate) id: &'a str,
    /// Absolute.
    pub(crate) bundle: &'a Path,
    pub(crate) spec: &'a Spec,
    /// Where the root filesystem comes from. It is mounted at the path of the configuration, for criu alone.
    pub(crate) rootfs: Rootfs<'a>,
    /// What the container is to be in.
    pub(crate) cgroup: &'a Cgroup,
    /// The ways into it, and into what is like one.
    pub(crate) entry: &'a Entry,
    /// `apparmor:profile` or `selinux:label` instead of that of the images.
    pub(crate) lsm_profile: Option<&'a str>,
    /// SELinux label of mounts, likewise.
    pub(crate) lsm_mount_context: Option<&'a str>,
    /// Where the master of a terminal is sent.
    pub(crate) console: Option<&'a Path>,
    /// What standard streams that were pipes are now.
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// The network namespace, where it is neither the host's nor joined and the images are without it.
    pub(crate) network: Option<BorrowedFd<'a>>,
}

/// Restores a container; its init is a child of the calling process.
pub(crate) fn restore(criu: &Criu, asked: &Restore<'_>) -> Result<Child> {
    criu.check_features(false, asked.options.lazy_pages)?;
    let spec = asked.spec;
    let root = spec.root.as_ref();
    let root = root.ok_or_else(|| Error::invalid("the configuration has no root"))?;
    let root = asked.bundle.join(&root.path);
    let mut restored = None;
    // criu finds the directories among our descriptors, and mounts in them: they must be of its mount namespace.
    let (session, request, _directories) = among_own_mounts(|| {
        asked.prepare_root(&root)?;
        let directories = asked.options.open(false)?;
        let mut fields = asked.options.fields(spec, &directories, LOG);
        let outside = asked.note(&root, &mut fields)?;
        let namespaces = outside.iter().map(AsFd::as_fd).chain(asked.network);
        let inherited: Vec<_> = namespaces.chain(asked.streams).collect();
        let session = criu.start(&Execution {
            entry: Some(asked.entry),
            inherited: &inherited,
        })?;
        Ok((session, request(Kind::Restore, &fields), directories))
    })?;
    let answer = session.ask(&request, |script, pid, fd| {
        if script == "post-restore" {
            restored = i32::try_from(pid).ok().and_then(Pid::from_raw);
        }
        asked.notice(script, pid, fd)
    });
    let log = asked.options.logs().join(LOG);
    let answer = answer.and_then(|answer| succeeded(answer, "the restore", &log));
    match (answer, restored) {
        (Ok(answer), _) => {
            let pid = answer.pid.and_then(|pid| i32::try_from(pid).ok());
            let pid = pid.and_then(Pid::from_raw).or(restored);
            hold(pid.ok_or_else(|| Error::State("criu restored no process".into()))?)
        }
        (Err(error), None) => Err(error),
        // It went wrong at the very end.
        (Err(error), Some(pid)) => {
            let killed = kill_process(pid, Signal::KILL).call(|| "kill(SIGKILL)");
            let undone = killed.and_then(|()| crate::hooks::reap(pid).map(drop));
            Err(error.undone(undone.doing("ending what was restored")))
        }
    }
}

/// Nobody but us can reap it, so that the number is still its own.
fn hold(pid: Pid) -> Result<Child> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty())
        .call(|| "pidfd_open")
        .doing("holding the restored init")?;
    Ok(Child { pid, pidfd })
}

/// Does something in a mount namespace of its own, to which processes made meanwhile belong.
fn among_own_mounts<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    let doing = "making a mount namespace for criu";
    let own = namespaces::open(Path::new("/proc/self/ns/mnt"))?;
    let directory = host(Path::new("."), OFlags::DIRECTORY).doing(doing)?;
    unshare(Namespaces::MOUNT).doing(doing)?;
    let done = act();
    // That namespace's root is the working directory from then on.
    setns(own.as_fd(), Namespaces::MOUNT).doing(doing)?;
    fchdir(directory).call(|| "fchdir").doing(doing)?;
    done
}

impl Restore<'_> {
    /// Everything that is asked for of a restore alone. The namespaces returned are to be inherited.
    fn note(&self, root: &Path, fields: &mut Fields) -> Result<Vec<OwnedFd>> {
        fields.flag(EVASIVE_DEVICES, true);
        fields.flag(RST_SIBLING, true);
        fields.text(ROOT, &root.to_string_lossy());
        for (field, text) in [
            (LSM_PROFILE, self.lsm_profile),
            (LSM_MOUNT_CONTEXT, self.lsm_mount_context),
        ] {
            if let Some(text) = text {
                fields.text(field, text);
            }
        }
        self.note_mounts(fields)?;
        for (controller, path) in self.cgroup.roots() {
            fields.message(CG_ROOT, |root| {
                root.text(1, &controller);
                root.text(2, &path.to_string_lossy());
            });
        }
        note_streams(&self.options.images, self.streams, fields)?;
        self.note_namespaces(fields)
    }

    fn note_mounts(&self, fields: &mut Fields) -> Result<()> {
        for mount in bound(self.spec) {
            external(fields, &mount.destination, &self.source(mount));
        }
        for (place, source) in bound_cgroups(self.spec, self.cgroup)? {
            external(fields, &place, &source);
        }
        if let Some(linux) = &self.spec.linux {
            if !linux.masked_paths.is_empty() {
                external(fields, Path::new("/dev/null"), Path::new("/dev/null"));
            }
            for device in &linux.devices {
                external(fields, &device.path, &device.path);
            }
        }
        Ok(())
    }

    fn source(&self, mount: &Mount) -> PathBuf {
        let source = mount.source.as_deref().unwrap_or(Path::new(""));
        self.bundle.join(source)
    }

    /// Says which namespaces are there already; those that criu does not make are returned, to be inherited.
    fn note_namespaces(&self, fields: &mut Fields) -> Result<Vec<OwnedFd>> {
        let mut inherited = Vec::new();
        if let Some(network) = self.network {
            inherit(fields, NETWORK_KEY, network);
        }
        for (kind, _, key) in LEFT_OUTSIDE {
            if let Some(path) = joined(self.spec, kind) {
                let namespace = namespaces::open(path)?;
                inherit(fields, key, namespace.as_fd());
                inherited.push(namespace);
            }
        }
        let named = [
            (NamespaceKind::Ipc, "ipc"),
            (NamespaceKind::Uts, "uts"),
            (NamespaceKind::User, "user"),
            (NamespaceKind::Time, "time"),
        ];
        for (kind, name) in named {
            if let Some(path) = joined(self.spec, kind) {
                fields.message(JOIN_NS, |namespace| {
                    namespace.text(1, name);
                    namespace.text(2, &path.to_string_lossy());
                });
            }
        }
        if joined(self.spec, NamespaceKind::Cgroup).is_some() {
            return Err(Error::unsupported(
                "the restore of a container that joins a cgroup namespace",
            ));
        }
        Ok(inherited)
    }

    /// In criu's mount namespace: makes the root a mount point, and in it what mounts need, as a creation would. A tmpfs brings its
    /// own content, and cgroups theirs.
    fn prepare_root(&self, path: &Path) -> Result<()> {
        let doing = "preparing the root for criu";
        let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", propagation)
            .call(|| "mount(\"/\", MS_SLAVE|MS_REC)")
            .doing(doing)?;
        let place = host(path, OFlags::DIRECTORY).doing(doing)?;
        let tree = match self.rootfs {
            Rootfs::Path => clone_tree(place.as_fd(), Path::new(""), true).doing(doing)?,
            overlay => rootfs::open(overlay, self.spec, self.bundle, None)?,
        };
        attach(tree.as_fd(), place.as_fd()).doing(doing)?;
        let root = Root::from_fd(tree);
        let kind = |mount: &Mount| mount.kind.clone().unwrap_or_default();
        let tmpfs: Vec<_> = { self.spec.mounts.iter() }
            .filter(|mount| kind(mount) == "tmpfs")
            .map(|mount| mount.destination.as_path())
            .collect();
        for mount in &self.spec.mounts {
            let place = &mount.destination;
            let kept = tmpfs
                .iter()
                .any(|tmpfs| place.starts_with(tmpfs) && place != tmpfs);
            if kept || matches!(kind(mount).as_str(), "cgroup" | "cgroup2") {
                continue;
            }
            let doing = || format!("making the place of the mount at {}", place.display());
            if !bound(self.spec).any(|bound| std::ptr::eq(bound, mount)) {
                root.create_dir_all(place, DIRECTORY_MODE)
                    .doing_with(doing)?;
                continue;
            }
            let source = clone_tree(CWD, &self.source(mount), true).doing_with(doing)?;
            let stat = fstat(&source).call(|| "fstat").doing_with(doing)?;
            let target = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                root.create_dir_all(place, DIRECTORY_MODE)
            } else {
                root.create_file(place, FILE_MODE)
            };
            let target = target.doing_with(doing)?;
            attach(source.as_fd(), target.as_fd()).doing_with(doing)?;
        }
        Ok(())
    }

    fn notice(&self, script: &str, pid: u64, fd: Option<OwnedFd>) -> Result<()> {
        match script {
            "setup-namespaces" => {
                let pid = i32::try_from(pid).unwrap_or_default();
                let state = state(self.spec, self.id, self.bundle, Status::Creating, pid);
                let hooks = hooks_of(self.spec);
                hooks::run("prestart", &hooks.prestart, &state)?;
                hooks::run("createRuntime", &hooks.create_runtime, &state)
            }
            "orphan-pts-master" => {
                let path = self.console.ok_or_else(|| {
                    Error::invalid("the container has a terminal, and there is no --console-socket")
                })?;
                let master = fd.ok_or_else(|| Error::State("criu sent no terminal".into()))?;
                let socket = connect(path, SocketType::STREAM)?;
                send_with_fds(socket.as_fd(), b"/dev/ptmx", &[master.as_fd()])
                    .doing_with(|| format!("sending a descriptor to {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

fn inherit(fields: &mut Fields, key: &str, fd: BorrowedFd<'_>) {
    let number = fd.as_raw_fd().cast_unsigned();
    fields.message(INHERIT_FD, |inherited| {
        inherited.text(1, key);
        inherited.number(2, number.into());
    });
}

/// Standard streams that were pipes are the caller's now.
fn note_streams(images: &Path, streams: [BorrowedFd<'_>; 3], fields: &mut Fields) -> Result<()> {
    let path = images.join(STREAMS);
    let text = read_bytes(&path)?
        .ok_or_else(|| Error::invalid(format!("there are no images: no {}", path.display())))?;
    let links: Vec<String> = serde_json::from_slice(&text).map_err(|source| Error::Json {
        doing: format!("reading {}", path.display()).into(),
        source,
    })?;
    for (link, fd) in links.iter().zip(streams) {
        if is_pipe(OsStr::new(link)) {
            inherit(fields, link, fd);
        }
    }
    Ok(())
}
