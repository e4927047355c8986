//! Repositories, by the program `git`: its protocols and formats are too many for a second implementation to be as safe.
//!
//! What comes from a repository is data alone: no hook runs, no configuration of the host's or of a user's counts, and no
//! address leads to the host's own files. Source: git(1), gitprotocol-v2(5); docker's reference, "ADD", "Git repositories".

use super::{Fetcher, shown};
use crate::agent::Agent;
use crate::context::Context;
use crate::error::{Doing, Error, Result};
use images::Scratch;
use images::copy::{self, Want};
use images::tar::Kind;
use rustix::fs::{AtFlags, MemfdFlags, Timespec, Timestamps};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often is looked whether git has ended.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of what git says that are read.
const SAID_BYTES_MAX: u64 = 16 << 10;
/// Digits of a whole commit, of SHA-1 and of SHA-256.
const COMMIT_DIGITS: [usize; 2] = [40, 64];
/// The agent of the client that hosts are reached with.
const AGENT_ID: &str = "default";
/// Files beside each other while a host is reached by ssh.
const AGENT_FILE: &str = "agent";
const HOSTS_FILE: &str = "known_hosts";
/// What git notes of the last fetch.
const FETCHED: &str = ".git/FETCH_HEAD";
/// What every call of git gets: nothing of a repository or of the host is executed, or read as configuration.
const SETTINGS: [&str; 10] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "protocol.allow=never",
    "-c",
    "protocol.http.allow=always",
    "-c",
    "protocol.https.allow=always",
    "-c",
    "protocol.git.allow=always",
];

/// A repository, and what of it is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repository {
    /// Where it is.
    pub url: String,
    /// A branch, tag or commit; the repository's own choice without.
    pub reference: Option<String>,
    /// The directory in it.
    pub directory: Option<String>,
    /// The commit that it has to be, or how that begins.
    pub checksum: Option<String>,
}

impl Repository {
    /// Reads `git://…`, `git@host:path`, `ssh://…`, and `http(s)://….git`, with `#reference:directory` or a query of `ref`, `branch`,
    /// `tag`, `commit`, `subdir` and `checksum`. `None`: it is something else.
    ///
    /// # Errors
    /// A reference or directory that is none.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let (whole, fragment) = match text.split_once('#') {
            Some((whole, fragment)) => (whole, Some(fragment)),
            None => (text, None),
        };
        let (url, query) = match whole.split_once('?') {
            Some((url, query)) => (url, Some(query)),
            None => (whole, None),
        };
        let is_git = ["git://", "ssh://", "git@"]
            .iter()
            .any(|start| url.starts_with(start));
        let is_web = url.starts_with("http://") || url.starts_with("https://");
        let is_meant = is_git || (is_web && url.ends_with(".git"));
        if !is_meant {
            return Ok(None);
        }
        let mut repository = Self {
            url: url.to_owned(),
            ..Self::default()
        };
        if let Some(fragment) = fragment {
            let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
            repository.reference = Some(reference.to_owned());
            repository.directory = Some(directory.to_owned());
        }
        for part in query.iter().flat_map(|query| query.split('&')) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = super::decoded(value)
                .ok_or_else(|| Error::Invalid(format!("{text:?}: {part:?} is no text")))?;
            match name {
                "ref" | "branch" | "tag" | "commit" => repository.reference = Some(value),
                "subdir" => repository.directory = Some(value),
                "checksum" => repository.checksum = Some(value),
                other => {
                    let what = format!("{text:?}: {other:?} of a repository is not supported");
                    return Err(Error::Invalid(what));
                }
            }
        }
        let given = |value: &String| !value.is_empty();
        repository.reference = repository.reference.filter(given);
        repository.directory = repository.directory.filter(given);
        repository.check(text)?;
        Ok(Some(repository))
    }

    /// Demands a commit.
    ///
    /// # Errors
    /// A text that is none.
    pub fn expect(&mut self, commit: &str) -> Result<()> {
        self.checksum = Some(commit.to_owned());
        self.check(commit)
    }

    fn check(&self, text: &str) -> Result<()> {
        // git-check-ref-format(1); what begins with a dash would be an option.
        let is_reference = |name: &String| {
            !name.starts_with(['-', '+', '^'])
                && !name.contains("..")
                && !name.contains(|c: char| {
                    c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c)
                })
        };
        if !self.reference.iter().all(is_reference) {
            return Err(Error::Invalid(format!(
                "{text:?}: it names no branch, tag or commit"
            )));
        }
        let is_hex = |text: &String| text.chars().all(|c| c.is_ascii_hexdigit());
        if !self
            .checksum
            .iter()
            .all(|text| is_hex(text) && text.len() >= 7)
        {
            return Err(Error::Invalid(format!(
                "{text:?}: the checksum is no commit"
            )));
        }
        // ssh(1) would take such a host, or user, for an option.
        let authority = self.url.strip_prefix("ssh://").unwrap_or(&self.url);
        if authority.starts_with('-') {
            return Err(Error::Invalid(format!("{text:?} names no host")));
        }
        Ok(())
    }

    /// Whether it is fetched by ssh, which takes an agent of the client.
    pub fn is_by_ssh(&self) -> bool {
        ["ssh://", "git@"].iter().any(|it| self.url.starts_with(it))
    }

    fn is_commit(&self) -> bool {
        let is_whole = |text: &String| {
            COMMIT_DIGITS.contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit())
        };
        self.reference.as_ref().is_some_and(is_whole)
    }
}

