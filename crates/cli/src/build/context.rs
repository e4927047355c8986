//! What a build sends: a tar of parts (Dockerfile, ignore file, context, named contexts), without what `.dockerignore` leaves out.
//!
//! Files are root's in it, as with Docker's client; times and modes are theirs.

use super::named::Named;
use crate::container::cp::tree::{Sink, TarStream};
use crate::error::{Error, IoContext, Result};
use api_types::{
    PART_ARCHIVE, PART_CACHES, PART_CONTEXT, PART_DOCKERFILE, PART_IGNORE, PART_LAYOUTS, PART_NAMED,
};
use patterns::{IGNORE_BYTES_MAX, Ignore};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// How deep directories may lie in each other.
const DEPTH_MAX: usize = 2048;

/// What is sent.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// The Dockerfile's text, where it is not in the context that the engine fetches.
    pub(crate) dockerfile: Option<Vec<u8>>,
    /// The address of that.
    pub(crate) remote: Option<String>,
    /// The directory of the context.
    pub(crate) context: Option<PathBuf>,
    /// An archive that is the context, with the Dockerfile in it.
    pub(crate) archive: Option<File>,
    /// What is left out of it.
    pub(crate) ignored: Ignored,
    /// Named contexts.
    pub(crate) named: Named,
    /// The files of caches, by their names in a layout.
    pub(crate) caches: Vec<Vec<(String, PathBuf)>>,
}

/// An ignore file.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    /// Its rules.
    pub(crate) rules: Ignore,
    /// Its text.
    text: String,
}

impl Parts {
    /// The Dockerfile's text, if it is sent.
    pub(crate) fn dockerfile(&self) -> &[u8] {
        self.dockerfile.as_deref().unwrap_or_default()
    }

    /// The tar, made while it is read.
    pub(crate) fn stream(self) -> Result<TarStream> {
        TarStream::made_by(move |sink| self.write(sink))
    }

    fn write(&self, sink: Sink) -> Result<()> {
        let mut tar = Builder::new(sink);
        let dockerfile = self.dockerfile.as_deref();
        let files = [
            (PART_DOCKERFILE, dockerfile),
            (
                PART_IGNORE,
                dockerfile.map(|_| self.ignored.text.as_bytes()),
            ),
        ];
        for (name, content) in files {
            let Some(content) = content else { continue };
            let mut header = header_of(EntryType::Regular, 0o644, 0);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, content)
                .during(|| "write the archive")?;
        }
        if let Some(archive) = &self.archive {
            let call = || "send the archive of standard input";
            let mut header = header_of(EntryType::Regular, 0o644, 0);
            header.set_size(archive.metadata().during(call)?.len());
            tar.append_data(&mut header, PART_ARCHIVE, archive)
                .during(call)?;
        }
        if let Some(path) = &self.context {
            let rules = &self.ignored.rules;
            children(&mut tar, path, Path::new(PART_CONTEXT), "", rules, 0)?;
        }
        for (name, path, ignore) in &self.named.directories {
            let below = Path::new(PART_NAMED).join(name);
            let mut header = header_of(EntryType::Directory, 0o755, 0);
            tar.append_data(&mut header, &below, std::io::empty())
                .during(|| "write the archive")?;
            children(&mut tar, path, &below, "", ignore, 0)?;
        }
        let caches = { self.caches.iter().enumerate() }
            .map(|(number, files)| (Path::new(PART_CACHES).join(number.to_string()), files));
        let layouts = { self.named.layout_files.iter() }
            .map(|(name, files)| (Path::new(PART_LAYOUTS).join(name), files));
        for (below, files) in caches.chain(layouts) {
            for (name, path) in files {
                let call = || format!("read {}", path.display());
                let mut file = File::open(path).during(call)?;
                let mut header = header_of(EntryType::Regular, 0o644, 0);
                header.set_size(file.metadata().during(call)?.len());
                tar.append_data(&mut header, below.join(name), &mut file)
                    .during(call)?;
            }
        }
        let sink = tar.into_inner();
        sink.and_then(|mut sink| std::io::Write::flush(&mut sink))
            .during(|| "write the archive")
    }
}

fn header_of(kind: EntryType, mode: u32, mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(mtime);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}

/// Adds what is in a directory. `below` is its path in the context.
fn children(
    tar: &mut Builder<Sink>,
    directory: &Path,
    name: &Path,
    below: &str,
    ignore: &Ignore,
    depth: usize,
) -> Result<()> {
    if depth > DEPTH_MAX {
        let text = format!(
            "{}: more than {DEPTH_MAX} directories deep",
            directory.display()
        );
        return Err(Error::msg(text));
    }
    let call = || format!("read {}", directory.display());
    let entries = std::fs::read_dir(directory).during(call)?;
    let mut names = { entries.map(|entry| Ok(entry?.file_name())) }
        .collect::<std::io::Result<Vec<_>>>()
        .during(call)?;
    names.sort();
    for child in names {
        let path = directory.join(&child);
        let Some(text) = child.to_str() else {
            let text = format!("{}: its name is not UTF-8", path.display());
            return Err(Error::msg(text));
        };
        let below = match below {
            "" => text.to_owned(),
            below => format!("{below}/{text}"),
        };
        if ignore.excludes_all_of(&below) {
            continue;
        }
        entry(tar, &path, &name.join(&child), &below, ignore, depth)?;
    }
    Ok(())
}

