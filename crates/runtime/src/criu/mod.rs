//! Checkpoint and restore of containers, done by the program criu.
//!
//! criu is executed for each request and spoken to over a socket that it inherits. It reaches into the container by ptrace
//! and procfs, and for a restore makes the processes itself, the first as our child.
//!
//! Invariant: criu is the host's, found by its path or in `PATH`; nothing of an image decides what is executed.
//! Source: criu(8), criu.org "RPC", criu `images/rpc.proto`.

mod checkpoint;
mod restore;
mod rpc;
mod supervised;

pub(crate) use checkpoint::{Checkpoint, Subject, checkpoint};
pub(crate) use restore::{Restore, restore};
pub(crate) use rpc::CgroupMode;
pub(crate) use supervised::Restoring;
pub use supervised::{FromImages, IMAGES_MARK, NewImages, find_criu, make_images, prepare_restore};

use crate::cgroup::{Cgroup, Entry, Hierarchy, Version, hierarchies, unified};
use crate::channel::{Channel, Message};
use crate::error::{Doing, Error, Result};
use crate::hooks::reap;
use crate::init::fail;
use oci::runtime::{Mount, NamespaceKind, Spec};
use rpc::{Answer, Fields, Kind};
use rustix::fs::{Access, accessat};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, send, socketpair,
};
use std::ffi::{CStr, CString, OsStr};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use sys::Context;
use sys::process::{Child, Namespaces, Spawn, close_inherited, exec, spawn};

/// The longest answer, as criu has it.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// As much of criu's log as is looked at for what went wrong.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// As many of its lines as are told.
const LOG_LINES_MAX: usize = 5;
/// How much criu writes to its log: everything that helps to find out why not.
const LOG_LEVEL: u64 = 4;

/// Where criu finds other programs when the caller has no opinion.
const SEARCH_PATH: &CStr = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An annotation with the path of a configuration file of criu's own.
pub(crate) const ANNOTATION: &str = "org.criu.config";

// Fields of `criu_opts` that both requests have.
const IMAGES_DIR_FD: u64 = 1;
const EXT_UNIX_SK: u64 = 4;
const TCP_ESTABLISHED: u64 = 5;
const SHELL_JOB: u64 = 7;
const FILE_LOCKS: u64 = 8;
const LOG_LEVEL_FIELD: u64 = 9;
const LOG_FILE: u64 = 10;
const NOTIFY_SCRIPTS: u64 = 12;
const ROOT: u64 = 13;
const AUTO_DEDUP: u64 = 16;
const WORK_DIR_FD: u64 = 17;
const EXT_MNT: u64 = 23;
const MANAGE_CGROUPS: u64 = 24;
const MANAGE_CGROUPS_MODE: u64 = 34;
const EMPTY_NS: u64 = 38;
const LAZY_PAGES: u64 = 48;
const ORPHAN_PTS_MASTER: u64 = 50;
const CONFIG_FILE: u64 = 51;

/// What is asked of criu for checkpoint and restore alike.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Where the images are.
    pub(crate) images: PathBuf,
    /// Where criu works and logs; with the images when unset.
    pub(crate) work: Option<PathBuf>,
    pub(crate) tcp_established: bool,
    pub(crate) ext_unix_sk: bool,
    pub(crate) shell_job: bool,
    pub(crate) file_locks: bool,
    pub(crate) auto_dedup: bool,
    pub(crate) lazy_pages: bool,
    /// What criu does by default when unset.
    pub(crate) cgroups: Option<CgroupMode>,
    /// Whether the network namespace is left empty.
    pub(crate) empty_network: bool,
}

/// The directories of a request, open for as long as it lasts.
struct Directories {
    images: OwnedFd,
    work: Option<OwnedFd>,
}

