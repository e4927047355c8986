//! Which files COPY and ADD mean by their words, and where each goes.

use crate::error::{Doing, Error, Result};
use images::copy::{self, Found, Want, Wanted};
use images::tar::Kind;
use patterns::{Ignore, Pattern};
use rustix::fs::{Dir, Mode, OFlags};
use std::path::{Path, PathBuf};
use sys::root::Root;

/// Paths that one pattern may match.
const MATCHES_MAX: usize = 1 << 20;

/// One source, with all that is in it.
#[derive(Debug)]
pub(crate) struct Selected {
    /// Its path in its tree.
    pub(crate) source: PathBuf,
    /// The same, or what links on the way and there lead to.
    pub(crate) real: PathBuf,
    /// It is a directory: what is in it is meant.
    pub(crate) is_directory: bool,
    /// The source itself first, if it is wanted; nothing of one that is left out, whose target's directories are made.
    pub(crate) found: Vec<Found>,
    /// With `--parents`: the path that it keeps.
    pub(crate) kept: Option<PathBuf>,
}

/// What words of an instruction select.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) sources: Vec<Selected>,
    /// There are, or could be, several: the target is a directory.
    pub(crate) several: bool,
}

/// A tree that files are selected of.
pub(crate) trait Tree {
    /// For paths to be resolved in.
    fn root(&self) -> &Root;

    /// What is at a path that leads through no symlinks, and below.
    fn find(&self, start: &Path, want: Wanted<'_>) -> images::Result<Vec<Found>>;
}

impl Tree for Root {
    fn root(&self) -> &Root {
        self
    }

    fn find(&self, start: &Path, want: Wanted<'_>) -> images::Result<Vec<Found>> {
        copy::find(self, start, false, want)
    }
}

/// Finds what words mean in a tree.
pub(crate) fn select(
    tree: &dyn Tree,
    words: &[String],
    excludes: &[String],
    parents: bool,
) -> Result<Selection> {
    let excludes = Ignore::parse(&excludes.join("\n"))
        .map_err(|error| Error::Invalid(format!("--exclude: {error}")))?;
    let mut sources = Vec::new();
    let mut wild = false;
    for word in words {
        let (pivot, clean) = pivot(word);
        let paths = match is_pattern(&clean) {
            false => vec![clean.clone()],
            true => {
                wild = true;
                matches(tree.root(), &clean, parents)?
            }
        };
        for path in paths {
            let kept = parents.then(|| path.strip_prefix(&pivot).unwrap_or(&path));
            let kept = kept.map(|kept| PathBuf::from(kept.trim_start_matches('/')));
            sources.push(source(tree, word, &path, &excludes, kept)?);
        }
    }
    let found = sources.iter().filter(|source| !source.found.is_empty());
    let several = words.len() > 1 || (wild && found.count() > 1);
    Ok(Selection { sources, several })
}

/// A path without empty, `.` and `..` components, and what of it is before `/./`.
fn pivot(word: &str) -> (String, String) {
    let clean = |text: &str| {
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                // The root's parent is the root.
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.join("/")
    };
    let before = word.split_once("/./").map_or("", |(before, _)| before);
    (clean(before), clean(word))
}

fn source(
    tree: &dyn Tree,
    word: &str,
    path: &str,
    excludes: &Ignore,
    kept: Option<PathBuf>,
) -> Result<Selected> {
    let start = Path::new("/").join(path);
    let name = path.rsplit('/').next().unwrap_or_default();
    let wants = |below: &Path| match below.to_str() {
        // Only a file is excluded by its own name.
        Some("") => Want::Take,
        Some(below) if excludes.excludes_all_of(below) => Want::Leave,
        Some(below) if excludes.excludes(below) => Want::Look,
        _ => Want::Take,
    };
    let failed = |error: images::Error| match error.kind() {
        images::ErrorKind::NotFound => not_found(word),
        _ => Error::Images {
            doing: format!("read {word:?}"),
            source: error,
        },
    };
    let real = copy::real_path(tree.root(), &start).map_err(failed)?;
    let mut found = tree.find(&real, &wants).map_err(failed)?;
    let Some(first) = found.first() else {
        return Err(Error::Invalid(format!(
            "{word:?} is a socket, which cannot be copied"
        )));
    };
    let is_directory = first.entry.kind == Kind::Directory;
    if !is_directory && excludes.excludes(name) {
        found.clear();
    }
    Ok(Selected {
        real,
        source: start,
        is_directory,
        found,
        kept,
    })
}

fn not_found(word: &str) -> Error {
    Error::NotFound(format!(
        "COPY failed: file not found in build context or excluded by .dockerignore: stat {}: file does not exist",
        word.trim_start_matches('/')
    ))
}

/// Whether a path has a wildcard; without one, backslashes are part of names.
fn is_pattern(path: &str) -> bool {
    let mut rest = path.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(rest.next()),
            _ => {}
        }
    }
    false
}

