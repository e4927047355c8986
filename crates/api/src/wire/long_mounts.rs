//! Mounts of the long form again, as a request has them.

use super::mounts::SECRET_MODE;
use api_types as wire;
use engine::model::{Mount, MountForm, MountSource, Snapshot};

/// The mounts that a container's request had in the long form.
pub(crate) fn long_forms(container: &Snapshot) -> Vec<wire::Mount> {
    { container.spec.mounts.iter() }
        .filter(|mount| mount.form == MountForm::Long)
        .map(long_form)
        .collect()
}

fn long_form(mount: &Mount) -> wire::Mount {
    let (kind, source) = match &mount.source {
        MountSource::Bind { path, .. } => ("bind", path.display().to_string()),
        MountSource::Volume {
            anonymous: true, ..
        } => ("volume", String::new()),
        MountSource::Volume { name, .. } => ("volume", name.clone()),
        MountSource::Image { reference, .. } => ("image", reference.clone()),
        MountSource::Layers { .. } | MountSource::Overlaid { .. } => ("image", String::new()),
        MountSource::Secret(secret) => ("secret", secret.path.display().to_string()),
        MountSource::Tmpfs { .. } => ("tmpfs", String::new()),
    };
    let mut form = wire::Mount {
        kind: kind.to_owned(),
        source,
        target: mount.target.clone(),
        read_only: mount.read_only,
        ..wire::Mount::default()
    };
    set_options(&mut form, &mount.source);
    form
}

fn set_options(form: &mut wire::Mount, source: &MountSource) {
    match source {
        MountSource::Bind {
            propagation,
            non_recursive,
            recursive_read_only,
            create,
            ..
        } => {
            form.bind_options = said(wire::BindOptions {
                propagation: propagation.clone().unwrap_or_default(),
                non_recursive: *non_recursive,
                create_mountpoint: *create,
                read_only_non_recursive: form.read_only && !recursive_read_only,
                read_only_force_recursive: false,
            });
        }
        MountSource::Volume {
            no_copy,
            subpath,
            labels,
            options,
            ..
        } => {
            let driver = wire::MountDriver {
                name: String::new(),
                options: options.clone(),
            };
            form.volume_options = said(wire::VolumeOptions {
                no_copy: *no_copy,
                labels: labels.clone(),
                subpath: subpath.clone(),
                driver_config: said(driver),
            });
        }
        MountSource::Image { subpath, .. }
        | MountSource::Layers { subpath, .. }
        | MountSource::Overlaid { subpath, .. } => {
            let subpath = subpath.clone();
            form.image_options = said(wire::MountImageOptions { subpath });
        }
        MountSource::Secret(secret) => {
            form.secret_options = said(wire::SecretOptions {
                uid: secret.uid,
                gid: secret.gid,
                mode: Some(secret.mode).filter(|mode| *mode != SECRET_MODE),
            });
        }
        MountSource::Tmpfs { options } => form.tmpfs_options = said(of_tmpfs(options)),
    }
}

/// Options, unless they say nothing.
fn said<T: Default + PartialEq>(options: T) -> Option<T> {
    Some(options).filter(|options| *options != T::default())
}

fn of_tmpfs(options: &[String]) -> wire::TmpfsOptions {
    let mut said = wire::TmpfsOptions::default();
    for option in options {
        match option.split_once('=') {
            Some(("size", bytes)) => said.size_bytes = bytes.parse().unwrap_or(0),
            Some(("mode", digits)) => said.mode = u32::from_str_radix(digits, 8).unwrap_or(0),
            Some((name, value)) => said.options.push(vec![name.to_owned(), value.to_owned()]),
            None => said.options.push(vec![option.clone()]),
        }
    }
    said
}
