//! The largest files of a tree.

use crate::Result;
use crate::walk::{Node, check_depth, file_type, names};
use rustix::fs::{AtFlags, FileType, statat};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use sys::Context as _;
use sys::root::Root;

/// The largest files of a tree with their bytes, the largest first; of several links to one, the first by name.
pub fn largest_files(root: &Root, count: usize) -> Result<Vec<(PathBuf, u64)>> {
    let top = Node::reopen(root.resolve(Path::new("/"))?, Path::new("/"))?;
    let mut found = Vec::new();
    descend(&top, Path::new("/"), count, &mut found)?;
    Ok(found
        .into_iter()
        .map(|(path, bytes, _)| (path, bytes))
        .collect())
}

/// A file's path, size and inode.
type Found = (PathBuf, u64, u64);

fn descend(node: &Node, path: &Path, count: usize, found: &mut Vec<Found>) -> Result<()> {
    check_depth(path)?;
    let mut all = names(node.fd.as_fd(), path)?;
    all.sort();
    for name in all {
        let below = path.join(&name);
        let call = || format!("fstatat(<tree>{below:?})");
        let stat = statat(&node.fd, &name, AtFlags::SYMLINK_NOFOLLOW).call(call)?;
        match file_type(&stat) {
            FileType::Directory => {
                // Nothing changes in it meanwhile: whoever asks has it alone.
                let Some(directory) = Node::open(node.fd.as_fd(), &name, &below, true)? else {
                    continue;
                };
                descend(&directory, &below, count, found)?;
            }
            FileType::RegularFile => {
                let bytes = u64::try_from(stat.st_size).unwrap_or(0);
                let is_linked = stat.st_nlink > 1;
                if is_linked && found.iter().any(|(_, _, inode)| *inode == stat.st_ino) {
                    continue;
                }
                let at = found.partition_point(|(_, known, _)| *known >= bytes);
                if at < count {
                    found.insert(at, (below, bytes, stat.st_ino));
                    found.truncate(count);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_found() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
        for (path, bytes) in [
            ("a/b/large", 300),
            ("a/small", 1),
            ("middle", 200),
            ("z", 250),
        ] {
            std::fs::write(directory.path().join(path), vec![0; bytes]).unwrap();
        }
        std::fs::hard_link(
            directory.path().join("a/b/large"),
            directory.path().join("again"),
        )
        .unwrap();
        std::os::unix::fs::symlink("a/b/large", directory.path().join("link")).unwrap();
        let root = Root::open(directory.path()).unwrap();
        let found = largest_files(&root, 3).unwrap();
        let found: Vec<(&str, u64)> = found
            .iter()
            .map(|(path, bytes)| (path.to_str().unwrap(), *bytes))
            .collect();
        assert_eq!(found, [("/a/b/large", 300), ("/z", 250), ("/middle", 200)]);
    }
}
