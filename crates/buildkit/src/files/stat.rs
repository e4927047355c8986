//! A file as fsutil tells of it, and as it is in an archive.
//!
//! Source: tonistiigi/fsutil `types/stat.proto`; Go's `os.FileMode`.

use super::broken;
use crate::messages::Stat;
use builder::{Error, Result};
use images::copy::Found;
use images::tar::{Entry, Kind, Time};
use std::os::unix::ffi::OsStrExt as _;

/// How long ago a file must have been written for its time to say that it was not written since.
const FRESH_NS: i128 = 2_000_000_000;
/// Bytes of a mark.
const MARK_BYTES_MAX: usize = 256;

/// The bits of Go's `os.FileMode` beside the permissions.
mod mode {
    pub(super) const DIRECTORY: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const DEVICE: u32 = 1 << 26;
    pub(super) const PIPE: u32 = 1 << 25;
    pub(super) const SOCKET: u32 = 1 << 24;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const CHARACTERS: u32 = 1 << 21;
    pub(super) const STICKY: u32 = 1 << 20;
    pub(super) const IRREGULAR: u32 = 1 << 19;
    /// What is no regular file has one of these.
    pub(super) const TYPE: u32 =
        DIRECTORY | SYMLINK | DEVICE | PIPE | SOCKET | CHARACTERS | IRREGULAR;
}

/// Bits of a mode that Go has elsewhere: there, and in stat(2).
const SPECIAL: [(u32, u32); 3] = [
    (mode::SETUID, 0o4000),
    (mode::SETGID, 0o2000),
    (mode::STICKY, 0o1000),
];

/// Whether it is a file that nobody can copy.
pub(super) fn is_left_out(stat: &Stat) -> bool {
    stat.mode & (mode::SOCKET | mode::IRREGULAR) != 0
}

/// What the client says of a file. Its owner is nobody here.
pub(super) fn entry(stat: &Stat) -> Result<Entry> {
    let device = || {
        let number = |number: i64| u32::try_from(number).map_err(|_| broken("a device's number"));
        Ok::<_, Error>((number(stat.major)?, number(stat.minor)?))
    };
    let kind = match stat.mode & mode::TYPE {
        0 => Kind::File,
        mode::DIRECTORY => Kind::Directory,
        mode::SYMLINK => Kind::Symlink {
            target: stat.link.clone(),
        },
        mode::PIPE => Kind::Fifo,
        mode::DEVICE => {
            let (major, minor) = device()?;
            Kind::BlockDevice { major, minor }
        }
        bits if bits == mode::DEVICE | mode::CHARACTERS => {
            let (major, minor) = device()?;
            Kind::CharDevice { major, minor }
        }
        bits => return Err(broken(format!("a file of an unknown kind ({bits:#x})"))),
    };
    let special = SPECIAL.iter().filter(|(go, _)| stat.mode & go != 0);
    let special: u32 = special.map(|(_, unix)| unix).sum();
    Ok(Entry {
        mtime: Time {
            seconds: stat.modified.div_euclid(1_000_000_000),
            nanoseconds: u32::try_from(stat.modified.rem_euclid(1_000_000_000)).unwrap_or(0),
        },
        xattrs: { stat.xattrs.iter() }
            .map(|(name, value)| (name.clone().into_bytes(), value.clone()))
            .collect(),
        ..Entry::new("", kind, stat.mode & 0o777 | special)
    })
}

/// What the client says of a file, by which it is known whether that has changed; empty where that cannot be known. Contents are not
/// compared, as in BuildKit: what was written just now may be written again within the time that the clock needs to go on.
pub(super) fn mark(stat: &Stat) -> Vec<u8> {
    let now = jiff::Timestamp::now().as_nanosecond();
    let is_fresh = now - i128::from(stat.modified) < FRESH_NS;
    // A further name of a file is not compared.
    if is_fresh || (stat.mode & mode::TYPE == 0 && !stat.link.is_empty()) {
        return Vec::new();
    }
    let numbers = [
        i64::from(stat.mode),
        stat.size,
        stat.modified,
        stat.major,
        stat.minor,
    ];
    let mut mark: Vec<u8> = { numbers.iter() }
        .flat_map(|number| number.to_le_bytes())
        .collect();
    mark.extend_from_slice(&stat.link);
    for (name, value) in &stat.xattrs {
        for part in [name.as_bytes(), value.as_slice()] {
            mark.extend_from_slice(&(part.len() as u64).to_le_bytes());
            mark.extend_from_slice(part);
        }
    }
    // A long one is only compared.
    match mark.len() <= MARK_BYTES_MAX {
        true => mark,
        false => oci::Digest::sha256(&mark).bytes().to_vec(),
    }
}

/// A file as the client is told of it.
pub(super) fn stat(found: &Found) -> Stat {
    let entry = &found.entry;
    let (bits, link, (major, minor)) = match &entry.kind {
        Kind::File | Kind::HardLink { .. } => (0, Vec::new(), (0, 0)),
        Kind::Directory => (mode::DIRECTORY, Vec::new(), (0, 0)),
        Kind::Symlink { target } => (mode::SYMLINK, target.clone(), (0, 0)),
        Kind::Fifo => (mode::PIPE, Vec::new(), (0, 0)),
        Kind::BlockDevice { major, minor } => (mode::DEVICE, Vec::new(), (*major, *minor)),
        Kind::CharDevice { major, minor } => (
            mode::DEVICE | mode::CHARACTERS,
            Vec::new(),
            (*major, *minor),
        ),
    };
    let special = SPECIAL.iter().filter(|(_, unix)| entry.mode & unix != 0);
    let special: u32 = special.map(|(go, _)| go).sum();
    Stat {
        path: found.path.as_os_str().as_bytes().to_vec(),
        mode: bits | special | entry.mode & 0o777,
        uid: entry.uid,
        gid: entry.gid,
        size: i64::try_from(entry.size).unwrap_or(i64::MAX),
        modified: { entry.mtime.seconds }
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(entry.mtime.nanoseconds)),
        link,
        major: i64::from(major),
        minor: i64::from(minor),
        xattrs: { entry.xattrs.iter() }
            .filter_map(|(name, value)| {
                Some((String::from_utf8(name.clone()).ok()?, value.clone()))
            })
            .collect(),
    }
}
