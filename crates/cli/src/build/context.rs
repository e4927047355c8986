//! What a build sends: a tar of parts (Dockerfile, ignore file, context, named contexts), without what `.dockerignore` leaves out.
//!
//! Files are root's in it, as with Docker's client; times and modes are theirs. Of a context that the engine has kept, only what has
//! changed is sent: what has another kind, mode, size, time, inode or time of its inode.

use super::named::Named;
use crate::container::cp::tree::{Sink, TarStream};
use crate::error::{Error, IoContext, Result};
use api_types::{
    ContextChanges, KeptContext, PART_ARCHIVE, PART_CACHES, PART_CONTEXT, PART_DOCKERFILE,
    PART_IGNORE, PART_LAYOUTS, PART_MARKS, PART_NAMED,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use patterns::{IGNORE_BYTES_MAX, Ignore};
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tar::{Builder, EntryType, Header};

/// How deep directories may lie in each other.
const DEPTH_MAX: usize = 2048;

/// How long ago a file must have changed for its time to say that it was not changed since.
const FRESH: Duration = Duration::from_secs(1);

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
    /// All of it is sent compressed.
    pub(crate) compress: bool,
}

/// Where the tar goes.
enum Out {
    Plain(Sink),
    Gzip(Box<GzEncoder<Sink>>),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(sink) => sink.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(sink) => sink.flush(),
            Self::Gzip(encoder) => encoder.flush(),
        }
    }
}

impl Out {
    fn new(sink: Sink, compress: bool) -> Self {
        match compress {
            true => Self::Gzip(Box::new(GzEncoder::new(sink, Compression::default()))),
            false => Self::Plain(sink),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut sink) => sink.flush(),
            Self::Gzip(encoder) => encoder.finish()?.flush(),
        }
    }
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

    /// What the engine is to call the context, where it can keep it: where it is sent, and nothing is fetched beside it.
    pub(crate) fn kept_name(&self) -> Result<Option<String>> {
        let Some(path) = self
            .context
            .as_ref()
            .filter(|_| self.named.addresses.is_empty())
        else {
            return Ok(None);
        };
        let path = path
            .canonicalize()
            .during(|| format!("find {}", path.display()))?;
        Ok(path.into_os_string().into_string().ok())
    }

    /// The tar, made while it is read. Of the context there is what has changed since the engine has kept it.
    pub(crate) fn stream(self: &Arc<Self>, kept: KeptContext) -> Result<TarStream> {
        let this = Arc::clone(self);
        TarStream::made_by(move |sink| this.write(sink, kept))
    }

    fn write(&self, sink: Sink, kept: KeptContext) -> Result<()> {
        let mut tar = Builder::new(Out::new(sink, self.compress));
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
            document(&mut tar, name, content)?;
        }
        if let Some(archive) = &self.archive {
            let call = || "send the archive of standard input";
            let mut header = header_of(EntryType::Regular, 0o644, 0);
            header.set_size(archive.metadata().during(call)?.len());
            tar.append_data(&mut header, PART_ARCHIVE, archive)
                .during(call)?;
        }
        if let Some(path) = &self.context {
            let mut tree = Tree {
                tar: &mut tar,
                ignore: &self.ignored.rules,
                marks: Some(Marks::new(kept)),
            };
            tree.children(path, Path::new(PART_CONTEXT), "", 0)?;
            let changes = tree.marks.take().map(Marks::changes).unwrap_or_default();
            let changes = serde_json::to_vec(&changes).expect("it has only strings as keys");
            document(&mut tar, PART_MARKS, &changes)?;
        }
        for (name, path, ignore) in &self.named.directories {
            let below = Path::new(PART_NAMED).join(name);
            let mut header = header_of(EntryType::Directory, 0o755, 0);
            tar.append_data(&mut header, &below, std::io::empty())
                .during(|| "write the archive")?;
            let mut tree = Tree {
                tar: &mut tar,
                ignore,
                marks: None,
            };
            tree.children(path, &below, "", 0)?;
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
        { tar.into_inner() }
            .and_then(Out::finish)
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

fn document(tar: &mut Builder<Out>, name: &str, content: &[u8]) -> Result<()> {
    let mut header = header_of(EntryType::Regular, 0o644, 0);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content)
        .during(|| "write the archive")
}

/// What the engine has of a context, and what of that has changed.
struct Marks {
    kept: KeptContext,
    sent: ContextChanges,
    /// What has changed since then may have changed again when it is sent.
    fresh_ns: i128,
}

