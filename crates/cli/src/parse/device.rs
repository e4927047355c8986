//! Devices and limits of them: `--device`, `--gpus`, `--device-read-bps` and its kin, `--blkio-weight-device`, `--ulimit`.

use crate::go::{csv, units};
use crate::parse::{keyvalue, volume};
use api_types::{DeviceMapping, DeviceRequest, ThrottleDevice, Ulimit, WeightDevice};
use std::collections::BTreeMap;

/// All `--device` and `--gpus`: device nodes, and requests to device drivers.
pub(crate) fn devices(
    devices: &[String],
    gpus: &[String],
) -> Result<(Vec<DeviceMapping>, Option<Vec<DeviceRequest>>), String> {
    let mut requests = gpus
        .iter()
        .map(|text| gpu(text))
        .collect::<Result<Vec<_>, _>>()?;
    let (named, nodes): (Vec<&String>, Vec<&String>) =
        devices.iter().partition(|text| is_cdi(text));
    if !named.is_empty() {
        requests.push(DeviceRequest {
            driver: "cdi".to_owned(),
            device_ids: Some(named.into_iter().cloned().collect()),
            ..DeviceRequest::default()
        });
    }
    let nodes = nodes
        .into_iter()
        .map(|text| device(text))
        .collect::<Result<_, _>>()?;
    Ok((nodes, (!requests.is_empty()).then_some(requests)))
}

/// `vendor.com/class=name` of the Container Device Interface.
fn is_cdi(text: &str) -> bool {
    let Some((kind, name)) = text.split_once('=') else {
        return false;
    };
    let Some((vendor, class)) = kind.split_once('/') else {
        return false;
    };
    let plain = |text: &str, extra: &[u8]| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
    };
    let name_ok = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte));
    plain(vendor, b"_-.") && plain(class, b"_-.") && name_ok
}

/// `host[:container][:rwm]`.
fn device(text: &str) -> Result<DeviceMapping, String> {
    let bad = || format!("bad format for path: {text}");
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, permissions) = match parts[..] {
        [host] => (host.to_owned(), host, "rwm"),
        [host, mode] if is_mode(mode) => (host.to_owned(), host, mode),
        [host, container] => (host.to_owned(), container, "rwm"),
        [_, _, mode] if !is_mode(mode) => return Err(format!("bad mode specified: {mode}")),
        [host, container, mode] => (host.to_owned(), container, mode),
        _ => return Err(bad()),
    };
    if host.is_empty() {
        return Err(bad());
    }
    if !container.starts_with('/') {
        return Err(format!("{container} is not an absolute path"));
    }
    // Docker cleans the last path only, and not before a mode of its own.
    let (host, container) = match parts[..] {
        [_, _, _] => (host, container.to_owned()),
        [_, mode] if !is_mode(mode) => (host, volume::clean(container)),
        _ => (volume::clean(&host), volume::clean(container)),
    };
    Ok(DeviceMapping {
        path_on_host: host,
        path_in_container: container,
        cgroup_permissions: permissions.to_owned(),
    })
}

/// Whether text is some of `rwm`, each once.
fn is_mode(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| "rwm".contains(c))
        && text.chars().all(|c| text.matches(c).count() == 1)
}

/// `--device-cgroup-rule`.
pub(crate) fn check_cgroup_rule(text: &str) -> Result<(), String> {
    let number =
        |text: &str| text == "*" || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let valid = match text.split(' ').collect::<Vec<_>>()[..] {
        ["a" | "c" | "b", numbers, access] => {
            numbers
                .split_once(':')
                .is_some_and(|(major, minor)| number(major) && number(minor))
                && (1..=3).contains(&access.len())
                && access.chars().all(|c| "rwm".contains(c))
        }
        _ => false,
    };
    if valid {
        Ok(())
    } else {
        Err(format!("invalid device cgroup format '{text}'"))
    }
}

