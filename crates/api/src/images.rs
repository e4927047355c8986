//! `/images`.

use crate::distribution::platform_document;
use crate::http::{BodyReader, Error, PieceWriter, Query, Reply, empty, json, stream};
use crate::older;
use crate::prune::until;
use crate::server::Call;
use api_types as types;
use bytes::Bytes;
use engine::images::{Image, ListFilter, Removed};
use engine::{Engine, images::ImageId};
use http::{Method, StatusCode};
use oci::Reference;
use oci::image::Config;
use std::collections::{BTreeMap, BTreeSet};
use tokio::task::block_in_place;

pub(crate) async fn route(method: &Method, segments: &[&str], call: Call<'_>) -> Reply {
    match (method, segments) {
        (&Method::GET, ["json"]) => list(&call),
        (&Method::POST, ["load"]) => load(call),
        (&Method::POST, ["create"]) if call.query.get("fromImage").is_some() => {
            crate::distribution::pull(&call).await
        }
        (&Method::POST, ["create"]) => crate::import::create(call).await,
        (&Method::GET, ["get"]) => save(&call, call.query.all("names").to_vec()),
        (&Method::POST, ["prune"]) => crate::prune::images(&call),
        (&Method::GET, ["search"]) => crate::search::search(&call).await,
        (&Method::GET, [name @ .., "json"]) => inspect(&call, &name.join("/")),
        (&Method::GET, [name @ .., "history"]) => history(&call, &name.join("/")),
        (&Method::GET, [name @ .., "get"]) => save(&call, vec![name.join("/")]),
        (&Method::POST, [name @ .., "tag"]) => tag(&call, &name.join("/")),
        (&Method::POST, [name @ .., "push"]) => {
            crate::distribution::push(&call, &name.join("/")).await
        }
        (&Method::DELETE, name) if !name.is_empty() => remove(&call, &name.join("/")),
        _ => Err(Error::not_found("page not found")),
    }
}

/// The reference that the parameters `repo` and `tag` name, if they do.
pub(crate) fn target(query: &Query) -> Result<Option<Reference>, Error> {
    let Some(repository) = query.get("repo") else {
        return Ok(None);
    };
    let text = match query.get("tag") {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    };
    let bad = |error: oci::reference::ReferenceError| {
        Error::bad_request(format!("invalid reference format: {text:?}: {error}"))
    };
    let reference: Reference = text.parse().map_err(bad)?;
    Ok(Some(reference.to_target()))
}

fn list(call: &Call<'_>) -> Reply {
    let filters = call.query.filters(&[
        "dangling",
        "label",
        "label!",
        "reference",
        "before",
        "since",
        "until",
    ])?;
    let pair = |text: &str| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    };
    let dangling = filters.get("dangling").next().map(|value| match value {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => Err(Error::bad_request(format!(
            "invalid filter 'dangling={other}'"
        ))),
    });
    let times = { filters.get("until") }.map(|text| until(text, jiff::Timestamp::now()));
    let filter = ListFilter {
        dangling: dangling.transpose()?,
        labels: filters.get("label").map(pair).collect(),
        without_labels: filters.get("label!").map(pair).collect(),
        references: { filters.get("reference").chain(call.query.get("filter")) }
            .map(str::to_owned)
            .collect(),
        before: filters.get("before").next().map(str::to_owned),
        since: filters.get("since").next().map(str::to_owned),
        until: times.collect::<Result<Vec<_>, _>>()?.into_iter().min(),
    };
    let images = block_in_place(|| call.engine.images().list(&filter))?;
    let shares = match call.query.flag("shared-size") {
        true => Some(block_in_place(|| call.engine.images().shares())?),
        false => None,
    };
    let shared = |image: &Image| -> Option<u64> {
        let shares = shares.as_ref()?;
        let all = image.ids().map(|id| Some(shares.get(id)?.shared));
        all.sum()
    };
    let with_manifests = call.query.flag("manifests");
    let summarized = |image: &Image| -> Result<types::ImageSummary, Error> {
        let manifests = with_manifests.then(|| manifests(call.engine, image));
        Ok(types::ImageSummary {
            shared_size: shared(image).map_or(-1, signed),
            manifests: manifests.transpose()?.unwrap_or_default(),
            ..summary(call.engine, image)
        })
    };
    let summaries: Result<Vec<_>, Error> = images.iter().map(summarized).collect();
    let mut summaries = summaries?;
    summaries.sort_by_key(|image| std::cmp::Reverse(image.created));
    for undo in call.version.lacks(older::IMAGES) {
        summaries.iter_mut().for_each(undo);
    }
    json(&summaries)
}

