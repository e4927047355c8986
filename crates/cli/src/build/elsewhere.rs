//! What of a build goes elsewhere: `--output`, `--push`, `--annotation`, `--attest`, `--cache-from`, `--cache-to`; and the archives
//! that come back for that.

use super::display::Outcome;
use super::layout::{blobs, index, tag_of};
use super::output::Output;
use crate::container::cp::extract::{self, extract};
use crate::error::{Error, IoContext, Result};
use crate::flags::Matches;
use crate::go::csv;
use crate::image::save::Target;
use crate::output;
use api_types::{BuildWish, STREAM_CACHE, STREAM_OUTPUT};
use client::Request;
use oci::image::Index;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// The tag of a cache where nothing is said.
const LATEST: &str = "latest";

/// What goes elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    /// What the engine makes.
    pub(crate) outputs: Vec<BuildWish>,
    /// What this side makes of the image.
    pub(crate) own: Vec<Output>,
    pub(crate) cache_imports: Vec<BuildWish>,
    pub(crate) cache_exports: Vec<BuildWish>,
    /// What is attested, by its kind.
    pub(crate) attests: BTreeMap<String, String>,
    /// The files of local caches, by their order.
    pub(crate) caches: Vec<Vec<(String, PathBuf)>>,
    /// Where archives go, by their streams.
    places: BTreeMap<String, Place>,
}

/// Where an archive goes.
#[derive(Debug, Clone)]
enum Place {
    Stdout,
    File(PathBuf),
    Directory(PathBuf),
    /// A directory whose index has other caches, too.
    Cache(PathBuf),
}

impl Elsewhere {
    /// Reads the flags.
    pub(crate) fn read(matches: &Matches) -> Result<Self> {
        let mut this = Self::default();
        let annotations = annotations(matches.list("annotation"))?;
        for text in matches.list("output") {
            this.output(text, &annotations)?;
        }
        let is_push = |wish: &BuildWish| wish.attributes.get("push").is_some_and(|it| it == "true");
        if matches.on("push") {
            if matches.list("tag").is_empty() {
                return Err(Error::msg("--push needs a name: give one with --tag"));
            }
            if !this.outputs.iter().any(is_push) {
                let mut attributes = annotations.clone();
                attributes.insert("push".to_owned(), "true".to_owned());
                this.outputs.push(wish("image", attributes));
            }
        }
        if this.outputs.is_empty() && !annotations.is_empty() {
            return Err(Error::msg(
                "--annotation is for images that go elsewhere (--push, --output type=oci): the engine keeps none",
            ));
        }
        for text in matches.list("cache-from") {
            this.import(text)?;
        }
        for text in matches.list("cache-to") {
            this.export(text)?;
        }
        for text in matches.list("attest") {
            let (kind, fields) = typed(text, "--attest")?;
            let fields = fields.iter().map(|(name, value)| format!("{name}={value}"));
            this.attests
                .insert(kind, fields.collect::<Vec<_>>().join(","));
        }
        for kind in ["provenance", "sbom"] {
            if let Some(text) = matches.get(kind) {
                this.attests.insert(kind.to_owned(), text.to_owned());
            }
        }
        Ok(this)
    }

    fn output(&mut self, text: &str, annotations: &BTreeMap<String, String>) -> Result<()> {
        if let Some(own) = Output::parse(text)? {
            self.own.push(own);
            return Ok(());
        }
        let (kind, mut attributes) = typed(text, "--output")?;
        let destination = attributes.remove("dest").filter(|path| !path.is_empty());
        let is_directory = attributes.get("tar").is_some_and(|value| value == "false");
        attributes.extend(annotations.clone());
        if kind == "registry" {
            attributes.insert("push".to_owned(), "true".to_owned());
        }
        let kind = match kind.as_str() {
            "registry" => "image".to_owned(),
            "docker" if destination.is_none() => "image".to_owned(),
            _ => kind,
        };
        if matches!(kind.as_str(), "oci" | "docker") {
            let stream = format!("{STREAM_OUTPUT}{}", self.outputs.len());
            let place = match destination.as_deref() {
                Some(path) if is_directory => Place::Directory(PathBuf::from(path)),
                None | Some("-") if is_directory => {
                    return Err(Error::msg(format!(
                        "invalid --output {text:?}: a directory needs a dest"
                    )));
                }
                None | Some("-") if crate::stdio::is_terminal() => {
                    return Err(Error::msg(
                        "dest file is required for an archive: refusing to write to a terminal",
                    ));
                }
                None | Some("-") => Place::Stdout,
                Some(path) => Place::File(PathBuf::from(path)),
            };
            self.places.insert(stream, place);
        }
        self.outputs.push(wish(&kind, attributes));
        Ok(())
    }

