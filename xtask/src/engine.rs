//! An engine for other people's clients: a development build in a network namespace of its own, with an image made here.

use crate::{Result, shell};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the engine may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// An engine, ended with its containers when dropped.
pub(crate) struct Engine {
    place: PathBuf,
    program: String,
    pub(crate) host: String,
    process: Child,
}

impl Engine {
    /// In a network of its own.
    pub(crate) fn start(root: &Path, place: &Path) -> Result<Self> {
        let script = "ip link set lo up && exec \"$0\" \"$@\"";
        Self::start_by(&["unshare", "--net", "sh", "-c", script], &[], root, place)
    }

    /// In the network of this process, with a bridge of its own, which goes with it.
    pub(crate) fn start_in_this_network(root: &Path, place: &Path, bridge: &str) -> Result<Self> {
        // The bridge outlives an engine, so that its containers do not notice.
        let script = "\"$@\" & trap 'kill -TERM $!' TERM; wait $!; code=$?; wait $!; ip link delete \"$0\"; exit $code";
        Self::start_by(
            &["sh", "-c", script, bridge],
            &["--bridge", bridge],
            root,
            place,
        )
    }

    fn start_by(front: &[&str], flags: &[&str], root: &Path, place: &Path) -> Result<Self> {
        // As the tests build it.
        shell::run("cargo", &["build", "--workspace"])?;
        let program = crate::conformance::debug_binary(root, "hull")?
            .display()
            .to_string();
        let run = place.join("run");
        let host = format!("unix://{}/hull.sock", run.display());
        for old in ["data", "run", "home"] {
            let old = place.join(old);
            if old.exists() {
                std::fs::remove_dir_all(&old)
                    .map_err(|error| format!("{}: {error}", old.display()))?;
            }
        }
        let log = place.join("engine.log");
        let log =
            std::fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let process = Command::new(front[0])
            .args(&front[1..])
            .args([&program, "daemon"])
            .args(flags)
            .args([
                "--data-root",
                &path(place, "data"),
                "--run-root",
                &path(place, "run"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        let engine = Self {
            place: place.to_owned(),
            program,
            host,
            process,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while !engine.client(&["version"]).is_ok_and(|said| said.0) {
            if Instant::now() > deadline {
                return Err(
                    "the engine does not answer: see engine.log in its directory".to_owned(),
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(engine)
    }

    /// The engine's binary, which is its client, too.
    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    /// Whether a command of the client succeeds, and what it prints.
    pub(crate) fn client(&self, words: &[&str]) -> Result<(bool, String)> {
        let output = Command::new(&self.program)
            .args(["-H", &self.host])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    pub(crate) fn does(&self, words: &[&str]) -> Result<()> {
        match self.client(words)? {
            (true, _) => Ok(()),
            (false, said) => Err(format!("{words:?}: {said}")),
        }
    }

    /// What enters its network namespace, for `nsenter`.
    pub(crate) fn network(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.process.id())
    }

    /// The image that the tests know as alpine and busybox: busybox, with the users and directories that they ask for.
    pub(crate) fn make_image(&self) -> Result<()> {
        let script = "set -e; rm -rf image; mkdir -p image/bin image/dev image/etc image/proc image/root image/sys image/tmp image/var/opt; chmod 1777 image/tmp
            cp \"$(command -v busybox)\" image/bin/busybox
            for name in $(busybox --list); do [ $name = busybox ] || ln -s busybox image/bin/$name; done
            printf '%s\\n' root:x:0:0:root:/root:/bin/sh bin:x:1:1:bin:/bin:/bin/sh postgres:x:70:70::/:/bin/sh > image/etc/passwd
            printf '%s\\n' root:x:0:root bin:x:1:root,bin postgres:x:70: > image/etc/group
            tar -C image -cf image.tar .";
        let made = Command::new("sh")
            .args(["-c", script])
            .current_dir(&self.place)
            .status();
        if !made.is_ok_and(|status| status.success()) {
            return Err("cannot make the image".to_owned());
        }
        let archive = path(&self.place, "image.tar");
        let variables = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        self.does(&[
            "import",
            "-c",
            "CMD [\"/bin/sh\"]",
            "-c",
            variables,
            &archive,
            "alpine:3.10",
        ])?;
        for name in ["alpine:latest", "busybox:latest"] {
            self.does(&["tag", "alpine:3.10", name])?;
        }
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Ok((true, ids)) = self.client(&["ps", "-aq"]) {
            for id in ids.lines() {
                // What cannot be removed is told of as a process that is left.
                let _ = self.client(&["rm", "-f", "-v", id]);
            }
        }
        if let Ok(pid) = i32::try_from(self.process.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.process.wait();
    }
}

fn path(place: &Path, below: &str) -> String {
    place.join(below).display().to_string()
}
