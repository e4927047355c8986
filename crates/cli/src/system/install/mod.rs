//! `hull system install` and `hull system uninstall`.
//!
//! ```text
//! plan     what an installation consists of, and where each part belongs
//! record   putting it there and taking it away, by a record
//! ```

mod plan;
mod record;

use crate::app::{Arity, Command};
use crate::error::{Error, IoContext, Result};
use crate::flags::{Flag, Matches};
use crate::session::Session;
use crate::{output, pages};
use plan::{Item, Wanted};
use record::{Place, Record};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};

/// The groups that may use the sockets: the first that the host has, or with Docker's socket the last. Their members are as
/// powerful as root.
const GROUPS: [&str; 2] = ["hull", "docker"];

/// There where systemd runs: sd_booted(3).
const SYSTEMD: &str = "/run/systemd/system";
const UNITS: [&str; 2] = ["hull.socket", "hull.service"];

const PLACE_FLAGS: &[Flag] = &[
    Flag::text("prefix", "Where it is in the end").default("/usr/local"),
    Flag::text(
        "root",
        "Put it below this directory, to make a package of it; systemd is not told",
    ),
];

const INSTALL_FLAGS: &[Flag] = &[
    Flag::bool("docker", "Take the name and the socket of Docker, too"),
    Flag::bool(
        "force",
        "Take the place of files that are there; they come back when this is uninstalled",
    ),
    Flag::text(
        "group",
        "Let this group use the sockets, which makes its members as powerful as root (default: hull or docker, where the host has them, otherwise root)",
    ),
];

