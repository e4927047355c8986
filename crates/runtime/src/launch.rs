//! From a prepared root to the container's program: the last steps, the same for a container's first process and for one
//! executed in it later.
//!
//! Order matters. Limits and labels need rights, the user's groups need its root, a system call filter needs
//! `CAP_SYS_ADMIN` (or no_new_privs) and should see as few of our own calls as possible; so the change of user keeps the
//! capabilities, and the last three calls are: load the filter, drop the capabilities, execute.
//!
//! Invariants: the working directory is inside the root (attack 12); every descriptor but the standard ones, and those the
//! caller preserves, is closed by the execution (attacks 1 and 12); errors about the program read as Docker's users know them.

use crate::capabilities::Sets;
use crate::channel::{Channel, Message, send_with_fds};
use crate::error::{Doing, Error, Result};
use crate::limits::Limits;
use crate::lsm::{self, ExecLabel};
use crate::procfs::Procfs;
use crate::seccomp::Filter;
use crate::sockets::connect;
use crate::stdio;
use crate::user::{self, User};
use oci::runtime::{Capabilities, ContainerProcessState, Process, Seccomp, Spec, State, VERSION};
use rustix::fs::{Access, AtFlags, CWD, FileType, Gid, Mode, Uid, accessat, stat};
use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::process::{Pid, chdir, getcwd, umask};
use rustix::thread::{
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use sys::Context;
use sys::process::{CloseRange, close_from};
use sys::root::Root;

/// As many arguments and variables as are taken; the kernel bounds their bytes.
const STRINGS_MAX: usize = 1 << 20;
const UMASK_DEFAULT: u32 = 0o022;

/// A process to launch, checked.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    process: &'a Process,
    user: Option<&'a str>,
    group_add: &'a [String],
    preserve_fds: u32,
    /// Whether the container has a user namespace.
    users: bool,
    limits: Limits,
    capabilities: Sets,
    filter: Option<Filter>,
    /// Connected to the seccomp listener.
    listener: Option<OwnedFd>,
    metadata: Option<&'a str>,
}

/// The process's user, given apart from its configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Overrides<'a> {
    pub(crate) user: Option<&'a str>,
    pub(crate) group_add: &'a [String],
    pub(crate) preserve_fds: u32,
}

impl<'a> Launch<'a> {
    /// Checks a process. `first` is whether it is the container's first; `users` whether that has a user namespace.
    /// Capabilities that cannot be had are told in `missing`.
    pub(crate) fn prepare(
        spec: &'a Spec,
        process: &'a Process,
        overrides: Overrides<'a>,
        first: bool,
        users: bool,
        missing: &mut Vec<String>,
    ) -> Result<Self> {
        if process.args.first().is_none_or(String::is_empty) {
            return Err(Error::invalid("the process has no program"));
        }
        if !process.cwd.is_absolute() {
            return Err(Error::invalid(format!(
                "the working directory {:?} is not absolute",
                process.cwd
            )));
        }
        if process.args.len() + process.env.len() > STRINGS_MAX {
            return Err(Error::invalid(format!(
                "more than {STRINGS_MAX} arguments and variables"
            )));
        }
        let ids = [process.user.uid, process.user.gid];
        let mut ids = ids.iter().chain(&process.user.additional_gids);
        if ids.any(|&id| id == u32::MAX) {
            // To the kernel it means "stay who you are", which is root (attack 2).
            return Err(Error::invalid(format!(
                "{} is no user or group id",
                u32::MAX
            )));
        }
        if let Some((module, label)) = lsm::wanted(process)?
            && !module.enabled()
        {
            return Err(Error::unsupported(format!(
                "the label {label:?}: the host has no {module:?}"
            )));
        }
        let none = Capabilities::default();
        let capabilities = process.capabilities.as_ref().unwrap_or(&none);
        let linux = spec.linux.as_ref();
        let seccomp = linux.and_then(|linux| linux.seccomp.as_ref());
        let filter = seccomp.map(Filter::compile).transpose()?;
        let notifies = filter.as_ref().is_some_and(Filter::notifies);
        Ok(Self {
            process,
            user: overrides.user,
            group_add: overrides.group_add,
            preserve_fds: overrides.preserve_fds,
            users,
            limits: Limits::parse(process, linux.filter(|_| first))?,
            capabilities: Sets::parse(capabilities, users, missing)?,
            filter,
            listener: seccomp.filter(|_| notifies).map(listener).transpose()?,
            metadata: seccomp.and_then(|seccomp| seccomp.listener_metadata.as_deref()),
        })
    }

