//! What builds have left for later builds: how much it is, and removing it.

use crate::cache::Remembered;
use crate::error::{Doing, Result};
use crate::kept::{Shelf, Stored};
use crate::mounts::CACHES;
use engine::Engine;
use images::Images;
use oci::Digest;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::time::SystemTime;

/// Something that builds may use again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// A digest: of a result what it depends on, of others what they are called.
    pub id: String,
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
    /// Bytes on the disk that no image has, and no other of these tells of.
    pub bytes: u64,
    /// Whether an image has its layer.
    pub shared: bool,
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

/// What a prune leaves.
#[derive(Debug, Clone, Default)]
pub struct PruneLimits {
    /// Remove what images share, too. It frees nothing but the knowledge.
    pub all: bool,
    /// Only what was not of use since, in seconds since 1970.
    pub used_before_s: Option<i64>,
    /// Only these, by the beginning of their ID.
    pub ids: Vec<String>,
    /// Keep so many bytes, the last used ones.
    pub keep_bytes: Option<u64>,
}

/// All that is there, the last used first.
///
/// # Errors
/// Records or directories that cannot be read.
pub fn usage(engine: &Engine) -> Result<Vec<Usage>> {
    let images = engine.images();
    let mut all = results(images)?;
    all.extend(
        mounts(&engine.config().data_root.join(CACHES))
            .doing(|| "list the cache mounts".to_owned())?,
    );
    all.extend(contexts(&Shelf::of(engine)?).doing(|| "list the kept contexts".to_owned())?);
    all.sort_by(|a, b| b.used_s.cmp(&a.used_s).then_with(|| a.id.cmp(&b.id)));
    Ok(all)
}

fn results(images: &Images) -> Result<Vec<Usage>> {
    let doing = || "read the build cache".to_owned();
    let of_images = images.image_layers().doing(doing)?;
    let mut counted = HashSet::new();
    let mut all = Vec::new();
    for record in images.caches().doing(doing)? {
        let remembered: Option<Remembered> = serde_json::from_value(record.document).ok();
        let made = remembered.as_ref().is_some_and(|it| it.made_layer);
        let shared = made
            && record
                .layers
                .last()
                .is_some_and(|top| of_images.contains(top));
        let mut bytes = 0;
        for layer in &record.layers {
            // A layer of several results counts with one of them.
            if !of_images.contains(layer) && counted.insert(*layer) {
                bytes += images.layer_disk_usage(layer).doing(doing)?;
            }
        }
        let (text, created, used_s, uses) = remembered
            .map(|it| (it.text, it.created, it.used_s, it.uses))
            .unwrap_or_default();
        all.push(Usage {
            id: record.key.hex(),
            description: text,
            kind: UsageKind::Result,
            created,
            used_s,
            uses,
            bytes,
            shared,
        });
    }
    Ok(all)
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
            description: std::fs::read_to_string(&id).unwrap_or_default(),
            kind: UsageKind::Mount,
            created: String::new(),
            used_s: used.map_or(0, seconds),
            uses: 0,
            bytes: images::disk_usage(&path).map_err(std::io::Error::other)?,
            shared: false,
        });
    }
    Ok(all)
}

fn contexts(shelf: &Shelf) -> std::io::Result<Vec<Usage>> {
    let usage = |stored: Stored| {
        Ok(Usage {
            description: format!("the context {} of {}", stored.name.name, stored.name.owner),
            bytes: images::disk_usage(&stored.path).map_err(std::io::Error::other)?,
            id: stored.id,
            kind: UsageKind::Context,
            created: String::new(),
            used_s: seconds(stored.used),
            uses: 0,
            shared: false,
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

/// Removes what is there within limits; returns what went, and how many bytes that freed.
///
/// # Errors
/// As [`usage`], and what cannot be removed.
pub fn prune(engine: &Engine, limits: &PruneLimits) -> Result<(Vec<Usage>, u64)> {
    let all = usage(engine)?;
    let mut kept_bytes = 0;
    let doomed = all.into_iter().filter(|item| {
        let named =
            limits.ids.is_empty() || limits.ids.iter().any(|id| item.id.starts_with(id.as_str()));
        let old = limits
            .used_before_s
            .is_none_or(|before| item.used_s < before);
        let kept = match limits.keep_bytes {
            Some(keep) => {
                kept_bytes += item.bytes;
                kept_bytes <= keep
            }
            None => false,
        };
        named && old && !kept && (limits.all || !item.shared)
    });
    let doomed: Vec<Usage> = doomed.collect();
    let mut gone = Vec::new();
    let mut keys: BTreeMap<Digest, Usage> = BTreeMap::new();
    for item in doomed {
        let removed = match item.kind {
            UsageKind::Result => {
                if let Ok(key) = format!("sha256:{}", item.id).parse() {
                    keys.insert(key, item);
                }
                continue;
            }
            UsageKind::Mount => {
                let root = engine.config().data_root.join(CACHES);
                let removed = remove_mount(&root, &item.id);
                removed.doing(|| format!("remove the cache mount {}", item.description))?
            }
            UsageKind::Context => Shelf::of(engine)?.remove(engine.images(), &item.id)?,
        };
        if removed {
            gone.push(item);
        }
    }
    let freed: u64 = gone.iter().map(|item| item.bytes).sum();
    let ids: Vec<Digest> = keys.keys().copied().collect();
    let bytes = forget(engine.images(), &ids)?;
    gone.extend(keys.into_values());
    Ok((gone, freed + bytes))
}

/// Forgets results; returns the bytes of the layers that only they had.
fn forget(images: &Images, keys: &[Digest]) -> Result<u64> {
    let doing = || "remove results of builds".to_owned();
    let of_images = images.image_layers().doing(doing)?;
    let mut sizes = BTreeMap::new();
    for record in images.caches().doing(doing)? {
        for layer in record.layers {
            if keys.contains(&record.key)
                && !of_images.contains(&layer)
                && !sizes.contains_key(&layer)
            {
                let bytes = images.layer_disk_usage(&layer).doing(doing)?;
                sizes.insert(layer, bytes);
            }
        }
    }
    let gone = images.forget(keys).doing(doing)?;
    Ok(gone.iter().filter_map(|layer| sizes.get(layer)).sum())
}

/// Removes a cache mount unless a command has it.
fn remove_mount(root: &Path, name: &str) -> std::io::Result<bool> {
    let number = name.rsplit_once('.').map_or("0", |(_, number)| number);
    let path = root.join(name);
    let lock_path = path.with_extension(format!("{number}.lock"));
    let lock = File::create(&lock_path)?;
    if lock.try_lock().is_err() {
        return Ok(false);
    }
    std::fs::remove_dir_all(&path)?;
    // Who has opened the file meanwhile makes the directory anew, with a lock that nobody else sees: so the file stays.
    Ok(true)
}
