//! Parser directives: comments at the very top that say how to read the rest.

use super::diagnostic::{Mistake, Position};
use std::collections::BTreeSet;

/// What the top of a Dockerfile says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the frontend it was written for. It is told, not fetched: this engine reads the language itself.
    pub syntax: Option<String>,
    /// `# escape=`: the character that continues lines, `\` or `` ` ``.
    pub escape: char,
    /// `# check=`: which rules of lint to leave out, and whether the others are errors.
    pub check: CheckDirective,
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            syntax: None,
            escape: '\\',
            check: CheckDirective::default(),
        }
    }
}

/// `# check=skip=RULE,RULE;error=true`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckDirective {
    /// Every rule is left out.
    pub skip_all: bool,
    /// Rules that are left out.
    pub skip: BTreeSet<String>,
    /// Experimental rules that are checked.
    pub experimental: BTreeSet<String>,
    /// Every experimental rule is checked.
    pub experimental_all: bool,
    /// What is found fails the build.
    pub error: bool,
}

impl CheckDirective {
    /// Reads `skip=A,B;error=true`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut check = Self::default();
        for part in text
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("invalid check directive {part:?}: it is key=value"))?;
            let rules = || value.split(',').map(|rule| rule.trim().to_owned());
            match key.trim() {
                "skip" if value.trim() == "all" => check.skip_all = true,
                "skip" => check.skip.extend(rules()),
                "experimental" if value.trim() == "all" => check.experimental_all = true,
                "experimental" => check.experimental.extend(rules()),
                "error" => {
                    check.error = match value.trim() {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        other => return Err(format!("invalid value {other:?} of check's error")),
                    }
                }
                other => return Err(format!("unknown option {other:?} of the check directive")),
            }
        }
        Ok(check)
    }

    /// What both ask for.
    pub fn merged(mut self, other: &Self) -> Self {
        self.skip_all |= other.skip_all;
        self.skip.extend(other.skip.iter().cloned());
        self.experimental_all |= other.experimental_all;
        self.experimental.extend(other.experimental.iter().cloned());
        self.error |= other.error;
        self
    }
}

/// Reads the directives of a text, without its byte order mark.
pub(crate) fn read(text: &str) -> Result<Directives, Mistake> {
    let mut directives = Directives::default();
    let mut seen = BTreeSet::new();
    for (at, line) in (1..).zip(text.lines()) {
        let Some((key, value)) = split(line) else {
            break;
        };
        let column = line.chars().take_while(|c| c.is_whitespace()).count();
        let position = Position {
            line: at,
            column: u32::try_from(column).unwrap_or(0) + 1,
        };
        let wrong = |message: String| Mistake::new(position, message);
        let key = key.to_ascii_lowercase();
        // Others are comments, and comments end the directives.
        if !matches!(key.as_str(), "syntax" | "escape" | "check") {
            break;
        }
        if !seen.insert(key.clone()) {
            return Err(wrong(format!(
                "only one {key} parser directive can be used"
            )));
        }
        match key.as_str() {
            "syntax" => directives.syntax = Some(value.to_owned()),
            "escape" => {
                directives.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        let message =
                            format!("invalid escape token '{other}' does not match ` or \\");
                        return Err(wrong(message));
                    }
                }
            }
            _ => directives.check = CheckDirective::parse(value).map_err(wrong)?,
        }
    }
    Ok(directives)
}

/// `# key = value`
fn split(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let named = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric());
    (named && !value.is_empty()).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_at_the_top_only() {
        let read = |text: &str| read(text).unwrap();
        let all = read("# syntax=docker/dockerfile:1\n#escape = `\n# check=skip=A,B;error=true\n");
        assert_eq!(all.syntax.as_deref(), Some("docker/dockerfile:1"));
        assert_eq!(all.escape, '`');
        assert!(all.check.error && all.check.skip.contains("B"));
        assert_eq!(read("# a comment\n# escape=`\n").escape, '\\');
        assert_eq!(read("\n# escape=`\n").escape, '\\');
        assert_eq!(read("FROM a\n# escape=`\n").escape, '\\');
        assert_eq!(read("# check=skip=all\n# ESCAPE=`\n").escape, '`');
        // What looks like one but is unknown is a comment.
        assert_eq!(read("# unknown=1\n# escape=`\n").escape, '\\');
        assert!(read("# check=skip=all").check.skip_all);
    }

    #[test]
    fn bad_directives_are_mistakes() {
        for bad in [
            "# escape=x",
            "# escape=\\\n# escape=`",
            "# syntax=a\n# syntax=b",
            "# check=foo",
            "# check=error=maybe",
        ] {
            read(bad).unwrap_err();
        }
    }
}
