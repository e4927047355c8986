//! Removing names and images, by Docker's rules.
//!
//! A name removes itself, and its image with the last one. An ID removes the image with its names, when they are of one
//! repository. A container that runs forbids to remove its image, a stopped one only what is not forced. Source: Docker's
//! API documentation of `DELETE /images/{name}`, and the daemon's behaviour.

use crate::image::{Image, ListFilter, Removed, User};
use crate::list::{is_id_of, short_id};
use crate::records::{ImageId, Update};
use crate::{Error, Images, Result};
use oci::{Digest, Reference};
use std::collections::{HashMap, HashSet};

/// Asks which containers use an image.
type Users<'a> = &'a dyn Fn(&ImageId) -> Vec<User>;

impl Images {
    /// Removes a name, and the image with its last one; or an image by ID. `users` tells which containers use an image:
    /// those that run forbid its removal, those that are stopped do unless `force`.
    ///
    /// There are no intermediate images to prune: layers belong to no image in particular.
    pub fn remove(&self, name_or_id: &str, force: bool, users: Users<'_>) -> Result<Vec<Removed>> {
        let id = self.resolve(name_or_id)?;
        let names = self.references_of(&id)?;
        if is_id_of(name_or_id, &id) {
            if !is_single(&names) && !force {
                return Err(in_use(
                    &id,
                    "must be forced",
                    "image is referenced in multiple repositories",
                ));
            }
            self.check_users(&id, force, users)?;
            return self.delete(&id, names);
        }
        let name: Reference = name_or_id.parse().map_err(|source| Error::Reference {
            text: name_or_id.to_owned(),
            source,
        })?;
        self.remove_name(&id, &name.to_target(), names, force, users)
    }

    /// Removes the images that the filter lists and no container uses; those with tags only when `all`. Returns what was
    /// removed and how many bytes on the disk that gave back.
    pub fn prune(
        &self,
        all: bool,
        filter: &ListFilter,
        users: Users<'_>,
    ) -> Result<(Vec<Removed>, u64)> {
        let doomed = self.prunable(all, filter, users)?;
        let sizes = self.disk_sizes(doomed.iter().map(|image| &image.record))?;
        let mut removed = Vec::new();
        for image in doomed {
            let names = self.references_of(&image.id)?;
            removed.extend(self.delete(&image.id, names)?);
        }
        let bytes = freed(&removed, &sizes);
        Ok((removed, bytes))
    }

    /// What [`Self::prune`] would do, once the snapshots `gone` are.
    pub fn plan_prune(
        &self,
        all: bool,
        filter: &ListFilter,
        users: Users<'_>,
        gone: &[&str],
    ) -> Result<(Vec<Removed>, u64)> {
        let doomed = self.prunable(all, filter, users)?;
        let sizes = self.disk_sizes(doomed.iter().map(|image| &image.record))?;
        let mut left: HashMap<Digest, usize> = HashMap::new();
        for image in self.records.images().map_err(Error::Records)? {
            for layer in distinct(&image.layers) {
                *left.entry(*layer).or_default() += 1;
            }
        }
        let pinned = self.pins().without_snapshots(gone);
        let mut removed = Vec::new();
        for image in &doomed {
            let names = self.references_of(&image.id)?;
            removed.extend(untagged(names, &image.id));
            removed.push(Removed::Deleted(image.id));
            for layer in distinct(image.layers()) {
                let users = left.entry(*layer).or_default();
                *users -= 1;
                if *users == 0 && !pinned.contains(layer) {
                    removed.push(Removed::DeletedLayer(*layer));
                }
            }
        }
        let bytes = freed(&removed, &sizes);
        Ok((removed, bytes))
    }

    /// The images that a prune takes.
    fn prunable(&self, all: bool, filter: &ListFilter, users: Users<'_>) -> Result<Vec<Image>> {
        let mut images = self.list(filter)?;
        images.retain(|image| (all || image.is_dangling()) && users(&image.id).is_empty());
        Ok(images)
    }

