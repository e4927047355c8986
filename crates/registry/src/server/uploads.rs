//! Uploads: end-4 to end-6, end-11, end-13 and end-14 of the specification.

use super::access::Right;
use super::blobs::CONTENT_DIGEST;
use super::quota::Allowance;
use super::range;
use super::receive::{BLOB_BYTES_MAX, Received, into_upload};
use super::reply::{Body, Code, Refusal, Reply, empty, set};
use super::route::{Name, UploadId, parse_digest};
use super::store::uploads::Upload;
use super::{Request, Shared, Store};
use crate::error::Result;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use oci::Digest;
use oci::digest::Algorithm;
use std::sync::Arc;

/// What Docker's registry tells an upload's name in.
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Serves `/v2/<name>/blobs/uploads/`.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    request: &Request,
    body: &mut Incoming,
    name: Name,
) -> Reply {
    if request.head.method != Method::POST {
        return Err(Refusal::unsupported("an upload begins with POST"));
    }
    shared.require_push(request, &name)?;
    if let Some(digest) = request.query("mount") {
        let digest = parse_digest(digest)?;
        if mount(shared, request, &name, digest).await? {
            return Ok(created(&name, &digest));
        }
    }
    let announced = request.body_bytes.unwrap_or(0).max(1);
    let allowance = Allowance::of(shared, &name, Some(announced)).await?;
    allowance.check(announced)?;
    let digest = request.query("digest").map(parse_digest).transpose()?;
    let algorithm = match (&digest, request.query("digest-algorithm")) {
        (Some(digest), _) => digest.algorithm(),
        (None, None | Some("sha256")) => Algorithm::Sha256,
        (None, Some("sha512")) => Algorithm::Sha512,
        (None, Some(other)) => {
            let message =
                format!("the algorithm {other:?} is not supported: sha256 and sha512 are");
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                Code::DigestInvalid,
                message,
            ));
        }
    };
    let (of, hashes) = (name.clone(), shared.hashes.clone());
    let upload = { shared }
        .blocking(move |store| store.begin_upload(&hashes, &of, algorithm))
        .await?;
    match digest {
        // Without a body it is a client that asks whether this is known here, and goes on as if it were not.
        Some(digest) if request.body_bytes != Some(0) || is_empty(&digest) => {
            let id = upload.id().clone();
            let closed = close(shared, request, body, name.clone(), upload, digest).await;
            if closed.is_err() {
                // Nobody knows of it who could go on.
                cancel(shared, name, id).await;
            }
            closed
        }
        _ => {
            let response = status(StatusCode::ACCEPTED, &name, &upload);
            upload.suspend();
            Ok(response)
        }
    }
}

/// Ends an upload, if it is there still.
async fn cancel(shared: &Arc<Shared>, name: Name, id: UploadId) {
    let hashes = shared.hashes.clone();
    let cancelled = shared.blocking(
        move |store| match store.resume_upload(&hashes, &name, &id) {
            Err(crate::Error::NoUpload(_)) => Ok(()),
            upload => upload?.cancel(),
        },
    );
    // It was logged where it became a refusal; what is left is swept away later.
    let _ = cancelled.await;
}

/// Whether a digest is of nothing at all.
fn is_empty(digest: &Digest) -> bool {
    *digest == oci::digest::Hasher::new(digest.algorithm()).finish()
}

/// Gives a repository a blob that another has. Without the other's name any will do, where everybody may read all of them.
async fn mount(
    shared: &Arc<Shared>,
    request: &Request,
    name: &Name,
    digest: Digest,
) -> Result<bool, Refusal> {
    let from = match request.query("from") {
        None if shared.settings.access.is_open() => None,
        None => return Ok(false),
        Some(from) => match Name::new(from) {
            Some(from) if shared.allows(request, Right::Pull, &from) => Some(from),
            // Whether it is there is not told to who may not know.
            _ => return Ok(false),
        },
    };
    let (name, quotas) = (name.clone(), shared.quotas.clone());
    let mounted = move |store: &Store| {
        let size = match from {
            Some(from) => store.promise_blob(&from, &digest)?,
            None => store.open_content(&digest)?.map(|(_, size)| size),
        };
        let Some(size) = size else {
            return Ok(Ok(false));
        };
        if let Err(refusal) = quotas.admit(store, &name, &digest, size)? {
            return Ok(Err(refusal));
        }
        let hold = store.share()?;
        store.link_blob(&hold, &name, &digest).map(Ok)
    };
    shared.blocking(mounted).await?
}

/// Serves `/v2/<name>/blobs/uploads/<id>`.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    request: &Request,
    body: &mut Incoming,
    name: Name,
    id: UploadId,
) -> Reply {
    shared.require_push(request, &name)?;
    let method = &request.head.method;
    if ![
        Method::GET,
        Method::HEAD,
        Method::PATCH,
        Method::PUT,
        Method::DELETE,
    ]
    .contains(method)
    {
        let known = "an upload takes GET, PATCH, PUT and DELETE";
        return Err(Refusal::unsupported(known));
    }
    let (of, hashes) = (name.clone(), shared.hashes.clone());
    let upload = { shared }
        .blocking(move |store| store.resume_upload(&hashes, &of, &id))
        .await?;
    if method == Method::PATCH {
        let upload = receive(shared, request, body, &name, upload).await?;
        let response = status(StatusCode::ACCEPTED, &name, &upload);
        upload.suspend();
        return Ok(response);
    }
    if method == Method::PUT {
        let digest = request.query("digest").ok_or_else(|| {
            let missing = "the digest is missing";
            Refusal::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, missing)
        });
        return match digest.and_then(parse_digest) {
            Ok(digest) => close(shared, request, body, name, upload, digest).await,
            Err(refusal) => {
                upload.suspend();
                Err(refusal)
            }
        };
    }
    let response = status(StatusCode::NO_CONTENT, &name, &upload);
    if method == Method::DELETE {
        shared.blocking(move |_| upload.cancel()).await?;
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    upload.suspend();
    Ok(response)
}

