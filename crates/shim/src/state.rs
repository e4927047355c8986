//! The files of a container in its bundle, on tmpfs.
//!
//! ```text
//! <bundle>/config.json   written by the engine, read here
//!          shim.sock     the socket, while the shim lives
//!          state         who runs where: for whoever has to end what a killed shim has left
//!          exit          how it ended
//! ```
//! Each is written under another name and renamed: whoever reads sees all of it or none.

use crate::protocol::{ExitRecord, Failure, FailureKind, SOCKET};
use oci::runtime::Spec;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

const STATE: &str = "state";
const EXIT: &str = "exit";
const CONFIG: &str = "config.json";

/// What `state` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StateRecord {
    /// The shim's process id.
    pub(crate) shim_pid: i32,
    /// The container's init.
    pub(crate) pid: i32,
    /// The container's cgroup.
    pub(crate) cgroup: PathBuf,
}

/// Reads `config.json`.
pub(crate) fn read_spec(bundle: &Path) -> Result<Spec, Failure> {
    let path = bundle.join(CONFIG);
    let text = std::fs::read(&path)
        .map_err(|error| crate::failures::system("read config.json", &error))?;
    serde_json::from_slice(&text).map_err(|error| Failure {
        kind: FailureKind::Invalid,
        message: format!("{}: {error}", path.display()),
    })
}

/// Writes `state`.
pub(crate) fn record(bundle: &Path, pid: i32, cgroup: PathBuf) -> io::Result<()> {
    let shim_pid = rustix::process::getpid().as_raw_pid();
    write(
        bundle,
        STATE,
        &StateRecord {
            shim_pid,
            pid,
            cgroup,
        },
    )
}

/// Listens on the socket.
pub(crate) fn listen(bundle: &Path) -> io::Result<UnixListener> {
    // By a path relative to the bundle: a socket's is limited to 107 bytes.
    std::env::set_current_dir(bundle)?;
    let listener = UnixListener::bind(SOCKET)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Writes `exit`.
pub(crate) fn record_exit(bundle: &Path, record: &ExitRecord) -> io::Result<()> {
    write(bundle, EXIT, record)
}

/// Reads `exit`; None: there is none.
pub(crate) fn read_exit(bundle: &Path) -> io::Result<Option<ExitRecord>> {
    read(bundle, EXIT)
}

/// Reads `state`; None: there is none.
pub(crate) fn read_state(bundle: &Path) -> io::Result<Option<StateRecord>> {
    read(bundle, STATE)
}

fn write<T: Serialize>(bundle: &Path, name: &str, record: &T) -> io::Result<()> {
    let temporary = bundle.join(format!(".{name}"));
    std::fs::write(&temporary, serde_json::to_vec(record)?)?;
    std::fs::rename(&temporary, bundle.join(name))
}

fn read<T: for<'a> Deserialize<'a>>(bundle: &Path, name: &str) -> io::Result<Option<T>> {
    match std::fs::read(bundle.join(name)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
