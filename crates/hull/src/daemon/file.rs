//! The configuration file, which is dockerd's daemon.json: another way to write the flags.
//!
//! Invariant: a key has the effect of its flag, or says what the engine does in any case, or is an error that names it. What
//! is said by a flag and in the file is an error.

use super::defaults::RUNTIMES;
use clap::{ArgMatches, parser::ValueSource};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

/// Where it is unless a flag says otherwise.
pub(super) const DEFAULT: &str = "/etc/hull/daemon.json";

/// How large it may be.
const BYTES_MAX: u64 = 1 << 20;

/// What a key means.
#[derive(Debug, Clone, Copy)]
enum Key {
    /// A flag with a value.
    Text(&'static str),
    /// A flag whose value is true or false.
    Bool(&'static str),
    /// A flag that is there or not.
    Switch(&'static str),
    /// A flag for each of a list.
    List(&'static str),
    /// A flag for each pair of an object.
    Pairs(&'static str),
    /// A flag for each limit of an object, as dockerd has them.
    Ulimits,
    /// A flag for each pool of a list.
    Pools,
    /// An object of switches, of which some are always on.
    Features,
    /// An object of other runtimes, which there are none of.
    Runtimes,
    /// Not to be chosen: the values that say what is so.
    Always(&'static [&'static str]),
}

/// The keys that are known. Those of dockerd that are not here are refused like any other word.
const KEYS: [(&str, Key); 60] = [
    ("bip", Key::Text("bip")),
    ("bip6", Key::Text("bip6")),
    ("bridge", Key::Text("bridge")),
    ("cdi-spec-dirs", Key::List("cdi-spec-dir")),
    ("cgroup-parent", Key::Always(&["/hull"])),
    ("data-root", Key::Text("data-root")),
    ("debug", Key::Switch("debug")),
    ("default-address-pools", Key::Pools),
    ("default-cgroupns-mode", Key::Always(&["private"])),
    ("default-ipc-mode", Key::Always(&["private"])),
    ("default-runtime", Key::Text("default-runtime")),
    ("default-shm-size", Key::Always(&["64M", "64m", "67108864"])),
    ("default-ulimits", Key::Ulimits),
    ("dns", Key::List("dns")),
    ("dns-opts", Key::List("dns-opt")),
    ("dns-search", Key::List("dns-search")),
    ("exec-opts", Key::Always(&["native.cgroupdriver=cgroupfs"])),
    ("exec-root", Key::Text("run-root")),
    ("experimental", Key::Always(&["true"])),
    ("features", Key::Features),
    ("firewall-backend", Key::Always(&["nftables"])),
    ("fixed-cidr", Key::Text("fixed-cidr")),
    ("fixed-cidr-v6", Key::Text("fixed-cidr-v6")),
    ("group", Key::Text("group")),
    ("hosts", Key::List("host")),
    ("icc", Key::Bool("icc")),
    ("init", Key::Switch("init")),
    ("insecure-registries", Key::List("insecure-registry")),
    ("ip", Key::Text("ip")),
    ("ip-forward", Key::Always(&["true"])),
    ("ip-masq", Key::Bool("ip-masq")),
    ("ip6tables", Key::Always(&["true"])),
    ("iptables", Key::Always(&["true"])),
    ("ipv6", Key::Switch("ipv6")),
    ("labels", Key::List("label")),
    ("live-restore", Key::Always(&["true"])),
    ("log-driver", Key::Text("log-driver")),
    ("log-format", Key::Always(&["text"])),
    ("log-level", Key::Text("log-level")),
    ("log-opts", Key::Pairs("log-opt")),
    ("mtu", Key::Text("mtu")),
    ("no-new-privileges", Key::Always(&["false"])),
    ("pidfile", Key::Text("pidfile")),
    ("policy", Key::Text("policy")),
    ("raw-logs", Key::Always(&["false"])),
    ("read-only-group", Key::Text("read-only-group")),
    ("read-only-socket", Key::Text("read-only-socket")),
    ("registries", Key::Text("registries")),
    ("registry-mirrors", Key::List("registry-mirror")),
    ("runtimes", Key::Runtimes),
    ("seccomp-profile", Key::Always(&["builtin"])),
    ("selinux-enabled", Key::Always(&["false"])),
    ("storage-driver", Key::Always(&["overlay2", "overlayfs"])),
    ("tls", Key::Bool("tls")),
    ("tlscacert", Key::Text("tlscacert")),
    ("tlscert", Key::Text("tlscert")),
    ("tlskey", Key::Text("tlskey")),
    ("tlsverify", Key::Bool("tlsverify")),
    ("userland-proxy", Key::Always(&["false"])),
    ("userns-remap", Key::Always(&[])),
];

/// Features that are on, and that no engine here is without.
const FEATURES: [&str; 2] = ["buildkit", "cdi"];

/// The words that the file stands for, which come before those of the command line. It need not be there unless a flag
/// names it.
pub(super) fn words(path: &Path, given: &ArgMatches) -> Result<Vec<OsString>, String> {
    let named = given.value_source("config-file") == Some(ValueSource::CommandLine);
    let failed = |why: String| {
        format!(
            "unable to configure the engine with file {}: {why}",
            path.display()
        )
    };
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && !named => return Ok(Vec::new()),
        opened => opened.map_err(|error| failed(error.to_string()))?,
    };
    let mut text = String::new();
    let read = file.take(BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(failed(format!("it is longer than {BYTES_MAX} bytes")));
    }
    translate(&text, given).map_err(failed)
}

fn translate(text: &str, given: &ArgMatches) -> Result<Vec<OsString>, String> {
    let file: Map<String, Value> = match text.trim() {
        "" => Map::new(),
        text => serde_json::from_str(text).map_err(|error| error.to_string())?,
    };
    let find = |name: &str| {
        let found = KEYS.iter().find(|(known, _)| *known == name);
        found.map(|(_, key)| *key)
    };
    let unknown: Vec<&str> = { file.keys() }
        .filter(|name| find(name).is_none())
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        return Err(format!(
            "the following directives don't match any configuration option: {}",
            unknown.join(", ")
        ));
    }
    let mut words = Vec::new();
    let mut twice = Vec::new();
    for (name, value) in &file {
        let Some(key) = find(name) else { continue };
        let told = key.words(name, value)?;
        let flag = key.flag();
        if !told.is_empty()
            && flag.is_some_and(|flag| given.value_source(flag) == Some(ValueSource::CommandLine))
        {
            twice.push(name.as_str());
        }
        words.extend(told.into_iter().map(OsString::from));
    }
    if !twice.is_empty() {
        return Err(format!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            twice.join(", ")
        ));
    }
    Ok(words)
}

impl Key {
    fn flag(self) -> Option<&'static str> {
        match self {
            Self::Text(flag)
            | Self::Bool(flag)
            | Self::Switch(flag)
            | Self::List(flag)
            | Self::Pairs(flag) => Some(flag),
            Self::Ulimits => Some("default-ulimit"),
            Self::Pools => Some("default-address-pool"),
            Self::Features | Self::Runtimes | Self::Always(_) => None,
        }
    }

