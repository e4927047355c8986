//! An image as an engine saves it: its configuration, and what is in each of its layers and in all of them together.

use super::tar::{Archive, Head};
use crate::Result;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes of a configuration or manifest.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// A file as an image has it: by what is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// What is compared, by name.
    pub(super) told: BTreeMap<&'static str, String>,
    /// Seconds since 1970.
    pub(super) mtime_s: i64,
}

/// By path, without a slash at either end.
pub(super) type Tree = BTreeMap<String, Node>;

/// A layer.
pub(super) struct Layer {
    /// What is in it, whiteouts included.
    pub(super) entries: Tree,
}

pub(super) struct Image {
    pub(super) config: Value,
    pub(super) layers: Vec<Layer>,
}

impl Image {
    /// Reads what `docker save` has written. Layers that `known` has are taken from there.
    pub(super) fn read(path: &Path, known: &mut BTreeMap<String, Tree>) -> Result<Self> {
        let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut archive = Archive::new(BufReader::new(file));
        let mut places = BTreeMap::new();
        while let Some(head) = archive.next()? {
            places.insert(head.path.clone(), (archive.position()?, head.size));
            archive.pass()?;
        }
        let mut saved = Saved {
            file: File::open(path).map_err(|error| error.to_string())?,
            places,
        };
        let manifest = saved.document("manifest.json")?;
        let image = &manifest[0];
        let config = saved.document(image["Config"].as_str().unwrap_or_default())?;
        let ids = config["rootfs"]["diff_ids"].as_array().cloned();
        let ids = ids.unwrap_or_default();
        let paths = image["Layers"].as_array().cloned().unwrap_or_default();
        if ids.len() != paths.len() {
            return Err("an image has as many layers as digests".to_owned());
        }
        let mut layers = Vec::new();
        for (id, path) in ids.iter().zip(&paths) {
            let id = id.as_str().unwrap_or_default().to_owned();
            let entries = match known.get(&id) {
                Some(entries) => entries.clone(),
                None => saved.layer(path.as_str().unwrap_or_default(), &id)?,
            };
            known.insert(id, entries.clone());
            layers.push(Layer { entries });
        }
        Ok(Self { config, layers })
    }
}

/// Puts a layer on top of files.
pub(super) fn stack(files: &mut Tree, layer: &Tree) {
    let hidden: BTreeSet<String> = layer.keys().filter_map(|path| hides(path)).collect();
    if !hidden.is_empty() {
        files.retain(|path, _| !ancestors(path).any(|above| hidden.contains(above)));
    }
    for (path, node) in layer.iter().filter(|(path, _)| hides(path).is_none()) {
        let old = files.insert(path.clone(), node.clone());
        // What is no directory any more has nothing in it.
        if old.is_some_and(|old| old.told["kind"] == "5") && node.told["kind"] != "5" {
            let below = format!("{path}/");
            files.retain(|other, _| !other.starts_with(&below));
        }
    }
}

/// What a whiteout hides: a path, or with a slash behind all that is below it.
pub(super) fn hides(path: &str) -> Option<String> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        OPAQUE => Some(format!("{above}/")),
        name => {
            let name = name.strip_prefix(WHITEOUT)?;
            Some(match above {
                "" => name.to_owned(),
                above => format!("{above}/{name}"),
            })
        }
    }
}

/// A path, and those above it, without and with a slash behind: `a/b`, `a/`, `a`.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let slashes = path.match_indices('/');
    let above = slashes.flat_map(|(at, _)| [&path[..at], &path[..=at]]);
    std::iter::once(path).chain(above)
}

/// The archive of an image.
struct Saved {
    file: File,
    /// By path: where the content is, and its bytes.
    places: BTreeMap<String, (u64, u64)>,
}

impl Saved {
    fn content(&mut self, path: &str) -> Result<impl Read> {
        let place = self.places.get(path);
        let (at, size) = *place.ok_or_else(|| format!("the saved image has no {path:?}"))?;
        let sought = self.file.seek(SeekFrom::Start(at));
        sought.map_err(|error| format!("{path}: {error}"))?;
        Ok((&mut self.file).take(size))
    }

    fn document(&mut self, path: &str) -> Result<Value> {
        let mut bytes = Vec::new();
        let mut content = self.content(path)?.take(DOCUMENT_BYTES_MAX);
        let read = content.read_to_end(&mut bytes);
        read.map_err(|error| format!("{path}: {error}"))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{path}: {error}"))
    }

