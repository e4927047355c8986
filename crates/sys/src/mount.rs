//! What rustix lacks of the mount API: mount_setattr(2), and the messages a filesystem context keeps (fsopen(2)).

use crate::process::check;
use crate::{Context, Error, Result};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsconfig_set_string, fsopen};
use std::os::fd::{AsRawFd, BorrowedFd};

pub use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_IDMAP, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME,
};

/// The longest message the kernel keeps in a filesystem context.
const MESSAGE_BYTES_MAX: usize = 1024;

/// A change of a mount's attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `MOUNT_ATTR_…` to set.
    pub set: u64,
    /// `MOUNT_ATTR_…` to clear, before.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`; 0 keeps.
    pub propagation: u64,
}

impl Attributes {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Changes the attributes of the mount a descriptor is the root of, and of all below when `recursive` (mount_setattr(2)).
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: &Attributes,
) -> Result<()> {
    change(mount, recursive, attributes, None)
}

/// Maps the ids of a mount, not yet attached anywhere, as the user namespace does: what is owned by an id inside of it is
/// stored with that number, and seen with the one outside (`MOUNT_ATTR_IDMAP`).
pub fn map_ids(mount: BorrowedFd<'_>, recursive: bool, users: BorrowedFd<'_>) -> Result<()> {
    let attributes = Attributes {
        set: MOUNT_ATTR_IDMAP,
        ..Attributes::default()
    };
    change(mount, recursive, &attributes, Some(users))
}

/// Whether overlayfs takes its layers one by one, as `lowerdir+` (Linux 6.7). To be asked when it has failed with EINVAL:
/// before 6.5 its contexts took every parameter, and the mount then failed as one of a bad layer does.
pub fn overlay_adds_layers() -> Result<bool> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).call(|| "fsopen(\"overlay\")")?;
    let takes = |key: &str| fsconfig_set_string(&context, key, "/").is_ok();
    Ok(!takes("no-such-parameter") && takes("lowerdir+"))
}

fn change(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: &Attributes,
    users: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let raw = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: users.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path and the structure of the given size outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of_val(&raw),
        )
    };
    check(result, || {
        let recursive = if recursive { "|AT_RECURSIVE" } else { "" };
        format!(
            "mount_setattr({}, \"\", AT_EMPTY_PATH{recursive}, {attributes:x?})",
            mount.as_raw_fd()
        )
    })
    .map(drop)
}

/// The error of a call on a filesystem context, with the message the kernel left in it.
pub fn context_error(context: BorrowedFd<'_>, call: impl Into<String>, errno: Errno) -> Error {
    let mut call = call.into();
    let mut buffer = [0; MESSAGE_BYTES_MAX];
    // Messages come one a read, the oldest first, and a kernel of today keeps at most eight.
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        let text = text.trim_end();
        // `e ` is an error, `w ` a warning, `i ` information.
        if let Some(message) = text.strip_prefix("e ") {
            call = format!("{call} ({message})");
        }
    }
    Error::new(call, errno)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "these are tests")]

    use super::*;

    #[test]
    fn layers_are_added_since_linux_6_7() {
        let release = rustix::system::uname().release().to_owned();
        let release = release.to_str().unwrap();
        let mut numbers = release
            .split(['.', '-'])
            .map_while(|word| word.parse::<u32>().ok());
        let version = (numbers.next().unwrap(), numbers.next().unwrap());
        assert_eq!(
            overlay_adds_layers().unwrap(),
            version >= (6, 7),
            "{release}"
        );
    }
}
