//! Uploads under way: `uploads/<uuid>/about` says of which repository, `data` is what has come.
//!
//! An upload outlives the process that began it: how far it is, is the length of its file. The state of its hash is kept in
//! memory, and computed anew from the file where it is not there. One request at a time writes to an upload: it holds the
//! file's lock.

use super::{Call as _, Store, found, make_directory, names, random_id};
use crate::error::{Error, Result};
use crate::server::route::{Name, UploadId};
use bytes::Bytes;
use oci::Digest;
use oci::digest::{Algorithm, Hasher};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Uploads under way, of all repositories.
pub(crate) const UPLOADS_MAX: usize = 1000;
/// How long one may be left alone when there are as many.
const UPLOAD_IDLE: Duration = Duration::from_secs(600);
/// Bytes of a file that are hashed at once.
const REREAD_BYTES: usize = 1 << 20;

/// The hashes of uploads that no request is at, each with how much it has seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hashes(Arc<Mutex<HashMap<UploadId, (u64, Hasher)>>>);

impl Hashes {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<UploadId, (u64, Hasher)>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, id: &UploadId) -> Option<(u64, Hasher)> {
        self.with(|known| known.remove(id))
    }

    /// Without a place its hash is computed anew in the end: nothing is lost but time.
    fn put(&self, id: &UploadId, length: u64, hasher: Hasher) {
        self.with(|known| {
            if known.len() < UPLOADS_MAX {
                known.insert(id.clone(), (length, hasher));
            }
        });
    }
}

/// An upload that a request is at.
#[derive(Debug)]
pub(crate) struct Upload {
    id: UploadId,
    directory: PathBuf,
    /// Locked; at its end.
    file: File,
    length: u64,
    /// Of all that has come, where it is known.
    hasher: Option<Hasher>,
    hashes: Hashes,
}

impl Upload {
    pub(crate) fn id(&self) -> &UploadId {
        &self.id
    }

    /// How many bytes have come.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Adds pieces.
    pub(crate) fn append(&mut self, pieces: &[Bytes]) -> Result<()> {
        for piece in pieces {
            if let Err(source) = self.file.write_all(piece) {
                // A part of the piece may be there, which the hash has not seen.
                let hasher = self.hasher.take();
                self.truncate(self.length, hasher)?;
                let call = format!("write({:?})", self.directory.join("data"));
                return Err(Error::Storage { call, source });
            }
            self.length += piece.len() as u64;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(piece);
            }
        }
        Ok(())
    }

    /// What `roll_back` needs to come back to where the upload is now.
    pub(crate) fn mark(&self) -> (u64, Option<Hasher>) {
        (self.length, self.hasher.clone())
    }

    /// Forgets what has come since a mark.
    pub(crate) fn roll_back(&mut self, (length, hasher): (u64, Option<Hasher>)) -> Result<()> {
        self.truncate(length, hasher)
    }

    fn truncate(&mut self, length: u64, hasher: Option<Hasher>) -> Result<()> {
        let cut = { self.file.set_len(length) }.and_then(|()| self.file.seek(SeekFrom::End(0)));
        cut.call(|| format!("ftruncate({:?}, {length})", self.directory.join("data")))?;
        self.length = length;
        self.hasher = hasher;
        Ok(())
    }

    /// The digest of all that has come.
    fn digest(&mut self, algorithm: Algorithm) -> Result<Digest> {
        if let Some(hasher) = self.hasher.take()
            && hasher.algorithm() == algorithm
        {
            return Ok(hasher.finish());
        }
        let mut hasher = Hasher::new(algorithm);
        let mut piece = vec![0; REREAD_BYTES];
        let path = self.directory.join("data");
        { self.file.rewind() }.call(|| format!("lseek({path:?}, 0)"))?;
        loop {
            let count = self.file.read(&mut piece);
            let count = count.call(|| format!("read({path:?})"))?;
            if count == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&piece[..count]);
        }
    }

    /// Makes it a blob of a repository. What has another digest than the expected one is cancelled; the one it has is returned.
    pub(crate) fn finish(
        mut self,
        store: &Store,
        name: &Name,
        expected: &Digest,
    ) -> Result<Option<Digest>> {
        let digest = self.digest(expected.algorithm())?;
        if digest != *expected {
            self.cancel()?;
            return Ok(Some(digest));
        }
        let data = self.directory.join("data");
        { self.file.sync_data() }.call(|| format!("fdatasync({data:?})"))?;
        let hold = store.share()?;
        store.place(&hold, &data, expected)?;
        store.link_blob(&hold, name, expected)?;
        drop(hold);
        self.forget()?;
        Ok(None)
    }

    /// Ends it with nothing.
    pub(crate) fn cancel(self) -> Result<()> {
        self.forget()
    }

    fn forget(self) -> Result<()> {
        let directory = &self.directory;
        { found(fs::remove_dir_all(directory)) }.call(|| format!("rmdir({directory:?})"))?;
        Ok(())
    }

    /// Leaves it for the next request.
    pub(crate) fn suspend(mut self) {
        if let Some(hasher) = self.hasher.take() {
            self.hashes.put(&self.id, self.length, hasher);
        }
    }
}

impl Store {
    /// Begins an upload.
    pub(crate) fn begin_upload(
        &self,
        hashes: &Hashes,
        name: &Name,
        algorithm: Algorithm,
    ) -> Result<Upload> {
        let uploads = self.root.join("uploads");
        let is_full = || Ok(names(&uploads)?.take(UPLOADS_MAX).count() >= UPLOADS_MAX);
        // Those that nobody goes on with make place for others.
        if is_full()? && (self.drop_uploads(UPLOAD_IDLE)? == 0 || is_full()?) {
            return Err(Error::TooManyUploads(UPLOADS_MAX));
        }
        let id = random_id()?;
        let directory = uploads.join(id.as_str());
        make_directory(&directory)?;
        let about = directory.join("about");
        fs::write(&about, name.as_str()).call(|| format!("write({about:?})"))?;
        let data = directory.join("data");
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create_new(true).open(&data);
        let file = file.call(|| format!("open({data:?}, O_CREAT|O_EXCL)"))?;
        lock(&file, &id)?;
        Ok(Upload {
            id,
            directory,
            file,
            length: 0,
            hasher: Some(Hasher::new(algorithm)),
            hashes: hashes.clone(),
        })
    }

