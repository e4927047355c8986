//! `/containers` and `/commit`.

use crate::access::{Access, without_values};
use crate::checkpoints;
use crate::http::{
    BodyReader, Error, PieceWriter, Pieces, Reply, empty, json, json_with, read_json, send_line,
    stream,
};
use crate::older::{self, Asked};
use crate::server::Call;
use crate::streams::{self, Framing, Unframer};
use crate::version::Version;
use crate::websocket;
use crate::wire::{self, summary::Selection};
use api_types as types;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use engine::images::{CommitOptions, archive::ExtractOptions};
use engine::{Attached, Condition, LogEntry, LogOptions, LogSource, LogStream, Streams};
use http::{HeaderValue, StatusCode};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const NO_CONTENT: StatusCode = StatusCode::NO_CONTENT;

/// How often statistics are streamed.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn list(call: &Call<'_>) -> Reply {
    let selection = Selection::read(&call.query)?;
    let mut times = BTreeMap::new();
    for name in ["before", "since"] {
        if let Some(key) = selection.named(name) {
            times.insert(name, call.engine.inspect(key)?.spec.created);
        }
    }
    let limit = call
        .query
        .number::<i64>("limit")?
        .filter(|limit| *limit > 0);
    let with_size = call.query.flag("size");
    let wanted = call
        .engine
        .list()
        .into_iter()
        .filter(|container| selection.wants(container, &times));
    let limit = limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX);
    let link_names = call.engine.link_names();
    let mut summaries = Vec::new();
    for container in wanted.take(limit) {
        let sizes = if with_size {
            Some(call.engine.size(&container.spec.id)?)
        } else {
            None
        };
        let mut summary = wire::summary::summary(call.engine, &container, sizes);
        let further = link_names.get(&container.spec.id).into_iter().flatten();
        summary.names.extend(further.map(|name| format!("/{name}")));
        { call.version.lacks(older::CONTAINERS) }.for_each(|undo| undo(&mut summary));
        summaries.push(summary);
    }
    json(&summaries)
}

pub(crate) async fn create(call: Call<'_>) -> Reply {
    if hyper::body::Body::is_end_stream(call.request.body()) {
        return Err(Error::bad_request(
            "invalid JSON: got EOF while reading request body",
        ));
    }
    let mut body: types::CreateRequest = read_json(call.request).await?;
    wire::defaults::apply(&call.engine.config().defaults, &mut body);
    if body.image.is_empty() {
        return Err(Error::bad_request("no image given: Config.Image is empty"));
    }
    let host = body.host_config.as_deref();
    let kernel_memory =
        kernel_memory_warning(call.version, host.map_or(0, |host| host.kernel_memory));
    let asked = Asked::of(call.version, body)?;
    if let Some(platform) = crate::distribution::platform(&call.query)? {
        call.engine.check_platform(&asked.body.image, &platform)?;
    }
    let request = wire::create::request(call.query.get("name"), asked.body, asked.below_binds)?;
    let (container, mut warnings) = call.engine.create(request)?;
    warnings.extend(kernel_memory.into_iter().chain(asked.warnings));
    json_with(
        StatusCode::CREATED,
        &types::CreateResponse {
            id: container.spec.id.clone(),
            warnings,
        },
    )
}

/// No kernel since 5.16 limits its own memory apart. The API has the limit up to 1.41; later ones pass over it.
fn kernel_memory_warning(version: Version, bytes: i64) -> Option<String> {
    let text = "Kernel memory limit is deprecated, and the kernel does not support it. Limitation discarded.";
    (bytes != 0 && version < Version::of(42)).then(|| text.to_owned())
}

pub(crate) async fn update(call: Call<'_>, id: &str) -> Reply {
    let mut body: types::UpdateRequest = read_json(call.request).await?;
    { call.version.lacks(older::UPDATE) }.for_each(|undo| undo(&mut body));
    let mut warnings = call.engine.update(id, wire::create::update(&body)?).await?;
    warnings.extend(kernel_memory_warning(call.version, body.kernel_memory));
    json(&types::UpdateResponse {
        warnings: Some(warnings),
    })
}

/// This engine's own: Docker's has no way to publish ports of a container that exists.
pub(crate) async fn change_ports(call: Call<'_>, id: &str) -> Reply {
    let body: types::PortsRequest = read_json(call.request).await?;
    let remove = wire::create::published_ports(body.remove.iter())?;
    let add = wire::create::published_ports(body.add.iter())?;
    call.engine.change_ports(id, &remove, &add).await?;
    Ok(empty(NO_CONTENT))
}

/// This engine's own: who can reach the ports.
pub(crate) fn explain_ports(call: &Call<'_>, id: &str) -> Reply {
    let port = call
        .query
        .get("port")
        .map(wire::create::parse_port)
        .transpose()?;
    let explained = tokio::task::block_in_place(|| call.engine.explain_ports(id, port))?;
    let explained = explained.into_iter().map(wire::inspect::port_explanation);
    json(&explained.collect::<Vec<_>>())
}