    fn import(&mut self, text: &str) -> Result<()> {
        let (kind, mut attributes) = cache(text, "--cache-from")?;
        if kind != "local" {
            self.cache_imports.push(wish(&kind, attributes));
            return Ok(());
        }
        let source = attributes.get("src").cloned().unwrap_or_default();
        let tag = attributes.get("tag").map_or(LATEST, String::as_str);
        let digest = attributes.get("digest").map(String::as_str);
        match blobs(Path::new(&source), tag, digest) {
            Ok((manifest, files)) => {
                attributes.insert("digest".to_owned(), manifest.to_string());
                self.caches.push(files);
                self.cache_imports.push(wish(&kind, attributes));
            }
            // The first build has no cache yet.
            Err(error) => output::complain(&format!("the cache {source} is of no use: {error}")),
        }
        Ok(())
    }

    fn export(&mut self, text: &str) -> Result<()> {
        let (kind, attributes) = cache(text, "--cache-to")?;
        if kind == "local" {
            let path = attributes.get("dest").filter(|path| !path.is_empty());
            let path = path.ok_or_else(|| Error::msg("--cache-to type=local needs a dest"))?;
            let place = Place::Cache(PathBuf::from(path));
            if self.places.insert(STREAM_CACHE.to_owned(), place).is_some() {
                return Err(Error::msg(
                    "--cache-to: there can be one cache of type local",
                ));
            }
        }
        self.cache_exports.push(wish(&kind, attributes));
        Ok(())
    }

    /// Tells the engine.
    pub(crate) fn add_to(&self, request: Request) -> Request {
        let text = |value: serde_json::Value| value.to_string();
        request
            .query("exports", text(json!(self.outputs)))
            .query("cacheimports", text(json!(self.cache_imports)))
            .query("cacheexports", text(json!(self.cache_exports)))
            .query("attests", text(json!(self.attests)))
    }

    /// An archive goes to standard output, where nothing else may go.
    pub(crate) fn uses_stdout(&self) -> bool {
        let own = self.own.iter();
        let mut own = own.filter(|it| matches!(it, Output::Tar(path) if path.is_empty()));
        let mut places = self.places.values();
        own.next().is_some() || places.any(|place| matches!(place, Place::Stdout))
    }

    /// Begins to receive archives.
    pub(crate) fn receive(&self) -> Receiver {
        Receiver {
            places: self.places.clone(),
            open: BTreeMap::new(),
        }
    }
}

/// What was built, as `--metadata-file` has it.
pub(crate) fn metadata(outcome: &Outcome, names: &[String]) -> String {
    let mut all = serde_json::Map::new();
    let mut add = |name: &str, value: serde_json::Value| {
        if !matches!(value.as_str(), Some("")) && !value.is_null() {
            all.insert(name.to_owned(), value);
        }
    };
    let manifest = outcome.manifest.clone().unwrap_or_default();
    let config = match outcome.id.as_str() {
        "" => manifest["annotations"]["config.digest"].clone(),
        id => id.into(),
    };
    let digest = manifest.get("digest").cloned();
    add(
        "containerimage.digest",
        digest.unwrap_or_else(|| config.clone()),
    );
    add("containerimage.config.digest", config);
    add("containerimage.descriptor", manifest);
    add("image.name", names.join(",").into());
    let text = serde_json::to_string_pretty(&all);
    text.expect("it has only strings as keys")
}

