//! The Container Network Interface: configurations, and how plugins are executed by them.
//!
//! Source: cni.dev/docs/spec (version 1.0.0). A configuration lists plugins; each is a program that is told what to do by its
//! environment and its standard input, and that answers on its standard output. Plugins run as the engine does, as its operator has
//! installed them; what they answer is bounded and checked.

use crate::error::{Context, Error, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// The largest configuration.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// How many plugins a configuration may list.
const PLUGINS_MAX: usize = 32;

/// How much a plugin may say.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// How long a plugin may take.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The versions of the specification that are spoken: those since results have lists of addresses.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Configuration {
    name: String,
    version: String,
    plugins: Vec<Map<String, Value>>,
}

/// What the plugins are asked about.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// Where the programs are looked for.
    pub(super) directories: &'a [PathBuf],
    pub(super) container: &'a str,
    /// The network namespace; None: it is gone.
    pub(super) netns: Option<&'a Path>,
    pub(super) interface: &'a str,
    /// Values for what plugins can do, by the names of the conventions (cni.dev/docs/conventions).
    pub(super) capabilities: &'a Map<String, Value>,
}

/// What the plugins have made, as far as anybody here has to know.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Made {
    /// Addresses with their prefixes, and the gateways of those that are a way out.
    pub(super) addresses: Vec<(IpAddr, u8, Option<IpAddr>)>,
    /// The hardware address of the container's interface.
    pub(super) mac: Option<String>,
}

impl Configuration {
    /// Reads a configuration (`.conf`) or a list of them (`.conflist`).
    ///
    /// # Errors
    /// It cannot be read, or makes no sense.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut text = String::new();
        let read = File::open(path)
            .and_then(|file| file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text));
        read.map_err(|error| Error::invalid(format!("read {}: {error}", path.display())))?;
        if text.len() as u64 > CONFIG_BYTES_MAX {
            return Err(Error::invalid(format!(
                "{} is larger than {CONFIG_BYTES_MAX} bytes",
                path.display()
            )));
        }
        Self::parse(&text).map_err(|why| {
            Error::invalid(format!("{} is no CNI configuration: {why}", path.display()))
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut whole: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let word = |of: &Map<String, Value>, key: &str| match of.get(key) {
            Some(Value::String(word)) if !word.is_empty() => Ok(word.clone()),
            _ => Err(format!("{key} is missing")),
        };
        let (name, version) = (word(&whole, "name")?, word(&whole, "cniVersion")?);
        if !VERSIONS.contains(&version.as_str()) {
            return Err(format!(
                "cniVersion {version} is not supported: there are {}",
                VERSIONS.join(", ")
            ));
        }
        let plugins = match whole.remove("plugins") {
            Some(plugins) => serde_json::from_value(plugins).map_err(|error| error.to_string())?,
            None => vec![whole],
        };
        if !(1..=PLUGINS_MAX).contains(&plugins.len()) {
            return Err(format!(
                "it lists {} plugins: 1 to {PLUGINS_MAX} are allowed",
                plugins.len()
            ));
        }
        for plugin in &plugins {
            let kind = word(plugin, "type")?;
            if kind.contains('/') || kind == ".." {
                return Err(format!("the type {kind:?} is no name of a program"));
            }
        }
        Ok(Self {
            name,
            version,
            plugins,
        })
    }

    /// Whether a plugin can do something.
    pub(super) fn can(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| can(plugin, capability))
    }

    /// Has every program found.
    ///
    /// # Errors
    /// One is not there.
    pub(super) fn check_programs(&self, directories: &[PathBuf]) -> Result<()> {
        let kinds = self.plugins.iter().map(kind);
        kinds
            .map(|kind| find(kind, directories))
            .try_for_each(|found| found.map(drop))
    }

    /// Makes the container's interface, by one plugin after the other. Returns the result of the last one.
    ///
    /// # Errors
    /// As a plugin says; those before it are undone.
    pub(super) fn add(&self, place: &Place<'_>) -> Result<Value> {
        let mut result = Value::Null;
        for plugin in &self.plugins {
            let added = self.call("ADD", plugin, place, &result).and_then(|output| {
                serde_json::from_slice(&output)
                    .context(|| format!("read the answer of the CNI plugin {}", kind(plugin)))
            });
            match added {
                Ok(added) => result = added,
                Err(error) => {
                    // The first error is the one to tell; plugins undo what is not there, too.
                    let _ = self.delete(place, &result);
                    return Err(error);
                }
            }
        }
        Ok(result)
    }

    /// Undoes [`Configuration::add`], whose result this is, as far as it is known. Goes on after an error, and returns the first.
    ///
    /// # Errors
    /// As a plugin says.
    pub(super) fn delete(&self, place: &Place<'_>, result: &Value) -> Result<()> {
        let mut deleted = Ok(());
        for plugin in self.plugins.iter().rev() {
            let next = self.call("DEL", plugin, place, result).map(drop);
            deleted = deleted.and(next);
        }
        deleted
    }

    /// Executes a plugin, and returns what it says.
    fn call(
        &self,
        command: &str,
        plugin: &Map<String, Value>,
        place: &Place<'_>,
        previous: &Value,
    ) -> Result<Vec<u8>> {
        let kind = kind(plugin);
        let mut input = plugin.clone();
        input.insert("name".to_owned(), json!(self.name));
        input.insert("cniVersion".to_owned(), json!(self.version));
        if !previous.is_null() {
            input.insert("prevResult".to_owned(), previous.clone());
        }
        let wanted = place.capabilities.iter();
        let runtime: Map<String, Value> = wanted
            .filter(|(capability, _)| can(plugin, capability))
            .map(|(capability, value)| (capability.clone(), value.clone()))
            .collect();
        if !runtime.is_empty() {
            input.insert("runtimeConfig".to_owned(), runtime.into());
        }
        let directories = std::env::join_paths(place.directories)
            .map_err(|error| Error::invalid(format!("the directories of CNI plugins: {error}")))?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut program = Command::new(find(kind, place.directories)?);
        program
            .env_clear()
            .env("PATH", path)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", place.container)
            .env("CNI_NETNS", place.netns.unwrap_or(Path::new("")))
            .env("CNI_IFNAME", place.interface)
            .env("CNI_ARGS", "IgnoreUnknown=1")
            .env("CNI_PATH", directories)
            .current_dir("/");
        let input = Value::Object(input).to_string();
        let (success, output, errors) =
            execute(&mut program, &input).context(|| format!("execute the CNI plugin {kind}"))?;
        if success {
            return Ok(output);
        }
        let said = std::io::Error::other(failure(&output, &errors));
        Err(Error::system(format!("the CNI plugin {kind}"), said))
    }
}