fn entry(
    tar: &mut Builder<Sink>,
    path: &Path,
    name: &Path,
    below: &str,
    ignore: &Ignore,
    depth: usize,
) -> Result<()> {
    let call = || format!("read {}", path.display());
    let metadata = std::fs::symlink_metadata(path).during(call)?;
    let kind = metadata.file_type();
    let mtime = u64::try_from(metadata.mtime()).unwrap_or(0);
    let mode = metadata.mode() & 0o7777;
    // A directory is sent for what is kept in it.
    if ignore.excludes(below) && !kind.is_dir() {
        return Ok(());
    }
    if kind.is_dir() {
        let mut header = header_of(EntryType::Directory, mode, mtime);
        tar.append_data(&mut header, name, std::io::empty())
            .during(call)?;
        return children(tar, path, name, below, ignore, depth + 1);
    }
    if kind.is_symlink() {
        let target = std::fs::read_link(path).during(call)?;
        let mut header = header_of(EntryType::Symlink, 0o777, mtime);
        return tar.append_link(&mut header, name, target).during(call);
    }
    if kind.is_fifo() {
        let mut header = header_of(EntryType::Fifo, mode, mtime);
        return tar
            .append_data(&mut header, name, std::io::empty())
            .during(call);
    }
    // Sockets and devices are of this machine.
    if !kind.is_file() {
        return Ok(());
    }
    let file = File::open(path).during(call)?;
    let size = file.metadata().during(call)?.len();
    let mut header = header_of(EntryType::Regular, mode, mtime);
    header.set_size(size);
    let mut content = file.take(size);
    tar.append_data(&mut header, name, &mut content)
        .during(call)?;
    match content.limit() {
        0 => Ok(()),
        _ => Err(Error::msg(format!(
            "{}: it became shorter while it was read",
            path.display()
        ))),
    }
}

/// Reads what a directory's ignore file says: the one of the Dockerfile, or its own.
pub(crate) fn ignore(directory: &Path, dockerfile: Option<&Path>) -> Result<Ignored> {
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in own.into_iter().chain([directory.join(".dockerignore")]) {
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            file => file.during(|| format!("open {}", path.display()))?,
        };
        let mut text = String::new();
        file.take(IGNORE_BYTES_MAX as u64 + 1)
            .read_to_string(&mut text)
            .during(|| format!("read {}", path.display()))?;
        if text.len() > IGNORE_BYTES_MAX {
            let text = format!("{}: more than {IGNORE_BYTES_MAX} bytes", path.display());
            return Err(Error::msg(text));
        }
        let rules = Ignore::parse(&text)
            .map_err(|error| Error::msg(format!("{}: {error}", path.display())))?;
        return Ok(Ignored { rules, text });
    }
    Ok(Ignored::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn what_is_ignored_is_not_sent() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["keep", "modules/deep"] {
            std::fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        for path in ["a.o", "keep/a.o", "keep/b.c", "modules/deep/x", "modules/y"] {
            std::fs::write(directory.path().join(path), path).unwrap();
        }
        std::fs::write(
            directory.path().join(".dockerignore"),
            "**/*.o\nmodules\n!modules/y\n",
        )
        .unwrap();
        let parts = Parts {
            dockerfile: Some(b"FROM x".to_vec()),
            archive: None,
            context: Some(directory.path().to_owned()),
            ignored: ignore(directory.path(), None).unwrap(),
            named: Named {
                directories: vec![(
                    "n".to_owned(),
                    directory.path().join("keep"),
                    Ignore::default(),
                )],
                ..Named::default()
            },
            remote: None,
            caches: vec![vec![(
                "blobs/sha256/0".to_owned(),
                directory.path().join("keep/b.c"),
            )]],
        };
        let mut bytes = Vec::new();
        parts
            .stream()
            .unwrap()
            .read_to_end(&mut bytes)
            .await
            .unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<String> = { archive.entries().unwrap() }
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "Dockerfile",
                "dockerignore",
                "context/.dockerignore",
                "context/keep",
                "context/keep/b.c",
                "context/modules",
                "context/modules/y",
                "named/n",
                "named/n/a.o",
                "named/n/b.c",
                "caches/0/blobs/sha256/0"
            ]
        );
    }
}
