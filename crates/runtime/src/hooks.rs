//! Programs of the configuration that run at points of a container's life.
//!
//! Invariant: a hook gets the environment of its configuration and nothing else, the state on its standard input, and no
//! descriptor of ours; one that fails or takes too long fails the operation, except after the container's end.
//! Source: config.md "POSIX-platform Hooks".

use crate::error::{Doing, Error, Result};
use oci::runtime::{Hook, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, waitpid};
use rustix::stdio::dup2_stdin;
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};
use sys::Context;
use sys::process::{Child, CloseRange, Spawn, close_from, exec, exit, spawn};

/// As many hooks of one kind as a configuration may have.
const HOOKS_MAX: usize = 1024;
/// The exit code of a hook that could not be executed, as a shell has it.
const NOT_EXECUTED: i32 = 127;

/// Runs hooks in order, until one fails.
pub(crate) fn run(kind: &str, hooks: &[Hook], state: &State) -> Result<()> {
    run_until(kind, hooks, state, Err)
}

/// Runs hooks in order, all of them; `failed` is told what fails.
pub(crate) fn run_all(kind: &str, hooks: &[Hook], state: &State, failed: impl Fn(&Error)) {
    let told = run_until(kind, hooks, state, |error| {
        failed(&error);
        Ok(())
    });
    if let Err(error) = told {
        failed(&error);
    }
}

/// Runs hooks in order, until one fails and `failed` makes an error of that.
fn run_until(
    kind: &str,
    hooks: &[Hook],
    state: &State,
    failed: impl Fn(Error) -> Result<()>,
) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    if hooks.len() > HOOKS_MAX {
        return Err(Error::invalid(format!(
            "more than {HOOKS_MAX} {kind} hooks"
        )));
    }
    let input = serde_json::to_vec(state).map_err(|source| Error::Json {
        doing: "writing the state for a hook".into(),
        source,
    })?;
    hooks
        .iter()
        .try_for_each(|hook| run_one(kind, hook, &input).or_else(&failed))
}

fn run_one(kind: &str, hook: &Hook, input: &[u8]) -> Result<()> {
    let named = || format!("running the {kind} hook {}", hook.path.display());
    if !hook.path.is_absolute() {
        return Err(Error::invalid(format!(
            "the path of the {kind} hook {:?} is not absolute",
            hook.path
        )));
    }
    let timeout = match hook.timeout {
        None => None,
        Some(seconds @ 1..) => Some(Duration::from_secs(seconds.cast_unsigned())),
        Some(seconds) => {
            return Err(Error::invalid(format!(
                "a hook's timeout of {seconds} seconds"
            )));
        }
    };
    let zero = |_| Error::invalid(format!("the {kind} hook {:?} has a zero byte", hook.path));
    let program = CString::new(hook.path.as_os_str().as_bytes()).map_err(zero)?;
    let strings = |texts: &[String]| {
        texts
            .iter()
            .map(|text| CString::new(text.as_str()).map_err(zero))
            .collect::<Result<Vec<_>>>()
    };
    let mut arguments = strings(&hook.args)?;
    if arguments.is_empty() {
        arguments.push(program.clone());
    }
    let environment = strings(&hook.env)?;
    let stdin = file_of(input).doing_with(named)?;
    let child = spawn(Spawn::default(), || {
        execute(stdin.as_fd(), &program, &arguments, &environment)
    })
    .doing_with(named)?;
    let in_time =
        wait(&child, timeout.map(|timeout| Instant::now() + timeout)).doing_with(named)?;
    let status = reap(child.pid).doing_with(named)?;
    if !in_time {
        let path = hook.path.display();
        return Err(Error::State(
            format!("the {kind} hook {path} took longer than its timeout").into(),
        ));
    }
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => Ok(()),
        (code, signal) => {
            let path = hook.path.display();
            let how = match (code, signal) {
                (Some(code), _) => format!("exited with {code}"),
                (_, Some(signal)) => format!("was killed by signal {signal}"),
                _ => "ended".into(),
            };
            Err(Error::State(format!("the {kind} hook {path} {how}").into()))
        }
    }
}

