//! Secrets: files of the host, as they are at the start, in memory that only the container has.
//!
//! The content is in a tmpfs of its own, which is not swapped where the kernel can do that (Linux 6.4), and nowhere else: neither in a
//! record, nor in a layer, nor in the environment. Its source can be gone when the container runs, and is read again at the next
//! start. Source: tmpfs(5), fsopen(2).

use crate::error::{Context, Error, Result};
use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How large a secret may be, as in Swarm.
const SECRET_BYTES_MAX: u64 = 500 << 10;

/// What its tmpfs is called inside of itself.
pub(super) const FILE: &str = "secret";

/// A file of the host that a container gets as a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Absolute; read at every start.
    pub path: PathBuf,
    /// Whose it is in the container.
    pub uid: u32,
    /// Of which group.
    pub gid: u32,
    /// Its permissions.
    pub mode: u32,
}

impl Secret {
    /// A tmpfs that has the secret as its only file, attached nowhere.
    pub(super) fn mount(&self) -> Result<OwnedFd> {
        let content = read(&self.path)?;
        let tree = self.fill(&content);
        tree.context(|| format!("keep the secret {:?} in memory", self.path))
    }

    fn fill(&self, content: &[u8]) -> std::io::Result<OwnedFd> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        // A page for the directory, and what the content takes in whole pages.
        let bytes = (content.len() as u64).next_multiple_of(4096) + 4096;
        fsconfig_set_string(context.as_fd(), "size", bytes.to_string())?;
        fsconfig_set_string(context.as_fd(), "mode", "0755")?;
        match fsconfig_set_flag(context.as_fd(), "noswap") {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
        fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let tree = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&tree, FILE, flags, Mode::RUSR)?;
        let mut file = File::from(file);
        file.write_all(content)?;
        fchown(
            &file,
            Some(Uid::from_raw(self.uid)),
            Some(Gid::from_raw(self.gid)),
        )?;
        fchmod(&file, Mode::from_raw_mode(self.mode))?;
        Ok(tree)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(std::io::Error::from);
    let file = File::from(file.context(|| format!("open the secret {path:?}"))?);
    let metadata = file
        .metadata()
        .context(|| format!("stat the secret {path:?}"))?;
    if !metadata.is_file() {
        return Err(Error::invalid(format!("the secret {path:?} is no file")));
    }
    let mut content = Vec::new();
    let read = file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut content);
    read.context(|| format!("read the secret {path:?}"))?;
    if content.len() as u64 > SECRET_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the secret {path:?} is larger than {SECRET_BYTES_MAX} bytes"
        )));
    }
    Ok(content)
}
