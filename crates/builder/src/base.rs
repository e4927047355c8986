//! Images that a build stands on or takes files from: by name, here or at their registries, for a platform.
//!
//! Invariant: the layers of an image that was found are held until the build's end.

use crate::build::Build;
use crate::error::{Doing, Error, Result};
use crate::output::purl;
use crate::request::NamedContext;
use images::{Image, ImageId};
use oci::Reference;
use oci::image::Platform;
use std::borrow::Cow;

/// Digits that the start of an ID has at least, as lists show it. What has less is a name: `FROM 0` means no image of the engine
/// whose ID happens to begin so.
const ID_DIGITS_MIN: usize = 12;

/// What the engine's images are looked up by for a name in a Dockerfile.
pub(crate) fn sought(name: &str) -> Cow<'_, str> {
    let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let is_start = name.len() < ID_DIGITS_MIN && name.bytes().all(is_hex);
    match name.parse::<Reference>() {
        Ok(reference) if is_start => reference.to_string().into(),
        _ => name.into(),
    }
}

impl Build<'_> {
    /// An image by its name, pulled where it is not here, with its layers held.
    pub(crate) fn image(&self, name: &str, platform: Option<Platform>) -> Result<Image> {
        let (name, image) = match self.request.contexts.get(name) {
            Some(NamedContext::Layout(layout)) => {
                let platform = platform.as_ref().unwrap_or(&self.definition.platform);
                (name, self.layout_image(layout, platform)?)
            }
            Some(NamedContext::Image(image)) => (image.as_str(), self.found(image, platform)?),
            _ => (name, self.found(name, platform)?),
        };
        let digest = image
            .digests
            .iter()
            .find_map(|named| named.digest().copied());
        let digest = digest.unwrap_or(image.record.manifest);
        self.note_material(purl(name, &image.config.platform), &digest);
        let hold = self.images.hold(image.layers());
        self.keep_held(hold.doing(|| format!("use the image {name}"))?);
        Ok(image)
    }

    /// An image by the name that it has here, or at its registry.
    fn found(&self, name: &str, platform: Option<Platform>) -> Result<Image> {
        let here = self.images.get(&sought(name));
        let missing = matches!(&here, Err(error) if error.kind() == images::ErrorKind::NotFound);
        let is_id = name.starts_with("sha256:");
        let doing = || format!("find the image {name}");
        let runs_on = |image: &Image, wanted: &Platform| {
            let found = &image.config.platform;
            wanted.os == found.os && wanted.architecture == found.architecture
        };
        let fits = |image: &Image| {
            platform
                .as_ref()
                .is_none_or(|wanted| runs_on(image, wanted))
        };
        match here {
            Ok(image) if !fits(&image) => self.other_image(name, &image, platform),
            Ok(image) if !self.request.pull || is_id => Ok(image),
            Err(error) if !missing => Err(error).doing(doing),
            // What a name means here is for this machine.
            _ => {
                let host = images::host_platform();
                let named = platform
                    .as_ref()
                    .is_none_or(|wanted| wanted.architecture == host.architecture);
                let id = self.pull(name, platform.clone(), named)?;
                let image = self.images.get(&id.to_string()).doing(doing)?;
                match platform {
                    Some(wanted) if !runs_on(&image, &wanted) => {
                        Err(mismatch(name, &image, &wanted))
                    }
                    _ => Ok(image),
                }
            }
        }
    }

    /// An image for another platform than the one that has its name here.
    fn other_image(&self, name: &str, here: &Image, platform: Option<Platform>) -> Result<Image> {
        let wanted = platform.unwrap_or_else(images::host_platform);
        let runs_on = |image: &Image| image.config.platform.architecture == wanted.architecture;
        if !self.request.pull
            && let Ok(image) = self.images.get_for(&sought(name), Some(&wanted))
            && runs_on(&image)
        {
            return Ok(image);
        }
        if name.starts_with("sha256:") {
            return Err(mismatch(name, here, &wanted));
        }
        let pulled = self.pull(name, Some(wanted.clone()), false);
        let id = pulled.map_err(|error| match error {
            Error::Cancelled => error,
            error => Error::NotFound(format!(
                "{}: {}",
                mismatch(name, here, &wanted),
                error.chain()
            )),
        })?;
        let image = self.images.get(&id.to_string());
        let image = image.doing(|| format!("find the image {name}"))?;
        match runs_on(&image) {
            true => Ok(image),
            false => Err(mismatch(name, &image, &wanted)),
        }
    }

    /// Pulls an image; with `named`, the name means it here from then on.
    fn pull(&self, name: &str, platform: Option<Platform>, named: bool) -> Result<ImageId> {
        let invalid = |error: oci::reference::ReferenceError| {
            Error::Invalid(format!("invalid reference format: {name:?}: {error}"))
        };
        let reference: Reference = name.parse().map_err(invalid)?;
        let credentials = self.request.client.credentials(reference.domain())?;
        let _runtime = self.handle.enter();
        let stop = self.request.stop.clone();
        let reference = reference.to_target();
        let pulled = match named {
            true => self
                .engine
                .pull(&reference, platform, credentials, stop, &|_, _| {}),
            false => self
                .engine
                .pull_nameless(&reference, platform, credentials, stop),
        };
        pulled
            .map(|pulled| pulled.id)
            .doing(|| format!("pull {name}"))
    }
}

fn mismatch(name: &str, found: &Image, wanted: &Platform) -> Error {
    let found = &found.config.platform;
    Error::NotFound(format!(
        "image {name} was found but does not match the specified platform: wanted {wanted}, actual: {found}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digit_is_a_name_and_no_start_of_an_id() {
        for (name, expected) in [
            ("0", "docker.io/library/0"),
            ("cafe", "docker.io/library/cafe"),
            ("0123456789ab", "0123456789ab"),
            ("busybox", "busybox"),
            ("sha256:0", "sha256:0"),
        ] {
            assert_eq!(sought(name), expected);
        }
    }
}
