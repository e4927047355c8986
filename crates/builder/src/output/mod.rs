//! What becomes of what was built: images here and in registries, archives and files for the client.

mod files;
mod options;

use crate::build::Build;
use crate::bundle::{
    self, Annotation, AnnotationPlace, Bundle, Manifests, Part, Predicate, bundle,
};
use crate::destination::{Destination, ToBlobs, ToRegistry};
use crate::error::{Doing, Error, Result};
use crate::progress::Event;
use crate::remote::BlobSink;
use images::{ImageId, LayoutArchive, blob_path, named};
use oci::image::{ArchiveImage, ConfigFile, Descriptor, Platform};
use oci::{Digest, Reference};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::sync::{Mutex, PoisonError};

pub(crate) use files::check;
pub use files::{FilesForm, FilesOutput, Tree};
pub use options::OutputWish;

/// One thing that a build is to make.
#[derive(Debug)]
pub enum Output {
    /// An image.
    Image(ImageOutput),
    /// The files of the target, one by one.
    Files {
        /// Who takes them.
        to: Box<dyn FilesOutput>,
        /// How they lie there.
        form: FilesForm,
    },
    /// The files of the target as a tar.
    Tar {
        /// Who takes it.
        to: Box<dyn ArchiveOutput>,
        /// How they lie in it.
        form: FilesForm,
    },
    /// Images as an OCI layout.
    Layout(LayoutOutput),
}

/// An image, here and elsewhere.
#[derive(Debug, Default)]
pub struct ImageOutput {
    /// Its names.
    pub names: Vec<Reference>,
    /// This engine keeps it, too, unless this says otherwise.
    pub store: Option<bool>,
    /// It is pushed to the registries that its names are of.
    pub push: bool,
    /// It is pushed without a tag.
    pub by_digest: bool,
    /// How it is pushed.
    pub manifests: Manifests,
}

/// An OCI layout.
#[derive(Debug)]
pub struct LayoutOutput {
    /// The names of what is in it.
    pub names: Vec<Reference>,
    /// `docker load` reads it, too.
    pub docker: bool,
    /// How its manifests are.
    pub manifests: Manifests,
    /// Where it goes.
    pub to: LayoutTo,
}

/// Where a layout goes.
#[derive(Debug)]
pub enum LayoutTo {
    /// As one tar.
    Archive(Box<dyn ArchiveOutput>),
    /// As blobs, which the client keeps an index of.
    Blobs(Box<dyn BlobSink + Send + Sync>),
}

/// Takes an archive.
pub trait ArchiveOutput: fmt::Debug + Send + Sync {
    /// Takes what `write` writes.
    ///
    /// # Errors
    /// What `write` fails with; or whoever gets the archive takes no more.
    fn take(&self, write: &mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<()>;
}

/// What was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// The image, where this engine has it; of several platforms, the one that its names mean where none is asked for.
    pub id: Option<ImageId>,
    /// The manifest or index of an image that went elsewhere, with the digest of the (first) configuration.
    pub manifest: Option<(Descriptor, Digest)>,
}