fn created_s(image: &Image) -> i64 {
    image.created().map_or(0, jiff::Timestamp::as_second)
}

pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn names(references: &[Reference]) -> Vec<String> {
    references.iter().map(Reference::familiar).collect()
}

/// An image in a list.
pub(crate) fn summary(engine: &Engine, image: &Image) -> types::ImageSummary {
    let labels = &image.config.config.labels;
    let users: usize = image.ids().map(|id| engine.image_users(id).len()).sum();
    types::ImageSummary {
        containers: i64::try_from(users).unwrap_or(i64::MAX),
        created: created_s(image),
        id: image.id.to_string(),
        labels: Some(labels.clone()).filter(|labels| !labels.is_empty()),
        repo_digests: names(&image.digests),
        repo_tags: names(&image.tags),
        shared_size: -1,
        size: signed(image.size),
        ..types::ImageSummary::default()
    }
}

/// What there is of an image for each platform.
fn manifests(engine: &Engine, image: &Image) -> Result<Vec<types::ManifestSummary>, Error> {
    let one = |id: &ImageId| {
        let image = block_in_place(|| engine.images().get(&id.to_string()))?;
        let platform = crate::distribution::wire_platform(image.config.platform.clone());
        let users = engine.image_users(id).into_iter();
        Ok(types::ManifestSummary {
            id: id.to_string(),
            descriptor: types::Descriptor {
                media_type: oci::image::media_type::OCI_MANIFEST.to_owned(),
                digest: image.record.manifest.to_string(),
                platform: Some(platform.clone()),
                ..types::Descriptor::default()
            },
            available: true,
            size: types::ManifestSize {
                content: 0,
                total: signed(image.size),
            },
            kind: "image".to_owned(),
            image_data: Some(types::ManifestImage {
                platform,
                size: types::UnpackedSize {
                    unpacked: signed(image.size),
                },
                containers: users.map(|user| user.container).collect(),
            }),
        })
    };
    image.ids().map(one).collect()
}

