//! `/volumes`.

use crate::http::{Error, Reply, empty, json, json_with, read_json};
use crate::server::Call;
use crate::wire::mounts::check_driver;
use api_types as types;
use engine::{Engine, NewVolume, Volume};
use http::{Method, StatusCode};
use tokio::task::block_in_place;

pub(crate) async fn route(method: &Method, segments: &[&str], call: Call<'_>) -> Reply {
    match (method, segments) {
        (&Method::GET, []) => list(&call),
        (&Method::POST, ["create"]) => create(call).await,
        (&Method::POST, ["prune"]) => crate::prune::volumes(&call),
        (&Method::GET, [name]) => json(&wire(call.engine, &call.engine.volume(name)?)),
        (&Method::DELETE, [name]) => {
            block_in_place(|| call.engine.remove_volume(name, call.query.flag("force")))?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        (&Method::PUT, [name]) => {
            call.engine.volume(name)?;
            Err(Error::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
            ))
        }
        _ => Err(Error::not_found("page not found")),
    }
}

/// A volume as Docker shows it.
pub(crate) fn wire(engine: &Engine, volume: &Volume) -> types::Volume {
    let mut labels = volume.labels.clone();
    if volume.anonymous {
        labels.insert("com.docker.volume.anonymous".to_owned(), String::new());
    }
    types::Volume {
        created_at: volume.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        driver: "local".to_owned(),
        labels: Some(labels).filter(|labels| !labels.is_empty()),
        options: Some(volume.options.clone()).filter(|options| !options.is_empty()),
        mountpoint: engine.volume_path(&volume.name).display().to_string(),
        name: volume.name.clone(),
        scope: "local".to_owned(),
        ..types::Volume::default()
    }
}

fn matches(engine: &Engine, volume: &Volume, filters: &types::Filters) -> bool {
    let own = wire(engine, volume).labels.unwrap_or_default();
    let labels = filters
        .get("label")
        .all(|filter| match filter.split_once('=') {
            Some((name, value)) => own.get(name).is_some_and(|label| label == value),
            None => own.contains_key(filter),
        });
    let names =
        !filters.contains("name") || filters.get("name").any(|part| volume.name.contains(part));
    let driver =
        !filters.contains("driver") || filters.get("driver").any(|driver| driver == "local");
    let unused = engine.volume_users(&volume.name).is_empty();
    let dangling = !filters.contains("dangling")
        || filters
            .get("dangling")
            .any(|value| matches!(value, "1" | "true") == unused);
    labels && names && driver && dangling
}

fn list(call: &Call<'_>) -> Reply {
    let filters = call
        .query
        .filters(&["label", "name", "driver", "dangling"])?;
    let volumes = call.engine.volumes()?;
    let wanted = volumes
        .iter()
        .filter(|volume| matches(call.engine, volume, &filters));
    let volumes = wanted.map(|volume| wire(call.engine, volume)).collect();
    json(&types::VolumeListResponse {
        volumes: Some(volumes),
        warnings: None,
    })
}

async fn create(call: Call<'_>) -> Reply {
    let body: types::VolumeCreateRequest = read_json(call.request).await?;
    check_driver(&body.driver)?;
    if body.cluster_volume_spec.is_some() {
        return Err(Error::unsupported("a cluster volume"));
    }
    let name = Some(body.name.as_str()).filter(|name| !name.is_empty());
    let new = NewVolume {
        labels: body.labels,
        options: body.driver_opts,
        anonymous: false,
    };
    let volume = block_in_place(|| call.engine.create_volume(name, new))?;
    json_with(StatusCode::CREATED, &wire(call.engine, &volume))
}
