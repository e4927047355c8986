//! The configuration's resources as properties of a systemd unit.
//!
//! They say again what is written to the cgroup's files: systemd writes what it believes the values to be whenever it is
//! reloaded. What it has no property for is its to leave alone, and not said.
//! Source: systemd.resource-control(5), org.freedesktop.systemd1(5) "Properties", systemd `docs/TRANSIENT-SETTINGS.md`.

use super::devices::{self, Rule};
use super::v2;
use crate::dbus::Value;
use crate::error::{Error, Result};
use oci::runtime::{Annotations, Cpu, Memory, Resources};

/// Annotations that begin so name further properties.
pub(crate) const ANNOTATION: &str = "org.systemd.property.";

// Since which version systemd has a property.
const SINCE_QUOTA_PERIOD: u32 = 242;
const SINCE_CPU_SETS: u32 = 244;
const SINCE_IDLE: u32 = 252;

/// The largest CPU or memory node in a set.
const SET_NUMBER_MAX: usize = 8191;
const INFINITY: u64 = u64::MAX;
const MICROSECONDS: u64 = 1_000_000;

type Properties = Vec<(String, Value)>;

/// Switches that a unit must have from its start, and the annotations' properties.
pub(super) fn initial(unified: bool, annotations: &Annotations) -> Result<Properties> {
    let io = if unified {
        "IOAccounting"
    } else {
        "BlockIOAccounting"
    };
    let mut properties: Properties = ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"]
        .map(|name| (name.to_owned(), Value::Flag(true)))
        .to_vec();
    for (name, text) in annotations {
        if let Some(name) = name.strip_prefix(ANNOTATION) {
            properties.push(annotated(name, text)?);
        }
    }
    Ok(properties)
}

/// What of the resources systemd has properties for. `version` is asked for systemd's only when that matters.
pub(super) fn of_resources(
    unified: bool,
    resources: &Resources,
    version: impl Fn() -> Result<u32>,
) -> Result<Properties> {
    let mut properties = Properties::new();
    if let Some(memory) = &resources.memory {
        properties.extend(of_memory(unified, memory)?);
    }
    if let Some(cpu) = &resources.cpu {
        of_cpu(unified, cpu, &version, &mut properties)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        // systemd takes no 0.
        let tasks = u64::try_from(limit).map_or(INFINITY, |limit| limit.max(1));
        properties.push(("TasksMax".into(), Value::Unsigned64(tasks)));
    }
    let weight = resources.block_io.as_ref().and_then(|io| io.weight);
    if let Some(weight) = weight.filter(|&weight| weight != 0) {
        properties.push(if unified {
            ("IOWeight".into(), Value::Unsigned64(v2::io_weight(weight)))
        } else {
            ("BlockIOWeight".into(), Value::Unsigned64(weight.into()))
        });
    }
    Ok(properties)
}

fn of_memory(unified: bool, memory: &Memory) -> Result<Properties> {
    let bytes = |bytes: i64| Value::Unsigned64(u64::try_from(bytes).unwrap_or(INFINITY));
    let mut properties = Properties::new();
    if let Some(limit) = memory.limit.filter(|&limit| limit != 0) {
        let name = if unified { "MemoryMax" } else { "MemoryLimit" };
        properties.push((name.into(), bytes(limit)));
    }
    if unified {
        if let Some(reservation) = memory.reservation.filter(|&bytes| bytes != 0) {
            properties.push(("MemoryLow".into(), bytes(reservation)));
        }
        if let Some(swap) = v2::swap_alone(memory)? {
            let swap = swap.parse().unwrap_or(INFINITY);
            properties.push(("MemorySwapMax".into(), Value::Unsigned64(swap)));
        }
    }
    Ok(properties)
}

fn of_cpu(
    unified: bool,
    cpu: &Cpu,
    version: &impl Fn() -> Result<u32>,
    properties: &mut Properties,
) -> Result<()> {
    let idle = cpu.idle == Some(1) && unified && version()? >= SINCE_IDLE;
    if idle {
        properties.push(("CPUWeight".into(), Value::Unsigned64(0)));
    } else if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
        properties.push(if unified {
            let weight = v2::weight_of_shares(shares);
            ("CPUWeight".into(), Value::Unsigned64(weight))
        } else {
            ("CPUShares".into(), Value::Unsigned64(shares))
        });
    }
    let period = cpu.period.filter(|&period| period != 0);
    if let Some(period) = period
        && version()? >= SINCE_QUOTA_PERIOD
    {
        properties.push(("CPUQuotaPeriodUSec".into(), Value::Unsigned64(period)));
    }
    if let Some(quota) = cpu.quota.filter(|&quota| quota != 0) {
        let quota = quota_per_second(quota, period.unwrap_or(v2::PERIOD_DEFAULT_US));
        properties.push(("CPUQuotaPerSecUSec".into(), Value::Unsigned64(quota)));
    }
    if !unified {
        return Ok(());
    }
    for (name, set) in [
        ("AllowedCPUs", &cpu.cpus),
        ("AllowedMemoryNodes", &cpu.mems),
    ] {
        if let Some(set) = set.as_deref().filter(|set| !set.is_empty())
            && version()? >= SINCE_CPU_SETS
        {
            properties.push((name.into(), Value::Bytes(bit_set(set)?)));
        }
    }
    Ok(())
}

