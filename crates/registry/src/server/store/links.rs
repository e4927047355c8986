//! What a repository has: blobs, manifests, tags, referrers. Each is a small file that names content.

use super::page::{Page, Pager};
use super::{
    Call as _, Hold, Store, found, make_directory, names, remove, sync_directory, touch,
    write_synced,
};
use crate::error::{Error, Result};
use crate::server::manifest::Contents;
use crate::server::route::Name;
use oci::Digest;
use oci::image::{Descriptor, MANIFEST_BYTES_MAX};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A link in use is renewed no more often than this: it is a write where there was none. A sweep's grace should be longer.
const RENEW_S: u64 = 3600;

/// A manifest for a repository, checked, its content in its place.
#[derive(Debug)]
pub(crate) struct NewManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    /// What it counts on: content of this repository that has to be there still.
    pub(crate) blobs: Vec<Digest>,
    /// The manifest that it refers to, and the descriptor to find it by there.
    pub(crate) referrer: Option<(Digest, Descriptor)>,
    pub(crate) tags: Vec<String>,
}

impl Store {
    pub(super) fn repositories(&self) -> PathBuf {
        self.root.join("repositories")
    }

    fn repository(&self, name: &Name) -> PathBuf {
        self.repositories().join(name.as_str())
    }

    /// Whether anything was ever pushed to a repository.
    pub(crate) fn has_repository(&self, name: &Name) -> bool {
        is_repository(&self.repository(name))
    }

    fn blob_link(&self, name: &Name, digest: &Digest) -> PathBuf {
        digest_path(self.repository(name).join("_blobs"), digest)
    }

    fn manifest_link(&self, name: &Name, digest: &Digest) -> PathBuf {
        digest_path(self.repository(name).join("_manifests"), digest)
    }

    fn tag_link(&self, name: &Name, tag: &str) -> PathBuf {
        self.repository(name).join("_tags").join(tag)
    }

    fn referrers_directory(&self, name: &Name, subject: &Digest) -> PathBuf {
        digest_path(self.repository(name).join("_referrers"), subject)
    }

    /// Opens a blob of a repository, and tells its size.
    pub(crate) fn blob(&self, name: &Name, digest: &Digest) -> Result<Option<(File, u64)>> {
        let link = self.blob_link(name, digest);
        if exists(&link)? {
            self.open_content(digest)
        } else {
            Ok(None)
        }
    }

    /// Whether a repository has a blob, for somebody who will count on it instead of pushing it: it is kept from being swept
    /// away. Its size.
    pub(crate) fn promise_blob(&self, name: &Name, digest: &Digest) -> Result<Option<u64>> {
        let link = self.blob_link(name, digest);
        let Some(is_due) = is_renewal_due(&link)? else {
            return Ok(None);
        };
        if is_due {
            let _hold = self.share()?;
            if !self.renew_dependency(name, digest)? {
                return Ok(None);
            }
        }
        Ok(self.open_content(digest)?.map(|(_, size)| size))
    }

    /// Gives a repository some content that is there, which `false` denies.
    pub(crate) fn link_blob(&self, hold: &Hold, name: &Name, digest: &Digest) -> Result<bool> {
        if !touch(&self.blob_path(digest))? {
            return Ok(false);
        }
        self.link(hold, &self.blob_link(name, digest), b"")?;
        Ok(true)
    }

    /// Takes a blob from a repository; `false` when it has none.
    pub(crate) fn remove_blob(&self, name: &Name, digest: &Digest) -> Result<bool> {
        let _hold = self.exclude()?;
        remove(&self.blob_link(name, digest))
    }

    fn link(&self, _hold: &Hold, path: &Path, content: &[u8]) -> Result<()> {
        let directory = super::parent(path);
        make_directory(directory)?;
        if content.is_empty() {
            // Nothing that could be half written.
            File::create(path).call(|| format!("open({path:?}, O_CREAT|O_TRUNC)"))?;
            touch(path)?;
            return sync_directory(directory);
        }
        self.write(path, content)
    }

    /// Opens a manifest of a repository, and tells its media type and its size.
    pub(crate) fn manifest(
        &self,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<(String, File, u64)>> {
        let link = self.manifest_link(name, digest);
        let media_type = found(fs::read_to_string(&link)).call(|| format!("read({link:?})"))?;
        let Some(media_type) = media_type else {
            return Ok(None);
        };
        let content = self.open_content(digest)?;
        Ok(content.map(|(file, size)| (media_type, file, size)))
    }

    /// What a manifest that is there is made of. One that cannot be read, which only damage does, is made of nothing.
    pub(crate) fn contents(&self, digest: &Digest) -> Result<Option<Contents>> {
        let Some((file, _)) = self.open_content(digest)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let read = file.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes);
        read.call(|| format!("read({digest})"))?;
        match Contents::read(&bytes) {
            Ok(contents) => Ok(Some(contents)),
            Err(reason) => {
                tracing::warn!(%digest, reason, "a manifest cannot be read");
                Ok(None)
            }
        }
    }