fn kind(plugin: &Map<String, Value>) -> &str {
    plugin
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn can(plugin: &Map<String, Value>, capability: &str) -> bool {
    let known = plugin.get("capabilities").and_then(Value::as_object);
    known.and_then(|known| known.get(capability)) == Some(&Value::Bool(true))
}

/// The program of a plugin.
fn find(kind: &str, directories: &[PathBuf]) -> Result<PathBuf> {
    let mut paths = directories.iter().map(|directory| directory.join(kind));
    paths.find(|path| path.is_file()).ok_or_else(|| {
        let places: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
        Error::invalid(format!(
            "there is no CNI plugin {kind} in {}: install it, or say where it is by --opt hull.network.cni.path",
            places.join(":")
        ))
    })
}

/// Runs a program: whether it succeeded, what it said, and what it said of errors. Its streams are files in memory, so that nobody
/// waits for a process that it leaves behind.
fn execute(program: &mut Command, input: &str) -> std::io::Result<(bool, Vec<u8>, Vec<u8>)> {
    let [mut stdin, stdout, stderr] = [stream()?, stream()?, stream()?];
    stdin.write_all(input.as_bytes())?;
    stdin.rewind()?;
    program
        .stdin(stdin)
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    let mut child = program.spawn()?;
    let ended = wait(&mut child);
    if ended.is_err() {
        // That it has ended by itself meanwhile is as good.
        let _ = child.kill();
    }
    let success = child.wait()?.success();
    ended?;
    Ok((success, read(stdout)?, read(stderr)?))
}

fn stream() -> std::io::Result<File> {
    let file = rustix::fs::memfd_create("cni", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(file.into())
}

fn read(mut stream: File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.rewind()?;
    stream.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Waits until a program has ended.
fn wait(child: &mut Child) -> std::io::Result<()> {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = PLUGIN_TIMEOUT.try_into().ok();
    let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], timeout.as_ref())?;
    if ready == 0 {
        return Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("it has not ended within {} s", PLUGIN_TIMEOUT.as_secs()),
        ));
    }
    Ok(())
}

/// What a plugin that has failed says of it.
fn failure(output: &[u8], errors: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        msg: String,
        #[serde(default)]
        details: String,
    }
    let said = serde_json::from_slice::<Said>(output);
    let text = match said {
        Ok(said) if !said.details.is_empty() => format!("{}: {}", said.msg, said.details),
        Ok(said) if !said.msg.is_empty() => said.msg,
        _ => String::from_utf8_lossy(errors).trim().to_owned(),
    };
    if text.is_empty() {
        return "it does not say why".to_owned();
    }
    text
}

