//! Log drivers: what their options mean, and what a shim is told of them.
//!
//! | driver | where output goes | what `logs` reads |
//! |---|---|---|
//! | `json-file` | files in Docker's format, rotated | those |
//! | `local` | the same files, compressed once rotated, in a place of the engine's own | those |
//! | `syslog`, `journald` | the service | a `local` log beside it, unless `cache-disabled` |
//! | `none` | nowhere | nothing |

mod attributes;
mod syslog;

use crate::error::{Error, Result};
use crate::model::{LogDriver, LogSpec, Spec};
use attributes::{Attributes, journal_fields};
use shim::protocol::{LogConfig, RemoteLog, RemoteTarget};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// When a log file is rotated unless asked otherwise, and how many are kept: a container cannot fill the disk with its output.
const FILE_BYTES: u64 = 20 << 20;
const FILES: u32 = 5;

/// How much may wait for a slow service where the container must not, unless asked otherwise.
const BUFFER_BYTES: u64 = 1 << 20;

/// Where systemd's journal takes entries.
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// Options that say what each line tells of its container.
const ATTRIBUTES: [&str; 5] = ["env", "env-regex", "labels", "labels-regex", "tag"];

/// Options of every driver: what happens when output comes faster than it is taken.
const DELIVERY: [&str; 2] = ["max-buffer-size", "mode"];

/// Options of the log that is kept beside a service.
const CACHE: [&str; 4] = [
    "cache-compress",
    "cache-disabled",
    "cache-max-file",
    "cache-max-size",
];

const FILE: [&str; 3] = ["compress", "max-file", "max-size"];

const SYSLOG: [&str; 7] = [
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    syslog::TLS_AUTHORITIES,
    syslog::TLS_CERTIFICATE,
    syslog::TLS_KEY,
    syslog::TLS_UNVERIFIED,
];

type Options = BTreeMap<String, String>;

impl LogDriver {
    /// Every driver there is.
    pub const ALL: [Self; 5] = [
        Self::JsonFile,
        Self::Local,
        Self::Journald,
        Self::Syslog,
        Self::None,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JsonFile => "json-file",
            Self::Local => "local",
            Self::Journald => "journald",
            Self::Syslog => "syslog",
            Self::None => "none",
        }
    }

    fn knows(self, option: &str) -> bool {
        let groups: &[&[&str]] = match self {
            Self::JsonFile => &[&FILE, &ATTRIBUTES, &DELIVERY],
            Self::Local => &[&FILE, &DELIVERY],
            Self::Journald => &[&ATTRIBUTES, &DELIVERY, &CACHE],
            Self::Syslog => &[&SYSLOG, &ATTRIBUTES, &DELIVERY, &CACHE],
            Self::None => &[],
        };
        groups.iter().any(|group| group.contains(&option))
    }
}

impl LogSpec {
    /// Reads a driver's name, empty for the default, and its options.
    ///
    /// # Errors
    /// A driver or an option that there is not, or a value that it cannot have.
    pub fn read(driver: &str, options: &Options) -> Result<Self> {
        let driver = match driver {
            "" => LogDriver::JsonFile,
            name => { LogDriver::ALL.into_iter() }
                .find(|driver| driver.as_str() == name)
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "logger: no log driver named '{name}' is registered"
                    ))
                })?,
        };
        for name in options.keys() {
            if !driver.knows(name) {
                return Err(Error::invalid(format!(
                    "unknown log opt '{name}' for {} log driver",
                    driver.as_str()
                )));
            }
        }
        let file = File::read(driver, options)?;
        let spec = Self {
            driver,
            options: options.clone(),
            max_bytes: file.as_ref().and_then(|file| file.max_bytes),
            files_max: file.map_or(FILES, |file| file.files_max),
        };
        buffer_bytes(options)?;
        Attributes::read(options)?;
        if driver == LogDriver::Syslog {
            syslog::address(options)?;
            syslog::facility(option(options, "syslog-facility"))?;
            syslog::format(option(options, "syslog-format"))?;
        }
        Ok(spec)
    }

    /// The file that `logs` reads, in the container's directory. None: there is none.
    pub(crate) fn file_name(&self, id: &str) -> Option<PathBuf> {
        let cached = option(&self.options, "cache-disabled") != "true";
        match self.driver {
            LogDriver::JsonFile => Some(PathBuf::from(format!("{id}-json.log"))),
            LogDriver::Local => Some(Path::new("local-logs").join("container.log")),
            LogDriver::Journald | LogDriver::Syslog if cached => {
                Some(PathBuf::from("container-cached.log"))
            }
            _ => None,
        }
    }
}

