//! Removing what builds have left, within limits.
//!
//! Source of the limits' meaning: moby/buildkit `cache/manager.go` (`calculateKeepBytes`), `docs/build/cache/garbage-collection`.

use super::{StepResult, Usage, UsageFilter, UsageKind, caches_root, lock_mount, others, results};
use crate::error::{Doing, Result};
use crate::kept::Shelf;
use engine::{Engine, Prune};
use images::Images;
use oci::Digest;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What a prune leaves.
#[derive(Debug, Clone, Default)]
pub struct PruneLimits {
    /// Remove what images share, too. It frees nothing but the knowledge.
    pub all: bool,
    /// Only what was not of use since, in seconds since 1970.
    pub used_before_s: Option<i64>,
    /// Only what meets this.
    pub filter: UsageFilter,
    /// Bytes that stay in any case, the last used ones. 0: none.
    pub reserved_bytes: u64,
    /// Bytes that stay at most. 0: no limit.
    pub used_bytes_max: u64,
    /// Bytes of the filesystem that are to be free afterwards. 0: no matter how many.
    pub free_bytes_min: u64,
}

impl PruneLimits {
    /// How many bytes of all there are may stay; `None`: the limits name none, and everything goes.
    fn kept_bytes(&self, all_bytes: u64, free_bytes: u64) -> Option<u64> {
        if self.reserved_bytes == 0 && self.used_bytes_max == 0 && self.free_bytes_min == 0 {
            return None;
        }
        let excess = self.free_bytes_min.saturating_sub(free_bytes);
        let kept = match (self.used_bytes_max, self.free_bytes_min) {
            // Something is to stay, and nothing says that more may.
            (0, 0) => 0,
            (0, _) => all_bytes.saturating_sub(excess),
            (max, 0) => max,
            (max, _) => max.min(all_bytes.saturating_sub(excess)),
        };
        Some(kept.max(self.reserved_bytes))
    }

    fn wants(&self, item: &Usage) -> bool {
        let is_old = { self.used_before_s }.is_none_or(|before| item.used_s < before);
        is_old && !item.in_use && (self.all || !item.shared) && self.filter.meets(item)
    }
}

/// Something that can be pruned.
enum Item {
    Result(StepResult),
    Other(Usage),
}

impl Item {
    fn usage(&self) -> &Usage {
        match self {
            Self::Result(result) => &result.usage,
            Self::Other(usage) => usage,
        }
    }
}

/// How many results have each layer that no image has, and its bytes.
#[derive(Default)]
struct Layers(HashMap<Digest, (usize, u64)>);

impl Layers {
    fn add(&mut self, result: &StepResult) {
        for (layer, bytes) in &result.own {
            self.0.entry(*layer).or_insert((0, *bytes)).0 += 1;
        }
    }

    /// Takes an item away; returns how many bytes nothing has any more.
    fn remove(&mut self, item: &Item) -> u64 {
        let result = match item {
            Item::Other(usage) => return usage.bytes,
            Item::Result(result) => result,
        };
        let mut freed = 0;
        for (layer, _) in &result.own {
            if let Some((count, bytes)) = self.0.get_mut(layer) {
                *count -= 1;
                freed += if *count == 0 { *bytes } else { 0 };
            }
        }
        freed
    }
}

/// When each item was last of use, by its ID: a result is when one is that stands on it, and keeps its layers. What stands on others
/// comes after them.
fn last_uses(items: &[Item]) -> HashMap<String, i64> {
    let own = items.iter().map(Item::usage);
    let mut used: HashMap<String, i64> = own.map(|it| (it.id.clone(), it.used_s)).collect();
    for item in items.iter().rev().map(Item::usage) {
        let last = used[&item.id];
        for parent in &item.parents {
            if let Some(parent) = used.get_mut(parent) {
                *parent = last.max(*parent);
            }
        }
    }
    used
}