/// Texts with the names of registries that the client may have to be known to.
pub(crate) fn registries(matches: &Matches, elsewhere: &Elsewhere) -> String {
    let wishes = { elsewhere.outputs.iter() }
        .chain(&elsewhere.cache_imports)
        .chain(&elsewhere.cache_exports);
    let names = wishes.flat_map(|wish| wish.attributes.values());
    let all: Vec<&str> = matches
        .list("tag")
        .iter()
        .chain(names)
        .map(String::as_str)
        .collect();
    all.join(" ")
}

fn wish(kind: &str, attributes: BTreeMap<String, String>) -> BuildWish {
    BuildWish {
        kind: kind.to_owned(),
        attributes,
    }
}

/// `type=…,name=value`, as one record of comma-separated values.
fn typed(text: &str, flag: &str) -> Result<(String, BTreeMap<String, String>)> {
    let bad = |what: String| Error::msg(format!("invalid {flag} {text:?}: {what}"));
    let fields = csv::record(text).map_err(|error| bad(error.to_string()))?;
    let mut attributes = BTreeMap::new();
    for field in fields {
        let Some((name, value)) = field.split_once('=') else {
            return Err(bad(format!("{field:?} is not key=value")));
        };
        attributes.insert(name.to_lowercase(), value.to_owned());
    }
    let kind = attributes.remove("type");
    Ok((
        kind.ok_or_else(|| bad("it needs a type".to_owned()))?,
        attributes,
    ))
}

/// A cache; a name alone is one in a registry.
fn cache(text: &str, flag: &str) -> Result<(String, BTreeMap<String, String>)> {
    match text.contains('=') {
        true => typed(text, flag),
        false => {
            let attributes = BTreeMap::from([("ref".to_owned(), text.to_owned())]);
            Ok(("registry".to_owned(), attributes))
        }
    }
}

/// `[type[platform],…:]key=value`, as attributes of outputs.
fn annotations(given: &[String]) -> Result<BTreeMap<String, String>> {
    const KINDS: [&str; 4] = [
        "index",
        "index-descriptor",
        "manifest",
        "manifest-descriptor",
    ];
    let mut all = BTreeMap::new();
    for text in given {
        let bad = || {
            Error::msg(format!(
                "invalid --annotation {text:?}: it is [type:]key=value"
            ))
        };
        let (name, value) = text.split_once('=').ok_or_else(bad)?;
        let is_kind = |kind: &str| KINDS.contains(&kind.split('[').next().unwrap_or_default());
        let (kinds, key) = match name.split_once(':') {
            Some((kinds, key)) if kinds.split(',').all(is_kind) => (kinds, key),
            _ => ("manifest", name),
        };
        if key.is_empty() {
            return Err(bad());
        }
        for kind in kinds.split(',') {
            all.insert(format!("annotation-{kind}.{key}"), value.to_owned());
        }
    }
    Ok(all)
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
            Place::Directory(path) => (path, None),
            Place::Cache(path) => (path, Some((path.clone(), index(path).ok()))),
        };
        std::fs::create_dir_all(path).during(|| format!("make {}", path.display()))?;
        let (input, pipe) = std::io::pipe().during(|| "pipe2()")?;
        let directory = path.clone();
        let options = extract::Options {
            strip_first: false,
            name: None,
            keep_owners: false,
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
    use super::*;
    use oci::Digest;
    use oci::image::{Descriptor, annotation};

    #[test]
    fn annotations_become_attributes() {
        let given = ["a=b", "index,manifest[linux/arm64]:c=d=e", "x:y=z"].map(str::to_owned);
        let all = annotations(&given).unwrap();
        let names: Vec<(&str, &str)> = all
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            names,
            [
                ("annotation-index.c", "d=e"),
                ("annotation-manifest.a", "b"),
                ("annotation-manifest.x:y", "z"),
                ("annotation-manifest[linux/arm64].c", "d=e"),
            ]
        );
        for bad in ["a", "=b", "index:=b"] {
            annotations(&[bad.to_owned()]).unwrap_err();
        }
    }

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
        let receiver = || Receiver {
            places: places.clone(),
            open: BTreeMap::new(),
        };
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
