//! `/containers/{id}/checkpoints`.

use crate::http::{Error, Reply, empty, json, read_json};
use crate::server::Call;
use api_types as types;
use engine::Checkpoint;
use http::{Method, StatusCode};
use std::path::{Path, PathBuf};
use tokio::task::block_in_place;

pub(crate) async fn route(method: &Method, id: &str, rest: &[&str], call: Call<'_>) -> Reply {
    match (method, rest) {
        (&Method::GET, []) => list(&call, id),
        (&Method::POST, []) => create(call, id).await,
        (&Method::DELETE, [name]) => {
            let checkpoint = named(name, call.query.get("dir"));
            call.engine.remove_checkpoint(id, &checkpoint).await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        _ => Err(Error::not_found("page not found")),
    }
}

/// A checkpoint's name, and the directory that it is in instead of the container's own.
pub(crate) fn named(name: &str, directory: Option<&str>) -> Checkpoint {
    Checkpoint {
        name: name.to_owned(),
        directory: directory
            .filter(|directory| !directory.is_empty())
            .map(PathBuf::from),
    }
}

fn list(call: &Call<'_>, id: &str) -> Reply {
    let directory = call.query.get("dir").filter(|dir| !dir.is_empty());
    let names = block_in_place(|| call.engine.checkpoints(id, directory.map(Path::new)))?;
    let names = names.into_iter();
    let checkpoints: Vec<_> = names
        .map(|name| types::CheckpointSummary { name })
        .collect();
    json(&checkpoints)
}

async fn create(call: Call<'_>, id: &str) -> Reply {
    let body: types::CheckpointCreateRequest = read_json(call.request).await?;
    let checkpoint = named(&body.checkpoint_id, Some(&body.checkpoint_dir));
    call.engine
        .create_checkpoint(id, &checkpoint, !body.exit)
        .await?;
    Ok(empty(StatusCode::CREATED))
}