impl Build<'_> {
    /// Makes all outputs of the images that were built.
    pub(crate) fn make_outputs(&self, parts: &[Part], builds: &[&Build<'_>]) -> Result<Made> {
        let mut made = Made::default();
        for output in &self.request.outputs {
            match output {
                Output::Image(image) => self.image_output(image, parts, builds, &mut made)?,
                Output::Files { to, form } => {
                    let views = self.views(parts, builds, form)?;
                    to.take(&self.trees(parts, &views, form))?;
                }
                Output::Tar { to, form } => {
                    let views = self.views(parts, builds, form)?;
                    let trees = self.trees(parts, &views, form);
                    to.take(&mut |out| files::write(&trees, out))?;
                }
                Output::Layout(layout) => {
                    let bundle = self.layout(layout, parts, builds)?;
                    made.manifest = Some(self.told(&bundle));
                }
            }
        }
        Ok(made)
    }

    fn manifests(&self, asked: &Manifests) -> Manifests {
        Manifests {
            index: asked.index || self.request.index,
            ..asked.clone()
        }
    }

    fn told(&self, bundle: &Bundle) -> (Descriptor, Digest) {
        let created = self
            .epoch
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        let created = created.unwrap_or_else(jiff::Timestamp::now);
        let config = bundle.images[0].0.digest;
        (
            bundle::told(&bundle.top, &config, created.to_string()),
            config,
        )
    }

    fn image_output(
        &self,
        output: &ImageOutput,
        parts: &[Part],
        builds: &[&Build<'_>],
        made: &mut Made,
    ) -> Result<()> {
        let mut kept = Vec::new();
        if output.store != Some(false) {
            kept = self.store(parts, &output.names)?;
            self.annotate(&kept, parts, &output.manifests.annotations)?;
            made.id = kept.first().copied();
        }
        if !output.push {
            return Ok(());
        }
        if output.names.is_empty() {
            return Err(Error::Invalid(
                "tag is needed when pushing to registry".to_owned(),
            ));
        }
        let attested = attested(parts, builds, !output.manifests.docker_types)?;
        for name in &output.names {
            let task = format!("pushing {}", name.familiar());
            self.tell(&Event::Task(&task));
            let pushed = self.push(output, name, parts, &attested);
            let why = pushed.as_ref().err().map(Error::chain);
            self.tell(&Event::TaskEnded(&task, why.as_deref()));
            let bundle = pushed?;
            if !kept.is_empty() {
                let reference = name.clone().with_digest(bundle.top.digest);
                let manifest = |id: &ImageId| {
                    let images = bundle.images.iter().zip(&bundle.manifests);
                    let mut own = images.filter(|((config, _), _)| config.digest == *id);
                    own.next().map(|(_, manifest)| (*id, manifest.clone()))
                };
                let images: Vec<_> = kept.iter().filter_map(manifest).collect();
                let noted = self.images.note_pushed(&images, reference);
                noted.doing(|| format!("note that {} was pushed", name.familiar()))?;
            }
            made.manifest = Some(self.told(&bundle));
        }
        Ok(())
    }

    /// Makes the images part of this engine's, all or none of them, with the one first that the names mean for this machine.
    fn store(&self, parts: &[Part], names: &[Reference]) -> Result<Vec<ImageId>> {
        let image = |part: &Part| {
            let config = ConfigFile::parse(&part.config);
            config.map_err(|error| Error::Invalid(error.to_string()))
        };
        let configs = parts.iter().map(image).collect::<Result<Vec<_>>>()?;
        let layers = parts.iter().map(|part| part.layers.as_slice());
        let images = configs.into_iter().zip(layers).collect();
        let made = self.images.make_images(images, names);
        let ids = made.doing(|| "make the image".to_owned())?;
        for id in &ids {
            self.engine.new_image_event(&id.to_string());
        }
        for tag in names {
            let name = BTreeMap::from([("name".to_owned(), tag.familiar())]);
            self.engine.image_event("tag", &ids[0].to_string(), name);
        }
        Ok(ids)
    }

    /// Has the manifests of images here say what is said of them; there is no index here.
    fn annotate(&self, kept: &[ImageId], parts: &[Part], all: &[Annotation]) -> Result<()> {
        for part in parts {
            let id = Digest::sha256(&part.config);
            let is_of_part = |one: &&Annotation| {
                let platform = one.platform.as_ref();
                one.place == AnnotationPlace::Manifest
                    && platform.is_none_or(|wanted| *wanted == part.platform)
            };
            let own = all.iter().filter(is_of_part);
            let own = own.map(|one| (one.key.clone(), one.value.clone()));
            if kept.contains(&id) {
                let annotated = self.images.annotate(&id, &own.collect());
                annotated.doing(|| "annotate the image".to_owned())?;
            }
        }
        Ok(())
    }

    fn push(
        &self,
        output: &ImageOutput,
        name: &Reference,
        parts: &[Part],
        attested: &[Vec<Predicate>],
    ) -> Result<Bundle> {
        let to = ToRegistry::new(self, name, output.by_digest)?;
        let subjects = |platform: &Platform| purls(&output.names, platform);
        let bundle = bundle(
            parts,
            attested,
            &self.manifests(&output.manifests),
            &subjects,
            &to,
        )?;
        let attributes = BTreeMap::from([("name".to_owned(), name.familiar_name())]);
        self.engine
            .image_event("push", &name.familiar(), attributes);
        Ok(bundle)
    }

    fn layout(
        &self,
        output: &LayoutOutput,
        parts: &[Part],
        builds: &[&Build<'_>],
    ) -> Result<Bundle> {
        let scratch = self
            .images
            .scratch()
            .doing(|| "make room for an archive".to_owned())?;
        let subjects = |platform: &Platform| purls(&output.names, platform);
        let attested = match output.docker {
            true => parts.iter().map(|_| Vec::new()).collect(),
            false => attested(parts, builds, output.manifests.attestations)?,
        };
        let put = |blobs: &dyn BlobSink| {
            let to: &dyn Destination = &ToBlobs::new(self, scratch.path(), blobs);
            bundle(
                parts,
                &attested,
                &self.manifests(&output.manifests),
                &subjects,
                to,
            )
        };
        let archive = match &output.to {
            LayoutTo::Blobs(blobs) => return put(&**blobs),
            LayoutTo::Archive(archive) => archive,
        };
        let mut made = None;
        archive.take(&mut |out| {
            let doing = || "write the archive".to_owned();
            let archive = LayoutArchive::new(out).doing(doing)?;
            let sink = ArchiveSink(Mutex::new(archive));
            let bundle = put(&sink)?;
            let archive = sink.0.into_inner().unwrap_or_else(PoisonError::into_inner);
            let (top, _) = self.told(&bundle);
            let images = match output.docker {
                true => docker_images(&bundle, parts, &output.names),
                false => Vec::new(),
            };
            archive
                .finish(&named(&top, &output.names), &images)
                .doing(doing)?;
            made = Some(bundle);
            Ok(())
        })?;
        made.ok_or_else(|| Error::Client("the client takes no archive".to_owned()))
    }
}

/// What `docker load` reads where it does not know of platforms: an image for this machine, or else the first.
fn docker_images(bundle: &Bundle, parts: &[Part], names: &[Reference]) -> Vec<ArchiveImage> {
    let host = images::host_platform();
    let runs_here = |part: &Part| part.platform.architecture == host.architecture;
    let (config, layers) = &bundle.images[parts.iter().position(runs_here).unwrap_or(0)];
    vec![ArchiveImage {
        config: blob_path(&config.digest),
        repo_tags: names.iter().map(Reference::familiar).collect(),
        layers: layers
            .iter()
            .map(|layer| blob_path(&layer.digest))
            .collect(),
    }]
}

/// What is attested of each image; `inline`: what is only for images that are pushed, too.
fn attested(parts: &[Part], builds: &[&Build<'_>], inline: bool) -> Result<Vec<Vec<Predicate>>> {
    let all = parts.iter().zip(builds);
    all.map(|(part, build)| build.predicates(&part.layers, inline))
        .collect()
}

/// Names as package URLs, for whoever attests something of them.
fn purls(names: &[Reference], platform: &Platform) -> Vec<String> {
    names
        .iter()
        .map(|name| purl(&name.familiar(), platform))
        .collect()
}

/// An image's name as a package URL.
pub(crate) fn purl(name: &str, platform: &Platform) -> String {
    let platform = platform.to_string().replace('/', "%2F");
    let Ok(reference) = name.parse::<Reference>() else {
        return format!(
            "pkg:docker/{}?platform={platform}",
            name.replace(':', "%3A")
        );
    };
    let reference = reference.to_target();
    let version = reference
        .tag()
        .map(|tag| format!("@{tag}"))
        .unwrap_or_default();
    let digest = reference.digest().map(|digest| format!("digest={digest}&"));
    let path = reference.familiar_name().replace(':', "%3A");
    format!(
        "pkg:docker/{path}{version}?{}platform={platform}",
        digest.unwrap_or_default()
    )
}

/// An archive that takes blobs.
struct ArchiveSink<W>(Mutex<LayoutArchive<W>>);

impl<W> fmt::Debug for ArchiveSink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveSink").finish_non_exhaustive()
    }
}

impl<W: Write> BlobSink for ArchiveSink<W> {
    fn write(&self, blob: &Descriptor, content: &mut dyn Read) -> Result<()> {
        let mut archive = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        archive
            .content(blob, content)
            .doing(|| "write the archive".to_owned())
    }
}
