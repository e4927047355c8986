//! Removing names and images, by Docker's rules.
//!
//! A name removes itself, and its image with the last one, those for other platforms included. An ID removes the image with its
//! names, when they are of one repository; a name that means it only for another platform loses it. A container that runs forbids to remove its image, a stopped one only what is not forced. Source: Docker's
//! API documentation of `DELETE /images/{name}`, and the daemon's behaviour.

use crate::image::{Image, ListFilter, Removed, User};
use crate::list::{is_id_of, short_id};
use crate::records::{ImageId, ReferenceRecord, Update};
use crate::{Error, Images, Result};
use oci::image::Platform;
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
        let id = self.resolve(name_or_id)?[0];
        let names = self.records.references().map_err(Error::Records)?;
        if is_id_of(name_or_id, &id) {
            let own = own_names(&id, &names);
            if !is_single(&own) && !force {
                return Err(in_use(
                    &id,
                    "must be forced",
                    "image is referenced in multiple repositories",
                ));
            }
            let doomed = with_others(&id, &own, &names);
            for id in &doomed {
                self.check_users(id, force, users)?;
            }
            return self.delete(&id, own, &doomed);
        }
        let name: Reference = name_or_id.parse().map_err(|source| Error::Reference {
            text: name_or_id.to_owned(),
            source,
        })?;
        self.remove_name(&id, &name.to_target(), &names, force, users)
    }

    /// Removes of what a name means the image for a platform, whatever else names that; where it means no other, as
    /// [`Self::remove`].
    pub fn remove_for(
        &self,
        name_or_id: &str,
        platform: &Platform,
        force: bool,
        users: Users<'_>,
    ) -> Result<Vec<Removed>> {
        let ids = self.resolve(name_or_id)?;
        let id = self.choose(name_or_id, &ids, platform)?;
        if ids.len() == 1 {
            return self.remove(name_or_id, force, users);
        }
        self.check_users(&id, force, users)?;
        self.delete(&id, Vec::new(), &[id])
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
        let sizes = self.sizes_of(&doomed)?;
        let mut removed = Vec::new();
        for image in doomed {
            let names = self.records.references().map_err(Error::Records)?;
            let own = own_names(&image.id, &names);
            let images = unnamed(&image.id, &own, &names);
            removed.extend(self.delete(&image.id, own, &images)?);
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
        let sizes = self.sizes_of(&doomed)?;
        let mut left: HashMap<Digest, usize> = HashMap::new();
        let mut stacks = HashMap::new();
        for image in self.records.images().map_err(Error::Records)? {
            for layer in distinct(&image.layers) {
                *left.entry(*layer).or_default() += 1;
            }
            stacks.insert(image.id, image.layers);
        }
        let pinned = self.pins().without_snapshots(gone);
        let mut names = self.records.references().map_err(Error::Records)?;
        let mut removed = Vec::new();
        for image in &doomed {
            let own = own_names(&image.id, &names);
            let images = unnamed(&image.id, &own, &names);
            names.retain(|record| !own.contains(&record.reference));
            removed.extend(untagged(own, &image.id));
            for id in images {
                removed.push(Removed::Deleted(id));
                for layer in distinct(&stacks.remove(&id).unwrap_or_default()) {
                    let users = left.entry(*layer).or_default();
                    *users -= 1;
                    if *users == 0 && !pinned.contains(layer) {
                        removed.push(Removed::DeletedLayer(*layer));
                    }
                }
            }
        }
        let bytes = freed(&removed, &sizes);
        Ok((removed, bytes))
    }

    /// The images that a prune takes: as they are listed, those for other platforms with each.
    fn prunable(&self, all: bool, filter: &ListFilter, users: Users<'_>) -> Result<Vec<Image>> {
        let mut images = self.list(filter)?;
        let is_unused = |image: &Image| image.ids().all(|id| users(id).is_empty());
        images.retain(|image| (all || image.is_dangling()) && is_unused(image));
        Ok(images)
    }

    /// Bytes on the disk of images, those for other platforms included, and of their layers.
    fn sizes_of(&self, images: &[Image]) -> Result<HashMap<Digest, u64>> {
        let ids = images.iter().flat_map(Image::ids);
        let ids: HashSet<&ImageId> = ids.collect();
        let mut records = self.records.images().map_err(Error::Records)?;
        records.retain(|record| ids.contains(&record.id));
        self.disk_sizes(&records)
    }

    /// Removes one name of an image, or of one for each of several platforms.
    fn remove_name(
        &self,
        id: &ImageId,
        name: &Reference,
        names: &[ReferenceRecord],
        force: bool,
        users: Users<'_>,
    ) -> Result<Vec<Removed>> {
        let own = own_names(id, names);
        let meant = names.iter().find(|record| record.reference == *name);
        let used: Vec<(ImageId, User)> = { meant.into_iter() }
            .flat_map(ReferenceRecord::images)
            .flat_map(|id| users(&id).into_iter().map(move |user| (id, user)))
            .collect();
        // The image would be left without a name while a container uses it.
        if let (Some((id, user)), false, true) = (used.first(), force, is_single(&own)) {
            return Err(Error::ReferenceInUse {
                reference: name.familiar(),
                container: short_id(&user.container).to_owned(),
                image: short_id(&id.to_string()).to_owned(),
            });
        }
        let mut gone = vec![name.clone()];
        let tagged = |other: &&Reference| {
            *other != name && other.tag().is_some() && other.same_repository(name)
        };
        if name.tag().is_some() && !own.iter().any(|other| tagged(&other)) {
            // Without a tag in this repository, what its manifests were called there says nothing any more.
            let same = own.into_iter().filter(|other| other.same_repository(name));
            gone.extend(same.filter(|other| other != name));
        }
        // A forced removal of the last name leaves the image to a container that runs; a stopped one can do without.
        let is_running = |id: &ImageId| used.iter().any(|(of, user)| of == id && user.running);
        let mut doomed = lost(&gone, names);
        doomed.retain(|id| !is_running(id));
        self.delete(id, gone, &doomed)
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

    /// Removes names of an image, and images, with the layers that only these had. Other names lose the images, and go where they
    /// mean no other.
    fn delete(
        &self,
        id: &ImageId,
        names: Vec<Reference>,
        images: &[ImageId],
    ) -> Result<Vec<Removed>> {
        let records = self.records.references().map_err(Error::Records)?;
        let mut updates: Vec<_> = names.iter().cloned().map(Update::RemoveReference).collect();
        updates.extend(images.iter().copied().map(Update::RemoveImage));
        let is_emptied = |record: &ReferenceRecord| {
            !names.contains(&record.reference) && record.images().all(|id| images.contains(&id))
        };
        let emptied: Vec<_> = { records.into_iter() }.filter(is_emptied).collect();
        let mut removed: Vec<_> = untagged(names, id).collect();
        for ReferenceRecord {
            reference, image, ..
        } in emptied
        {
            removed.push(Removed::Untagged(reference, image));
        }
        let layers = self.retire(&updates, images)?;
        removed.extend(images.iter().copied().map(Removed::Deleted));
        removed.extend(layers.into_iter().map(Removed::DeletedLayer));
        Ok(removed)
    }
}

/// The names of an image that mean it where no platform is asked for, ordered.
fn own_names(id: &ImageId, names: &[ReferenceRecord]) -> Vec<Reference> {
    let own = names.iter().filter(|record| record.image == *id);
    let mut own: Vec<Reference> = own.map(|record| record.reference.clone()).collect();
    own.sort();
    own
}

/// The images that nothing would name without these names.
fn lost(gone: &[Reference], names: &[ReferenceRecord]) -> Vec<ImageId> {
    let (gone, kept): (Vec<_>, Vec<_>) =
        { names.iter() }.partition(|record| gone.contains(&record.reference));
    let mut lost = Vec::new();
    for id in gone.iter().flat_map(|record| record.images()) {
        if !lost.contains(&id) && !kept.iter().any(|record| record.means(&id)) {
            lost.push(id);
        }
    }
    lost
}

/// Of an image and those for other platforms, what nothing would name without its own names.
fn unnamed(id: &ImageId, own: &[Reference], names: &[ReferenceRecord]) -> Vec<ImageId> {
    match own {
        [] => vec![*id],
        own => lost(own, names),
    }
}

/// An image, and those for other platforms that only its own names mean.
fn with_others(id: &ImageId, own: &[Reference], names: &[ReferenceRecord]) -> Vec<ImageId> {
    let mut all = vec![*id];
    all.extend(lost(own, names).into_iter().filter(|other| other != id));
    all
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Store;

    const BOTH: [&str; 2] = ["linux/s390x", "linux/riscv64"];

    fn free(_: &ImageId) -> Vec<User> {
        Vec::new()
    }

    fn shown(removed: &[Removed]) -> Vec<String> {
        let shown = removed.iter().filter_map(|step| match step {
            Removed::Untagged(name, _) => Some(name.familiar()),
            Removed::Deleted(id) => Some(id.hex()),
            Removed::DeletedLayer(_) => None,
        });
        shown.collect()
    }

    fn listed(store: &Store) -> Vec<ImageId> {
        let all = store.images.list(&ListFilter::default()).unwrap();
        all.into_iter().map(|image| image.id).collect()
    }

    #[test]
    fn the_last_name_takes_the_images_of_all_platforms_along() {
        let store = Store::new();
        let [a, b] = store.several(&["x:1", "y:1"], &BOTH)[..] else {
            panic!()
        };
        assert_eq!(listed(&store), [a]);
        let removed = store.images.remove("x:1", false, &free).unwrap();
        assert_eq!(shown(&removed), ["x:1"]);
        let removed = store.images.remove("y:1", false, &free).unwrap();
        assert_eq!(shown(&removed), ["y:1".to_owned(), a.hex(), b.hex()]);
        assert_eq!(store.content(), [] as [std::path::PathBuf; 0]);
    }

    #[test]
    fn an_id_is_that_of_all_or_of_another_platform() {
        let store = Store::new();
        let [a, b] = store.several(&["x:1"], &BOTH)[..] else {
            panic!()
        };
        store
            .images
            .tag(&b.to_string(), &"only-b".parse().unwrap())
            .unwrap();
        // Another name means it, too.
        let removed = store.images.remove(&a.to_string(), false, &free).unwrap();
        assert_eq!(shown(&removed), ["x:1".to_owned(), a.hex()]);
        assert_eq!(listed(&store), [b]);
        store.images.remove("only-b", false, &free).unwrap();
        let [a, b] = store.several(&["x:1"], &BOTH)[..] else {
            panic!()
        };
        let removed = store.images.remove(&b.to_string(), false, &free).unwrap();
        assert_eq!(shown(&removed), [b.hex()]);
        assert_eq!(store.images.get("x:1").unwrap().others, []);
        let platform = BOTH[0].parse().unwrap();
        let removed = store.images.remove_for("x:1", &platform, false, &free);
        assert_eq!(shown(&removed.unwrap()), ["x:1".to_owned(), a.hex()]);
    }

    #[test]
    fn a_container_of_another_platform_keeps_its_image() {
        let store = Store::new();
        let [a, b] = store.several(&["x:1"], &BOTH)[..] else {
            panic!()
        };
        let of = |used: ImageId, running: bool| {
            move |id: &ImageId| {
                let container = "c".to_owned();
                Vec::from_iter((*id == used).then_some(User { container, running }))
            }
        };
        let stopped = of(b, false);
        store.images.remove("x:1", false, &stopped).unwrap_err();
        store
            .images
            .remove(&a.to_string(), false, &stopped)
            .unwrap_err();
        let platform = BOTH[1].parse().unwrap();
        store
            .images
            .remove_for("x:1", &platform, false, &stopped)
            .unwrap_err();
        let all = ListFilter::default();
        assert_eq!(store.images.prune(true, &all, &stopped).unwrap().0, []);
        // What runs is left without a name.
        let removed = store.images.remove("x:1", true, &of(b, true)).unwrap();
        assert_eq!(shown(&removed), ["x:1".to_owned(), a.hex()]);
        assert_eq!(listed(&store), [b]);
        let plan = store.images.plan_prune(false, &all, &free, &[]).unwrap();
        let pruned = store.images.prune(false, &all, &free).unwrap();
        assert_eq!(plan, pruned);
        assert_eq!(shown(&pruned.0), [b.hex()]);
    }

    #[test]
    fn a_plan_of_a_prune_has_all_platforms() {
        let store = Store::new();
        store.several(&["x:1", "y:1"], &BOTH);
        store.several(&["z:1"], &["linux/ppc64le", "linux/s390x"]);
        let all = ListFilter::default();
        let sorted = |(removed, bytes): (Vec<Removed>, u64)| {
            let mut steps: Vec<String> = removed.iter().map(|step| format!("{step:?}")).collect();
            steps.sort();
            (steps, bytes)
        };
        let plan = sorted(store.images.plan_prune(true, &all, &free, &[]).unwrap());
        let pruned = sorted(store.images.prune(true, &all, &free).unwrap());
        assert_eq!(plan, pruned);
        assert!(plan.1 > 0 && listed(&store).is_empty());
        assert_eq!(store.content(), [] as [std::path::PathBuf; 0]);
    }
}