/// `--gpus`: `all`, a count, or `driver=…,device=…,capabilities=…,options=…`.
pub(crate) fn gpu(text: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest::default();
    let mut seen: Vec<String> = Vec::new();
    let count = |text: &str| match text {
        "all" => Ok(-1),
        text => text.parse().map_err(|_| {
            format!("invalid count ({text}): value must be either \"all\" or an integer")
        }),
    };
    let commas = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    for field in csv::record(text)? {
        let (key, value) = field.split_once('=').unwrap_or(("count", &field));
        if seen.iter().any(|known| known == key) {
            return Err(format!(
                "gpu request key '{key}' can be specified only once"
            ));
        }
        seen.push(key.to_owned());
        match key {
            "driver" => request.driver = value.to_owned(),
            "count" => request.count = count(value)?,
            "device" => request.device_ids = Some(commas(value)),
            "capabilities" => {
                let mut all = commas(value);
                all.push("gpu".to_owned());
                request.capabilities = Some(vec![all]);
            }
            "options" => request.options = Some(keyvalue::map(&csv::record(value)?)),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if !seen.iter().any(|key| key == "count") && request.device_ids.is_none() {
        request.count = 1;
    }
    request.options.get_or_insert_default();
    request
        .capabilities
        .get_or_insert_with(|| vec![vec!["gpu".to_owned()]]);
    Ok(request)
}

/// `/dev/x:value`.
fn device_value(text: &str) -> Result<(&str, &str), String> {
    let pair = text.split_once(':').filter(|(path, _)| !path.is_empty());
    let (path, value) = pair.ok_or_else(|| format!("bad format: {text}"))?;
    match path.starts_with("/dev/") {
        true => Ok((path, value)),
        false => Err(format!("bad format for device path: {text}")),
    }
}

/// `/dev/x:1mb`.
pub(crate) fn throttle_bytes(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device_value(text)?;
    let rate = units::ram_in_bytes(value)
        .ok()
        .and_then(|rate| u64::try_from(rate).ok());
    let rate = rate.ok_or_else(|| {
        format!("invalid rate for device: {text}. Expected <device-path>:<number>[<unit>] with unit kb, mb, or gb")
    })?;
    Ok(ThrottleDevice {
        path: path.to_owned(),
        rate,
    })
}

/// `/dev/x:1000`.
pub(crate) fn throttle_operations(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device_value(text)?;
    let rate = value.parse();
    let rate = rate
        .map_err(|_| format!("invalid rate for device: {text}. Expected <device-path>:<number>"))?;
    Ok(ThrottleDevice {
        path: path.to_owned(),
        rate,
    })
}

/// `/dev/x:500`.
pub(crate) fn weight(text: &str) -> Result<WeightDevice, String> {
    let (path, value) = device_value(text)?;
    match value.parse() {
        Ok(weight @ (0 | 10..=1000)) => Ok(WeightDevice {
            path: path.to_owned(),
            weight,
        }),
        _ => Err(format!("invalid weight for device: {text}")),
    }
}

/// All `--ulimit`, sorted by name; of the same name the last one.
pub(crate) fn ulimits(values: &[String]) -> Result<Vec<Ulimit>, String> {
    let mut limits = BTreeMap::new();
    for text in values {
        let limit = ulimit(text)?;
        limits.insert(limit.name.clone(), limit);
    }
    Ok(limits.into_values().collect())
}

/// `name=soft[:hard]`, -1 for no limit.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, String> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| {
        text.parse::<i64>()
            .map_err(|_| format!("invalid ulimit value: {text:?} is not a number"))
    };
    let (soft, hard) = match value.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(value)?, number(value)?),
    };
    // -1 is more than any other limit.
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        hard,
        soft,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_nodes() {
        for (text, expected) in [
            ("/dev/a", ("/dev/a", "/dev/a", "rwm")),
            ("/dev//a", ("/dev/a", "/dev/a", "rwm")),
            ("/dev/a:r", ("/dev/a", "/dev/a", "r")),
            ("/dev/a:/dev/b", ("/dev/a", "/dev/b", "rwm")),
            ("/dev/a:/dev/b:mr", ("/dev/a", "/dev/b", "mr")),
        ] {
            let mapping = device(text).unwrap();
            let actual = (
                mapping.path_on_host.as_str(),
                mapping.path_in_container.as_str(),
                mapping.cgroup_permissions.as_str(),
            );
            assert_eq!(actual, expected, "{text}");
        }
        for text in [
            "",
            ":/dev/a",
            "a",
            "/dev/a:b",
            "/dev/a:/b:rr",
            "/dev/a:/b:",
            "/a:/b:r:x",
        ] {
            assert!(device(text).is_err(), "{text}");
        }
        assert!(is_cdi("nvidia.com/gpu=0") && !is_cdi("/dev/a=b") && !is_cdi("/dev/a"));
    }

    #[test]
    fn gpus() {
        assert_eq!(gpu("all").unwrap().count, -1);
        assert_eq!(
            gpu("2").unwrap().capabilities,
            Some(vec![vec!["gpu".to_owned()]])
        );
        let request = gpu(r#"driver=d,"device=0,1",capabilities=compute"#).unwrap();
        assert_eq!((request.count, request.device_ids.unwrap().len()), (0, 2));
        for text in ["", "x", "count=1,count=2", "all,count=1", "foo=bar"] {
            assert!(gpu(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(throttle_bytes("/dev/a:1mb").unwrap().rate, 1 << 20);
        assert_eq!(throttle_operations("/dev/a:7").unwrap().rate, 7);
        assert_eq!(weight("/dev/a:10").unwrap().weight, 10);
        for text in ["/dev/a", ":1", "/x:1", "/dev/a:-1", "/dev/a:x", "/dev/a:"] {
            assert!(throttle_bytes(text).is_err(), "{text}");
            assert!(throttle_operations(text).is_err(), "{text}");
            assert!(weight(text).is_err(), "{text}");
        }
        assert!(weight("/dev/a:5").is_err() && weight("/dev/a:1001").is_err());
        let limit = ulimit("nofile=1024:-1").unwrap();
        assert_eq!((limit.soft, limit.hard), (1024, -1));
        for text in [
            "nofile",
            "foo=1",
            "nofile=2:1",
            "nofile=-1:1",
            "nofile=x",
            "nofile=",
        ] {
            assert!(ulimit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cgroup_rules() {
        for text in ["c 13:* rwm", "a *:* r", "b 8:0 mw"] {
            assert!(check_cgroup_rule(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "x 1:1 r",
            "c 1 r",
            "c 1:1",
            "c 1:1 rwmr",
            "c 1:1 x",
            "c :1 r",
        ] {
            assert!(check_cgroup_rule(text).is_err(), "{text}");
        }
    }
}
