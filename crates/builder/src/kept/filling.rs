//! Bringing a kept context up to date with what the client says of it.

use super::index::{ContextName, Index, Known};
use super::{Kept, MARK_BYTES_MAX, Shelf, Taken};
use crate::context::Context;
use crate::error::{Doing, Error, Result};
use engine::Engine;
use images::copy::{self, Copy, Found, Want};
use images::tar::{Kind, Time};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};
use sys::root::Root;

/// A context that is being brought up to date. Dropped before [`Self::finish`], it is gone.
#[derive(Debug)]
pub struct Filling {
    engine: Engine,
    shelf: Shelf,
    name: ContextName,
    context: Context,
    /// What is there of the last time, and was not looked at yet.
    old: Index,
    new: Index,
}

/// What a client tells of a context besides the files that it sends.
#[derive(Debug, Default)]
pub struct Changes {
    /// The marks of what it sends.
    pub sent: BTreeMap<PathBuf, Vec<u8>>,
    /// What is no longer there.
    pub gone: BTreeSet<PathBuf>,
}

/// What a context begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base<'a> {
    /// Nothing, whatever is kept.
    Nothing,
    /// What is kept, or nothing.
    Anything,
    /// What is kept, if it is of this generation.
    Generation(&'a str),
}

impl Changes {
    /// # Errors
    /// Not everything has come.
    fn check(&self, come: usize) -> Result<()> {
        let text = "the context does not have everything that it was said to have";
        match come == self.sent.len() {
            true => Ok(()),
            false => Err(Error::Invalid(text.to_owned())),
        }
    }
}

/// Everything in a tree.
fn list(root: &Root) -> Result<Vec<Found>> {
    let found = copy::find(root, Path::new("/"), false, &|_| Want::Take);
    let found = found.doing(|| "list the context".to_owned())?;
    Ok({ found.into_iter() }
        .filter(|it| !it.path.as_os_str().is_empty())
        .collect())
}

impl Filling {
    /// Takes the context that is kept under a name, or begins one. `None`: it is not of the generation that is wanted.
    ///
    /// # Errors
    /// No room.
    pub fn begin(engine: &Engine, name: ContextName, base: Base<'_>) -> Result<Option<Self>> {
        let shelf = Shelf::of(engine)?;
        let taken = match base {
            Base::Nothing => None,
            Base::Anything | Base::Generation(_) => shelf.take(engine.images(), &name)?,
        };
        let (context, old) = match (taken, base) {
            (Some(Taken { generation, .. }), Base::Generation(wanted)) if generation != wanted => {
                return Ok(None);
            }
            (None, Base::Generation(_)) => return Ok(None),
            (Some(taken), _) => (Context::of(taken.scratch)?, taken.index),
            (None, _) => (Context::empty(engine.images())?, Index::new()),
        };
        Ok(Some(Self {
            engine: engine.clone(),
            shelf,
            name,
            context,
            old,
            new: Index::new(),
        }))
    }

    /// The tree, to put files into.
    pub fn tree(&self) -> Arc<Root> {
        self.context.shared_root()
    }

    /// Keeps a file of the last time, where it is the one that the mark is of; false: it has to come.
    pub fn keep(&mut self, path: &Path, mark: &[u8]) -> bool {
        let same = |known: &Known| !known.is_directory && !mark.is_empty() && known.mark == mark;
        if !self.old.get(path).is_some_and(same) {
            return false;
        }
        let kept = self.old.remove_entry(path);
        self.new.extend(kept);
        true
    }

    /// Makes room for a file that comes, or a directory, and notes it. What is there of the same kind is left to be replaced.
    ///
    /// # Errors
    /// What is above it is no directory of the context; a mark that is too long.
    pub fn expect(
        &mut self,
        path: &Path,
        mark: &[u8],
        is_directory: bool,
        bytes: u64,
    ) -> Result<()> {
        let is_plain = |component| matches!(component, Component::Normal(_));
        let above = path.parent().unwrap_or(Path::new(""));
        let is_there = |index: &Index| index.get(above).is_some_and(|known| known.is_directory);
        let has_room = above.as_os_str().is_empty() || is_there(&self.new) || is_there(&self.old);
        if !has_room || !path.components().all(is_plain) || mark.len() > MARK_BYTES_MAX {
            let path = path.display();
            return Err(Error::Invalid(format!(
                "{path} has no place in the context"
            )));
        }
        match self.old.remove(path).or_else(|| self.new.remove(path)) {
            Some(known) if known.is_directory && !is_directory => {
                self.remove_below(path)?;
                self.remove(path, true)?;
            }
            Some(known) if !known.is_directory && is_directory => self.remove(path, false)?,
            _ => {}
        }
        let known = Known {
            mark: mark.to_vec(),
            is_directory,
            bytes,
            ..Known::default()
        };
        self.new.insert(path.to_owned(), known);
        Ok(())
    }

