//! Which handler serves a request.

use crate::access::Access;
use crate::body::Body;
use crate::http::{Error, Query, Reply, empty};
use crate::socket::{Caller, Peer};
use crate::version::{Unserved, Version};
use crate::{
    build, checkpoints, containers, distribution, exec, files, images, networks, output, system,
    volumes,
};
use buildkit::BuildKit;
use engine::Engine;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;

/// What a request has besides itself.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) engine: Engine,
    pub(crate) build_kit: BuildKit,
    pub(crate) awaited: build::Awaited,
    pub(crate) access: Access,
    pub(crate) caller: Arc<Caller>,
    pub(crate) peer: Peer,
}

/// Answers a request, and writes down who has changed something, or tried to.
pub(crate) async fn respond(context: Context, mut request: Request<Incoming>) -> Response<Body> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    request.extensions_mut().insert(context.peer.clone());
    request.extensions_mut().insert(Arc::clone(&context.caller));
    let reply = route(&context, request).await;
    let (mut response, refusal) = match reply {
        Ok(response) => (response, None),
        Err(error) => {
            let message = error.message.clone();
            (error.into_response(), Some(message))
        }
    };
    let (caller, status) = (&context.caller, response.status().as_u16());
    let error = refusal.as_deref();
    if changes(&method, &path) {
        tracing::info!(%caller, status, error, "{method} {path}");
    } else {
        tracing::debug!(%caller, status, error, "{method} {path}");
    }
    let headers = response.headers_mut();
    headers.insert(
        "Api-Version",
        HeaderValue::from_static(api_types::API_VERSION),
    );
    // Docker's client has checkpoints for such engines alone.
    headers.insert("Docker-Experimental", HeaderValue::from_static("true"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert(
        http::header::SERVER,
        HeaderValue::from_static(concat!("hull/", env!("CARGO_PKG_VERSION"))),
    );
    if method == Method::HEAD {
        *response.body_mut() = Body::Whole(None);
    }
    response
}

/// Whether the operator wants to know who has asked for it: what changes something, or gives a way in. Who waits for a
/// container, or makes a terminal larger, does neither.
fn changes(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET => path.ends_with("/attach/ws"),
        Method::HEAD | Method::OPTIONS => false,
        Method::POST => !(path.ends_with("/wait") || path.ends_with("/resize")),
        _ => true,
    }
}

/// Decodes `%2F` and its like in a path's segment.
fn decode(segment: &str) -> String {
    // A plus is a plus in a path.
    let escaped = segment.replace('+', "%2B");
    form_urlencoded::parse(escaped.as_bytes())
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}

/// A request on its way to its handler.
pub(crate) struct Call<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) access: Access,
    pub(crate) build_kit: &'a BuildKit,
    pub(crate) awaited: &'a build::Awaited,
    pub(crate) query: Query,
    pub(crate) request: Request<Incoming>,
    pub(crate) version: Version,
}

/// Clients from before all versions that are served print an error as it comes.
fn unserved(why: Unserved) -> Error {
    let error = Error::bad_request(why.to_string());
    match why {
        Unserved::TooOld(_) => error.in_plain_text(),
        Unserved::TooNew(_) => error,
    }
}

async fn route(context: &Context, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let (version, rest) = Version::split(&path).map_err(unserved)?;
    let segments: Vec<String> = rest
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(decode)
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let mut query = Query::parse(request.uri().query().unwrap_or_default());
    let method = request.method().clone();
    context.access.check(&method, &segments)?;
    version.forget_parameters(&method, &segments, &mut query);
    let call = Call {
        engine: &context.engine,
        access: context.access,
        build_kit: &context.build_kit,
        awaited: &context.awaited,
        query,
        request,
        version,
    };
    match (&method, &segments[..]) {
        (&Method::GET | &Method::HEAD, ["_ping"]) => system::ping(),
        (_, ["containers" | "commit", ..]) => route_containers(&method, &segments, call).await,
        (_, ["exec", id, action]) => exec::route(&method, id, action, call).await,
        (_, ["images", ..]) => images::route(&method, &segments[1..], call).await,
        (_, ["volumes", ..]) => volumes::route(&method, &segments[1..], call).await,
        (_, ["networks", ..]) => networks::route(&method, &segments[1..], call).await,
        (&Method::GET, ["version"]) => system::version(),
        (&Method::GET, ["info"]) => system::info(&call),
        (&Method::GET, ["events"]) => system::events(&call),
        (&Method::GET, ["system", "df"]) => system::disk_usage(&call).await,
        (&Method::POST, ["system", "verify"]) => system::verify(&call).await,
        (&Method::OPTIONS, _) => Ok(empty(StatusCode::OK)),
        (&Method::GET, ["plugins"]) => crate::http::json(&Vec::<()>::new()),
        (_, ["plugins", ..]) => Err(Error::unsupported("a managed plugin")),
        (
            _,
            [
                "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs",
                ..,
            ],
        ) => Err(Error::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        )),
        (&Method::POST, ["build"]) => build::build(call).await,
        (&Method::GET, ["build", "context"]) => build::kept(&call),
        (&Method::POST, ["build", "agent"]) => build::connect(call),
        (&Method::POST, ["build", "prune"]) => build::prune(&call),
        (&Method::POST, ["session"]) => build::session(call),
        (&Method::POST, ["grpc"]) => build::control(call),
        (&Method::POST, ["build", "cancel"]) => build::cancel(&call),
        (&Method::POST, ["auth"]) => distribution::log_in(call).await,
        (&Method::GET, ["distribution", name @ .., "json"]) => {
            distribution::inspect(&call, &name.join("/")).await
        }
        _ => Err(Error::not_found("page not found")),
    }
}

