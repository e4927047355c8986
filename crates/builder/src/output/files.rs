//! Files as an output: of one platform as they are, of several each in a directory of its own, with what is attested of them beside
//! them.
//!
//! Source: moby/buildkit `exporter/local`, `exporter/tar`.

use super::Output;
use crate::build::Build;
use crate::bundle::{AnnotationPlace, Part, Predicate};
use crate::error::{Doing, Error, Result};
use crate::request::Request;
use crate::view::View;
use images::copy::{self, Want};
use images::tar::Kind;
use images::{Stop, archive};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use sys::root::Root;

/// Who reads what is attested of files.
const STATEMENT_MODE: u32 = 0o600;

/// How files lie where they go to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilesForm {
    /// Whether each platform has a directory of its own; where nothing is said, several have.
    pub split: Option<bool>,
    /// What the names of statements begin with.
    pub attestation_prefix: String,
}

impl FilesForm {
    fn is_split(&self, is_several: bool) -> bool {
        self.split.unwrap_or(is_several)
    }
}

/// The files of one platform.
#[derive(Debug)]
pub struct Tree<'t> {
    /// The directory that they are to be in, such as `linux_arm64`; where they are all there is, none.
    pub directory: Option<String>,
    /// The files.
    pub root: &'t Root,
}

/// Takes files one by one.
pub trait FilesOutput: fmt::Debug + Send + Sync {
    /// Takes all files of some trees.
    ///
    /// # Errors
    /// Whoever gets them takes no more.
    fn take(&self, trees: &[Tree<'_>]) -> Result<()>;
}

/// Refuses, before anything is built, forms that files of so many platforms cannot have, and annotations that nothing here has.
pub(crate) fn check(request: &Request, platforms: usize) -> Result<()> {
    let is_lost = |output: &Output| match output {
        Output::Image(image) if !image.push => {
            let mut all = image.manifests.annotations.iter();
            all.any(|one| one.place != AnnotationPlace::Manifest)
        }
        Output::Image(_) | Output::Layout(_) | Output::Files { .. } | Output::Tar { .. } => false,
    };
    if request.outputs.iter().any(is_lost) {
        return Err(Error::Unsupported(
            "an annotation of an index, or of what refers to a manifest, where the image is kept here alone".to_owned(),
        ));
    }
    let is_merged = |output: &Output| match output {
        Output::Files { form, .. } | Output::Tar { form, .. } => !form.is_split(platforms > 1),
        Output::Image(_) | Output::Layout(_) => false,
    };
    match platforms > 1 && request.outputs.iter().any(is_merged) {
        false => Ok(()),
        true => Err(Error::Unsupported(
            "platform-split=false of an output of several platforms".to_owned(),
        )),
    }
}

impl Build<'_> {
    /// The files of each platform, with the statements on them.
    pub(super) fn views(
        &self,
        parts: &[Part],
        builds: &[&Build<'_>],
        form: &FilesForm,
    ) -> Result<Vec<View<'_>>> {
        let view = |(part, build): (&Part, &&Build<'_>)| {
            let predicates = build.predicates(&part.layers, false)?;
            let view = self.view(&part.layers)?;
            let stop = || build.is_stopped();
            lay_beside(&view.root, &predicates, &form.attestation_prefix, &stop)?;
            Ok(view)
        };
        parts.iter().zip(builds).map(view).collect()
    }

    /// The trees as a client gets them.
    pub(super) fn trees<'v>(
        &self,
        parts: &[Part],
        views: &'v [View<'_>],
        form: &FilesForm,
    ) -> Vec<Tree<'v>> {
        let is_split = form.is_split(parts.len() > 1 || self.request.index);
        let tree = |(part, view): (&Part, &'v View<'_>)| Tree {
            directory: is_split.then(|| part.platform.to_string().replace('/', "_")),
            root: &view.root,
        };
        parts.iter().zip(views).map(tree).collect()
    }
}

/// Writes trees as one tar.
pub(super) fn write(trees: &[Tree<'_>], out: &mut dyn Write) -> Result<()> {
    let below: Option<Vec<_>> = { trees.iter() }
        .map(|tree| Some((tree.directory.clone()?, tree.root)))
        .collect();
    let written = match (below, trees) {
        (Some(below), _) => archive::export_below(&below, out),
        (None, all) => { all.iter() }.try_for_each(|tree| archive::export(tree.root, &mut *out)),
    };
    written.doing(|| "send the files".to_owned())
}

/// Writes statements on all files of a tree into it.
fn lay_beside(root: &Root, predicates: &[Predicate], prefix: &str, stop: Stop<'_>) -> Result<()> {
    if predicates.is_empty() {
        return Ok(());
    }
    let reading = || "list the files of the output".to_owned();
    let found = copy::find(root, Path::new("/"), false, &|_| Want::Take).doing(reading)?;
    let files = found.into_iter().filter(|it| it.entry.kind == Kind::File);
    let paths: Vec<PathBuf> = files.map(|found| found.path).collect();
    let digests = copy::digests(root, &paths, stop).doing(reading)?;
    let subject = |(path, digest): (&PathBuf, &oci::Digest)| json!({ "name": path.display().to_string(), "digest": { "sha256": digest.hex() } });
    let subjects: Vec<Value> = paths.iter().zip(&digests).map(subject).collect();
    for predicate in predicates {
        let name = format!("{prefix}{}", predicate.name);
        if name.contains('/') {
            let text = format!("invalid name of an attestation: {name:?}");
            return Err(Error::Invalid(text));
        }
        let writing = || format!("write {name} beside the files");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(STATEMENT_MODE);
        let opened = root.open_at(&Path::new("/").join(&name), flags, mode);
        let mut file = File::from(opened.doing(writing)?);
        let statement = serde_json::to_vec_pretty(&predicate.statement(&subjects));
        let statement = statement.expect("it has only strings as keys");
        file.write_all(&statement).doing(writing)?;
    }
    Ok(())
}
