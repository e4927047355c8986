//! What the command line remembers of containers from one invocation to the next.
//!
//! ```text
//! <root>/                 /run/hull/runtime, 0700
//!   <id>/                 made first: its existence reserves the id
//!     config.json         the configuration as it was at creation
//!     state.json          what is below as `Record`; replaced by rename, so that it is whole or not there
//!     gate.sock           where init waits; gone once the container was started
//! ```
//!
//! A container's status is not stored but found: its init lives or not, its gate is there or not.

use crate::cgroup::{Cgroup, Unit};
use crate::error::{Doing, Error, Result};
use oci::runtime::{IntelRdt, Spec, State, Status, VERSION};
use rustix::fs::{AtFlags, CWD, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getuid, pidfd_open};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use sys::Context;

/// The largest document read.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// The longest id.
const ID_BYTES_MAX: usize = 1024;
/// As many containers as are listed.
const CONTAINERS_MAX: usize = 1 << 16;

const CONFIG: &str = "config.json";
const STATE: &str = "state.json";
const GATE: &str = "gate.sock";

/// The directory of all containers.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
}

/// One container's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) pid: i32,
    /// Of init, in clock ticks since boot: tells it from a later process of the same number.
    pub(crate) start_ticks: u64,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    /// Below the mount points.
    pub(crate) cgroup: PathBuf,
    /// Of systemd, when that made the cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<Unit>,
    /// RFC 3339.
    pub(crate) created: String,
    /// The user who created it.
    pub(crate) owner: u32,
}

/// A container on record.
#[derive(Debug)]
pub(crate) struct Known {
    directory: PathBuf,
    pub(crate) record: Record,
    pub(crate) spec: Spec,
}

impl Store {
    /// The directory given, or the user's own.
    pub(crate) fn new(root: Option<&str>) -> Self {
        let path = root.map(PathBuf::from).unwrap_or_else(|| {
            let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
            match runtime {
                Some(path) if !getuid().is_root() => Path::new(&path).join("hull/runtime"),
                _ => PathBuf::from("/run/hull/runtime"),
            }
        });
        Self { path }
    }

    /// Reserves an id, and keeps the configuration.
    pub(crate) fn reserve(&self, id: &str, config: &[u8]) -> Result<PathBuf> {
        let directory = self.path.join(checked(id)?);
        let doing = || format!("making {}", directory.display());
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        let made = match builder.create(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                builder
                    .recursive(true)
                    .create(&self.path)
                    .call(|| "mkdir")
                    .doing_with(doing)?;
                builder.recursive(false).create(&directory)
            }
            result => result,
        };
        match made {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::State(
                    format!("container with id {id} exists already").into(),
                ));
            }
            result => result.call(|| "mkdir").doing_with(doing)?,
        }
        match write(&directory.join(CONFIG), config) {
            Ok(()) => Ok(directory),
            Err(error) => Err(error.undone(remove(&directory))),
        }
    }

    /// Finds a container.
    pub(crate) fn find(&self, id: &str) -> Result<Known> {
        let directory = self.path.join(checked(id)?);
        let missing = || Error::State(format!("container {id:?} does not exist").into());
        let record: Record = read(&directory.join(STATE))?.ok_or_else(missing)?;
        let spec = read(&directory.join(CONFIG))?.ok_or_else(missing)?;
        Ok(Known {
            directory,
            record,
            spec,
        })
    }

    /// Finds all containers, by id; those just being made or removed are left out.
    pub(crate) fn list(&self) -> Result<Vec<Known>> {
        let doing = || format!("listing {}", self.path.display());
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.call(|| "open").doing_with(doing)?,
        };
        let mut found = Vec::new();
        for entry in entries.take(CONTAINERS_MAX) {
            let name = entry.call(|| "getdents64").doing_with(doing)?.file_name();
            let Some(name) = name.to_str() else { continue };
            match self.find(name) {
                Ok(known) => found.push(known),
                Err(Error::State(_)) => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by(|one, other| one.record.id.cmp(&other.record.id));
        Ok(found)
    }

    /// Removes what there is of a container that never came to a record.
    pub(crate) fn forget(&self, id: &str) -> Result<()> {
        remove(&self.path.join(checked(id)?))
    }
}

