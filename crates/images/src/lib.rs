//! Content store, references, layers and snapshots.
//!
//! [`Images`] owns three directories under the engine's root: `blobs` (configurations and manifests), `layers` (each layer
//! unpacked once, whatever images share it) and `snapshots` (the writable layers of containers). What images there are,
//! and under which names, is told by [`Records`], which the engine implements on its database: a directory without a record
//! is the rest of a crash and is removed by the next [`Images::open`].
//!
//! Everything here is synchronous and takes `&self`; the engine calls it from blocking tasks. Everything that comes out of
//! an archive is untrusted: its paths are resolved with `sys::root::Root`, its sizes and counts have limits (see
//! [`limits`]), its digests are verified, and an archive that fails half-way leaves nothing behind.

pub mod archive;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod limits;
pub mod records;
pub mod tar;

mod arrivals;
mod blobs;
mod cache;
pub mod changes;
mod compression;
pub mod copy;
mod diff;
mod digests;
mod error;
mod find;
mod image;
mod largest;
mod layer;
mod layout;
mod list;
mod load;
mod make;
mod manifests;
mod mount;
mod parallel;
mod pipe;
mod place;
mod platform;
mod pull;
mod push;
mod recipe;
mod remove;
mod save;
mod sender;
mod share;
mod snapshot;
mod stop;
mod store;
mod take;
#[cfg(test)]
mod testing;
mod tree;
mod unpacker;
mod usage;
mod verify;
mod walk;
mod writeback;

pub use blobs::{Form, Packed, RemoteBlob};
pub use cache::{Hold, Scratch};
pub use changes::apply_changes;
pub use diff::{Change, ChangeKind};
pub use error::{Error, ErrorKind, Result};
pub use image::{CommitOptions, Image, ImportOptions, ListFilter, Loaded, Progress, Removed, User};
pub use largest::largest_files;
pub use layout::{LayoutArchive, blob_path, named};
pub use platform::{choose as choose_platform, host_platform};
pub use pull::{LayerState, PullRequest, Pulled, wait};
pub use push::{PushRequest, PushState, Pushed};
pub use records::{ImageId, Records};
pub use registry;
pub use snapshot::Snapshot;
pub use stop::Stop;
pub use store::Images;
pub use usage::{Share, Usage, disk_usage};
pub use verify::{Finding, Verification};
pub use writeback::Writeback;