/// What a shim is told of a container's log. `directory` is where its files are.
pub(crate) fn launch(
    spec: &Spec,
    name: &str,
    directory: &Path,
) -> Result<(Option<LogConfig>, Option<RemoteLog>)> {
    let log = &spec.log;
    let attributes = Attributes::read(&log.options)?;
    let file = File::read(log.driver, &log.options)?;
    let config = file
        .zip(log.file_name(&spec.id))
        .map(|(file, path)| LogConfig {
            path: directory.join(path),
            max_bytes: file.max_bytes,
            files_max: file.files_max,
            compress: file.compress,
            attributes: match log.driver {
                LogDriver::Local => BTreeMap::new(),
                _ => attributes.of(spec, name),
            },
        });
    let tag = attributes.tag_or_id(spec, name);
    let target = match log.driver {
        LogDriver::Journald => RemoteTarget::Journal {
            socket: PathBuf::from(JOURNAL_SOCKET),
            fields: journal_fields(spec, name, tag, &attributes),
        },
        LogDriver::Syslog => RemoteTarget::Syslog {
            address: syslog::address(&log.options)?,
            format: syslog::format(option(&log.options, "syslog-format"))?,
            facility: syslog::facility(option(&log.options, "syslog-facility"))?,
            tag,
        },
        _ => return Ok((config, None)),
    };
    let remote = RemoteLog {
        target,
        buffer_bytes: buffer_bytes(&log.options)?,
    };
    Ok((config, Some(remote)))
}

fn option<'a>(options: &'a Options, name: &str) -> &'a str {
    options.get(name).map_or("", String::as_str)
}

/// How the files of a log are kept.
struct File {
    max_bytes: Option<u64>,
    files_max: u32,
    compress: bool,
}

impl File {
    fn read(driver: LogDriver, options: &Options) -> Result<Option<Self>> {
        let prefix = match driver {
            LogDriver::JsonFile | LogDriver::Local => "",
            LogDriver::Journald | LogDriver::Syslog => "cache-",
            LogDriver::None => return Ok(None),
        };
        if flag(options, "cache-disabled", false)? {
            return Ok(None);
        }
        let named = |name: &str| format!("{prefix}{name}");
        let max_bytes = match option(options, &named("max-size")) {
            "" => Some(FILE_BYTES),
            "-1" => None,
            text => Some(size(&named("max-size"), text)?),
        };
        let files_max = match option(options, &named("max-file")) {
            "" => FILES,
            text => text
                .parse()
                .ok()
                .filter(|files| *files > 0)
                .ok_or_else(|| Error::invalid(format!("invalid value for max-file: {text:?}")))?,
        };
        let compress = flag(options, &named("compress"), driver != LogDriver::JsonFile)?;
        if options.contains_key(&named("compress"))
            && compress
            && (files_max < 2 || max_bytes.is_none())
        {
            return Err(Error::invalid(
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ));
        }
        Ok(Some(Self {
            max_bytes,
            files_max,
            compress,
        }))
    }
}

fn flag(options: &Options, name: &str, default: bool) -> Result<bool> {
    match option(options, name) {
        "" => Ok(default),
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(Error::invalid(format!(
            "invalid value for {name}: {other:?}: it is true or false"
        ))),
    }
}