pub(crate) async fn start(call: &Call<'_>, id: &str) -> Reply {
    let name = call.query.get("checkpoint").unwrap_or_default();
    let directory = call.query.get("checkpoint-dir");
    let checkpoint = (!name.is_empty()).then(|| checkpoints::named(name, directory));
    call.engine.start(id, checkpoint.as_ref()).await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) async fn stop(call: &Call<'_>, id: &str) -> Reply {
    call.engine
        .stop(id, call.query.get("signal"), call.query.number("t")?)
        .await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) async fn restart(call: &Call<'_>, id: &str) -> Reply {
    call.engine
        .restart(id, call.query.get("signal"), call.query.number("t")?)
        .await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) async fn kill(call: &Call<'_>, id: &str) -> Reply {
    call.engine.kill(id, call.query.get("signal")).await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) async fn pause(call: &Call<'_>, id: &str) -> Reply {
    call.engine.pause(id).await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) async fn unpause(call: &Call<'_>, id: &str) -> Reply {
    call.engine.unpause(id).await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) fn rename(call: &Call<'_>, id: &str) -> Reply {
    call.engine
        .rename(id, call.query.get("name").unwrap_or_default())?;
    Ok(empty(NO_CONTENT))
}

pub(crate) async fn resize(call: &Call<'_>, id: &str) -> Reply {
    let (rows, columns) = size(call)?;
    call.engine.resize(id, rows, columns).await?;
    Ok(empty(StatusCode::OK))
}

/// The parameters `h` and `w`.
pub(crate) fn size(call: &Call<'_>) -> Result<(u16, u16), Error> {
    Ok((
        call.query.number("h")?.unwrap_or(0),
        call.query.number("w")?.unwrap_or(0),
    ))
}

pub(crate) async fn remove(call: &Call<'_>, id: &str) -> Reply {
    if call.query.flag("link") {
        call.engine.remove_link(id).await?;
        return Ok(empty(NO_CONTENT));
    }
    call.engine
        .remove(id, call.query.flag("force"), call.query.flag("v"))
        .await?;
    Ok(empty(NO_CONTENT))
}

pub(crate) fn inspect(call: &Call<'_>, id: &str) -> Reply {
    let container = call.engine.inspect(id)?;
    let sizes = if call.query.flag("size") {
        Some(call.engine.size(id)?)
    } else {
        None
    };
    let mut response = wire::inspect::inspect(call.engine, &container, sizes);
    let execs = call.engine.running_execs(id)?;
    response.exec_ids = (!execs.is_empty()).then_some(execs);
    if call.access == Access::ReadOnly
        && let Some(environment) = &mut response.config.env
    {
        without_values(environment);
    }
    { call.version.lacks(older::CONTAINER) }.for_each(|undo| undo(&mut response));
    json(&response)
}

pub(crate) async fn top(call: &Call<'_>, id: &str) -> Reply {
    let table = call
        .engine
        .top(id, call.query.get("ps_args").unwrap_or("-ef"))
        .await?;
    json(&types::TopResponse {
        processes: Some(table.rows),
        titles: Some(table.titles),
    })
}

/// Answers at once, with a body that comes when the wait is over: the client knows that nothing is missed. Before 1.30 the whole
/// answer comes then.
pub(crate) async fn wait(call: &Call<'_>, id: &str) -> Reply {
    let condition = match call.query.get("condition").unwrap_or("not-running") {
        "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        other => return Err(Error::bad_request(format!("invalid condition: {other:?}"))),
    };
    let over = call.engine.wait(id, condition)?;
    let answer = |exit: engine::Exit| types::WaitResponse {
        error: exit.error.map(|message| types::WaitExitError { message }),
        status_code: exit.code.into(),
    };
    if call.version < Version::of(30) {
        return json(&answer(over.await));
    }
    // There was no way yet to tell of a removal that fails but to say nothing.
    let silent = condition == Condition::Removed && call.version < Version::of(34);
    let (pieces, response) = stream("application/json");
    tokio::spawn(async move {
        let exit = tokio::select! {
            exit = over => exit,
            () = pieces.closed() => return,
        };
        if !(silent && exit.error.is_some()) {
            send_line(&pieces, &answer(exit)).await;
        }
    });
    Ok(response)
}

fn is_framed(call: &Call<'_>, terminal: bool) -> bool {
    !terminal && call.version >= Version::of(42)
}

