//! Where the files of COPY and ADD come from: the context, a named one, layers of a stage or image, an address.

use crate::build::Build;
use crate::context::Context;
use crate::error::{Doing, Error, Result};
use crate::fetch::{self, Address};
use crate::language::Transfer;
use crate::plan::{Namer, Origin, origin};
use crate::select::{Selection, Tree, select};
use crate::stage::Stage;
use crate::transfer::Order;
use crate::view::View;
use images::Stop;
use images::copy::{Found, Stack, Wanted};
use oci::Digest;
use std::path::{Path, PathBuf};
use sys::root::Root;

/// Sources of one tree.
pub(crate) struct Group<'b, 'a> {
    pub(crate) source: Source<'b, 'a>,
    pub(crate) selection: Selection,
    /// Archives are unpacked.
    pub(crate) unpack: bool,
}

/// Where files come from.
pub(crate) enum Source<'b, 'a> {
    Files(&'b Context),
    /// As they are mounted, and as they are.
    Layers(View<'a>, Stack<'a>),
    Fetched(Context),
}

impl Source<'_, '_> {
    pub(crate) fn root(&self) -> &Root {
        match self {
            Self::Files(files) => files.root(),
            Self::Layers(view, _) => &view.root,
            Self::Fetched(files) => files.root(),
        }
    }

    /// The tree that has the content of a file, at the path that it has here.
    pub(crate) fn root_of(&self, found: &Found) -> &Root {
        match self {
            Self::Layers(_, stack) => stack.layer(found),
            Self::Files(_) | Self::Fetched(_) => self.root(),
        }
    }

    /// Those that are there for the build.
    pub(crate) fn files(&self) -> Option<&Context> {
        match self {
            Self::Files(files) => Some(files),
            Self::Layers(..) => None,
            Self::Fetched(files) => Some(files),
        }
    }

    /// The digests of regular files' contents, each of a layer of these and at a path, in their order.
    pub(crate) fn digests(
        &self,
        found: Vec<(usize, PathBuf)>,
        stop: Stop<'_>,
    ) -> images::Result<Vec<Digest>> {
        let paths = |found: Vec<(usize, PathBuf)>| -> Vec<PathBuf> {
            found.into_iter().map(|(_, path)| path).collect()
        };
        match self {
            Self::Layers(_, stack) => stack.digests(&found, stop),
            Self::Files(files) => files.digests(&paths(found), stop),
            Self::Fetched(files) => files.digests(&paths(found), stop),
        }
    }
}

impl Tree for Source<'_, '_> {
    fn root(&self) -> &Root {
        Self::root(self)
    }

    fn find(&self, start: &Path, want: Wanted<'_>) -> images::Result<Vec<Found>> {
        match self {
            Self::Layers(_, stack) => stack.find(start, want),
            Self::Files(_) | Self::Fetched(_) => self.root().find(start, want),
        }
    }
}

/// The trees that files come from, in the order of the sources.
pub(crate) fn groups<'b, 'a>(
    stage: &Stage<'b, 'a>,
    transfer: &Transfer,
    order: &Order,
    add: bool,
) -> Result<Vec<Group<'b, 'a>>> {
    let unpack = add && transfer.unpack.unwrap_or(true);
    let addresses = order.sources.iter().map(|source| match add {
        true => Address::parse(source),
        false => Ok(None),
    });
    let addresses = addresses.collect::<Result<Vec<_>>>()?;
    let checksum = transfer.checksum.as_ref();
    let checksum = checksum.map(|text| stage.word(text)).transpose()?;
    let checksum = checksum.filter(|text| !text.is_empty());
    if checksum.is_some() && (addresses.len() > 1 || addresses.contains(&None)) {
        let text = "--checksum is for one source, which is an address";
        return Err(Error::Invalid(text.to_owned()));
    }
    let group = |source: Source<'b, 'a>, words: &[String], unpack| {
        let selection = select(&source, words, &order.excludes, order.parents)?;
        Ok(Group {
            source,
            selection,
            unpack,
        })
    };
    if addresses.iter().all(Option::is_none) {
        let source = source(stage, transfer.from.as_deref())?;
        return Ok(vec![group(source, &order.sources, unpack)?]);
    }
    let groups = { order.sources.iter().zip(addresses) }.map(|(word, address)| match address {
        None => group(source(stage, None)?, std::slice::from_ref(word), unpack),
        Some(address) => {
            let (files, name) = fetch(stage, transfer, order, address, checksum.as_deref())?;
            let unpack = transfer.unpack.unwrap_or(false);
            group(Source::Fetched(files), &[name], unpack)
        }
    });
    groups.collect()
}

/// Files from an address, and the name of what is meant among them.
fn fetch(
    stage: &Stage<'_, '_>,
    transfer: &Transfer,
    order: &Order,
    address: Address,
    checksum: Option<&str>,
) -> Result<(Context, String)> {
    let fetcher = stage.build.fetcher();
    match address {
        Address::Http(url) => {
            let invalid = |error: oci::digest::DigestError| {
                Error::Invalid(format!("invalid --checksum: {error}"))
            };
            let checksum = checksum.map(|text| text.parse().map_err(invalid));
            let checksum = checksum.transpose()?;
            if fetch::name_of(&url) == fetch::NAMELESS && order.target.ends_with('/') {
                return Err(Error::Invalid(format!(
                    "cannot determine filename for source {}: name the file that it is to become",
                    fetch::shown(&url)
                )));
            }
            let fetched = fetcher.file(&url, checksum.as_ref())?;
            Ok((fetched.files, fetched.name))
        }
        Address::Git(mut repository) => {
            if let Some(checksum) = checksum {
                repository.expect(checksum)?;
            }
            let files = fetcher.repository(&repository, transfer.keep_git_dir)?;
            Ok((files, ".".to_owned()))
        }
    }
}

fn source<'b, 'a>(stage: &Stage<'b, 'a>, from: Option<&str>) -> Result<Source<'b, 'a>> {
    let build = stage.build;
    let Some(from) = from else {
        return Ok(Source::Files(&build.request.context));
    };
    if let Some(files) = build.named_files(from) {
        return Ok(Source::Files(files));
    }
    let layers = layers_of(build, Namer::Copy, from, stage.at)?;
    let stack = build.images.open_stack(&layers);
    let stack = stack.doing(|| format!("open the layers of {from}"))?;
    Ok(Source::Layers(build.view(&layers)?, stack))
}

/// The layers of a stage or image.
pub(crate) fn layers_of(
    build: &Build<'_>,
    namer: Namer,
    from: &str,
    at: usize,
) -> Result<Vec<Digest>> {
    match origin(&build.definition.file, namer, from, at)? {
        Origin::Stage(stage) => Ok(build.finished(stage)?.layers.clone()),
        Origin::Outside(name) => {
            let platform = build.definition.platform.clone();
            Ok(build.image(&name, Some(platform))?.layers().to_vec())
        }
    }
}