impl Known {
    /// Makes a record of a new container.
    pub(crate) fn save(directory: &Path, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|source| Error::Json {
            doing: "writing the state".into(),
            source,
        })?;
        write(&directory.join(STATE), &text)
    }

    /// Replaces the configuration kept.
    pub(crate) fn replace_spec(directory: &Path, spec: &Spec) -> Result<()> {
        let text = serde_json::to_vec(spec).map_err(|source| Error::Json {
            doing: "writing the configuration".into(),
            source,
        })?;
        write(&directory.join(CONFIG), &text)
    }

    /// A pidfd of init, unless it has ended.
    pub(crate) fn init(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.record.pid) else {
            return Ok(None);
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(None),
            result => result
                .call(|| "pidfd_open")
                .doing("looking for the container's init")?,
        };
        // Looked at after it is held: it cannot become another meanwhile.
        let same = start_ticks(pid).is_some_and(|ticks| ticks == self.record.start_ticks);
        Ok(same.then_some(pidfd))
    }

    /// Where it is in its life.
    pub(crate) fn status(&self) -> Result<Status> {
        if self.init()?.is_none() {
            return Ok(Status::Stopped);
        }
        if self.gate().exists() {
            return Ok(Status::Created);
        }
        Ok(if self.cgroup()?.is_frozen()? {
            Status::Paused
        } else {
            Status::Running
        })
    }

    /// Its cgroup.
    pub(crate) fn cgroup(&self) -> Result<Cgroup> {
        let cgroup = Cgroup::open(self.record.cgroup.to_str().unwrap_or_default())?;
        Ok(cgroup.of_unit(self.record.unit.clone()))
    }

    /// What of Intel's resource director it was created with.
    pub(crate) fn intel_rdt(&self) -> Option<&IntelRdt> {
        self.spec.linux.as_ref()?.intel_rdt.as_ref()
    }

    /// Its state document.
    pub(crate) fn state(&self) -> Result<State> {
        let status = self.status()?;
        let pid = if status == Status::Stopped {
            0
        } else {
            self.record.pid
        };
        Ok(State {
            oci_version: VERSION.into(),
            id: self.record.id.clone(),
            status,
            pid,
            bundle: self.record.bundle.clone(),
            annotations: self.spec.annotations.clone(),
        })
    }

    /// The socket that init waits at.
    pub(crate) fn gate(&self) -> PathBuf {
        gate(&self.directory)
    }

    /// Forgets it.
    pub(crate) fn remove(&self) -> Result<()> {
        remove(&self.directory)
    }
}

/// The socket of the container of a directory.
pub(crate) fn gate(directory: &Path) -> PathBuf {
    directory.join(GATE)
}

/// When a process started, unless it has ended.
pub(crate) fn start_ticks(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name may have anything in it, parentheses too.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// An id that is a plain file name.
fn checked(id: &str) -> Result<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    let fine = !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(plain);
    if fine && id != "." && id != ".." {
        return Ok(id);
    }
    Err(Error::invalid(format!(
        "invalid container id {id:?}: letters, digits and _+-. are allowed"
    )))
}

/// Reads a document of the host's; `None` when it is not there.
fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    let Some(text) = read_bytes(path)? else {
        return Ok(None);
    };
    let doing = || format!("reading {}", path.display()).into();
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| Error::Json {
            doing: doing(),
            source,
        })
}

/// Reads a file of bounded size; `None` when it is not there.
pub(crate) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    let doing = || format!("reading {}", path.display());
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        result => result.call(|| "open").doing_with(doing)?,
    };
    // All of it at once: how long it is may change.
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let length = usize::try_from(length.min(DOCUMENT_BYTES_MAX)).unwrap_or_default();
    let mut bytes = Vec::with_capacity(length + 1);
    file.take(DOCUMENT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .call(|| "read")
        .doing_with(doing)?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        let path = path.display();
        return Err(Error::invalid(format!(
            "{path} exceeds {DOCUMENT_BYTES_MAX} bytes"
        )));
    }
    Ok(Some(bytes))
}

/// Writes a file so that it is whole or not there.
pub(crate) fn write(path: &Path, text: &[u8]) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    std::fs::write(&new, text)
        .call(|| format!("write({new:?})"))
        .doing_with(doing)?;
    renameat(CWD, &new, CWD, path)
        .call(|| format!("rename({new:?}, {path:?})"))
        .doing_with(doing)
}

/// Removes a container's directory: a known, flat set of files.
fn remove(directory: &Path) -> Result<()> {
    let doing = || format!("removing {}", directory.display());
    for name in [
        STATE,
        GATE,
        CONFIG,
        ".state.json.new",
        ".config.json.new",
        "",
    ] {
        let path = if name.is_empty() {
            directory.to_owned()
        } else {
            directory.join(name)
        };
        let flags = if name.is_empty() {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        match unlinkat(CWD, &path, flags) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => {
                return Err(errno)
                    .call(|| format!("unlink({path:?})"))
                    .doing_with(doing);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpid;

    fn record(pid: i32, start_ticks: u64) -> Record {
        Record {
            id: "c".into(),
            pid,
            start_ticks,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            cgroup: "hull-test-of-no-cgroup/c".into(),
            unit: None,
            created: "2026-01-01T00:00:00Z".into(),
            owner: 0,
        }
    }

    #[test]
    fn an_id_is_one_plain_name() {
        for good in ["a", "A-1_b.c+d", "..."] {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", "a\n"] {
            assert!(checked(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_record_is_kept_until_removed_and_an_id_is_taken_once() {
        let tree = tempfile::tempdir().unwrap();
        let store = Store {
            path: tree.path().join("not/yet"),
        };
        let directory = store.reserve("c", b"{}").unwrap();
        assert!(store.reserve("c", b"{}").is_err());
        assert!(store.find("c").is_err() && store.list().unwrap().is_empty());
        Known::save(&directory, &record(1, 1)).unwrap();
        assert_eq!(store.find("c").unwrap().record, record(1, 1));
        store.list().unwrap()[0].remove().unwrap();
        assert!(store.list().unwrap().is_empty() && !directory.exists());
    }

    #[test]
    fn a_process_of_the_same_number_is_not_init() {
        let tree = tempfile::tempdir().unwrap();
        let store = Store {
            path: tree.path().to_owned(),
        };
        let directory = store.reserve("c", b"{}").unwrap();
        let own = getpid();
        let ticks = start_ticks(own).unwrap();
        for (ticks, lives) in [(ticks, true), (ticks + 1, false)] {
            Known::save(&directory, &record(own.as_raw_nonzero().get(), ticks)).unwrap();
            assert_eq!(store.find("c").unwrap().init().unwrap().is_some(), lives);
        }
    }
}
