//! `--build-context`: directories and images in OCI layouts, which are sent, and images and addresses, which the engine fetches.

use super::context::ignore;
use super::layout;
use crate::error::{Error, Result};
use patterns::Ignore;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Before the name of an image.
const IMAGE: &str = "docker-image://";
/// Before the directory of a layout.
const LAYOUT: &str = "oci-layout://";
/// The tag where nothing is said.
const LATEST: &str = "latest";

/// Named contexts.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// Names of images.
    pub(crate) images: BTreeMap<String, String>,
    /// Repositories, archives.
    pub(crate) addresses: BTreeMap<String, String>,
    /// The manifests of images in layouts.
    pub(crate) layouts: BTreeMap<String, String>,
    /// The files of each, by their names in a layout.
    pub(crate) layout_files: Vec<(String, Vec<(String, PathBuf)>)>,
    /// Directories, and what is left out of each.
    pub(crate) directories: Vec<(String, PathBuf, Ignore)>,
}

impl Named {
    /// Reads the flags.
    ///
    /// # Errors
    /// A malformed one, a directory or layout that cannot be read.
    pub(crate) fn read(flags: &[String]) -> Result<Self> {
        let mut this = Self::default();
        for text in flags {
            let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty())
            else {
                return Err(Error::msg(format!(
                    "invalid --build-context {text:?}: it is name=path, name={IMAGE}image, name={LAYOUT}path or name=address"
                )));
            };
            let wrong = |what: &str| Error::msg(format!("--build-context {text}: {what}"));
            let is_file_name = !name.contains('/') && !name.starts_with('.');
            let own = name.to_owned();
            if let Some(image) = value.strip_prefix(IMAGE) {
                this.images.insert(own, image.to_owned());
            } else if let Some(path) = value.strip_prefix(LAYOUT) {
                if !is_file_name {
                    return Err(wrong("the name of what is sent has no slash"));
                }
                let (path, tag, digest) = split(path);
                let found = layout::blobs(Path::new(path), tag, digest);
                let (manifest, files) =
                    found.map_err(|error| wrong(&crate::error::chain(&error)))?;
                this.layouts.insert(own.clone(), manifest.to_string());
                this.layout_files.push((own, files));
            } else if value.contains("://") || value.starts_with("git@") {
                this.addresses.insert(own, value.to_owned());
            } else if value.starts_with("target:") {
                return Err(wrong("a target is one of a bake file"));
            } else if is_file_name {
                let path = PathBuf::from(value);
                let ignored = ignore(&path, None)?;
                this.directories.push((own, path, ignored.rules));
            } else {
                return Err(wrong(&format!("{name:?} is no name of a context")));
            }
        }
        Ok(this)
    }

    /// Whether files have to be sent for any.
    pub(crate) fn is_sent(&self) -> bool {
        !self.directories.is_empty() || !self.layout_files.is_empty()
    }
}

/// `path[:tag][@digest]`
fn split(text: &str) -> (&str, &str, Option<&str>) {
    let (path, digest) = match text.split_once('@') {
        Some((path, digest)) => (path, Some(digest)),
        None => (text, None),
    };
    match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag, digest),
        _ => (path, LATEST, digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_told_apart() {
        let read = |text: &str| Named::read(&[text.to_owned()]);
        let dir = tempfile::tempdir().unwrap();
        let named = read(&format!("a={}", dir.path().display())).unwrap();
        assert!(named.is_sent() && named.directories[0].0 == "a");
        let named = read("docker.io/x=docker-image://y:1").unwrap();
        assert_eq!(named.images["docker.io/x"], "y:1");
        let named = read("a=https://h/x.git#v1").unwrap();
        assert!(!named.is_sent() && named.addresses["a"] == "https://h/x.git#v1");
        for bad in [
            "a",
            "=x",
            "a=target:b",
            "a/b=.",
            "a=oci-layout:///none/such",
        ] {
            read(bad).unwrap_err();
        }
    }

    #[test]
    fn layouts_have_tags_and_digests() {
        assert_eq!(split("/a/b"), ("/a/b", LATEST, None));
        assert_eq!(split("a:1"), ("a", "1", None));
        assert_eq!(split("/x:y/a"), ("/x:y/a", LATEST, None));
        assert_eq!(split("a:1@sha256:b"), ("a", "1", Some("sha256:b")));
    }
}