    /// Keeps a manifest that somebody has asked for in a cache.
    pub(crate) fn renew_manifest(&self, name: &Name, digest: &Digest) -> Result<()> {
        let link = self.manifest_link(name, digest);
        if is_renewal_due(&link)? == Some(true) {
            touch(&link)?;
        }
        Ok(())
    }

    /// Gives a repository a manifest. What it counts on is renewed first; the first of it that is missing is returned, and
    /// nothing was done.
    pub(crate) fn add_manifest(
        &self,
        hold: &Hold,
        name: &Name,
        new: &NewManifest,
    ) -> Result<Option<Digest>> {
        for digest in &new.blobs {
            if !self.renew_dependency(name, digest)? {
                return Ok(Some(*digest));
            }
        }
        if let Some((subject, descriptor)) = &new.referrer {
            let path = { self.referrers_directory(name, subject) }.join(flat(&new.digest));
            let descriptor = serde_json::to_vec(descriptor)
                .map_err(io::Error::from)
                .call(|| format!("encode the descriptor of {}", new.digest))?;
            self.link(hold, &path, &descriptor)?;
        }
        let link = self.manifest_link(name, &new.digest);
        self.link(hold, &link, new.media_type.as_bytes())?;
        for tag in &new.tags {
            self.link(
                hold,
                &self.tag_link(name, tag),
                new.digest.to_string().as_bytes(),
            )?;
        }
        Ok(None)
    }

    /// Writes a manifest and gives it to a repository, as `add_manifest` does.
    pub(crate) fn push_manifest(
        &self,
        name: &Name,
        bytes: &[u8],
        new: &NewManifest,
    ) -> Result<Option<Digest>> {
        let scratch = self.scratch()?;
        let added = write_synced(&scratch, bytes).and_then(|()| {
            let hold = self.share()?;
            self.place(&hold, &scratch, &new.digest)?;
            self.add_manifest(&hold, name, new)
        });
        if added.is_err() {
            // Where it was placed it is not there any more; else what is left is swept away later.
            let _ = fs::remove_file(&scratch);
        }
        added
    }

    fn renew_dependency(&self, name: &Name, digest: &Digest) -> Result<bool> {
        Ok(touch(&self.blob_link(name, digest))? && touch(&self.blob_path(digest))?)
    }

    /// Takes a manifest, and the tags that name it, from a repository; `false` when it has none.
    pub(crate) fn remove_manifest(
        &self,
        name: &Name,
        digest: &Digest,
        subject: Option<&Digest>,
    ) -> Result<bool> {
        let _hold = self.exclude()?;
        let tags: Vec<String> =
            { names(&self.repository(name).join("_tags"))? }.collect::<Result<_>>()?;
        for tag in tags {
            if self
                .tag(name, &tag)?
                .is_some_and(|(named, _)| named == *digest)
            {
                remove(&self.tag_link(name, &tag))?;
            }
        }
        if let Some(subject) = subject {
            remove(&self.referrers_directory(name, subject).join(flat(digest)))?;
        }
        remove(&self.manifest_link(name, digest))
    }

    /// What a tag names, and since when it does, or was last found to.
    pub(crate) fn tag(&self, name: &Name, tag: &str) -> Result<Option<(Digest, SystemTime)>> {
        let path = self.tag_link(name, tag);
        let text = found(fs::read_to_string(&path)).call(|| format!("read({path:?})"))?;
        let Some(text) = text else { return Ok(None) };
        let digest = text.parse().map_err(|error| invalid(&path, error))?;
        let since = fs::metadata(&path).and_then(|metadata| metadata.modified());
        let since = found(since).call(|| format!("stat({path:?})"))?;
        Ok(since.map(|since| (digest, since)))
    }

    /// Says that a tag names what it did.
    pub(crate) fn renew_tag(&self, name: &Name, tag: &str) -> Result<()> {
        touch(&self.tag_link(name, tag)).map(drop)
    }

    /// Takes a tag from a repository; `false` when it has none.
    pub(crate) fn remove_tag(&self, name: &Name, tag: &str) -> Result<bool> {
        let _hold = self.exclude()?;
        remove(&self.tag_link(name, tag))
    }

    /// The tags of a repository after one.
    pub(crate) fn tags(&self, name: &Name, after: &str, names_max: usize) -> Result<Page> {
        let mut pager = Pager::new(after, names_max);
        for tag in names(&self.repository(name).join("_tags"))? {
            pager.add(tag?);
        }
        Ok(pager.page())
    }

    /// The names of all repositories that are wanted, after one.
    pub(crate) fn catalog(
        &self,
        after: &str,
        names_max: usize,
        wanted: impl Fn(&Name) -> bool,
    ) -> Result<Page> {
        let mut pager = Pager::new(after, names_max);
        self.each_repository(&mut |name| {
            if wanted(name) {
                pager.add(name.as_str().to_owned());
            }
            Ok(())
        })?;
        Ok(pager.page())
    }