impl Options {
    /// The fields of both requests, their logs in a file of this name.
    fn fields(&self, spec: &Spec, directories: &Directories, log: &str) -> Fields {
        let mut fields = Fields::default();
        let number = |fd: &OwnedFd| u64::from(fd.as_raw_fd().cast_unsigned());
        fields.number(IMAGES_DIR_FD, number(&directories.images));
        if let Some(work) = &directories.work {
            fields.number(WORK_DIR_FD, number(work));
        }
        fields.number(LOG_LEVEL_FIELD, LOG_LEVEL);
        fields.text(LOG_FILE, log);
        fields.flag(NOTIFY_SCRIPTS, true);
        fields.flag(EXT_UNIX_SK, self.ext_unix_sk);
        fields.flag(TCP_ESTABLISHED, self.tcp_established);
        fields.flag(SHELL_JOB, self.shell_job);
        fields.flag(FILE_LOCKS, self.file_locks);
        fields.flag(AUTO_DEDUP, self.auto_dedup);
        fields.flag(LAZY_PAGES, self.lazy_pages);
        fields.flag(ORPHAN_PTS_MASTER, true);
        fields.flag(MANAGE_CGROUPS, self.cgroups != Some(CgroupMode::Ignore));
        if let Some(mode) = self.cgroups {
            fields.number(MANAGE_CGROUPS_MODE, mode as u64);
        }
        if self.empty_network {
            fields.number(EMPTY_NS, Namespaces::NET.bits().into());
        }
        if let Some(path) = spec
            .annotations
            .get(ANNOTATION)
            .filter(|path| !path.is_empty())
        {
            fields.text(CONFIG_FILE, path);
        }
        fields
    }

    /// Where the logs are.
    fn logs(&self) -> &Path {
        self.work.as_ref().unwrap_or(&self.images)
    }

    fn open(&self, make: bool) -> Result<Directories> {
        let open = |path: &PathBuf, make: bool| {
            let doing = || format!("opening {}", path.display());
            if make && !path.is_dir() {
                let mode = rustix::fs::Mode::from_raw_mode(0o700);
                rustix::fs::mkdir(path, mode)
                    .call(|| format!("mkdir({path:?})"))
                    .doing_with(doing)?;
            }
            let file = std::fs::File::open(path).call(|| format!("open({path:?})"));
            Ok::<OwnedFd, Error>(file.doing_with(doing)?.into())
        };
        Ok(Directories {
            images: open(&self.images, make)?,
            work: self
                .work
                .as_ref()
                .map(|path| open(path, true))
                .transpose()?,
        })
    }
}

/// The mounts of a configuration that are of the host's filesystems: criu only notes where they belong.
fn bound(spec: &Spec) -> impl Iterator<Item = &Mount> {
    spec.mounts.iter().filter(|mount| {
        let bind = |option: &String| option == "bind" || option == "rbind";
        mount.kind.as_deref() == Some("bind") || mount.options.iter().any(bind)
    })
}

/// Of a mount of cgroups on v1 that is none of a cgroup namespace: where each hierarchy is in the container, and what of the
/// host's that is.
fn bound_cgroups(spec: &Spec, cgroup: &Cgroup) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    if unified()? || namespaces.any(|namespace| namespace.kind == NamespaceKind::Cgroup) {
        return Ok(Vec::new());
    }
    let mounts = spec.mounts.iter();
    let mounts = mounts.filter(|mount| mount.kind.as_deref() == Some("cgroup"));
    let v1 = |hierarchy: &&Hierarchy| hierarchy.version == Version::V1;
    let mut found = Vec::new();
    for mount in mounts {
        for hierarchy in hierarchies()?.iter().filter(v1) {
            let source = hierarchy.mount.join(cgroup.relative_path());
            found.push((mount.destination.join(hierarchy.name()), source));
        }
    }
    Ok(found)
}

fn external(fields: &mut Fields, place: &Path, value: &Path) {
    fields.message(EXT_MNT, |mount| {
        mount.text(1, &place.to_string_lossy());
        mount.text(2, &value.to_string_lossy());
    });
}

/// The program.
#[derive(Debug)]
pub(crate) struct Criu {
    program: CString,
}

/// How it is executed for a request.
#[derive(Debug, Default)]
struct Execution<'a> {
    /// The groups it is to be in, and with it what it restores.
    entry: Option<&'a Entry>,
    /// Descriptors that it is to have under the same numbers.
    inherited: &'a [BorrowedFd<'a>],
}

