//! `create`: everything that can be checked is checked, then one row is written. No kernel object is made.

mod merge;

use crate::container::{Container, record};
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::model::{
    Attachment, CreateRequest, ImageSource, Ipc, Mount, MountForm, MountSource, Namespace,
    NetworkMode, Snapshot, Spec, State,
};
use crate::{Engine, ids, quota};
use merge::{merge, same_path};
use oci::image::{Config as ImageConfig, Platform};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::block_in_place;

/// How often a made-up name is tried anew when it is taken.
const NAME_ATTEMPTS_MAX: u32 = 8;

impl Engine {
    /// Creates a container; nothing runs yet. With it comes what was made differently than asked.
    ///
    /// # Errors
    /// No such image, a taken name, a request that makes no sense.
    pub fn create(&self, request: CreateRequest) -> Result<(Snapshot, Vec<String>)> {
        block_in_place(|| self.create_blocking(request))
    }

    /// Creates a container that stands on layers, which the caller holds, instead of an image: a step of a build. What the
    /// request leaves out is not there; its `image` is only what the container is said to be of.
    ///
    /// # Errors
    /// As [`Engine::create`].
    pub fn create_on(&self, layers: Vec<oci::Digest>, request: CreateRequest) -> Result<Snapshot> {
        let source = ImageSource::Layers(layers);
        let created = block_in_place(|| self.create_from(request, source, ImageConfig::default()));
        created.map(|(snapshot, _)| snapshot)
    }

    fn create_blocking(&self, request: CreateRequest) -> Result<(Snapshot, Vec<String>)> {
        let (image, config) = self.find_image(&request.image, request.platform.as_ref())?;
        self.create_from(request, image, config)
    }

    fn create_from(
        &self,
        mut request: CreateRequest,
        image: ImageSource,
        config: ImageConfig,
    ) -> Result<(Snapshot, Vec<String>)> {
        if let Some(name) = &request.name {
            ids::check_name("container", name)?;
        }
        let wanted_name = request.name.clone();
        self.0.config.defaults.apply(&mut request);
        self.take_over_mounts(&mut request)?;
        self.resolve_image_mounts(&mut request.mounts)?;
        let mode = match &request.network.mode {
            NetworkMode::Bridge => Some("bridge".to_owned()),
            NetworkMode::Network(name) => Some(name.clone()),
            NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => None,
        };
        let mut attachments = self.resolve_attachments(mode.as_deref(), request.wishes.clone())?;
        if let Some(first) = attachments.first_mut() {
            let given = request.network.mac_address.clone();
            first.wish.mac_address = first.wish.mac_address.take().or(given);
        }
        let mut spec = merge(request, image, config)?;
        self.resolve_peers(&mut spec)?;
        self.resolve_links(&spec.network.mode.clone(), &mut spec.network.links)?;
        let support = crate::update::host_support()?;
        let warnings = crate::update::fit(&mut spec.limits, &support)?;
        crate::spec::check(&spec)?;
        self.check_rate(&spec.limits, &spec.network.mode, &attachments)?;
        let secret = |mount: &Mount| matches!(mount.source, MountSource::Secret(_));
        if spec.isolation.user_namespace && spec.mounts.iter().any(secret) {
            return Err(Error::unsupported(
                "a secret in a container with a user namespace of its own is not supported",
            ));
        }
        if quota::storage_bytes(&spec)?.is_some() {
            let layers = self.0.config.data_root.join("snapshots");
            quota::check_support("--storage-opt size", &layers)?;
        }
        self.create_volumes_of(&spec)?;
        let container = self.insert(spec, wanted_name, attachments)?;
        self.container_event(&container, "create", []);
        Ok((container.snapshot(), warnings))
    }

    fn find_image(
        &self,
        reference: &str,
        platform: Option<&Platform>,
    ) -> Result<(ImageSource, ImageConfig)> {
        if is_directory(reference) {
            let path = std::fs::canonicalize(reference).map_err(|error| {
                Error::invalid(format!(
                    "cannot use {reference} as a root filesystem: {error}"
                ))
            })?;
            if !path.is_dir() {
                return Err(Error::invalid(format!(
                    "cannot use {reference} as a root filesystem: not a directory"
                )));
            }
            return Ok((ImageSource::Directory(path), ImageConfig::default()));
        }
        let image = self
            .0
            .images
            .get_for(reference, platform)
            .map_err(|error| not_usable(reference, error))?;
        Ok((
            ImageSource::Image(image.id.to_string()),
            image.config.config.clone(),
        ))
    }

    /// Adds the mounts of the containers that the request names, where it has none of its own.
    fn take_over_mounts(&self, request: &mut CreateRequest) -> Result<()> {
        for text in &request.volumes_from {
            let (name, mode) = text.split_once(':').unwrap_or((text, ""));
            let read_only = match mode {
                "" | "rw" | "z" | "Z" => false,
                "ro" => true,
                other => {
                    return Err(Error::invalid(format!(
                        "invalid mode for volumes-from: {other}"
                    )));
                }
            };
            // Not the class of what is not there: clients take that for the image.
            let donor = { self.0.registry.find(name) }
                .map_err(|error| Error::invalid(format!("--volumes-from: {error}")))?;
            for mount in &donor.spec.mounts {
                let known =
                    { request.mounts.iter() }.any(|own| same_path(&own.target, &mount.target));
                if known || matches!(mount.source, MountSource::Tmpfs { .. }) {
                    continue;
                }
                request.mounts.push(Mount {
                    read_only: mount.read_only || read_only,
                    form: MountForm::Inherited,
                    ..mount.clone()
                });
            }
        }
        Ok(())
    }

