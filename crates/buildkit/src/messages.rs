//! The messages of BuildKit's services, with the fields that are used here. What is left out, protobuf skips.
//!
//! Sources: moby/buildkit `api/services/control`, `frontend/gateway/pb`, `session/*`, `solver/pb`, `api/types`,
//! `util/apicaps`; tonistiigi/fsutil `types`.

use prost::Message;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Any message of which nothing is read.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

/// `google.protobuf.Timestamp`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

impl Timestamp {
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default();
        Self {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        }
    }

    pub(crate) fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BytesMessage {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) data: Vec<u8>,
}

// Control

/// `pb.Definition`: a graph of LLB, which is no Dockerfile.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Definition {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(crate) def: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SolveRequest {
    #[prost(string, tag = "1")]
    pub(crate) build: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) definition: Option<Definition>,
    #[prost(string, tag = "3")]
    pub(crate) exporter: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) exporter_attributes: BTreeMap<String, String>,
    #[prost(string, tag = "5")]
    pub(crate) session: String,
    #[prost(string, tag = "6")]
    pub(crate) frontend: String,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(crate) attributes: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub(crate) cache: Option<CacheOptions>,
    #[prost(string, repeated, tag = "9")]
    pub(crate) entitlements: Vec<String>,
    #[prost(btree_map = "string, message", tag = "10")]
    pub(crate) inputs: BTreeMap<String, Definition>,
    #[prost(message, optional, tag = "12")]
    pub(crate) source_policy: Option<Empty>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) exporters: Vec<Exporter>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CacheOptions {
    /// As clients said it before there were several.
    #[prost(string, tag = "1")]
    pub(crate) old_export: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) old_imports: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) exports: Vec<CacheEntry>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) imports: Vec<CacheEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CacheEntry {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) attributes: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Exporter {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) attributes: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SolveResponse {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(crate) exporter: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusRequest {
    #[prost(string, tag = "1")]
    pub(crate) build: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) vertexes: Vec<Vertex>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) statuses: Vec<VertexStatus>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) logs: Vec<VertexLog>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) warnings: Vec<VertexWarning>,
}

/// A step as clients show it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Vertex {
    #[prost(string, tag = "1")]
    pub(crate) digest: String,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(bool, tag = "4")]
    pub(crate) cached: bool,
    #[prost(message, optional, tag = "5")]
    pub(crate) started: Option<Timestamp>,
    #[prost(message, optional, tag = "6")]
    pub(crate) completed: Option<Timestamp>,
    #[prost(string, tag = "7")]
    pub(crate) error: String,
}

/// A part of a step that has its own progress.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct VertexStatus {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) vertex: String,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(int64, tag = "4")]
    pub(crate) current: i64,
    #[prost(int64, tag = "5")]
    pub(crate) total: i64,
    #[prost(message, optional, tag = "6")]
    pub(crate) timestamp: Option<Timestamp>,
    #[prost(message, optional, tag = "7")]
    pub(crate) started: Option<Timestamp>,
    #[prost(message, optional, tag = "8")]
    pub(crate) completed: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VertexLog {
    #[prost(string, tag = "1")]
    pub(crate) vertex: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) timestamp: Option<Timestamp>,
    /// 1 is standard output, 2 standard error.
    #[prost(int64, tag = "3")]
    pub(crate) stream: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VertexWarning {
    #[prost(string, tag = "1")]
    pub(crate) vertex: String,
    #[prost(int64, tag = "2")]
    pub(crate) level: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) short: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub(crate) detail: Vec<Vec<u8>>,
    #[prost(string, tag = "5")]
    pub(crate) url: String,
    #[prost(message, optional, tag = "6")]
    pub(crate) source: Option<SourceInfo>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) ranges: Vec<Range>,
}

/// `pb.SourceInfo`: a text that something is said of.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SourceInfo {
    #[prost(string, tag = "1")]
    pub(crate) filename: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) text: Vec<u8>,
    #[prost(string, tag = "4")]
    pub(crate) language: String,
}

/// `pb.Range`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Range {
    #[prost(message, optional, tag = "1")]
    pub(crate) start: Option<Place>,
    #[prost(message, optional, tag = "2")]
    pub(crate) end: Option<Place>,
}