    /// Goes on with an upload.
    pub(crate) fn resume_upload(
        &self,
        hashes: &Hashes,
        name: &Name,
        id: &UploadId,
    ) -> Result<Upload> {
        let directory = self.root.join("uploads").join(id.as_str());
        let missing = || Error::NoUpload(id.to_string());
        let about = directory.join("about");
        let of = found(fs::read_to_string(&about)).call(|| format!("read({about:?})"))?;
        if of.as_deref() != Some(name.as_str()) {
            return Err(missing());
        }
        let data = directory.join("data");
        let opened = found(OpenOptions::new().read(true).append(true).open(&data));
        let file = { opened.call(|| format!("open({data:?})"))? }.ok_or_else(missing)?;
        lock(&file, id)?;
        let opened = file.metadata().call(|| format!("fstat({data:?})"))?;
        // Whoever had the lock may have made a blob of it meanwhile.
        let named = found(fs::metadata(&data)).call(|| format!("stat({data:?})"))?;
        if named.is_none_or(|named| named.ino() != opened.ino()) {
            return Err(missing());
        }
        let length = opened.len();
        let known = hashes.take(id).filter(|(seen, _)| *seen == length);
        Ok(Upload {
            id: id.clone(),
            directory,
            file,
            length,
            hasher: known.map(|(_, hasher)| hasher),
            hashes: hashes.clone(),
        })
    }
}

fn lock(file: &File, id: &UploadId) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Error::UploadBusy(id.to_string())),
        Err(TryLockError::Error(source)) => Err(source).call(|| format!("flock(upload {id})")),
    }
}

/// Whether an upload's lock is free, and it may be taken away.
pub(super) fn is_idle(data: &File) -> io::Result<bool> {
    match data.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (tempfile::TempDir, Store, Name) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        (directory, store, Name::new("a/b").unwrap())
    }

    #[test]
    fn an_upload_goes_on_after_its_process_has_ended() {
        let (_directory, store, name) = fixture();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut upload =
                { store.begin_upload(&Hashes::default(), &name, Algorithm::Sha256) }.unwrap();
            let id = upload.id().clone();
            upload.append(&[Bytes::from_static(b"one ")]).unwrap();
            drop(upload);
            // Nothing of the first process's memory is there.
            let hashes = Hashes::default();
            let mut upload = store.resume_upload(&hashes, &name, &id).unwrap();
            assert_eq!(upload.length(), 4);
            upload.append(&[Bytes::from_static(b"two")]).unwrap();
            upload.suspend();
            let upload = store.resume_upload(&hashes, &name, &id).unwrap();
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"one two");
            let digest = hasher.finish();
            assert_eq!(upload.finish(&store, &name, &digest).unwrap(), None);
            assert_eq!(store.blob(&name, &digest).unwrap().unwrap().1, 7);
            let again = store.resume_upload(&hashes, &name, &id);
            assert!(matches!(again, Err(Error::NoUpload(_))));
        }
    }

    #[test]
    fn one_request_at_a_time_is_at_an_upload() {
        let (_directory, store, name) = fixture();
        let hashes = Hashes::default();
        let upload = { store.begin_upload(&hashes, &name, Algorithm::Sha256) }.unwrap();
        let second = store.resume_upload(&hashes, &name, upload.id());
        assert!(matches!(second, Err(Error::UploadBusy(_))));
        let other = Name::new("c").unwrap();
        let foreign = store.resume_upload(&hashes, &other, upload.id());
        assert!(matches!(foreign, Err(Error::NoUpload(_))));
    }

    #[test]
    fn a_chunk_is_rolled_back_with_its_hash() {
        let (_directory, store, name) = fixture();
        let mut upload =
            { store.begin_upload(&Hashes::default(), &name, Algorithm::Sha256) }.unwrap();
        upload.append(&[Bytes::from_static(b"good")]).unwrap();
        let mark = upload.mark();
        upload.append(&[Bytes::from_static(b"bad")]).unwrap();
        upload.roll_back(mark).unwrap();
        let digest = Digest::sha256(b"good");
        assert_eq!(upload.finish(&store, &name, &digest).unwrap(), None);
    }

    #[test]
    fn what_has_another_digest_leaves_nothing() {
        let (directory, store, name) = fixture();
        let mut upload =
            { store.begin_upload(&Hashes::default(), &name, Algorithm::Sha256) }.unwrap();
        upload.append(&[Bytes::from_static(b"lie")]).unwrap();
        let promised = Digest::sha256(b"truth");
        let found = upload.finish(&store, &name, &promised).unwrap();
        assert_eq!(found, Some(Digest::sha256(b"lie")));
        assert!(store.blob(&name, &promised).unwrap().is_none());
        let left = fs::read_dir(directory.path().join("uploads")).unwrap();
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn there_is_a_limit_of_uploads() {
        let (directory, store, name) = fixture();
        for number in 0..UPLOADS_MAX {
            fs::create_dir(directory.path().join(format!("uploads/{number}"))).unwrap();
        }
        let begun = store.begin_upload(&Hashes::default(), &name, Algorithm::Sha256);
        assert!(matches!(begun, Err(Error::TooManyUploads(_))));
    }
}
