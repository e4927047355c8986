//! Garbage collection: mark what is in use, and delete the rest when it is old enough.
//!
//! In use is every manifest of a repository and what it is made of, and every blob that a repository has. A repository loses a
//! blob when no manifest of it counts on the blob; content goes when no repository has it. Old enough is what was not pushed,
//! mounted, asked for by HEAD or counted on by a new manifest for the time of grace: a client pushes the blobs of an image
//! before its manifest.
//!
//! Invariant: whatever comes into use while this looks is spared. Who uses something renews its time, with the lock held; here
//! the time is read again, with the lock held exclusively, before a file goes (`super`).

use super::links::Kind;
use super::uploads::is_idle;
use super::{Call as _, Store, found, names};
use crate::error::Result;
use crate::server::route::Name;
use oci::Digest;
use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Files that are deleted while everybody waits.
const BATCH: usize = 64;
/// The kernel's times of files are this much behind the clock at most, generously.
const CLOCK_MARGIN: Duration = Duration::from_secs(1);

/// How to sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// What was in use so recently is spared.
    pub grace: Duration,
    /// Manifests that nobody has asked for so long go: for caches, which can fetch them again.
    pub keep: Option<Duration>,
    /// Only tells what would go.
    pub dry_run: bool,
}

/// What a sweep has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Manifests that a cache dropped.
    pub manifests: u64,
    /// Blobs that repositories no longer have.
    pub links: u64,
    /// Content that was deleted.
    pub blobs: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Uploads that nobody goes on with, and what a process that was killed has left.
    pub uploads: u64,
}

impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} blobs of {} bytes, {} links, {} manifests, {} unfinished uploads",
            self.blobs, self.bytes, self.links, self.manifests, self.uploads
        )
    }
}

/// A sweep under way.
struct Round<'a> {
    store: &'a Store,
    sweep: Sweep,
    /// Before this is old.
    cutoff: SystemTime,
    swept: Swept,
}

impl Store {
    /// Deletes what nobody uses.
    pub(crate) fn sweep(&self, sweep: Sweep) -> Result<Swept> {
        let mut round = Round::new(self, sweep);
        let mut used = HashSet::new();
        let mut repositories = Vec::new();
        self.each_repository(&mut |name| {
            repositories.push(name.clone());
            Ok(())
        })?;
        for name in &repositories {
            if let Some(keep) = sweep.keep {
                round.drop_manifests(name, before(keep))?;
            }
            round.mark(name, &mut used)?;
        }
        round.drop_content(&used)?;
        round.drop_uploads()?;
        round.drop_scratch()?;
        Ok(round.swept)
    }

    /// Deletes uploads that were left alone for so long; how many there were.
    pub(super) fn drop_uploads(&self, idle: Duration) -> Result<u64> {
        let sweep = Sweep {
            grace: idle,
            keep: None,
            dry_run: false,
        };
        let mut round = Round::new(self, sweep);
        round.drop_uploads()?;
        Ok(round.swept.uploads)
    }
}

/// The time so long ago.
fn before(age: Duration) -> SystemTime {
    let then = SystemTime::now().checked_sub(age);
    then.unwrap_or(SystemTime::UNIX_EPOCH)
}

impl<'a> Round<'a> {
    fn new(store: &'a Store, sweep: Sweep) -> Self {
        Self {
            store,
            sweep,
            cutoff: before(sweep.grace.saturating_add(CLOCK_MARGIN)),
            swept: Swept::default(),
        }
    }

    /// Takes manifests that were not asked for from a cache.
    fn drop_manifests(&mut self, name: &Name, cutoff: SystemTime) -> Result<()> {
        for (digest, link) in self.store.links(name, Kind::Manifests)? {
            if !is_older(&link, cutoff)? {
                continue;
            }
            self.swept.manifests += 1;
            if !self.sweep.dry_run {
                let subject = self
                    .store
                    .contents(&digest)?
                    .and_then(|known| known.subject);
                self.store
                    .remove_manifest(name, &digest, subject.as_ref())?;
            }
        }
        Ok(())
    }

    /// Marks what a repository uses, and takes from it what it does not.
    fn mark(&mut self, name: &Name, used: &mut HashSet<Digest>) -> Result<()> {
        // Blobs are listed first: a manifest that comes after that has renewed what it counts on.
        let blobs = self.store.links(name, Kind::Blobs)?;
        let mut counted_on = HashSet::new();
        for (digest, _) in self.store.links(name, Kind::Manifests)? {
            used.insert(digest);
            if let Some(contents) = self.store.contents(&digest)? {
                counted_on.extend(contents.blobs);
            }
        }
        let mut unused = Vec::new();
        for (digest, link) in blobs {
            if counted_on.contains(&digest) || !is_older(&link, self.cutoff)? {
                used.insert(digest);
            } else {
                unused.push(link);
            }
        }
        let (links, _) = self.delete(&unused)?;
        self.swept.links += links;
        Ok(())
    }

