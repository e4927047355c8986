//! `--link`: a layer made apart from those below it, which can be used again on top of others.
//!
//! It depends on two things of what is below: the numbers of a user's name, and the directories on the way to the target. Those
//! are in the layer with the attributes that they have below: a layer's own would hide them, and a `/tmp` that only root can write
//! to is of no use. A symlink on the way is not followed, as Docker says of `--link`.

use crate::cache::Inputs;
use crate::error::{Doing, Result};
use crate::stage::Stage;
use images::copy::{self, Copy, Want};
use images::tar::{Entry, Kind};
use std::path::{Path, PathBuf};
use sys::root::Root;

/// What a layer made apart takes from what is below.
#[derive(Debug)]
pub(crate) struct Below {
    /// The user and group of files; `None` where they keep theirs.
    pub(crate) owner: Option<(u32, u32)>,
    /// The root and the directories on the way to the target, as far as they are there.
    directories: Vec<(PathBuf, Entry)>,
}

impl Below {
    /// Looks at what is below a target.
    pub(crate) fn look(
        stage: &Stage<'_, '_>,
        owner: Option<(u32, u32)>,
        target: &str,
    ) -> Result<Self> {
        let view = stage.build.view(&stage.layers)?;
        let mut directories = Vec::new();
        let mut path = PathBuf::from("/");
        for part in Path::new(target).components().skip(1) {
            path.push(part);
            // The directory itself, and nothing of what is in it.
            let want = |at: &Path| match at.as_os_str().is_empty() {
                true => Want::Take,
                false => Want::Leave,
            };
            let Ok(found) = copy::find(&view.root, &path, false, &want) else {
                break;
            };
            match found.into_iter().next() {
                Some(found) if found.entry.kind == Kind::Directory => {
                    directories.push((path.clone(), found.entry));
                }
                _ => break,
            }
        }
        Ok(Self { owner, directories })
    }

    /// Adds it to what the layer depends on.
    pub(crate) fn add_to(&self, inputs: &mut Inputs) {
        inputs.add("the owner of the files", &format!("{:?}", self.owner));
        for (path, entry) in &self.directories {
            let Entry {
                mode,
                uid,
                gid,
                mtime,
                xattrs,
                ..
            } = entry;
            let value = format!("{mode:o} {uid} {gid} {} {xattrs:?}", mtime.seconds);
            inputs.add(format!("the directory {}", path.display()), &value);
        }
    }

    /// Makes the directories in the tree of the layer.
    pub(crate) fn make_directories(&self, to: &Root) -> Result<()> {
        let mut copy = Copy::new(to);
        for (path, entry) in &self.directories {
            let made = copy.put_bytes(&[], path, entry);
            made.doing(|| format!("make the directory {path:?}"))?;
        }
        copy.finish()
            .doing(|| "make the directories of the target".to_owned())
    }
}