/// Reads a result.
///
/// # Errors
/// An address that is none.
pub(super) fn made(result: &Value, interface: &str) -> Result<Made> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        interfaces: Vec<Interface>,
        #[serde(default)]
        ips: Vec<Ip>,
        #[serde(default)]
        routes: Vec<Route>,
    }
    #[derive(Deserialize)]
    struct Interface {
        name: String,
        #[serde(default)]
        mac: String,
        #[serde(default)]
        sandbox: String,
    }
    #[derive(Deserialize)]
    struct Ip {
        address: String,
        gateway: Option<IpAddr>,
        interface: Option<usize>,
    }
    #[derive(Deserialize)]
    struct Route {
        dst: String,
        gw: Option<IpAddr>,
    }
    let answer: Answer =
        serde_json::from_value(result.clone()).context(|| "read the result of CNI plugins")?;
    let is_own = |found: &Interface| found.name == interface && !found.sandbox.is_empty();
    let mut own = answer.interfaces.iter().filter(|found| is_own(found));
    let mac = own.find(|found| !found.mac.is_empty());
    let mut made = Made {
        addresses: Vec::new(),
        mac: mac.map(|found| found.mac.clone()),
    };
    for ip in &answer.ips {
        let at = ip.interface.and_then(|at| answer.interfaces.get(at));
        if at.is_some_and(|at| !is_own(at)) {
            continue;
        }
        let parsed = ip.address.split_once('/');
        let parsed = parsed.and_then(|(address, prefix)| {
            Some((address.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?))
        });
        let (address, prefix) = parsed.ok_or_else(|| {
            Error::invalid(format!("CNI plugins gave {:?} as an address", ip.address))
        })?;
        let everywhere = if address.is_ipv6() {
            "::/0"
        } else {
            "0.0.0.0/0"
        };
        let way_out = answer.routes.iter().find(|route| route.dst == everywhere);
        let gateway = way_out.and_then(|route| route.gw.or(ip.gateway));
        made.addresses.push((address, prefix, gateway));
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [
        {"type": "bridge", "ipam": {"type": "host-local"}}, {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;

    #[test]
    fn configurations_are_checked() {
        let list = Configuration::parse(LIST).unwrap();
        assert!(list.can("portMappings") && !list.can("ips"));
        let single = r#"{"cniVersion": "0.4.0", "name": "n", "type": "ptp"}"#;
        assert_eq!(Configuration::parse(single).unwrap().plugins.len(), 1);
        for (bad, why) in [
            ("{}", "name is missing"),
            (r#"{"name": "n"}"#, "cniVersion is missing"),
            (
                r#"{"name": "n", "cniVersion": "0.2.0"}"#,
                "0.2.0 is not supported",
            ),
            (
                r#"{"name": "n", "cniVersion": "1.0.0", "plugins": []}"#,
                "lists 0 plugins",
            ),
            (
                r#"{"name": "n", "cniVersion": "1.0.0", "plugins": [{}]}"#,
                "type is missing",
            ),
            (
                r#"{"name": "n", "cniVersion": "1.0.0", "type": "../sh"}"#,
                "no name of a program",
            ),
            ("[]", "invalid type"),
        ] {
            let error = Configuration::parse(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn results_tell_addresses_and_the_way_out() {
        let result = json!({
            "interfaces": [{"name": "br0"}, {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/ns"}],
            "ips": [
                {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1},
                {"address": "fd00::2/64", "gateway": "fd00::1", "interface": 1},
                {"address": "10.1.0.1/24", "interface": 0}
            ],
            "routes": [{"dst": "0.0.0.0/0"}]
        });
        let made = made(&result, "eth0").unwrap();
        assert_eq!(made.mac.as_deref(), Some("02:00:00:00:00:01"));
        let (v4, gateway) = ("10.1.0.2".parse().unwrap(), "10.1.0.1".parse().ok());
        let expected = [(v4, 24, gateway), ("fd00::2".parse().unwrap(), 64, None)];
        assert_eq!(made.addresses, expected);
        let bad = json!({"ips": [{"address": "10.1.0.2"}]});
        assert!(super::made(&bad, "eth0").is_err());
    }

    #[test]
    fn what_a_plugin_says_of_a_failure_is_told() {
        let said = failure(br#"{"code": 7, "msg": "no", "details": "because"}"#, b"");
        assert_eq!(said, "no: because");
        assert_eq!(failure(b"", b"killed\n"), "killed");
        assert_eq!(failure(b"", b""), "it does not say why");
    }
}
