//! Mount options by name: what fstab(5) and the specification call them, as attributes of the mount, flags of the
//! filesystem, or parameters the filesystem itself understands.
//!
//! Source: config.md "Linux mount options", mount_setattr(2), fsconfig(2).

use crate::error::{Error, Result};
use sys::mount::{
    Attributes, MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME,
};

/// As many options as one mount may have.
const OPTIONS_MAX: usize = 256;

/// The options of one mount, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Whether a part of another mount is mounted, and with those below it.
    pub(crate) bind: Option<Recursion>,
    /// Whether the mount that is there is changed.
    pub(crate) remount: bool,
    /// Attributes of this mount.
    pub(crate) attributes: Attributes,
    /// Attributes of this mount and those below.
    pub(crate) recursive: Attributes,
    /// Propagation changes (`MS_SHARED` …), in order.
    pub(crate) propagation: Vec<(u64, Recursion)>,
    /// Whether ids are mapped.
    pub(crate) idmap: Option<Recursion>,
    /// Whether a tmpfs starts with what it hides.
    pub(crate) copy_up: bool,
    /// Flags of the filesystem.
    pub(crate) superblock: Vec<&'static str>,
    /// Parameters of the filesystem.
    pub(crate) parameters: Vec<(String, Option<String>)>,
}

/// Whether mounts below are meant too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recursion {
    /// This one alone.
    This,
    /// Those below too.
    Below,
}

#[derive(Debug, Clone, Copy)]
enum Meaning {
    /// Says what is so anyway, or concerns the kernel's log only.
    Nothing,
    Bind(Recursion),
    Remount,
    Set(u64),
    Clear(u64),
    /// One of the kinds of access times, which exclude each other.
    Atime(u64),
    /// Read-only or not, which the filesystem has too.
    ReadOnly(bool),
    SetBelow(u64),
    ClearBelow(u64),
    AtimeBelow(u64),
    Propagation(u64, Recursion),
    Idmap(Recursion),
    CopyUp,
    Superblock(&'static str),
}

use Meaning::{
    Atime, AtimeBelow, Bind, Clear, ClearBelow, CopyUp, Idmap, Nothing, Propagation, ReadOnly,
    Remount, Set, SetBelow, Superblock,
};
use Recursion::{Below, This};

const SHARED: u64 = libc::MS_SHARED;
const SLAVE: u64 = libc::MS_SLAVE;
const PRIVATE: u64 = libc::MS_PRIVATE;
const UNBINDABLE: u64 = libc::MS_UNBINDABLE;

/// Sorted by name.
const MEANINGS: [(&str, Meaning); 61] = [
    ("async", Superblock("async")),
    ("atime", Atime(MOUNT_ATTR_RELATIME)),
    ("bind", Bind(This)),
    ("defaults", Nothing),
    ("dev", Clear(MOUNT_ATTR_NODEV)),
    ("diratime", Clear(MOUNT_ATTR_NODIRATIME)),
    ("dirsync", Superblock("dirsync")),
    ("exec", Clear(MOUNT_ATTR_NOEXEC)),
    ("idmap", Idmap(This)),
    ("lazytime", Superblock("lazytime")),
    ("loud", Nothing),
    ("mand", Superblock("mand")),
    ("noatime", Atime(MOUNT_ATTR_NOATIME)),
    ("nodev", Set(MOUNT_ATTR_NODEV)),
    ("nodiratime", Set(MOUNT_ATTR_NODIRATIME)),
    ("noexec", Set(MOUNT_ATTR_NOEXEC)),
    ("noiversion", Nothing),
    ("nolazytime", Superblock("nolazytime")),
    ("nomand", Superblock("nomand")),
    ("norelatime", Atime(MOUNT_ATTR_RELATIME)),
    ("nostrictatime", Atime(MOUNT_ATTR_RELATIME)),
    ("nosuid", Set(MOUNT_ATTR_NOSUID)),
    ("nosymfollow", Set(MOUNT_ATTR_NOSYMFOLLOW)),
    ("private", Propagation(PRIVATE, This)),
    ("ratime", AtimeBelow(MOUNT_ATTR_RELATIME)),
    ("rbind", Bind(Below)),
    ("rdev", ClearBelow(MOUNT_ATTR_NODEV)),
    ("rdiratime", ClearBelow(MOUNT_ATTR_NODIRATIME)),
    ("relatime", Atime(MOUNT_ATTR_RELATIME)),
    ("remount", Remount),
    ("rexec", ClearBelow(MOUNT_ATTR_NOEXEC)),
    ("ridmap", Idmap(Below)),
    ("rnoatime", AtimeBelow(MOUNT_ATTR_NOATIME)),
    ("rnodev", SetBelow(MOUNT_ATTR_NODEV)),
    ("rnodiratime", SetBelow(MOUNT_ATTR_NODIRATIME)),
    ("rnoexec", SetBelow(MOUNT_ATTR_NOEXEC)),
    ("rnorelatime", AtimeBelow(MOUNT_ATTR_RELATIME)),
    ("rnostrictatime", AtimeBelow(MOUNT_ATTR_RELATIME)),
    ("rnosuid", SetBelow(MOUNT_ATTR_NOSUID)),
    ("rnosymfollow", SetBelow(MOUNT_ATTR_NOSYMFOLLOW)),
    ("ro", ReadOnly(true)),
    ("rprivate", Propagation(PRIVATE, Below)),
    ("rrelatime", AtimeBelow(MOUNT_ATTR_RELATIME)),
    ("rro", SetBelow(MOUNT_ATTR_RDONLY)),
    ("rrw", ClearBelow(MOUNT_ATTR_RDONLY)),
    ("rshared", Propagation(SHARED, Below)),
    ("rslave", Propagation(SLAVE, Below)),
    ("rstrictatime", AtimeBelow(MOUNT_ATTR_STRICTATIME)),
    ("rsuid", ClearBelow(MOUNT_ATTR_NOSUID)),
    ("rsymfollow", ClearBelow(MOUNT_ATTR_NOSYMFOLLOW)),
    ("runbindable", Propagation(UNBINDABLE, Below)),
    ("rw", ReadOnly(false)),
    ("shared", Propagation(SHARED, This)),
    ("silent", Nothing),
    ("slave", Propagation(SLAVE, This)),
    ("strictatime", Atime(MOUNT_ATTR_STRICTATIME)),
    ("suid", Clear(MOUNT_ATTR_NOSUID)),
    ("symfollow", Clear(MOUNT_ATTR_NOSYMFOLLOW)),
    ("sync", Superblock("sync")),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagation(UNBINDABLE, This)),
];

