//! The making of images of a running container.

use super::rpc::{Fields, Kind, request};
use super::{
    Criu, Execution, LEFT_OUTSIDE, Options, ROOT, STREAMS, bound, bound_cgroups, external, joined,
    succeeded,
};
use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, Result};
use crate::mounts::resolve_if_there;
use crate::state::write;
use oci::runtime::{NamespaceKind, Spec};
use rustix::fs::{FileType, fstat, stat};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use sys::Context;
use sys::root::Root;

const PID: u64 = 2;
const LEAVE_RUNNING: u64 = 3;
const PAGE_SERVER: u64 = 11;
const PARENT_IMG: u64 = 14;
const TRACK_MEM: u64 = 15;
const LINK_REMAP: u64 = 18;
const EXTERNAL: u64 = 37;
const FREEZE_CGROUP: u64 = 44;
const TCP_SKIP_IN_FLIGHT: u64 = 46;

const LOG: &str = "dump.log";

/// What is asked for of a checkpoint alone.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    pub(crate) options: Options,
    pub(crate) leave_running: bool,
    /// Memory only, the container goes on.
    pub(crate) pre_dump: bool,
    /// The images before, relative to these.
    pub(crate) parent: Option<String>,
    pub(crate) tcp_skip_in_flight: bool,
    pub(crate) link_remap: bool,
    /// Who gets the pages.
    pub(crate) page_server: Option<(String, u16)>,
    /// Gets a zero byte when the pages can be asked for.
    pub(crate) status: Option<OwnedFd>,
}

/// A container of which images are made.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    /// Its init.
    pub(crate) pid: i32,
    pub(crate) spec: &'a Spec,
    pub(crate) rootfs: &'a Path,
    pub(crate) cgroup: &'a Cgroup,
    /// Whether a network namespace that it has not joined is left out of the images like one that it has.
    pub(crate) leaves_network: bool,
}

impl Subject<'_> {
    /// The file of the namespace of a kind that the images are without.
    fn left_outside(&self, kind: NamespaceKind) -> Option<PathBuf> {
        let joined = joined(self.spec, kind).map(Path::to_owned);
        let own = self.leaves_network && kind == NamespaceKind::Network;
        joined.or_else(|| own.then(|| format!("/proc/{}/ns/net", self.pid).into()))
    }
}

/// Makes images of a container. Unless it is left running, or only memory was asked for, its processes are gone then.
pub(crate) fn checkpoint(criu: &Criu, known: &Subject<'_>, asked: &Checkpoint) -> Result<()> {
    criu.check_features(asked.pre_dump, asked.options.lazy_pages)?;
    let directories = asked.options.open(true)?;
    let mut fields = asked.options.fields(known.spec, &directories, LOG);
    let pid = known.pid;
    fields.number(PID, u64::from(pid.cast_unsigned()));
    fields.text(ROOT, &known.rootfs.to_string_lossy());
    fields.flag(LEAVE_RUNNING, asked.leave_running);
    fields.flag(LINK_REMAP, asked.link_remap);
    fields.flag(TCP_SKIP_IN_FLIGHT, asked.tcp_skip_in_flight);
    if let Some((address, port)) = &asked.page_server {
        fields.message(PAGE_SERVER, |server| {
            server.text(1, address);
            server.number(2, (*port).into());
        });
    }
    if let Some(parent) = &asked.parent {
        fields.text(PARENT_IMG, parent);
        fields.flag(TRACK_MEM, true);
    }
    if let Some(freezer) = known.cgroup.freezer_path() {
        fields.text(FREEZE_CGROUP, &freezer.to_string_lossy());
    }
    for (kind, name, key) in LEFT_OUTSIDE {
        if let Some(path) = known.left_outside(kind) {
            let found = stat(&path)
                .call(|| format!("stat({path:?})"))
                .doing("looking at a joined namespace")?;
            fields.text(EXTERNAL, &format!("{name}[{}]:{key}", found.st_ino));
        }
    }
    let kind = if asked.pre_dump {
        Kind::PreDump
    } else {
        note_mounts(known, &mut fields)?;
        note_streams(pid, &asked.options.images)?;
        Kind::Dump
    };
    let status = |script: &str, _, _| match (&asked.status, script) {
        (Some(fd), "status-ready") => rustix::io::write(fd, &[0])
            .call(|| "write(<status>, \"\\0\")")
            .doing("telling that pages can be asked for")
            .map(drop),
        _ => Ok(()),
    };
    let request = request(kind, &fields);
    let answer = criu.start(&Execution::default())?.ask(&request, status)?;
    succeeded(answer, "the checkpoint", &asked.options.logs().join(LOG)).map(drop)
}

/// Says which mounts are the host's: bound ones, masks, and devices where they are bound.
fn note_mounts(known: &Subject<'_>, fields: &mut Fields) -> Result<()> {
    let doing = "looking at the container's mounts";
    for mount in bound(known.spec) {
        external(fields, &mount.destination, &mount.destination);
    }
    for (place, _) in bound_cgroups(known.spec, known.cgroup)? {
        external(fields, &place, &place);
    }
    let Some(linux) = &known.spec.linux else {
        return Ok(());
    };
    let root = Path::new("/proc").join(format!("{}/root", known.pid));
    let root = Root::open(&root).doing(doing)?;
    for path in &linux.masked_paths {
        // What is not there, or a directory, has no null device over it.
        let Some(found) = resolve_if_there(&root, path).doing(doing)? else {
            continue;
        };
        let found = fstat(&found).call(|| "fstat").doing(doing)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            external(fields, path, Path::new("/dev/null"));
        }
    }
    for device in &linux.devices {
        external(fields, &device.path, &device.path);
    }
    Ok(())
}

/// Keeps what the standard streams are: pipes of the host's are replaced by the restorer's.
fn note_streams(pid: i32, images: &Path) -> Result<()> {
    let doing = "looking at the container's standard streams";
    let links = (0..3)
        .map(|fd| {
            let path = format!("/proc/{pid}/fd/{fd}");
            match std::fs::read_link(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
                link => link
                    .map(|link| link.to_string_lossy().into_owned())
                    .call(|| format!("readlink({path:?})"))
                    .doing(doing),
            }
        })
        .collect::<Result<Vec<_>>>()?;
    let text = serde_json::to_vec(&links).map_err(|source| Error::Json {
        doing: doing.into(),
        source,
    })?;
    write(&images.join(STREAMS), &text)
}
