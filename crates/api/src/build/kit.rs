//! `POST /session` and `POST /grpc`: connections that go on as BuildKit's protocol, which is HTTP/2.

use crate::http::{Body, Error, Reply, empty};
use crate::server::{Call, Held};
use buildkit::BuildKit;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;

/// What the connection is upgraded to.
const PROTOCOL: &str = "h2c";

/// `POST /session`: the client serves what its build needs of it.
pub(crate) fn session(call: Call<'_>) -> Reply {
    let announced = BuildKit::announced(call.request.headers()).map_err(Error::bad_request)?;
    let build_kit = call.build_kit.clone();
    upgrade(call.request, move |connection| async move {
        build_kit.session(announced, connection).await;
    })
}

/// `POST /grpc`: the client calls Control and the gateway.
pub(crate) fn control(call: Call<'_>) -> Reply {
    let build_kit = call.build_kit.clone();
    upgrade(call.request, move |connection| async move {
        build_kit.control(connection).await;
    })
}

fn upgrade<F>(
    request: Request<Incoming>,
    serve: impl FnOnce(Upgraded) -> F + Send + 'static,
) -> Reply
where
    F: Future<Output = ()> + Send,
{
    let wanted = request.headers().get(header::UPGRADE);
    if wanted.is_none_or(|wanted| !wanted.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes())) {
        return Err(Error::bad_request(format!(
            "the connection is to be upgraded to {PROTOCOL}"
        )));
    }
    let held = request.extensions().get::<Held>().cloned();
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let _held = held;
        match upgraded.await {
            Ok(connection) => serve(connection).await,
            Err(error) => {
                tracing::debug!(%error, "a client left before its connection was upgraded")
            }
        }
    });
    let mut response: Response<Body> = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}