    /// Gives a process what takes rights outside of its user namespace: another, named by its id, or the calling one.
    pub(crate) fn give_from_outside(&self, pid: Option<Pid>, procfs: &Procfs) -> Result<()> {
        match pid {
            Some(pid) => self
                .limits
                .score(procfs, &pid.as_raw_nonzero().to_string())?,
            None => self.limits.score(procfs, "self")?,
        }
        if self.users {
            self.limits.raise(pid)
        } else {
            Ok(())
        }
    }

    /// The label of the calling process's next execution.
    pub(crate) fn label(&self, procfs: &Procfs) -> Result<Option<ExecLabel>> {
        ExecLabel::prepare(procfs, self.process)
    }

    /// Turns the calling process, in the container's root with all rights, into the user's, and finds its program.
    pub(crate) fn become_user(&self, root: &Root, label: Option<ExecLabel>) -> Result<Ready> {
        let process = self.process;
        let user = self.find_user(root)?;
        self.limits.apply()?;
        stdio::replace_null(root)?;
        stdio::give_to(user.uid)?;
        self.capabilities.limit()?;
        // A directory that the user may not enter can still be where it starts.
        let entered = match enter_directory(&process.cwd) {
            Err(Error::System { source, .. })
                if matches!(source.errno, Errno::ACCESS | Errno::PERM) =>
            {
                false
            }
            result => result.map(|()| true)?,
        };
        change_user(&user, self.users)?;
        self.capabilities.apply_for_now()?;
        if !entered {
            enter_directory(&process.cwd)?;
        }
        umask(Mode::from_raw_mode(
            process.user.umask.unwrap_or(UMASK_DEFAULT),
        ));
        if process.no_new_privileges {
            set_no_new_privs(true)
                .call(|| "prctl(PR_SET_NO_NEW_PRIVS)")
                .doing("forbidding new privileges")?;
        }
        let mut environment = environment(&process.env)?;
        if !process
            .env
            .iter()
            .any(|variable| variable.starts_with("HOME="))
        {
            let home = user.home.as_deref().unwrap_or("/");
            environment.push(string(&format!("HOME={home}"), "an environment variable")?);
        }
        let name = &process.args[0];
        let path = process
            .env
            .iter()
            .rev()
            .find_map(|variable| variable.strip_prefix("PATH="));
        Ok(Ready {
            program: find_program(name, path.unwrap_or_default())?,
            arguments: strings(&process.args, "an argument")?,
            environment,
            label,
        })
    }

    fn find_user(&self, root: &Root) -> Result<User> {
        if let Some(spec) = self.user {
            return user::resolve(root, spec, self.group_add);
        }
        let oci::runtime::User {
            uid,
            gid,
            additional_gids,
            ..
        } = &self.process.user;
        let home = if self
            .process
            .env
            .iter()
            .any(|variable| variable.starts_with("HOME="))
        {
            None
        } else {
            user::home_of(root, *uid)?
        };
        Ok(User {
            uid: *uid,
            gid: *gid,
            additional_gids: additional_gids.clone(),
            home,
        })
    }

    /// Executes the program. Returns only with an error.
    pub(crate) fn execute(
        &self,
        ready: &Ready,
        channel: &Channel,
        state: impl FnOnce() -> Result<State>,
    ) -> Error {
        match self.confine(ready, channel, state) {
            Ok(()) => {
                let Ready {
                    program,
                    arguments,
                    environment,
                    ..
                } = ready;
                exec_error(
                    &self.process.args[0],
                    sys::process::exec(program, arguments, environment),
                )
            }
            Err(error) => error,
        }
    }

