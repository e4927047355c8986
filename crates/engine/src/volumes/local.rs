//! The options of the `local` volume driver: how much a volume holds, or that it is a filesystem of its own.
//!
//! `size` limits a plain volume, by a project quota of the filesystem that it is on.
//! `type`, `device` and `o` are what mount(2) takes, as in Docker: `type=tmpfs,device=tmpfs,o=size=100m`,
//! `type=none,device=/srv/data,o=bind`, `type=nfs,device=:/export,o=addr=10.0.0.1,rw,vers=4`.

use crate::error::{Context, Error, Result};
use crate::quota::parse_size;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::net::IpAddr;
use std::path::Path;

/// What mount(2) takes as options: one page.
const DATA_BYTES_MAX: usize = 4095;

/// Options that are flags of mount(2): name, flag, whether it is set or cleared.
const FLAGS: [(&str, MountFlags, bool); 25] = [
    ("async", MountFlags::SYNCHRONOUS, false),
    ("atime", MountFlags::NOATIME, false),
    ("bind", MountFlags::BIND, true),
    ("defaults", MountFlags::empty(), true),
    ("dev", MountFlags::NODEV, false),
    ("diratime", MountFlags::NODIRATIME, false),
    ("dirsync", MountFlags::DIRSYNC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("mand", MountFlags::PERMIT_MANDATORY_FILE_LOCKING, true),
    ("noatime", MountFlags::NOATIME, true),
    ("nodev", MountFlags::NODEV, true),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("noexec", MountFlags::NOEXEC, true),
    ("nomand", MountFlags::PERMIT_MANDATORY_FILE_LOCKING, false),
    ("norelatime", MountFlags::RELATIME, false),
    ("nostrictatime", MountFlags::STRICTATIME, false),
    ("nosuid", MountFlags::NOSUID, true),
    ("rbind", MountFlags::BIND.union(MountFlags::REC), true),
    ("relatime", MountFlags::RELATIME, true),
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("silent", MountFlags::SILENT, true),
    ("strictatime", MountFlags::STRICTATIME, true),
    ("suid", MountFlags::NOSUID, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
];

/// Options that say how mounts propagate.
const PROPAGATIONS: [(&str, MountPropagationFlags); 8] = [
    ("private", MountPropagationFlags::PRIVATE),
    (
        "rprivate",
        MountPropagationFlags::PRIVATE.union(MountPropagationFlags::REC),
    ),
    (
        "rshared",
        MountPropagationFlags::SHARED.union(MountPropagationFlags::REC),
    ),
    (
        "rslave",
        MountPropagationFlags::DOWNSTREAM.union(MountPropagationFlags::REC),
    ),
    (
        "runbindable",
        MountPropagationFlags::UNBINDABLE.union(MountPropagationFlags::REC),
    ),
    ("shared", MountPropagationFlags::SHARED),
    ("slave", MountPropagationFlags::DOWNSTREAM),
    ("unbindable", MountPropagationFlags::UNBINDABLE),
];

/// A filesystem that is mounted on a volume's directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filesystem {
    kind: String,
    device: String,
    flags: MountFlags,
    propagation: Vec<MountPropagationFlags>,
    /// What is left for the filesystem itself.
    data: String,
}

impl Filesystem {
    /// Reads a volume's options. None: the volume is a plain directory.
    pub(crate) fn read(options: &BTreeMap<String, String>) -> Result<Option<Self>> {
        const KNOWN: [&str; 4] = ["type", "device", "o", "size"];
        size(options)?;
        if let Some(unknown) = options.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(Error::invalid(format!("invalid option: {unknown:?}")));
        }
        match (options.contains_key("size"), options.len()) {
            (_, 0) | (true, 1) => return Ok(None),
            (true, _) => {
                return Err(Error::invalid(
                    "the option size is for volumes without a type and device: a tmpfs has o=size=…",
                ));
            }
            (false, _) => {}
        }
        let required = |name: &str| {
            let value = options.get(name).filter(|value| !value.is_empty());
            value
                .cloned()
                .ok_or_else(|| Error::invalid(format!("missing required option: {name:?}")))
        };
        let mut filesystem = Self {
            device: required("device")?,
            kind: required("type")?,
            flags: MountFlags::empty(),
            propagation: Vec::new(),
            data: String::new(),
        };
        filesystem.read_options(options.get("o").map_or("", String::as_str))?;
        Ok(Some(filesystem))
    }

    fn read_options(&mut self, text: &str) -> Result<()> {
        let mut data = Vec::new();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let flag = FLAGS.iter().find(|(name, ..)| *name == option);
            let propagation = PROPAGATIONS.iter().find(|(name, _)| *name == option);
            match (flag, propagation) {
                (Some((_, flag, set)), _) => self.flags.set(*flag, *set),
                (None, Some((_, flag))) => self.propagation.push(*flag),
                (None, None) if option == "remount" => {
                    return Err(Error::invalid("invalid mount option: \"remount\""));
                }
                (None, None) => data.push(option),
            }
        }
        let address = data.iter().find_map(|option| option.strip_prefix("addr="));
        let is_address = |text: &str| text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if self.kind.starts_with("nfs") && !address.is_some_and(is_address) {
            return Err(Error::invalid(format!(
                "a volume of type {} needs the server's IP address, as o=addr=10.0.0.1: names are not looked up",
                self.kind
            )));
        }
        self.data = data.join(",");
        if self.data.len() > DATA_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the mount options are longer than {DATA_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }

    /// Mounts it.
    pub(crate) fn mount(&self, target: &Path) -> Result<()> {
        let failed = || {
            format!(
                "failed to mount local volume: mount {}:{}, flags: {:#x}, data: {:?}",
                self.device,
                target.display(),
                self.flags.bits(),
                self.data
            )
        };
        let data = CString::new(self.data.clone()).context(failed)?;
        let mounted = rustix::mount::mount(
            self.device.as_str(),
            target,
            self.kind.as_str(),
            self.flags,
            data.as_c_str(),
        );
        mounted.map_err(std::io::Error::from).context(failed)?;
        let rest = self.restrict(target).map_err(std::io::Error::from);
        if rest.is_err() {
            unmount(target)?;
        }
        rest.context(failed)
    }

    /// What the first call does not do: a bind mount takes its flags only when it is there.
    fn restrict(&self, target: &Path) -> rustix::io::Result<()> {
        let own = self
            .flags
            .difference(MountFlags::BIND.union(MountFlags::REC));
        if self.flags.contains(MountFlags::BIND) && !own.is_empty() {
            rustix::mount::mount_remount(target, MountFlags::BIND | own, c"")?;
        }
        for propagation in &self.propagation {
            rustix::mount::mount_change(target, *propagation)?;
        }
        Ok(())
    }
}