    /// Removes one name of an image.
    fn remove_name(
        &self,
        id: &ImageId,
        name: &Reference,
        names: Vec<Reference>,
        force: bool,
        users: Users<'_>,
    ) -> Result<Vec<Removed>> {
        let used = users(id);
        // The image would be left without a name while a container uses it.
        if let (Some(user), false, true) = (used.first(), force, is_single(&names)) {
            return Err(Error::ReferenceInUse {
                reference: name.familiar(),
                container: short_id(&user.container).to_owned(),
                image: short_id(&id.to_string()).to_owned(),
            });
        }
        let mut gone = vec![name.clone()];
        let mut kept: Vec<Reference> = names.into_iter().filter(|other| other != name).collect();
        let tagged = |other: &Reference| other.tag().is_some() && other.same_repository(name);
        if name.tag().is_some() && !kept.iter().any(tagged) {
            // Without a tag in this repository, what its manifests were called there says nothing any more.
            let (same, others): (Vec<_>, _) = kept
                .into_iter()
                .partition(|other| other.same_repository(name));
            gone.extend(same);
            kept = others;
        }
        // A forced removal of the last name leaves the image to a container that runs; a stopped one can do without.
        if kept.is_empty() && !used.iter().any(|user| user.running) {
            return self.delete(id, gone);
        }
        let updates: Vec<_> = gone.iter().cloned().map(Update::RemoveReference).collect();
        self.records.update(&updates).map_err(Error::Records)?;
        Ok(untagged(gone, id).collect())
    }

    /// Whether containers allow the removal of an image.
    fn check_users(&self, id: &ImageId, force: bool, users: Users<'_>) -> Result<()> {
        let users = users(id);
        if let Some(user) = users.iter().find(|user| user.running) {
            let container = short_id(&user.container);
            let reason = format!("image is being used by running container {container}");
            return Err(in_use(id, "cannot be forced", &reason));
        }
        match users.first() {
            Some(user) if !force => {
                let container = short_id(&user.container);
                let reason = format!("image is being used by stopped container {container}");
                Err(in_use(id, "must be forced", &reason))
            }
            _ => Ok(()),
        }
    }

    /// Removes an image with its names, and the layers that only it had.
    fn delete(&self, id: &ImageId, names: Vec<Reference>) -> Result<Vec<Removed>> {
        let layers = self.retire(&[Update::RemoveImage(*id)], &[*id])?;
        let mut removed: Vec<_> = untagged(names, id).collect();
        removed.push(Removed::Deleted(*id));
        removed.extend(layers.into_iter().map(Removed::DeletedLayer));
        Ok(removed)
    }
}

fn untagged(names: Vec<Reference>, id: &ImageId) -> impl Iterator<Item = Removed> {
    let id = *id;
    { names.into_iter() }.map(move |name| Removed::Untagged(name, id))
}

/// The layers of an image, each once.
fn distinct(layers: &[Digest]) -> HashSet<&Digest> {
    layers.iter().collect()
}

/// Bytes of what was removed.
fn freed(removed: &[Removed], sizes: &HashMap<Digest, u64>) -> u64 {
    let size = |step: &Removed| match step {
        Removed::Deleted(digest) | Removed::DeletedLayer(digest) => {
            sizes.get(digest).copied().unwrap_or(0)
        }
        Removed::Untagged(..) => 0,
    };
    removed.iter().map(size).sum()
}

fn in_use(id: &ImageId, must: &'static str, reason: &str) -> Error {
    let image = short_id(&id.to_string()).to_owned();
    Error::ImageInUse {
        image,
        must,
        reason: reason.to_owned(),
    }
}

/// Whether names are of one repository and at most one is a tag.
fn is_single(names: &[Reference]) -> bool {
    let tags = names.iter().filter(|name| name.tag().is_some()).count();
    tags <= 1
        && names
            .windows(2)
            .all(|pair| pair[0].same_repository(&pair[1]))
}
