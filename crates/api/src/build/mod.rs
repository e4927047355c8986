//! `POST /build` and `POST /build/prune`: Docker's classic builder over the wire; `POST /session` and `POST /grpc`: BuildKit's.

mod agents;
mod elsewhere;
mod kept;
mod kit;
mod parameters;
mod prune;
mod request;
mod tell;

pub(crate) use agents::{Awaited, connect};
pub(crate) use kept::kept;
pub(crate) use kit::{cancel, control, session};
pub(crate) use prune::{CacheFilter, prune};

use crate::distribution::{peer, stop_when_gone};
use crate::http::{BodyReader, Error, Pieces, Reply, pass_over, stream};
use crate::images::{failed, line};
use crate::server::Call;
use crate::version::Version;
use api_types as types;
use builder::lint::Finding;
use builder::{Answer, Built, Progress, Request};
use engine::Engine;
use http::StatusCode;
use kept::Keep;
use request::{Surroundings, Wish};
use tell::{Events, Text};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

/// `POST /build`.
pub(crate) async fn build(call: Call<'_>) -> Reply {
    if call.query.get("version") == Some("2") {
        return kit::build(call);
    }
    let wish = match Wish::read(&call.query, call.request.headers()) {
        Ok(wish) => wish,
        Err(error) => {
            pass_over(call.request.into_body()).await;
            return Err(error);
        }
    };
    let keep = Keep::read(&call.query, kept::owner(&call.request));
    let end = match (wish.events, wish.quiet) {
        (true, _) => End::Events,
        (false, true) => End::Quiet,
        (false, false) => End::Text {
            machine_readable: call.version >= Version::of(30),
        },
    };
    let peer = peer(&call.request)?;
    let (engine, awaited) = (call.engine.clone(), call.awaited.clone());
    let (pieces, response) = stream("application/json");
    let (stop, stopped) = watch::channel(false);
    let (begun, begins) = oneshot::channel();
    let client = pieces.clone();
    let body = BodyReader::new(call.request.into_body());
    let handle = Handle::current();
    let working = tokio::task::spawn_blocking(move || {
        let work = Work {
            engine,
            handle,
            wish,
            end,
            pieces,
            awaited,
            keep,
        };
        work.run(body, stopped, begun);
    });
    stop_when_gone(working, peer, client, stop);
    match begins.await {
        Ok(Some(error)) => Err(error),
        Ok(None) | Err(_) => Ok(response),
    }
}

/// A build on its own thread.
struct Work {
    engine: Engine,
    handle: Handle,
    wish: Wish,
    end: End,
    pieces: Pieces,
    awaited: Awaited,
    keep: Option<Keep>,
}

/// How a client is told which image was built.
#[derive(Debug, Clone, Copy)]
enum End {
    /// As an event of this engine's own.
    Events,
    /// By the ID alone.
    Quiet,
    /// In sentences, and since API 1.30 for programs, too.
    Text { machine_readable: bool },
}

impl Work {
    /// A failure before the build begins has a status of its own; any later one ends the stream.
    fn run(
        self,
        body: BodyReader,
        stop: watch::Receiver<bool>,
        begun: oneshot::Sender<Option<Error>>,
    ) {
        let (quiet, events, check) = (self.wish.quiet, self.wish.events, self.wish.check);
        let inquiry = self.wish.inquiry;
        let end = self.end;
        let tags: Vec<String> = self
            .wish
            .tags
            .iter()
            .map(oci::Reference::familiar)
            .collect();
        let mut begun = Some(begun);
        if self.wish.is_asked_meanwhile() {
            // A client that has gone does not ask, here as below.
            begun.take().map(|begun| begun.send(None));
        }
        let pieces = self.pieces;
        let surroundings = Surroundings {
            engine: &self.engine,
            handle: &self.handle,
            pieces: &pieces,
            awaited: self.awaited,
            keep: self.keep,
        };
        let (request, cache) = match (self.wish.into_request(surroundings, body, stop), begun) {
            (Ok(asked), begun) => {
                begun.map(|begun| begun.send(None));
                asked
            }
            (Err(error), Some(begun)) => return drop(begun.send(Some(error))),
            (Err(error), None) => {
                return drop(pieces.blocking_send(Ok(line(&failed(error)))));
            }
        };
        let events = events.then(|| Events::new(pieces.clone()));
        let text = Text::new(pieces.clone(), quiet);
        let progress: &dyn Progress = match &events {
            Some(events) => events,
            None => &text,
        };
        let say = |message: &types::JsonMessage| drop(pieces.blocking_send(Ok(line(message))));
        if let Some(inquiry) = inquiry {
            return match builder::inquire(&request, inquiry) {
                Ok(Answer { document, text }) => say(&tell::event(&types::BuildEvent::Answered {
                    document,
                    text,
                })),
                Err(error) => say(&failure(&error, None)),
            };
        }
        if check {
            return match builder::check(&self.engine, &request) {
                Ok(found) => tell_checked(&found, &say),
                Err(error) => say(&failure(&error, None)),
            };
        }
        let built = builder::build(&self.engine, &self.handle, &request, progress);
        let built = built.and_then(|built| {
            if let (Some(archive), Some(manifest)) = (cache, &built.cache) {
                archive.finish(manifest)?;
            }
            Ok(built)
        });
        match built {
            Ok(built) => {
                // What layers have got of the context has one name then.
                drop(request);
                tell_built(&built, &tags, end, &say);
            }
            Err(error) => tell_failed(&error, events.as_ref(), &request, &say),
        }
    }
}

