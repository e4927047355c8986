//! Files on their way into the directory that becomes a layer, while the layer's tar is written of them.
//!
//! Several threads bring them, in the order in which the tar has them, and keep what is in the small ones: nothing is opened and read once
//! more. They are never far ahead of whoever writes the tar.
//!
//! Invariant: what a directory is in the end is known before its files are there, because the tar says that first.

use crate::share::{Brought, Coming, Places, Rest};
use crate::tar::{Entry, Kind, Time};
use crate::{Error, Result, Stop, place};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use sys::root::Root;

/// Files that one thread brings one after the other.
const PIECE_FILES: usize = 64;
/// Pieces that are brought before the tar is there.
const AHEAD_MAX: usize = 64;
/// Threads at the same time.
const THREADS_MAX: usize = 4;

/// Files on their way.
pub(crate) struct Arrivals<'f> {
    /// By their paths in the tree, in the order of the tar.
    coming: Vec<(PathBuf, Coming<'f>)>,
    /// What directories are in the end, by their paths.
    directories: HashMap<PathBuf, (u32, Time)>,
    /// The time of directories that are only changed by what is brought into them.
    now: Time,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The piece that is begun next.
    next: usize,
    /// The piece that the tar is at.
    at: usize,
    brought: HashMap<usize, Vec<Brought>>,
    failure: Option<Error>,
    has_ended: bool,
}

impl<'f> Arrivals<'f> {
    /// Those of `rest`, none with a time after `mtime_max`.
    pub(crate) fn new(rest: Rest<'f>, mtime_max: Option<i64>) -> Self {
        let now = jiff::Timestamp::now().as_second();
        let mut coming = rest.coming.into_sorted();
        for (_, coming) in &mut coming {
            let mtime = &mut coming.entry.mtime;
            if let Some(seconds) = mtime_max.filter(|max| *max < mtime.seconds) {
                *mtime = Time {
                    seconds,
                    nanoseconds: 0,
                };
            }
        }
        Self {
            coming,
            directories: { rest.directories.into_iter() }
                .map(|(path, mode, mtime)| (path, (mode, mtime)))
                .collect(),
            now: Time {
                seconds: now,
                nanoseconds: 0,
            },
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings everything to a tree while `work` is done; returns what that does, unless bringing has failed.
    pub(crate) fn during<T>(
        &self,
        to: &Root,
        stop: Stop<'_>,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads
            .min(THREADS_MAX)
            .min(self.coming.len().div_ceil(PIECE_FILES));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.bring(to, stop));
            }
            let _end = End(self);
            work()
        })
    }

    /// Brings piece by piece.
    fn bring(&self, to: &Root, stop: Stop<'_>) {
        let mut places = Places::new(to, stop);
        while let Some(piece) = self.next() {
            let from = piece * PIECE_FILES;
            let files = self.coming[from..].iter().take(PIECE_FILES);
            let brought = files.map(|(target, coming)| places.put(target, coming));
            let brought: Result<Vec<Brought>> = brought.collect();
            let mut state = self.state();
            match brought {
                Ok(brought) => drop(state.brought.insert(piece, brought)),
                Err(error) => drop(state.failure.get_or_insert(error)),
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The next piece, as soon as it may be brought.
    fn next(&self) -> Option<usize> {
        let mut state = self.state();
        loop {
            let is_over = state.has_ended || state.failure.is_some();
            if is_over || state.next * PIECE_FILES >= self.coming.len() {
                return None;
            }
            if state.next < state.at + AHEAD_MAX {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = { self.changed.wait(state) }.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The files that come into a directory: by their names their numbers.
    pub(crate) fn names(&self, directory: &Path) -> BTreeMap<OsString, usize> {
        let directory = relative(directory);
        let first = self
            .coming
            .partition_point(|(path, _)| path.as_path() < directory);
        let below = self.coming[first..].iter().enumerate();
        let below = below.take_while(|(_, (path, _))| path.starts_with(directory));
        let own = below.filter(|(_, (path, _))| path.parent() == Some(directory));
        let own =
            own.filter_map(|(at, (path, _))| Some((path.file_name()?.to_owned(), first + at)));
        own.collect()
    }

    /// Waits for a file. Those of lower numbers are not asked for any more.
    pub(crate) fn wait(&self, number: usize) -> Result<(&Entry, Brought)> {
        let piece = number / PIECE_FILES;
        let mut state = self.state();
        if state.at < piece {
            state.at = piece;
            state.brought.retain(|brought, _| *brought >= piece);
            self.changed.notify_all();
        }
        loop {
            if let Some(brought) = state.brought.get_mut(&piece) {
                let brought = std::mem::take(&mut brought[number % PIECE_FILES]);
                return Ok((&self.coming[number].1.entry, brought));
            }
            if let Some(failure) = state.failure.take() {
                // The other threads are not to go on for that.
                state.has_ended = true;
                return Err(failure);
            }
            state = { self.changed.wait(state) }.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says of a directory's entry what it is in the end.
    pub(crate) fn adjust(&self, path: &Path, entry: &mut Entry) {
        if entry.kind != Kind::Directory {
            return;
        }
        if let Some((mode, mtime)) = self.directories.get(relative(path)) {
            (entry.mode, entry.mtime) = (*mode, *mtime);
        } else if !self.names(path).is_empty() {
            entry.mtime = self.now;
        }
    }

    /// Makes a directory what [`Self::adjust`] has said of it, when everything in it has arrived. False: it is that already.
    pub(crate) fn finish(
        &self,
        directory: BorrowedFd<'_>,
        entry: &Entry,
        path: &Path,
    ) -> Result<bool> {
        if self.directories.contains_key(relative(path)) {
            place::set_mode(directory, entry.mode, Some(entry.mtime), path)?;
        } else if self.names(path).is_empty() {
            return Ok(false);
        } else {
            place::set_times(directory, entry.mtime.seconds, path)?;
        }
        Ok(true)
    }
}

/// A path of the tree as those of files to come are.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Nobody asks for files any more when this goes.
struct End<'a, 'f>(&'a Arrivals<'f>);

impl Drop for End<'_, '_> {
    fn drop(&mut self) {
        self.0.state().has_ended = true;
        self.0.changed.notify_all();
    }
}