    /// Finds the images that are mounted.
    fn resolve_image_mounts(&self, mounts: &mut [Mount]) -> Result<()> {
        for mount in mounts {
            if let MountSource::Image {
                reference,
                id,
                subpath,
            } = &mut mount.source
            {
                crate::mounts::relative(subpath)?;
                // As above.
                let found = self.find_image(reference, None).map_err(|error| {
                    Error::invalid(format!("cannot mount an image: {}", error.chain()))
                })?;
                *id = match found.0 {
                    ImageSource::Image(id) => id,
                    ImageSource::Directory(_) => {
                        return Err(Error::invalid(format!(
                            "cannot mount {reference} as an image: it is a directory, which type=bind mounts"
                        )));
                    }
                    ImageSource::Layers(_) => unreachable!("no name means layers without an image"),
                };
            }
        }
        Ok(())
    }

    /// Replaces the names of other containers by their ids.
    fn resolve_peers(&self, spec: &mut Spec) -> Result<()> {
        let find = |name: &mut String| -> Result<()> {
            *name = self.0.registry.find(name)?.id().to_owned();
            Ok(())
        };
        if let Ipc::Container(name) = &mut spec.isolation.ipc {
            let peer = self.0.registry.find(name)?;
            if !matches!(peer.spec.isolation.ipc, Ipc::Shareable | Ipc::Host) {
                return Err(Error::invalid(format!(
                    "cannot join IPC namespace of container {name}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
                )));
            }
            find(name)?;
        }
        for namespace in [
            &mut spec.isolation.pid,
            &mut spec.isolation.uts,
            &mut spec.isolation.cgroup,
        ] {
            if let Namespace::Container(name) = namespace {
                find(name)?;
            }
        }
        if let NetworkMode::Container(name) = &mut spec.network.mode {
            find(name)?;
        }
        Ok(())
    }

    /// Writes the record under the wanted name, or one that is free.
    fn insert(
        &self,
        spec: Spec,
        wanted: Option<String>,
        attachments: Vec<Attachment>,
    ) -> Result<Arc<Container>> {
        let state = State {
            attachments,
            ..State::created()
        };
        let mut row = store::ContainerRow {
            id: spec.id.clone(),
            name: String::new(),
            spec: record::encode_spec(&spec)?,
            state: record::encode_state(&state)?,
        };
        let mut attempts = 0;
        loop {
            row.name = match &wanted {
                Some(name) => name.clone(),
                None => ids::made_up_name(&ids::random_id()?),
            };
            match self.0.store.insert_container(&row) {
                Ok(()) => break,
                Err(store::Error::Taken { .. })
                    if wanted.is_none() && attempts < NAME_ATTEMPTS_MAX =>
                {
                    attempts += 1
                }
                Err(store::Error::Taken { .. }) => return Err(self.name_taken(&row.name)),
                Err(error) => return Err(error.into()),
            }
        }
        let container = Arc::new(Container::new(spec, row.name, state));
        self.0.registry.insert(Arc::clone(&container));
        Ok(container)
    }

    fn name_taken(&self, name: &str) -> Error {
        let owner = self
            .0
            .registry
            .find(name)
            .map(|owner| owner.id().to_owned())
            .unwrap_or_default();
        Error::conflict(format!(
            "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
        ))
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// No such container, a bad or taken name.
    pub fn rename(&self, key: &str, name: &str) -> Result<()> {
        let container = self.0.registry.find(key)?;
        let name = name.strip_prefix('/').unwrap_or(name);
        ids::check_name("container", name)?;
        let old = container.name();
        if old == name {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        match self.0.store.rename_container(container.id(), name) {
            Err(store::Error::Taken { .. }) => return Err(self.name_taken(name)),
            result => result?,
        }
        container.set_name(name.to_owned());
        block_in_place(|| self.write_names_of(&container.state().attachments))?;
        self.container_event(&container, "rename", [("oldName", format!("/{old}"))]);
        Ok(())
    }

    /// Tells about something that happened to a container.
    pub(crate) fn container_event(
        &self,
        container: &Container,
        action: impl Into<String>,
        more: impl IntoIterator<Item = (&'static str, String)>,
    ) {
        let mut attributes: BTreeMap<String, String> = container.spec.labels.clone();
        attributes.insert("image".to_owned(), container.spec.image_reference.clone());
        attributes.insert("name".to_owned(), container.name());
        attributes.extend(
            more.into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        );
        self.0
            .events
            .emit(EventKind::Container, action, container.id(), attributes);
    }
}

/// Whether what a request calls an image is a directory of the host.
fn is_directory(image: &str) -> bool {
    image.starts_with(['/', '.'])
}

fn not_usable(image: &str, error: images::Error) -> Error {
    match error.kind() {
        images::ErrorKind::NotFound => Error::not_found(error.to_string()),
        images::ErrorKind::Invalid => Error::invalid(error.to_string()),
        _ => Error::system(format!("look up image {image}"), error),
    }
}
