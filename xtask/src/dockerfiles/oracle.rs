//! Docker's own engine and client, as Debian's next release has them: in a root of their own, with the BuildKit and the
//! Dockerfile frontend that the engine has inside.

use crate::{Result, install_missing, shell};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The release; the one before it has a BuildKit that is two years older.
const SUITE: &str = "forky";
const PACKAGES: &str =
    "--include=docker.io,docker-cli,docker-buildx,ca-certificates,git,openssh-client,xz-utils";
/// How long the engine may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Enters the root: the words behind it are a program in it, which sees `$2` and what the network needs at their own paths.
const ENTER: &str = r#"set -e
    root=$1 shared=$2 processes=$3; shift 3
    mount --bind "$root" "$root"
    for dir in /sys /dev "$shared" /etc/ssl/certs; do
        mkdir -p "$root$dir"; mount --rbind "$dir" "$root$dir"
    done
    if [ "$processes" = own ]; then mount -t proc proc "$root/proc"; else mount --rbind /proc "$root/proc"; fi
    : > "$root/etc/resolv.conf"; mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
    cd "$root"; mkdir -p outside
    pivot_root . outside
    umount -l /outside
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root BUILDX_NO_DEFAULT_ATTESTATIONS=1 "$@""#;

/// The engine, ended with all that it has started when dropped.
pub(super) struct Oracle {
    client: Client,
    host: String,
    process: Child,
}

/// Docker's client with buildx.
#[derive(Clone)]
pub(super) struct Client {
    root: PathBuf,
    shared: PathBuf,
}

impl Client {
    /// Makes the root, once.
    pub(super) fn install(place: &Path, shared: &Path) -> Result<Self> {
        install_missing(&[("mmdebstrap", "mmdebstrap")])?;
        let client = Self {
            root: place.join("oracle"),
            shared: shared.to_owned(),
        };
        if client.root.exists() {
            return Ok(client);
        }
        shell::say("installing Docker's engine and client in a root of their own");
        let made = place.join("oracle.new");
        let made_path = made.display().to_string();
        // A mirror's copy of a release that is still made may be older than that release wants to be used.
        let old = "--aptopt=Acquire::Check-Valid-Until \"false\"";
        let mut arguments = vec![
            "--quiet",
            "--variant=minbase",
            old,
            PACKAGES,
            SUITE,
            &made_path,
        ];
        let mirror = crate::compose::mirror()?;
        arguments.extend(mirror.as_deref());
        shell::run("mmdebstrap", &arguments)?;
        let moved = std::fs::rename(&made, &client.root);
        moved.map_err(|error| format!("{}: {error}", made.display()))?;
        Ok(client)
    }

    /// A program in the root.
    pub(super) fn command(&self, unshared: &[&str], processes: &str, words: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command
            .arg("--mount")
            .args(unshared)
            .args(["sh", "-c", ENTER, "enter"]);
        command
            .args([&self.root, &self.shared])
            .arg(processes)
            .args(words);
        command.stdin(Stdio::null());
        command
    }
}

impl Oracle {
    pub(super) fn start(client: &Client) -> Result<Self> {
        let shared = client.shared.display();
        let host = format!("unix://{shared}/docker.sock");
        let (data, run) = (
            format!("{shared}/docker-data"),
            format!("{shared}/docker-run"),
        );
        let log = client.shared.join("docker.log");
        let log =
            std::fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let engine = [
            "dockerd",
            "--host",
            &host,
            "--data-root",
            &data,
            "--exec-root",
            &run,
        ];
        let quiet = [
            "--bridge",
            "none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
        ];
        let pidfile = format!("{shared}/docker.pid");
        let words = [&engine[..], &quiet, &["--pidfile", &pidfile]].concat();
        // Whatever it has started ends with it.
        let mut command =
            client.command(&["--pid", "--fork", "--kill-child=SIGKILL"], "own", &words);
        let process = command.stdout(Stdio::null()).stderr(log).spawn();
        let process = process.map_err(|error| format!("cannot start dockerd: {error}"))?;
        let oracle = Self {
            client: client.clone(),
            host,
            process,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while oracle.docker(&["version"]).is_err() {
            if Instant::now() > deadline {
                return Err("dockerd does not answer: see docker.log in its directory".to_owned());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(oracle)
    }

    /// What docker's client says, of a command that has to succeed.
    pub(super) fn docker(&self, words: &[&str]) -> Result<String> {
        self.client.docker(&self.host, words)
    }

    /// A command of docker's client.
    pub(super) fn client(&self, words: &[&str]) -> Command {
        self.client.client(&self.host, words)
    }
}

impl Client {
    /// What docker's client says to an engine, of a command that has to succeed.
    pub(super) fn docker(&self, host: &str, words: &[&str]) -> Result<String> {
        super::output(&mut self.client(host, words))
    }

    fn client(&self, host: &str, words: &[&str]) -> Command {
        let words = [&["docker", "--host", host], words].concat();
        self.command(&[], "all", &words)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // The engine is the first process of a namespace, which ends with it. Its records are of no further use.
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            shell::say(&format!("cannot end dockerd: {error}"));
        }
    }
}