    /// Calls for each repository, in no order.
    pub(super) fn each_repository(&self, act: &mut dyn FnMut(&Name) -> Result<()>) -> Result<()> {
        let mut pending = vec![String::new()];
        while let Some(prefix) = pending.pop() {
            let directory = self.repositories().join(&prefix);
            if let Some(name) = Name::new(&prefix)
                && is_repository(&directory)
            {
                act(&name)?;
            }
            for component in names(&directory)? {
                let component = component?;
                if !component.starts_with('_') {
                    let separator = if prefix.is_empty() { "" } else { "/" };
                    pending.push(format!("{prefix}{separator}{component}"));
                }
            }
        }
        Ok(())
    }

    /// The manifests of a repository that refer to one, by the names of their files, after one of those.
    pub(crate) fn referrers(
        &self,
        name: &Name,
        subject: &Digest,
        after: &str,
        mut each: impl FnMut(&str, Descriptor) -> bool,
    ) -> Result<()> {
        let directory = self.referrers_directory(name, subject);
        let mut sorted = BTreeSet::new();
        for file in names(&directory)? {
            let file = file?;
            if file.as_str() > after {
                sorted.insert(file);
            }
        }
        for file in sorted {
            let path = directory.join(&file);
            let bytes = found(fs::read(&path)).call(|| format!("read({path:?})"))?;
            let Some(bytes) = bytes else { continue };
            let descriptor: Descriptor =
                serde_json::from_slice(&bytes).map_err(|error| invalid(&path, error))?;
            // It is written before the manifest is there.
            if exists(&self.manifest_link(name, &descriptor.digest))? && !each(&file, descriptor) {
                break;
            }
        }
        Ok(())
    }

    /// The digests in one of a repository's directories, and their files.
    pub(super) fn links(&self, name: &Name, kind: Kind) -> Result<Vec<(Digest, PathBuf)>> {
        let directory = self.repository(name).join(match kind {
            Kind::Blobs => "_blobs",
            Kind::Manifests => "_manifests",
        });
        let mut links = Vec::new();
        for algorithm in names(&directory)? {
            let algorithm = algorithm?;
            for hex in names(&directory.join(&algorithm))? {
                let hex = hex?;
                if let Ok(digest) = format!("{algorithm}:{hex}").parse() {
                    links.push((digest, directory.join(&algorithm).join(hex)));
                }
            }
        }
        Ok(links)
    }
}

/// What a repository links to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Blobs,
    Manifests,
}

fn is_repository(directory: &Path) -> bool {
    let has = |kind| directory.join(kind).is_dir();
    has("_manifests") || has("_blobs")
}

fn digest_path(mut directory: PathBuf, digest: &Digest) -> PathBuf {
    directory.extend([digest.algorithm().name(), &digest.hex()]);
    directory
}

/// A digest as the name of one file.
fn flat(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().call(|| format!("stat({path:?})"))
}

/// Whether a link was not renewed for long; `None` when it is not there.
fn is_renewal_due(path: &Path) -> Result<Option<bool>> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let modified = found(modified).call(|| format!("stat({path:?})"))?;
    let is_due = |modified: SystemTime| {
        modified.elapsed().unwrap_or_default() > Duration::from_secs(RENEW_S)
    };
    Ok(modified.map(is_due))
}

/// What is stored is not what it should be.
fn invalid(path: &Path, error: impl Into<crate::error::Source>) -> Error {
    Error::Storage {
        call: format!("parse({path:?})"),
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(page: &Page) -> Vec<&str> {
        page.names.iter().map(String::as_str).collect()
    }

    #[test]
    fn repositories_are_found_at_any_depth() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let digest = Digest::sha256(b"x");
        for name in ["a/b/c", "a", "a-b"] {
            let scratch = store.scratch().unwrap();
            super::super::write_synced(&scratch, b"x").unwrap();
            let hold = store.share().unwrap();
            store.place(&hold, &scratch, &digest).unwrap();
            let name = Name::new(name).unwrap();
            assert!(store.link_blob(&hold, &name, &digest).unwrap());
        }
        let all = store.catalog("", 10, |_| true).unwrap();
        assert_eq!(names_of(&all), ["a", "a-b", "a/b/c"]);
        let some = store
            .catalog("a", 1, |name| name.as_str() != "a-b")
            .unwrap();
        assert_eq!(names_of(&some), ["a/b/c"]);
        assert!(!store.has_repository(&Name::new("a/b").unwrap()));
    }

    #[test]
    fn a_tag_of_a_manifest_that_goes_goes_too() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let name = Name::new("a").unwrap();
        for (content, tags) in [("one", ["x", "y"]), ("two", ["z", "y"])] {
            let new = NewManifest {
                digest: Digest::sha256(content.as_bytes()),
                media_type: "t".to_owned(),
                blobs: Vec::new(),
                referrer: None,
                tags: tags.map(str::to_owned).to_vec(),
            };
            let hold = store.share().unwrap();
            assert_eq!(store.add_manifest(&hold, &name, &new).unwrap(), None);
        }
        let one = Digest::sha256(b"one");
        assert!(store.remove_manifest(&name, &one, None).unwrap());
        assert!(!store.remove_manifest(&name, &one, None).unwrap());
        assert_eq!(names_of(&store.tags(&name, "", 9).unwrap()), ["y", "z"]);
    }
}
