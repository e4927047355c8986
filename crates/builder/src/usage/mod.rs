//! What builds have left for later builds: results of steps, cache mounts, contexts of clients.

mod filter;
mod prune;

pub use filter::UsageFilter;
pub use prune::{PruneLimits, prune};

use crate::cache::Remembered;
use crate::cache_mount::CACHES;
use crate::error::{Doing, Result};
use crate::kept::{Shelf, Stored};
use engine::Engine;
use images::Images;
use images::records::CacheRecord;
use oci::Digest;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Something that builds may use again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// A digest: of a result what it depends on, of others what they are called.
    pub id: String,
    /// The results that it was made from.
    pub parents: Vec<String>,
    /// What it is of: the instruction, the cache mount's ID, the directory of the context.
    pub description: String,
    /// What it is.
    pub kind: UsageKind,
    /// When it was made, as RFC 3339; of all but results, empty.
    pub created: String,
    /// When it was last of use, in seconds since 1970.
    pub used_s: i64,
    /// How often.
    pub uses: u64,
    /// Bytes on the disk that no other of these tells of. Of what is shared they are counted with the image, too.
    pub bytes: u64,
    /// Images have all that it has.
    pub shared: bool,
    /// A build has it now.
    pub in_use: bool,
}

impl Usage {
    /// Whether it is written to again when it is used; the result of a step is not.
    pub fn is_mutable(&self) -> bool {
        self.kind != UsageKind::Result
    }
}

/// What builds may use again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageKind {
    /// The result of a step.
    Result,
    /// A cache mount.
    Mount,
    /// What a client has sent last of a directory.
    Context,
}

impl UsageKind {
    /// As BuildKit calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Result => "regular",
            Self::Mount => "exec.cachemount",
            Self::Context => "source.local",
        }
    }
}

/// All that is there, the last used first.
///
/// # Errors
/// Records or directories that cannot be read.
pub fn usage(engine: &Engine) -> Result<Vec<Usage>> {
    let mut all: Vec<Usage> = { results(engine.images())?.into_iter() }
        .map(|result| result.usage)
        .collect();
    all.extend(others(engine)?);
    all.sort_by(|a, b| b.used_s.cmp(&a.used_s).then_with(|| a.id.cmp(&b.id)));
    Ok(all)
}

/// A result of a step.
struct StepResult {
    key: Digest,
    usage: Usage,
    /// The layers that no image has, each with its bytes on the disk: they go with the last result that has them.
    own: Vec<(Digest, u64)>,
}

fn results(images: &Images) -> Result<Vec<StepResult>> {
    let doing = || "read the build cache".to_owned();
    let of_images = images.image_layers().doing(doing)?;
    let mut records = images.caches().doing(doing)?;
    // What a result stands on comes before it: a layer is told of with the step that made it.
    records.sort_by_key(|record| (record.layers.len(), record.key));
    let held = images.held_layers().doing(doing)?;
    let by_layers: HashMap<Vec<Digest>, String> = { records.iter() }
        .map(|record| (record.layers.clone(), record.key.hex()))
        .collect();
    let mut sizes = HashMap::new();
    let mut size = |layer: &Digest| -> Result<u64> {
        if let Some(bytes) = sizes.get(layer) {
            return Ok(*bytes);
        }
        let bytes = images.layer_disk_usage(layer).doing(doing)?;
        sizes.insert(*layer, bytes);
        Ok(bytes)
    };
    let mut counted = HashSet::new();
    let mut all = Vec::new();
    for CacheRecord {
        key,
        layers,
        document,
    } in records
    {
        let remembered: Option<Remembered> = serde_json::from_value(document).ok();
        let made = { layers.last() }
            .filter(|_| remembered.as_ref().is_some_and(|it| it.made_layer))
            .copied();
        let own = { layers.iter() }.filter(|layer| !of_images.contains(*layer));
        let own = own.map(|layer| Ok((*layer, size(layer)?)));
        let own = own.collect::<Result<Vec<_>>>()?;
        let shared = own.is_empty() && made.is_some();
        let counts = match (shared, made) {
            (true, Some(made)) => vec![(made, size(&made)?)],
            _ => own.clone(),
        };
        let below = &layers[..layers.len() - usize::from(made.is_some())];
        let parent = by_layers.get(below).filter(|parent| **parent != key.hex());
        let (text, created, used_s, uses) = remembered
            .map(|it| (it.text, it.created, it.used_s, it.uses))
            .unwrap_or_default();
        all.push(StepResult {
            key,
            usage: Usage {
                id: key.hex(),
                parents: parent.into_iter().cloned().collect(),
                description: text,
                kind: UsageKind::Result,
                created,
                used_s,
                uses,
                bytes: { counts.iter() }
                    .filter(|(layer, _)| counted.insert(*layer))
                    .map(|(_, bytes)| bytes)
                    .sum(),
                shared,
                in_use: layers.last().is_some_and(|top| held.contains(top)),
            },
            own,
        });
    }
    Ok(all)
}

/// Cache mounts and contexts.
fn others(engine: &Engine) -> Result<Vec<Usage>> {
    let mounts = mounts(&caches_root(engine)).doing(|| "list the cache mounts".to_owned())?;
    let contexts = contexts(&Shelf::of(engine)?).doing(|| "list the kept contexts".to_owned())?;
    Ok([mounts, contexts].concat())
}

fn caches_root(engine: &Engine) -> PathBuf {
    engine.config().data_root.join(CACHES)
}

fn mounts(root: &Path) -> std::io::Result<Vec<Usage>> {
    let mut all = Vec::new();
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(all),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let (Some(name), true) = (
            path.file_name().and_then(|name| name.to_str()),
            path.is_dir(),
        ) else {
            continue;
        };
        let id = path.join("id");
        let used = std::fs::metadata(&id)
            .and_then(|metadata| metadata.modified())
            .ok();
        all.push(Usage {
            id: name.to_owned(),
            parents: Vec::new(),
            description: std::fs::read_to_string(&id).unwrap_or_default(),
            kind: UsageKind::Mount,
            created: String::new(),
            used_s: used.map_or(0, seconds),
            uses: 0,
            bytes: images::disk_usage(&path).map_err(std::io::Error::other)?,
            shared: false,
            in_use: lock_mount(root, name)?.is_none(),
        });
    }
    Ok(all)
}

/// Keeps commands from a cache mount; `None` where one has it. A command that wants one of its own meanwhile takes another copy.
fn lock_mount(root: &Path, name: &str) -> std::io::Result<Option<File>> {
    let number = name.rsplit_once('.').map_or("0", |(_, number)| number);
    let lock = File::create(root.join(name).with_extension(format!("{number}.lock")))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

/// What is kept of contexts. One that a build has is not there meanwhile.
fn contexts(shelf: &Shelf) -> std::io::Result<Vec<Usage>> {
    let usage = |stored: Stored| {
        Ok(Usage {
            description: format!("the context {} of {}", stored.name.name, stored.name.owner),
            bytes: images::disk_usage(&stored.path).map_err(std::io::Error::other)?,
            id: stored.id,
            parents: Vec::new(),
            kind: UsageKind::Context,
            created: String::new(),
            used_s: seconds(stored.used),
            uses: 0,
            shared: false,
            in_use: false,
        })
    };
    shelf.list()?.into_iter().map(usage).collect()
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
