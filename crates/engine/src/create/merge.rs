//! The image's configuration and a request merged into a container's specification.

use crate::error::{Error, Result};
use crate::health::Check;
use crate::ids;
use crate::model::{
    CreateRequest, ImageSource, Mount, MountForm, MountSource, Port, ProcessSpec, Protocol,
    SPEC_VERSION, Spec,
};
use jiff::Timestamp;
use oci::image::Config as ImageConfig;
use std::collections::BTreeMap;
use std::path::Path;

/// Merges the image's configuration into the request.
pub(super) fn merge(
    request: CreateRequest,
    image: ImageSource,
    config: ImageConfig,
) -> Result<Spec> {
    let mut network = request.network;
    for port in &config.exposed_ports {
        let port = parse_port(port)?;
        if !network.exposed.contains(&port) {
            network.exposed.push(port);
        }
    }
    network.exposed.sort_unstable();
    network.exposed.dedup();
    let mut mounts = request.mounts;
    for target in request.volumes.iter().chain(&config.volumes) {
        if mounts.iter().all(|mount| !same_path(&mount.target, target)) {
            mounts.push(anonymous_volume(target)?);
        }
    }
    check_mounts(&mounts)?;
    for line in &network.extra_hosts {
        crate::etc::check_extra_host(line)?;
    }
    let mut labels = config.labels.clone();
    labels.extend(request.labels);
    let mut lifecycle = request.lifecycle;
    if lifecycle.stop_signal.is_none() && !config.stop_signal.is_empty() {
        lifecycle.stop_signal = Some(config.stop_signal.clone());
    }
    let health = Check::merge(request.health, &config)?;
    Ok(Spec {
        version: SPEC_VERSION,
        id: ids::random_id()?,
        created: Timestamp::now(),
        image_reference: request.image,
        image,
        process: merge_process(request.entrypoint, request.command, request.process, config),
        isolation: request.isolation,
        limits: request.limits,
        mounts,
        network,
        lifecycle,
        log: request.log,
        labels,
        annotations: request.annotations,
        health,
        volumes_from: request.volumes_from,
        storage: request.storage,
        echo: request.echo,
    })
}

fn merge_process(
    entrypoint: Option<Vec<String>>,
    command: Option<Vec<String>>,
    process: ProcessSpec,
    config: ImageConfig,
) -> ProcessSpec {
    // The image's command is made for the image's entrypoint: another entrypoint goes without it.
    let inherits = entrypoint.is_none();
    let entrypoint = entrypoint.unwrap_or_else(|| config.entrypoint.unwrap_or_default());
    let entrypoint = if entrypoint.iter().all(String::is_empty) {
        Vec::new()
    } else {
        entrypoint
    };
    let command = command.filter(|command| !command.is_empty());
    let command = command.unwrap_or_else(|| {
        if inherits {
            config.cmd.unwrap_or_default()
        } else {
            Vec::new()
        }
    });
    let or = |own: String, image: String| if own.is_empty() { image } else { own };
    ProcessSpec {
        entrypoint,
        command,
        environment: inherit_environment(&config.env, process.environment),
        working_dir: or(process.working_dir, config.working_dir),
        user: or(process.user, config.user),
        ..process
    }
}

/// The request's variables, and those of the image that it has not. A name without a value stays, and keeps the variable away
/// when the process is made.
fn inherit_environment(image: &[String], own: Vec<String>) -> Vec<String> {
    fn name(variable: &str) -> &str {
        variable.split('=').next().unwrap_or_default()
    }
    let mut all: Vec<String> = { image.iter() }
        .filter(|variable| !own.iter().any(|other| name(other) == name(variable)))
        .cloned()
        .collect();
    all.extend(own);
    all
}

fn parse_port(text: &str) -> Result<Port> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = Protocol::parse(protocol).ok_or_else(|| {
        Error::invalid(format!(
            "the image exposes port {text}: there is no protocol {protocol:?}"
        ))
    })?;
    let number = number.parse().ok().filter(|number| *number > 0);
    let number = number
        .ok_or_else(|| Error::invalid(format!("the image exposes port {text:?}, which is none")))?;
    Ok(Port { number, protocol })
}

fn anonymous_volume(target: &str) -> Result<Mount> {
    let source = MountSource::Volume {
        name: ids::random_id()?,
        anonymous: true,
        no_copy: false,
        subpath: String::new(),
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        mode: String::new(),
    };
    Ok(Mount {
        target: target.to_owned(),
        source,
        read_only: false,
        form: MountForm::Inherited,
    })
}

pub(super) fn same_path(a: &str, b: &str) -> bool {
    Path::new(a).components().eq(Path::new(b).components())
}

fn check_mounts(mounts: &[Mount]) -> Result<()> {
    for (at, mount) in mounts.iter().enumerate() {
        let target = Path::new(&mount.target);
        if !target.is_absolute() {
            return Err(Error::invalid(format!(
                "invalid mount path: '{}' mount path must be absolute",
                mount.target
            )));
        }
        if let MountSource::Secret(secret) = &mount.source
            && (!secret.path.is_absolute() || secret.mode & !0o777 != 0)
        {
            return Err(Error::invalid(format!(
                "invalid secret at {}: its source is an absolute path, its mode at most 0777",
                mount.target
            )));
        }
        if let MountSource::Volume { subpath, .. } = &mount.source {
            crate::mounts::relative(subpath)?;
        }
        if target.components().eq(Path::new("/").components()) {
            return Err(Error::invalid(
                "invalid specification: destination can't be '/'",
            ));
        }
        if mounts[..at]
            .iter()
            .any(|other| same_path(&other.target, &mount.target))
        {
            return Err(Error::invalid(format!(
                "Duplicate mount point: {}",
                mount.target
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn entrypoint_and_command_merge_as_docker_does() {
        let image = || ImageConfig {
            entrypoint: Some(words("entry")),
            cmd: Some(words("cmd")),
            ..Default::default()
        };
        let merged = |entrypoint: Option<&str>, command: Option<&str>| {
            let process = merge_process(
                entrypoint.map(words),
                command.map(words),
                ProcessSpec::default(),
                image(),
            );
            process
                .entrypoint
                .into_iter()
                .chain(process.command)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(merged(None, None), "entry cmd");
        assert_eq!(merged(None, Some("own args")), "entry own args");
        assert_eq!(merged(Some("other"), None), "other");
        assert_eq!(merged(Some("other"), Some("x")), "other x");
        assert_eq!(merged(Some(""), Some("x")), "x");
    }

    #[test]
    fn mounts_are_checked() {
        let tmpfs = |target: &str| Mount {
            target: target.to_owned(),
            source: MountSource::Tmpfs {
                options: Vec::new(),
            },
            read_only: false,
            form: MountForm::Short,
        };
        check_mounts(&[tmpfs("/a"), tmpfs("/a/b")]).unwrap();
        for bad in [
            vec![tmpfs("a")],
            vec![tmpfs("/")],
            vec![tmpfs("/a"), tmpfs("/a/")],
        ] {
            assert!(check_mounts(&bad).is_err());
        }
    }
}