fn inspect(call: &Call<'_>, name: &str) -> Reply {
    let platform = platform_document(&call.query, "platform")?;
    if platform.is_some() && call.query.flag("manifests") {
        return Err(Error::bad_request(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    let image = block_in_place(|| call.engine.images().get_for(name, platform.as_ref()))?;
    let file = &image.config;
    let manifests = match call.query.flag("manifests") {
        true => manifests(call.engine, &image)?,
        false => Vec::new(),
    };
    let mut inspected = types::ImageInspect {
        manifests,
        id: image.id.to_string(),
        repo_tags: names(&image.tags),
        repo_digests: names(&image.digests),
        comment: file.comment.clone(),
        created: file.created.clone().unwrap_or_default(),
        docker_version: file.docker_version.clone(),
        author: file.author.clone(),
        config: Some(image_config(&file.config)),
        architecture: file.platform.architecture.clone(),
        variant: file.platform.variant.clone().unwrap_or_default(),
        os: file.platform.os.clone(),
        os_version: file.platform.os_version.clone().unwrap_or_default(),
        size: signed(image.size),
        graph_driver: types::DriverData {
            name: "overlayfs".to_owned(),
            data: None,
        },
        root_fs: types::RootFs {
            kind: file.rootfs.kind.clone(),
            layers: file
                .rootfs
                .diff_ids
                .iter()
                .map(ToString::to_string)
                .collect(),
        },
        ..types::ImageInspect::default()
    };
    { call.version.lacks(older::IMAGE) }.for_each(|undo| undo(&mut inspected));
    json(&inspected)
}

/// What containers of an image start from.
fn image_config(config: &Config) -> types::ImageConfig {
    let set = |keys: &BTreeSet<String>| -> BTreeMap<String, types::Empty> {
        let keys = keys.iter();
        keys.map(|key| (key.clone(), types::Empty {})).collect()
    };
    // Nothing is null.
    let list = |words: &[String]| Some(words.to_vec()).filter(|words| !words.is_empty());
    let health = config
        .healthcheck
        .as_ref()
        .map(|check| types::HealthConfig {
            test: check.test.clone(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        });
    types::ImageConfig {
        user: config.user.clone(),
        exposed_ports: set(&config.exposed_ports),
        env: list(&config.env),
        entrypoint: config.entrypoint.clone().filter(|words| !words.is_empty()),
        cmd: config.cmd.clone().filter(|words| !words.is_empty()),
        volumes: Some(set(&config.volumes)).filter(|set| !set.is_empty()),
        working_dir: config.working_dir.clone(),
        labels: Some(config.labels.clone()).filter(|labels| !labels.is_empty()),
        stop_signal: config.stop_signal.clone(),
        args_escaped: config.args_escaped,
        healthcheck: health,
        on_build: list(&config.on_build),
        shell: config.shell.clone(),
        ..types::ImageConfig::default()
    }
}

fn history(call: &Call<'_>, name: &str) -> Reply {
    let platform = platform_document(&call.query, "platform")?;
    let (image, entries) = block_in_place(|| {
        let images = call.engine.images();
        let image = images.get_for(name, platform.as_ref())?;
        let entries = images.history(&image.id.to_string())?;
        Ok::<_, engine::images::Error>((image, entries))
    })?;
    let items = entries.iter().enumerate().map(|(at, (entry, size))| {
        let time = entry
            .created
            .as_deref()
            .and_then(|time| time.parse::<jiff::Timestamp>().ok());
        // Only the newest entry is an image of its own.
        let newest = at == 0;
        types::HistoryItem {
            comment: entry.comment.clone(),
            created: time.map_or(0, jiff::Timestamp::as_second),
            created_by: entry.created_by.clone(),
            id: if newest {
                image.id.to_string()
            } else {
                "<missing>".to_owned()
            },
            size: signed(*size),
            tags: newest
                .then(|| names(&image.tags))
                .filter(|tags| !tags.is_empty()),
        }
    });
    let items: Vec<_> = items.collect();
    json(&items)
}

fn tag(call: &Call<'_>, name: &str) -> Reply {
    let target =
        target(&call.query)?.ok_or_else(|| Error::bad_request("missing parameter: repo"))?;
    block_in_place(|| call.engine.images().tag(name, &target))?;
    let image = block_in_place(|| call.engine.images().get(name))?;
    call.engine
        .image_event("tag", &image.id.to_string(), attributes(&target.familiar()));
    Ok(empty(StatusCode::CREATED))
}

pub(crate) fn attributes(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("name".to_owned(), name.to_owned())])
}

/// One step of a removal.
pub(crate) fn removal_item(step: &Removed) -> types::ImageDeleteItem {
    match step {
        Removed::Untagged(reference, _) => types::ImageDeleteItem {
            untagged: reference.familiar(),
            ..types::ImageDeleteItem::default()
        },
        Removed::Deleted(id) | Removed::DeletedLayer(id) => types::ImageDeleteItem {
            deleted: id.to_string(),
            ..types::ImageDeleteItem::default()
        },
    }
}

/// Tells what was removed.
pub(crate) fn tell_removal(engine: &Engine, removed: &[Removed]) {
    for step in removed {
        let (action, id) = match step {
            Removed::Untagged(_, id) => ("untag", id.to_string()),
            Removed::Deleted(id) => ("delete", id.to_string()),
            // Layers are nothing that events are about.
            Removed::DeletedLayer(_) => continue,
        };
        engine.image_event(action, &id, attributes(&id));
    }
}

fn remove(call: &Call<'_>, name: &str) -> Reply {
    // `noprune` keeps untagged parents; images have none here, only layers, which go with the last image that has them.
    let users = |id: &ImageId| call.engine.image_users(id);
    let platform = platform_document(&call.query, "platforms")?;
    let force = call.query.flag("force");
    let removed = block_in_place(|| {
        let images = call.engine.images();
        match &platform {
            Some(platform) => images.remove_for(name, platform, force, &users),
            None => images.remove(name, force, &users),
        }
    })?;
    tell_removal(call.engine, &removed);
    json(&removed.iter().map(removal_item).collect::<Vec<_>>())
}

fn save(call: &Call<'_>, names: Vec<String>) -> Reply {
    if names.is_empty() {
        return Err(Error::bad_request("no image named: parameter names"));
    }
    // What is not there is told with a status; once the body has begun it is too late.
    let platform = platform_document(&call.query, "platform")?;
    let mut ids = BTreeSet::new();
    for name in &names {
        let image = block_in_place(|| call.engine.images().get_for(name, platform.as_ref()))?;
        ids.insert(image.id.to_string());
    }
    let (pieces, response) = stream("application/x-tar");
    let engine = call.engine.clone();
    tokio::task::spawn_blocking(move || {
        let mut writer = PieceWriter::new(pieces);
        let result = engine.images().save(&names, platform.as_ref(), &mut writer);
        if result.is_ok() {
            for id in ids {
                engine.image_event("save", &id, attributes(&id));
            }
        }
        writer.finish(result.map_err(|error| Error::from(error).message));
    });
    Ok(response)
}

/// A line of progress.
pub(crate) fn line(message: &types::JsonMessage) -> Bytes {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.extend_from_slice(b"\r\n");
    line.into()
}

fn said(text: String) -> types::JsonMessage {
    types::JsonMessage {
        stream: text,
        ..types::JsonMessage::default()
    }
}

/// A failure after the status was sent.
pub(crate) fn failed(error: Error) -> types::JsonMessage {
    let detail = types::JsonError {
        code: 0,
        message: error.message.clone(),
    };
    types::JsonMessage {
        error: Some(detail),
        error_message: error.message,
        ..types::JsonMessage::default()
    }
}

fn load(call: Call<'_>) -> Reply {
    let quiet = call.query.flag("quiet");
    let platform = platform_document(&call.query, "platform")?;
    let engine = call.engine.clone();
    let body = BodyReader::new(call.request.into_body());
    let (pieces, response) = stream("application/json");
    tokio::task::spawn_blocking(move || {
        // A client that has gone does not stop the load: it has sent everything, or the body breaks off.
        let send = |message: &types::JsonMessage| drop(pieces.blocking_send(Ok(line(message))));
        let mut last = 0;
        let loaded = engine
            .images()
            .load(body, platform.as_ref(), &mut |progress| {
                if quiet || progress.read < last + PROGRESS_BYTES && progress.read < progress.size {
                    return;
                }
                last = if progress.read >= progress.size {
                    0
                } else {
                    progress.read
                };
                send(&types::JsonMessage {
                    status: "Loading layer".to_owned(),
                    id: progress
                        .layer
                        .trim_start_matches("sha256:")
                        .chars()
                        .take(12)
                        .collect(),
                    progress: Some(types::JsonProgress {
                        current: signed(progress.read),
                        total: signed(progress.size),
                        ..types::JsonProgress::default()
                    }),
                    ..types::JsonMessage::default()
                });
            });
        match loaded {
            Ok(loaded) => {
                for image in loaded {
                    let id = image.id.to_string();
                    for reference in &image.references {
                        send(&said(format!("Loaded image: {}\n", reference.familiar())));
                    }
                    if image.references.is_empty() {
                        send(&said(format!("Loaded image ID: {id}\n")));
                    }
                    engine.image_event("load", &id, attributes(&id));
                }
            }
            Err(error) => send(&failed(error.into())),
        }
    });
    Ok(response)
}

/// How often progress is told.
pub(crate) const PROGRESS_BYTES: u64 = 1 << 20;