fn execute(
    stdin: BorrowedFd<'_>,
    program: &CString,
    arguments: &[CString],
    environment: &[CString],
) -> Infallible {
    let prepared = sys::signals::reset().is_ok()
        && close_from(3, CloseRange::OnExec).is_ok()
        && dup2_stdin(stdin).is_ok();
    if prepared {
        exec(program, arguments, environment);
    }
    exit(NOT_EXECUTED)
}

/// A file that reads as these bytes: unlike a pipe it never blocks the writer.
fn file_of(bytes: &[u8]) -> sys::Result<OwnedFd> {
    let file = memfd_create("state", MemfdFlags::CLOEXEC).call(|| "memfd_create(\"state\")")?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest).call(|| "write(<state>)")?;
        rest = &rest[written..];
    }
    seek(&file, SeekFrom::Start(0)).call(|| "lseek(<state>, 0)")?;
    Ok(file)
}

/// Waits until a child ends, and ends it at the deadline; whether it did by itself.
fn wait(child: &Child, deadline: Option<Instant>) -> sys::Result<bool> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(
            &mut [PollFd::new(&child.pidfd, PollFlags::IN)],
            timeout.as_ref(),
        ) {
            Ok(0) => break,
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).call(|| "poll(<pidfd>)"),
        }
    }
    match pidfd_send_signal(&child.pidfd, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(false),
        Err(errno) => Err(errno).call(|| "pidfd_send_signal(SIGKILL)"),
    }
}

/// The status of a child that has ended or is about to.
pub(crate) fn reap(pid: Pid) -> sys::Result<rustix::process::WaitStatus> {
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(status),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).call(|| format!("wait4({})", pid.as_raw_nonzero())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::runtime::Status;

    fn state() -> State {
        State {
            oci_version: "1.3.0".into(),
            id: "x".into(),
            status: Status::Creating,
            pid: 7,
            bundle: "/b".into(),
            annotations: Default::default(),
        }
    }

    fn shell(script: &str, timeout: Option<i64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["ONLY=this".into()],
            timeout,
        }
    }

    #[test]
    fn a_hook_reads_the_state_and_has_its_own_environment_only() {
        let script = r#"case "$(cat)" in *'"pid":7'*) ;; *) exit 3;; esac
            [ "$ONLY" = this ] && [ -z "$HOME" ] && [ -z "$CARGO" ]"#;
        run("prestart", &[shell(script, None)], &state()).unwrap();
    }

    #[test]
    fn where_a_failure_is_a_warning_the_others_run() {
        let tree = tempfile::tempdir().unwrap();
        let file = tree.path().join("last");
        let last = shell(&format!(": > {}", file.display()), None);
        let told = std::cell::Cell::new(0);
        run_all(
            "poststop",
            &[shell("exit 1", None), shell("exit 2", None), last],
            &state(),
            |_| told.set(told.get() + 1),
        );
        assert_eq!((told.get(), file.exists()), (2, true));
    }

    #[test]
    fn a_failing_slow_or_missing_hook_is_an_error() {
        let missing = Hook {
            path: "/nonexistent".into(),
            ..Hook::default()
        };
        let relative = Hook {
            path: "bin/true".into(),
            ..Hook::default()
        };
        let cases = [
            (shell("exit 3", None), "exited with 3"),
            (shell("kill -9 $$", None), "killed by signal 9"),
            (shell("exec sleep 60", Some(1)), "timeout"),
            (shell("true", Some(0)), "timeout of 0"),
            (missing, "exited with 127"),
            (relative, "not absolute"),
        ];
        for (hook, text) in cases {
            let error = run("poststop", &[hook], &state()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
