//! Lists of manifests that are not pushed yet: `manifests/<list>/<manifest>` beside config.json, where Docker's client has them.

use super::entry::Entry;
use crate::error::{Error, IoContext, Result};
use crate::parse::keyvalue;
use crate::session::Session;
use oci::Reference;
use std::path::{Path, PathBuf};

/// Manifests of one list that are read.
const ENTRIES_MAX: usize = oci::image::INDEX_MANIFESTS_MAX;

/// The lists of one user.
#[derive(Debug)]
pub(super) struct Lists {
    directory: PathBuf,
}

impl Lists {
    pub(super) fn of(session: &Session) -> Self {
        Self {
            directory: session.config_directory().join("manifests"),
        }
    }

    /// The manifests of a list, by their files' names; `None` when there is no such list.
    pub(super) fn get(&self, list: &Reference) -> Result<Option<Vec<Entry>>> {
        let directory = self.of_list(list);
        let found = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            found => found.during(|| format!("read {}", directory.display()))?,
        };
        let mut paths = Vec::new();
        for entry in found {
            let entry = entry.during(|| format!("read {}", directory.display()))?;
            paths.push(entry.path());
        }
        if paths.len() > ENTRIES_MAX {
            let directory = directory.display();
            return Err(Error::msg(format!(
                "{directory}: more than {ENTRIES_MAX} manifests"
            )));
        }
        paths.sort();
        paths
            .iter()
            .map(|path| read(path))
            .collect::<Result<_>>()
            .map(Some)
    }

    /// One manifest of a list, where it is there.
    pub(super) fn entry(&self, list: &Reference, name: &Reference) -> Result<Option<Entry>> {
        let path = self.of_list(list).join(file_name(name));
        match path.exists() {
            true => read(&path).map(Some),
            false => Ok(None),
        }
    }

    /// Adds or replaces a manifest under a name.
    pub(super) fn put(&self, list: &Reference, name: &Reference, entry: &Entry) -> Result<()> {
        let directory = self.of_list(list);
        std::fs::create_dir_all(&directory).during(|| format!("mkdir {}", directory.display()))?;
        let path = directory.join(file_name(name));
        std::fs::write(&path, entry.to_json()).during(|| format!("write {}", path.display()))
    }

    /// Forgets a list; `false` when there is none.
    pub(super) fn remove(&self, list: &Reference) -> Result<bool> {
        let directory = self.of_list(list);
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            removed => removed
                .during(|| format!("remove {}", directory.display()))
                .map(|()| true),
        }
    }

    fn of_list(&self, list: &Reference) -> PathBuf {
        self.directory.join(file_name(list))
    }
}

fn read(path: &Path) -> Result<Entry> {
    let json = keyvalue::read_limited(&path.to_string_lossy())?;
    Entry::parse(&json).map_err(|what| Error::msg(format!("{}: {what}", path.display())))
}

/// A name as that of a file. The grammar of names has no component of dots alone.
fn file_name(reference: &Reference) -> String {
    reference.to_string().replace(':', "-").replace('/', "_")
}
