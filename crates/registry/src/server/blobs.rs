//! Blobs: end-2 and end-10 of the specification.

use super::access::Right;
use super::fetch::Content;
use super::range::{self, Wanted};
use super::reply::{Body, Code, Refusal, Reply, empty, set, with_body};
use super::route::Name;
use super::{Request, Shared};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    IF_NONE_MATCH, IF_RANGE, RANGE,
};
use http::{Method, Response, StatusCode};
use oci::Digest;
use std::sync::Arc;

/// What has a digest for a name never changes.
const FOREVER: &str = "max-age=31536000, immutable";

/// `Docker-Content-Digest`.
pub(crate) const CONTENT_DIGEST: http::HeaderName =
    http::HeaderName::from_static("docker-content-digest");

/// Serves `/v2/<name>/blobs/<digest>`.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    request: &Request,
    name: Name,
    digest: Digest,
) -> Reply {
    match request.head.method {
        Method::GET => {
            shared.require(request, Right::Pull, &name)?;
            get(shared, request, name, digest).await
        }
        Method::HEAD => {
            shared.require(request, Right::Pull, &name)?;
            head(shared, request, name, digest).await
        }
        Method::DELETE => {
            shared.require_deletion(request, &name)?;
            let removed = move |store: &super::Store| store.remove_blob(&name, &digest);
            if !shared.blocking(removed).await? {
                return Err(Refusal::no_blob(&digest));
            }
            Ok(empty(StatusCode::ACCEPTED))
        }
        _ => Err(Refusal::unsupported("a blob can be got and deleted")),
    }
}

async fn get(shared: &Arc<Shared>, request: &Request, name: Name, digest: Digest) -> Reply {
    let headers = &request.head.headers;
    if is_known(headers, &digest) {
        return Ok(described(empty(StatusCode::NOT_MODIFIED), &digest));
    }
    let of = name.clone();
    let opened = shared
        .blocking(move |store| store.blob(&of, &digest))
        .await?;
    let (content, size) = match (opened, &shared.upstream) {
        (Some((file, size)), _) => (Content::Kept(file), size),
        (None, Some(upstream)) => upstream.blob(shared, &name, digest).await?,
        (None, None) => return Err(Refusal::no_blob(&digest)),
    };
    let (status, start, end) = match range::wanted(applied_range(headers, &digest), size) {
        Wanted::Whole => (StatusCode::OK, 0, size),
        Wanted::Part(start, end) => (StatusCode::PARTIAL_CONTENT, start, end),
        Wanted::Nothing => {
            let message = format!("the blob has {size} bytes");
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            return Err(Refusal::new(status, Code::RangeInvalid, message)
                .header(CONTENT_RANGE, format!("bytes */{size}")));
        }
    };
    let mut response = described(with_body(status, content.body(start, end)), &digest);
    set(&mut response, CONTENT_LENGTH, &(end - start).to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {start}-{}/{size}", end - 1);
        set(&mut response, CONTENT_RANGE, &range);
    }
    Ok(response)
}

async fn head(shared: &Arc<Shared>, request: &Request, name: Name, digest: Digest) -> Reply {
    if is_known(&request.head.headers, &digest) {
        return Ok(described(empty(StatusCode::NOT_MODIFIED), &digest));
    }
    let of = name.clone();
    let is_read_only = shared.settings.read_only;
    let size = shared.blocking(move |store| {
        if is_read_only {
            return Ok(store.blob(&of, &digest)?.map(|(_, size)| size));
        }
        store.promise_blob(&of, &digest)
    });
    let size = size.await?;
    let size = match (size, &shared.upstream) {
        (Some(size), _) => size,
        (None, Some(upstream)) => upstream.blob_size(&name, digest).await?,
        (None, None) => return Err(Refusal::no_blob(&digest)),
    };
    let mut response = described(empty(StatusCode::OK), &digest);
    set(&mut response, CONTENT_LENGTH, &size.to_string());
    Ok(response)
}

/// Adds the headers that every answer about a blob has.
fn described(mut response: Response<Body>, digest: &Digest) -> Response<Body> {
    set(&mut response, CONTENT_DIGEST, &digest.to_string());
    set(&mut response, ETAG, &etag(digest));
    set(&mut response, CACHE_CONTROL, FOREVER);
    set(&mut response, ACCEPT_RANGES, "bytes");
    set(&mut response, CONTENT_TYPE, "application/octet-stream");
    response
}

pub(crate) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client has what has this digest: RFC 9110 section 13.1.2.
pub(crate) fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
    let etag = etag(digest);
    let values = headers.get_all(IF_NONE_MATCH).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .any(|value| { value.split(',') }.any(|one| one.trim().trim_start_matches("W/") == etag))
}

/// The range that is asked for, unless it is one of other content: RFC 9110 section 13.1.5.
fn applied_range<'a>(headers: &'a HeaderMap, digest: &Digest) -> Option<&'a str> {
    let is_of_other = headers
        .get(IF_RANGE)
        .is_some_and(|value| value != etag(digest).as_str());
    let range = headers.get(RANGE)?.to_str().ok()?;
    (!is_of_other).then_some(range)
}
