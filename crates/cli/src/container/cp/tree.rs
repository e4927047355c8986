//! Files of this machine as a tar stream, written by a thread while it is sent.

use crate::error::{Error, IoContext, Result};
use std::io::{self, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use tar::Builder;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;

/// How deep directories may lie in each other: the kernel takes no longer paths than this allows.
const DEPTH_MAX: usize = 2048;

/// A tar archive that is made while it is read. When making it fails, reading it does, too: it never looks complete.
#[derive(Debug)]
pub(crate) struct TarStream {
    pipe: pipe::Receiver,
    writer: Option<JoinHandle<()>>,
    failure: Failure,
    count: Count,
}

/// Why an archive could not be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    /// The failure to make the archive where there is one, or else what came of sending it.
    pub(crate) fn or<T>(&self, result: client::Result<T>) -> Result<T> {
        match self.take() {
            // The reader went away: it knows why.
            Some(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
                Ok(result?)
            }
            Some(error) => Err(error),
            None => Ok(result?),
        }
    }

    fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_set(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    fn set(&self, error: Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// Bytes of the archive so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count(Arc<AtomicU64>);

impl Count {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TarStream {
    /// The content of a directory.
    pub(crate) fn of_directory(path: &Path) -> Result<Self> {
        Self::of_path(path.to_owned(), None)
    }

    /// A file or directory under `name`; without a name a directory's content.
    pub(crate) fn of_path(path: PathBuf, name: Option<String>) -> Result<Self> {
        Self::made_by(move |sink| write(sink, &path, name.as_deref()))
    }

    /// Whatever `make` writes, on a thread of its own.
    pub(crate) fn made_by(make: impl FnOnce(Sink) -> Result<()> + Send + 'static) -> Result<Self> {
        let (reader, writer) = io::pipe().during(|| "pipe2()")?;
        let pipe =
            pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).during(|| "register a pipe")?;
        let (failure, count) = (Failure::default(), Count::default());
        let (thread_failure, thread_count) = (failure.clone(), count.clone());
        let thread = move || {
            let sink = Sink {
                writer,
                count: thread_count,
            };
            if let Err(error) = make(sink) {
                thread_failure.set(error);
            }
        };
        let writer = std::thread::Builder::new()
            .name("tar".to_owned())
            .spawn(thread)
            .during(|| "clone3()")?;
        Ok(Self {
            pipe,
            writer: Some(writer),
            failure,
            count,
        })
    }

    pub(crate) fn failure(&self) -> Failure {
        self.failure.clone()
    }

    pub(crate) fn count(&self) -> Count {
        self.count.clone()
    }
}

impl AsyncRead for TarStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(context, buffer))?;
        if buffer.filled().len() == before
            && let Some(writer) = self.writer.take()
        {
            // It has closed its end, so it is about to end itself.
            let panicked = writer.join().is_err();
            if panicked || self.failure.is_set() {
                return Poll::Ready(Err(io::Error::other("the archive could not be made")));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Where an archive is written to.
#[derive(Debug)]
pub(crate) struct Sink {
    writer: PipeWriter,
    count: Count,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        self.count
            .0
            .fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn write(sink: impl Write, path: &Path, name: Option<&str>) -> Result<()> {
    let mut builder = Builder::new(sink);
    builder.follow_symlinks(false);
    match name {
        Some(name) => append(&mut builder, path, Path::new(name), 0)?,
        None => append_children(&mut builder, path, Path::new(""), 0)?,
    }
    builder
        .into_inner()
        .and_then(|mut sink| sink.flush())
        .during(|| "write the archive")
}

/// Adds a file, or a directory with all it holds. Sockets are left out, as archives have no form for them.
fn append(builder: &mut Builder<impl Write>, path: &Path, name: &Path, depth: usize) -> Result<()> {
    use std::os::unix::fs::FileTypeExt;
    if depth > DEPTH_MAX {
        return Err(Error::msg(format!(
            "{}: more than {DEPTH_MAX} directories deep",
            path.display()
        )));
    }
    let kind = std::fs::symlink_metadata(path)
        .during(|| format!("lstat {}", path.display()))?
        .file_type();
    if kind.is_socket() {
        return Ok(());
    }
    builder
        .append_path_with_name(path, name)
        .during(|| format!("read {}", path.display()))?;
    if kind.is_dir() {
        append_children(builder, path, name, depth + 1)?;
    }
    Ok(())
}

fn append_children(
    builder: &mut Builder<impl Write>,
    path: &Path,
    name: &Path,
    depth: usize,
) -> Result<()> {
    let call = || format!("read {}", path.display());
    let entries = std::fs::read_dir(path).during(call)?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()
        .during(call)?;
    names.sort();
    for child in names {
        append(builder, &path.join(&child), &name.join(&child), depth)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tokio::io::AsyncReadExt;

    async fn names(path: &Path, name: Option<&str>) -> Vec<String> {
        let mut stream = TarStream::of_path(path.to_owned(), name.map(str::to_owned)).unwrap();
        let count = stream.count();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(count.get(), u64::try_from(bytes.len()).unwrap());
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect()
    }

    #[tokio::test]
    async fn trees_are_named_as_asked() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/file"), "x").unwrap();
        symlink("nowhere", root.join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        assert_eq!(
            names(&root, Some("new")).await,
            ["new", "new/link", "new/sub", "new/sub/file"]
        );
        assert_eq!(names(&root, None).await, ["link", "sub", "sub/file"]);
        assert_eq!(names(&root.join("sub/file"), Some("f")).await, ["f"]);
    }

    #[tokio::test]
    async fn an_archive_that_fails_is_never_complete() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        let mut stream = TarStream::of_path(missing, Some("x".to_owned())).unwrap();
        let failure = stream.failure();
        assert!(stream.read_to_end(&mut Vec::new()).await.is_err());
        assert!(
            failure
                .or(Ok(()))
                .unwrap_err()
                .to_string()
                .contains("missing")
        );
    }
}
