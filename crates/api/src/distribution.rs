//! Talking to registries: `POST /images/create?fromImage=…`, `POST /images/{name}/push`, `POST /auth`,
//! `GET /distribution/{name}/json`.

use crate::http::{Error, Pieces, Query, Reply, json, read_json, stream};
use crate::images::{PROGRESS_BYTES, failed, line, signed};
use crate::server::Call;
use crate::socket::Peer;
use api_types as types;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use engine::images::registry::Credentials;
use engine::images::{LayerState, Pulled, PushState, Pushed};
use engine::{Engine, images};
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use oci::image::Platform;
use oci::{Digest, Reference};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Who the client is to registries: base64 of JSON, with or without padding.
const HEADER_AUTH: &str = "X-Registry-Auth";
/// Bytes of that header.
const AUTH_BYTES_MAX: usize = 64 << 10;

pub(crate) const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The credentials in a request's header; a client without any sends an empty document.
pub(crate) fn credentials(headers: &HeaderMap) -> Result<Credentials, Error> {
    let bad = |what: String| Error::bad_request(format!("{HEADER_AUTH}: {what}"));
    let Some(value) = headers.get(HEADER_AUTH).filter(|value| !value.is_empty()) else {
        return Ok(Credentials::Anonymous);
    };
    if value.len() > AUTH_BYTES_MAX {
        return Err(bad(format!("more than {AUTH_BYTES_MAX} bytes")));
    }
    let document = BASE64_URL
        .decode(value)
        .map_err(|error| bad(error.to_string()))?;
    let auth: types::AuthConfig =
        api_types::from_slice(&document).map_err(|error| bad(error.to_string()))?;
    Ok(known(auth))
}

/// Credentials as a client sends them.
pub(crate) fn known(auth: types::AuthConfig) -> Credentials {
    Credentials::known(
        auth.username,
        auth.password,
        auth.identity_token,
        auth.registry_token,
    )
}

/// `POST /auth`.
pub(crate) async fn log_in(call: Call<'_>) -> Reply {
    let auth: types::AuthConfig = read_json(call.request).await?;
    let domain = registry_domain(&auth.server_address);
    let credentials = known(auth);
    let token = match call.engine.log_in(&domain, &credentials).await {
        // Clients ask for other credentials by this status alone.
        Err(error) if error.is_denied() => {
            return Err(Error::new(StatusCode::UNAUTHORIZED, error.to_string()));
        }
        token => token?,
    };
    json(&types::AuthResponse {
        status: "Login Succeeded".to_owned(),
        identity_token: token.unwrap_or_default(),
    })
}

/// The registry in an address as clients keep it, such as `https://index.docker.io/v1/`.
pub(crate) fn registry_domain(address: &str) -> String {
    let bare = address
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    match bare.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => {
            oci::reference::DEFAULT_DOMAIN.to_owned()
        }
        domain => domain.to_owned(),
    }
}

/// `POST /images/create?fromImage=…&tag=…&platform=…`: without a tag, all tags.
pub(crate) async fn pull(call: &Call<'_>) -> Reply {
    let name = call.query.get("fromImage").unwrap_or_default();
    let bad = |error: String| Error::bad_request(format!("invalid reference format: {error}"));
    let named: Reference = name
        .parse()
        .map_err(|error: oci::reference::ReferenceError| bad(error.to_string()))?;
    let credentials = credentials(call.request.headers())?;
    let platform = platform(&call.query)?;
    let tag = call.query.get("tag").unwrap_or_default();
    let references = match tag {
        "" if named.tag().is_none() && named.digest().is_none() => {
            let tags = call.engine.remote_tags(&named, credentials.clone()).await?;
            let tagged = tags.iter().map(|tag| named.clone().with_tag(tag));
            tagged
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| bad(error.to_string()))?
        }
        "" => vec![named],
        tag => vec![match tag.parse() {
            Ok(digest) => named.with_digest(digest),
            Err(_) => named
                .with_tag(tag)
                .map_err(|error| bad(error.to_string()))?,
        }],
    };
    let engine = call.engine.clone();
    told(peer(&call.request)?, move |teller| {
        for reference in &references {
            let pulled = teller.pull(&engine, reference, platform.clone(), credentials.clone())?;
            teller.pulled(reference, &pulled);
        }
        Ok(())
    })
    .await
}

