//! Putting files in place by a record of them, and taking them away by it.
//!
//! ```text
//! <prefix>/share/hull/installed.json   what was put where, which directories were made for it, what was there before
//! <path>.before-hull                   what was there before, until it is put back
//! ```
//!
//! Invariant: a file is in the record before it is in its place, so that whatever a broken-off installation has put can be taken
//! away. Each file comes to its place by rename(2): nobody sees half of one, and a program that runs goes on.

use super::plan::{Item, Put};
use crate::error::{Error, IoContext, Result, chain};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

/// The record's place below the prefix.
const PLACE: &str = "share/hull/installed.json";
/// The record's shape.
const VERSION: u32 = 1;
/// What the name of a file that was there before ends with.
const BEFORE: &str = ".before-hull";
/// Bytes of a record.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// What is installed below a prefix. Paths are those that the files have in the end, without the root that they were put below.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// The release that has put them.
    release: String,
    pub(super) files: Vec<File>,
    /// Directories that were made, the outer ones first.
    directories: Vec<PathBuf>,
}

/// A file that was put somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// What is in it, of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    /// Another's file was there, and is kept beside it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) has_before: bool,
}

/// A root below which a prefix is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// `/`, or where a package is made.
    pub(super) root: &'a Path,
    pub(super) prefix: &'a Path,
}

impl Place<'_> {
    /// Where a path is now.
    pub(super) fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn record(&self) -> PathBuf {
        self.at(&self.prefix.join(PLACE))
    }
}

impl Record {
    /// What is installed, if anything is.
    pub(super) fn read(place: Place<'_>) -> Result<Option<Self>> {
        let path = place.record();
        let doing = || format!("read {}", path.display());
        let length = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata.during(doing)?.len(),
        };
        if length > RECORD_BYTES_MAX {
            return Err(Error::msg(format!("{} is no record", path.display())));
        }
        let bytes = fs::read(&path).during(doing)?;
        let record: Self = serde_json::from_slice(&bytes)
            .map_err(|error| Error::msg(format!("{}: {error}", path.display())))?;
        match record.version {
            VERSION => Ok(Some(record)),
            version => Err(Error::msg(format!(
                "{} has version {version}, this release knows {VERSION}: use the newer release",
                path.display()
            ))),
        }
    }

    fn write(&self, place: Place<'_>) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::msg(format!("cannot write down what is put: {error}")))?;
        put(&place.record(), &Put::Text(format!("{text}\n")))
    }

    fn has(&self, path: &Path) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// Puts `items` in their places and takes away what an earlier installation has put beyond them. What others have put there is
/// an error, unless `force`: then it is kept, and put back in the end. A failure leaves nothing of a first installation.
pub(super) fn install(place: Place<'_>, items: &[Item], force: bool) -> Result<Record> {
    let old = Record::read(place)?;
    let mut record = Record {
        version: VERSION,
        release: env!("CARGO_PKG_VERSION").to_owned(),
        files: Vec::new(),
        directories: old
            .as_ref()
            .map_or(Vec::new(), |old| old.directories.clone()),
    };
    for item in items {
        let known = old.as_ref().and_then(|old| old.has(&item.path));
        let foreign = known.is_none() && exists(&place.at(&item.path));
        if foreign && !force {
            return Err(Error::msg(format!(
                "{} is there, and hull has not put it there; --force takes its place until `hull system uninstall`",
                place.at(&item.path).display()
            )));
        }
        record.files.push(File {
            path: item.path.clone(),
            link: match &item.content {
                Put::Link(target) => Some(target.clone()),
                Put::Program | Put::Text(_) => None,
            },
            has_before: foreign || known.is_some_and(|file| file.has_before),
        });
    }
    let directories = { items.iter() }.filter_map(|item| item.path.parent());
    let own = place.prefix.join(PLACE);
    for directory in directories.chain(own.parent()) {
        note_missing(place, directory, &mut record.directories);
    }
    // From here on the record knows of everything: of what is put now, and of what was put before.
    let mut all = Record {
        files: record.files.clone(),
        directories: record.directories.clone(),
        release: record.release.clone(),
        ..record
    };
    let gone = { old.iter() }.flat_map(|old| &old.files);
    let gone: Vec<File> = gone
        .filter(|file| record.has(&file.path).is_none())
        .cloned()
        .collect();
    all.files.extend(gone.iter().cloned());
    let done = put_all(place, items, &record, &all).and_then(|()| {
        gone.iter().try_for_each(|file| take_away(place, file))?;
        record.write(place)
    });
    match (done, old) {
        (Ok(()), _) => Ok(record),
        (Err(error), None) => {
            // What cannot be taken away is still in the record.
            Err(match uninstall(place, &all) {
                Ok(_) => error,
                Err(undoing) => Error::msg(format!("{}; then {}", chain(&error), chain(&undoing))),
            })
        }
        (Err(error), Some(_)) => Err(error),
    }
}