async fn route_containers(method: &Method, segments: &[&str], call: Call<'_>) -> Reply {
    match (method, segments) {
        (&Method::GET, ["containers", "json"]) => containers::list(&call),
        (&Method::POST, ["containers", "create"]) => containers::create(call).await,
        (&Method::POST, ["containers", "prune"]) => crate::prune::containers(&call).await,
        (&Method::POST, ["commit"]) => containers::commit(call).await,
        (&Method::DELETE, ["containers", id]) => containers::remove(&call, id).await,
        // A link is named by two words.
        (&Method::DELETE, ["containers", parent, name]) => {
            containers::remove(&call, &format!("{parent}/{name}")).await
        }
        (&Method::GET, ["containers", id, "json"]) => containers::inspect(&call, id),
        (&Method::GET, ["containers", id, "top"]) => containers::top(&call, id).await,
        (&Method::GET, ["containers", id, "logs"]) => output::logs(&call, id),
        (&Method::GET, ["containers", id, "changes"]) => files::changes(&call, id),
        (&Method::GET, ["containers", id, "export"]) => files::export(&call, id),
        (&Method::GET, ["containers", id, "stats"]) => containers::stats(&call, id).await,
        (&Method::GET, ["containers", id, "ports"]) => containers::explain_ports(&call, id),
        (&Method::POST, ["containers", id, "ports"]) => containers::change_ports(call, id).await,
        (&Method::POST, ["containers", id, "start"]) => containers::start(&call, id).await,
        (&Method::POST, ["containers", id, "stop"]) => containers::stop(&call, id).await,
        (&Method::POST, ["containers", id, "restart"]) => containers::restart(&call, id).await,
        (&Method::POST, ["containers", id, "kill"]) => containers::kill(&call, id).await,
        (&Method::POST, ["containers", id, "pause"]) => containers::pause(&call, id).await,
        (&Method::POST, ["containers", id, "unpause"]) => containers::unpause(&call, id).await,
        (&Method::POST, ["containers", id, "rename"]) => containers::rename(&call, id),
        (&Method::POST, ["containers", id, "resize"]) => containers::resize(&call, id).await,
        (&Method::POST, ["containers", id, "wait"]) => containers::wait(&call, id).await,
        (&Method::POST, ["containers", id, "attach"]) => output::attach(call, id).await,
        (&Method::POST, ["containers", id, "exec"]) => exec::create(call, id).await,
        (&Method::HEAD, ["containers", id, "archive"]) => files::archive_stat(&call, id),
        (&Method::GET, ["containers", id, "archive"]) => files::archive_get(&call, id),
        (&Method::PUT, ["containers", id, "archive"]) => files::archive_put(call, id).await,
        (&Method::POST, ["containers", id, "update"]) => containers::update(call, id).await,
        (&Method::GET, ["containers", id, "attach", "ws"]) => {
            output::attach_websocket(call, id).await
        }
        (_, ["containers", id, "checkpoints", rest @ ..]) => {
            checkpoints::route(method, id, rest, call).await
        }
        _ => Err(Error::not_found("page not found")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_told_of_changes_and_ways_in() {
        for (method, path) in [
            (Method::POST, "/v1.51/containers/create"),
            (Method::DELETE, "/volumes/v"),
            (Method::PUT, "/containers/x/archive"),
            (Method::GET, "/containers/x/attach/ws"),
        ] {
            assert!(changes(&method, path), "{method} {path}");
        }
        for (method, path) in [
            (Method::GET, "/containers/json"),
            (Method::HEAD, "/_ping"),
            (Method::POST, "/containers/x/wait"),
            (Method::POST, "/exec/x/resize"),
        ] {
            assert!(!changes(&method, path), "{method} {path}");
        }
    }

    #[test]
    fn segments_are_decoded() {
        assert_eq!(decode("a%2Fb+c"), "a/b+c");
        assert_eq!(decode("x%3D1"), "x=1");
    }
}
