//! How an image was built: SLSA provenance.
//!
//! Invariant: what is secret is in none, and values of arguments only in one of mode max. Source: slsa.dev/spec/v1.0/provenance,
//! slsa.dev/spec/v0.2/provenance; moby/buildkit `docs/attestations/slsa-provenance.md`, whose fields these are.

use super::Provenance;
use crate::bundle::Predicate;
use crate::request::Request;
use jiff::Timestamp;
use oci::image::Platform;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const TYPE_1: &str = "https://slsa.dev/provenance/v1";
const TYPE_02: &str = "https://slsa.dev/provenance/v0.2";
const BUILD_TYPE_1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_02: &str = "https://mobyproject.org/buildkit@v1";

/// Something that an image was made of: a package URL or another address, and its SHA-256 in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Material {
    pub(crate) uri: String,
    pub(crate) sha256: String,
}

/// A build, as it is told of.
pub(crate) struct Account<'a> {
    pub(crate) request: &'a Request,
    pub(crate) platform: &'a Platform,
    pub(crate) materials: &'a BTreeSet<Material>,
    /// The IDs of secrets that commands have got.
    pub(crate) secrets: &'a BTreeSet<String>,
    /// Names the build.
    pub(crate) id: &'a str,
    pub(crate) started: Timestamp,
    pub(crate) finished: Timestamp,
}

/// The account of a build.
pub(crate) fn provenance(wanted: &Provenance, account: &Account<'_>) -> Predicate {
    let materials: Vec<Value> = { account.materials.iter() }
        .map(|it| json!({ "uri": it.uri, "digest": { "sha256": it.sha256 } }))
        .collect();
    let parameters = parameters(wanted, account);
    let host = images::host_platform().to_string();
    let finished = account.finished.to_string();
    let metadata = metadata(wanted, account);
    let name = &account.request.dockerfile_name;
    if wanted.old {
        let value = json!({
            "builder": { "id": wanted.builder_id },
            "buildType": BUILD_TYPE_02,
            "materials": materials,
            "invocation": {
                "configSource": { "entryPoint": name },
                "parameters": parameters,
                "environment": { "platform": host },
            },
            "metadata": {
                "buildInvocationID": account.id,
                "buildStartedOn": account.started.to_string(),
                "buildFinishedOn": finished,
                "completeness": { "parameters": wanted.max, "environment": true, "materials": false },
                "reproducible": wanted.reproducible,
                "https://mobyproject.org/buildkit@v1#metadata": metadata,
            },
        });
        return predicate(TYPE_02, value);
    }
    let value = json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE_1,
            "externalParameters": { "configSource": { "path": name }, "request": parameters },
            "internalParameters": { "builderPlatform": host },
            "resolvedDependencies": materials,
        },
        "runDetails": {
            "builder": { "id": wanted.builder_id },
            "metadata": {
                "invocationId": account.id,
                "startedOn": account.started.to_string(),
                "finishedOn": finished,
                "buildkit_metadata": metadata,
                "buildkit_completeness": { "request": wanted.max, "resolvedDependencies": false },
                "buildkit_reproducible": wanted.reproducible,
            },
        },
    });
    predicate(TYPE_1, value)
}

fn predicate(kind: &'static str, value: Value) -> Predicate {
    Predicate {
        name: "provenance.json".to_owned(),
        kind,
        subjects: Vec::new(),
        value,
    }
}

/// What the client asked for.
fn parameters(wanted: &Provenance, account: &Account<'_>) -> Value {
    let request = account.request;
    let mut args = Map::new();
    args.insert("platform".to_owned(), account.platform.to_string().into());
    if let Some(target) = &request.target {
        args.insert("target".to_owned(), target.clone().into());
    }
    let mut parameters = Map::new();
    parameters.insert("frontend".to_owned(), "dockerfile.v0".into());
    if wanted.max {
        for (name, value) in &request.build_args {
            args.insert(format!("build-arg:{name}"), value.clone().into());
        }
        for (name, value) in &request.labels {
            args.insert(format!("label:{name}"), value.clone().into());
        }
        let secrets = account.secrets.iter().map(|id| json!({ "id": id }));
        parameters.insert("secrets".to_owned(), secrets.collect());
    }
    parameters.insert("args".to_owned(), args.into());
    let locals = ["context", "dockerfile"].map(|name| json!({ "name": name }));
    parameters.insert("locals".to_owned(), locals.into_iter().collect());
    parameters.into()
}

/// The text that was built.
fn metadata(wanted: &Provenance, account: &Account<'_>) -> Value {
    if !wanted.max {
        return json!({});
    }
    let text = String::from_utf8_lossy(&account.request.dockerfile);
    json!({ "source": { "infos": [{
        "filename": account.request.dockerfile_name,
        "language": "Dockerfile",
        "data": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text.as_bytes()),
    }] } })
}
