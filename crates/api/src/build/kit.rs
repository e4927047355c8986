//! `POST /session` and `POST /grpc`: connections that go on as BuildKit's protocol, which is HTTP/2. And `POST /build?version=2`, by
//! which clients without the gateway ask for the same: they tell the name of a session, and are told what Control.Status tells.

use super::kept::owner;
use super::parameters::{json, refuse_options};
use crate::body::Body;
use crate::distribution::peer;
use crate::http::{Error, Query, Reply, empty, stream};
use crate::images::{failed, line};
use crate::server::Call;
use api_types as types;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use buildkit::{Asked, BuildKit, Output};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use std::collections::BTreeMap;

/// What the connection is upgraded to.
const PROTOCOL: &str = "h2c";

/// `POST /session`: the client serves what its build needs of it.
pub(crate) fn session(call: Call<'_>) -> Reply {
    let announced = BuildKit::announced(call.request.headers()).map_err(Error::bad_request)?;
    let build_kit = call.build_kit.clone();
    let owner = owner(&call.request);
    upgrade(call.request, move |connection| async move {
        build_kit.session(announced, owner, connection).await;
    })
}

/// `POST /grpc`: the client calls Control and the gateway.
pub(crate) fn control(call: Call<'_>) -> Reply {
    let build_kit = call.build_kit.clone();
    upgrade(call.request, move |connection| async move {
        build_kit.control(connection).await;
    })
}

/// Where the context of such a build is, if it is in the session.
const SESSION: &str = "client-session";
/// The IDs of messages with the build's status, and with the image.
const TRACE: &str = "moby.buildkit.trace";
const IMAGE: &str = "moby.image.id";
/// Parameters of the classic builder alone, which others do not take: the name, and what counts as nothing.
const CLASSIC: [(&str, &[&str]); 7] = [
    ("memory", &["0"]),
    ("memswap", &["0"]),
    ("cpushares", &["0"]),
    ("cpuperiod", &["0"]),
    ("cpuquota", &["0"]),
    ("cpusetcpus", &[]),
    ("cpusetmems", &[]),
];

/// `POST /build?version=2`.
pub(super) fn build(call: Call<'_>) -> Reply {
    let asked = asked(&call.query)?;
    let (build_kit, peer) = (call.build_kit.clone(), peer(&call.request)?);
    let (pieces, response) = stream("application/json");
    tokio::spawn(async move {
        let message = async |message: &types::JsonMessage| {
            // A client that has gone is noticed below.
            let _ = pieces.send(Ok(line(message))).await;
        };
        let aux = |id: &str, aux: serde_json::Value| types::JsonMessage {
            id: id.to_owned(),
            aux: Some(aux),
            ..types::JsonMessage::default()
        };
        let told = |status: bytes::Bytes| {
            let trace = aux(TRACE, BASE64.encode(status).into());
            async move { message(&trace).await }
        };
        let built = tokio::select! {
            built = build_kit.build(asked, told) => built,
            () = peer.gone() => return,
            () = pieces.closed() => return,
        };
        match built.as_ref().map(|told| told.get("containerimage.digest")) {
            Ok(Some(id)) => message(&aux(IMAGE, serde_json::json!({ "ID": id }))).await,
            Ok(None) => {}
            Err(text) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                message(&failed(Error::new(status, text))).await;
            }
        }
    });
    Ok(response)
}

/// `POST /build/cancel`
pub(crate) fn cancel(call: &Call<'_>) -> Reply {
    let id = call.query.get("id").unwrap_or_default();
    match call.build_kit.cancel(id) {
        true => Ok(empty(StatusCode::OK)),
        false => Err(Error::not_found(format!("no such build: {id}"))),
    }
}

/// The parameters as the Dockerfile frontend knows them.
fn asked(query: &Query) -> Result<Asked, Error> {
    refuse_options(query)?;
    for (name, defaults) in CLASSIC {
        if let Some(value) = query.get(name).filter(|value| !defaults.contains(value)) {
            let text = format!("{name}={value} of a build by BuildKit's protocol");
            return Err(Error::unsupported(&text));
        }
    }
    if query.get("remote") != Some(SESSION) {
        return Err(Error::unsupported("a context that is not in the session"));
    }
    let mut attributes = BTreeMap::new();
    let mut add = |name: &str, value: String| drop(attributes.insert(name.to_owned(), value));
    let texts = [
        ("dockerfile", "filename"),
        ("target", "target"),
        ("platform", "platform"),
        ("cgroupparent", "cgroup-parent"),
        ("extrahosts", "add-hosts"),
        ("networkmode", "force-network-mode"),
        ("shmsize", "shm-size"),
    ];
    for (parameter, name) in texts {
        match query.get(parameter) {
            None | Some("0" | "default") => {}
            Some(value) if parameter == "extrahosts" => {
                let hosts = value.split(',').map(|host| host.replacen(':', "=", 1));
                add(name, hosts.collect::<Vec<_>>().join(","));
            }
            Some(value) => add(name, value.to_owned()),
        }
    }
    if query.flag("nocache") {
        add("no-cache", String::new());
    }
    if query.flag("pull") {
        add("image-resolve-mode", "pull".to_owned());
    }
    let arguments: BTreeMap<String, Option<String>> = json(query, "buildargs")?;
    for (name, value) in arguments {
        if let Some(value) = value {
            add(&format!("build-arg:{name}"), value);
        }
    }
    for (name, value) in json::<BTreeMap<String, String>>(query, "labels")? {
        add(&format!("label:{name}"), value);
    }
    add(
        "cache-from",
        json::<Vec<String>>(query, "cachefrom")?.join(","),
    );
    let ulimits: Vec<types::Ulimit> = json(query, "ulimits")?;
    let ulimits = ulimits
        .iter()
        .map(|it| format!("{}={}:{}", it.name, it.soft, it.hard));
    add("ulimit", ulimits.collect::<Vec<_>>().join(","));
    Ok(Asked {
        build: query.get("buildid").unwrap_or_default().to_owned(),
        session: query.get("session").unwrap_or_default().to_owned(),
        attributes,
        outputs: outputs(query)?,
    })
}

/// The outputs; an image, where nothing is said.
fn outputs(query: &Query) -> Result<Vec<Output>, Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Given {
        r#type: String,
        attrs: Option<BTreeMap<String, String>>,
    }
    let given: Vec<Given> = json(query, "outputs")?;
    let output = |given: Given| Output {
        kind: given.r#type,
        attributes: given.attrs.unwrap_or_default(),
    };
    let mut outputs: Vec<Output> = given.into_iter().map(output).collect();
    if outputs.is_empty() {
        outputs.push(Output {
            kind: "moby".to_owned(),
            attributes: BTreeMap::new(),
        });
    }
    let tags = query.all("t").join(",");
    for output in &mut outputs {
        if output.kind == "moby" && !tags.is_empty() {
            output.attributes.insert("name".to_owned(), tags.clone());
        }
    }
    Ok(outputs)
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
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
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
