//! Mounts of a create request: `Binds`, `Mounts` and `Tmpfs`, and back again for inspection.

use crate::http::Error;
use api_types as wire;
use engine::Secret;
use engine::model::{Mount, MountForm, MountSource, Snapshot};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Error>;

const PROPAGATIONS: [&str; 6] = [
    "private", "rprivate", "shared", "rshared", "slave", "rslave",
];

/// What becomes of the mounts below a bind mount that is read-only, unless the request says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BelowBinds {
    /// They are as read-only, where the kernel can.
    ReadOnly,
    /// They are as they were.
    Kept,
}

/// Reads all mounts of a request.
pub(crate) fn read(host: &wire::HostConfig, below: BelowBinds) -> Result<Vec<Mount>> {
    let binds = host.binds.iter().flatten().map(|bind| {
        let mount = read_bind(bind, below)?;
        if matches!(mount.source, MountSource::Volume { .. }) {
            check_driver(&host.volume_driver)?;
        }
        Ok(mount)
    });
    let mounts = host.mounts.iter().map(|mount| read_mount(mount, below));
    let tmpfs = host.tmpfs.iter().flatten().map(|(target, options)| {
        let options = options
            .split(',')
            .filter(|option| !option.is_empty())
            .map(str::to_owned)
            .collect();
        Ok(Mount {
            target: target.clone(),
            source: MountSource::Tmpfs { options },
            read_only: false,
            form: MountForm::Short,
        })
    });
    binds.chain(mounts).chain(tmpfs).collect()
}

/// Reads `source:target[:options]`; a source without a slash is a volume.
fn read_bind(text: &str, below: BelowBinds) -> Result<Mount> {
    let bad = |reason: &str| {
        Error::bad_request(format!("invalid volume specification: '{text}': {reason}"))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(bad("it reads like 'source:target[:options]'")),
    };
    if source.is_empty() || !target.starts_with('/') {
        return Err(bad("the mount path must be absolute"));
    }
    let mut read_only = false;
    let mut propagation = None;
    let mut no_copy = false;
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => read_only = true,
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            "nocopy" => no_copy = true,
            other if PROPAGATIONS.contains(&other) => propagation = Some(other.to_owned()),
            other => return Err(bad(&format!("invalid mode: {other}"))),
        }
    }
    let source = if source.starts_with('/') {
        if no_copy {
            return Err(bad("nocopy is for volumes"));
        }
        MountSource::Bind {
            path: PathBuf::from(source),
            propagation,
            non_recursive: false,
            recursive_read_only: read_only && below == BelowBinds::ReadOnly,
            create: true,
            mode: mode.to_owned(),
        }
    } else if propagation.is_some() {
        return Err(bad("propagation is for bind mounts"));
    } else {
        MountSource::Volume {
            name: source.to_owned(),
            anonymous: false,
            no_copy,
            subpath: String::new(),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            mode: mode.to_owned(),
        }
    };
    Ok(Mount {
        target: target.to_owned(),
        source,
        read_only,
        form: MountForm::Short,
    })
}