pub(crate) async fn attach(mut call: Call<'_>, id: &str) -> Reply {
    let wanted = wanted_streams(&call);
    let container = call.engine.inspect(id)?;
    let terminal = container.spec.process.terminal;
    let keys = streams::detach_keys(call.query.get("detachKeys"))?;
    let before = past_output(&call, id, wanted, terminal).await?;
    let framed = is_framed(&call, terminal);
    let (client, response) = streams::take(&mut call.request, framed)?;
    let attached = attached(&call, &container, wanted).await?;
    let framing = Framing::Kept;
    tokio::spawn(streams::serve_attached(
        client, attached, keys, before, framing,
    ));
    Ok(response)
}

/// As [`attach`], by websocket: output has no frames there.
pub(crate) async fn attach_websocket(mut call: Call<'_>, id: &str) -> Reply {
    let wanted = match call.version < Version::of(42) {
        // Older versions do not ask.
        true => Streams {
            stdin: true,
            stdout: true,
            stderr: true,
        },
        false => wanted_streams(&call),
    };
    let container = call.engine.inspect(id)?;
    let keys = streams::detach_keys(call.query.get("detachKeys"))?;
    let before = past_output(&call, id, wanted, true).await?;
    let messages = match call.version < Version::of(28) {
        true => websocket::Messages::Text,
        false => websocket::Messages::Binary,
    };
    let (client, response) = websocket::take(&mut call.request, messages)?;
    let attached = attached(&call, &container, wanted).await?;
    let framing = match container.spec.process.terminal {
        true => Framing::Kept,
        false => Framing::Removed(Unframer::default()),
    };
    tokio::spawn(streams::serve_attached(
        client, attached, keys, before, framing,
    ));
    Ok(response)
}

fn wanted_streams(call: &Call<'_>) -> Streams {
    Streams {
        stdin: call.query.flag("stdin"),
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr"),
    }
}

/// Attaches to those of the streams that are wanted and there are, as they go on from now.
async fn attached(
    call: &Call<'_>,
    container: &engine::model::Snapshot,
    wanted: Streams,
) -> Result<Attached, Error> {
    let wanted = Streams {
        stdin: wanted.stdin && container.spec.process.open_stdin,
        ..wanted
    };
    if !call.query.flag("stream") || !wanted.any() {
        // Only what has been said already is wanted.
        let (_, none) = tokio::sync::oneshot::channel();
        return Ok(Attached::WhenStarted(none));
    }
    Ok(call.engine.attach(&container.spec.id, wanted).await?)
}

/// How much past output an attach with `logs` gets at most; the rest is for `logs`.
const PAST_BYTES_MAX: usize = 16 << 20;

/// What was said before, if the call asks for it; without frames for a terminal.
async fn past_output(
    call: &Call<'_>,
    id: &str,
    wanted: Streams,
    terminal: bool,
) -> Result<Vec<u8>, Error> {
    if !call.query.flag("logs") {
        return Ok(Vec::new());
    }
    let mut log = call.engine.logs(id, LogOptions::default(), false)?;
    let mut output = Vec::new();
    while let Some(entry) = log.next().await? {
        if wants(wanted, entry.stream) {
            push_entry(
                &mut output,
                &entry,
                Shown {
                    terminal,
                    ..Shown::default()
                },
            );
        }
        if output.len() > PAST_BYTES_MAX {
            return Err(Error::bad_request(
                "the log is too long to attach with: read it with logs",
            ));
        }
    }
    Ok(output)
}

fn wants(streams: Streams, source: LogSource) -> bool {
    match source {
        LogSource::Stdout => streams.stdout,
        LogSource::Stderr => streams.stderr,
    }
}

fn wanted_sources(call: &Call<'_>) -> Vec<LogSource> {
    let sources = [("stdout", LogSource::Stdout), ("stderr", LogSource::Stderr)];
    sources
        .into_iter()
        .filter(|(name, _)| call.query.flag(name))
        .map(|(_, source)| source)
        .collect()
}

/// How entries are shown.
#[derive(Debug, Clone, Copy, Default)]
struct Shown {
    /// There is a terminal: nothing is framed.
    terminal: bool,
    timestamps: bool,
    /// With what the log driver's options have added.
    details: bool,
}

/// Appends an entry as clients expect it.
fn push_entry(output: &mut Vec<u8>, entry: &LogEntry, shown: Shown) {
    let mut stamp = String::new();
    if shown.timestamps {
        stamp = format!("{:.9} ", entry.time);
    }
    if shown.details {
        let encode =
            |text: &str| -> String { form_urlencoded::byte_serialize(text.as_bytes()).collect() };
        let pairs = entry.attributes.iter();
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        stamp.push_str(&pairs.join(","));
        stamp.push(' ');
    }
    if !shown.terminal {
        streams::push_frame(output, entry.stream, stamp.len() + entry.log.len());
    }
    output.extend_from_slice(stamp.as_bytes());
    output.extend_from_slice(entry.log.as_bytes());
}

