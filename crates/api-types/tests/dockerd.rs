//! What a dockerd answered (20.10, API 1.41) survives decoding and encoding: no field is lost, no null becomes a list.
//!
//! Fields that are newer than those answers may be added; what they have and these types leave out is listed.

#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only test functions for tests"
)]

use api_types::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// What newer engines do not answer any more, or Docker alone answers.
const DROPPED: &[&str] = &[
    // Before API 1.44.
    "Container",
    "ContainerConfig",
    // Before API 1.45, and in images' configurations before 1.50.
    "Hostname",
    "Domainname",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Image",
    // Obsolete features.
    "BridgeNfIptables",
    "BridgeNfIp6tables",
    "ClusterAdvertise",
    "ClusterStore",
    "AllowNondistributableArtifactsCIDRs",
    "AllowNondistributableArtifactsHostnames",
    "BuilderSize",
    "Cluster",
];

fn survives<T: DeserializeOwned + Serialize>(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/dockerd")
        .join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let documents: Vec<&str> = if file.ends_with("jsonl") {
        text.lines().collect()
    } else {
        vec![&text]
    };
    assert!(!documents.is_empty());
    for document in documents {
        let before: Value = serde_json::from_str(document).unwrap();
        let decoded: T =
            from_slice(document.as_bytes()).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut lost = Vec::new();
        compare(
            file,
            &before,
            &serde_json::to_value(&decoded).unwrap(),
            &mut lost,
        );
        assert!(lost.is_empty(), "{lost:#?}");
    }
}

fn compare(path: &str, before: &Value, after: &Value, lost: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                match after.get(key) {
                    Some(after) => compare(&format!("{path}.{key}"), value, after, lost),
                    None if DROPPED.contains(&key.as_str()) || is_zero(value) => {}
                    None => lost.push(format!("{path}.{key} = {value}")),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                compare(&format!("{path}[{index}]"), before, after, lost);
            }
        }
        // Never null from API 1.43 on.
        (Value::Null, Value::Array(_)) if path.ends_with("RepoDigests") => {}
        _ if before == after => {}
        _ => lost.push(format!("{path}: {before} became {after}")),
    }
}

/// A field that newer versions leave out when it says nothing.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

#[test]
fn containers() {
    survives::<InspectResponse>("container.json");
    survives::<Vec<ContainerSummary>>("containers.json");
    survives::<ExecInspect>("exec.json");
    survives::<TopResponse>("top.json");
    survives::<Option<Vec<FilesystemChange>>>("changes.json");
    survives::<StatsResponse>("stats.json");
}

#[test]
fn images() {
    survives::<ImageInspect>("image.json");
    survives::<Vec<ImageSummary>>("images.json");
    survives::<Vec<HistoryItem>>("history.json");
}

#[test]
fn networks_and_volumes() {
    survives::<Vec<Network>>("networks.json");
    survives::<Network>("network.json");
    survives::<VolumeListResponse>("volumes.json");
}

#[test]
fn the_engine() {
    survives::<Info>("info.json");
    survives::<Version>("version.json");
    survives::<EventMessage>("events.jsonl");
    survives::<DiskUsage>("df.json");
}
