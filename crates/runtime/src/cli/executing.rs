//! Execution in a running container.

use super::arguments::{Arguments, Flag, switch, valued};
use super::foreground::Foreground;
use super::streams::{check_console, hand_out, preserved};
use super::{CONSOLE, DETACH, Invocation, NO_SUBREAPER, PID_FILE, PIDFD, PRESERVE};
use crate::api::{ExecRequest, Stdio, Target};
use crate::cgroup::SubCgroup;
use crate::error::{Error, Result};
use crate::state::{Known, read_bytes};
use crate::{exec as execute, sealed};
use oci::runtime::Process;
use rustix::process::Pid;
use std::os::fd::AsFd;
use std::path::Path;

pub(super) const FLAGS: [Flag; 18] = [
    CONSOLE,
    PIDFD,
    PID_FILE,
    PRESERVE,
    DETACH,
    valued("cwd", "", "path", "working directory"),
    valued(
        "env",
        "e",
        "NAME=value",
        "variable, can be given more than once",
    ),
    switch("tty", "t", "a terminal"),
    valued("user", "u", "uid[:gid]", "user and group"),
    valued(
        "additional-gids",
        "g",
        "gid",
        "further group, can be given more than once",
    ),
    valued(
        "process",
        "p",
        "path",
        "file with the process, instead of words and other flags",
    ),
    valued("process-label", "", "label", "SELinux label"),
    valued("apparmor", "", "profile", "AppArmor profile"),
    switch("no-new-privs", "", "never grant privileges by execve"),
    valued(
        "cap",
        "c",
        "CAP_X",
        "further capability, can be given more than once",
    ),
    valued(
        "cgroup",
        "",
        "[controller,...:]path",
        "cgroup below the container's, with controllers once for each",
    ),
    switch("ignore-paused", "", "also in a paused container"),
    NO_SUBREAPER,
];

pub(super) fn exec(invocation: &Invocation) -> Result<u8> {
    sealed::ensure()?;
    let arguments = &invocation.arguments;
    let sub_cgroups = sub_cgroups(arguments)?;
    let known = invocation.store.find(invocation.id()?)?;
    let stopped = || Error::State("cannot exec in a stopped container".into());
    let init = known.init()?.ok_or_else(stopped)?;
    let (preserve_fds, variables) = preserved(invocation)?;
    let mut process = process(&known, invocation)?;
    process.env.extend(variables);
    let detached = arguments.has("detach");
    check_console(invocation, process.terminal, detached)?;
    let stdio = if process.terminal {
        Stdio::Terminal
    } else {
        Stdio::Inherit
    };
    let cgroup = known.cgroup()?;
    let target = Target {
        id: &known.record.id,
        bundle: &known.record.bundle,
        init: Pid::from_raw(known.record.pid).ok_or_else(|| Error::invalid("init has no id"))?,
        pidfd: init.as_fd(),
        cgroup: &cgroup,
        spec: &known.spec,
    };
    let foreground = if detached {
        None
    } else {
        Some(Foreground::prepare()?)
    };
    let request = ExecRequest {
        preserve_fds,
        ignore_paused: arguments.has("ignore-paused"),
        sub_cgroups: &sub_cgroups,
        ..ExecRequest::new(&process, stdio)
    };
    let mut executed = execute(&target, request)?;
    for warning in &executed.warnings {
        invocation.log.warning(warning);
    }
    let socket = arguments.value("console-socket").is_some();
    let terminal = if socket {
        executed.terminal.take()
    } else {
        None
    };
    hand_out(
        invocation,
        executed.pid,
        executed.pidfd.as_fd(),
        terminal.as_ref(),
    )?;
    match foreground {
        Some(foreground) => foreground.attend(
            executed.pid,
            executed.pidfd.as_fd(),
            executed.terminal.take(),
        ),
        None => Ok(0),
    }
}

