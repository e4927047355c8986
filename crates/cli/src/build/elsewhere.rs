//! What of a build goes elsewhere: `--output`, `--push`, `--annotation`, `--attest`, `--cache-from`, `--cache-to`.

use super::display::Outcome;
use super::layout::blobs;
use super::receive::{Place, Receiver};
use crate::error::{Error, Result};
use crate::flags::Matches;
use crate::go::csv;
use crate::output;
use api_types::{BuildWish, STREAM_CACHE, STREAM_OUTPUT};
use client::Request;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The tag of a cache where nothing is said.
const LATEST: &str = "latest";

/// What goes elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    /// What the engine makes.
    pub(crate) outputs: Vec<BuildWish>,
    pub(crate) cache_imports: Vec<BuildWish>,
    pub(crate) cache_exports: Vec<BuildWish>,
    /// What is attested, by its kind.
    pub(crate) attests: BTreeMap<String, String>,
    /// The files of local caches, by their order.
    pub(crate) caches: Vec<Vec<(String, PathBuf)>>,
    /// Where archives go, by their streams.
    places: BTreeMap<String, Place>,
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
            this.outputs.push(wish("image", annotations));
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
        let bad = |what: &str| Err(Error::msg(format!("invalid --output {text:?}: {what}")));
        let (kind, mut attributes) = match text {
            "-" => ("tar".to_owned(), BTreeMap::new()),
            path if !path.contains('=') => {
                let dest = ("dest".to_owned(), path.to_owned());
                ("local".to_owned(), BTreeMap::from([dest]))
            }
            text => typed(text, "--output")?,
        };
        let destination = attributes.remove("dest").filter(|path| !path.is_empty());
        let is_local = kind == "local";
        let is_directory = is_local || attributes.get("tar").is_some_and(|value| value == "false");
        let kind = match kind.as_str() {
            // This side unpacks what comes as one archive.
            "local" => {
                if attributes.get("mode").is_some_and(|mode| mode == "copy") {
                    attributes.remove("mode");
                }
                "tar"
            }
            "registry" => {
                attributes.insert("push".to_owned(), "true".to_owned());
                "image"
            }
            "docker" if destination.is_none() => "image",
            other => other,
        };
        if kind != "tar" {
            attributes.extend(annotations.clone());
        }
        if matches!(kind, "oci" | "docker" | "tar") {
            let stream = format!("{STREAM_OUTPUT}{}", self.outputs.len());
            let place = match destination.as_deref() {
                None | Some("-") if is_directory => return bad("a directory needs a dest"),
                Some(path) if is_directory => Place::Directory {
                    path: PathBuf::from(path),
                    keep_owners: is_local && rustix::process::geteuid().is_root(),
                },
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
        self.outputs.push(wish(kind, attributes));
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

    /// What making the outputs is called, as BuildKit has it; `is_named`: an image with a name is one of them.
    pub(crate) fn title(&self, is_named: bool) -> &'static str {
        let is_kept = self.outputs.iter().any(|wish| wish.kind == "image");
        let more = usize::from(is_named && !is_kept);
        let stream = format!("{STREAM_OUTPUT}0");
        match self.outputs.as_slice() {
            [] => "exporting to image",
            [wish] if more == 0 => match (wish.kind.as_str(), self.places.get(&stream)) {
                ("tar", Some(Place::Directory { .. })) => "exporting to client directory",
                ("tar", _) => "exporting to client tarball",
                ("docker", _) => "exporting to docker image format",
                ("oci", _) => "exporting to oci image format",
                _ => "exporting to image",
            },
            _ => "exporting to several outputs",
        }
    }

    /// An archive goes to standard output, where nothing else may go.
    pub(crate) fn uses_stdout(&self) -> bool {
        let mut places = self.places.values();
        places.any(|place| matches!(place, Place::Stdout))
    }

    /// Begins to receive archives.
    pub(crate) fn receive(&self) -> Receiver {
        Receiver::new(self.places.clone())
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
    let whole = |name: &String| match name.parse::<oci::Reference>() {
        Ok(reference) => reference.to_target().to_string(),
        Err(_) => name.clone(),
    };
    let names: Vec<String> = names.iter().map(whole).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn outputs_are_read() {
        let read = |text: &str| {
            let mut elsewhere = Elsewhere::default();
            elsewhere.output(text, &BTreeMap::new())?;
            let kind = elsewhere.outputs[0].kind.clone();
            Ok::<_, Error>((kind, elsewhere.places.into_values().next()))
        };
        let directory = |path: &str, keep_owners| Place::Directory {
            path: path.into(),
            keep_owners,
        };
        let is_root = rustix::process::geteuid().is_root();
        for (text, kind, place) in [
            ("type=tar,dest=a", "tar", Some(Place::File("a".into()))),
            ("out", "tar", Some(directory("out", is_root))),
            (
                "type=local,dest=out,mode=copy",
                "tar",
                Some(directory("out", is_root)),
            ),
            (
                "type=oci,tar=false,dest=a",
                "oci",
                Some(directory("a", false)),
            ),
            ("type=docker", "image", None),
            ("type=registry,name=x", "image", None),
        ] {
            assert_eq!(read(text).unwrap(), (kind.to_owned(), place), "{text}");
        }
        for bad in ["type=local", "dest=x", "type=tar,x", "type=oci,tar=false"] {
            read(bad).unwrap_err();
        }
    }
}
