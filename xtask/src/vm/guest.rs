//! The guest's side of a run: `xtask vm-guest /payload`, which the image's service starts.

use super::image::USER;
use super::machine::PORT;
use super::payload::TOOLS;
use super::plan::{Line, PLAN_FILE, Plan, ROOTLESS, SKIPPED, SUITE_TIMEOUT, Suite};
use crate::{Result, strays};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often a suite that says nothing is looked after.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// As long as what ended suites have left in the pipe is read: a process that outlives its test holds it open.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the plan and tells the host.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [payload] = arguments else {
        return Err("vm-guest takes the payload's directory".to_owned());
    };
    let payload = Path::new(payload);
    let path = payload.join(PLAN_FILE);
    let text = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let plan: Plan = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    std::fs::create_dir_all(&plan.workspace)
        .map_err(|error| format!("{}: {error}", plan.workspace.display()))?;
    rustix::mount::mount_bind(payload, &plan.workspace)
        .map_err(|errno| format!("mounting the payload: {errno}"))?;
    let port = Path::new("/dev/virtio-ports").join(PORT);
    let port = File::options().write(true).open(&port);
    let mut host = Host {
        port: port.map_err(|error| format!("{PORT}: {error}"))?,
    };
    strays::adopt()?;
    for suite in &plan.suites {
        host.say(&Line::Begin {
            suite: suite.name.clone(),
        })?;
        let filter = plan.filter.as_deref();
        let failure = run_suite(suite, &plan.workspace, filter, &mut host)?;
        host.say(&Line::End {
            suite: suite.name.clone(),
            failure,
        })?;
    }
    host.say(&Line::Done)
}

/// The way to the host.
#[derive(Debug)]
struct Host {
    port: File,
}

impl Host {
    fn say(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_vec(line).map_err(|error| error.to_string())?;
        text.push(b'\n');
        self.port
            .write_all(&text)
            .map_err(|error| format!("{PORT}: {error}"))
    }
}

/// Runs one test program; why it failed, if it did.
fn run_suite(
    suite: &Suite,
    workspace: &Path,
    filter: Option<&str>,
    host: &mut Host,
) -> Result<Option<String>> {
    let mut command = command(suite);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = [workspace.join(TOOLS)]
        .into_iter()
        .chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(directories) {
        command.env("PATH", path);
    }
    // What is ignored elsewhere needs a host as this machine.
    command.args(filter).arg("--include-ignored");
    for (_, test, _) in SKIPPED.iter().filter(|(name, ..)| *name == suite.name) {
        command.args(["--skip", test]);
    }
    let started = std::io::pipe().and_then(|(ours, theirs)| {
        command
            .stdin(Stdio::null())
            .stdout(theirs.try_clone()?)
            .stderr(theirs)
            .current_dir(&suite.directory)
            .process_group(0);
        let child = command.spawn()?;
        // With the command go this process's copies of the pipe's other end.
        drop(command);
        Ok((child, listen(ours)))
    });
    let (mut child, lines) = match started {
        Ok(started) => started,
        Err(error) => return Ok(Some(format!("{}: {error}", suite.program.display()))),
    };
    let ended = attend(&mut child, &lines, host)?;
    let left = strays::end();
    Ok(match ended {
        Some(status) if status.success() => left.err(),
        Some(status) => Some(status.to_string()),
        None => Some(format!("not done in {} seconds", SUITE_TIMEOUT.as_secs())),
    })
}

/// As root the program itself, else a service of the ordinary user's own systemd, with a cgroup delegated to it.
fn command(suite: &Suite) -> Command {
    if !ROOTLESS.contains(&suite.name.as_str()) {
        return Command::new(&suite.program);
    }
    let mut command = Command::new("systemd-run");
    command
        .arg(format!("--machine={USER}@"))
        .args(["--user", "--quiet", "--wait", "--pipe", "--collect"])
        .args(["--same-dir", "--property=Delegate=yes"])
        .arg(format!(
            "--property=RuntimeMaxSec={}",
            SUITE_TIMEOUT.as_secs()
        ))
        .arg("--")
        .arg(&suite.program);
    command
}

fn listen(output: PipeReader) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output)
            .split(b'\n')
            .map_while(|line| line.ok())
        {
            let line = String::from_utf8_lossy(&line).into_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Passes on what the suite writes until it ends; nothing when it had to be killed.
fn attend(
    child: &mut Child,
    lines: &Receiver<String>,
    host: &mut Host,
) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + SUITE_TIMEOUT;
    loop {
        match lines.recv_timeout(POLL_INTERVAL) {
            Ok(text) => host.say(&Line::Output { text })?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(POLL_INTERVAL),
        }
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            while let Ok(text) = lines.recv_timeout(DRAIN_TIMEOUT) {
                host.say(&Line::Output { text })?;
            }
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let Some(group) = group {
                // Fails only when everything in it has ended.
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait().map_err(|error| error.to_string())?;
            return Ok(None);
        }
    }
}