/// Reads a mount in its long form.
fn read_mount(mount: &wire::Mount, below: BelowBinds) -> Result<Mount> {
    let bad = |reason: String| {
        Error::bad_request(format!(
            "invalid mount config for type \"{}\": {reason}",
            mount.kind
        ))
    };
    if mount.target.is_empty() {
        return Err(bad("field Target must not be empty".to_owned()));
    }
    let foreign = [
        ("bind", mount.bind_options.is_some(), "BindOptions"),
        ("volume", mount.volume_options.is_some(), "VolumeOptions"),
        ("tmpfs", mount.tmpfs_options.is_some(), "TmpfsOptions"),
        ("image", mount.image_options.is_some(), "ImageOptions"),
        ("secret", mount.secret_options.is_some(), "SecretOptions"),
    ];
    if let Some((_, _, field)) = foreign
        .iter()
        .find(|(kind, given, _)| *given && *kind != mount.kind)
    {
        return Err(bad(format!("field {field} must not be specified")));
    }
    let source = match mount.kind.as_str() {
        "bind" => bind_source(mount, below).map_err(bad)?,
        "volume" => volume_source(mount)?,
        "tmpfs" => MountSource::Tmpfs {
            options: tmpfs_options(mount.tmpfs_options.as_ref()).map_err(bad)?,
        },
        "image" => MountSource::Image {
            reference: match mount.source.as_str() {
                "" => return Err(bad("field Source must not be empty".to_owned())),
                source => source.to_owned(),
            },
            id: String::new(),
            subpath: mount.image_options.clone().unwrap_or_default().subpath,
        },
        "secret" => secret(mount),
        "npipe" | "cluster" => {
            return Err(Error::unsupported(&format!(
                "a mount of type {}",
                mount.kind
            )));
        }
        other => return Err(bad(format!("mount type unknown: {other:?}"))),
    };
    Ok(Mount {
        target: mount.target.clone(),
        source,
        read_only: mount.read_only || matches!(mount.kind.as_str(), "image" | "secret"),
        form: MountForm::Long,
    })
}

/// The error is the reason.
fn bind_source(mount: &wire::Mount, below: BelowBinds) -> std::result::Result<MountSource, String> {
    if !Path::new(&mount.source).is_absolute() {
        let source = &mount.source;
        return Err(format!(
            "invalid mount path: '{source}' mount path must be absolute"
        ));
    }
    let options = mount.bind_options.clone().unwrap_or_default();
    let propagation = Some(options.propagation).filter(|propagation| !propagation.is_empty());
    let known = |propagation: &String| PROPAGATIONS.contains(&propagation.as_str());
    if let Some(unknown) = propagation.as_ref().filter(|name| !known(name)) {
        return Err(format!("invalid propagation mode: {unknown}"));
    }
    Ok(MountSource::Bind {
        path: PathBuf::from(&mount.source),
        propagation,
        non_recursive: options.non_recursive,
        recursive_read_only: mount.read_only
            && !options.read_only_non_recursive
            && below == BelowBinds::ReadOnly,
        create: options.create_mountpoint,
        mode: String::new(),
    })
}

fn volume_source(mount: &wire::Mount) -> Result<MountSource> {
    let options = mount.volume_options.clone().unwrap_or_default();
    let driver = options.driver_config.unwrap_or_default();
    check_driver(&driver.name)?;
    let anonymous = mount.source.is_empty();
    let name = if anonymous {
        anonymous_name()?
    } else {
        mount.source.clone()
    };
    Ok(MountSource::Volume {
        name,
        anonymous,
        no_copy: options.no_copy,
        subpath: options.subpath,
        labels: options.labels,
        options: driver.options,
        mode: "z".to_owned(),
    })
}

/// Refuses a volume driver that there is not.
pub(crate) fn check_driver(name: &str) -> Result<()> {
    if matches!(name, "" | "local") {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "error looking up volume plugin {name}: plugin \"{name}\" not found"
    )))
}

/// The permissions of a secret unless asked otherwise, as Swarm's.
pub(super) const SECRET_MODE: u32 = 0o444;

fn secret(mount: &wire::Mount) -> MountSource {
    let options = mount.secret_options.clone().unwrap_or_default();
    MountSource::Secret(Secret {
        path: PathBuf::from(&mount.source),
        uid: options.uid,
        gid: options.gid,
        mode: options.mode.unwrap_or(SECRET_MODE),
    })
}

fn anonymous_name() -> Result<String> {
    engine::random_id().map_err(Error::from)
}

/// The error is the reason.
fn tmpfs_options(options: Option<&wire::TmpfsOptions>) -> std::result::Result<Vec<String>, String> {
    let Some(options) = options else {
        return Ok(Vec::new());
    };
    let mut list = Vec::new();
    if options.size_bytes > 0 {
        list.push(format!("size={}", options.size_bytes));
    }
    if options.mode > 0 {
        list.push(format!("mode={:o}", options.mode));
    }
    for words in &options.options {
        match words.first().map(String::as_str) {
            Some("exec" | "noexec") if words.len() <= 2 => list.push(words.join("=")),
            Some(other) if words.len() <= 2 => return Err(format!("invalid option: {other}")),
            _ => return Err("invalid option array length".to_owned()),
        }
    }
    Ok(list)
}