impl Marks {
    fn new(kept: KeptContext) -> Self {
        let before = SystemTime::now().checked_sub(FRESH).unwrap_or(UNIX_EPOCH);
        let before = before.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            kept,
            sent: ContextChanges::default(),
            fresh_ns: i128::try_from(before.as_nanos()).unwrap_or(i128::MAX),
        }
    }

    /// Whether a file is to be sent.
    fn wants(&mut self, below: &str, metadata: &Metadata) -> bool {
        let time = |seconds: i64, nanoseconds: i64| {
            i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
        };
        let (mode, modified) = (
            metadata.mode(),
            time(metadata.mtime(), metadata.mtime_nsec()),
        );
        let changed = time(metadata.ctime(), metadata.ctime_nsec());
        let mark = match (metadata.is_dir(), changed < self.fresh_ns) {
            // What is in a directory is compared by itself.
            (true, _) => format!("{mode:o} {modified}"),
            (false, false) => String::new(),
            (false, true) => format!(
                "{mode:o} {modified} {changed} {} {}",
                metadata.size(),
                metadata.ino()
            ),
        };
        let known = self.kept.marks.remove(below);
        if !mark.is_empty() && known.as_ref() == Some(&mark) {
            return false;
        }
        self.sent.sent.insert(below.to_owned(), mark);
        true
    }

    /// What is left of what the engine has is gone.
    fn changes(mut self) -> ContextChanges {
        self.sent.gone = self.kept.marks.into_keys().collect();
        self.sent
    }
}

/// A directory on its way into an archive.
struct Tree<'a> {
    tar: &'a mut Builder<Out>,
    ignore: &'a Ignore,
    /// Of a context that is kept.
    marks: Option<Marks>,
}

impl Tree<'_> {
    /// Adds what is in a directory. `below` is its path in the context.
    fn children(&mut self, directory: &Path, name: &Path, below: &str, depth: usize) -> Result<()> {
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
            if self.ignore.excludes_all_of(&below) {
                continue;
            }
            self.entry(&path, &name.join(&child), &below, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &Path, below: &str, depth: usize) -> Result<()> {
        let call = || format!("read {}", path.display());
        let metadata = std::fs::symlink_metadata(path).during(call)?;
        let kind = metadata.file_type();
        let mtime = u64::try_from(metadata.mtime()).unwrap_or(0);
        let mode = metadata.mode() & 0o7777;
        // A directory is sent for what is kept in it.
        if self.ignore.excludes(below) && !kind.is_dir() {
            return Ok(());
        }
        // Sockets and devices are of this machine.
        if !(kind.is_dir() || kind.is_file() || kind.is_symlink() || kind.is_fifo()) {
            return Ok(());
        }
        let wanted = { self.marks.as_mut() }.is_none_or(|marks| marks.wants(below, &metadata));
        let header = |kind, mode| header_of(kind, mode, mtime);
        if wanted && kind.is_symlink() {
            let target = std::fs::read_link(path).during(call)?;
            let mut header = header(EntryType::Symlink, 0o777);
            self.tar
                .append_link(&mut header, name, target)
                .during(call)?;
        } else if wanted && kind.is_file() {
            self.file(path, name, header(EntryType::Regular, mode))?;
        } else if wanted {
            let kind = match kind.is_dir() {
                true => EntryType::Directory,
                false => EntryType::Fifo,
            };
            let mut header = header(kind, mode);
            self.tar
                .append_data(&mut header, name, std::io::empty())
                .during(call)?;
        }
        match kind.is_dir() {
            true => self.children(path, name, below, depth + 1),
            false => Ok(()),
        }
    }

    fn file(&mut self, path: &Path, name: &Path, mut header: Header) -> Result<()> {
        let call = || format!("read {}", path.display());
        let file = File::open(path).during(call)?;
        let size = file.metadata().during(call)?.len();
        header.set_size(size);
        let mut content = file.take(size);
        self.tar
            .append_data(&mut header, name, &mut content)
            .during(call)?;
        match content.limit() {
            0 => Ok(()),
            _ => Err(Error::msg(format!(
                "{}: it became shorter while it was read",
                path.display()
            ))),
        }
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

    #[test]
    fn what_has_not_changed_is_not_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "a").unwrap();
        let look = || std::fs::symlink_metadata(&path).unwrap();
        let marks = |kept: &ContextChanges| {
            let mut marks = Marks::new(KeptContext {
                generation: String::new(),
                marks: kept.sent.clone(),
            });
            marks.fresh_ns = i128::MAX;
            marks
        };
        let mut first = marks(&ContextChanges::default());
        assert!(first.wants("a", &look()) && first.wants("gone", &look()));
        let sent = first.changes();
        let mut second = marks(&sent);
        assert!(!second.wants("a", &look()));
        assert_eq!(second.changes().gone, ["gone"]);
        let mut fresh = marks(&sent);
        fresh.fresh_ns = 0;
        assert!(fresh.wants("a", &look()));
        assert_eq!(fresh.changes().sent["a"], "");
        // Another file with the same size and times.
        let modified = look().modified().unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(directory.path().join("other"), "").unwrap();
        std::fs::write(&path, "b").unwrap();
        std::fs::File::open(&path)
            .unwrap()
            .set_modified(modified)
            .unwrap();
        assert!(marks(&sent).wants("a", &look()));
    }

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
            compress: true,
        };
        let mut bytes = Vec::new();
        Arc::new(parts)
            .stream(KeptContext::default())
            .unwrap()
            .read_to_end(&mut bytes)
            .await
            .unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
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
                "marks",
                "named/n",
                "named/n/a.o",
                "named/n/b.c",
                "caches/0/blobs/sha256/0"
            ]
        );
    }
}