/// Reads `10m`, `1g`, `512`.
fn size(name: &str, text: &str) -> Result<u64> {
    let bad = || {
        Error::invalid(format!(
            "invalid value for {name}: {text:?}: it reads like 10m"
        ))
    };
    let lower = text.to_ascii_lowercase();
    let lower = lower.trim_end_matches('b');
    let (digits, shift) = match lower.chars().last() {
        Some('k') => (&lower[..lower.len() - 1], 10),
        Some('m') => (&lower[..lower.len() - 1], 20),
        Some('g') => (&lower[..lower.len() - 1], 30),
        _ => (lower, 0),
    };
    let bytes: u64 = digits.parse().map_err(|_| bad())?;
    bytes
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(bad)
}

/// How much may wait where the container must not. Files never make it wait: they are written to the kernel's memory.
fn buffer_bytes(options: &Options) -> Result<Option<usize>> {
    let asked = option(options, "max-buffer-size");
    match option(options, "mode") {
        "" | "blocking" if !asked.is_empty() => Err(Error::invalid(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        )),
        "" | "blocking" => Ok(None),
        "non-blocking" => {
            let bytes = match asked {
                "" => BUFFER_BYTES,
                text => size("max-buffer-size", text)?,
            };
            let bytes = usize::try_from(bytes);
            bytes.map(Some).map_err(|_| {
                Error::invalid(format!("invalid value for max-buffer-size: {asked:?}"))
            })
        }
        other => Err(Error::invalid(format!(
            "logger: logging mode not supported: {other}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn options_are_the_drivers_own() {
        for (driver, good) in [
            (
                "",
                &[
                    ("max-size", "1m"),
                    ("max-file", "3"),
                    ("compress", "true"),
                    ("tag", "{{.Name}}/{{ .ID }}"),
                ][..],
            ),
            (
                "local",
                &[
                    ("max-size", "512k"),
                    ("mode", "non-blocking"),
                    ("max-buffer-size", "4m"),
                ],
            ),
            (
                "syslog",
                &[
                    ("syslog-address", "tcp://[::1]:601"),
                    ("syslog-facility", "local3"),
                    ("cache-disabled", "true"),
                ],
            ),
            ("journald", &[("labels", "a,b"), ("env-regex", "^X_")]),
            ("none", &[]),
        ] {
            LogSpec::read(driver, &options(good))
                .unwrap_or_else(|error| panic!("{driver}: {error}"));
        }
    }

    #[test]
    fn what_a_driver_has_not_is_refused() {
        for (driver, bad, reason) in [
            ("json-file", ("cache-disabled", "true"), "unknown log opt"),
            ("local", ("labels", "x"), "unknown log opt"),
            ("none", ("max-size", "1"), "unknown log opt"),
            ("json-file", ("max-size", "big"), "it reads like 10m"),
            ("json-file", ("max-file", "0"), "invalid value for max-file"),
            ("json-file", ("mode", "fast"), "mode not supported"),
            (
                "json-file",
                ("max-buffer-size", "1m"),
                "only supported with",
            ),
            ("json-file", ("tag", "{{.Nope}}"), "none of the fields"),
            ("json-file", ("tag", "{{.Name"), "unclosed action"),
            (
                "json-file",
                ("env-regex", "("),
                "invalid value for env-regex",
            ),
            ("syslog", ("syslog-address", "udp://host:1"), "IP address"),
            (
                "syslog",
                ("syslog-address", "tls://1.2.3.4"),
                "the scheme is",
            ),
            (
                "syslog",
                ("syslog-facility", "24"),
                "invalid syslog facility",
            ),
            ("syslog", ("syslog-format", "json"), "Invalid syslog format"),
            ("syslog", ("syslog-tls-ca-cert", "/x"), "tcp+tls"),
            ("fluentd", ("tag", "x"), "no log driver named 'fluentd'"),
        ] {
            let error = LogSpec::read(driver, &options(&[bad]))
                .unwrap_err()
                .to_string();
            assert!(error.contains(reason), "{driver} {bad:?}: {error}");
        }
        let alone = options(&[("compress", "true"), ("max-file", "1")]);
        assert!(LogSpec::read("json-file", &alone).is_err());
    }
}