impl Fetcher<'_> {
    /// Fetches a repository with its submodules. Its files are as old as its commit.
    ///
    /// # Errors
    /// No program git, nothing at the address, another commit than is asked for.
    pub fn repository(&self, repository: &Repository, keep_git_dir: bool) -> Result<Context> {
        let files = Context::empty(self.engine.images())?;
        let ssh = match repository.is_by_ssh() {
            true => Some(self.ssh(&repository.url)?),
            false => None,
        };
        let git = Git {
            fetcher: self,
            url: &repository.url,
            directory: files.path(),
            ssh: ssh.as_ref(),
        };
        git.run(&["init", "-q"])?;
        git.run(&["remote", "add", "origin", &repository.url])?;
        let mut wanted = git.fetch(repository)?;
        if keep_git_dir && let Some(name) = git.name(repository)? {
            git.run(&["update-ref", &name, &wanted])?;
            wanted = name;
        }
        git.run(&["checkout", "-q", "--detach", &wanted])?;
        let commit = git.run(&["rev-parse", "HEAD"])?;
        let commit = commit.trim();
        if let Some(checksum) = &repository.checksum
            && !commit.starts_with(&checksum.to_ascii_lowercase())
        {
            return Err(Error::Invalid(format!(
                "expected checksum to match {checksum}, got {commit}"
            )));
        }
        if files.path().join(".gitmodules").is_file() {
            git.run(&[
                "submodule",
                "--quiet",
                "update",
                "--init",
                "--recursive",
                "--depth=1",
            ])?;
        }
        let time = git.run(&["log", "-1", "--format=%ct"])?;
        if keep_git_dir {
            let path = files.path().join(FETCHED);
            std::fs::remove_file(&path).doing(|| format!("remove {FETCHED}"))?;
        }
        settle(&files, keep_git_dir, time.trim().parse().unwrap_or(0))?;
        match &repository.directory {
            Some(directory) => files.part(&Path::new("/").join(directory)),
            None => Ok(files),
        }
    }
}

/// What git reaches a host by ssh with. It goes with this value.
struct Ssh {
    /// The agent's socket, and the hosts that have shown themselves.
    files: Scratch,
    _agent: Agent,
}

impl Ssh {
    fn agent(&self) -> PathBuf {
        self.files.path().join(AGENT_FILE)
    }

    /// As git runs it: no configuration counts. A host that the machine knows (`/etc/ssh/ssh_known_hosts`) has to have the key
    /// that is known; any other may have any.
    fn command(&self) -> String {
        let hosts = self.files.path().join(HOSTS_FILE);
        format!(
            "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={}",
            hosts.display()
        )
    }
}

