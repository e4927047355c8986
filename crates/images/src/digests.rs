//! Digests of files' contents: computed, several at the same time, and remembered of layers, which never change.
//!
//! What is remembered is the file `digests` in a layer's directory, which goes with the layer. Format, integers little endian:
//! [`MAGIC`], for each file its path below `diff/` with its length before it (u16) and the SHA-256 of its content (32 bytes), and in
//! the end the SHA-256 of all that.
//!
//! Invariant: the file is written whole and moved to its place. It is not synced: one that a power failure has left in part is not
//! what its end says, and counts for nothing.

use crate::find::{Layer, Stack};
use crate::{Error, Images, Result, Stop, parallel, walk};
use oci::Digest;
use oci::digest::{Algorithm, Hasher};
use rustix::fs::{FileType, Mode, OFlags};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use sys::Context as _;
use sys::root::Root;

/// Files that are hashed at the same time.
const AT_ONCE_MAX: usize = 8;
/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// The file in a layer's directory.
const DIGESTS: &str = "digests";
const MAGIC: &[u8; 8] = b"hulldig1";
const DIGEST_BYTES: usize = 32;
/// Bytes of a file of digests: those of a million files with paths of the usual length.
const BYTES_MAX: usize = 128 << 20;

/// The digest of a regular file's content, in a tree that nobody changes meanwhile.
///
/// # Errors
/// It is no regular file, it cannot be read, or nobody waits for it any more.
pub fn digest(root: &Root, path: &Path, stop: Stop<'_>) -> Result<Digest> {
    // In a tree that nobody changes it is the regular file that was found there.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = root.open_at(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd).call(|| format!("fstat(<tree>{path:?})"))?;
    if walk::file_type(&stat) != FileType::RegularFile {
        return Err(Error::Path {
            path: path.to_owned(),
            reason: "it is no longer a regular file",
        });
    }
    // A small file needs no large buffer.
    let size = usize::try_from(stat.st_size).unwrap_or(READ_BYTES);
    let mut buffer = vec![0; size.saturating_add(1).min(READ_BYTES)];
    let mut file = File::from(fd);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    loop {
        if stop() {
            return Err(Error::Stopped);
        }
        match file
            .read(&mut buffer)
            .call(|| format!("read(<tree>{path:?})"))?
        {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// The digests of regular files' contents, in the order of their paths; several are read at the same time.
///
/// # Errors
/// As [`digest`].
pub fn digests(root: &Root, paths: &[PathBuf], stop: Stop<'_>) -> Result<Vec<Digest>> {
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = paths.len().div_ceil(at_once.min(AT_ONCE_MAX)).max(1);
    let digest_all = |paths: &[PathBuf]| {
        let digests = paths.iter().map(|path| digest(root, path, stop));
        digests.collect::<Result<Vec<_>>>()
    };
    let done = parallel::each(paths.chunks(parts).collect(), AT_ONCE_MAX, digest_all)?;
    Ok(done.into_iter().flatten().collect())
}

impl Stack<'_> {
    /// The digests of the contents of regular files that were found: of each the layer, and its path. Those that had to be computed are
    /// remembered.
    ///
    /// # Errors
    /// As [`digest`], or there is no room to remember them.
    pub fn digests(&self, files: &[(usize, PathBuf)], stop: Stop<'_>) -> Result<Vec<Digest>> {
        let mut of_layers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, (layer, _)) in files.iter().enumerate() {
            of_layers.entry(*layer).or_default().push(at);
        }
        let mut all = vec![None; files.len()];
        for (layer, places) in of_layers {
            let paths: Vec<&Path> = places.iter().map(|at| files[*at].1.as_path()).collect();
            let digests = self.layers[layer].digests(self.images, &paths, stop)?;
            for (at, digest) in places.into_iter().zip(digests) {
                all[at] = Some(digest);
            }
        }
        let all = all.into_iter();
        Ok(all
            .map(|it| it.expect("every file is of a layer"))
            .collect())
    }
}

/// The digests that are known of a layer's files, by their paths below its root.
pub(crate) type Known = HashMap<Vec<u8>, Digest>;

impl Layer {
    fn digests(&self, images: &Images, paths: &[&Path], stop: Stop<'_>) -> Result<Vec<Digest>> {
        // It is whole after every statement.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match &mut *known {
            Some(known) => known,
            unread => unread.insert(read(&self.directory)?),
        };
        let is_unknown = |path: &&&Path| !known.contains_key(key(path));
        let unknown = paths
            .iter()
            .filter(is_unknown)
            .map(|path| path.to_path_buf());
        let unknown: Vec<PathBuf> = unknown.collect();
        if !unknown.is_empty() {
            let computed = digests(&self.files, &unknown, stop)?;
            let keys = unknown.iter().map(|path| key(path).to_vec());
            known.extend(keys.zip(computed));
            write(images, &self.directory, known)?;
        }
        Ok(paths.iter().map(|path| known[key(path)]).collect())
    }
}