/// The platform that a query names as people write it.
pub(crate) fn platform(query: &Query) -> Result<Option<Platform>, Error> {
    { query.get("platform") }
        .map(str::parse)
        .transpose()
        .map_err(|error: oci::image::PlatformError| Error::bad_request(error.to_string()))
}

/// The platform that a query names as a document.
pub(crate) fn platform_document(query: &Query, name: &str) -> Result<Option<Platform>, Error> {
    let text = match query.all(name) {
        [] => return Ok(None),
        [text] if text.is_empty() => return Ok(None),
        [text] => text,
        _ => {
            return Err(Error::bad_request(
                "multiple platform parameters not supported",
            ));
        }
    };
    let bad = |what: String| Error::bad_request(format!("failed to parse platform: {what}"));
    let platform: Platform =
        api_types::from_slice(text.as_bytes()).map_err(|error| bad(error.to_string()))?;
    if platform.os.is_empty() || platform.architecture.is_empty() {
        return Err(bad("both OS and Architecture must be provided".to_owned()));
    }
    Ok(Some(platform))
}

/// `POST /images/{name}/push?tag=…&platform=…`: without a tag, all tags.
pub(crate) async fn push(call: &Call<'_>, name: &str) -> Reply {
    let bad = |error: oci::reference::ReferenceError| Error::bad_request(error.to_string());
    let named: Reference = name.parse().map_err(bad)?;
    if named.digest().is_some() {
        return Err(Error::bad_request("cannot push a digest reference"));
    }
    let platform = platform_document(&call.query, "platform")?;
    let credentials = credentials(call.request.headers())?;
    let references = match call.query.get("tag").or(named.tag()) {
        None | Some("") => tokio::task::block_in_place(|| call.engine.images().tags_of(&named))?,
        Some(tag) => vec![named.clone().with_tag(tag).map_err(bad)?],
    };
    let engine = call.engine.clone();
    told(peer(&call.request)?, move |teller| {
        teller.say(types::JsonMessage {
            status: format!("The push refers to repository [{}]", named.name()),
            ..types::JsonMessage::default()
        });
        if references.is_empty() {
            return Err(images::Error::NotTagged(named.familiar_name()).into());
        }
        for reference in &references {
            let pushed = teller.push(&engine, reference, platform.clone(), credentials.clone())?;
            teller.pushed(reference, &pushed);
        }
        Ok(())
    })
    .await
}

/// `GET /distribution/{name}/json`.
pub(crate) async fn inspect(call: &Call<'_>, name: &str) -> Reply {
    let bad = |error: oci::reference::ReferenceError| Error::bad_request(error.to_string());
    let reference: Reference = name.parse().map_err(bad)?;
    let credentials = credentials(call.request.headers())?;
    let reference = reference.to_target();
    let found = call.engine.remote_image(&reference, credentials);
    let (descriptor, platforms) = found.await?;
    json(&types::DistributionInspect {
        descriptor: types::Descriptor {
            media_type: descriptor.media_type,
            digest: descriptor.digest.to_string(),
            size: signed(descriptor.size),
            ..types::Descriptor::default()
        },
        platforms: Some(platforms.into_iter().map(wire_platform).collect()),
    })
}

pub(crate) fn wire_platform(platform: Platform) -> types::Platform {
    types::Platform {
        architecture: platform.architecture,
        os: platform.os,
        os_version: platform.os_version.unwrap_or_default(),
        os_features: platform.os_features,
        variant: platform.variant.unwrap_or_default(),
    }
}

