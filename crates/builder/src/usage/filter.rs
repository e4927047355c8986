//! Filters of what builds have left, in both of their forms: BuildKit's expressions, and Docker's names with values.
//!
//! Source: containerd `pkg/filters` (the expressions), moby/buildkit `cache/manager.go` (the fields).

use super::Usage;
use crate::error::{Error, Result};
use regex_lite::Regex;

/// Bytes of a filter.
const FILTER_BYTES_MAX: usize = 64 << 10;

/// Which of what builds have left are meant. The default means all.
#[derive(Debug, Clone, Default)]
pub struct UsageFilter {
    /// One of these is met, and of it all conditions; where there is none, everything is.
    any: Vec<Vec<Condition>>,
}

#[derive(Debug, Clone)]
struct Condition {
    field: Field,
    test: Test,
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Parents,
    Description,
    Type,
    InUse,
    Mutable,
    Immutable,
    Shared,
    Private,
}

const FIELDS: [(&str, Field); 10] = [
    ("id", Field::Id),
    ("parents", Field::Parents),
    ("parent", Field::Parents),
    ("description", Field::Description),
    ("type", Field::Type),
    ("inuse", Field::InUse),
    ("mutable", Field::Mutable),
    ("immutable", Field::Immutable),
    ("shared", Field::Shared),
    ("private", Field::Private),
];

#[derive(Debug, Clone)]
enum Test {
    Present,
    Equals(String),
    Differs(String),
    Matches(Regex),
}

/// A field as it is: a text, or whether something is so.
enum Value {
    Text(String),
    Flag(bool),
}

impl UsageFilter {
    /// Reads expressions such as `type==regular,description~=RUN`; an item is meant that meets one of them.
    ///
    /// # Errors
    /// One that cannot be read, or names another field.
    pub fn parse(expressions: &[String]) -> Result<Self> {
        let any = expressions.iter().map(|text| expression(text));
        let any = any.collect::<Result<Vec<_>>>()?;
        // An empty expression is met by everything.
        match any.iter().any(Vec::is_empty) {
            true => Ok(Self::default()),
            false => Ok(Self { any }),
        }
    }

    /// Of names with values, all of which are to be met. A name may end with `~` or `!`: the value is a pattern, or is not to be there.
    ///
    /// # Errors
    /// A value that the field cannot have.
    pub fn of<'p>(pairs: impl Iterator<Item = (&'p str, &'p str)>) -> Result<Self> {
        let all = pairs.map(|(name, value)| match name.strip_suffix(['~', '!']) {
            Some(field) if name.ends_with('~') => condition(field, "~=", value),
            Some(field) => condition(field, "!=", value),
            None if name == "id" => condition(name, "~=", value),
            None => condition(name, "==", value),
        });
        let all = all.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            any: Some(all)
                .filter(|all| !all.is_empty())
                .into_iter()
                .collect(),
        })
    }

    /// The names that [`UsageFilter::of`] takes.
    pub fn names() -> impl Iterator<Item = String> {
        let names = FIELDS.iter().map(|(name, _)| name);
        names.flat_map(|name| ["", "~", "!"].map(|end| format!("{name}{end}")))
    }

    pub(super) fn meets(&self, item: &Usage) -> bool {
        self.any.is_empty()
            || self
                .any
                .iter()
                .any(|all| all.iter().all(|it| it.meets(item)))
    }

    /// Leaves out of a list what is not meant.
    pub fn apply(&self, all: &mut Vec<Usage>) {
        all.retain(|item| self.meets(item));
    }
}

fn bad(text: &str, what: &str) -> Error {
    Error::Invalid(format!("invalid filter '{text}': {what}"))
}

/// Conditions separated by commas.
fn expression(text: &str) -> Result<Vec<Condition>> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(bad("…", "it is too long"));
    }
    let mut all = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let operators = ["==", "!=", "~=", "="];
        let operator = operators
            .iter()
            .find(|operator| behind.starts_with(**operator));
        let (value, behind) = match operator {
            None => (String::new(), behind),
            Some(operator) => value(text, &behind[operator.len()..])?,
        };
        all.push(condition(
            name,
            operator.copied().unwrap_or_default(),
            &value,
        )?);
        rest = match (behind, behind.strip_prefix(',')) {
            ("", _) => "",
            (_, Some(next)) if !next.is_empty() => next,
            _ => return Err(bad(text, &format!("it cannot be read at {behind:?}"))),
        };
    }
    Ok(all)
}

/// A value that may be quoted, and what is behind it.
fn value<'t>(text: &str, behind: &'t str) -> Result<(String, &'t str)> {
    let Some(quote) = behind.chars().next().filter(|c| "\"'/|".contains(*c)) else {
        let end = behind.find(',').unwrap_or(behind.len());
        return Ok((behind[..end].to_owned(), &behind[end..]));
    };
    let mut value = String::new();
    let mut characters = behind.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, next)) if next == quote || next == '\\' => value.push(next),
                Some((_, next)) => value.extend(['\\', next]),
                None => break,
            },
            end if end == quote => return Ok((value, &behind[at + end.len_utf8()..])),
            character => value.push(character),
        }
    }
    Err(bad(text, "its quotes do not end"))
}