/// The names of all options that are not a filesystem's own.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    MEANINGS.iter().map(|(name, _)| *name)
}

impl Options {
    /// Reads the options of a mount, given its type.
    pub(crate) fn parse(options: &[String], kind: Option<&str>) -> Result<Self> {
        let mut read = Self::default();
        if options.len() > OPTIONS_MAX {
            return Err(Error::invalid(format!(
                "more than {OPTIONS_MAX} mount options"
            )));
        }
        for option in options {
            match MEANINGS.binary_search_by(|(name, _)| (*name).cmp(option)) {
                Ok(index) => read.apply(MEANINGS[index].1),
                Err(_) => read.parameter(option)?,
            }
        }
        if kind == Some("bind") && read.bind.is_none() {
            read.bind = Some(Recursion::This);
        }
        Ok(read)
    }

    fn apply(&mut self, meaning: Meaning) {
        let atime = |attributes: &mut Attributes, kind| {
            attributes.set = attributes.set & !MOUNT_ATTR__ATIME | kind;
            attributes.clear |= MOUNT_ATTR__ATIME;
        };
        match meaning {
            Nothing => {}
            Bind(recursion) => self.bind = Some(recursion),
            Remount => self.remount = true,
            Set(bits) => set(&mut self.attributes, bits),
            Clear(bits) => clear(&mut self.attributes, bits),
            ReadOnly(true) => set(&mut self.attributes, MOUNT_ATTR_RDONLY),
            ReadOnly(false) => clear(&mut self.attributes, MOUNT_ATTR_RDONLY),
            SetBelow(bits) => set(&mut self.recursive, bits),
            ClearBelow(bits) => clear(&mut self.recursive, bits),
            Atime(kind) => atime(&mut self.attributes, kind),
            AtimeBelow(kind) => atime(&mut self.recursive, kind),
            Propagation(kind, recursion) => self.propagation.push((kind, recursion)),
            Idmap(recursion) => self.idmap = Some(recursion),
            CopyUp => self.copy_up = true,
            Superblock(flag) => self.superblock.push(flag),
        }
    }

    fn parameter(&mut self, option: &str) -> Result<()> {
        if option.is_empty() || option.contains(['\0', '\n']) {
            return Err(Error::invalid(format!("mount option {option:?}")));
        }
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (option, None),
        };
        self.parameters.push((key.to_owned(), value));
        Ok(())
    }

    /// Whether the mount is to be read-only.
    pub(crate) fn read_only(&self) -> bool {
        self.attributes.set & MOUNT_ATTR_RDONLY != 0
    }
}

fn set(attributes: &mut Attributes, bits: u64) {
    attributes.set |= bits;
    attributes.clear &= !bits;
}

fn clear(attributes: &mut Attributes, bits: u64) {
    attributes.set &= !bits;
    attributes.clear |= bits;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Options {
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        Options::parse(&options, None).unwrap()
    }

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(MEANINGS.is_sorted_by(|one, other| one.0 < other.0));
    }

    #[test]
    fn the_last_of_contradicting_options_wins() {
        assert!(parse(&["rw", "ro"]).read_only());
        assert!(!parse(&["ro", "rw"]).read_only());
        let atime = parse(&["noatime", "strictatime"]).attributes;
        assert_eq!(atime.set & MOUNT_ATTR__ATIME, MOUNT_ATTR_STRICTATIME);
    }

    #[test]
    fn what_is_unknown_goes_to_the_filesystem() {
        let options = parse(&["size=64k", "nosuid", "newinstance"]);
        let expected = [
            ("size".into(), Some("64k".into())),
            ("newinstance".into(), None),
        ];
        assert_eq!(options.parameters, expected);
        assert_eq!(options.attributes.set, MOUNT_ATTR_NOSUID);
    }

    #[test]
    fn the_type_bind_is_a_bind_without_the_option() {
        let options = Options::parse(&[], Some("bind")).unwrap();
        assert_eq!(options.bind, Some(Recursion::This));
        assert_eq!(parse(&["rbind"]).bind, Some(Recursion::Below));
    }

    #[test]
    fn control_characters_are_refused() {
        assert!(Options::parse(&["size=1\n".into()], None).is_err());
        assert!(Options::parse(&[String::new()], None).is_err());
    }
}