/// Who has sent a request.
pub(crate) fn peer(request: &Request<Incoming>) -> Result<Peer, Error> {
    let peer = request.extensions().get::<Peer>().cloned();
    peer.ok_or_else(|| Error::bad_request("the request came by no connection"))
}

/// Does something that is told meanwhile. A failure before there is anything to tell has a status of its own.
pub(crate) async fn told(
    peer: Peer,
    work: impl FnOnce(&Teller) -> Result<(), Error> + Send + 'static,
) -> Reply {
    let (pieces, response) = stream("application/json");
    let (begun, begins) = oneshot::channel();
    let (client, stop) = (pieces.clone(), watch::Sender::new(false));
    let teller = Teller::new(pieces, begun, stop.clone());
    let working = tokio::task::spawn_blocking(move || {
        if let Err(error) = work(&teller) {
            teller.fail(error);
        }
    });
    stop_when_gone(working, peer, client, stop);
    match begins.await {
        Ok(Some(error)) => Err(error),
        // It goes on, or it ended with nothing to tell.
        Ok(None) | Err(_) => Ok(response),
    }
}

/// Has what is told stop when nobody is left to be told.
pub(crate) fn stop_when_gone(
    working: JoinHandle<()>,
    peer: Peer,
    client: Pieces,
    stop: watch::Sender<bool>,
) {
    tokio::spawn(async move {
        tokio::select! {
            // The client may go while there is nothing to tell it.
            () = peer.gone() => drop(stop.send_replace(true)),
            () = client.closed() => drop(stop.send_replace(true)),
            // The answer ends with the last that can add to it, which is `client`.
            _ = working => {}
        }
    });
}

/// Tells the client how a pull, a push or an import goes.
pub(crate) struct Teller {
    pieces: Pieces,
    begun: Mutex<Option<oneshot::Sender<Option<Error>>>>,
    /// Bytes of each layer that were told.
    told: Mutex<HashMap<Digest, u64>>,
    stop: watch::Sender<bool>,
}

impl Teller {
    fn new(
        pieces: Pieces,
        begun: oneshot::Sender<Option<Error>>,
        stop: watch::Sender<bool>,
    ) -> Self {
        Self {
            pieces,
            begun: Mutex::new(Some(begun)),
            told: Mutex::default(),
            stop,
        }
    }

    fn pull(
        &self,
        engine: &Engine,
        reference: &Reference,
        platform: Option<Platform>,
        credentials: Credentials,
    ) -> Result<Pulled, Error> {
        let first = std::sync::Once::new();
        let start = || {
            self.say(types::JsonMessage {
                status: format!("Pulling from {}", reference.path()),
                id: suffix(reference),
                ..types::JsonMessage::default()
            });
        };
        let progress = |digest: &Digest, state: LayerState| {
            first.call_once(start);
            self.layer(digest, state);
        };
        let pulled = engine.pull(reference, platform, credentials, self.stop(), &progress)?;
        first.call_once(start);
        Ok(pulled)
    }

    fn layer(&self, digest: &Digest, state: LayerState) {
        let mut progress = None;
        let status = match state {
            LayerState::Waiting => "Pulling fs layer",
            LayerState::Exists => "Already exists",
            LayerState::Downloaded => "Download complete",
            LayerState::Complete => "Pull complete",
            LayerState::Downloading { done, size } => {
                progress = self.amount(digest, done, size);
                if progress.is_none() {
                    return;
                }
                "Downloading"
            }
        };
        self.step(digest, status.to_owned(), progress);
    }

