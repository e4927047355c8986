//! `.dockerignore`: which files of a context are left out.
//!
//! Rules are read in their order; the last that matches a path, or a directory it is in, decides. Sources: the reference of
//! `docker build`, "Dockerignore files"; Go's `filepath.Match`.

use crate::Pattern;

/// Rules of one file.
pub const RULES_MAX: usize = 16384;
/// Bytes of one file.
pub const IGNORE_BYTES_MAX: usize = 1 << 20;

/// A rule that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A pattern that is none.
    #[error("line {line}: {pattern:?} is a malformed pattern")]
    Pattern {
        /// The line, from 1.
        line: usize,
        /// The pattern.
        pattern: String,
    },
    /// More than [`RULES_MAX`].
    #[error("it has more than {RULES_MAX} rules")]
    TooMany,
    /// A lone `!`.
    #[error("line {line}: '!' needs a pattern after it")]
    Exclamation {
        /// The line, from 1.
        line: usize,
    },
}

/// What a `.dockerignore` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    text: String,
    pattern: Pattern,
    keeps: bool,
}

impl Ignore {
    /// Reads the file.
    ///
    /// # Errors
    /// A pattern that is malformed, too many of them.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (line, written) in (1..).zip(text.lines()) {
            if written.starts_with('#') || written.trim().is_empty() {
                continue;
            }
            let (keeps, path) = match written.trim().strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, written.trim()),
            };
            if keeps && path.is_empty() {
                return Err(IgnoreError::Exclamation { line });
            }
            let path = clean(path);
            if path.is_empty() {
                continue;
            }
            let pattern = Pattern::new(&path, true).ok_or_else(|| IgnoreError::Pattern {
                line,
                pattern: path.clone(),
            })?;
            if rules.len() == RULES_MAX {
                return Err(IgnoreError::TooMany);
            }
            rules.push(Rule {
                text: path,
                pattern,
                keeps,
            });
        }
        Ok(Self { rules })
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether it keeps something that an earlier rule leaves out.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.keeps)
    }

    /// The rules in their order, cleaned, those that keep files with a `!` before them.
    pub fn rules(&self) -> impl Iterator<Item = String> {
        self.rules.iter().map(|rule| match rule.keeps {
            true => format!("!{}", rule.text),
            false => rule.text.clone(),
        })
    }

    /// Whether a path, relative to the context and without `.`, is left out.
    pub fn excludes(&self, path: &str) -> bool {
        let decides = |rule: &&Rule| rule.pattern.matches_or_holds(path);
        self.rules
            .iter()
            .rev()
            .find(decides)
            .is_some_and(|rule| !rule.keeps)
    }

    /// Whether a directory is left out with all that may be in it, so that nobody needs to look.
    pub fn excludes_all_of(&self, directory: &str) -> bool {
        self.excludes(directory)
            && !{ self.rules.iter() }
                .any(|rule| rule.keeps && rule.pattern.may_match_below(directory))
    }
}

/// A pattern as a path: without `.` and empty components, `..` resolved, and never leading upwards. Of the root nothing is left.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn excluded(rules: &str, paths: &[&str]) -> Vec<bool> {
        let ignore = Ignore::parse(rules).unwrap();
        paths.iter().map(|path| ignore.excludes(path)).collect()
    }

    #[test]
    fn rules_decide_in_their_order() {
        assert_eq!(
            excluded(
                "# c\n\n*.md\n!README.md\n",
                &["a.md", "README.md", "d/a.md", "x"]
            ),
            [true, false, false, false]
        );
        assert_eq!(
            excluded("README.md\n!README.md\nREADME.md", &["README.md"]),
            [true]
        );
        assert_eq!(
            excluded("**/*.o", &["a.o", "d/e/a.o", "a.c"]),
            [true, true, false]
        );
        assert_eq!(
            excluded("/dir/", &["dir", "dir/a", "x/dir"]),
            [true, true, false]
        );
        assert_eq!(
            excluded("dir\n!dir/keep", &["dir/a", "dir/keep/x", "dir"]),
            [true, false, true]
        );
        assert_eq!(excluded("./a/../b", &["a", "b"]), [false, true]);
        assert_eq!(
            excluded("*\n!src", &["a", "src", "src/x/y"]),
            [true, false, false]
        );
        assert_eq!(excluded(" a \n! b", &["a", "b"]), [true, false]);
        assert_eq!(excluded("/\n.", &["a"]), [false]);
        assert_eq!(excluded("a/*/c", &["a/b/c", "a/c"]), [true, false]);
        assert_eq!(
            excluded("temp?", &["temp1", "temp", "temp12"]),
            [true, false, false]
        );
    }

    #[test]
    fn directories_are_skipped_where_nothing_in_them_is_kept() {
        let skips = |rules: &str, path: &str| Ignore::parse(rules).unwrap().excludes_all_of(path);
        assert!(skips("node_modules", "node_modules"));
        assert!(!skips("*\n!a/b", "a"));
        assert!(skips("*\n!a/b", "c"));
        assert!(!skips("*\n!**/*.rs", "c"));
        assert!(!skips("b", "a"));
    }

    #[test]
    fn bad_rules_are_told() {
        let error = Ignore::parse("a\n[").unwrap_err();
        assert_eq!(error.to_string(), "line 2: \"[\" is a malformed pattern");
        Ignore::parse("!").unwrap_err();
        Ignore::parse(&"a\n".repeat(RULES_MAX + 1)).unwrap_err();
    }

    proptest! {
        /// Skipping a directory never changes what becomes of a path in it.
        #[test]
        fn skipping_is_no_decision(
            rules in proptest::collection::vec("!?[ab*?/]{1,6}", 0..6),
            path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
        ) {
            let ignore = Ignore::parse(&rules.join("\n"));
            prop_assume!(ignore.is_ok());
            let ignore = ignore.unwrap();
            for (at, _) in path.match_indices('/') {
                if ignore.excludes_all_of(&path[..at]) {
                    prop_assert!(ignore.excludes(&path), "{} is in {}", path, &path[..at]);
                }
            }
        }

        /// A pattern without special characters excludes its path, what is below, and nothing else.
        #[test]
        fn plain_patterns_are_paths(pattern in "[a-c]{1,2}(/[a-c]{1,2}){0,2}", path in "[a-c]{1,2}(/[a-c]{1,2}){0,3}") {
            let ignore = Ignore::parse(&pattern).unwrap();
            let below = path == pattern || path.starts_with(&format!("{pattern}/"));
            prop_assert_eq!(ignore.excludes(&path), below);
        }
    }
}