/// A client of this engine's own sees the step that has failed, and its lines.
fn tell_failed(
    error: &builder::Error,
    events: Option<&Events>,
    request: &Request,
    say: &dyn Fn(&types::JsonMessage),
) {
    if let Some(events) = events {
        events.failed(error);
    }
    say(&failure(error, events.is_some().then_some(request)));
}

fn tell_checked(found: &[Finding], say: &dyn Fn(&types::JsonMessage)) {
    for finding in found {
        say(&tell::event(&types::BuildEvent::Found(tell::found(
            finding,
        ))));
    }
    say(&tell::event(&types::BuildEvent::Checked));
}

fn tell_built(built: &Built, tags: &[String], end: End, say: &dyn Fn(&types::JsonMessage)) {
    let manifest = built.made.manifest.as_ref();
    let manifest = manifest.and_then(|(manifest, _)| serde_json::to_value(manifest).ok());
    let (id, digits) = match &built.made.id {
        Some(id) => (id.to_string(), id.hex()),
        None => Default::default(),
    };
    let text = |text: String| {
        say(&types::JsonMessage {
            stream: text,
            ..types::JsonMessage::default()
        });
    };
    match end {
        End::Events => say(&tell::event(&types::BuildEvent::Built {
            id,
            manifest,
            tags: tags.to_vec(),
            steps: built.steps,
            cached: built.cached,
            largest: built.largest.clone(),
        })),
        // There is no image where only files are asked for.
        End::Quiet | End::Text { .. } if built.made.id.is_none() => {}
        End::Quiet => text(format!("{id}\n")),
        End::Text { machine_readable } => {
            if machine_readable {
                say(&types::JsonMessage {
                    aux: Some(serde_json::json!({ "ID": id })),
                    ..types::JsonMessage::default()
                });
            }
            text(format!("Successfully built {}\n", &digits[..12]));
            for tag in tags {
                text(format!("Successfully tagged {tag}\n"));
            }
        }
    }
}

/// The message that ends a build which has failed; with a request, after the step as the Dockerfile has it.
fn failure(error: &builder::Error, request: Option<&Request>) -> types::JsonMessage {
    let shown = request.and_then(|request| step_of(error, request));
    let with_step = |text: String| match &shown {
        Some(step) => format!("{step}\n{text}"),
        None => text,
    };
    let failure = status(error);
    let mut message = failed(Error::new(failure.status, with_step(failure.message)));
    if let Some(code) = error.command_code() {
        // Clients take it as their own exit code, and know the sentence.
        let text = with_step(innermost(error).to_string());
        message.error = Some(types::JsonError {
            code: i64::from(code),
            message: text.clone(),
        });
        message.error_message = text;
    }
    message
}

/// The lines of the Dockerfile that a step which has failed is on. A mistake in the language shows its own.
fn step_of(error: &builder::Error, request: &Request) -> Option<String> {
    let builder::Error::Step {
        position, source, ..
    } = error
    else {
        return None;
    };
    if matches!(innermost(source), builder::Error::Language(_)) {
        return None;
    }
    let name = &request.dockerfile_name;
    let file = builder::language::parse(name, &request.dockerfile).ok()?;
    let text = String::from_utf8_lossy(&request.dockerfile);
    let first = usize::try_from(position.line).ok()?;
    let escape = file.directives.escape;
    Some(builder::language::excerpt(name, &text, first, escape))
}

fn innermost(error: &builder::Error) -> &builder::Error {
    match error {
        builder::Error::Step { source, .. } => innermost(source),
        other => other,
    }
}

/// The one place where a failure of a build becomes a status.
fn status(error: &builder::Error) -> Error {
    use builder::Error as Failure;
    let status = match innermost(error) {
        Failure::NotFound(_) => StatusCode::NOT_FOUND,
        Failure::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
        other if other.is_of_request() => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Error::new(status, error.chain())
}