/// `pb.Position`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Place {
    #[prost(int32, tag = "1")]
    pub(crate) line: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListWorkersResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) workers: Vec<Worker>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Worker {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) platforms: Vec<Platform>,
    #[prost(message, optional, tag = "5")]
    pub(crate) version: Option<Version>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Platform {
    #[prost(string, tag = "1")]
    pub(crate) architecture: String,
    #[prost(string, tag = "2")]
    pub(crate) os: String,
    #[prost(string, tag = "3")]
    pub(crate) variant: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) version: Option<Version>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Version {
    #[prost(string, tag = "1")]
    pub(crate) package: String,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    #[prost(string, tag = "3")]
    pub(crate) revision: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DiskUsageRequest {
    #[prost(string, repeated, tag = "1")]
    pub(crate) filters: Vec<String>,
    /// Nanoseconds.
    #[prost(int64, tag = "2")]
    pub(crate) unused_for: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DiskUsageResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) records: Vec<UsageRecord>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct UsageRecord {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(bool, tag = "2")]
    pub(crate) mutable: bool,
    #[prost(bool, tag = "3")]
    pub(crate) in_use: bool,
    #[prost(int64, tag = "4")]
    pub(crate) bytes: i64,
    #[prost(message, optional, tag = "6")]
    pub(crate) created: Option<Timestamp>,
    #[prost(message, optional, tag = "7")]
    pub(crate) last_used: Option<Timestamp>,
    #[prost(int64, tag = "8")]
    pub(crate) uses: i64,
    #[prost(string, tag = "9")]
    pub(crate) description: String,
    #[prost(string, tag = "10")]
    pub(crate) kind: String,
    #[prost(bool, tag = "11")]
    pub(crate) shared: bool,
    #[prost(string, repeated, tag = "12")]
    pub(crate) parents: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PruneRequest {
    #[prost(string, repeated, tag = "1")]
    pub(crate) filters: Vec<String>,
    #[prost(bool, tag = "2")]
    pub(crate) all: bool,
    /// Nanoseconds.
    #[prost(int64, tag = "3")]
    pub(crate) keep_duration: i64,
    #[prost(int64, tag = "4")]
    pub(crate) reserved_bytes: i64,
    #[prost(int64, tag = "5")]
    pub(crate) used_bytes_max: i64,
    #[prost(int64, tag = "6")]
    pub(crate) free_bytes_min: i64,
}

// The gateway: what a client asks while it steers a build itself

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PongResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) frontend: Vec<Capability>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) llb: Vec<Capability>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) workers: Vec<Worker>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Capability {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(bool, tag = "2")]
    pub(crate) enabled: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GatewaySolveRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) definition: Option<Definition>,
    #[prost(string, tag = "2")]
    pub(crate) frontend: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) attributes: BTreeMap<String, String>,
    #[prost(btree_map = "string, message", tag = "13")]
    pub(crate) inputs: BTreeMap<String, Definition>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GatewaySolveResponse {
    #[prost(message, optional, tag = "3")]
    pub(crate) result: Option<GatewayResult>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GatewayResult {
    #[prost(message, optional, tag = "3")]
    pub(crate) reference: Option<GatewayReference>,
    #[prost(message, optional, tag = "4")]
    pub(crate) references: Option<Empty>,
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GatewayReference {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReturnRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) result: Option<GatewayResult>,
    #[prost(message, optional, tag = "2")]
    pub(crate) error: Option<crate::grpc::StatusMessage>,
}

// What a session's client serves

/// `fsutil.types.Packet`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Packet {
    #[prost(enumeration = "PacketKind", tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) stat: Option<Stat>,
    #[prost(uint32, tag = "3")]
    pub(crate) id: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) data: bytes::Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum PacketKind {
    Stat = 0,
    Request = 1,
    Data = 2,
    End = 3,
    Error = 4,
}

/// `fsutil.types.Stat`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Stat {
    /// Names of files need not be UTF-8, whatever the definition says.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) path: Vec<u8>,
    /// As Go has it (`os.FileMode`), not as stat(2).
    #[prost(uint32, tag = "2")]
    pub(crate) mode: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) uid: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) gid: u32,
    #[prost(int64, tag = "5")]
    pub(crate) size: i64,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "6")]
    pub(crate) modified: i64,
    #[prost(bytes = "vec", tag = "7")]
    pub(crate) link: Vec<u8>,
    #[prost(int64, tag = "8")]
    pub(crate) major: i64,
    #[prost(int64, tag = "9")]
    pub(crate) minor: i64,
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CredentialsRequest {
    #[prost(string, tag = "1")]
    pub(crate) host: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CredentialsResponse {
    #[prost(string, tag = "1")]
    pub(crate) username: String,
    #[prost(string, tag = "2")]
    pub(crate) secret: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetSecretRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetSecretResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CheckAgentRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// `containerd.services.content.v1.ReadContentRequest`: all of a blob.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReadContentRequest {
    #[prost(string, tag = "1")]
    pub(crate) digest: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReadContentResponse {
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WriteContentRequest {
    #[prost(int32, tag = "1")]
    pub(crate) action: i32,
    /// What the blob is called while it comes.
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(int64, tag = "3")]
    pub(crate) total: i64,
    #[prost(string, tag = "4")]
    pub(crate) expected: String,
    #[prost(int64, tag = "5")]
    pub(crate) offset: i64,
    #[prost(bytes = "vec", tag = "6")]
    pub(crate) data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WriteContentResponse {
    #[prost(int64, tag = "4")]
    pub(crate) offset: i64,
}
