//! Lists: end-8 and end-12 of the specification, and Docker's catalog.

use super::access::Right;
use super::reply::{Code, Refusal, Reply, document, set};
use super::route::Name;
use super::store::page::Page;
use super::{Request, Shared};
use http::header::{HeaderName, LINK};
use http::{Method, StatusCode};
use oci::Digest;
use oci::image::{Descriptor, media_type};
use serde::Serialize;
use std::sync::Arc;

/// Names in one page of a list. A client that wants more at once gets the rest by the `Link`.
const NAMES_MAX: usize = 10_000;
/// Bytes of descriptors in one page of referrers; a page has one at least.
const REFERRERS_BYTES_MAX: usize = 2 << 20;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Serves `/v2/<name>/tags/list`.
pub(crate) async fn tags(shared: &Arc<Shared>, request: &Request, name: Name) -> Reply {
    reading(request)?;
    shared.require(request, Right::Pull, &name)?;
    let (after, names_max) = page_wanted(request)?;
    let upstream = match &shared.upstream {
        Some(upstream) => upstream.tags(&name).await?,
        None => None,
    };
    let page = if let Some(all) = upstream {
        Page::of(all, &after, names_max)
    } else {
        let of = name.clone();
        let listed = shared.blocking(move |store| {
            let is_known = store.has_repository(&of);
            { is_known.then(|| store.tags(&of, &after, names_max)) }.transpose()
        });
        listed.await?.ok_or_else(|| {
            let message = format!("there is no repository {name}");
            Refusal::new(StatusCode::NOT_FOUND, Code::NameUnknown, message)
        })?
    };
    let body = serde_json::json!({"name": name.as_str(), "tags": page.names});
    Ok(paged(
        &format!("/v2/{name}/tags/list"),
        names_max,
        &page,
        &body,
    ))
}

/// Serves `/v2/_catalog`: the repositories that somebody may read.
pub(crate) async fn catalog(shared: &Arc<Shared>, request: &Request) -> Reply {
    reading(request)?;
    shared.settings.access.require_word(&request.caller)?;
    let (after, names_max) = page_wanted(request)?;
    let (all, caller) = (Arc::clone(shared), request.caller.clone());
    let listed = shared.blocking(move |store| {
        let may_read = |name: &Name| all.settings.access.allows(&caller, Right::Pull, name);
        store.catalog(&after, names_max, may_read)
    });
    let page = listed.await?;
    let body = serde_json::json!({"repositories": page.names});
    Ok(paged("/v2/_catalog", names_max, &page, &body))
}

fn reading(request: &Request) -> Result<(), Refusal> {
    if matches!(request.head.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    Err(Refusal::unsupported("a list can be read only"))
}

/// After which name, and how many.
fn page_wanted(request: &Request) -> Result<(String, usize), Refusal> {
    let after = request.query("last").unwrap_or_default().to_owned();
    let names_max = match request.query("n").map(str::parse) {
        None => NAMES_MAX,
        Some(Ok(wanted)) => NAMES_MAX.min(wanted),
        Some(Err(_)) => {
            let message = "n is no number";
            let status = StatusCode::BAD_REQUEST;
            return Err(Refusal::new(status, Code::Unsupported, message));
        }
    };
    Ok((after, names_max))
}

fn paged(
    path: &str,
    names_max: usize,
    page: &Page,
    body: &serde_json::Value,
) -> http::Response<super::reply::Body> {
    let mut response = document("application/json", body.to_string());
    // Of no names there is no last one, and no next page.
    if let Some(last) = page.names.last().filter(|_| page.more) {
        let query = query(&[("n", &names_max.to_string()), ("last", last)]);
        set(&mut response, LINK, &next(path, &query));
    }
    response
}

fn query(fields: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(fields).finish()
}

/// RFC 8288.
fn next(path: &str, query: &str) -> String {
    format!("<{path}?{query}>; rel=\"next\"")
}

/// An index of what refers to a manifest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Referrers {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

/// Serves `/v2/<name>/referrers/<digest>`.
pub(crate) async fn referrers(
    shared: &Arc<Shared>,
    request: &Request,
    name: Name,
    subject: Digest,
) -> Reply {
    reading(request)?;
    shared.require(request, Right::Pull, &name)?;
    if let Some(upstream) = &shared.upstream {
        upstream.bring_referrers(shared, &name, &subject).await?;
    }
    let kind = request.query("artifactType").map(str::to_owned);
    let (of, wanted) = (name.clone(), kind.clone());
    let after = request.query("last").unwrap_or_default().to_owned();
    let listed = shared.blocking(move |store| {
        let (mut manifests, mut bytes, mut last) = (Vec::new(), 0, String::new());
        let mut more = false;
        store.referrers(&of, &subject, &after, |file, descriptor| {
            if wanted.is_some() && wanted != descriptor.artifact_type {
                return true;
            }
            let length = serde_json::to_string(&descriptor).map_or(0, |text| text.len());
            more = !manifests.is_empty() && bytes + length > REFERRERS_BYTES_MAX;
            if !more {
                bytes += length;
                manifests.push(descriptor);
                file.clone_into(&mut last);
            }
            !more
        })?;
        Ok((manifests, more.then_some(last)))
    });
    let (manifests, last) = listed.await?;
    let index = Referrers {
        schema_version: 2,
        media_type: media_type::OCI_INDEX,
        manifests,
    };
    let body = serde_json::to_vec(&index).map_err(|error| {
        let message = format!("the list cannot be written: {error}");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, message)
    })?;
    let mut response = document(media_type::OCI_INDEX, body);
    let mut fields = Vec::new();
    if let Some(kind) = &kind {
        set(&mut response, FILTERS_APPLIED, "artifactType");
        fields.push(("artifactType", kind.as_str()));
    }
    if let Some(last) = &last {
        fields.push(("last", last));
        let path = format!("/v2/{name}/referrers/{subject}");
        set(&mut response, LINK, &next(&path, &query(&fields)));
    }
    Ok(response)
}