pub(crate) fn logs(call: &Call<'_>, id: &str) -> Reply {
    let wanted = wanted_sources(call);
    if wanted.is_empty() {
        return Err(Error::bad_request(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let container = call.engine.inspect(id)?;
    let terminal = container.spec.process.terminal;
    let tail = match call.query.get("tail") {
        None | Some("all") => None,
        // As Docker: what is no number means all.
        Some(number) => number.parse::<u64>().ok(),
    };
    let options = LogOptions {
        since: call.query.time("since")?,
        // Clients send 0 for no end.
        until: call
            .query
            .time("until")?
            .filter(|until| *until != jiff::Timestamp::UNIX_EPOCH),
        tail,
    };
    let log = call.engine.logs(id, options, call.query.flag("follow"))?;
    let framed = is_framed(call, terminal);
    let content_type = if framed {
        types::MEDIA_TYPE_MULTIPLEXED_STREAM
    } else {
        types::MEDIA_TYPE_RAW_STREAM
    };
    let (pieces, response) = stream(content_type);
    let shown = Shown {
        terminal,
        timestamps: call.query.flag("timestamps"),
        details: call.query.flag("details"),
    };
    tokio::spawn(send_log(pieces, log, wanted, shown));
    Ok(response)
}

async fn send_log(pieces: Pieces, mut log: LogStream, wanted: Vec<LogSource>, shown: Shown) {
    loop {
        let entry = tokio::select! {
            entry = log.next() => entry,
            () = pieces.closed() => return,
        };
        let piece = match entry {
            Ok(Some(entry)) if wanted.contains(&entry.stream) => {
                let mut piece = Vec::new();
                push_entry(&mut piece, &entry, shown);
                Ok(Bytes::from(piece))
            }
            Ok(Some(_)) => continue,
            Ok(None) => return,
            Err(error) => Err(std::io::Error::other(error.chain())),
        };
        let failed = piece.is_err();
        if pieces.send(piece).await.is_err() || failed {
            return;
        }
    }
}

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
    mut response: http::Response<crate::http::Body>,
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

pub(crate) async fn commit(call: Call<'_>) -> Reply {
    let id = call
        .query
        .get("container")
        .ok_or_else(|| Error::bad_request("missing parameter: container"))?
        .to_owned();
    let reference = crate::images::target(&call.query)?;
    let body: types::Config = read_json(call.request).await?;
    let mut changes = wire::changes::instructions(&body)?;
    let lines = call.query.all("changes").iter();
    changes.extend(lines.flat_map(|lines| lines.lines()).map(str::to_owned));
    let options = CommitOptions {
        author: call.query.get("author").unwrap_or_default().to_owned(),
        message: call.query.get("comment").unwrap_or_default().to_owned(),
        changes,
        reference,
        ..CommitOptions::default()
    };
    let pause = call.query.flag_or("pause", true);
    let image = call.engine.commit(&id, options, pause).await?;
    json_with(
        StatusCode::CREATED,
        &types::IdResponse {
            id: image.to_string(),
        },
    )
}

pub(crate) async fn stats(call: &Call<'_>, id: &str) -> Reply {
    let live = call.query.flag_or("stream", true);
    let container = call.engine.inspect(id)?;
    let id = container.spec.id.clone();
    let first = sample(call.engine, &id, None).await?;
    if !live {
        if call.query.flag("one-shot") {
            return json(&first);
        }
        tokio::time::sleep(STATS_INTERVAL).await;
        return json(&sample(call.engine, &id, Some(&first)).await?);
    }
    let (pieces, response) = stream("application/json");
    let engine = call.engine.clone();
    tokio::spawn(async move {
        let mut last = first;
        while send_line(&pieces, &last).await {
            tokio::time::sleep(STATS_INTERVAL).await;
            match sample(&engine, &id, Some(&last)).await {
                Ok(next) => last = next,
                // The container is gone.
                Err(_) => return,
            }
        }
    });
    Ok(response)
}

/// One measurement; of a container that does not run, an empty one, as Docker's.
async fn sample(
    engine: &engine::Engine,
    id: &str,
    before: Option<&types::StatsResponse>,
) -> Result<types::StatsResponse, Error> {
    let container = engine.inspect(id)?;
    let mut response = types::StatsResponse {
        name: format!("/{}", container.name),
        id: id.to_owned(),
        ..types::StatsResponse::default()
    };
    if !container.state.phase.is_running() {
        return Ok(response);
    }
    let stats = engine.stats(id).await?;
    response.read = jiff::Timestamp::now().to_string();
    wire::stats::fill(&mut response, &stats, container.state.pid);
    response.network_rate = wire::inspect::network_rate(container.limits());
    if let Some(before) = before {
        response.preread.clone_from(&before.read);
        response.precpu_stats = before.cpu_stats.clone();
    }
    Ok(response)
}
