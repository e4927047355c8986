//! `-v [source:]target[:options]`.

use crate::error::{Error, IoContext, Result};
use api_types::Empty;
use std::collections::BTreeMap;

/// What all `-v` say together.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    /// `source:target[:options]`: host paths and named volumes.
    pub(crate) binds: Vec<String>,
    /// Targets of anonymous volumes.
    pub(crate) anonymous: BTreeMap<String, Empty>,
}

impl Volumes {
    /// Reads all values, each once. A source that starts with a dot is relative to the working directory.
    pub(crate) fn parse(specs: &[String]) -> Result<Self> {
        let mut volumes = Self::default();
        for spec in specs {
            match has_source(spec).map_err(Error::Message)? {
                false => drop(volumes.anonymous.insert(spec.clone(), Empty {})),
                true => {
                    let bind = absolute_source(spec)?;
                    if !volumes.binds.contains(&bind) {
                        volumes.binds.push(bind);
                    }
                }
            }
        }
        Ok(volumes)
    }
}

/// Checks the sections between the colons, and tells whether the first is a source.
fn has_source(spec: &str) -> Result<bool, String> {
    if spec.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    let sections = spec.split(':').count();
    // One letter and a colon would be a drive on Windows; one or two characters are a target in any case.
    if sections == 1 || spec.len() <= 2 {
        return Ok(false);
    }
    if spec.split(':').any(str::is_empty) {
        return Err(format!(
            "invalid spec: {spec}: empty section between colons"
        ));
    }
    if sections > 3 {
        return Err(format!("invalid spec: {spec}: too many colons"));
    }
    Ok(true)
}

fn absolute_source(spec: &str) -> Result<String> {
    match spec.split_once(':') {
        Some((source, rest)) if source.starts_with('.') => {
            Ok(format!("{}:{rest}", absolute(source)?))
        }
        _ => Ok(spec.to_owned()),
    }
}

/// A path relative to the working directory as an absolute one, `.` and `..` taken away by name.
pub(crate) fn absolute(path: &str) -> Result<String> {
    let cwd = std::env::current_dir().during(|| "getcwd()")?;
    let joined = cwd.join(path);
    let joined = joined
        .to_str()
        .ok_or_else(|| Error::msg(format!("{path:?} is not UTF-8")))?;
    Ok(clean(joined))
}

/// Go's `path.Clean` for an absolute path.
pub(crate) fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_names_and_anonymous_volumes() {
        let specs: Vec<String> = [
            "/a:/b",
            "/a:/b",
            "name:/c:ro,z",
            "/anon",
            "./x/../y:/d",
            "~/x:/e",
        ]
        .map(str::to_owned)
        .to_vec();
        let volumes = Volumes::parse(&specs).unwrap();
        let here = std::env::current_dir().unwrap();
        let relative = format!("{}:/d", here.join("y").display());
        assert_eq!(
            volumes.binds,
            ["/a:/b", "name:/c:ro,z", &relative, "~/x:/e"]
        );
        assert_eq!(volumes.anonymous.into_keys().collect::<Vec<_>>(), ["/anon"]);
    }

    #[test]
    fn malformed_volumes_are_errors() {
        for spec in ["", "a::b", "/a:/b:ro:x", ":/a", "/a:/b:"] {
            assert!(Volumes::parse(&[spec.to_owned()]).is_err(), "{spec}");
        }
        assert!(Volumes::parse(&["/".to_owned()]).is_ok());
    }

    #[test]
    fn paths_are_cleaned_by_name() {
        assert_eq!(clean("/a//b/./../c/"), "/a/c");
        assert_eq!(clean("/../.."), "/");
    }
}
