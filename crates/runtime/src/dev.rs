//! The container's `/dev`: nodes, links and the console.
//!
//! Invariant: everything is made through descriptors of directories resolved inside the root (attack 17); what is bound is
//! the host's own node, verified by its number (attack 14), or the terminal's descriptor, never a path (attack 15).

use crate::error::{Doing, Error, Result};
use crate::mounts::DIRECTORY_MODE;
use crate::mounts::filesystem::{attach, clone_tree, host};
use oci::runtime::{Device, Spec};
use rustix::fs::{
    AtFlags, FileType, FsWord, Gid, Mode, OFlags, Uid, chownat, fstat, fstatfs, makedev, mknodat,
    statat, symlinkat,
};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use sys::Context;
use sys::root::Root;

const DEVPTS_SUPER_MAGIC: FsWord = 0x1cd1;
/// As many devices as one configuration may have.
const DEVICES_MAX: usize = 4096;
const NODE_MODE: u32 = 0o666;
/// The devices every container has, all character devices (config-linux.md "Default Devices").
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links every container has ("Dev symbolic links" of runtime-linux.md).
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// A device to be made, checked.
#[derive(Debug, Clone, Copy)]
struct Node<'a> {
    path: &'a Path,
    kind: FileType,
    number: u64,
    mode: u32,
    owner: (u32, u32),
}

impl<'a> Node<'a> {
    fn parse(device: &'a Device) -> Result<Self> {
        let invalid =
            |what: &str| Error::invalid(format!("device {}: {what}", device.path.display()));
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            _ => return Err(invalid("the type is not c, u, b or p")),
        };
        if [device.uid, device.gid].contains(&Some(u32::MAX)) {
            return Err(invalid("the owner is no user or group id"));
        }
        let number = if kind == FileType::Fifo {
            0
        } else {
            let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
            match (number(device.major), number(device.minor)) {
                (Some(major), Some(minor)) => makedev(major, minor),
                _ => return Err(invalid("no device number")),
            }
        };
        Ok(Self {
            path: &device.path,
            kind,
            number,
            mode: device.file_mode.unwrap_or(NODE_MODE) & 0o7777,
            owner: (device.uid.unwrap_or(0), device.gid.unwrap_or(0)),
        })
    }
}

/// Makes the nodes and links. `bind` takes the host's nodes, where none can be made (in a user namespace).
pub(crate) fn populate(root: &Root, spec: &Spec, bind: bool) -> Result<()> {
    // A /dev of the host's has what it has.
    let bound = |mount: &oci::runtime::Mount| {
        mount.destination == Path::new("/dev")
            && mount
                .options
                .iter()
                .any(|option| option == "bind" || option == "rbind")
    };
    let configured = spec.linux.as_ref().map_or(&[][..], |linux| &linux.devices);
    if configured.len() > DEVICES_MAX {
        return Err(Error::invalid(format!("more than {DEVICES_MAX} devices")));
    }
    if spec.mounts.iter().any(bound) {
        return Ok(());
    }
    let dev = root
        .create_dir_all(Path::new("/dev"), DIRECTORY_MODE)
        .doing("making the container's /dev")?;
    for (path, major, minor) in DEFAULTS {
        let path = Path::new(path);
        if configured.iter().any(|device| device.path == path) {
            continue;
        }
        let node = Node {
            path,
            kind: FileType::CharacterDevice,
            number: makedev(major, minor),
            mode: NODE_MODE,
            owner: (0, 0),
        };
        let name = path.file_name().expect("a constant with a name").as_ref();
        make(dev.as_fd(), name, &node, bind)?;
    }
    for device in configured {
        let node = Node::parse(device)?;
        let (parent, name) = parent_of(root, node.path)?;
        make(parent.as_fd(), name.as_ref(), &node, bind)?;
    }
    link(dev.as_fd())
}

fn parent_of(root: &Root, path: &Path) -> Result<(OwnedFd, std::ffi::OsString)> {
    let doing = || format!("making the device {}", path.display());
    if let Some(parent) = path.parent() {
        root.create_dir_all(parent, DIRECTORY_MODE)
            .doing_with(doing)?;
    }
    root.parent(path).doing_with(doing)
}

fn make(directory: BorrowedFd<'_>, name: &Path, node: &Node<'_>, bind: bool) -> Result<()> {
    let doing = || format!("making the device {}", node.path.display());
    if bind && node.kind != FileType::Fifo {
        return bind_node(directory, name, node).doing_with(doing);
    }
    let mode = Mode::from_raw_mode(node.mode);
    match mknodat(directory, name, node.kind, mode, node.number) {
        Ok(()) => {}
        // The image may have it; but it may also have something else by that name.
        Err(Errno::EXIST) => {
            let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .call(|| format!("fstatat({name:?})"))
                .doing_with(doing)?;
            if found.st_rdev == node.number && FileType::from_raw_mode(found.st_mode) == node.kind {
                return Ok(());
            }
            let path = node.path.display();
            return Err(Error::invalid(format!(
                "the root has something else at {path}"
            )));
        }
        Err(Errno::PERM) => return bind_node(directory, name, node).doing_with(doing),
        Err(errno) => {
            return Err(errno)
                .call(|| format!("mknodat({name:?}, {:?})", node.kind))
                .doing_with(doing);
        }
    }
    if node.owner == (0, 0) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(node.owner.0), Gid::from_raw(node.owner.1));
    chownat(
        directory,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .call(|| format!("fchownat({name:?})"))
    .doing_with(doing)
}