    fn confine(
        &self,
        ready: &Ready,
        channel: &Channel,
        state: impl FnOnce() -> Result<State>,
    ) -> Result<()> {
        // Built before a filter is in force.
        let document = match &self.listener {
            Some(_) => Some(self.notify_document(state()?)?),
            None => None,
        };
        close_from(3 + self.preserve_fds, CloseRange::OnExec).doing("closing descriptors")?;
        channel.send(&Message::Executing)?;
        if let Some(label) = &ready.label {
            label.apply()?;
        }
        let Some(filter) = &self.filter else {
            return self.capabilities.apply();
        };
        if self.process.no_new_privileges {
            self.capabilities.apply()?;
            self.load(filter, document)
        } else {
            self.load(filter, document)?;
            self.capabilities.apply()
        }
    }

    fn notify_document(&self, state: State) -> Result<Vec<u8>> {
        let document = ContainerProcessState {
            oci_version: VERSION.into(),
            fds: vec!["seccompFd".into()],
            pid: state.pid,
            metadata: self.metadata.map(str::to_owned),
            state,
        };
        serde_json::to_vec(&document).map_err(|source| Error::Json {
            doing: "writing the state for the seccomp listener".into(),
            source,
        })
    }

    fn load(&self, filter: &Filter, document: Option<Vec<u8>>) -> Result<()> {
        let notify = filter.load()?;
        if let (Some(listener), Some(document), Some(notify)) = (&self.listener, document, notify) {
            send_with_fds(listener.as_fd(), &document, &[notify.as_fd()])
                .doing("sending the seccomp notify descriptor")?;
        }
        Ok(())
    }

    /// Puts the process's own capabilities in force in a process that stays with it.
    pub(crate) fn drop_capabilities(&self) -> Result<()> {
        self.capabilities.apply()
    }
}

/// A program found, with everything it is executed with.
#[derive(Debug)]
pub(crate) struct Ready {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    label: Option<ExecLabel>,
}

impl Ready {
    /// Sets the label of the next execution now: nobody can set it for another, and a child has its parent's.
    pub(crate) fn apply_label(&mut self) -> Result<()> {
        self.label.take().map_or(Ok(()), |label| label.apply())
    }
}

fn listener(seccomp: &Seccomp) -> Result<OwnedFd> {
    let path = seccomp.listener_path.as_deref().unwrap_or(Path::new(""));
    connect(path, SocketType::STREAM)
}

fn enter_directory(path: &Path) -> Result<()> {
    let doing = || format!("entering the working directory {}", path.display());
    chdir(path)
        .call(|| format!("chdir({path:?})"))
        .doing_with(doing)?;
    // A link to a descriptor that was open outside would lead out: the kernel then says `(unreachable)`.
    let found = getcwd(Vec::new()).call(|| "getcwd").doing_with(doing)?;
    if found.as_bytes().first() == Some(&b'/') {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the working directory {} is outside the root",
        path.display()
    )))
}

fn change_user(user: &User, users: bool) -> Result<()> {
    let doing = || format!("becoming user {}:{}", user.uid, user.gid);
    let groups: Vec<_> = user
        .additional_gids
        .iter()
        .map(|&gid| Gid::from_raw(gid))
        .collect();
    match set_thread_groups(&groups) {
        // A user namespace of an ordinary user's own group alone takes no groups away either (user_namespaces(7)).
        Err(Errno::PERM) if users && groups.is_empty() => {}
        result => result
            .call(|| format!("setgroups({groups:?})"))
            .doing_with(doing)?,
    }
    let gid = Gid::from_raw(user.gid);
    set_thread_res_gid(gid, gid, gid)
        .call(|| format!("setresgid({gid:?})"))
        .doing_with(doing)?;
    set_keep_capabilities(true)
        .call(|| "prctl(PR_SET_KEEPCAPS, 1)")
        .doing_with(doing)?;
    let uid = Uid::from_raw(user.uid);
    set_thread_res_uid(uid, uid, uid)
        .call(|| format!("setresuid({uid:?})"))
        .doing_with(doing)
}