impl Criu {
    /// The program of this path or name, else `criu`.
    pub(crate) fn find(name: Option<&str>) -> Result<Self> {
        let name = name.filter(|name| !name.is_empty()).unwrap_or("criu");
        let runs = |path: &Path| {
            let flags = rustix::fs::AtFlags::EACCESS;
            path.is_file() && accessat(rustix::fs::CWD, path, Access::EXEC_OK, flags).is_ok()
        };
        let candidates: Vec<PathBuf> = if name.contains('/') {
            vec![name.into()]
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path)
                .filter(|directory| directory.is_absolute())
                .map(|directory| directory.join(name))
                .collect()
        };
        let found = candidates.into_iter().find(|path| runs(path));
        let found = found.ok_or_else(|| {
            Error::unsupported(format!(
                "checkpoint and restore without criu: there is no program {name:?}. Most distributions have it in \
                 a package of that name (Debian since 13: apt-get install criu), else see https://criu.org"
            ))
        })?;
        Self::at(&found)
    }

    /// The program of this path.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let program = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Error::invalid("the path of criu has a zero byte"))?;
        Ok(Self { program })
    }

    /// Its path.
    pub(crate) fn path(&self) -> PathBuf {
        OsStr::from_bytes(self.program.as_bytes()).into()
    }

    /// Fails unless the kernel has what is asked for.
    fn check_features(&self, track_memory: bool, lazy_pages: bool) -> Result<()> {
        if !track_memory && !lazy_pages {
            return Ok(());
        }
        let request = rpc::feature_check(track_memory, lazy_pages);
        let session = self.start(&Execution::default())?;
        let answer = session.ask(&request, |_, _, _| Ok(()))?;
        for (asked, there, what) in [
            (
                track_memory,
                answer.features.0,
                "tracking of memory for a pre-dump",
            ),
            (lazy_pages, answer.features.1, "pages on demand"),
        ] {
            if asked && !there {
                return Err(Error::unsupported(format!("{what}: the kernel has it not")));
            }
        }
        Ok(())
    }

    /// Executes it.
    fn start(&self, execution: &Execution<'_>) -> Result<Session> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .call(|| "socketpair(AF_UNIX, SOCK_SEQPACKET)")
        .doing("starting criu")?;
        let (told, tell) = Channel::pair()?;
        let how = Spawn {
            cgroup: execution.entry.and_then(Entry::born),
            ..Spawn::default()
        };
        let child = spawn(how, || {
            close_inherited(ours.as_fd());
            close_inherited(told.as_fd());
            let entered = execution.entry.map_or(Ok(()), Entry::enter);
            let Err(error) = entered.and_then(|()| self.become_criu(execution, theirs.as_fd()));
            fail(&tell, &error)
        })
        .doing("starting criu")?;
        drop((theirs, tell));
        // The end of the stream is the execution.
        match told.receive()? {
            None => Ok(Session {
                socket: ours,
                child,
            }),
            Some(Message::Failed(kind, message)) => {
                reap(child.pid).doing("waiting for criu")?;
                Err(Error::Container { kind, message })
            }
            Some(_) => Err(Error::State("criu's process spoke out of turn".into())),
        }
    }

    fn become_criu(
        &self,
        execution: &Execution<'_>,
        socket: BorrowedFd<'_>,
    ) -> Result<std::convert::Infallible> {
        let doing = "executing criu";
        sys::signals::reset().doing("resetting signals")?;
        for fd in execution.inherited.iter().chain([&socket]) {
            fcntl_setfd(fd, FdFlags::empty())
                .call(|| "fcntl(F_SETFD)")
                .doing(doing)?;
        }
        let number: RawFd = socket.as_raw_fd();
        let number = CString::new(number.to_string()).expect("digits");
        let arguments = [self.program.clone(), c"swrk".into(), number];
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let mut variable = name.into_vec();
            variable.push(b'=');
            variable.extend(value.as_bytes());
            CString::new(variable).ok()
        });
        let mut environment: Vec<_> = variables.collect();
        if std::env::var_os("PATH").is_none() {
            // It calls others, such as tar for what is in a tmpfs.
            environment.push(SEARCH_PATH.to_owned());
        }
        Err(exec(&self.program, &arguments, &environment)).doing(doing)
    }
}

