//! Platforms of images: `os[/arch[/variant]]`.

use crate::error::{Error, Result};
use crate::flags::Matches;
use oci::image::Platform;

/// What `--platform` says, or else the environment; empty without both.
pub(crate) fn wished(matches: &Matches) -> String {
    match matches.get("platform") {
        Some(platform) => platform.to_lowercase(),
        None => std::env::var("DOCKER_DEFAULT_PLATFORM")
            .unwrap_or_default()
            .to_lowercase(),
    }
}

/// A platform in the names that images use.
pub(crate) fn normal(text: &str) -> Result<Option<String>> {
    Ok(parse(text)?.map(|platform| {
        let mut parts = vec![platform.os, platform.architecture];
        parts.extend(platform.variant);
        parts.join("/")
    }))
}

/// A platform as the JSON that some operations take.
pub(crate) fn document(text: &str) -> Result<Option<String>> {
    Ok(parse(text)?.map(|platform| serde_json::to_string(&platform).expect("its keys are texts")))
}

fn parse(text: &str) -> Result<Option<Platform>> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse() {
        Ok(platform) => Ok(Some(platform)),
        Err(_) => Err(Error::msg(format!(
            "error parsing specified platform: {text:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_normalised() {
        for (text, expected) in [
            ("", None),
            ("arm64", Some("linux/arm64")),
            ("Linux/x86_64", Some("linux/amd64")),
            ("linux/arm/v7", Some("linux/arm/v7")),
        ] {
            assert_eq!(normal(text).unwrap().as_deref(), expected, "{text}");
        }
        for text in ["/", "linux/", "a/b/c/d", "li nux/amd64"] {
            assert!(normal(text).is_err(), "{text}");
        }
        assert_eq!(
            document("linux/arm64").unwrap().as_deref(),
            Some(r#"{"architecture":"arm64","os":"linux"}"#)
        );
    }
}
