//! One line of the JSON stream that load, import, pull and build answer with.

use crate::is_default;
use serde::{Deserialize, Serialize};

/// A step, a step's progress, or the end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JsonMessage {
    /// Text to print as it is.
    #[serde(skip_serializing_if = "is_default")]
    pub stream: String,
    /// What happens now.
    #[serde(skip_serializing_if = "is_default")]
    pub status: String,
    /// How far it is.
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress: Option<JsonProgress>,
    /// `progress` as text, for old clients.
    #[serde(rename = "progress", skip_serializing_if = "is_default")]
    pub progress_message: String,
    /// What it happens to (a layer's short id): messages with the same id replace each other.
    #[serde(skip_serializing_if = "is_default")]
    pub id: String,
    /// Where it comes from (an image's name).
    #[serde(skip_serializing_if = "is_default")]
    pub from: String,
    /// Seconds since the epoch.
    #[serde(skip_serializing_if = "is_default")]
    pub time: i64,
    /// Nanoseconds since the epoch.
    #[serde(rename = "timeNano", skip_serializing_if = "is_default")]
    pub time_nano: i64,
    /// The failure that ends the stream.
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error: Option<JsonError>,
    /// `error` as text, for old clients.
    #[serde(rename = "error", skip_serializing_if = "is_default")]
    pub error_message: String,
    /// Data of the operation, such as the id of a built image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// How far a step is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JsonProgress {
    /// Done so far.
    #[serde(skip_serializing_if = "is_default")]
    pub current: i64,
    /// All there is; 0 unknown.
    #[serde(skip_serializing_if = "is_default")]
    pub total: i64,
    /// When it began, in seconds since the epoch; 0 unknown.
    #[serde(skip_serializing_if = "is_default")]
    pub start: i64,
    /// Show no numbers.
    #[serde(skip_serializing_if = "is_default")]
    pub hidecounts: bool,
    /// Empty for bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub units: String,
}

/// The failure of the operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JsonError {
    /// A code, or 0.
    #[serde(skip_serializing_if = "is_default")]
    pub code: i64,
    /// In words.
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
}
