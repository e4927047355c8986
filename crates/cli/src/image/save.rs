//! `hull save`, and how an archive that the engine streams reaches a file.

use crate::app::{Arity, Command};
use crate::error::{Error, IoContext, Result};
use crate::flags::{Flag, Matches};
use crate::objects;
use crate::parse::platform;
use crate::session::Session;
use crate::stdio;
use client::{BodyReader, Request};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;

const FLAGS: &[Flag] = &[
    Flag::text("output", "Write to this file instead of standard output").short('o'),
    Flag::text(
        "platform",
        "Of each image, write what is for this platform (os[/arch[/variant]])",
    ),
];

pub(crate) const SAVE: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Write one or more images to a tar archive",
    aliases: &["image save", "save"],
    flags: &[FLAGS],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

/// Bytes copied at once.
const BUFFER_BYTES: usize = 64 << 10;

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let platform = platform::document(matches.text("platform"))?;
    let mut request = Request::get(&["images", "get"]).query_some("platform", platform);
    for name in &matches.args {
        objects::check_name(name)?;
        request = request.query("names", name);
    }
    write_archive(session, matches.text("output"), &request).await
}

/// Writes what the engine answers to the file `path`, or to standard output. A file appears only when it is whole.
pub(crate) async fn write_archive(session: &Session, path: &str, request: &Request) -> Result<()> {
    if path.is_empty() {
        if stdio::is_terminal() {
            return Err(Error::msg(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            ));
        }
        return stdio::copy_raw(session.client().await?.send(request).await?.reader()).await;
    }
    let mut target = Target::create(Path::new(path))?;
    let mut reader = session.client().await?.send(request).await?.reader();
    target.fill(&mut reader).await?;
    target.commit()
}

/// A file that is being written: beside the real one, and renamed at the end. A device or fifo is written as it is.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    temporary: Option<PathBuf>,
    file: File,
}

impl Target {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let call = || format!("create {}", path.display());
        let special = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        if special {
            let file = OpenOptions::new().write(true).open(path).during(call)?;
            return Ok(Self {
                path: path.to_owned(),
                temporary: None,
                file,
            });
        }
        let name = path
            .file_name()
            .ok_or_else(|| Error::msg(format!("{}: not a file name", path.display())))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let temporary = path.with_file_name(hidden);
        let file = File::create_new(&temporary).during(call)?;
        Ok(Self {
            path: path.to_owned(),
            temporary: Some(temporary),
            file,
        })
    }

    async fn fill(&mut self, reader: &mut BodyReader) -> Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = reader
                .read(&mut buffer)
                .await
                .during(|| "read the engine's archive")?;
            if count == 0 {
                return Ok(());
            }
            let call = || format!("write {}", self.path.display());
            self.file.write_all(&buffer[..count]).during(call)?;
        }
    }

    /// The file, to be written.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Lets the file appear.
    pub(crate) fn commit(mut self) -> Result<()> {
        if let Some(temporary) = &self.temporary {
            let call = || format!("rename {} to {}", temporary.display(), self.path.display());
            std::fs::rename(temporary, &self.path).during(call)?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // The error that brought us here is the one to tell.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_whole_does_not_appear() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.tar");
        let mut target = Target::create(&path).unwrap();
        target.file.write_all(b"half").unwrap();
        drop(target);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let mut target = Target::create(&path).unwrap();
        target.file.write_all(b"whole").unwrap();
        target.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
