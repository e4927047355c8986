//! `--mount type=…,source=…,target=…,…`.

use crate::go::{csv, units};
use crate::parse::{check, volume};
use api_types::{BindOptions, Mount, MountDriver, TmpfsOptions, VolumeOptions};
use std::collections::BTreeMap;

/// Reads one mount.
pub(crate) fn parse(text: &str) -> Result<Mount, String> {
    let mut mount = Mount {
        kind: "volume".to_owned(),
        ..Mount::default()
    };
    for field in csv::record(text)? {
        match field.split_once('=') {
            Some((key, value)) => set(&mut mount, &key.to_lowercase(), value, &field)?,
            None => match field.to_lowercase().as_str() {
                key @ ("readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive") => {
                    set(&mut mount, key, "true", &field)?;
                }
                _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
            },
        }
    }
    validate(&mount)?;
    Ok(mount)
}

fn set(mount: &mut Mount, key: &str, value: &str, field: &str) -> Result<(), String> {
    let invalid = || format!("invalid value for {key}: {value}");
    let boolean = || check::bool(value).map_err(|_| invalid());
    match key {
        "type" => mount.kind = value.to_lowercase(),
        "source" | "src" if value.starts_with('.') => {
            mount.source = volume::absolute(value).map_err(|error| error.to_string())?;
        }
        "source" | "src" => mount.source = value.to_owned(),
        "target" | "dst" | "destination" => mount.target = value.to_owned(),
        "readonly" | "ro" => mount.read_only = boolean()?,
        "consistency" => mount.consistency = value.to_lowercase(),
        "bind-propagation" => bind(mount).propagation = value.to_lowercase(),
        "bind-nonrecursive" => bind(mount).non_recursive = boolean()?,
        "bind-recursive" => match value {
            "enabled" => {}
            "disabled" => bind(mount).non_recursive = true,
            "writable" => bind(mount).read_only_non_recursive = true,
            "readonly" => bind(mount).read_only_force_recursive = true,
            _ => {
                return Err(format!(
                    "{} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")",
                    invalid()
                ));
            }
        },
        "volume-subpath" => volume_options(mount).subpath = value.to_owned(),
        "volume-nocopy" => volume_options(mount).no_copy = boolean()?,
        "volume-label" => insert(&mut volume_options(mount).labels, value),
        "volume-driver" => driver(mount).name = value.to_owned(),
        "volume-opt" => insert(&mut driver(mount).options, value),
        "image-subpath" => {
            mount.image_options.get_or_insert_default().subpath = value.to_owned();
        }
        "tmpfs-size" => {
            tmpfs(mount).size_bytes = units::ram_in_bytes(value).map_err(|_| invalid())?
        }
        "tmpfs-mode" => tmpfs(mount).mode = u32::from_str_radix(value, 8).map_err(|_| invalid())?,
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn tmpfs(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

/// The options of a volume. Those of its driver go on the wire with them, even when empty.
fn volume_options(mount: &mut Mount) -> &mut VolumeOptions {
    let options = mount.volume_options.get_or_insert_default();
    options.driver_config.get_or_insert_default();
    options
}

fn driver(mount: &mut Mount) -> &mut MountDriver {
    volume_options(mount).driver_config.get_or_insert_default()
}

fn insert(map: &mut BTreeMap<String, String>, pair: &str) {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    if !key.is_empty() {
        map.insert(key.to_owned(), value.to_owned());
    }
}

fn validate(mount: &Mount) -> Result<(), String> {
    if mount.kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    for (given, kind) in [
        (mount.volume_options.is_some(), "volume"),
        (mount.image_options.is_some(), "image"),
        (mount.bind_options.is_some(), "bind"),
        (mount.tmpfs_options.is_some(), "tmpfs"),
    ] {
        if given && mount.kind != kind {
            return Err(format!(
                "cannot mix '{kind}-*' options with mount type '{}'",
                mount.kind
            ));
        }
    }
    let Some(bind) = &mount.bind_options else {
        return Ok(());
    };
    let needs = |value, what| {
        Err(format!(
            "option 'bind-recursive={value}' requires '{what}' to be specified in conjunction"
        ))
    };
    match () {
        () if bind.read_only_non_recursive && !mount.read_only => needs("writable", "readonly"),
        () if bind.read_only_force_recursive && !mount.read_only => needs("readonly", "readonly"),
        () if bind.read_only_force_recursive && bind.propagation != "rprivate" => {
            needs("readonly", "bind-propagation=rprivate")
        }
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<String, String> {
        Ok(serde_json::to_string(&parse(text)?).unwrap())
    }

    #[test]
    fn mounts_of_every_type() {
        for (text, expected) in [
            ("target=/a", r#"{"Type":"volume","Target":"/a"}"#),
            (
                "type=bind,src=/s,dst=/d,ro,bind-propagation=rslave",
                r#"{"Type":"bind","Source":"/s","Target":"/d","ReadOnly":true,"BindOptions":{"Propagation":"rslave"}}"#,
            ),
            (
                "type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=1770",
                r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1048576,"Mode":1016}}"#,
            ),
            (
                r#"source=v,target=/v,"volume-opt=o=a,b",volume-label=k=v"#,
                r#"{"Type":"volume","Source":"v","Target":"/v","VolumeOptions":{"Labels":{"k":"v"},"DriverConfig":{"Options":{"o":"a,b"}}}}"#,
            ),
            (
                "type=volume,target=/v,volume-nocopy",
                r#"{"Type":"volume","Target":"/v","VolumeOptions":{"NoCopy":true,"DriverConfig":{}}}"#,
            ),
        ] {
            assert_eq!(json(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn malformed_mounts_say_what_is_wrong() {
        for (text, reason) in [
            ("", "empty"),
            ("foo", "key=value"),
            ("type=bind", "target"),
            ("type=,target=/a", "type is required"),
            ("target=/a,foo=bar", "unexpected key"),
            ("target=/a,ro=x", "invalid value for ro"),
            ("type=bind,target=/a,tmpfs-size=1", "cannot mix"),
            ("type=tmpfs,target=/a,tmpfs-size=x", "tmpfs-size"),
            ("type=bind,target=/a,bind-recursive=readonly,ro", "rprivate"),
            ("type=bind,target=/a,bind-recursive=x", "must be"),
        ] {
            let error = json(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
