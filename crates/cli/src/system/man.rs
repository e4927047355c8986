//! `hull system man`.

use crate::app::{Arity, Command};
use crate::error::{IoContext, Result};
use crate::flags::Matches;
use crate::man::Content;
use crate::session::Session;
use crate::{man, output, pages};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

pub(crate) const MAN: Command = Command {
    usage: "DIR",
    about: "Write a manual page for every command to a directory",
    aliases: &[],
    flags: &[],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(async { run(session, matches) }),
};

fn run(session: &Session, matches: &Matches) -> Result<()> {
    let directory = Path::new(&matches.args[0]);
    let manuals = man::all(&pages::all((session.faces)()));
    for manual in &manuals {
        let path = directory.join(&manual.file);
        let written = match &manual.content {
            Content::Text(text) => std::fs::write(&path, text),
            Content::Link(target) => link(target, &path),
        };
        written.during(|| format!("write {}", path.display()))?;
    }
    let count = manuals.len();
    output::line(&format!("{count} pages in {}", directory.display()))
}

/// As a file's text would, it takes the place of what is there.
fn link(target: &str, path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => symlink(target, path),
    }
}
