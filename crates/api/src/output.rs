//! What a container says, and what is said to it: attach, by websocket too, and logs.

use crate::http::{Error, Pieces, Reply, stream};
use crate::server::Call;
use crate::streams::{self, Framing, Unframer};
use crate::version::Version;
use crate::websocket;
use api_types as types;
use bytes::Bytes;
use engine::{Attached, LogEntry, LogOptions, LogSource, LogStream, Streams};

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