/// Removes what is there within limits, or only says what would go; returns that, and how many bytes it frees.
///
/// # Errors
/// As [`usage`](super::usage), and what cannot be removed.
pub fn prune(engine: &Engine, limits: &PruneLimits, how: Prune) -> Result<(Vec<Usage>, u64)> {
    let results = results(engine.images())?;
    let mut layers = Layers::default();
    results.iter().for_each(|result| layers.add(result));
    let mut items: Vec<Item> = results.into_iter().map(Item::Result).collect();
    items.extend(others(engine)?.into_iter().map(Item::Other));
    let private = { items.iter().map(Item::usage) }.filter(|item| !item.shared);
    let mut left: u64 = private.map(|item| item.bytes).sum();
    let kept = limits.kept_bytes(left, free_bytes(&engine.config().data_root)?);
    let used = last_uses(&items);
    items.retain(|item| limits.wants(item.usage()));
    // Of those that were used at the same time, what stands on others goes before them.
    items.reverse();
    items.sort_by_key(|item| used[&item.usage().id]);
    let mut doomed = Vec::new();
    let mut freed = 0;
    for item in items {
        if kept.is_some_and(|kept| left <= kept) {
            break;
        }
        let bytes = layers.remove(&item);
        left = left.saturating_sub(bytes);
        freed += bytes;
        doomed.push(item);
    }
    match how {
        Prune::Plan => {
            let told = doomed.into_iter().map(|item| match item {
                Item::Result(result) => result.usage,
                Item::Other(usage) => usage,
            });
            Ok((told.collect(), freed))
        }
        Prune::Remove => remove(engine, doomed),
    }
}

/// Removes items, except for what a build has taken meanwhile.
fn remove(engine: &Engine, doomed: Vec<Item>) -> Result<(Vec<Usage>, u64)> {
    let mut gone = Vec::new();
    let mut keys: BTreeMap<Digest, Usage> = BTreeMap::new();
    for item in doomed {
        let usage = match item {
            Item::Result(result) => {
                keys.insert(result.key, result.usage);
                continue;
            }
            Item::Other(usage) => usage,
        };
        let removed = match usage.kind {
            UsageKind::Context => Shelf::of(engine)?.remove(engine.images(), &usage.id)?,
            _ => remove_mount(&caches_root(engine), &usage.id)
                .doing(|| format!("remove the cache mount {}", usage.description))?,
        };
        if removed {
            gone.push(usage);
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
    let Some(_lock) = lock_mount(root, name)? else {
        return Ok(false);
    };
    std::fs::remove_dir_all(root.join(name))?;
    // Who has opened the file meanwhile makes the directory anew, with a lock that nobody else sees: so the file stays.
    Ok(true)
}

/// Bytes of a filesystem that are free.
fn free_bytes(path: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(path).map_err(std::io::Error::from);
    let stat = stat.doing(|| format!("statvfs({path:?})"))?;
    Ok(stat.f_bfree.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_say_how_much_stays() {
        let kept = |reserved_bytes, used_bytes_max, free_bytes_min| {
            let limits = PruneLimits {
                reserved_bytes,
                used_bytes_max,
                free_bytes_min,
                ..PruneLimits::default()
            };
            limits.kept_bytes(100, 30)
        };
        assert_eq!(kept(0, 0, 0), None);
        assert_eq!(kept(40, 0, 0), Some(40));
        assert_eq!(kept(0, 60, 0), Some(60));
        assert_eq!(kept(70, 60, 0), Some(70));
        // There is enough that is free, or some is to be freed, or more than there is.
        assert_eq!(kept(0, 0, 20), Some(100));
        assert_eq!(kept(0, 0, 50), Some(80));
        assert_eq!(kept(0, 0, 500), Some(0));
        assert_eq!(kept(10, 0, 500), Some(10));
        assert_eq!(kept(0, 60, 50), Some(60));
        assert_eq!(kept(0, 90, 50), Some(80));
    }
}
