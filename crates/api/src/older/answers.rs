//! Answers as older versions give them.

use super::Undo;
use crate::version::Version;
use crate::wire::NEVER;
use api_types as types;

/// `GET /containers/json`.
pub(crate) const CONTAINERS: &[Undo<types::ContainerSummary>] = &[
    (Version::of(46), |container| {
        container.host_config.annotations.clear()
    }),
    (Version::of(48), |container| {
        container.image_manifest_descriptor = None
    }),
];

/// `GET /containers/{id}/json`.
pub(crate) const CONTAINER: &[Undo<types::InspectResponse>] = &[
    (Version::of(45), names_among_aliases),
    (Version::of(48), |container| {
        container.image_manifest_descriptor = None
    }),
];

/// `GET /images/json`.
pub(crate) const IMAGES: &[Undo<types::ImageSummary>] = &[
    (Version::of(43), |image| {
        if image.repo_tags.is_empty() && image.repo_digests.is_empty() {
            image.repo_tags = vec!["<none>:<none>".to_owned()];
            image.repo_digests = vec!["<none>@<none>".to_owned()];
        }
    }),
    (Version::of(44), |image| image.virtual_size = image.size),
    (Version::of(48), |image| image.descriptor = None),
    (Version::of(51), |image| image.containers = -1),
];

/// `GET /images/{name}/json`.
pub(crate) const IMAGE: &[Undo<types::ImageInspect>] = &[
    (Version::of(44), |image| {
        image.virtual_size = image.size;
        if image.created.is_empty() {
            NEVER.clone_into(&mut image.created);
        }
    }),
    (Version::of(48), |image| image.descriptor = None),
    (Version::of(50), fields_of_containers),
];

/// `GET /info`.
pub(crate) const INFO: &[Undo<types::Info>] = &[
    (Version::of(25), |info| {
        for option in info.security_options.iter_mut().flatten() {
            let name = option
                .split(',')
                .find_map(|pair| pair.strip_prefix("name="));
            *option = name.unwrap_or(option).to_owned();
        }
    }),
    (Version::of(39), |info| {
        for text in [&mut info.kernel_version, &mut info.operating_system] {
            if text.is_empty() {
                "<unknown>".clone_into(text);
            }
        }
    }),
    (Version::of(44), |info| {
        info.runtimes
            .values_mut()
            .for_each(|runtime| runtime.status.clear());
    }),
    (Version::of(46), |info| info.containerd = None),
    (Version::of(47), |info| {
        if let Some(registries) = &mut info.registry_config {
            registries.allow_nondistributable_artifacts_cidrs = Some(Vec::new());
            registries.allow_nondistributable_artifacts_hostnames = Some(Vec::new());
        }
    }),
    (Version::of(49), |info| {
        info.firewall_backend = None;
        for commit in [
            &mut info.containerd_commit,
            &mut info.runc_commit,
            &mut info.init_commit,
        ] {
            commit.expected.clone_from(&commit.id);
        }
    }),
    (Version::of(50), |info| {
        info.discovered_devices.clear();
        info.bridge_nf_iptables = Some(false);
        info.bridge_nf_ip6tables = Some(false);
    }),
];

/// `GET /system/df`.
pub(crate) const DISK_USAGE: &[Undo<types::DiskUsage>] = &[
    (Version::of(42), |usage| {
        let records = usage.build_cache.iter_mut().flatten();
        records.for_each(|record| record.parents.clear());
        let private = usage
            .build_cache
            .iter()
            .flatten()
            .filter(|record| !record.shared);
        usage.builder_size = private.map(|record| record.size).sum();
    }),
    (Version::of(44), |usage| {
        for image in usage.images.iter_mut().flatten() {
            image.virtual_size = image.size;
        }
    }),
];

/// A container's id and host name were aliases of it on networks of one's own; they are names now.
fn names_among_aliases(container: &mut types::InspectResponse) {
    let own = [
        container.id.chars().take(12).collect(),
        container.config.hostname.clone(),
    ];
    let networks = container.network_settings.networks.iter_mut().flatten();
    let made = networks
        .filter(|(name, _)| !matches!(name.as_str(), "bridge" | "default" | "host" | "none"));
    for (_, endpoint) in made {
        let aliases = endpoint.aliases.get_or_insert_default();
        for name in &own {
            if !aliases.contains(name) {
                aliases.push(name.clone());
            }
        }
    }
}

/// An image's configuration had the fields of a container's, too, which say nothing.
fn fields_of_containers(image: &mut types::ImageInspect) {
    let Some(config) = &mut image.config else {
        return;
    };
    for text in [
        &mut config.hostname,
        &mut config.domainname,
        &mut config.image,
    ] {
        *text = Some(String::new());
    }
    for flag in [
        &mut config.attach_stdin,
        &mut config.attach_stdout,
        &mut config.attach_stderr,
        &mut config.tty,
        &mut config.open_stdin,
        &mut config.stdin_once,
    ] {
        *flag = Some(false);
    }
}