/// A quota as microseconds in each second, rounded up to whole percents as systemd would store it.
fn quota_per_second(quota: i64, period: u64) -> u64 {
    const PERCENT: u64 = MICROSECONDS / 100;
    let Ok(quota) = u64::try_from(quota) else {
        return INFINITY;
    };
    let exact = u128::from(quota) * u128::from(MICROSECONDS) / u128::from(period);
    u64::try_from(exact).map_or(INFINITY, |exact| exact.next_multiple_of(PERCENT))
}

/// A list of numbers as a bit set, the lowest first.
fn bit_set(list: &str) -> Result<Vec<u8>> {
    let numbers = crate::limits::list(list, SET_NUMBER_MAX + 1)?;
    let mut bits = vec![0; numbers.iter().max().map_or(0, |highest| highest / 8 + 1)];
    for number in numbers {
        bits[number / 8] |= 1 << (number % 8);
    }
    Ok(bits)
}

/// The device rules. systemd knows lists of what is allowed only. Where a rule cannot be said so, it is allowed more to
/// systemd on cgroup v2, where another program of ours judges besides; on v1, where systemd's list may one day be all that
/// there is, that is an error.
pub(super) fn of_devices(unified: bool, rules: &[Rule]) -> Result<Properties> {
    let policy = |policy: &str, entries| {
        vec![
            ("DevicePolicy".into(), Value::Text(policy.into())),
            // The empty list takes back what was allowed before.
            ("DeviceAllow".into(), Value::Pairs(Vec::new())),
            ("DeviceAllow".into(), Value::Pairs(entries)),
        ]
    };
    match devices::allow_list(rules) {
        Some(entries) => Ok(policy("strict", entries)),
        None if rules.iter().all(Rule::allows) || unified => Ok(policy("auto", Vec::new())),
        None => Err(Error::unsupported(
            "device rules that deny a part of what others allow, with systemd on cgroup v1",
        )),
    }
}

/// An annotation's property, its value in the text form of GVariant.
fn annotated(name: &str, text: &str) -> Result<(String, Value)> {
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let value = value(text.trim()).filter(|_| plain).ok_or_else(|| {
        Error::invalid(format!(
            "the annotation {ANNOTATION}{name} is no property of a number, switch, text or list of texts: {text:?}"
        ))
    })?;
    // systemd's own names are in seconds, those on the bus in microseconds.
    let seconds = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U'));
    let Some(stem) = seconds else {
        return Ok((name.to_owned(), value));
    };
    let micros = match value {
        Value::Unsigned32(number) => Some(u64::from(number)),
        Value::Unsigned64(number) => Some(number),
        Value::Signed32(number) => u64::try_from(number).ok(),
        Value::Signed64(number) => u64::try_from(number).ok(),
        _ => None,
    };
    let micros = micros.and_then(|number| number.checked_mul(MICROSECONDS));
    let micros = micros
        .ok_or_else(|| Error::invalid(format!("the annotation {ANNOTATION}{name} is no time")))?;
    Ok((format!("{stem}USec"), Value::Unsigned64(micros)))
}

fn value(text: &str) -> Option<Value> {
    if let Some(list) = text.strip_prefix('[') {
        let list = list.strip_suffix(']')?.trim();
        let texts = list.split(',').filter(|part| !part.trim().is_empty());
        return Some(Value::Texts(
            texts
                .map(|part| quoted(part.trim()))
                .collect::<Option<_>>()?,
        ));
    }
    match text
        .split_once(' ')
        .map(|(kind, number)| (kind, number.trim()))
    {
        Some(("uint32", number)) => return Some(Value::Unsigned32(number.parse().ok()?)),
        Some(("uint64", number)) => return Some(Value::Unsigned64(number.parse().ok()?)),
        Some(("int32", number)) => return Some(Value::Signed32(number.parse().ok()?)),
        Some(("int64", number)) => return Some(Value::Signed64(number.parse().ok()?)),
        _ => {}
    }
    match text {
        "true" => Some(Value::Flag(true)),
        "false" => Some(Value::Flag(false)),
        text => match text.parse() {
            Ok(number) => Some(Value::Signed32(number)),
            Err(_) => quoted(text).map(Value::Text),
        },
    }
}