/// The paths that a pattern matches, ordered. There may be none: `COPY package.json yarn.lock* ./` takes what there is.
fn matches(root: &Root, pattern: &str, double_star: bool) -> Result<Vec<String>> {
    let malformed = || Error::Invalid(format!("{pattern:?} is a malformed pattern"));
    let parsed = Pattern::new(pattern, double_star).ok_or_else(malformed)?;
    let mut matched = Vec::new();
    descend(root, &parsed, "", &mut matched)?;
    Ok(matched)
}

fn descend(root: &Root, pattern: &Pattern, path: &str, matched: &mut Vec<String>) -> Result<()> {
    let at = Path::new("/").join(path);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    // What is no directory has nothing in it.
    let Ok(fd) = root.open_at(&at, flags, Mode::empty()) else {
        return Ok(());
    };
    let mut names = Vec::new();
    let read = |error: rustix::io::Errno| std::io::Error::from(error);
    let doing = || format!("list {at:?}");
    for entry in Dir::read_from(&fd).map_err(read).doing(doing)? {
        let entry = entry.map_err(read).doing(doing)?;
        // A name that is no text is matched by no pattern of text.
        if let Ok(name) = entry.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    for name in names {
        let below = match path {
            "" => name,
            path => format!("{path}/{name}"),
        };
        if pattern.matches(&below) {
            if matched.len() == MATCHES_MAX {
                return Err(Error::Invalid(
                    "the pattern matches too many files".to_owned(),
                ));
            }
            matched.push(below);
        } else if pattern.may_match_below(&below) {
            descend(root, pattern, &below, matched)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b", "a/c"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        for path in ["1.txt", "2.txt", "a/b/3.txt", "a/b/x.o", "a/c/4.txt"] {
            std::fs::write(dir.path().join(path), path).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn words_and_patterns_select() {
        let (_dir, root) = tree();
        let select = |sources: &[&str], excludes: &[&str], parents| {
            select(&root, &words(sources), &words(excludes), parents)
        };
        let paths = |selection: &Selection| -> Vec<String> {
            { selection.sources.iter() }
                .map(|source| source.source.display().to_string())
                .collect()
        };
        let one = select(&["./a/../1.txt"], &[], false).unwrap();
        assert_eq!((paths(&one), one.several), (words(&["/1.txt"]), false));
        let wild = select(&["*.txt"], &[], false).unwrap();
        assert_eq!(
            (paths(&wild), wild.several),
            (words(&["/1.txt", "/2.txt"]), true)
        );
        let out = select(&["../../1.txt"], &[], false).unwrap();
        assert_eq!(paths(&out), ["/1.txt"]);
        let excluded = select(&["a"], &["**/*.o", "c"], false).unwrap();
        let below: Vec<_> = excluded.sources[0]
            .found
            .iter()
            .map(|f| f.path.to_str().unwrap())
            .collect();
        assert_eq!(below, ["", "b", "b/3.txt"]);
        let some = select(&["*.txt"], &["2*"], false).unwrap();
        let found = { some.sources.iter() }.map(|source| source.found.len());
        assert_eq!(
            (found.collect::<Vec<_>>(), some.several),
            (vec![1, 0], false)
        );
        let kept = select(&["a/./**/*.txt"], &[], true).unwrap();
        assert_eq!(kept.sources[0].kept.as_deref(), Some(Path::new("b/3.txt")));
        let plain = select(&["/a/b/3.txt"], &[], true).unwrap();
        assert_eq!(
            plain.sources[0].kept.as_deref(),
            Some(Path::new("a/b/3.txt"))
        );
        let missing = select(&["none"], &[], false);
        assert!(matches!(missing, Err(Error::NotFound(_))));
        assert!(paths(&select(&["*.none"], &[], false).unwrap()).is_empty());
        assert!(is_pattern("a\\\\*") && !is_pattern("a\\*b\\\\"));
    }
}
