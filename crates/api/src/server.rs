//! Serving connections, and which handler serves a request.

use crate::http::{Body, Error, Query, Reply, empty};
use crate::{build, containers, distribution, exec, images, networks, system, volumes};
use buildkit::BuildKit;
use engine::Engine;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};

/// The newest and the oldest version of the API.
const VERSION_MAX: (u32, u32) = (1, 51);
const VERSION_MIN: (u32, u32) = (1, 24);

/// Counts the connections that are open, so that an idle engine can end.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<AtomicUsize>);

impl Connections {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often is looked whether a client is there that nothing is written to.
const PEER_LOOK: Duration = Duration::from_millis(250);

/// Held by each connection, and by what it is upgraded to.
#[derive(Debug)]
struct Counted(Connections);

/// A share of a connection's count, for who serves it when it is no longer HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Held(
    #[expect(dead_code, reason = "it counts as long as it is held")] Arc<Counted>,
);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections until the future is dropped.
pub async fn serve(listener: UnixListener, engine: Engine, connections: Connections) {
    let build_kit = BuildKit::new(engine.clone());
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                connections.0.fetch_add(1, Ordering::Relaxed);
                let counted = Counted(connections.clone());
                let (engine, build_kit) = (engine.clone(), build_kit.clone());
                tokio::spawn(connection(socket, engine, build_kit, counted));
            }
            Err(error) => {
                // Out of descriptors, most likely: connections that end will free some.
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The client's end of a connection, for who wants to know whether it is there still. It keeps nothing open.
#[derive(Debug, Clone)]
pub(crate) struct Peer(Weak<OwnedFd>);

impl Peer {
    /// Returns when the client has closed its end, or the connection is over. A client that has ended its input alone may
    /// wait for answers, so a connection goes on then; that it is closed shows only when something is written, or here.
    pub(crate) async fn gone(&self) {
        while self.is_there() {
            tokio::time::sleep(PEER_LOOK).await;
        }
    }

    fn is_there(&self) -> bool {
        let Some(socket) = self.0.upgrade() else {
            return false;
        };
        let mut polled = [PollFd::new(&*socket, PollFlags::empty())];
        // A signal that comes between says nothing.
        let looked = poll(&mut polled, Some(&Timespec::default()));
        looked.is_err()
            || !polled[0]
                .revents()
                .intersects(PollFlags::HUP | PollFlags::ERR)
    }
}

async fn connection(socket: UnixStream, engine: Engine, build_kit: BuildKit, counted: Counted) {
    let held = Held(Arc::new(counted));
    let peer = match socket.as_fd().try_clone_to_owned() {
        Ok(socket) => Arc::new(socket),
        Err(error) => {
            // Out of descriptors, as when accepting.
            tracing::error!(%error, "cannot serve a connection");
            return;
        }
    };
    let service = service_fn(|mut request: Request<Incoming>| {
        let (engine, build_kit) = (engine.clone(), build_kit.clone());
        request.extensions_mut().insert(Peer(Arc::downgrade(&peer)));
        request.extensions_mut().insert(held.clone());
        async move { Ok::<_, Infallible>(respond(&engine, &build_kit, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke off");
    }
}

async fn respond(
    engine: &Engine,
    build_kit: &BuildKit,
    request: Request<Incoming>,
) -> Response<Body> {
    let is_head = request.method() == Method::HEAD;
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let reply = route(engine, build_kit, request).await;
    let mut response = reply.unwrap_or_else(|error| {
        tracing::debug!(%method, path, status = error.status.as_u16(), error = error.message, "refused");
        error.into_response()
    });
    let headers = response.headers_mut();
    headers.insert(
        "Api-Version",
        HeaderValue::from_static(api_types::API_VERSION),
    );
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert(
        http::header::SERVER,
        HeaderValue::from_static(concat!("hull/", env!("CARGO_PKG_VERSION"))),
    );
    if is_head {
        *response.body_mut() = Body::Whole(None);
    }
    response
}

/// A request's version and the rest of its path.
fn split_version(path: &str) -> Result<((u32, u32), &str), Error> {
    let Some((version, rest)) = path
        .strip_prefix("/v")
        .and_then(|rest| rest.split_once('/'))
    else {
        return Ok((VERSION_MAX, path));
    };
    let number = version
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let Some(number) = number else {
        return Ok((VERSION_MAX, path));
    };
    if number < VERSION_MIN {
        return Err(Error::bad_request(format!(
            "client version {version} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
            api_types::API_VERSION_MIN
        )));
    }
    if number > VERSION_MAX {
        return Err(Error::bad_request(format!(
            "client version {version} is too new. Maximum supported API version is {}",
            api_types::API_VERSION
        )));
    }
    // The slash that separated them begins the rest.
    Ok((number, &path[path.len() - rest.len() - 1..]))
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
    pub(crate) build_kit: &'a BuildKit,
    pub(crate) query: Query,
    pub(crate) request: Request<Incoming>,
    pub(crate) version: (u32, u32),
}

async fn route(engine: &Engine, build_kit: &BuildKit, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let (version, rest) = split_version(&path)?;
    let segments: Vec<String> = rest
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(decode)
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let method = request.method().clone();
    let call = Call {
        engine,
        build_kit,
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
        (&Method::GET, ["containers", id, "json"]) => containers::inspect(&call, id),
        (&Method::GET, ["containers", id, "top"]) => containers::top(&call, id).await,
        (&Method::GET, ["containers", id, "logs"]) => containers::logs(&call, id),
        (&Method::GET, ["containers", id, "changes"]) => containers::changes(&call, id),
        (&Method::GET, ["containers", id, "export"]) => containers::export(&call, id),
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
        (&Method::POST, ["containers", id, "wait"]) => containers::wait(&call, id),
        (&Method::POST, ["containers", id, "attach"]) => containers::attach(call, id).await,
        (&Method::POST, ["containers", id, "exec"]) => exec::create(call, id).await,
        (&Method::HEAD, ["containers", id, "archive"]) => containers::archive_stat(&call, id),
        (&Method::GET, ["containers", id, "archive"]) => containers::archive_get(&call, id),
        (&Method::PUT, ["containers", id, "archive"]) => containers::archive_put(call, id).await,
        (&Method::POST, ["containers", id, "update"]) => containers::update(call, id).await,
        (_, ["containers", _, "attach", "ws"]) => Err(Error::unsupported("attaching by websocket")),
        (_, ["containers", _, "checkpoints", ..]) => Err(Error::unsupported("a checkpoint")),
        _ => Err(Error::not_found("page not found")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_split_off_and_checked() {
        assert_eq!(
            split_version("/v1.43/containers/json").unwrap(),
            ((1, 43), "/containers/json")
        );
        assert_eq!(
            split_version("/containers/json").unwrap(),
            (VERSION_MAX, "/containers/json")
        );
        assert_eq!(
            split_version("/volumes/v1").unwrap(),
            (VERSION_MAX, "/volumes/v1")
        );
        assert!(split_version("/v1.23/info").is_err() && split_version("/v1.99/info").is_err());
    }

    #[test]
    fn segments_are_decoded() {
        assert_eq!(decode("a%2Fb+c"), "a/b+c");
        assert_eq!(decode("x%3D1"), "x=1");
    }
}