    fn layer(&mut self, path: &str, id: &str) -> Result<Tree> {
        let mut start = [0; 4];
        self.content(path)?
            .read_exact(&mut start)
            .map_err(|error| format!("{path}: {error}"))?;
        if start.starts_with(&[0x1f, 0x8b]) || start == [0x28, 0xb5, 0x2f, 0xfd] {
            return Err(format!("the saved layer {id} is compressed"));
        }
        entries(BufReader::with_capacity(1 << 20, self.content(path)?))
    }
}

/// Everything in a layer; each name of a file with several says what the first of them says.
fn entries(source: impl Read) -> Result<Tree> {
    let mut archive = Archive::new(source);
    let mut tree = Tree::new();
    let mut links: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    while let Some(head) = archive.next()? {
        let path = head.path.trim_start_matches("./").trim_matches('/');
        // The root itself.
        let path = if path == "." { "" } else { path }.to_owned();
        if tree.contains_key(&path) {
            return Err(format!("the layer has {path:?} twice"));
        }
        if head.kind == '1' {
            let target = head
                .link
                .trim_start_matches("./")
                .trim_matches('/')
                .to_owned();
            links.entry(target).or_default().insert(path);
            continue;
        }
        let node = node(&mut archive, &head)?;
        tree.insert(path, node);
    }
    for (target, mut names) in links {
        let first = tree.get(&target).cloned();
        let first = first.ok_or_else(|| format!("a link to {target:?}, which is not there"))?;
        names.insert(target);
        let group = names.iter().cloned().collect::<Vec<_>>().join(" = ");
        for name in names {
            let mut node = first.clone();
            node.told.insert("names", group.clone());
            tree.insert(name, node);
        }
    }
    Ok(tree)
}

fn node(archive: &mut Archive<impl Read>, head: &Head) -> Result<Node> {
    let mut told = BTreeMap::from([
        ("kind", head.kind.to_string()),
        ("owner", format!("{}:{}", head.uid, head.gid)),
    ]);
    // A symlink has no mode of its own.
    if head.kind != '2' {
        told.insert("mode", format!("{:o}", head.mode & 0o7777));
    }
    match head.kind {
        '0' => {
            let digest =
                hashed(archive, head).map_err(|error| format!("{}: {error}", head.path))?;
            told.insert("content", digest);
            told.insert("size", head.whole_bytes.unwrap_or(head.size).to_string());
        }
        '2' => drop(told.insert("link", head.link.clone())),
        '3' | '4' => drop(told.insert("device", format!("{:?}", head.device))),
        _ => {}
    }
    // Docker's archives have no others: those of users get lost in it, and stay here.
    let kept = head.xattrs.iter();
    let kept: Vec<_> = kept
        .filter(|(name, _)| name.starts_with("security."))
        .collect();
    if !kept.is_empty() {
        told.insert("xattrs", format!("{kept:?}"));
    }
    Ok(Node {
        told,
        mtime_s: head.mtime_s,
    })
}

/// The SHA-256 of a file's content with its holes, as hexadecimal digits.
fn hashed(archive: &mut Archive<impl Read>, head: &Head) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    match head.whole_bytes {
        None => feed(archive, head.size, &mut hash)?,
        Some(whole) => {
            let mut at = 0;
            for (offset, length) in archive.regions()? {
                feed(
                    &mut std::io::repeat(0),
                    offset.saturating_sub(at),
                    &mut hash,
                )?;
                feed(archive, length, &mut hash)?;
                at = offset + length;
            }
            feed(&mut std::io::repeat(0), whole.saturating_sub(at), &mut hash)?;
        }
    }
    let digest = hash.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn feed(source: &mut impl Read, count: u64, hash: &mut Sha256) -> std::io::Result<()> {
    let mut source = source.take(count);
    let mut buffer = vec![0; 1 << 16];
    let mut rest = count;
    while rest > 0 {
        match source.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => {
                hash.update(&buffer[..read]);
                rest -= read as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(paths: &[(&str, &str)]) -> Tree {
        let node = |kind: &str| Node {
            told: BTreeMap::from([("kind", kind.to_owned())]),
            mtime_s: 0,
        };
        let entries = paths
            .iter()
            .map(|(path, kind)| ((*path).to_owned(), node(kind)));
        entries.collect()
    }

    #[test]
    fn layers_hide_what_is_below() {
        let below = [
            ("a", "5"),
            ("a/x", "0"),
            ("ab", "0"),
            ("d", "5"),
            ("d/y", "0"),
            ("e", "5"),
            ("e/z", "0"),
        ];
        let above = [
            ("a/.wh..wh..opq", "0"),
            ("a/n", "0"),
            (".wh.ab", "0"),
            ("e", "0"),
        ];
        let mut files = layer(&below);
        stack(&mut files, &layer(&above));
        let paths: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(paths, ["a", "a/n", "d", "d/y", "e"]);
    }
}
