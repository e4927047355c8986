//! What lines and messages tell of their container: labels, variables, and a tag.

use super::{Options, option};
use crate::error::{Error, Result};
use crate::model::{ImageSource, Spec};
use regex_lite::Regex;
use std::collections::BTreeMap;

/// How many digits a short id has.
const SHORT_ID_DIGITS: usize = 12;

/// What each line tells of its container.
pub(super) struct Attributes<'a> {
    labels: Vec<&'a str>,
    labels_regex: Option<Regex>,
    env: Vec<&'a str>,
    env_regex: Option<Regex>,
    tag: &'a str,
}

impl<'a> Attributes<'a> {
    pub(super) fn read(options: &'a Options) -> Result<Self> {
        let words = |name| {
            let words = option(options, name).split(',');
            words.filter(|word| !word.is_empty()).collect()
        };
        let regex = |name| match option(options, name) {
            "" => Ok(None),
            text => Regex::new(text)
                .map(Some)
                .map_err(|error| Error::invalid(format!("invalid value for {name}: {error}"))),
        };
        let tag = option(options, "tag");
        render_tag(tag, |_| Some(String::new()))?;
        Ok(Self {
            labels: words("labels"),
            labels_regex: regex("labels-regex")?,
            env: words("env"),
            env_regex: regex("env-regex")?,
            tag,
        })
    }

    /// As names and values.
    pub(super) fn of(&self, spec: &Spec, name: &str) -> BTreeMap<String, String> {
        let wanted = |list: &[&str], regex: &Option<Regex>, key: &str| {
            list.contains(&key) || regex.as_ref().is_some_and(|regex| regex.is_match(key))
        };
        let labels = spec.labels.iter();
        let labels = labels.filter(|(key, _)| wanted(&self.labels, &self.labels_regex, key));
        let mut attributes: BTreeMap<String, String> = labels
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let variables = spec.process.environment.iter();
        let variables = variables.filter_map(|variable| variable.split_once('='));
        for (key, value) in variables {
            if wanted(&self.env, &self.env_regex, key) {
                attributes.insert(key.to_owned(), value.to_owned());
            }
        }
        if !self.tag.is_empty() {
            attributes.insert("tag".to_owned(), self.tag_or_id(spec, name));
        }
        attributes
    }

    /// The tag, or the container's short id.
    pub(super) fn tag_or_id(&self, spec: &Spec, name: &str) -> String {
        let template = match self.tag {
            "" => "{{.ID}}",
            template => template,
        };
        // Read before: it has only fields that there are.
        render_tag(template, |field| tag_field(field, spec, name)).unwrap_or_default()
    }
}

fn short(id: &str) -> String {
    id.chars().take(SHORT_ID_DIGITS).collect()
}

fn tag_field(field: &str, spec: &Spec, name: &str) -> Option<String> {
    let image = match &spec.image {
        ImageSource::Image(id) => id.strip_prefix("sha256:").unwrap_or(id).to_owned(),
        ImageSource::Directory(path) => path.display().to_string(),
        ImageSource::Layers(_) => spec.image_reference.clone(),
    };
    Some(match field {
        "ID" => short(&spec.id),
        "FullID" => spec.id.clone(),
        "Name" => name.to_owned(),
        "ImageID" => short(&image),
        "ImageFullID" => image,
        "ImageName" => spec.image_reference.clone(),
        "DaemonName" => "docker".to_owned(),
        _ => return None,
    })
}

/// Fills in a tag's template: fields as `{{.Name}}`, and no more of Go's templates.
fn render_tag(template: &str, value: impl Fn(&str) -> Option<String>) -> Result<String> {
    const FIELDS: [&str; 7] = [
        "ID",
        "FullID",
        "Name",
        "ImageID",
        "ImageFullID",
        "ImageName",
        "DaemonName",
    ];
    let mut tag = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        tag.push_str(before);
        let (inside, behind) = after.split_once("}}").ok_or_else(|| {
            Error::invalid(format!("invalid log opt tag {template:?}: unclosed action"))
        })?;
        let field = inside.trim().strip_prefix('.');
        let known = field.filter(|field| FIELDS.contains(field));
        let found = known.and_then(&value).ok_or_else(|| {
            Error::invalid(format!(
                "invalid log opt tag {template:?}: {{{{{inside}}}}} is none of the fields .{}",
                FIELDS.join(", .")
            ))
        })?;
        tag.push_str(&found);
        rest = behind;
    }
    tag.push_str(rest);
    Ok(tag)
}

/// The fields of a container's journal entries, in Docker's names.
pub(super) fn journal_fields(
    spec: &Spec,
    name: &str,
    tag: String,
    attributes: &Attributes<'_>,
) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::from(
        [
            ("CONTAINER_ID", short(&spec.id)),
            ("CONTAINER_ID_FULL", spec.id.clone()),
            ("CONTAINER_NAME", name.to_owned()),
            ("CONTAINER_TAG", tag.clone()),
            ("IMAGE_NAME", spec.image_reference.clone()),
            ("SYSLOG_IDENTIFIER", tag),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    for (key, value) in attributes.of(spec, name) {
        if key != "tag" {
            fields.entry(journal_name(&key)).or_insert(value);
        }
    }
    // A name that has no letter is none.
    fields.remove("");
    fields
}

/// A field's name has capital letters, digits and underscores, of which none is the first.
fn journal_name(key: &str) -> String {
    let upper = key.to_ascii_uppercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = upper.chars().map(plain).collect();
    name.trim_start_matches(|c: char| c == '_' || c.is_ascii_digit())
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_fields_have_names_that_the_journal_takes() {
        assert_eq!(journal_name("com.example/tier-1"), "COM_EXAMPLE_TIER_1");
        assert_eq!(journal_name("__1x"), "X");
        assert_eq!(journal_name("9"), "");
    }
}