    /// The words of the command line for a value; none for an empty one.
    fn words(self, name: &str, value: &Value) -> Result<Vec<String>, String> {
        let is_empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(object) => object.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        if is_empty {
            return Ok(Vec::new());
        }
        let wrong = |expected: &str| format!("{name}: {value} is no {expected}");
        let flag = self.flag().unwrap_or_default();
        let one = |value: &str| format!("--{flag}={value}");
        match self {
            Self::Text(_) => {
                let text = scalar(value).ok_or_else(|| wrong("text"))?;
                Ok(vec![one(&text)])
            }
            Self::Bool(_) => {
                let on = value.as_bool().ok_or_else(|| wrong("true or false"))?;
                Ok(vec![one(&on.to_string())])
            }
            Self::Switch(_) => match value.as_bool() {
                Some(true) => Ok(vec![format!("--{flag}")]),
                Some(false) => Ok(Vec::new()),
                None => Err(wrong("true or false")),
            },
            Self::List(_) => { value.as_array().into_iter().flatten() }
                .map(|value| value.as_str().map(one))
                .collect::<Option<Vec<_>>>()
                .filter(|words| !words.is_empty())
                .ok_or_else(|| wrong("list of texts")),
            Self::Pairs(_) => { value.as_object().into_iter().flatten() }
                .map(|(name, value)| Some(one(&format!("{name}={}", scalar(value)?))))
                .collect::<Option<Vec<_>>>()
                .filter(|words| !words.is_empty())
                .ok_or_else(|| wrong("object of texts")),
            Self::Ulimits => { value.as_object().into_iter().flatten() }
                .map(|(name, limit)| {
                    let (soft, hard) = (limit.get("Soft")?.as_i64()?, limit.get("Hard")?.as_i64()?);
                    Some(one(&format!("{name}={soft}:{hard}")))
                })
                .collect::<Option<Vec<_>>>()
                .filter(|words| !words.is_empty())
                .ok_or_else(|| wrong("object of limits with Name, Soft and Hard")),
            Self::Pools => { value.as_array().into_iter().flatten() }
                .map(|pool| {
                    let (base, size) = (pool.get("base")?.as_str()?, pool.get("size")?.as_u64()?);
                    Some(one(&format!("base={base},size={size}")))
                })
                .collect::<Option<Vec<_>>>()
                .filter(|words| !words.is_empty())
                .ok_or_else(|| wrong("list of pools with base and size")),
            Self::Features => check_features(value).map(|()| Vec::new()),
            Self::Runtimes => check_runtimes(value).map(|()| Vec::new()),
            Self::Always(values) => check_always(name, value, values).map(|()| Vec::new()),
        }
    }
}

/// A text, or what is written like one.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        _ => None,
    }
}

fn check_features(value: &Value) -> Result<(), String> {
    let features = value.as_object().ok_or("features: it is no object")?;
    for (name, on) in features {
        if !FEATURES.contains(&name.as_str()) || on != &Value::Bool(true) {
            return Err(format!(
                "features: {name}: {on} is not supported: there are {}, which are always on",
                FEATURES.join(" and ")
            ));
        }
    }
    Ok(())
}