impl Fetcher<'_> {
    fn ssh(&self, url: &str) -> Result<Ssh> {
        let files = self.engine.images().scratch();
        let files = files.doing(|| "make room for an SSH agent".to_owned())?;
        let path = files.path().join(AGENT_FILE);
        let agent = Agent::open(self.client, AGENT_ID, &path, (0o600, 0, 0))?;
        let none = || {
            Error::NotFound(format!(
                "{} is reached by ssh, which needs an agent of the client (--ssh {AGENT_ID})",
                shown(url)
            ))
        };
        let _agent = agent.ok_or_else(none)?;
        Ok(Ssh { files, _agent })
    }
}

/// Gives files the time of the commit, and takes git's own away unless they are wanted.
fn settle(files: &Context, keep_git_dir: bool, seconds: i64) -> Result<()> {
    let doing = || "settle a repository's files".to_owned();
    if !keep_git_dir {
        std::fs::remove_dir_all(files.path().join(".git")).doing(doing)?;
    }
    let all = copy::find(files.root(), Path::new("/"), false, &|_| Want::Take).doing(doing)?;
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    // What is in a directory comes before it, whose time it changes.
    for found in all
        .iter()
        .rev()
        .filter(|found| !found.path.as_os_str().is_empty())
    {
        let (parent, name) = files.root().parent(&found.path).doing(doing)?;
        // A submodule has a file that says where its repository is.
        let is_link = found.entry.kind == Kind::File && name == OsStr::new(".git");
        let settled = match is_link && !keep_git_dir {
            true => rustix::fs::unlinkat(&parent, &name, AtFlags::empty()),
            false => rustix::fs::utimensat(&parent, &name, &times, AtFlags::SYMLINK_NOFOLLOW),
        };
        settled.map_err(std::io::Error::from).doing(doing)?;
    }
    Ok(())
}

/// Calls of git in one directory.
struct Git<'a> {
    fetcher: &'a Fetcher<'a>,
    url: &'a str,
    directory: &'a Path,
    ssh: Option<&'a Ssh>,
}

impl Git<'_> {
    /// Fetches as little as the server allows; what to check out.
    fn fetch(&self, repository: &Repository) -> Result<String> {
        let reference = repository.reference.as_deref().unwrap_or("HEAD");
        let fetch = |how: &[&str]| self.run(&[&["fetch", "-q"], how].concat());
        if fetch(&["--depth=1", "--no-tags", "origin", reference]).is_ok() {
            return Ok("FETCH_HEAD".to_owned());
        }
        self.fetcher.check_stop()?;
        // Servers may know no depth, and may give no commit by its name.
        if repository.is_commit() {
            let all = "+refs/heads/*:refs/remotes/origin/*";
            fetch(&["--tags", "origin", all])?;
            return Ok(reference.to_owned());
        }
        fetch(&["--no-tags", "origin", reference])?;
        Ok("FETCH_HEAD".to_owned())
    }

    /// What is fetched by its whole name, `refs/heads/…` or `refs/tags/…`; `None`: it is a commit alone.
    fn name(&self, repository: &Repository) -> Result<Option<String>> {
        if repository.is_commit() {
            return Ok(None);
        }
        if repository.reference.is_none() {
            // `ref: refs/heads/main<tab>HEAD`, where it is a branch's.
            let said = self.run(&["ls-remote", "--symref", "origin", "HEAD"])?;
            let name = said.lines().find_map(|line| line.strip_prefix("ref: "));
            let name = name.and_then(|line| line.split_whitespace().next());
            let name = name.filter(|name| name.starts_with("refs/heads/"));
            return Ok(name.map(str::to_owned));
        }
        let path = self.directory.join(FETCHED);
        let fetched = std::fs::read_to_string(&path).doing(|| format!("read {FETCHED}"))?;
        Ok(fetched_name(&fetched))
    }

    /// What git prints.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let doing = || format!("run git {} for {}", arguments[0], shown(self.url));
        let mut said = memory_file()?;
        let mut complained = memory_file()?;
        let mut command = Command::new("git");
        command.args(SETTINGS);
        if let Some(ssh) = self.ssh {
            command
                .args(["-c", "protocol.ssh.allow=always"])
                .env("GIT_SSH_COMMAND", ssh.command())
                .env("SSH_AUTH_SOCK", ssh.agent());
        }
        let mut child = command
            .args(arguments)
            .current_dir(self.directory)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("HOME", self.directory)
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .stdin(Stdio::null())
            .stdout(said.try_clone().doing(doing)?)
            .stderr(complained.try_clone().doing(doing)?)
            .process_group(0)
            .spawn()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Error::Invalid(format!(
                    "git is not installed where the engine runs, which {} needs",
                    shown(self.url)
                )),
                _ => Error::System {
                    doing: doing(),
                    source: error,
                },
            })?;
        let status = loop {
            if let Some(status) = child.try_wait().doing(doing)? {
                break status;
            }
            if let Err(stopped) = self.fetcher.check_stop() {
                if let Some(group) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
                    // One that has ended meanwhile needs no signal.
                    let _ =
                        rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                child.wait().doing(doing)?;
                return Err(stopped);
            }
            std::thread::sleep(LOOK);
        };
        match status.success() {
            true => read(&mut said).doing(doing),
            false => Err(Error::Invalid(format!(
                "cannot fetch {}: git {}: {}",
                shown(self.url),
                arguments[0],
                read(&mut complained).doing(doing)?.trim()
            ))),
        }
    }
}

