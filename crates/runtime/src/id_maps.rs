//! The id maps of a user namespace: written by who may, else by the programs that are allowed to on an ordinary user's behalf.
//!
//! An ordinary user may map its own id alone; the ids that `/etc/subuid` and `/etc/subgid` give it are mapped by the
//! privileged programs newuidmap and newgidmap, which check that.
//! Source: user_namespaces(7), newuidmap(1), newgidmap(1), subuid(5).

use crate::error::{Doing, Error, Result};
use crate::procfs::Procfs;
use oci::runtime::IdMapping;
use rustix::process::{Pid, getegid, geteuid};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use sys::Context;

/// As many lines as the kernel takes in a map since Linux 4.15.
const MAPPINGS_MAX: usize = 340;
/// Where the programs are, before `PATH`.
const DIRECTORIES: [&str; 3] = ["/usr/bin", "/bin", "/usr/local/bin"];

/// Users or groups.
#[derive(Debug, Clone, Copy)]
struct Kind {
    file: &'static str,
    program: &'static str,
    given_by: &'static str,
}

const USERS: Kind = Kind {
    file: "uid_map",
    program: "newuidmap",
    given_by: "/etc/subuid",
};

const GROUPS: Kind = Kind {
    file: "gid_map",
    program: "newgidmap",
    given_by: "/etc/subgid",
};

/// Writes the maps of a child's new user namespace.
pub(crate) fn write(
    procfs: &Procfs,
    pid: Pid,
    users: &[IdMapping],
    groups: &[IdMapping],
) -> Result<()> {
    write_one(procfs, pid, USERS, users, geteuid().as_raw())?;
    let own_group = getegid().as_raw();
    if !geteuid().is_root() && is_own(groups, own_group) {
        // Who could leave a group might get at what that group is denied.
        let file = format!("{}/setgroups", pid.as_raw_nonzero());
        procfs
            .write(&file, "deny")
            .doing("setting the gid_map of the user namespace")?;
    }
    write_one(procfs, pid, GROUPS, groups, own_group)
}

fn write_one(
    procfs: &Procfs,
    pid: Pid,
    kind: Kind,
    mappings: &[IdMapping],
    own: u32,
) -> Result<()> {
    if mappings.len() > MAPPINGS_MAX {
        return Err(Error::invalid(format!(
            "more than {MAPPINGS_MAX} id mappings"
        )));
    }
    if !geteuid().is_root() && !is_own(mappings, own) {
        return ask_program(pid, kind, mappings);
    }
    let mut text = String::new();
    for IdMapping {
        container_id,
        host_id,
        size,
    } in mappings
    {
        writeln!(text, "{container_id} {host_id} {size}").expect("a String takes what is written");
    }
    let file = format!("{}/{}", pid.as_raw_nonzero(), kind.file);
    procfs
        .write(&file, &text)
        .doing_with(|| format!("setting the {} of the user namespace", kind.file))
}

/// Whether only the caller's own id is mapped.
fn is_own(mappings: &[IdMapping], own: u32) -> bool {
    matches!(mappings, [IdMapping { host_id, size: 1, .. }] if *host_id == own)
}

fn ask_program(pid: Pid, kind: Kind, mappings: &[IdMapping]) -> Result<()> {
    let Kind {
        file,
        program,
        given_by,
    } = kind;
    let doing = || format!("setting the {file} of the user namespace by {program}");
    let path = find(program).ok_or_else(|| {
        Error::unsupported(format!(
            "a {file} of other ids than one's own without the program {program}, which Debian has in the package uidmap \
             and others in shadow-utils or shadow"
        ))
    })?;
    let mut command = Command::new(path);
    command.arg(pid.as_raw_nonzero().to_string());
    for mapping in mappings {
        let numbers = [mapping.container_id, mapping.host_id, mapping.size];
        command.args(numbers.map(|number| number.to_string()));
    }
    let output = command.stdin(Stdio::null()).output();
    let output = output
        .call(|| format!("execve({program:?})"))
        .doing_with(doing)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    Err(Error::State(
        format!(
            "{}: {said} (are the ids given to the user by {given_by}?)",
            doing()
        )
        .into(),
    ))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let others = std::env::split_paths(&path).filter(|directory| directory.is_absolute());
    let directories = DIRECTORIES.into_iter().map(PathBuf::from).chain(others);
    { directories }
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_id_needs_no_program() {
        let mapping = |container_id, host_id, size| IdMapping {
            container_id,
            host_id,
            size,
        };
        assert!(is_own(&[mapping(0, 1000, 1)], 1000));
        assert!(is_own(&[mapping(33, 1000, 1)], 1000));
        assert!(!is_own(&[mapping(0, 1000, 2)], 1000));
        assert!(!is_own(&[mapping(0, 1001, 1)], 1000));
        assert!(!is_own(
            &[mapping(0, 1000, 1), mapping(1, 100_000, 1)],
            1000
        ));
        assert!(!is_own(&[], 1000));
    }
}