fn key(path: &Path) -> &[u8] {
    let path = path.strip_prefix("/").unwrap_or(path);
    path.as_os_str().as_bytes()
}

/// What is remembered of a layer.
fn read(directory: &Path) -> Result<Known> {
    let path = directory.join(DIGESTS);
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Known::new()),
        bytes => {
            let bytes = bytes.call(|| format!("read({path:?})"))?;
            Ok(parse(&bytes).unwrap_or_default())
        }
    }
}

/// `None`: the file is not whole.
fn parse(bytes: &[u8]) -> Option<Known> {
    let (content, end) = bytes.split_last_chunk::<DIGEST_BYTES>()?;
    if Digest::sha256(content) != Digest::Sha256(*end) {
        return None;
    }
    let mut rest = content.strip_prefix(MAGIC)?;
    let mut known = Known::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk()?;
        let (path, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let (digest, after) = after.split_first_chunk()?;
        known.insert(path.to_vec(), Digest::Sha256(*digest));
        rest = after;
    }
    Some(known)
}

/// Remembers digests in the place of those that were remembered before.
fn write(images: &Images, directory: &Path, known: &Known) -> Result<()> {
    let mut bytes = MAGIC.to_vec();
    for (path, digest) in known {
        let Ok(length) = u16::try_from(path.len()) else {
            continue;
        };
        if bytes.len() + path.len() > BYTES_MAX {
            break;
        }
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(path);
        bytes.extend_from_slice(digest.bytes());
    }
    let end = Digest::sha256(&bytes);
    bytes.extend_from_slice(end.bytes());
    let (from, to) = (images.temporary(), directory.join(DIGESTS));
    let written = fs::write(&from, bytes).and_then(|()| fs::rename(&from, &to));
    if written.is_err() {
        // The first error says more.
        let _ = fs::remove_file(&from);
    }
    Ok(written.call(|| format!("write({to:?})"))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Store;

    const GO_ON: Stop<'static> = &|| false;

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn digests_are_in_the_order_of_the_paths() {
        let (dir, root) = tree();
        let paths: Vec<PathBuf> = (0..21).map(|number| number.to_string().into()).collect();
        for path in &paths {
            fs::write(dir.path().join(path), path.to_str().unwrap()).unwrap();
        }
        let expected =
            { paths.iter() }.map(|path| Digest::sha256(path.to_str().unwrap().as_bytes()));
        let expected: Vec<Digest> = expected.collect();
        assert_eq!(digests(&root, &paths, GO_ON).unwrap(), expected);
        assert_eq!(digests(&root, &[], GO_ON).unwrap(), []);
    }

    #[test]
    fn a_large_file_is_left_when_nobody_waits() {
        let (dir, root) = tree();
        let file = File::create(dir.path().join("large")).unwrap();
        // Hashing it would take hours.
        file.set_len(1 << 40).unwrap();
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let stop = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2;
        let result = digest(&root, Path::new("large"), &stop);
        assert!(matches!(result, Err(Error::Stopped)), "{result:?}");
    }

    #[test]
    fn what_was_computed_of_a_layer_is_remembered() {
        let store = Store::new();
        let images = &store.images;
        let layer = |id: &str, name: &str| {
            let snapshot = images.prepare_on(id, &[]).unwrap();
            fs::create_dir(snapshot.upper.join("d")).unwrap();
            fs::write(snapshot.upper.join("d").join(name), name).unwrap();
            store.take(&snapshot, None).unwrap()
        };
        let ((lower, _lower), (upper, _upper)) = (layer("a", "x"), layer("b", "y"));
        let files = [(1, "/d/x".into()), (0, "/d/y".into())];
        let digests = || {
            let stack = images.open_stack(&[lower, upper]).unwrap();
            stack.digests(&files, GO_ON).unwrap()
        };
        let right = [Digest::sha256(b"x"), Digest::sha256(b"y")];
        assert_eq!(digests(), right);
        // A layer never changes: if it did, nobody would look.
        let (file, memory) = (
            store.layer(&lower).join("d/x"),
            images.layer_path(&lower).join(DIGESTS),
        );
        fs::write(&file, "z").unwrap();
        assert_eq!(digests(), right);
        // What a crash has left in part, and what is of another form, counts for nothing.
        let whole = fs::read(&memory).unwrap();
        let flipped: Vec<u8> = { whole.iter().enumerate() }
            .map(|(at, byte)| if at == 14 { byte ^ 1 } else { *byte })
            .collect();
        for half in [
            &whole[..whole.len() - 1],
            &[],
            &vec![0; whole.len()],
            &flipped,
        ] {
            fs::write(&memory, half).unwrap();
            assert_eq!(digests(), [Digest::sha256(b"z"), right[1]]);
            assert_ne!(fs::read(&memory).unwrap(), half);
        }
    }
}