fn put_all(place: Place<'_>, items: &[Item], record: &Record, all: &Record) -> Result<()> {
    for directory in &record.directories {
        let path = place.at(directory);
        fs::create_dir_all(&path).during(|| format!("make {}", path.display()))?;
    }
    all.write(place)?;
    for (item, file) in items.iter().zip(&record.files) {
        let path = place.at(&item.path);
        let before = before(&path);
        if file.has_before && !exists(&before) {
            fs::rename(&path, &before).during(|| format!("keep {}", path.display()))?;
        }
        put(&path, &item.content)?;
    }
    Ok(())
}

/// Takes away everything in the record, the record, and the directories that are empty then. Returns what was left, because
/// somebody else has put it there since.
pub(super) fn uninstall(place: Place<'_>, record: &Record) -> Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for file in &record.files {
        let path = place.at(&file.path);
        if is_ours(&path, file) {
            take_away(place, file)?;
        } else {
            left.push(path);
        }
    }
    remove(&place.record())?;
    for directory in record.directories.iter().rev() {
        let path = place.at(directory);
        match fs::remove_dir(&path) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                return Err(error).during(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(left)
}

/// Whether what is there can be what was put: a link may have been replaced by what it took the place of.
fn is_ours(path: &Path, file: &File) -> bool {
    match (&file.link, fs::read_link(path)) {
        (Some(link), Ok(target)) => target == Path::new(link),
        (Some(_), Err(error)) => error.kind() == io::ErrorKind::NotFound,
        (None, _) => true,
    }
}

fn take_away(place: Place<'_>, file: &File) -> Result<()> {
    let path = place.at(&file.path);
    let before = before(&path);
    if file.has_before && exists(&before) {
        return fs::rename(&before, &path).during(|| format!("put {} back", path.display()));
    }
    // Where it was not kept yet, it is still another's.
    match file.has_before {
        true => Ok(()),
        false => remove(&path),
    }
}

fn remove(path: &Path) -> Result<()> {
    match exists(path) {
        true => fs::remove_file(path).during(|| format!("remove {}", path.display())),
        false => Ok(()),
    }
}

fn before(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(BEFORE);
    PathBuf::from(name)
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Adds the directories that are missing on the way to this one, which is one of them.
fn note_missing(place: Place<'_>, directory: &Path, noted: &mut Vec<PathBuf>) {
    let missing: Vec<&Path> = { directory.ancestors() }
        .take_while(|path| path.parent().is_some() && !exists(&place.at(path)))
        .collect();
    for path in missing.into_iter().rev() {
        if !noted.iter().any(|known| known == path) {
            noted.push(path.to_owned());
        }
    }
}

/// Makes a file beside its place, and moves it there when it is whole.
fn put(path: &Path, content: &Put) -> Result<()> {
    let new = path.with_file_name(format!(".hull-install-{}", std::process::id()));
    let made = match content {
        Put::Link(target) => symlink(target, &new),
        Put::Text(text) => write_file(&new, 0o644, &mut text.as_bytes()),
        // Whatever name this program was started by, and even when it has been replaced since.
        Put::Program => fs::File::open("/proc/self/exe")
            .and_then(|mut program| write_file(&new, 0o755, &mut program)),
    };
    let moved = made.and_then(|()| fs::rename(&new, path));
    if moved.is_err() {
        // It may not have been made.
        let _ = fs::remove_file(&new);
    }
    moved.during(|| format!("write {}", path.display()))
}

fn write_file(path: &Path, mode: u32, content: &mut impl io::Read) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // Whatever umask(2) says, everybody may use what is installed.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    io::copy(content, &mut file)?;
    file.flush()?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str, text: &str) -> Item {
        Item {
            path: PathBuf::from(path),
            content: Put::Text(text.to_owned()),
        }
    }

    fn link(path: &str, target: &str) -> Item {
        Item {
            path: PathBuf::from(path),
            content: Put::Link(target.to_owned()),
        }
    }

    fn all_below(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(root).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.display().to_string());
            if path.is_dir() && !path.is_symlink() {
                found.extend(all_below(&path));
            }
        }
        found
    }

    #[test]
    fn what_is_put_goes_again_and_the_rest_stays() {
        let root = tempfile::tempdir().unwrap();
        let place = Place {
            root: root.path(),
            prefix: Path::new("/usr/local"),
        };
        fs::create_dir_all(root.path().join("usr/local/bin")).unwrap();
        fs::write(root.path().join("usr/local/bin/other"), "").unwrap();
        let before = all_below(root.path());
        let first = [
            text("/usr/local/bin/a", "1"),
            text("/usr/local/share/x/b", "2"),
        ];
        install(place, &first, false).unwrap();
        let second = [text("/usr/local/bin/a", "3"), link("/usr/local/bin/c", "a")];
        let record = install(place, &second, false).unwrap();
        assert_eq!(fs::read(root.path().join("usr/local/bin/c")).unwrap(), b"3");
        assert!(!root.path().join("usr/local/share/x/b").exists());
        assert_eq!(Record::read(place).unwrap().unwrap().files, record.files);
        assert!(uninstall(place, &record).unwrap().is_empty());
        assert_eq!(all_below(root.path()), before);
        assert!(Record::read(place).unwrap().is_none());
    }

    #[test]
    fn what_others_have_put_is_kept_and_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let place = Place {
            root: root.path(),
            prefix: Path::new("/usr"),
        };
        let docker = root.path().join("usr/bin/docker");
        fs::create_dir_all(docker.parent().unwrap()).unwrap();
        fs::write(&docker, "theirs").unwrap();
        let items = [link("/usr/bin/docker", "hull")];
        let before = all_below(root.path());
        let refused = install(place, &items, false).unwrap_err().to_string();
        assert!(refused.contains("--force"), "{refused}");
        assert_eq!(all_below(root.path()), before);
        install(place, &items, true).unwrap();
        // A second time it is ours, and theirs is still kept.
        let record = install(place, &items, false).unwrap();
        assert_eq!(fs::read_link(&docker).unwrap(), Path::new("hull"));
        assert!(uninstall(place, &record).unwrap().is_empty());
        assert_eq!(fs::read(&docker).unwrap(), b"theirs");
        assert_eq!(all_below(root.path()), before);
    }

    #[test]
    fn what_was_put_in_the_place_of_a_link_is_left() {
        let root = tempfile::tempdir().unwrap();
        let place = Place {
            root: root.path(),
            prefix: Path::new("/usr"),
        };
        let record = install(place, &[link("/usr/bin/docker", "hull")], false).unwrap();
        let docker = root.path().join("usr/bin/docker");
        fs::remove_file(&docker).unwrap();
        fs::write(&docker, "theirs").unwrap();
        assert_eq!(
            uninstall(place, &record).unwrap(),
            std::slice::from_ref(&docker)
        );
        assert_eq!(fs::read(&docker).unwrap(), b"theirs");
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let place = Place {
            root: root.path(),
            prefix: Path::new("/usr"),
        };
        // The second one's name is longer than any can be.
        let long = format!("/usr/bin/{}", "b".repeat(300));
        install(place, &[text("/usr/bin/a", "1"), text(&long, "2")], false).unwrap_err();
        assert!(
            all_below(root.path()).is_empty(),
            "{:?}",
            all_below(root.path())
        );
    }
}
