//! Manifests: end-3, end-7 and end-9 of the specification.

use super::access::Right;
use super::blobs::{CONTENT_DIGEST, etag, is_known};
use super::manifest::Contents;
use super::receive::into_memory;
use super::reply::{Body, Code, FileBody, Refusal, Reply, empty, set, with_body};
use super::route::{Name, Target};
use super::store::Store;
use super::store::links::NewManifest;
use super::{Request, Shared};
use crate::error::Result;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use hyper::body::Incoming;
use oci::Digest;
use oci::digest::Hasher;
use oci::image::MANIFEST_BYTES_MAX;
use oci::reference::is_tag;
use std::fs::File;
use std::sync::Arc;

/// Tags that one push of a manifest sets.
const TAGS_MAX: usize = 64;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Serves `/v2/<name>/manifests/<tag-or-digest>`.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    request: &Request,
    body: &mut Incoming,
    name: Name,
    target: Target,
) -> Reply {
    match request.head.method {
        Method::GET | Method::HEAD => {
            shared.require(request, Right::Pull, &name)?;
            get(shared, request, name, target).await
        }
        Method::PUT => {
            shared.require_push(request, &name)?;
            put(shared, request, body, name, target).await
        }
        Method::DELETE => {
            shared.require_deletion(request, &name)?;
            let wanted = target.to_string();
            let removed = shared.blocking(move |store| delete(store, &name, &target));
            if !removed.await? {
                return Err(Refusal::no_manifest(wanted));
            }
            Ok(empty(StatusCode::ACCEPTED))
        }
        _ => Err(Refusal::unsupported(
            "a manifest can be got, put and deleted",
        )),
    }
}

/// A manifest that is there.
struct Found {
    digest: Digest,
    media_type: String,
    file: File,
    size: u64,
}

fn find(store: &Store, name: &Name, target: &Target) -> Result<Option<Found>> {
    let digest = match target {
        Target::Digest(digest) => *digest,
        Target::Tag(tag) => match store.tag(name, tag)? {
            Some((digest, _)) => digest,
            None => return Ok(None),
        },
    };
    let found = store.manifest(name, &digest)?;
    Ok(found.map(|(media_type, file, size)| Found {
        digest,
        media_type,
        file,
        size,
    }))
}

async fn get(shared: &Arc<Shared>, request: &Request, name: Name, target: Target) -> Reply {
    if let Some(upstream) = &shared.upstream {
        upstream.bring_manifest(shared, &name, &target).await?;
    }
    let wanted = target.to_string();
    let found = { shared }
        .blocking(move |store| find(store, &name, &target))
        .await?;
    let found = found.ok_or_else(|| Refusal::no_manifest(wanted))?;
    let mut response = if is_known(&request.head.headers, &found.digest) {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        let body = match request.head.method {
            Method::HEAD => Body::Whole(None),
            _ => Body::File(FileBody::new(found.file, 0, found.size)),
        };
        let mut response = with_body(StatusCode::OK, body);
        set(&mut response, CONTENT_LENGTH, &found.size.to_string());
        response
    };
    set(&mut response, CONTENT_TYPE, &found.media_type);
    set(&mut response, CONTENT_DIGEST, &found.digest.to_string());
    set(&mut response, ETAG, &etag(&found.digest));
    Ok(response)
}

async fn put(
    shared: &Arc<Shared>,
    request: &Request,
    body: &mut Incoming,
    name: Name,
    target: Target,
) -> Reply {
    let bytes = into_memory(body, MANIFEST_BYTES_MAX).await?;
    let expected = match &target {
        Target::Digest(digest) => Some(*digest),
        Target::Tag(_) => None,
    };
    let digest = check_digest(&bytes, expected)?;
    let invalid = |reason: String| {
        let message = format!("the manifest is not accepted: {reason}");
        Refusal::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, message)
    };
    let contents = Contents::read(&bytes).map_err(invalid)?;
    let pushed_as = request.head.headers.get(CONTENT_TYPE);
    let pushed_as = pushed_as.map(|kind| kind.to_str().unwrap_or("?"));
    let media_type = contents.agreed_type(pushed_as).map_err(invalid)?;
    let referrer = contents.subject.map(|subject| {
        let size = bytes.len() as u64;
        (subject, contents.referrer(&media_type, digest, size))
    });
    let new = NewManifest {
        digest,
        media_type,
        blobs: contents.required,
        referrer,
        tags: tags(request, &target)?,
    };
    let tags = new.tags.clone();
    let (of, quotas) = (name.clone(), shared.quotas.clone());
    let push = move |store: &Store| {
        if let Err(refusal) = quotas.admit(store, &of, &digest, bytes.len() as u64)? {
            return Ok(Err(refusal));
        }
        let missing = store.push_manifest(&of, &bytes, &new);
        if !matches!(missing, Ok(None)) {
            quotas.forget();
        }
        missing.map(Ok)
    };
    if let Some(missing) = shared.blocking(push).await?? {
        let message =
            format!("the manifest counts on {missing}, which this repository does not have");
        let status = StatusCode::BAD_REQUEST;
        return Err(Refusal::new(status, Code::ManifestBlobUnknown, message));
    }
    tracing::info!(repository = %name, %target, %digest, "pushed a manifest");
    let mut response = empty(StatusCode::CREATED);
    set(
        &mut response,
        LOCATION,
        &format!("/v2/{name}/manifests/{digest}"),
    );
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    set(&mut response, CONTENT_LENGTH, "0");
    if let Some(subject) = contents.subject {
        set(&mut response, SUBJECT, &subject.to_string());
    }
    if expected.is_some() {
        for tag in tags
            .iter()
            .filter_map(|tag| HeaderValue::from_str(tag).ok())
        {
            response.headers_mut().append(TAG, tag);
        }
    }
    Ok(response)
}

/// The digest of a manifest, which has to be the one it is pushed by.
fn check_digest(bytes: &[u8], expected: Option<Digest>) -> Result<Digest, Refusal> {
    let Some(expected) = expected else {
        return Ok(Digest::sha256(bytes));
    };
    let mut hasher = Hasher::new(expected.algorithm());
    hasher.update(bytes);
    let found = hasher.finish();
    if found == expected {
        return Ok(found);
    }
    let message = format!("what was pushed as {expected} has the digest {found}");
    Err(Refusal::new(
        StatusCode::BAD_REQUEST,
        Code::DigestInvalid,
        message,
    ))
}

/// The tags that a push sets: of its path, or of its query where the path has a digest (end-7b).
fn tags(request: &Request, target: &Target) -> Result<Vec<String>, Refusal> {
    if let Target::Tag(tag) = target {
        return Ok(vec![tag.clone()]);
    }
    let tags: Vec<String> = request.queries("tag").map(str::to_owned).collect();
    if tags.len() > TAGS_MAX {
        let message = format!("more than {TAGS_MAX} tags at once");
        let status = StatusCode::URI_TOO_LONG;
        return Err(Refusal::new(status, Code::ManifestInvalid, message));
    }
    if !tags.iter().all(|tag| is_tag(tag)) {
        return Err(Refusal::bad_tag());
    }
    Ok(tags)
}

fn delete(store: &Store, name: &Name, target: &Target) -> Result<bool> {
    match target {
        Target::Tag(tag) => store.remove_tag(name, tag),
        Target::Digest(digest) => {
            let subject = { store.contents(digest)? }.and_then(|contents| contents.subject);
            store.remove_manifest(name, digest, subject.as_ref())
        }
    }
}