fn condition(name: &str, operator: &str, value: &str) -> Result<Condition> {
    let whole = || format!("{name}{operator}{value}");
    let known = FIELDS.iter().find(|(known, _)| *known == name);
    let (_, field) = known.ok_or_else(|| bad(&whole(), "there is no such field"))?;
    let is_text = matches!(
        field,
        Field::Id | Field::Parents | Field::Description | Field::Type
    );
    if !is_text && truth(value).is_none() {
        return Err(bad(&whole(), "it is true or false"));
    }
    let test = match operator {
        "" => Test::Present,
        "!=" => Test::Differs(value.to_owned()),
        "~=" if is_text => {
            let pattern = Regex::new(value);
            Test::Matches(pattern.map_err(|error| bad(&whole(), &error.to_string()))?)
        }
        _ => Test::Equals(value.to_owned()),
    };
    Ok(Condition {
        field: *field,
        test,
    })
}

/// What a value means for what is so or not; nothing said means that it is.
fn truth(value: &str) -> Option<bool> {
    match value {
        "" | "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

impl Condition {
    fn meets(&self, item: &Usage) -> bool {
        let value = match self.field {
            Field::Id => Value::Text(item.id.clone()),
            Field::Parents => Value::Text(item.parents.join(";")),
            Field::Description => Value::Text(item.description.clone()),
            Field::Type => Value::Text(item.kind.name().to_owned()),
            Field::InUse => Value::Flag(item.in_use),
            Field::Mutable => Value::Flag(item.is_mutable()),
            Field::Immutable => Value::Flag(!item.is_mutable()),
            Field::Shared => Value::Flag(item.shared),
            Field::Private => Value::Flag(!item.shared),
        };
        match (&self.test, value) {
            (Test::Present, Value::Flag(is_so)) => is_so,
            (Test::Present, Value::Text(text)) => !text.is_empty(),
            (Test::Equals(wanted), Value::Flag(is_so)) => truth(wanted) == Some(is_so),
            (Test::Equals(wanted), Value::Text(text)) => text == *wanted,
            (Test::Differs(other), Value::Flag(is_so)) => truth(other) != Some(is_so),
            (Test::Differs(other), Value::Text(text)) => text != *other,
            // What is so or not has no pattern.
            (Test::Matches(_), Value::Flag(_)) => false,
            (Test::Matches(pattern), Value::Text(text)) => pattern.is_match(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::UsageKind;
    use super::*;

    fn item() -> Usage {
        Usage {
            id: "0123abcd".to_owned(),
            parents: vec!["ffff".to_owned()],
            description: "RUN make, and go".to_owned(),
            kind: UsageKind::Result,
            created: String::new(),
            used_s: 0,
            uses: 0,
            bytes: 0,
            shared: true,
            in_use: false,
        }
    }

    #[test]
    fn expressions_are_met_as_a_whole() {
        let meets = |text: &[&str]| {
            let text: Vec<String> = text.iter().map(|it| (*it).to_owned()).collect();
            UsageFilter::parse(&text).unwrap().meets(&item())
        };
        for met in [
            "",
            "id~=^0123",
            "id==0123abcd",
            "shared",
            "shared==true,private==false",
            "inuse==0",
            "inuse!=1",
            "immutable,type==regular,parents~=ff",
            "description~=make",
            "description==\"RUN make, and go\"",
            "description~=/^RUN make,/,id~=d$",
            "type!=source.local",
        ] {
            assert!(meets(&[met]), "{met}");
        }
        for unmet in [
            "id==0123",
            "private",
            "mutable",
            "inuse",
            "type==regular,id==x",
        ] {
            assert!(!meets(&[unmet]), "{unmet}");
            assert!(meets(&[unmet, "shared"]), "{unmet}");
        }
        assert!(meets(&[]));
    }

    #[test]
    fn names_with_values_are_all_met() {
        let meets = |pairs: &[(&str, &str)]| {
            UsageFilter::of(pairs.iter().copied())
                .unwrap()
                .meets(&item())
        };
        assert!(meets(&[]));
        assert!(meets(&[("id", "123a"), ("shared", "")]));
        assert!(meets(&[("description~", "^RUN"), ("type!", "internal")]));
        assert!(!meets(&[("id", "123a"), ("inuse", "true")]));
        assert!(!meets(&[("description", "RUN")]));
        assert!(UsageFilter::names().any(|name| name == "description~"));
    }

    #[test]
    fn what_cannot_be_met_is_told() {
        for (text, what) in [
            ("size==1", "no such field"),
            ("shared==maybe", "true or false"),
            ("id~=(", "id~=("),
            ("id==\"x", "quotes"),
            ("id,", "cannot be read"),
            ("id>1", "cannot be read"),
            ("==1", "no such field"),
        ] {
            let error = UsageFilter::parse(&[text.to_owned()]).unwrap_err();
            assert!(error.to_string().contains(what), "{text}: {error}");
        }
    }
}