/// A criu that waits for a request.
struct Session {
    socket: OwnedFd,
    child: Child,
}

impl Session {
    /// Makes a request and waits for the final answer, however long the work takes; `noticed` is told of points reached,
    /// with the id of the container's init there and a descriptor.
    fn ask(
        self,
        request: &[u8],
        mut noticed: impl FnMut(&str, u64, Option<OwnedFd>) -> Result<()>,
    ) -> Result<Answer> {
        let Self { socket, child } = self;
        let say = |bytes: &[u8]| {
            send(&socket, bytes, SendFlags::NOSIGNAL)
                .call(|| "send(<criu>)")
                .doing("speaking with criu")
        };
        let asked = say(request).and_then(|_| {
            loop {
                let (answer, fd) = receive(&socket)?;
                if !answer.is(Kind::Notify) {
                    return Ok(answer);
                }
                let (script, pid) = answer.notice.unwrap_or_default();
                noticed(&script, pid, fd)?;
                say(&rpc::noticed())?;
            }
        });
        // It ends when nobody listens any more.
        drop(socket);
        reap(child.pid).doing("waiting for criu")?;
        asked
    }
}

/// Hears an answer, with a descriptor if one comes along.
fn receive(socket: &OwnedFd) -> Result<(Answer, Option<OwnedFd>)> {
    let mut data = vec![0; ANSWER_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let buffer = &mut [IoSliceMut::new(&mut data)];
        recvmsg(socket, buffer, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let length = received
        .call(|| "recvmsg(<criu>)")
        .doing("speaking with criu")?
        .bytes;
    if length == 0 {
        return Err(Error::State("criu ended without an answer".into()));
    }
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((Answer::parse(&data[..length])?, fd))
}

/// Fails with what criu's log says, unless the answer is that it is done.
fn succeeded(answer: Answer, doing: &str, log: &Path) -> Result<Answer> {
    if answer.success {
        return Ok(answer);
    }
    let mut text = format!("{doing} with criu failed");
    if answer.errno != 0 {
        text.push_str(&format!(", error {}", answer.errno));
    }
    let complaints = complaints(log);
    if complaints.is_empty() && !answer.message.is_empty() {
        text.push_str(&format!(": {}", answer.message));
    }
    text.push_str(&format!("; its log is {}", log.display()));
    for line in complaints {
        text.push_str(&format!("\n{line}"));
    }
    Err(Error::State(text.into()))
}

/// The last errors of a log, if it can be read.
fn complaints(log: &Path) -> Vec<String> {
    use std::io::Read;
    let mut text = Vec::new();
    let read =
        std::fs::File::open(log).and_then(|file| file.take(LOG_BYTES_MAX).read_to_end(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<_> = { text.lines() }
        .filter(|line| line.contains("Error"))
        .map(str::to_owned)
        .collect();
    lines.drain(..lines.len().saturating_sub(LOG_LINES_MAX));
    lines
}

/// The path of a namespace that the container did not get new but joined.
fn joined(spec: &Spec, kind: NamespaceKind) -> Option<&Path> {
    let mut namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    namespaces
        .find(|namespace| namespace.kind == kind)?
        .path
        .as_deref()
}

/// The key of a network namespace that is left outside.
const NETWORK_KEY: &str = "extRootNetNS";

/// What criu calls a joined namespace of a kind that it can leave to others, and the key it is known by.
const LEFT_OUTSIDE: [(NamespaceKind, &str, &str); 2] = [
    (NamespaceKind::Network, "net", NETWORK_KEY),
    (NamespaceKind::Pid, "pid", "extRootPidNS"),
];

/// The file in the images with what the standard streams were.
const STREAMS: &str = "descriptors.json";

fn is_pipe(link: &OsStr) -> bool {
    link.as_bytes().starts_with(b"pipe:")
}
