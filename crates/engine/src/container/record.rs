//! What is written of a container: its specification, and what of its state outlives the engine.

use crate::error::{Context, Result};
use crate::health::Health;
use crate::model::{
    Attachment, Endpoint, Limits, NetworkMode, Phase, Place, PortMapping, PublishedPort, Restart,
    SPEC_VERSION, Spec, State,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// The state on disk. Of a container that ran when the engine ended, its shim knows better.
#[derive(Debug, Serialize, Deserialize)]
struct StateRecord {
    phase: Phase,
    pid: Option<i32>,
    exit_code: i32,
    error: String,
    oom_killed: bool,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    restart_count: u32,
    stopped_by_hand: bool,
    /// None: from before there was more than the default bridge.
    #[serde(default)]
    attachments: Option<Vec<Attachment>>,
    /// The default bridge's, in records of that time.
    #[serde(default, skip_serializing)]
    endpoint: Option<BridgeEndpoint>,
    #[serde(default)]
    user_namespace_base: Option<u32>,
    #[serde(default)]
    limits: Option<Limits>,
    #[serde(default)]
    published: Option<Vec<PublishedPort>>,
    #[serde(default)]
    restart: Option<Restart>,
    #[serde(default)]
    links: Option<Vec<String>>,
    #[serde(default)]
    health: Option<Health>,
}

/// How an endpoint was written when there was the default bridge alone.
#[derive(Debug, Serialize, Deserialize)]
struct BridgeEndpoint {
    id: String,
    host_interface: String,
    address: Ipv4Addr,
    prefix: u8,
    gateway: Ipv4Addr,
    mac: [u8; 6],
    ports: Vec<PortMapping>,
}

impl From<BridgeEndpoint> for Endpoint {
    fn from(old: BridgeEndpoint) -> Self {
        Self {
            id: old.id,
            host_interface: old.host_interface,
            interface: "eth0".to_owned(),
            places: vec![Place {
                address: old.address.into(),
                prefix: old.prefix,
                gateway: Some(old.gateway.into()),
            }],
            mac: old.mac,
            ports: old.ports,
            relay: None,
            plugins: None,
        }
    }
}

/// The state as JSON.
pub(crate) fn encode_state(state: &State) -> Result<String> {
    let state = state.clone();
    let record = StateRecord {
        phase: state.phase,
        pid: state.pid,
        exit_code: state.exit_code,
        error: state.error,
        oom_killed: state.oom_killed,
        started_at: state.started_at,
        finished_at: state.finished_at,
        restart_count: state.restart_count,
        stopped_by_hand: state.stopped_by_hand,
        attachments: Some(state.attachments),
        endpoint: None,
        user_namespace_base: state.user_namespace_base,
        limits: state.limits,
        published: state.published,
        restart: state.restart,
        links: state.links,
        health: state.health,
    };
    serde_json::to_string(&record).context(|| "encode a container's state")
}

/// Reads what [`encode_state`] wrote.
pub(crate) fn decode_state(text: &str, mode: &NetworkMode) -> Result<State> {
    let record: StateRecord =
        serde_json::from_str(text).context(|| "read a container's state record")?;
    let endpoint = record.endpoint.map(Endpoint::from);
    let attachments = record.attachments.unwrap_or_else(|| {
        let of_bridge = || Attachment {
            endpoint,
            ..crate::networks::default_attachment()
        };
        let has_bridge = *mode == NetworkMode::Bridge;
        has_bridge.then(of_bridge).into_iter().collect()
    });
    Ok(State {
        phase: record.phase,
        pid: record.pid,
        exit_code: record.exit_code,
        error: record.error,
        oom_killed: record.oom_killed,
        started_at: record.started_at,
        finished_at: record.finished_at,
        restart_count: record.restart_count,
        stopped_by_hand: record.stopped_by_hand,
        attachments,
        user_namespace_base: record.user_namespace_base,
        limits: record.limits,
        published: record.published,
        restart: record.restart,
        links: record.links,
        health: record.health,
        ..State::created()
    })
}

/// The specification as JSON.
pub(crate) fn encode_spec(spec: &Spec) -> Result<String> {
    serde_json::to_string(spec).context(|| "encode a container's specification")
}

/// Reads what [`encode_spec`] wrote.
pub(crate) fn decode_spec(text: &str) -> Result<Spec> {
    let spec: Spec = serde_json::from_str(text).context(|| "read a container's record")?;
    if spec.version > SPEC_VERSION {
        return Err(crate::Error::unsupported(format!(
            "container {} was made by a newer release (record version {}, known up to {SPEC_VERSION})",
            spec.id, spec.version
        )));
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// What a release wrote that knew the default bridge alone.
    const OLD: &str = r#"{"phase":"running","pid":7,"exit_code":0,"error":"","oom_killed":false,"started_at":null,
        "finished_at":null,"restart_count":0,"stopped_by_hand":false,"endpoint":{"id":"ab","host_interface":"veth1",
        "address":"172.17.0.2","prefix":16,"gateway":"172.17.0.1","mac":[2,66,172,17,0,2],
        "ports":[{"port":{"number":80,"protocol":"tcp"},"host_ip":"0.0.0.0","host_port":8080}]}}"#;

    #[test]
    fn a_record_of_the_default_bridge_alone_is_read() {
        let state = decode_state(OLD, &NetworkMode::Bridge).unwrap();
        let (attachment, endpoint) = state.endpoints().next().unwrap();
        assert_eq!(attachment.name, "bridge");
        assert_eq!(
            (endpoint.interface.as_str(), endpoint.ports[0].host_port),
            ("eth0", 8080)
        );
        assert_eq!(
            endpoint.place(false).unwrap().address.to_string(),
            "172.17.0.2"
        );
        // And written as it is now.
        let again = encode_state(&state).unwrap();
        assert!(
            !again.contains("\"endpoint\":{\"id\":\"ab\",\"host_interface\":\"veth1\",\"address\"")
        );
        assert_eq!(decode_state(&again, &NetworkMode::Bridge).unwrap(), state);
        assert!(
            decode_state(OLD, &NetworkMode::None)
                .unwrap()
                .attachments
                .is_empty()
        );
    }
}
