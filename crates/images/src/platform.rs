//! Which of an index's images fits a platform.

use crate::records::ImageId;
use oci::image::{Descriptor, Platform};

/// This machine's platform, in Go's terms.
pub fn host_platform() -> Platform {
    "linux"
        .parse()
        .expect("a system alone means this machine's architecture")
}

/// As an architecture without a variant is understood.
fn variant(platform: &Platform) -> &str {
    let implied = match platform.architecture.as_str() {
        "arm64" => "v8",
        "arm" => "v7",
        "amd64" => "v1",
        _ => "",
    };
    match platform.variant.as_deref() {
        None | Some("") => implied,
        Some(variant) => variant,
    }
}

/// Whether an image's platform runs on a wanted one: an older variant of the same architecture does.
pub(crate) fn fits(found: &Platform, wanted: &Platform) -> bool {
    found.os == wanted.os
        && found.architecture == wanted.architecture
        && variant(found) <= variant(wanted)
}

/// What is best for a platform: the newest variant that runs there, the first of equal ones.
pub(crate) fn best<'a, T>(
    all: impl IntoIterator<Item = (&'a Platform, T)>,
    wanted: &Platform,
) -> Option<T> {
    let mut best: Option<(&str, T)> = None;
    for (platform, one) in all {
        let variant = variant(platform);
        let is_better = best.as_ref().is_none_or(|(known, _)| variant > *known);
        if fits(platform, wanted) && is_better {
            best = Some((variant, one));
        }
    }
    best.map(|(_, one)| one)
}

/// The image of an index for a platform.
pub fn choose<'a>(
    manifests: impl IntoIterator<Item = &'a Descriptor>,
    wanted: &Platform,
) -> Option<&'a Descriptor> {
    let manifests = manifests.into_iter();
    best(
        manifests.filter_map(|it| Some((it.platform.as_ref()?, it))),
        wanted,
    )
}

/// Images for several platforms as a name means them: each once, and first the one that is best for this machine.
pub(crate) fn ordered(images: &[(ImageId, Platform)]) -> Vec<ImageId> {
    let all = images.iter().map(|(id, platform)| (platform, *id));
    let first = best(all, &host_platform());
    let mut ordered: Vec<ImageId> = first.into_iter().collect();
    for (id, _) in images {
        if !ordered.contains(id) {
            ordered.push(*id);
        }
    }
    ordered
}

/// Attestations stand beside the images they speak of, for no platform.
pub(crate) fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor
        .annotations
        .contains_key("vnd.docker.reference.type")
        || descriptor
            .platform
            .as_ref()
            .is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
}

/// A platform as people write it: `linux/arm/v7`.
pub(crate) fn shown(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if let Some(variant) = platform.variant.as_deref().filter(|v| !v.is_empty()) {
        text.push('/');
        text.push_str(variant);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Digest;

    fn image(number: u8, platform: &str) -> Descriptor {
        let mut words = platform.split('/').map(str::to_owned);
        let mut descriptor = Descriptor::new("", Digest::Sha256([number; 32]), 0);
        descriptor.platform = Some(Platform {
            os: words.next().unwrap(),
            architecture: words.next().unwrap(),
            variant: words.next(),
            ..Platform::default()
        });
        descriptor
    }

    #[test]
    fn the_newest_variant_that_runs_is_taken() {
        let all = [
            "linux/arm/v5",
            "linux/arm/v7",
            "linux/arm64",
            "windows/amd64",
            "linux/arm/v6",
        ];
        let all: Vec<_> = (0..)
            .zip(all)
            .map(|(number, text)| image(number, text))
            .collect();
        let chosen = |wanted: &str| {
            let wanted = image(0, wanted).platform.unwrap();
            choose(&all, &wanted).map(|found| shown(found.platform.as_ref().unwrap()))
        };
        assert_eq!(chosen("linux/arm").as_deref(), Some("linux/arm/v7"));
        assert_eq!(chosen("linux/arm/v6").as_deref(), Some("linux/arm/v6"));
        assert_eq!(chosen("linux/arm64/v8").as_deref(), Some("linux/arm64"));
        assert_eq!(chosen("linux/amd64"), None);
    }
}