/// The mounts as inspection shows them. A tmpfs of the short form is not among them.
pub(crate) fn points(engine: &engine::Engine, container: &Snapshot) -> Vec<wire::MountPoint> {
    let is_shown = |mount: &&Mount| {
        !(mount.form == MountForm::Short && matches!(mount.source, MountSource::Tmpfs { .. }))
    };
    let point = |mount: &Mount| match &mount.source {
        MountSource::Bind {
            path,
            propagation,
            mode,
            ..
        } => wire::MountPoint {
            kind: "bind".to_owned(),
            source: path.display().to_string(),
            destination: mount.target.clone(),
            mode: mode.clone(),
            rw: !mount.read_only,
            propagation: propagation.clone().unwrap_or_else(|| "rprivate".to_owned()),
            ..wire::MountPoint::default()
        },
        MountSource::Volume { name, mode, .. } => wire::MountPoint {
            kind: "volume".to_owned(),
            name: name.clone(),
            source: engine.volume_path(name).display().to_string(),
            destination: mount.target.clone(),
            driver: "local".to_owned(),
            mode: mode.clone(),
            rw: !mount.read_only,
            ..wire::MountPoint::default()
        },
        MountSource::Image { reference, .. } => wire::MountPoint {
            kind: "image".to_owned(),
            name: reference.clone(),
            source: reference.clone(),
            destination: mount.target.clone(),
            rw: false,
            ..wire::MountPoint::default()
        },
        MountSource::Layers { .. } | MountSource::Overlaid { .. } => wire::MountPoint {
            kind: "image".to_owned(),
            destination: mount.target.clone(),
            rw: !mount.read_only,
            ..wire::MountPoint::default()
        },
        MountSource::Secret(secret) => wire::MountPoint {
            kind: "secret".to_owned(),
            source: secret.path.display().to_string(),
            destination: mount.target.clone(),
            rw: false,
            ..wire::MountPoint::default()
        },
        MountSource::Tmpfs { .. } => wire::MountPoint {
            kind: "tmpfs".to_owned(),
            destination: mount.target.clone(),
            rw: !mount.read_only,
            ..wire::MountPoint::default()
        },
    };
    { container.spec.mounts.iter() }
        .filter(is_shown)
        .map(point)
        .collect()
}

/// The mounts as the request's short form had them.
pub(crate) fn binds(container: &Snapshot) -> Vec<String> {
    let bind = |mount: &Mount| {
        let (source, mode) = match &mount.source {
            MountSource::Bind { path, mode, .. } => (path.display().to_string(), mode),
            MountSource::Volume {
                name,
                anonymous: false,
                mode,
                ..
            } => (name.clone(), mode),
            _ => return None,
        };
        Some(match mode.as_str() {
            "" => format!("{source}:{}", mount.target),
            mode => format!("{source}:{}:{mode}", mount.target),
        })
    };
    { container.spec.mounts.iter() }
        .filter(|mount| mount.form == MountForm::Short)
        .filter_map(bind)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_read_as_docker_does() {
        let mount = read_bind("/a:/b:ro,rslave", BelowBinds::Kept).unwrap();
        assert!(mount.read_only);
        assert!(
            matches!(mount.source, MountSource::Bind { propagation: Some(p), .. } if p == "rslave")
        );
        let mount = read_bind("data:/b:nocopy", BelowBinds::Kept).unwrap();
        assert!(matches!(
            mount.source,
            MountSource::Volume { no_copy: true, .. }
        ));
        for bad in [
            "",
            "/a",
            "/a:b",
            ":/b",
            "/a:/b:bad",
            "/a:/b:ro:x",
            "data:/b:shared",
            "/a:/b:nocopy",
        ] {
            assert!(read_bind(bad, BelowBinds::Kept).is_err(), "{bad:?}");
        }
    }
}