    /// How much of something has gone, if that is worth telling again.
    fn amount(&self, digest: &Digest, done: u64, size: u64) -> Option<types::JsonProgress> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let last = told.entry(*digest).or_default();
        if done < *last + PROGRESS_BYTES && done < size {
            return None;
        }
        *last = done;
        Some(types::JsonProgress {
            current: signed(done),
            total: signed(size),
            ..types::JsonProgress::default()
        })
    }

    fn step(&self, digest: &Digest, status: String, progress: Option<types::JsonProgress>) {
        let id = digest.hex().chars().take(12).collect();
        self.say(types::JsonMessage {
            status,
            id,
            progress,
            ..types::JsonMessage::default()
        });
    }

    fn push(
        &self,
        engine: &Engine,
        reference: &Reference,
        platform: Option<Platform>,
        credentials: Credentials,
    ) -> Result<Pushed, Error> {
        let progress = |diff_id: &Digest, state: PushState| {
            let mut progress = None;
            let status = match state {
                PushState::Preparing => "Preparing".to_owned(),
                PushState::Exists => "Layer already exists".to_owned(),
                PushState::Mounted(from) => format!("Mounted from {from}"),
                PushState::Pushed => "Pushed".to_owned(),
                PushState::Pushing { done, size } => {
                    progress = self.amount(diff_id, done, size);
                    if progress.is_none() {
                        return;
                    }
                    "Pushing".to_owned()
                }
            };
            self.step(diff_id, status, progress);
        };
        Ok(engine.push(reference, platform, credentials, self.stop(), &progress)?)
    }

    fn pushed(&self, reference: &Reference, pushed: &Pushed) {
        let (tag, Pushed { digest, size, .. }) = (suffix(reference), pushed);
        let status = format!("{tag}: digest: {digest} size: {size}");
        self.say(types::JsonMessage {
            status,
            ..types::JsonMessage::default()
        });
        let aux = serde_json::json!({"Tag": tag, "Digest": digest.to_string(), "Size": size});
        self.say(types::JsonMessage {
            aux: Some(aux),
            ..types::JsonMessage::default()
        });
    }

    fn pulled(&self, reference: &Reference, pulled: &Pulled) {
        let what = if pulled.changed {
            "Downloaded newer image for"
        } else {
            "Image is up to date for"
        };
        for status in [
            format!("Digest: {}", pulled.digest),
            format!("Status: {what} {}", reference.familiar()),
        ] {
            self.say(types::JsonMessage {
                status,
                ..types::JsonMessage::default()
            });
        }
    }

    fn fail(&self, error: Error) {
        let begun = self
            .begun
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match begun {
            // A client that has gone is not told.
            Some(begun) => drop(begun.send(Some(error))),
            None => self.say(failed(error)),
        }
    }

    /// Becomes true when the client has gone.
    pub(crate) fn stop(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub(crate) fn say(&self, message: types::JsonMessage) {
        let begun = self
            .begun
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(begun) = begun {
            // The handler that waits has gone with its client.
            drop(begun.send(None));
        }
        if self.pieces.blocking_send(Ok(line(&message))).is_err() {
            self.stop.send_replace(true);
        }
    }
}

/// The tag or digest of a reference.
fn suffix(reference: &Reference) -> String {
    match (reference.tag(), reference.digest()) {
        (Some(tag), _) => tag.to_owned(),
        (None, Some(digest)) => digest.to_string(),
        (None, None) => oci::reference::DEFAULT_TAG.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_in_a_header() {
        let header = |document: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER_AUTH, BASE64_URL.encode(document).parse().unwrap());
            credentials(&headers).unwrap()
        };
        let basic = Credentials::Basic {
            user: "u".into(),
            password: "p".into(),
        };
        assert_eq!(
            header(r#"{"username":"u","password":"p","serveraddress":"x"}"#),
            basic
        );
        assert_eq!(
            header(r#"{"identitytoken":"t"}"#),
            Credentials::Identity("t".into())
        );
        assert_eq!(header("{}"), Credentials::Anonymous);
        assert_eq!(
            credentials(&HeaderMap::new()).unwrap(),
            Credentials::Anonymous
        );
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_AUTH, "!".parse().unwrap());
        assert!(credentials(&headers).is_err());
    }

    #[test]
    fn addresses_name_a_registry() {
        for (address, domain) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("registry.example:5000", "registry.example:5000"),
            ("http://registry.example/v2/", "registry.example"),
        ] {
            assert_eq!(registry_domain(address), domain);
        }
    }
}
