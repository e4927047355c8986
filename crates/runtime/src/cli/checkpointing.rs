//! Checkpoint and restore.

use super::arguments::{Arguments, Flag, switch, valued};
use super::foreground::Foreground;
use super::lifecycle::{New, destroy};
use super::{BUNDLE, CONSOLE, DETACH, Invocation, NO_SUBREAPER, PID_FILE, PIDFD};
use crate::api::Rootfs;
use crate::cgroup::{Cgroup, Wanted};
use crate::criu::{
    CgroupMode, Checkpoint, Criu, Options, Restore, Subject, checkpoint as make_images,
    restore as criu_restore,
};
use crate::error::{Doing, Error, Result};
use crate::resctrl::Resctrl;
use crate::{create::end, sealed};
use oci::runtime::Status;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::stdio::{stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::Context;
use sys::process::Child;

const IMAGES: Flag = valued(
    "image-path",
    "",
    "path",
    "directory of the images, else checkpoint",
);
const WORK: Flag = valued(
    "work-path",
    "",
    "path",
    "directory of criu's log and other files, else that of the images",
);
const TCP: Flag = switch("tcp-established", "", "with TCP connections that are open");
const UNIX: Flag = switch("ext-unix-sk", "", "with unix sockets to the outside");
const SHELL_JOB: Flag = switch("shell-job", "", "with a session or terminal of the outside");
const LOCKS: Flag = switch("file-locks", "", "with locks of files");
const CGROUPS: Flag = valued(
    "manage-cgroups-mode",
    "",
    "soft|full|strict|ignore",
    "what is kept of cgroups",
);
const EMPTY: Flag = valued(
    "empty-ns",
    "",
    "network",
    "keep the namespace, not what is in it",
);
const DEDUP: Flag = switch("auto-dedup", "", "take what is restored out of the images");
const LAZY: Flag = switch("lazy-pages", "", "pages on demand");

pub(super) const CHECKPOINT_FLAGS: [Flag; 17] = [
    IMAGES,
    WORK,
    TCP,
    UNIX,
    SHELL_JOB,
    LOCKS,
    CGROUPS,
    EMPTY,
    DEDUP,
    LAZY,
    valued(
        "parent-path",
        "",
        "path",
        "the images before, relative to these",
    ),
    switch("leave-running", "", "do not end the container"),
    switch(
        "tcp-skip-in-flight",
        "",
        "without TCP connections that are not accepted yet",
    ),
    switch("link-remap", "", "with files that have no name any more"),
    valued(
        "status-fd",
        "",
        "fd",
        "gets a zero byte when the pages can be asked for",
    ),
    valued("page-server", "", "address:port", "who gets the pages"),
    switch("pre-dump", "", "memory only; the container goes on"),
];

pub(super) const RESTORE_FLAGS: [Flag; 19] = [
    IMAGES,
    WORK,
    TCP,
    UNIX,
    SHELL_JOB,
    LOCKS,
    CGROUPS,
    EMPTY,
    DEDUP,
    LAZY,
    BUNDLE,
    CONSOLE,
    PIDFD,
    PID_FILE,
    DETACH,
    NO_SUBREAPER,
    super::CONFIG,
    valued(
        "lsm-profile",
        "",
        "type:label",
        "another AppArmor profile or SELinux label",
    ),
    valued(
        "lsm-mount-context",
        "",
        "label",
        "another SELinux label of mounts",
    ),
];

pub(super) fn checkpoint(invocation: &Invocation) -> Result<u8> {
    sealed::ensure()?;
    let arguments = &invocation.arguments;
    let known = invocation.store.find(invocation.id()?)?;
    match known.status()? {
        Status::Running | Status::Paused => {}
        status => {
            let status = status.as_str();
            return Err(Error::State(
                format!("cannot checkpoint a container that is {status}").into(),
            ));
        }
    }
    let criu = Criu::find(invocation.criu.as_deref())?;
    let asked = Checkpoint {
        options: options(arguments)?,
        leave_running: arguments.has("leave-running"),
        pre_dump: arguments.has("pre-dump"),
        parent: arguments.value("parent-path").map(str::to_owned),
        tcp_skip_in_flight: arguments.has("tcp-skip-in-flight"),
        link_remap: arguments.has("link-remap"),
        page_server: arguments
            .value("page-server")
            .map(page_server)
            .transpose()?,
        status: status_fd(arguments)?,
    };
    if let Some(parent) = &asked.parent {
        let relative =
            !Path::new(parent).is_absolute() && asked.options.images.join(parent).is_dir();
        if !relative {
            return Err(Error::invalid(format!(
                "--parent-path {parent:?} is no directory relative to the images"
            )));
        }
    }
    let subject = Subject {
        pid: known.record.pid,
        spec: &known.spec,
        rootfs: &known.record.rootfs,
        cgroup: &known.cgroup()?,
        leaves_network: false,
    };
    make_images(&criu, &subject, &asked)?;
    if !asked.leave_running && !asked.pre_dump {
        destroy(&known, &invocation.log)?;
    }
    Ok(0)
}

fn options(arguments: &Arguments) -> Result<Options> {
    let absolute = |path: &str| {
        std::path::absolute(path)
            .call(|| "getcwd")
            .doing("finding the images")
    };
    Ok(Options {
        images: absolute(arguments.value("image-path").unwrap_or("checkpoint"))?,
        work: arguments.value("work-path").map(absolute).transpose()?,
        tcp_established: arguments.has("tcp-established"),
        ext_unix_sk: arguments.has("ext-unix-sk"),
        shell_job: arguments.has("shell-job"),
        file_locks: arguments.has("file-locks"),
        auto_dedup: arguments.has("auto-dedup"),
        lazy_pages: arguments.has("lazy-pages"),
        cgroups: match arguments.value("manage-cgroups-mode") {
            None | Some("") => None,
            Some("soft") => Some(CgroupMode::Soft),
            Some("full") => Some(CgroupMode::Full),
            Some("strict") => Some(CgroupMode::Strict),
            Some("ignore") => Some(CgroupMode::Ignore),
            Some(other) => {
                return Err(Error::invalid(format!(
                    "invalid value {other:?} for -manage-cgroups-mode"
                )));
            }
        },
        empty_network: match arguments.value("empty-ns") {
            None => false,
            Some("network") => true,
            Some(other) => return Err(Error::unsupported(format!("--empty-ns {other}"))),
        },
    })
}

fn page_server(text: &str) -> Result<(String, u16)> {
    let invalid = || Error::invalid(format!("--page-server {text:?} is not address:port"));
    let (address, port) = text.rsplit_once(':').ok_or_else(invalid)?;
    let port = port
        .parse()
        .ok()
        .filter(|&port| port != 0)
        .ok_or_else(invalid)?;
    if address.is_empty() {
        return Err(invalid());
    }
    Ok((address.to_owned(), port))
}

/// The descriptor that the caller has left open for us, by another number.
fn status_fd(arguments: &Arguments) -> Result<Option<OwnedFd>> {
    let Some(number) = arguments.number::<u32>("status-fd")? else {
        return Ok(None);
    };
    let doing = || format!("opening --status-fd {number}");
    let path = PathBuf::from(format!("/proc/self/fd/{number}"));
    let file = std::fs::OpenOptions::new().write(true).open(&path);
    let file: OwnedFd = file
        .call(|| format!("open({path:?})"))
        .doing_with(doing)?
        .into();
    let flags = fcntl_getfl(&file)
        .call(|| "fcntl(F_GETFL)")
        .doing_with(doing)?;
    if flags.contains(OFlags::WRONLY) || flags.contains(OFlags::RDWR) {
        return Ok(Some(file));
    }
    Err(Error::invalid(format!(
        "--status-fd {number} is not to be written to"
    )))
}

pub(super) fn restore(invocation: &Invocation) -> Result<u8> {
    sealed::ensure()?;
    let detached = invocation.arguments.has("detach");
    let criu = Criu::find(invocation.criu.as_deref())?;
    let options = options(&invocation.arguments)?;
    let new = New::prepare(invocation, detached)?;
    let foreground = if detached {
        Ok(None)
    } else {
        Foreground::prepare().map(Some)
    };
    let made = foreground.and_then(|foreground| {
        let child = restore_new(&criu, invocation, &options, &new)?;
        Ok((foreground, child))
    });
    let (foreground, child) =
        made.map_err(|error| error.undone(invocation.store.forget(new.id)))?;
    let Some(foreground) = foreground else {
        return Ok(0);
    };
    let code = foreground.attend(child.pid, child.pidfd.as_fd(), None)?;
    destroy(&invocation.store.find(new.id)?, &invocation.log)?;
    Ok(code)
}

/// Restores a container whose id is reserved, and puts it on record.
fn restore_new(
    criu: &Criu,
    invocation: &Invocation,
    options: &Options,
    new: &New<'_>,
) -> Result<Child> {
    let linux = new.spec.linux.as_ref();
    let resources = linux.and_then(|linux| linux.resources.as_ref());
    let wanted = Wanted {
        id: new.id,
        path: linux.and_then(|linux| linux.cgroups_path.as_deref()),
        manager: invocation.cgroup_manager,
        resources,
        annotations: &new.spec.annotations,
        rootless: invocation.rootless,
    };
    let mut cgroup = Cgroup::create(&wanted)?;
    let wanted = linux.and_then(|linux| linux.intel_rdt.as_ref());
    let resctrl = wanted.map(|wanted| Resctrl::create(new.id, wanted));
    let resctrl = resctrl
        .transpose()
        .map_err(|error| error.undone(cgroup.destroy()))?;
    let restored = restore_in(criu, invocation, options, new, &cgroup, resctrl.as_ref());
    let recorded = restored.and_then(|child| {
        let recorded = cgroup.settle(resources).and_then(|()| {
            new.record(invocation, &child, &cgroup, None)?;
            new.note_time_namespace(child.pid)
        });
        match recorded {
            Ok(()) => Ok(child),
            Err(error) => Err(error.undone(end(&child))),
        }
    });
    recorded.map_err(|error| {
        let undone = cgroup.kill().and_then(|()| cgroup.destroy());
        error.undone(undone.and(resctrl.as_ref().map_or(Ok(()), Resctrl::destroy)))
    })
}

fn restore_in(
    criu: &Criu,
    invocation: &Invocation,
    options: &Options,
    new: &New<'_>,
    cgroup: &Cgroup,
    resctrl: Option<&Resctrl>,
) -> Result<Child> {
    let arguments = &invocation.arguments;
    let mut entry = cgroup.entry()?;
    if let Some(resctrl) = resctrl {
        entry.add(resctrl.tasks()?);
    }
    let asked = Restore {
        options,
        id: new.id,
        bundle: &new.bundle,
        spec: &new.spec,
        rootfs: Rootfs::Path,
        cgroup,
        entry: &entry,
        lsm_profile: arguments.value("lsm-profile"),
        lsm_mount_context: arguments.value("lsm-mount-context"),
        console: arguments.value("console-socket").map(Path::new),
        streams: [stdin(), stdout(), stderr()],
        network: None,
    };
    criu_restore(criu, &asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        assert_eq!(page_server("10.0.0.1:27").unwrap(), ("10.0.0.1".into(), 27));
        assert_eq!(page_server("::1:27").unwrap(), ("::1".into(), 27));
        for bad in ["", ":1", "a", "a:", "a:0", "a:99999", "a:b"] {
            assert!(page_server(bad).is_err(), "{bad}");
        }
    }
}
