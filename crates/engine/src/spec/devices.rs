//! Device nodes and who may use them.

use crate::error::{Context, Error, Result};
use crate::model::{Device, Isolation};
use oci::runtime as rt;
use rustix::fs::{FileType, major, minor};
use std::path::{Path, PathBuf};

/// How many nodes a directory given with `--device` may have.
const DIRECTORY_NODES_MAX: usize = 4096;

/// How deep such a directory may be.
const DIRECTORY_DEPTH_MAX: usize = 8;

/// The devices every container may use: kind, major, minor (None: all), access. The runtime makes the nodes.
const DEFAULT_RULES: [(&str, Option<i64>, Option<i64>, &str); 10] = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", Some(1), Some(3), "rwm"), // null
    ("c", Some(1), Some(5), "rwm"), // zero
    ("c", Some(1), Some(7), "rwm"), // full
    ("c", Some(1), Some(8), "rwm"), // random
    ("c", Some(1), Some(9), "rwm"), // urandom
    ("c", Some(5), Some(0), "rwm"), // tty
    ("c", Some(5), Some(2), "rwm"), // ptmx
    ("c", Some(136), None, "rwm"),  // pts
];

/// The nodes to make besides the default ones, and the rules.
pub(super) fn resolve(isolation: &Isolation) -> Result<(Vec<rt::Device>, Vec<rt::DeviceRule>)> {
    if isolation.privileged {
        let mut nodes = Vec::new();
        walk(Path::new("/dev"), "/dev", 0, &mut nodes)?;
        nodes.retain(|node| !is_private(&node.path));
        let everything = rt::DeviceRule {
            allow: true,
            access: Some("rwm".to_owned()),
            ..Default::default()
        };
        return Ok((nodes, vec![everything]));
    }
    let mut rules = vec![rt::DeviceRule {
        allow: false,
        access: Some("rwm".to_owned()),
        ..Default::default()
    }];
    rules
        .extend(DEFAULT_RULES.map(|(kind, major, minor, access)| rule(kind, major, minor, access)));
    let mut nodes = Vec::new();
    for device in &isolation.devices {
        let first = nodes.len();
        add(device, &mut nodes)?;
        for node in &nodes[first..] {
            rules.push(rule(&node.kind, node.major, node.minor, &device.access));
        }
    }
    for text in &isolation.device_rules {
        rules.push(parse_rule(text)?);
    }
    Ok((nodes, rules))
}

/// Checks the rules a request gave.
pub(super) fn check_rules(isolation: &Isolation) -> Result<()> {
    isolation
        .device_rules
        .iter()
        .try_for_each(|text| parse_rule(text).map(drop))
}

fn rule(kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> rt::DeviceRule {
    rt::DeviceRule {
        allow: true,
        kind: Some(kind.to_owned()),
        major,
        minor,
        access: Some(access.to_owned()),
    }
}

/// Terminals, shared memory and message queues are the container's own, even when it is privileged.
fn is_private(path: &Path) -> bool {
    [
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/dev/fd",
        "/dev/console",
    ]
    .iter()
    .any(|own| path.starts_with(own))
}

fn add(device: &Device, nodes: &mut Vec<rt::Device>) -> Result<()> {
    let path = &device.host_path;
    let stat = rustix::fs::stat(path).map_err(std::io::Error::from);
    let stat = stat.context(|| {
        format!("error gathering device information while adding custom device {path:?}")
    })?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return walk(path, &device.container_path, 0, nodes);
    }
    let found = node(PathBuf::from(&device.container_path), &stat);
    nodes.push(found.ok_or_else(|| {
        Error::invalid(format!("error gathering device information while adding custom device {path:?}: not a device node"))
    })?);
    Ok(())
}

/// Collects the nodes below a directory of the host.
fn walk(host: &Path, container: &str, depth: usize, nodes: &mut Vec<rt::Device>) -> Result<()> {
    let entries = std::fs::read_dir(host).context(|| format!("list the devices in {host:?}"))?;
    for entry in entries {
        let entry = entry.context(|| format!("list the devices in {host:?}"))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let target = format!("{}/{name}", container.trim_end_matches('/'));
        // A node that vanishes meanwhile was unplugged.
        let Ok(stat) = rustix::fs::lstat(entry.path()) else {
            continue;
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            if depth < DIRECTORY_DEPTH_MAX && !is_private(Path::new(&target)) {
                walk(&entry.path(), &target, depth + 1, nodes)?;
            }
        } else if let Some(node) = node(PathBuf::from(target), &stat) {
            nodes.push(node);
        }
        if nodes.len() > DIRECTORY_NODES_MAX {
            return Err(Error::invalid(format!(
                "more than {DIRECTORY_NODES_MAX} devices below {host:?}"
            )));
        }
    }
    Ok(())
}

fn node(path: PathBuf, stat: &rustix::fs::Stat) -> Option<rt::Device> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => "c",
        FileType::BlockDevice => "b",
        _ => return None,
    };
    Some(rt::Device {
        path,
        kind: kind.to_owned(),
        major: Some(major(stat.st_rdev).into()),
        minor: Some(minor(stat.st_rdev).into()),
        file_mode: Some(stat.st_mode & 0o777),
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
    })
}

/// Reads a rule as `c 1:3 rwm`, `b 8:* r`, `a *:* rwm`.
fn parse_rule(text: &str) -> Result<rt::DeviceRule> {
    let invalid = || {
        Error::invalid(format!(
            "invalid device cgroup rule: {text:?}: it reads like 'c 1:3 rwm'"
        ))
    };
    let fields: Vec<&str> = text.split(' ').collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = fields[..] else {
        return Err(invalid());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits
            .parse::<u32>()
            .map(|number| Some(i64::from(number)))
            .map_err(|_| invalid()),
    };
    if access.is_empty() || access.len() > 3 || !access.chars().all(|c| "rwm".contains(c)) {
        return Err(invalid());
    }
    Ok(rule(kind, number(major)?, number(minor)?, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_strictly() {
        let parsed = parse_rule("c 10:* rw").unwrap();
        assert_eq!(
            (parsed.major, parsed.minor, parsed.access.as_deref()),
            (Some(10), None, Some("rw"))
        );
        for bad in [
            "",
            "c",
            "d 1:3 rwm",
            "c 1 rwm",
            "c 1:x rwm",
            "c 1:3 ",
            "c 1:3 x",
            "c -1:3 r",
            "c  1:3 r",
        ] {
            assert!(parse_rule(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_device_that_is_none_is_refused() {
        let device = |path: &str| Device {
            host_path: path.into(),
            container_path: "/dev/x".to_owned(),
            access: "rwm".to_owned(),
        };
        let mut nodes = Vec::new();
        assert!(add(&device("/etc/passwd"), &mut nodes).is_err());
        assert!(add(&device("/nowhere"), &mut nodes).is_err());
        add(&device("/dev/null"), &mut nodes).unwrap();
        assert_eq!((nodes[0].major, nodes[0].minor), (Some(1), Some(3)));
    }
}
