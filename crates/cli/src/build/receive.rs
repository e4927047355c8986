//! Archives that come back from a build, each by its stream, and where they go.
//!
//! Invariant: a file appears when it is whole, and a cache keeps what its directory had under other tags.

use super::layout::{index, tag_of};
use crate::container::cp::extract::{self, extract};
use crate::error::{Error, IoContext, Result};
use crate::image::save::Target;
use crate::output;
use oci::image::Index;
use std::collections::BTreeMap;
use std::io::{PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// Where an archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Stdout,
    File(PathBuf),
    Directory {
        path: PathBuf,
        /// Files belong to whom the archive says.
        keep_owners: bool,
    },
    /// A directory whose index has other caches, too.
    Cache(PathBuf),
}

/// Takes archives as they come, each by its stream.
#[derive(Debug)]
pub(crate) struct Receiver {
    places: BTreeMap<String, Place>,
    open: BTreeMap<String, Open>,
}

/// An archive that has begun.
#[derive(Debug)]
enum Open {
    Stdout,
    File(Target),
    Directory {
        /// `None` once it has failed.
        pipe: Option<PipeWriter>,
        thread: JoinHandle<Result<()>>,
        /// Of a cache: its directory, and the index that was there.
        cache: Option<(PathBuf, Option<Index>)>,
    },
}

impl Open {
    fn begin(place: &Place) -> Result<Self> {
        let (path, cache) = match place {
            Place::Stdout => return Ok(Self::Stdout),
            Place::File(path) => return Ok(Self::File(Target::create(path)?)),
            Place::Directory { path, .. } => (path, None),
            Place::Cache(path) => (path, Some((path.clone(), index(path).ok()))),
        };
        let keep_owners = matches!(
            place,
            Place::Directory {
                keep_owners: true,
                ..
            }
        );
        std::fs::create_dir_all(path).during(|| format!("make {}", path.display()))?;
        let (input, pipe) = std::io::pipe().during(|| "pipe2()")?;
        let directory = path.clone();
        let options = extract::Options {
            strip_first: false,
            name: None,
            keep_owners,
        };
        let thread = std::thread::Builder::new()
            .name("untar".to_owned())
            .spawn(move || extract(input, &directory, options))
            .during(|| "clone3()")?;
        Ok(Self::Directory {
            pipe: Some(pipe),
            thread,
            cache,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Stdout => output::write(bytes),
            Self::File(target) => target
                .file()
                .write_all(bytes)
                .during(|| "write the archive"),
            Self::Directory { pipe, .. } => {
                if pipe
                    .as_mut()
                    .is_some_and(|pipe| pipe.write_all(bytes).is_err())
                {
                    // The thread has stopped reading, and says why in the end.
                    *pipe = None;
                }
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::File(target) => target.commit(),
            Self::Directory {
                pipe,
                thread,
                cache,
            } => {
                drop(pipe);
                let extracted = thread.join();
                extracted.map_err(|_| Error::msg("extracting the archive panicked"))??;
                match cache {
                    Some((path, Some(before))) => merge(&path, before),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Adds what an index had before to what it has now, unless the tag is taken.
fn merge(directory: &Path, before: Index) -> Result<()> {
    let mut now = index(directory)?;
    let taken: Vec<Option<String>> = now
        .manifests
        .iter()
        .map(|it| tag_of(it).map(str::to_owned))
        .collect();
    let kept = before.manifests.into_iter();
    let kept = kept.filter(|it| !taken.contains(&tag_of(it).map(str::to_owned)));
    now.manifests.extend(kept);
    let path = directory.join("index.json");
    let mut target = Target::create(&path)?;
    let text = serde_json::to_vec(&now).expect("an index has only strings as keys");
    target
        .file()
        .write_all(&text)
        .during(|| format!("write {}", path.display()))?;
    target.commit()
}

impl Receiver {
    /// Archives of these streams are expected.
    pub(super) fn new(places: BTreeMap<String, Place>) -> Self {
        Self {
            places,
            open: BTreeMap::new(),
        }
    }

    /// Takes a part of an archive.
    pub(crate) fn take(&mut self, stream: &str, bytes: &[u8]) -> Result<()> {
        if !self.open.contains_key(stream) {
            let none = || Error::msg("the engine sends an archive that nobody has asked for");
            let place = self.places.get(stream).ok_or_else(none)?;
            self.open.insert(stream.to_owned(), Open::begin(place)?);
        }
        self.open
            .get_mut(stream)
            .map_or(Ok(()), |open| open.write(bytes))
    }

    /// All have come whole.
    pub(crate) fn finish(self) -> Result<()> {
        self.open.into_values().try_for_each(Open::finish)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::blobs;
    use super::*;
    use oci::Digest;
    use oci::image::{Descriptor, annotation};

    #[test]
    fn a_caches_index_keeps_other_tags() {
        let directory = tempfile::tempdir().unwrap();
        let entry = |tag: &str, content: &[u8]| {
            let mut entry = Descriptor::new("", Digest::sha256(content), 1);
            entry
                .annotations
                .insert(annotation::REF_NAME.to_owned(), tag.to_owned());
            entry
        };
        let write = |manifests: Vec<Descriptor>| {
            let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests });
            std::fs::write(directory.path().join("index.json"), index.to_string()).unwrap();
        };
        write(vec![entry("a", b"old"), entry("b", b"b")]);
        let before = index(directory.path()).unwrap();
        write(vec![entry("a", b"new")]);
        merge(directory.path(), before).unwrap();
        let now = index(directory.path()).unwrap();
        assert_eq!(now.manifests, [entry("a", b"new"), entry("b", b"b")]);
        assert!(blobs(directory.path(), "none", None).is_err());
    }

    #[test]
    fn an_archive_that_is_not_whole_does_not_appear() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        let places = BTreeMap::from([("output-0".to_owned(), Place::File(path.clone()))]);
        let receiver = || Receiver::new(places.clone());
        let mut broken = receiver();
        broken.take("output-0", b"half").unwrap();
        broken.take("output-1", b"nobody's").unwrap_err();
        drop(broken);
        assert!(!path.exists());
        let mut whole = receiver();
        whole.take("output-0", b"wh").unwrap();
        whole.take("output-0", b"ole").unwrap();
        whole.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }
}