    /// Removes what was there the last time and is not in the client's context any more.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn drop_rest(&mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.old);
        // What is in a directory goes before it.
        { rest.iter().rev() }.try_for_each(|(path, known)| self.remove(path, known.is_directory))
    }

    /// Takes what a client has sent, in a tree of its own, and leaves everything else as it was.
    ///
    /// # Errors
    /// The context is not what the client says of it.
    pub fn merge(&mut self, sent: &Context, changes: &Changes) -> Result<()> {
        if self.old.is_empty() && self.new.is_empty() {
            return self.adopt(sent, changes);
        }
        let times = self.times(changes)?;
        let gone = { changes.gone.iter().rev() }.filter(|path| !changes.sent.contains_key(*path));
        for path in gone {
            if let Some(known) = self.old.remove(path) {
                self.remove(path, known.is_directory)?;
            }
        }
        let (tree, mut come) = (self.tree(), 0);
        let mut copy = Copy::new(&tree);
        for found in &list(sent.root())? {
            let (path, entry) = (&found.path, &found.entry);
            // Directories on the way to something were not sent themselves.
            let Some(mark) = changes.sent.get(path) else {
                continue;
            };
            come += 1;
            let is_directory = entry.kind == Kind::Directory;
            self.expect(path, mark, is_directory, entry.size)?;
            match is_directory {
                true => copy
                    .put_bytes(&[], path, entry)
                    .doing(|| format!("make {path:?}"))?,
                false => rename(sent.root(), &tree, path)?,
            }
        }
        copy.finish().doing(|| "finish the context".to_owned())?;
        for (path, time) in times {
            let set = images::copy::set_time(&tree, &path, time);
            set.doing(|| format!("set the time of {path:?}"))?;
        }
        self.new.append(&mut self.old);
        changes.check(come)
    }

    /// The times of directories that are what they were, and in which something changes.
    fn times(&self, changes: &Changes) -> Result<BTreeMap<PathBuf, Time>> {
        let paths = changes.sent.keys().chain(&changes.gone);
        let above: BTreeSet<&Path> = paths.filter_map(|path| path.parent()).collect();
        let stays = |path: &&Path| {
            self.old.get(*path).is_some_and(|known| known.is_directory)
                && !changes.sent.contains_key(*path)
                && !changes.gone.contains(*path)
        };
        let time = |path: &Path| {
            let alone = |below: &Path| match below.as_os_str().is_empty() {
                true => Want::Take,
                false => Want::Leave,
            };
            let found = copy::find(self.context.root(), path, false, &alone);
            let found = found.doing(|| format!("look at {path:?}"))?;
            let time = found.first().map(|found| found.entry.mtime);
            Ok(time.map(|time| (path.to_owned(), time)))
        };
        above
            .into_iter()
            .filter(stays)
            .filter_map(|path| time(path).transpose())
            .collect()
    }

    /// Takes a whole context.
    fn adopt(&mut self, sent: &Context, changes: &Changes) -> Result<()> {
        self.context.adopt(sent)?;
        let mut come = 0;
        for found in list(self.context.root())? {
            let mark = changes.sent.get(&found.path);
            come += usize::from(mark.is_some());
            let known = Known {
                mark: mark.cloned().unwrap_or_default(),
                is_directory: found.entry.kind == Kind::Directory,
                bytes: found.entry.size,
                ..Known::default()
            };
            self.new.insert(found.path, known);
        }
        changes.check(come)
    }

    /// The context, which is kept when the last has used it.
    pub fn finish(self) -> Context {
        let Self {
            engine,
            shelf,
            name,
            context,
            new,
            ..
        } = self;
        let directory = context.directory().to_owned();
        context.keep(Arc::new(Kept {
            engine,
            shelf,
            name,
            directory,
            index: Mutex::new(new),
        }))
    }

    fn remove_below(&mut self, path: &Path) -> Result<()> {
        let below = |index: &Index| -> Vec<(PathBuf, bool)> {
            let after = index
                .range(path.to_owned()..)
                .skip_while(|(it, _)| *it == path);
            let below = after.take_while(|(it, _)| it.starts_with(path));
            below
                .map(|(it, known)| (it.clone(), known.is_directory))
                .collect()
        };
        let all: BTreeMap<PathBuf, bool> = below(&self.old)
            .into_iter()
            .chain(below(&self.new))
            .collect();
        for (path, is_directory) in all.iter().rev() {
            self.old.remove(path);
            self.new.remove(path);
            self.remove(path, *is_directory)?;
        }
        Ok(())
    }

    fn remove(&self, path: &Path, is_directory: bool) -> Result<()> {
        let doing = || format!("remove {path:?} from the context");
        let (parent, name) = self.context.root().parent(path).doing(doing)?;
        let flags = match is_directory {
            true => AtFlags::REMOVEDIR,
            false => AtFlags::empty(),
        };
        match rustix::fs::unlinkat(&parent, &name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(std::io::Error::from(errno)).doing(doing),
        }
    }
}

fn rename(from: &Root, to: &Root, path: &Path) -> Result<()> {
    let doing = || format!("take {path:?} of the context");
    let (from, name) = from.parent(path).doing(doing)?;
    let (to, _) = to.parent(path).doing(doing)?;
    let renamed = rustix::fs::renameat(&from, &name, &to, &name);
    renamed.map_err(std::io::Error::from).doing(doing)
}