/// A text between quotes of either kind, with no quote and no escape in it.
fn quoted(text: &str) -> Option<String> {
    let inner = ['\'', '"']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))?;
    (!inner.contains(['\'', '"', '\\', '\0'])).then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::runtime::{DeviceRule, Pids};

    fn all(unified: bool, text: &str) -> Properties {
        let resources: Resources = serde_json::from_str(text).unwrap();
        of_resources(unified, &resources, || Ok(252)).unwrap()
    }

    fn number(name: &str, number: u64) -> (String, Value) {
        (name.into(), Value::Unsigned64(number))
    }

    #[test]
    fn limits_are_said_in_the_hosts_version() {
        let text = r#"{"memory":{"limit":1048576,"swap":3145728,"reservation":-1},
            "cpu":{"shares":1024,"quota":15000,"period":10000,"cpus":"0-1,9"},
            "pids":{"limit":0},"blockIO":{"weight":10}}"#;
        assert_eq!(
            all(true, text),
            [
                number("MemoryMax", 1 << 20),
                number("MemoryLow", INFINITY),
                number("MemorySwapMax", 2 << 20),
                number("CPUWeight", 100),
                number("CPUQuotaPeriodUSec", 10_000),
                number("CPUQuotaPerSecUSec", 1_500_000),
                ("AllowedCPUs".into(), Value::Bytes(vec![3, 2])),
                number("TasksMax", 1),
                number("IOWeight", 1),
            ]
        );
        assert_eq!(
            all(false, text),
            [
                number("MemoryLimit", 1 << 20),
                number("CPUShares", 1024),
                number("CPUQuotaPeriodUSec", 10_000),
                number("CPUQuotaPerSecUSec", 1_500_000),
                number("TasksMax", 1),
                number("BlockIOWeight", 10),
            ]
        );
    }

    #[test]
    fn what_an_old_systemd_does_not_know_is_not_said() {
        let resources: Resources =
            serde_json::from_str(r#"{"cpu":{"period":5,"cpus":"0","idle":1}}"#).unwrap();
        let old = of_resources(true, &resources, || Ok(239)).unwrap();
        assert!(old.is_empty(), "{old:?}");
        let unlimited = Resources {
            pids: Some(Pids { limit: Some(-1) }),
            ..Resources::default()
        };
        let properties = of_resources(true, &unlimited, || unreachable!()).unwrap();
        assert_eq!(properties, [number("TasksMax", INFINITY)]);
    }

    #[test]
    fn quotas_are_rounded_up_to_percents() {
        assert_eq!(quota_per_second(50_000, 100_000), 500_000);
        assert_eq!(quota_per_second(33_333, 100_000), 340_000);
        assert_eq!(quota_per_second(-1, 100_000), INFINITY);
    }

    fn rules(rules: &[(bool, &str, i64, i64, &str)]) -> Vec<Rule> {
        let rules: Vec<_> = rules
            .iter()
            .map(|&(allow, kind, major, minor, access)| DeviceRule {
                allow,
                kind: Some(kind.into()),
                major: Some(major),
                minor: Some(minor),
                access: Some(access.into()),
            })
            .collect();
        devices::rules(&rules).unwrap()
    }

    #[test]
    fn devices_are_a_list_of_what_is_allowed() {
        let properties = of_devices(false, &rules(&[(true, "b", 8, 16, "r")])).unwrap();
        assert_eq!(properties[0].1, Value::Text("strict".into()));
        let Value::Pairs(pairs) = &properties[2].1 else {
            panic!("{properties:?}")
        };
        for (path, access) in [
            ("/dev/block/8:16", "r"),
            ("/dev/char/1:3", "rwm"),
            ("char-136", "rwm"),
            ("block-*", "m"),
        ] {
            assert!(pairs.contains(&(path.into(), access.into())), "{pairs:?}");
        }
    }

    #[test]
    fn what_systemd_cannot_say_of_devices_is_never_less_strict_in_the_end() {
        let all = rules(&[(true, "a", -1, -1, "rwm")]);
        let properties = of_devices(false, &all).unwrap();
        assert_eq!(properties[0].1, Value::Text("auto".into()));
        for partly in [
            rules(&[(true, "a", -1, -1, "rwm"), (false, "c", 10, 1, "w")]),
            rules(&[(true, "c", 10, -1, "rw"), (false, "c", 10, 1, "w")]),
        ] {
            assert!(of_devices(false, &partly).is_err());
            let properties = of_devices(true, &partly).unwrap();
            assert_eq!(properties[0].1, Value::Text("auto".into()));
        }
    }

    #[test]
    fn annotations_are_properties() {
        for (name, text, expected) in [
            ("TimeoutStopUSec", "uint64 5", number("TimeoutStopUSec", 5)),
            ("TimeoutStopSec", "5", number("TimeoutStopUSec", 5_000_000)),
            (
                "CollectMode",
                "'inactive-or-failed'",
                (
                    "CollectMode".into(),
                    Value::Text("inactive-or-failed".into()),
                ),
            ),
            (
                "After",
                "['a.service', 'b.service']",
                (
                    "After".into(),
                    Value::Texts(vec!["a.service".into(), "b.service".into()]),
                ),
            ),
            (
                "DefaultDependencies",
                "true",
                ("DefaultDependencies".into(), Value::Flag(true)),
            ),
        ] {
            assert_eq!(annotated(name, text).unwrap(), expected);
        }
        for (name, text) in [
            ("A", "x"),
            ("A", "'x"),
            ("A", "['x'"),
            ("", "1"),
            ("A-B", "1"),
            ("RuntimeMaxSec", "-1"),
        ] {
            assert!(annotated(name, text).is_err(), "{name} {text}");
        }
    }
}
