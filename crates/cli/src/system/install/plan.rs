//! What an installation consists of: file-hierarchy(7), and where each shell, man and systemd look.

use crate::completion;
use crate::error::{IoContext, Result};
use crate::man::{self, Content};
use crate::pages::Page;
use std::path::{Path, PathBuf};

const SERVICE: &str = include_str!("hull.service");
const SOCKET: &str = include_str!("hull.socket");

/// Where hull's own socket is, and Docker's.
const HULL_SOCKET: &str = "/run/hull/hull.sock";
pub(super) const DOCKER_SOCKET: &str = "/run/docker.sock";

/// The group of root alone.
pub(super) const ROOT: &str = "root";

/// The prefixes below which systemd looks for units: systemd.unit(5).
const UNIT_PREFIXES: [&str; 2] = ["/usr", "/usr/local"];

/// A file to be put somewhere.
#[derive(Debug)]
pub(super) struct Item {
    /// Where it is in the end.
    pub(super) path: PathBuf,
    pub(super) content: Put,
}

/// What is put there.
#[derive(Debug)]
pub(super) enum Put {
    /// This program.
    Program,
    Text(String),
    /// A symbolic link with this in it.
    Link(String),
}

/// What was asked for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) prefix: &'a Path,
    /// The names and the socket of Docker, too.
    pub(super) docker: bool,
    /// Who may use the sockets besides root.
    pub(super) group: &'a str,
}

/// All of it, the program first.
pub(super) fn items(wanted: &Wanted<'_>, pages: &[Page]) -> Vec<Item> {
    let prefix = wanted.prefix;
    let mut items = vec![item(prefix.join("bin/hull"), Put::Program)];
    if wanted.docker {
        items.push(item(
            prefix.join("bin/docker"),
            Put::Link("hull".to_owned()),
        ));
    }
    let units = units(prefix);
    let bin = prefix.join("bin").display().to_string();
    let service = SERVICE.replace("@BIN@", &bin);
    items.push(item(units.join("hull.service"), Put::Text(service)));
    items.push(item(units.join("hull.socket"), Put::Text(socket(wanted))));
    let programs = ["hull", "docker"];
    for program in programs.into_iter().take(1 + usize::from(wanted.docker)) {
        for (shell, _) in completion::SCRIPTS {
            let below = match shell {
                "bash" => format!("share/bash-completion/completions/{program}"),
                "zsh" => format!("share/zsh/site-functions/_{program}"),
                _ => format!("share/fish/vendor_completions.d/{program}.fish"),
            };
            if let Some(text) = completion::script(shell, program, true) {
                items.push(item(prefix.join(below), Put::Text(text)));
            }
        }
    }
    let manuals = man::all(pages).into_iter().map(|manual| {
        let content = match manual.content {
            Content::Text(text) => Put::Text(text),
            Content::Link(target) => Put::Link(target),
        };
        item(prefix.join("share/man/man1").join(manual.file), content)
    });
    items.extend(manuals);
    items
}

fn item(path: PathBuf, content: Put) -> Item {
    Item { path, content }
}

/// Where systemd finds units of this prefix.
fn units(prefix: &Path) -> PathBuf {
    match UNIT_PREFIXES.iter().any(|known| prefix == Path::new(known)) {
        true => prefix.join("lib/systemd/system"),
        false => PathBuf::from("/etc/systemd/system"),
    }
}

fn socket(wanted: &Wanted<'_>) -> String {
    let mut listen = format!("ListenStream={HULL_SOCKET}");
    if wanted.docker {
        listen.push_str(&format!("\nListenStream={DOCKER_SOCKET}"));
    }
    if wanted.group != ROOT {
        // They come to the socket, and see nothing else.
        let directory = Path::new(HULL_SOCKET).parent().unwrap_or(Path::new("/"));
        listen.push_str(&format!(
            "\nExecStartPost=/bin/chgrp {} {}",
            wanted.group,
            directory.display()
        ));
    }
    SOCKET
        .replace("@LISTEN@", &listen)
        .replace("@GROUP@", wanted.group)
}

/// Whether the host below `root` has this group: group(5).
pub(super) fn has_group(root: &Path, name: &str) -> Result<bool> {
    let path = root.join("etc/group");
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.during(|| format!("read {}", path.display()))?,
    };
    Ok(text
        .lines()
        .any(|line| line.split(':').next() == Some(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(wanted: &Wanted<'_>) -> Vec<(String, String)> {
        { items(wanted, &crate::pages::all(Vec::new())).into_iter() }
            .map(|item| {
                let text = match item.content {
                    Put::Text(text) => text,
                    Put::Link(target) => format!("-> {target}"),
                    Put::Program => "the program".to_owned(),
                };
                (item.path.display().to_string(), text)
            })
            .collect()
    }

    #[test]
    fn everything_is_where_it_is_looked_for() {
        let wanted = Wanted {
            prefix: Path::new("/usr/local"),
            docker: true,
            group: "docker",
        };
        let all = texts(&wanted);
        let text = |path: &str| -> &str {
            let found = all.iter().find(|(known, _)| known == path);
            &found.unwrap_or_else(|| panic!("{path}")).1
        };
        assert_eq!(text("/usr/local/bin/docker"), "-> hull");
        let service = text("/usr/local/lib/systemd/system/hull.service");
        assert!(service.contains("ExecStart=/usr/local/bin/hull daemon -H fd://\n"));
        assert!(service.contains("KillMode=process\n"));
        let socket = text("/usr/local/lib/systemd/system/hull.socket");
        assert!(
            socket.contains("ListenStream=/run/hull/hull.sock\nListenStream=/run/docker.sock\n")
        );
        assert!(socket.contains("SocketGroup=docker\n"));
        assert!(socket.contains("ExecStartPost=/bin/chgrp docker /run/hull\n"));
        let bash = text("/usr/local/share/bash-completion/completions/docker");
        assert!(bash.contains("complete -F _docker docker"));
        assert_eq!(
            text("/usr/local/share/man/man1/hull-container-run.1"),
            "-> hull-run.1"
        );
        assert!(
            !all.iter()
                .any(|(_, text)| text.contains('@') && text.contains("@BIN@"))
        );
    }

    #[test]
    fn dockers_names_are_taken_only_when_asked() {
        let wanted = Wanted {
            prefix: Path::new("/opt/hull"),
            docker: false,
            group: "root",
        };
        let all = texts(&wanted);
        assert!(!all.iter().any(|(path, _)| path.contains("docker")));
        let socket = all
            .iter()
            .find(|(path, _)| path == "/etc/systemd/system/hull.socket");
        let socket = &socket.unwrap().1;
        assert!(!socket.contains("docker.sock") && !socket.contains("chgrp"));
    }
}
