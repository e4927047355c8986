//! A container's files: what has changed, export, and archives of paths in both directions.

use crate::http::{BodyReader, Error, PieceWriter, Reply, empty, json, stream};
use crate::server::Call;
use api_types as types;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use engine::images::archive::ExtractOptions;
use http::{HeaderValue, StatusCode};
use std::path::Path;

pub(crate) fn changes(call: &Call<'_>, id: &str) -> Reply {
    use engine::images::ChangeKind;
    let changes = call.engine.changes(id)?;
    let wire = changes.iter().map(|change| types::FilesystemChange {
        path: change.path.display().to_string(),
        kind: match change.kind {
            ChangeKind::Modified => types::ChangeKind::Modified,
            ChangeKind::Added => types::ChangeKind::Added,
            ChangeKind::Deleted => types::ChangeKind::Deleted,
        },
    });
    let wire: Vec<_> = wire.collect();
    // Docker's "nothing" is null.
    json(&Some(wire).filter(|wire| !wire.is_empty()))
}

pub(crate) fn export(call: &Call<'_>, id: &str) -> Reply {
    let archive = call.engine.archive(id)?;
    let (engine, id) = (call.engine.clone(), id.to_owned());
    let (pieces, response) = stream("application/octet-stream");
    tokio::task::spawn_blocking(move || {
        let mut writer = PieceWriter::new(pieces);
        let result = archive.export(&mut writer).map_err(|error| error.chain());
        engine.archive_event(&id, "export");
        writer.finish(result);
    });
    Ok(response)
}

fn archive_path<'a>(call: &'a Call<'_>) -> Result<&'a Path, Error> {
    let path = call
        .query
        .get("path")
        .ok_or_else(|| Error::bad_request("missing parameter: path"))?;
    Ok(Path::new(path))
}

/// Describes the path in a header, as the client's `cp` wants to know it.
fn with_stat(
    mut response: http::Response<crate::body::Body>,
    stat: &engine::images::archive::Stat,
) -> Reply {
    let modified = jiff::Timestamp::new(
        stat.modified.tv_sec,
        i32::try_from(stat.modified.tv_nsec).unwrap_or(0),
    );
    let stat = types::PathStat {
        name: stat.name.display().to_string(),
        size: i64::try_from(stat.size).unwrap_or(i64::MAX),
        mode: types::go_mode::from_unix(stat.mode),
        mtime: modified.map(|time| time.to_string()).unwrap_or_default(),
        link_target: stat.link_target.display().to_string(),
    };
    let text = serde_json::to_vec(&stat).map_err(|error| Error::bad_request(error.to_string()))?;
    let value = HeaderValue::from_str(&BASE64.encode(&text))
        .map_err(|error| Error::bad_request(error.to_string()))?;
    response
        .headers_mut()
        .insert(types::HEADER_PATH_STAT, value);
    Ok(response)
}

pub(crate) fn archive_stat(call: &Call<'_>, id: &str) -> Reply {
    let archive = call.engine.archive(id)?;
    let path = archive_path(call)?;
    let stat = tokio::task::block_in_place(|| archive.stat(path))?;
    with_stat(empty(StatusCode::OK), &stat)
}

pub(crate) fn archive_get(call: &Call<'_>, id: &str) -> Reply {
    let archive = call.engine.archive(id)?;
    let path = archive_path(call)?.to_owned();
    let stat = tokio::task::block_in_place(|| archive.stat(&path))?;
    call.engine.archive_event(id, "archive-path");
    let (pieces, response) = stream("application/x-tar");
    tokio::task::spawn_blocking(move || {
        let mut writer = PieceWriter::new(pieces);
        let result = archive
            .read(&path, &mut writer)
            .map_err(|error| error.chain());
        writer.finish(result);
    });
    with_stat(response, &stat)
}

pub(crate) async fn archive_put(call: Call<'_>, id: &str) -> Reply {
    let archive = call.engine.archive(id)?;
    let path = archive_path(&call)?.to_owned();
    if call.query.flag("copyUIDGID") {
        return Err(Error::unsupported(
            "copying with the container's user (copyUIDGID)",
        ));
    }
    let options = ExtractOptions {
        no_overwrite_dir_non_dir: call.query.flag("noOverwriteDirNonDir"),
        ..ExtractOptions::default()
    };
    let body = BodyReader::new(call.request.into_body());
    let extracted =
        tokio::task::spawn_blocking(move || archive.extract(&path, body, &options)).await;
    extracted
        .map_err(|error| Error::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??;
    call.engine.archive_event(id, "extract-to-dir");
    Ok(empty(StatusCode::OK))
}
