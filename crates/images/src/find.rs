//! What is in a tree: in a directory or mount, or in layers one on the other, read from their own directories.
//!
//! Layers need no mount to be read, because nobody changes them: a name is looked up from the topmost layer down, as overlayfs does. A
//! whiteout hides what is below it, an opaque directory what lower layers have in it. Overlayfs itself makes an inode of its own for
//! every file that it shows, and does not say which layer that is of.
//! Source: the kernel's Documentation/filesystems/overlayfs.rst.

use crate::digests::Known;
use crate::limits::ENTRIES_MAX;
use crate::recipe::DIFF;
use crate::tar::{Entry, Kind};
use crate::walk::{self, Node};
use crate::{Error, Images, Result, parallel, tree};
use oci::Digest;
use rustix::fs::FileType;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use sys::root::Root;

/// Directories that are open at the same time: as many as are deep in each other, in as many layers as have them.
const OPEN_MAX: usize = 16 << 10;
/// Threads that look at the same time.
const THREADS_MAX: usize = 4;
/// Names in a directory that are worth several threads.
const NAMES_MIN: usize = 64;
/// Pieces of them for each thread: some have more below them than others.
const PIECES: usize = 8;

/// A file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path below the start of the search; empty for the start itself.
    pub path: PathBuf,
    /// Its attributes. `size` is that of a regular file; the entry's own path is empty.
    pub entry: Entry,
    /// The layer of a [`Stack`] that has it; 0 in other trees.
    pub layer: usize,
}

/// What a search does with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Take it.
    Take,
    /// Take it if something below it is taken.
    Look,
    /// Leave it out, and all below.
    Leave,
}

/// What is wanted of a tree, by the paths below the start of a search.
pub type Wanted<'w> = &'w (dyn Fn(&Path) -> Want + Sync);

/// What is at `start` and below, directories before what is in them, in the order of their names, in a tree that nobody changes
/// meanwhile. A last symlink is followed when `follow` says so. Sockets are left out.
pub fn find(root: &Root, start: &Path, follow: bool, want: Wanted<'_>) -> Result<Vec<Found>> {
    let fd = match follow {
        true => root.resolve(start)?,
        false => root.resolve_nofollow(start)?,
    };
    let node = Node::reopen(fd, start)?;
    let mut search = Search::new(want, false);
    search.collect(&[Part { layer: 0, node }], Path::new(""))?;
    Ok(search.found)
}

/// Where a path leads in a tree that nobody changes meanwhile, absolute, and without symlinks.
pub fn real_path(root: &Root, path: &Path) -> Result<PathBuf> {
    let fd = root.resolve(path)?;
    Ok(Path::new("/").join(walk::real_path(root, fd.as_fd())?))
}

/// Layers, one on the other.
#[derive(Debug)]
pub struct Stack<'a> {
    pub(crate) images: &'a Images,
    /// The topmost first, each once.
    pub(crate) layers: Vec<Layer>,
}

/// A layer of a stack.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) directory: PathBuf,
    pub(crate) files: Root,
    /// What is remembered of its files, once that was read.
    pub(crate) known: Mutex<Option<Known>>,
}

impl Layer {
    fn open(directory: PathBuf, files: &Path) -> sys::Result<Self> {
        Ok(Self {
            files: Root::open(files)?,
            directory,
            known: Mutex::default(),
        })
    }
}

impl Images {
    /// The files of layers, the lowest first, which the caller holds.
    ///
    /// # Errors
    /// A layer that is not there.
    pub fn open_stack(&self, layers: &[Digest]) -> Result<Stack<'_>> {
        let open = |layer| {
            let directory = self.layer_path(layer);
            let files = directory.join(DIFF);
            Layer::open(directory, &files)
        };
        let layers = match layers {
            [] => vec![Layer::open(self.empty_path(), &self.empty_path())?],
            layers => crate::snapshot::from_the_top(layers)
                .iter()
                .map(open)
                .collect::<sys::Result<_>>()?,
        };
        let images = self;
        Ok(Stack { images, layers })
    }
}