    /// Deletes content that is not used.
    fn drop_content(&mut self, used: &HashSet<Digest>) -> Result<()> {
        let blobs = self.store.root.join("blobs");
        for algorithm in names(&blobs)? {
            let algorithm = algorithm?;
            for prefix in names(&blobs.join(&algorithm))? {
                let directory = blobs.join(&algorithm).join(prefix?);
                let mut unused = Vec::new();
                for hex in names(&directory)? {
                    let hex = hex?;
                    let digest: Option<Digest> = format!("{algorithm}:{hex}").parse().ok();
                    if digest.is_some_and(|digest| !used.contains(&digest)) {
                        unused.push(directory.join(hex));
                    }
                }
                let (blobs, bytes) = self.delete(&unused)?;
                self.swept.blobs += blobs;
                self.swept.bytes += bytes;
            }
        }
        Ok(())
    }

    /// Deletes files that are old still; how many those were, and their bytes.
    fn delete(&self, paths: &[PathBuf]) -> Result<(u64, u64)> {
        let (mut count, mut bytes) = (0, 0);
        for batch in paths.chunks(BATCH) {
            let _hold = self.store.exclude()?;
            for path in batch {
                if !is_older(path, self.cutoff)? {
                    continue;
                }
                let size = found(fs::metadata(path)).call(|| format!("stat({path:?})"))?;
                if !self.sweep.dry_run && !super::remove(path)? {
                    continue;
                }
                count += 1;
                bytes += size.map_or(0, |size| size.len());
            }
        }
        Ok((count, bytes))
    }

    /// Deletes uploads that nobody goes on with.
    fn drop_uploads(&mut self) -> Result<()> {
        let uploads = self.store.root.join("uploads");
        for id in names(&uploads)? {
            let directory = uploads.join(id?);
            let data = directory.join("data");
            let opened = found(File::open(&data)).call(|| format!("open({data:?})"))?;
            let file = match opened {
                Some(_) if !is_older(&data, self.cutoff)? => continue,
                None if !is_older(&directory, self.cutoff)? => continue,
                file => file,
            };
            if let Some(file) = &file
                && !is_idle(file).call(|| format!("flock({data:?})"))?
            {
                continue;
            }
            self.swept.uploads += 1;
            if !self.sweep.dry_run {
                let removed = found(fs::remove_dir_all(&directory));
                removed.call(|| format!("rmdir({directory:?})"))?;
            }
        }
        Ok(())
    }

