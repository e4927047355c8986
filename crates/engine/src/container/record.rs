//! What is written of a container: its specification, and what of its state outlives the engine.

use crate::error::{Context, Result};
use crate::health::Health;
use crate::model::{Endpoint, Limits, Phase, Restart, SPEC_VERSION, Spec, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
    endpoint: Option<Endpoint>,
    #[serde(default)]
    user_namespace_base: Option<u32>,
    #[serde(default)]
    limits: Option<Limits>,
    #[serde(default)]
    restart: Option<Restart>,
    #[serde(default)]
    health: Option<Health>,
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
        endpoint: state.endpoint,
        user_namespace_base: state.user_namespace_base,
        limits: state.limits,
        restart: state.restart,
        health: state.health,
    };
    serde_json::to_string(&record).context(|| "encode a container's state")
}

/// Reads what [`encode_state`] wrote.
pub(crate) fn decode_state(text: &str) -> Result<State> {
    let record: StateRecord =
        serde_json::from_str(text).context(|| "read a container's state record")?;
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
        endpoint: record.endpoint,
        user_namespace_base: record.user_namespace_base,
        limits: record.limits,
        restart: record.restart,
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