impl Stack<'_> {
    /// The files of the layer that has something that was found: there it is at the same path.
    pub fn layer(&self, found: &Found) -> &Root {
        &self.layers[found.layer].files
    }

    /// As [`find`], from a path that does not lead through symlinks.
    ///
    /// # Errors
    /// Nothing is there, or it cannot be read.
    pub fn find(&self, start: &Path, want: Wanted<'_>) -> Result<Vec<Found>> {
        let top = Path::new("/");
        let part = |(layer, it): (usize, &Layer)| {
            let node = Node::reopen(it.files.resolve(top)?, top)?;
            Ok::<_, Error>(Part { layer, node })
        };
        let parts: Result<Vec<Part>> = self.layers.iter().enumerate().map(part).collect();
        let (mut parts, mut at) = (parts?, top.to_owned());
        let mut search = Search::new(want, true);
        for component in start.components() {
            if let Component::Normal(name) = component {
                at.push(name);
                parts = search.look_up(&parts, name, &at)?;
            }
        }
        if parts.is_empty() {
            let call = format!("openat2(<layers>, {start:?})");
            return Err(sys::Error::new(call, rustix::io::Errno::NOENT).into());
        }
        search.collect(&parts, Path::new(""))?;
        Ok(search.found)
    }
}

/// What a layer has at a path.
#[derive(Debug)]
struct Part {
    layer: usize,
    node: Node,
}

struct Search<'w> {
    want: Wanted<'w>,
    is_of_layers: bool,
    /// Threads that may look at the same time.
    threads: usize,
    /// Directories that are open.
    open: usize,
    found: Vec<Found>,
}

impl<'w> Search<'w> {
    fn new(want: Wanted<'w>, is_of_layers: bool) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            want,
            is_of_layers,
            threads: threads.min(THREADS_MAX),
            open: 0,
            found: Vec::new(),
        }
    }

    /// What a name means in a directory of which these are the parts, the topmost first: one thing, or what several layers have of a
    /// directory; nothing where it is not there.
    fn look_up(&self, parts: &[Part], name: &OsStr, path: &Path) -> Result<Vec<Part>> {
        let mut found = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let Some(node) = Node::open_still(part.node.fd.as_fd(), name, path)? else {
                continue;
            };
            let is_directory = node.file_type() == FileType::Directory;
            let is_whiteout = self.is_of_layers && node.is_whiteout();
            if is_whiteout || (!is_directory && !found.is_empty()) {
                break;
            }
            let is_last = !is_directory || at + 1 == parts.len() || node.is_opaque(path)?;
            let layer = part.layer;
            found.push(Part { layer, node });
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    fn collect(&mut self, parts: &[Part], path: &Path) -> Result<()> {
        walk::check_depth(path)?;
        let Part { layer, node } = &parts[0];
        let wanted = (self.want)(path);
        if wanted == Want::Leave || node.file_type() == FileType::Socket {
            return Ok(());
        }
        self.check_count(path)?;
        let is_directory = node.file_type() == FileType::Directory;
        if wanted == Want::Look && !is_directory {
            return Ok(());
        }
        let mut entry = tree::entry(node, b"", tree::kind(node, path)?)?;
        entry.xattrs = node.xattrs(path)?;
        if entry.kind == Kind::File {
            entry.size = u64::try_from(node.stat.st_size).unwrap_or(0);
        }
        self.found.push(Found {
            path: path.to_owned(),
            entry,
            layer: *layer,
        });
        let before = self.found.len();
        if is_directory {
            self.open += parts.len();
            if self.open > OPEN_MAX {
                let reason = "too many layers have it to be walked";
                return Err(refused(path, reason));
            }
            let names = names(parts, path)?;
            match self.threads > 1 && names.len() >= NAMES_MIN {
                true => self.collect_at_once(&names, parts, path)?,
                false => self.collect_all(&names, parts, path)?,
            }
            self.open -= parts.len();
        }
        if wanted == Want::Look && self.found.len() == before {
            self.found.pop();
        }
        Ok(())
    }

    fn check_count(&self, path: &Path) -> Result<()> {
        match self.found.len() as u64 <= ENTRIES_MAX {
            true => Ok(()),
            false => Err(refused(path, "there are too many files")),
        }
    }

    /// Collects what is in a directory of which these are the parts.
    fn collect_all(&mut self, names: &[Name], parts: &[Part], path: &Path) -> Result<()> {
        for (name, first) in names {
            let path = path.join(name);
            let child = self.look_up(&parts[*first..], name, &path)?;
            if !child.is_empty() {
                self.collect(&child, &path)?;
            }
        }
        Ok(())
    }

    /// The same, of several names at the same time.
    fn collect_at_once(&mut self, names: &[Name], parts: &[Part], path: &Path) -> Result<()> {
        let some = names.len().div_ceil(self.threads * PIECES);
        let pieces: Vec<_> = names.chunks(some).collect();
        let before = &*self;
        let found = parallel::each(pieces, self.threads, |names| {
            let mut search = Search {
                threads: 1,
                found: Vec::new(),
                ..*before
            };
            search.collect_all(names, parts, path)?;
            Ok::<_, Error>(search.found)
        })?;
        self.found.extend(found.into_iter().flatten());
        self.check_count(path)
    }
}