    /// Deletes what was being written by processes that were killed.
    fn drop_scratch(&mut self) -> Result<()> {
        let scratch = self.store.root.join("tmp");
        for file in names(&scratch)? {
            let path = scratch.join(file?);
            if is_older(&path, self.cutoff)? {
                self.swept.uploads += 1;
                if !self.sweep.dry_run {
                    super::remove(&path)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a file is there and was not renewed since a time.
fn is_older(path: &Path, cutoff: SystemTime) -> Result<bool> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let modified = found(modified).call(|| format!("stat({path:?})"))?;
    Ok(modified.is_some_and(|modified| modified < cutoff))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::store::links::NewManifest;

    const EVERYTHING: Sweep = Sweep {
        grace: Duration::ZERO,
        keep: None,
        dry_run: false,
    };

    struct Fixture {
        _directory: tempfile::TempDir,
        store: Store,
        name: Name,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(directory.path()).unwrap();
            Self {
                _directory: directory,
                store,
                name: Name::new("a/b").unwrap(),
            }
        }

        fn blob(&self, content: &str) -> Digest {
            let digest = Digest::sha256(content.as_bytes());
            self.place(content, &digest);
            let hold = self.store.share().unwrap();
            assert!(self.store.link_blob(&hold, &self.name, &digest).unwrap());
            digest
        }

        fn place(&self, content: &str, digest: &Digest) {
            let scratch = self.store.scratch().unwrap();
            fs::write(&scratch, content).unwrap();
            let hold = self.store.share().unwrap();
            self.store.place(&hold, &scratch, digest).unwrap();
        }

        fn manifest(&self, blob: &Digest) -> Digest {
            let content = format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"x","digest":"{blob}","size":1}},"layers":[]}}"#
            );
            let digest = Digest::sha256(content.as_bytes());
            self.place(&content, &digest);
            let new = NewManifest {
                digest,
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                blobs: vec![*blob],
                referrer: None,
                tags: vec!["latest".to_owned()],
            };
            let hold = self.store.share().unwrap();
            let missing = self.store.add_manifest(&hold, &self.name, &new).unwrap();
            assert_eq!(missing, None);
            digest
        }

        /// Makes all files as old as the epoch.
        fn age(&self) {
            let mut pending = vec![self.store.root.clone()];
            while let Some(directory) = pending.pop() {
                for entry in fs::read_dir(directory).unwrap() {
                    let path = entry.unwrap().path();
                    let file = File::open(&path).unwrap();
                    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
                    if path.is_dir() {
                        pending.push(path);
                    }
                }
            }
        }

        fn has(&self, digest: &Digest) -> bool {
            self.store.open_content(digest).unwrap().is_some()
        }
    }

    #[test]
    fn what_a_manifest_counts_on_stays_and_the_rest_goes() {
        let fixture = Fixture::new();
        let (used, unused) = (fixture.blob("used"), fixture.blob("unused"));
        let manifest = fixture.manifest(&used);
        fixture.age();
        let dry = Sweep {
            dry_run: true,
            ..EVERYTHING
        };
        let found = fixture.store.sweep(dry).unwrap();
        assert!(
            fixture
                .store
                .blob(&fixture.name, &unused)
                .unwrap()
                .is_some()
        );
        let swept = fixture.store.sweep(EVERYTHING).unwrap();
        assert_eq!((swept.links, swept.blobs, swept.bytes), (1, 1, 6));
        assert_eq!(found, swept);
        assert!(fixture.has(&used) && fixture.has(&manifest) && !fixture.has(&unused));
        assert!(
            fixture
                .store
                .remove_manifest(&fixture.name, &manifest, None)
                .unwrap()
        );
        assert_eq!(fixture.store.sweep(EVERYTHING).unwrap().blobs, 2);
        assert!(!fixture.has(&used) && !fixture.has(&manifest));
    }

    #[test]
    fn what_is_new_is_spared() {
        let fixture = Fixture::new();
        let pushed = fixture.blob("pushed");
        let grace = Sweep {
            grace: Duration::from_secs(3600),
            ..EVERYTHING
        };
        assert_eq!(fixture.store.sweep(grace).unwrap(), Swept::default());
        fixture.age();
        // Somebody asks for it, and will not push it therefore.
        let size = fixture.store.promise_blob(&fixture.name, &pushed).unwrap();
        assert_eq!(size, Some(6));
        assert_eq!(fixture.store.sweep(grace).unwrap(), Swept::default());
        assert!(fixture.has(&pushed));
        fixture.age();
        assert_eq!(fixture.store.sweep(grace).unwrap().blobs, 1);
    }

    #[test]
    fn what_comes_into_use_before_it_goes_is_spared() {
        let fixture = Fixture::new();
        let blob = fixture.blob("late");
        fixture.age();
        let round = Round::new(&fixture.store, EVERYTHING);
        let links = fixture.store.links(&fixture.name, Kind::Blobs).unwrap();
        let unused = [links[0].1.clone(), fixture.store.blob_path(&blob)];
        // Found unused; then a manifest counts on it.
        fixture.manifest(&blob);
        assert_eq!(round.delete(&unused).unwrap(), (0, 0));
        assert!(fixture.store.blob(&fixture.name, &blob).unwrap().is_some());
    }

    #[test]
    fn what_was_left_behind_goes() {
        use crate::server::store::uploads::Hashes;
        use oci::digest::Algorithm;
        let fixture = Fixture::new();
        let begin = || {
            let (store, name) = (&fixture.store, &fixture.name);
            { store.begin_upload(&Hashes::default(), name, Algorithm::Sha256) }.unwrap()
        };
        let (left, busy) = (begin(), begin());
        drop(left);
        fs::write(fixture.store.scratch().unwrap(), "half").unwrap();
        fixture.age();
        assert_eq!(fixture.store.sweep(EVERYTHING).unwrap().uploads, 2);
        drop(busy);
        assert_eq!(fixture.store.sweep(EVERYTHING).unwrap().uploads, 1);
    }

    #[test]
    fn a_cache_drops_what_nobody_asks_for() {
        let fixture = Fixture::new();
        let manifest = fixture.manifest(&fixture.blob("cached"));
        let cache = Sweep {
            keep: Some(Duration::from_secs(3600)),
            ..EVERYTHING
        };
        assert_eq!(fixture.store.sweep(cache).unwrap().manifests, 0);
        fixture.age();
        let swept = fixture.store.sweep(cache).unwrap();
        assert_eq!((swept.manifests, swept.blobs), (1, 2));
        assert!(!fixture.has(&manifest));
    }
}