/// The whole name of what `.git/FETCH_HEAD` tells of: `<commit><tab><tab>branch 'main' of <address>`.
fn fetched_name(fetched: &str) -> Option<String> {
    let (kind, rest) = fetched.split('\t').nth(2)?.split_once(" '")?;
    let (name, _) = rest.split_once('\'')?;
    let directory = match kind {
        "branch" => "heads",
        "tag" => "tags",
        _ => return None,
    };
    Some(format!("refs/{directory}/{name}"))
}

fn memory_file() -> Result<File> {
    let made = rustix::fs::memfd_create("git", MemfdFlags::CLOEXEC).map_err(std::io::Error::from);
    made.map(File::from)
        .doing(|| "make a file for what git says".to_owned())
}

fn read(file: &mut File) -> std::io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(SAID_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Repository {
        Repository::parse(text).unwrap().unwrap()
    }

    #[test]
    fn repositories_are_read() {
        let plain = parsed("https://h/a.git");
        assert_eq!(
            (plain.url.as_str(), plain.reference),
            ("https://h/a.git", None)
        );
        let full = parsed("git://h/a#v1:src/x");
        assert_eq!(full.reference.as_deref(), Some("v1"));
        assert_eq!(full.directory.as_deref(), Some("src/x"));
        let query = parsed("https://h/a.git?tag=v1&subdir=x%2Fy&checksum=0123456");
        assert_eq!(query.reference.as_deref(), Some("v1"));
        assert_eq!(query.directory.as_deref(), Some("x/y"));
        assert_eq!(query.checksum.as_deref(), Some("0123456"));
        assert_eq!(parsed("https://h/a.git#:x").reference, None);
        assert_eq!(Repository::parse("https://h/a.tar").unwrap(), None);
        assert!(parsed("git@h:a#v1").is_by_ssh() && parsed("ssh://u@h:2/a").is_by_ssh());
    }

    #[test]
    fn what_was_fetched_has_a_name() {
        let name = |kind: &str| fetched_name(&format!("0123\t\t{kind} of git://h/r\n"));
        assert_eq!(name("branch 'a/b'").unwrap(), "refs/heads/a/b");
        assert_eq!(name("tag 'v1'").unwrap(), "refs/tags/v1");
        assert_eq!(fetched_name("0123\t\tgit://h/r\n"), None);
        assert_eq!(fetched_name(""), None);
    }

    #[test]
    fn what_git_would_take_for_something_else_is_refused() {
        for bad in [
            "https://h/a.git#--upload-pack=x",
            "https://h/a.git#a b",
            "https://h/a.git#a..b",
            "https://h/a.git?ref=%0a",
            "https://h/a.git?keep=1",
            "https://h/a.git?checksum=xyz",
            "ssh://-oProxyCommand=x/a",
        ] {
            Repository::parse(bad).unwrap_err();
        }
    }
}