/// Takes a chunk, or a stream, at the end of an upload.
async fn receive(
    shared: &Arc<Shared>,
    request: &Request,
    body: &mut Incoming,
    name: &Name,
    upload: Upload,
) -> Result<Upload, Refusal> {
    let length = upload.length();
    let header = request.head.headers.get(CONTENT_RANGE);
    let chunk = match header.map(|header| header.to_str().ok().and_then(range::chunk)) {
        None => None,
        Some(Some(chunk)) => Some(chunk),
        Some(None) => {
            upload.suspend();
            let message = "the range of a chunk reads like 0-1023";
            let status = StatusCode::BAD_REQUEST;
            return Err(Refusal::new(status, Code::BlobUploadInvalid, message));
        }
    };
    if let Some((start, _)) = chunk
        && start != length
    {
        let refusal = out_of_order(name, &upload, start);
        upload.suspend();
        return Err(refusal);
    }
    let whole = chunk.map(|(start, end)| end - start);
    let bytes_max = whole.unwrap_or(BLOB_BYTES_MAX - length.min(BLOB_BYTES_MAX));
    let wanted = whole.or(request.body_bytes);
    let allowance = match Allowance::of(shared, name, wanted).await {
        Ok(allowance) => allowance,
        Err(refusal) => {
            upload.suspend();
            return Err(refusal);
        }
    };
    let mark = upload.mark();
    let limit = bytes_max.min(allowance.bytes());
    let Received { mut upload, broken } = into_upload(upload, body, limit).await?;
    let Some(refusal) = broken.or_else(|| ended_early(whole, upload.length() - length)) else {
        return Ok(upload);
    };
    // What came of a broken connection is what the client goes on from; what is not what it said is not.
    let is_lie = matches!(refusal.code, Code::SizeInvalid);
    if is_lie && let Err(error) = upload.roll_back(mark) {
        return Err(error.into());
    }
    upload.suspend();
    // Where less may come than was said, it was the quota that ended it.
    match is_lie && limit < bytes_max {
        true => allowance.check(bytes_max).and(Err(refusal)),
        false => Err(refusal),
    }
}

fn ended_early(announced: Option<u64>, received: u64) -> Option<Refusal> {
    let announced = announced.filter(|announced| *announced != received)?;
    let message = format!("the range is of {announced} bytes, and {received} came");
    let status = StatusCode::BAD_REQUEST;
    Some(Refusal::new(status, Code::SizeInvalid, message))
}

fn out_of_order(name: &Name, upload: &Upload, start: u64) -> Refusal {
    let message = format!(
        "the chunk begins at {start}, and the upload is at {}",
        upload.length()
    );
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    Refusal::new(status, Code::BlobUploadInvalid, message)
        .header(LOCATION, location(name, upload))
        .header(RANGE, received(upload))
}

/// Takes the rest of an upload, and makes a blob of it.
async fn close(
    shared: &Arc<Shared>,
    request: &Request,
    body: &mut Incoming,
    name: Name,
    upload: Upload,
    digest: Digest,
) -> Reply {
    let upload = receive(shared, request, body, &name, upload).await?;
    let (of, quotas) = (name.clone(), shared.quotas.clone());
    let finish = move |store: &Store| {
        if let Err(refusal) = quotas.admit(store, &of, &digest, upload.length())? {
            upload.cancel()?;
            return Ok(Err(refusal));
        }
        let finished = upload.finish(store, &of, &digest);
        if !matches!(finished, Ok(None)) {
            quotas.forget();
        }
        finished.map(Ok)
    };
    let finished = shared.blocking(finish).await??;
    if let Some(found) = finished {
        let message = format!("what was pushed as {digest} has the digest {found}");
        let status = StatusCode::BAD_REQUEST;
        return Err(Refusal::new(status, Code::DigestInvalid, message));
    }
    tracing::info!(repository = %name, %digest, "pushed a blob");
    Ok(created(&name, &digest))
}

fn created(name: &Name, digest: &Digest) -> Response<Body> {
    let mut response = empty(StatusCode::CREATED);
    set(
        &mut response,
        LOCATION,
        &format!("/v2/{name}/blobs/{digest}"),
    );
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    set(&mut response, CONTENT_LENGTH, "0");
    response
}

/// How far an upload is.
fn status(status: StatusCode, name: &Name, upload: &Upload) -> Response<Body> {
    let mut response = empty(status);
    set(&mut response, LOCATION, &location(name, upload));
    set(&mut response, RANGE, &received(upload));
    set(&mut response, UPLOAD_UUID, upload.id().as_str());
    response
}

fn location(name: &Name, upload: &Upload) -> String {
    format!("/v2/{name}/blobs/uploads/{}", upload.id())
}

/// The bytes that have come. Of none, Docker's registry says the same as of one, and clients know that.
fn received(upload: &Upload) -> String {
    format!("0-{}", upload.length().saturating_sub(1))
}
