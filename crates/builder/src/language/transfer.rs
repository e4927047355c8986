//! COPY and ADD.

use super::heredoc::{Heredoc, announced};
use super::options::{Arguments, Parsed, Wrong};

/// What COPY and ADD bring, from where, and how. Words still have their variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Stage, image or named context; the context without.
    pub from: Option<String>,
    /// Paths, patterns and, for ADD, addresses.
    pub sources: Vec<String>,
    /// Files that are written in the Dockerfile itself.
    pub documents: Vec<Heredoc>,
    /// Where it goes.
    pub target: String,
    /// `user[:group]`, by name or number.
    pub chown: Option<String>,
    /// Octal, or as chmod(1) has it.
    pub chmod: Option<String>,
    /// The layer does not depend on what is below it.
    pub link: bool,
    /// Sources keep their directories, from `/./` on where they have that.
    pub parents: bool,
    /// Patterns of what is left out.
    pub excludes: Vec<String>,
    /// ADD: the digest of what an address has.
    pub checksum: Option<String>,
    /// ADD: whether archives are unpacked; by default those of the context are, those of addresses are not.
    pub unpack: Option<bool>,
    /// ADD: a repository keeps its `.git`.
    pub keep_git_dir: bool,
}

const COPY: &[&str] = &["from", "chown", "chmod", "link", "parents"];
const ADD: &[&str] = &[
    "chown",
    "chmod",
    "link",
    "checksum",
    "unpack",
    "keep-git-dir",
];

pub(crate) fn parse(arguments: &Arguments<'_>) -> Parsed<Transfer> {
    let add = arguments.word == "ADD";
    arguments.check_flags(if add { ADD } else { COPY }, &["exclude"])?;
    let word = &arguments.word;
    let mut words = match arguments.json()? {
        Some(words) => words,
        None => arguments.fields(),
    };
    if words.len() < 2 {
        let message = format!(
            "{word} requires at least two arguments, but only {} was provided. Destination could not be determined",
            words.len()
        );
        return Err(arguments.wrong(message));
    }
    let target = words.pop().expect("there are two");
    let documents = arguments.line.heredocs.clone();
    if !documents.is_empty() {
        if !announced(&target).is_empty() {
            return Err(arguments.wrong(format!("{word} cannot accept a heredoc as a destination")));
        }
        words.retain(|word| announced(word).is_empty());
    }
    let excludes = arguments.values("exclude")?;
    // One that is empty is the context.
    let from = arguments.value("from")?.filter(|from| !from.is_empty());
    let transfer = Transfer {
        from,
        sources: words,
        documents,
        target,
        chown: arguments.value("chown")?,
        chmod: arguments.value("chmod")?,
        link: arguments.switch("link")?.unwrap_or(false),
        parents: arguments.switch("parents")?.unwrap_or(false),
        excludes: excludes.into_iter().map(|(value, _)| value).collect(),
        checksum: arguments.value("checksum")?,
        unpack: arguments.switch("unpack")?,
        keep_git_dir: arguments.switch("keep-git-dir")?.unwrap_or(false),
    };
    if let Some(from) = transfer.from.as_deref().filter(|from| from.contains('$')) {
        let message = format!(
            "'--from' doesn't support variable expansion: {from:?}; define a new stage with FROM instead"
        );
        return Err(Wrong::at(arguments.offset, message));
    }
    Ok(transfer)
}