/// The process of the file, or of the container with what flags and words change.
fn process(known: &Known, invocation: &Invocation) -> Result<Process> {
    let arguments = &invocation.arguments;
    if let Some(path) = arguments.value("process") {
        let text = read_bytes(Path::new(path))?
            .ok_or_else(|| Error::invalid(format!("there is no {path}")))?;
        return serde_json::from_slice(&text).map_err(|source| Error::Json {
            doing: format!("reading {path}").into(),
            source,
        });
    }
    if invocation.rest.is_empty() {
        return Err(Error::invalid(
            "exec needs a command, or a process by --process",
        ));
    }
    let mut process = known.spec.process.clone().unwrap_or_default();
    process.args.clone_from(&invocation.rest);
    process.terminal = arguments.has("tty");
    process
        .env
        .extend(arguments.values("env").map(str::to_owned));
    if let Some(cwd) = arguments.value("cwd") {
        process.cwd = cwd.into();
    }
    if let Some(label) = arguments.value("process-label") {
        process.selinux_label = Some(label.into());
    }
    if let Some(profile) = arguments.value("apparmor") {
        process.apparmor_profile = Some(profile.into());
    }
    process.no_new_privileges |= arguments.has("no-new-privs");
    add_capabilities(&mut process, arguments);
    if let Some(user) = arguments.value("user") {
        let (uid, gid) = user_of(user)?;
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    for gid in arguments.values("additional-gids") {
        process.user.additional_gids.push(id(gid)?);
    }
    Ok(process)
}

/// Adds to all sets but the inheritable one (attack 9); to the ambient one only where the container's own has any.
fn add_capabilities(process: &mut Process, arguments: &Arguments) {
    for name in arguments.values("cap") {
        let sets = process.capabilities.get_or_insert_default();
        let ambient = !sets.ambient.is_empty();
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.push(name.to_owned());
        }
        if ambient && sets.inheritable.iter().any(|known| known == name) {
            sets.ambient.push(name.to_owned());
        }
    }
}

/// One path, or some with the controllers that they are of.
fn sub_cgroups(arguments: &Arguments) -> Result<Vec<SubCgroup>> {
    let mut found: Vec<SubCgroup> = Vec::new();
    let all: Vec<_> = arguments.values("cgroup").collect();
    for text in &all {
        let invalid = |what: &str| Error::invalid(format!("invalid --cgroup {text:?}: {what}"));
        let Some((controllers, path)) = text.split_once(':') else {
            if all.len() > 1 {
                return Err(invalid("a controller is missing"));
            }
            found.push(SubCgroup {
                controller: None,
                path: (*text).to_owned(),
            });
            continue;
        };
        for name in controllers.split(',') {
            if name.is_empty() {
                return Err(invalid("an empty controller"));
            }
            let controller = Some(name.to_owned());
            if found.iter().any(|other| other.controller == controller) {
                return Err(invalid("a controller twice"));
            }
            found.push(SubCgroup {
                controller,
                path: path.to_owned(),
            });
        }
    }
    Ok(found)
}

/// `uid` or `uid:gid`: digits, nothing else (attack 18).
fn user_of(text: &str) -> Result<(u32, Option<u32>)> {
    match text.split_once(':') {
        None => Ok((id(text)?, None)),
        Some((uid, gid)) => Ok((id(uid)?, Some(id(gid)?))),
    }
}

fn id(text: &str) -> Result<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text
        .parse()
        .ok()
        .filter(|&id: &u32| digits && id != u32::MAX);
    number.ok_or_else(|| Error::invalid(format!("{text:?} is no user or group id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_18_a_user_is_plain_numbers() {
        assert_eq!(user_of("0").unwrap(), (0, None));
        assert_eq!(user_of("1000:50").unwrap(), (1000, Some(50)));
        for bad in [
            "",
            ":",
            "1:",
            ":1",
            "+1",
            "-1",
            "1:2:3",
            "root",
            "4294967295",
            "4294967296",
            " 1",
            "1\n",
        ] {
            assert!(user_of(bad).is_err(), "{bad:?}");
        }
    }
}