fn refused(path: &Path, reason: &'static str) -> Error {
    Error::Path {
        path: path.to_owned(),
        reason,
    }
}

/// A name in a directory, and the first part that has it.
type Name = (OsString, usize);

/// The names in a directory, ordered.
fn names(parts: &[Part], path: &Path) -> Result<Vec<Name>> {
    if let [only] = parts {
        let names = walk::names(only.node.fd.as_fd(), path)?;
        return Ok(names.into_iter().map(|name| (name, 0)).collect());
    }
    let mut all = BTreeMap::new();
    for (at, part) in parts.iter().enumerate() {
        for name in walk::names(part.node.fd.as_fd(), path)? {
            all.entry(name).or_insert(at);
        }
    }
    Ok(all.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Store;
    use crate::{Hold, Snapshot};
    use rustix::fs::{CWD, Mode, XattrFlags};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn layer<'s>(store: &'s Store, id: &str, write: impl FnOnce(&Path)) -> (Digest, Hold<'s>) {
        let snapshot = store.images.prepare_on(id, &[]).unwrap();
        write(&snapshot.upper);
        store.take(&snapshot, None).unwrap()
    }

    fn whiteout(path: &Path) {
        rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    }

    fn opaque(path: &Path) {
        let name = crate::layer::OPAQUE_XATTR;
        rustix::fs::setxattr(path, name, b"y", XattrFlags::empty()).unwrap();
    }

    /// Four layers that hide and merge in all ways.
    fn layers(store: &Store) -> [(Digest, Hold<'_>); 4] {
        let write = |upper: &Path, path: &str| {
            fs::create_dir_all(upper.join(path).parent().unwrap()).unwrap();
            fs::write(upper.join(path), path).unwrap();
        };
        let lowest = layer(store, "a", |upper| {
            for path in [
                "d/a",
                "d/gone",
                "d/file",
                "e/low",
                "f/sub/low",
                "g/x",
                "h/deep/low",
                "top",
            ] {
                write(upper, path);
            }
            symlink("d", upper.join("link")).unwrap();
            fs::create_dir(upper.join("becomes-link")).unwrap();
        });
        let second = layer(store, "b", |upper| {
            for path in [
                "d/b",
                "d/file/now-a-directory",
                "e/middle",
                "g/y",
                "h/deep/middle",
            ] {
                write(upper, path);
            }
            whiteout(&upper.join("d/gone"));
            whiteout(&upper.join("f"));
            symlink("/etc", upper.join("becomes-link")).unwrap();
            fs::set_permissions(upper.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        });
        let third = layer(store, "c", |upper| {
            write(upper, "e/high");
            opaque(&upper.join("e"));
            fs::create_dir(upper.join("f")).unwrap();
            write(upper, "f/new");
            whiteout(&upper.join("g"));
            // Of nothing that is below.
            whiteout(&upper.join("never"));
        });
        let topmost = layer(store, "d", |upper| {
            write(upper, "e/highest");
            write(upper, "h/deep/high");
            opaque(&upper.join("h"));
            fs::write(upper.join("top"), "of the topmost").unwrap();
        });
        [lowest, second, third, topmost]
    }

    fn shown(found: Vec<Found>) -> Vec<(PathBuf, Entry)> {
        found.into_iter().map(|it| (it.path, it.entry)).collect()
    }

    #[test]
    fn a_stack_is_what_overlayfs_shows() {
        let store = Store::new();
        let layers = layers(&store);
        let all = layers.each_ref().map(|(layer, _)| *layer);
        let mounted = |id: &str, layers: &[Digest]| -> (Snapshot, Root) {
            let snapshot = store.images.prepare_on(id, layers).unwrap();
            let root = Root::from_fd(store.images.mount_detached(&snapshot).unwrap());
            (snapshot, root)
        };
        for count in 0..=4 {
            let layers = &all[..count];
            let (_snapshot, root) = mounted(&format!("n{count}"), layers);
            let stack = store.images.open_stack(layers).unwrap();
            let starts = find(&root, Path::new("/"), false, &|_| Want::Take).unwrap();
            for start in &starts {
                let start = Path::new("/").join(&start.path);
                let expected = find(&root, &start, false, &|_| Want::Take).unwrap();
                let found = stack.find(&start, &|_| Want::Take).unwrap();
                for it in found.iter().filter(|it| it.entry.kind == Kind::File) {
                    let path = start.join(&it.path).components().collect::<PathBuf>();
                    let read = |root: &Root| {
                        let file = crate::copy::open_file(root, &path).unwrap();
                        std::io::read_to_string(file).unwrap()
                    };
                    assert_eq!(read(stack.layer(it)), read(&root), "{path:?}");
                }
                assert_eq!(shown(found), shown(expected), "{count} layers at {start:?}");
            }
            for gone in ["/d/gone", "/never", "/none"] {
                let is_there = root.resolve_nofollow(Path::new(gone)).is_ok();
                let found = stack.find(Path::new(gone), &|_| Want::Take);
                assert_eq!(found.is_ok(), is_there, "{gone}: {found:?}");
            }
        }
    }

    #[test]
    fn a_wide_directory_is_found_in_the_order_of_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = vec![String::new()];
        for number in 100..100 + 5 * NAMES_MIN {
            let name = format!("d{number}");
            fs::create_dir(dir.path().join(&name)).unwrap();
            expected.push(name.clone());
            for below in ["a", "left-out", "z"] {
                fs::write(dir.path().join(&name).join(below), below).unwrap();
            }
            expected.extend(["a", "z"].map(|below| format!("{name}/{below}")));
        }
        let root = Root::open(dir.path()).unwrap();
        let want = |path: &Path| match path.ends_with("left-out") {
            true => Want::Leave,
            false => Want::Take,
        };
        let found = find(&root, Path::new("/"), false, &want).unwrap();
        let found: Vec<&str> = found.iter().map(|it| it.path.to_str().unwrap()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_layer_twice_counts_once() {
        let store = Store::new();
        let (one, _one) = layer(&store, "a", |upper| {
            fs::write(upper.join("x"), "1").unwrap()
        });
        let (two, _two) = layer(&store, "b", |upper| {
            fs::write(upper.join("x"), "2").unwrap()
        });
        let stack = store.images.open_stack(&[one, two, one]).unwrap();
        let found = stack.find(Path::new("/x"), &|_| Want::Take).unwrap();
        assert_eq!(found[0].layer, 0);
        let file = crate::copy::open_file(stack.layer(&found[0]), Path::new("/x"));
        assert_eq!(std::io::read_to_string(file.unwrap()).unwrap(), "1");
    }

    #[test]
    fn a_path_leads_through_links_of_its_own_tree() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink("/a", dir.path().join("absolute")).unwrap();
        symlink("../../..", dir.path().join("a/up")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for (path, leads_to) in [("absolute/b", "/a/b"), ("a/up", "/"), ("/a/up/a", "/a")] {
            assert_eq!(
                real_path(&root, Path::new(path)).unwrap(),
                Path::new(leads_to)
            );
        }
    }
}