/// How much a volume with these options may hold; None: as much as there is.
pub(crate) fn size(options: &BTreeMap<String, String>) -> Result<Option<u64>> {
    let size = options.get("size").map(|text| parse_size(text));
    size.transpose()
}

/// Whether a filesystem is mounted on a directory.
pub(crate) fn is_mounted(path: &Path) -> Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = rustix::fs::statx(CWD, path, flags, StatxFlags::empty());
    let found = found
        .map_err(std::io::Error::from)
        .context(|| format!("statx {path:?}"))?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Unmounts what is mounted on a directory. That nothing is, is no error.
pub(crate) fn unmount(path: &Path) -> Result<()> {
    crate::mounts::unmount_all(path).context(|| format!("unmount {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Option<Filesystem>> {
        let options = options.iter();
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Filesystem::read(&options.map(own).collect())
    }

    #[test]
    fn options_are_flags_or_the_filesystems() {
        let o = ("o", "bind,ro,rslave,nosuid,uid=5,suid,mode=700");
        let read = read(&[("type", "none"), ("device", "/srv"), o])
            .unwrap()
            .unwrap();
        assert_eq!(read.flags, MountFlags::BIND | MountFlags::RDONLY);
        assert_eq!(read.propagation.len(), 1);
        assert_eq!(read.data, "uid=5,mode=700");
    }

    #[test]
    fn a_plain_volume_has_none() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("size", "1g")]).unwrap(), None);
    }

    #[test]
    fn what_the_driver_has_not_is_named() {
        for (options, reason) in [
            (&[("color", "red")][..], "invalid option: \"color\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
            (
                &[("device", "x"), ("o", "ro")],
                "missing required option: \"type\"",
            ),
            (&[("size", "10x")], "invalid size: '10x'"),
            (
                &[("size", "1m"), ("type", "tmpfs"), ("device", "t")],
                "without a type",
            ),
            (
                &[("type", "tmpfs"), ("device", "t"), ("o", "remount")],
                "remount",
            ),
            (
                &[("type", "nfs"), ("device", ":/x"), ("o", "addr=host")],
                "IP address",
            ),
        ] {
            let error = read(options).unwrap_err().to_string();
            assert!(error.contains(reason), "{options:?}: {error}");
        }
        assert!(read(&[("type", "nfs4"), ("device", ":/x"), ("o", "addr=::1")]).is_ok());
    }
}