/// The variables, each once: one that is given again takes the place of the former. Programs that look for a variable find
/// the first of that name, and callers append what is to count.
fn environment(variables: &[String]) -> Result<Vec<CString>> {
    let mut places = HashMap::new();
    let mut found: Vec<CString> = Vec::new();
    for variable in variables {
        let name = variable
            .split_once('=')
            .map_or(&**variable, |(name, _)| name);
        let text = string(variable, "an environment variable")?;
        match places.entry(name) {
            Entry::Occupied(place) => found[*place.get()] = text,
            Entry::Vacant(place) => {
                place.insert(found.len());
                found.push(text);
            }
        }
    }
    Ok(found)
}

fn strings(texts: &[String], what: &str) -> Result<Vec<CString>> {
    texts.iter().map(|text| string(text, what)).collect()
}

fn string(text: &str, what: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid(format!("{what} has a zero byte")))
}

/// The program that a name means, as execvp(3) and Docker's messages have it.
fn find_program(name: &str, path: &str) -> Result<CString> {
    let program = name.to_owned();
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => string(name, "the program"),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Error::NoProgram { program }),
            Err(errno) => Err(not_executable(name, errno)),
        };
    }
    for directory in path.split(':') {
        // An empty part is the working directory.
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{directory}/{name}");
        if executable(&candidate).is_ok() {
            return string(&candidate, "the program");
        }
    }
    Err(Error::NotInPath { program })
}

fn executable(path: &str) -> rustix::io::Result<()> {
    match FileType::from_raw_mode(stat(path)?.st_mode) {
        FileType::RegularFile => accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::ACCESS),
    }
}

fn not_executable(name: &str, errno: Errno) -> Error {
    let reason = match errno {
        Errno::ACCESS | Errno::PERM => "permission denied".into(),
        Errno::ISDIR => "is a directory".into(),
        Errno::NOEXEC => "exec format error".into(),
        other => other.to_string(),
    };
    Error::NotExecutable {
        program: name.to_owned(),
        reason,
    }
}

/// What a failed execve says of a program that was found: its interpreter may be missing.
fn exec_error(name: &str, error: sys::Error) -> Error {
    match error.errno {
        Errno::NOENT | Errno::NOTDIR => Error::NoProgram {
            program: name.to_owned(),
        },
        Errno::ACCESS | Errno::PERM | Errno::ISDIR | Errno::NOEXEC => {
            not_executable(name, error.errno)
        }
        _ => Error::System {
            doing: format!("executing {name:?}").into(),
            source: error,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn errors_about_programs_read_as_dockers() {
        let cases = [
            (
                "foo",
                "exec: \"foo\": executable file not found in $PATH",
                ErrorKind::NotFound,
            ),
            (
                "/etc/passwd",
                "exec: \"/etc/passwd\": permission denied",
                ErrorKind::NotExecutable,
            ),
            (
                "/etc",
                "exec: \"/etc\": is a directory",
                ErrorKind::NotExecutable,
            ),
            (
                "/nope",
                "exec: \"/nope\": stat /nope: no such file or directory",
                ErrorKind::NotFound,
            ),
        ];
        for (name, text, kind) in cases {
            let error = find_program(name, "/nonexistent:/etc").unwrap_err();
            assert_eq!((error.to_string().as_str(), error.kind()), (text, kind));
        }
    }

    #[test]
    fn a_name_is_found_in_path_and_an_empty_path_has_none() {
        assert_eq!(
            find_program("sh", "/nonexistent:/bin").unwrap().as_c_str(),
            c"/bin/sh"
        );
        assert!(find_program("sh", "").is_err());
    }

    #[test]
    fn of_variables_of_one_name_the_last_counts_at_the_place_of_the_first() {
        let given = ["A=1", "B=2", "A=3", "C", "B=", "C=4"].map(str::to_owned);
        let found = environment(&given).unwrap();
        assert_eq!(
            found,
            [c"A=3".to_owned(), c"B=".to_owned(), c"C=4".to_owned()]
        );
    }

    #[test]
    fn zero_bytes_are_refused() {
        assert!(strings(&["a\0b".into()], "an argument").is_err());
    }
}