pub(crate) const INSTALL: Command = Command {
    usage: "[OPTIONS]",
    about: "Put this program in place, with units of systemd, completion and manual pages",
    aliases: &[],
    flags: &[PLACE_FLAGS, INSTALL_FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |session, matches| Box::pin(async { install(session, matches) }),
};

pub(crate) const UNINSTALL: Command = Command {
    usage: "[OPTIONS]",
    about: "Take away everything that `system install` has put in place",
    aliases: &[],
    flags: &[PLACE_FLAGS],
    arity: Arity::Exactly(0),
    interspersed: true,
    run: |_, matches| Box::pin(async { uninstall(matches) }),
};

/// Where the flags say.
fn place(matches: &Matches) -> Result<(PathBuf, PathBuf)> {
    let root = PathBuf::from(matches.get("root").unwrap_or("/"));
    let prefix = PathBuf::from(matches.get("prefix").unwrap_or("/usr/local"));
    if !prefix.is_absolute() {
        return Err(Error::msg(format!(
            "--prefix {}: it has to begin with a slash",
            prefix.display()
        )));
    }
    Ok((root, prefix))
}

fn install(session: &Session, matches: &Matches) -> Result<()> {
    let (root, prefix) = place(matches)?;
    let place = Place {
        root: &root,
        prefix: &prefix,
    };
    let (docker, force) = (matches.on("docker"), matches.on("force"));
    let group = group(matches, &root, docker)?;
    let is_here = root == Path::new("/");
    if docker && is_here && !force {
        check_dockers_socket(Record::read(place)?.as_ref())?;
    }
    let wanted = Wanted {
        prefix: &prefix,
        docker,
        group: &group,
    };
    let items = plan::items(&wanted, &pages::all((session.faces)()));
    let record = record::install(place, &items, force)?;
    tell(place, &items, &record)?;
    if group == plan::ROOT {
        output::line(
            "The sockets are for root alone: there is no group hull or docker, and --group names none.",
        )?;
    } else {
        output::line(&format!("The sockets are for root and the group {group}."))?;
    }
    match is_here && Path::new(SYSTEMD).is_dir() {
        true => enable(),
        false if is_here => output::line(
            "systemd does not run here: start the engine by `hull daemon`, or let the client start it.",
        ),
        false => Ok(()),
    }
}

fn group(matches: &Matches, root: &Path, docker: bool) -> Result<String> {
    if let Some(group) = matches.get("group") {
        return match plan::has_group(root, group)? {
            true => Ok(group.to_owned()),
            false => Err(Error::msg(format!(
                "--group {group}: there is no such group"
            ))),
        };
    }
    let mut names = GROUPS;
    if docker {
        names.reverse();
    }
    for name in names {
        if plan::has_group(root, name)? {
            return Ok(name.to_owned());
        }
    }
    Ok(plan::ROOT.to_owned())
}

/// Another engine that listens on Docker's socket would lose its clients.
fn check_dockers_socket(installed: Option<&Record>) -> Result<()> {
    let is_docker = |path: &PathBuf| path.file_name().is_some_and(|name| name == "docker");
    let ours =
        installed.is_some_and(|record| record.files.iter().any(|file| is_docker(&file.path)));
    if !ours && UnixStream::connect(plan::DOCKER_SOCKET).is_ok() {
        return Err(Error::msg(format!(
            "another engine listens on {}: stop it first (systemctl disable --now docker.socket docker.service), or --force",
            plan::DOCKER_SOCKET
        )));
    }
    Ok(())
}

/// One line for each file, and one for the manual pages.
fn tell(place: Place<'_>, items: &[Item], record: &Record) -> Result<()> {
    let is_manual = |path: &Path| path.parent().is_some_and(|parent| parent.ends_with("man1"));
    let (manuals, others): (Vec<&Item>, Vec<&Item>) =
        { items.iter() }.partition(|item| is_manual(&item.path));
    for item in others {
        output::line(&format!("installed {}", place.at(&item.path).display()))?;
    }
    if let Some(parent) = manuals.first().and_then(|item| item.path.parent()) {
        let (count, parent) = (manuals.len(), place.at(parent));
        output::line(&format!(
            "installed {count} manual pages in {}",
            parent.display()
        ))?;
    }
    for file in record.files.iter().filter(|file| file.has_before) {
        let path = place.at(&file.path);
        output::line(&format!(
            "kept what was {} beside it: uninstalling puts it back",
            path.display()
        ))?;
    }
    Ok(())
}

fn enable() -> Result<()> {
    systemctl(&["daemon-reload"])?;
    systemctl(&[&["enable"], UNITS.as_slice()].concat())?;
    // The service's new program is taken by its next start; clients come by the socket.
    systemctl(&["start", UNITS[0]])?;
    output::line(
        "systemd listens for the engine, starts it for its first client, and when the machine starts.",
    )
}

fn uninstall(matches: &Matches) -> Result<()> {
    let (root, prefix) = place(matches)?;
    let place = Place {
        root: &root,
        prefix: &prefix,
    };
    let Some(record) = Record::read(place)? else {
        return Err(Error::msg(format!(
            "nothing is installed below {}: there is no record of it",
            place.at(&prefix).display()
        )));
    };
    let by_systemd = root == Path::new("/") && Path::new(SYSTEMD).is_dir();
    if by_systemd {
        systemctl(&[&["disable", "--now"], UNITS.as_slice()].concat())?;
    }
    let left = record::uninstall(place, &record)?;
    if by_systemd {
        systemctl(&["daemon-reload"])?;
    }
    for path in &left {
        output::line(&format!(
            "left {}, which is another's by now",
            path.display()
        ))?;
    }
    let count = record.files.len() - left.len();
    output::line(&format!(
        "removed {count} files; images, volumes and containers stay, in /var/lib/hull"
    ))
}

/// Tells systemd something. What it says is the person's to read.
fn systemctl(words: &[&str]) -> Result<()> {
    let call = || format!("systemctl {}", words.join(" "));
    let status = Program::new("systemctl")
        .args(words)
        .stdin(Stdio::null())
        .status()
        .during(call)?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::msg(format!("{} failed: {status}", call()))),
    }
}