fn bind_node(directory: BorrowedFd<'_>, name: &Path, node: &Node<'_>) -> sys::Result<()> {
    let source = host_node(node.path, node.kind, node.number)?;
    let target = empty_file(directory, name)?;
    let tree = clone_tree(source.as_fd(), Path::new(""), false)?;
    attach(tree.as_fd(), target.as_fd())
}

/// A device of the host, verified by its number.
fn host_node(path: &Path, kind: FileType, number: u64) -> sys::Result<OwnedFd> {
    let node = host(path, OFlags::NOFOLLOW)?;
    let stat = fstat(&node).call(|| format!("fstat({path:?})"))?;
    if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_rdev != number {
        return Err(sys::Error::new(format!("fstat({path:?})"), Errno::NODEV));
    }
    Ok(node)
}

/// The host's null device, for files that are to be hidden.
pub(crate) fn null() -> Result<OwnedFd> {
    host_node(
        Path::new("/dev/null"),
        FileType::CharacterDevice,
        makedev(1, 3),
    )
    .doing("opening /dev/null")
}

fn empty_file(directory: BorrowedFd<'_>, name: &Path) -> sys::Result<OwnedFd> {
    let flags =
        OFlags::CREATE | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let call = || format!("openat({name:?}, {flags:?})");
    rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(NODE_MODE)).call(call)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
        .call(|| format!("openat({name:?}, {flags:?})"))
}

fn link(dev: BorrowedFd<'_>) -> Result<()> {
    for (name, target) in LINKS {
        match symlinkat(target, dev, name) {
            // The image's own choice, in its own /dev.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                let call = || format!("symlinkat({target:?}, </dev>, {name:?})");
                return Err(errno).call(call).doing("making the links of /dev");
            }
        }
    }
    Ok(())
}

/// Both ends of a new pseudo terminal of the container's own devpts.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) peer: OwnedFd,
}

impl Terminal {
    /// Takes one from the devpts at the root's `/dev/pts`.
    pub(crate) fn open(root: &Root) -> Result<Self> {
        use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
        let doing = "opening a terminal";
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let master = root
            .open_at(Path::new("/dev/pts/ptmx"), flags, Mode::empty())
            .doing(doing)?;
        // An image's own file by that name could be any device.
        let found = fstatfs(&master)
            .call(|| "fstatfs(</dev/pts/ptmx>)")
            .doing(doing)?;
        if found.f_type != DEVPTS_SUPER_MAGIC {
            return Err(Error::invalid(
                "a terminal needs a devpts mounted at /dev/pts",
            ));
        }
        unlockpt(&master)
            .call(|| "ioctl(TIOCSPTLCK)")
            .doing(doing)?;
        // Not CLOEXEC, which the file would keep among its flags for the container to see: the launch closes what is above 2.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let peer = ioctl_tiocgptpeer(&master, flags)
            .call(|| "ioctl(TIOCGPTPEER)")
            .doing(doing)?;
        Ok(Self { master, peer })
    }

    /// Makes it the container's `/dev/console`.
    pub(crate) fn bind_console(&self, root: &Root) -> Result<()> {
        let doing = "making the container's console";
        let (dev, name) = root.parent(Path::new("/dev/console")).doing(doing)?;
        let target = empty_file(dev.as_fd(), name.as_ref()).doing(doing)?;
        let tree = clone_tree(self.peer.as_fd(), Path::new(""), false).doing(doing)?;
        attach(tree.as_fd(), target.as_fd()).doing(doing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: &str, major: Option<i64>) -> Device {
        Device {
            path: "/dev/x".into(),
            kind: kind.into(),
            major,
            minor: Some(1),
            ..Device::default()
        }
    }

    #[test]
    fn devices_without_number_or_type_are_refused() {
        for bad in [
            device("c", None),
            device("c", Some(-1)),
            device("s", Some(1)),
            device("", Some(1)),
        ] {
            assert!(Node::parse(&bad).is_err(), "{bad:?}");
        }
        assert!(Node::parse(&device("p", None)).is_ok());
    }

    #[test]
    fn attack_14_a_node_of_another_number_is_not_taken() {
        null().unwrap();
        let zero = host_node(
            Path::new("/dev/zero"),
            FileType::CharacterDevice,
            makedev(1, 3),
        );
        assert_eq!(zero.unwrap_err().errno, Errno::NODEV);
    }
}