fn check_runtimes(value: &Value) -> Result<(), String> {
    let runtimes = value.as_object().ok_or("runtimes: it is no object")?;
    let names: Vec<&str> = runtimes.keys().map(String::as_str).collect();
    Err(format!(
        "runtimes: {} is not supported: containers have hull's own runtime, which answers to {}",
        names.join(", "),
        RUNTIMES.join(", ")
    ))
}

fn check_always(name: &str, value: &Value, values: &[&str]) -> Result<(), String> {
    let single = |value: &Value| {
        let text = scalar(value);
        text.is_some_and(|text| values.contains(&text.as_str()))
    };
    let same = match value {
        Value::Array(list) => list.iter().all(single),
        value => single(value),
    };
    match same {
        true => Ok(()),
        false if values.is_empty() => Err(format!(
            "{name}: {value} is not supported: --userns private gives a container user IDs of its own"
        )),
        false => Err(format!(
            "{name}: {value} is not supported: it is always {}",
            values.join(" or ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &str) -> ArgMatches {
        let words = std::iter::once("x").chain(words.split_whitespace());
        super::super::command().try_get_matches_from(words).unwrap()
    }

    fn read(text: &str) -> Result<String, String> {
        let words = translate(text, &given(""))?;
        // All of it is what the command line has.
        let all = std::iter::once(OsString::from("x")).chain(words.clone());
        let matches = super::super::command().try_get_matches_from(all);
        matches.map_err(|error| error.to_string())?;
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn a_key_is_its_flag() {
        for (text, words) in [
            ("", ""),
            ("{}", ""),
            (r#"{"debug": true, "ipv6": false}"#, "--debug"),
            (r#"{"icc": false}"#, "--icc=false"),
            (r#"{"mtu": 1400}"#, "--mtu=1400"),
            (r#"{"data-root": "/x y"}"#, "--data-root=/x y"),
            (
                r#"{"hosts": ["fd://", "unix:///a"]}"#,
                "--host=fd:// --host=unix:///a",
            ),
            (
                r#"{"log-opts": {"max-size": "5m", "max-file": 3}}"#,
                "--log-opt=max-file=3 --log-opt=max-size=5m",
            ),
            (
                r#"{"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 20, "Soft": 10}}}"#,
                "--default-ulimit=nofile=10:20",
            ),
            (
                r#"{"default-address-pools": [{"base": "10.0.0.0/8", "size": 24}]}"#,
                "--default-address-pool=base=10.0.0.0/8,size=24",
            ),
            (r#"{"insecure-registries": [], "userns-remap": ""}"#, ""),
            (
                r#"{"live-restore": true, "storage-driver": "overlay2", "features": {"buildkit": true}}"#,
                "",
            ),
            (
                r#"{"exec-opts": ["native.cgroupdriver=cgroupfs"], "default-runtime": "runc"}"#,
                "--default-runtime=runc",
            ),
        ] {
            assert_eq!(read(text).as_deref(), Ok(words), "{text}");
        }
    }

    #[test]
    fn what_has_no_effect_is_an_error_that_names_it() {
        for (text, why) in [
            ("[]", "invalid type"),
            ("{", "EOF"),
            (
                r#"{"color": 1}"#,
                "don't match any configuration option: color",
            ),
            (r#"{"metrics-addr": "x"}"#, "metrics-addr"),
            (
                r#"{"live-restore": false}"#,
                "live-restore: false is not supported: it is always true",
            ),
            (
                r#"{"storage-driver": "zfs"}"#,
                "always overlay2 or overlayfs",
            ),
            (
                r#"{"exec-opts": ["native.cgroupdriver=systemd"]}"#,
                "exec-opts",
            ),
            (
                r#"{"features": {"windows-dns-proxy": true}}"#,
                "windows-dns-proxy",
            ),
            (
                r#"{"runtimes": {"kata": {"path": "/k"}}}"#,
                "kata is not supported",
            ),
            (r#"{"default-runtime": "kata"}"#, "kata"),
            (
                r#"{"hosts": "fd://"}"#,
                "hosts: \"fd://\" is no list of texts",
            ),
            (r#"{"debug": "yes"}"#, "no true or false"),
            (
                r#"{"default-ulimits": {"nofile": {"Soft": 1}}}"#,
                "Soft and Hard",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_said_twice_is_an_error() {
        let text = r#"{"icc": false, "hosts": ["fd://"], "mtu": 1400}"#;
        let error = translate(text, &given("--icc=false -H fd://")).unwrap_err();
        assert!(
            error.ends_with("the configuration file: hosts, icc"),
            "{error}"
        );
        assert!(translate(text, &given("--bip 10.0.0.1/8")).is_ok());
    }

    #[test]
    fn the_keys_are_in_order_and_name_flags() {
        assert!(KEYS.is_sorted_by_key(|(name, _)| *name));
        let command = super::super::command();
        for (name, key) in KEYS {
            let there = |flag| {
                command
                    .get_arguments()
                    .any(|arg| arg.get_long() == Some(flag))
            };
            assert!(key.flag().is_none_or(there), "{name}");
        }
    }
}
