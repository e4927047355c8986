//! Devices of the Container Device Interface: what vendors' specifications say has to be changed for a container to use a device.
//!
//! Source: the CDI specification (cncf-tags/container-device-interface, SPEC.md). Specifications are the administrator's: files of root
//! in the configured directories, of which a later one wins over an earlier. They are read at every start, since drivers write them
//! anew. They are JSON or YAML; of YAML without anchors and aliases, by which a small file means a large one.

use crate::error::{Context, Error, Result};
use oci::runtime as rt;
use rustix::fs::{FileType, major, minor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where specifications are, unless the engine is told otherwise.
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// How large a specification may be, and how many a directory may have.
const SPEC_BYTES_MAX: u64 = 16 << 20;
const SPECS_MAX: usize = 1024;

/// What `--gpus` asks for, by the name of the driver; without one, the first that has it.
const GPUS: [(&str, &str); 2] = [("nvidia", "nvidia.com/gpu"), ("amd", "amd.com/gpu")];

/// A request for devices of a driver, as Docker's clients make it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// `cdi`, for a vendor's GPUs its name, or empty.
    pub driver: String,
    /// How many, −1 for all; 0 where names are given.
    pub count: i64,
    /// Names of devices: of `cdi` in full, `vendor.com/class=name`.
    pub names: Vec<String>,
    /// Alternatives, each a list of capabilities that all must be there.
    pub capabilities: Vec<Vec<String>>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// A specification, as far as it is understood. What is not is an error: a device without a part of what it needs does not work.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Specification {
    #[serde(rename = "cdiVersion")]
    _version: String,
    kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Device {
    name: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    hooks: Vec<Hook>,
    mounts: Vec<Mount>,
    additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    path: PathBuf,
    host_path: Option<PathBuf>,
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<i64>,
    minor: Option<i64>,
    file_mode: Option<u32>,
    permissions: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Hook {
    hook_name: String,
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mount {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    options: Vec<String>,
}

/// What a container's configuration gets for its devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Injection {
    pub(crate) env: Vec<String>,
    pub(crate) nodes: Vec<rt::Device>,
    pub(crate) rules: Vec<rt::DeviceRule>,
    pub(crate) mounts: Vec<rt::Mount>,
    pub(crate) hooks: Option<rt::Hooks>,
    pub(crate) gids: Vec<u32>,
}

/// The specifications of all directories.
#[derive(Debug)]
struct Cache {
    /// With the number of the directory.
    specs: Vec<(usize, PathBuf, Specification)>,
    /// Files that could not be used, and why.
    unusable: Vec<String>,
}

impl Cache {
    fn read(directories: &[PathBuf]) -> Result<Self> {
        let mut cache = Self {
            specs: Vec::new(),
            unusable: Vec::new(),
        };
        for (number, directory) in directories.iter().enumerate() {
            let entries = match std::fs::read_dir(directory) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.context(|| format!("list {directory:?}"))?,
            };
            for entry in entries.take(SPECS_MAX) {
                let path = entry.context(|| format!("list {directory:?}"))?.path();
                let syntax = match path.extension().and_then(|end| end.to_str()) {
                    Some("json") => Syntax::Json,
                    Some("yaml" | "yml") => Syntax::Yaml,
                    _ => continue,
                };
                match read_one(&path, syntax) {
                    Ok(spec) => cache.specs.push((number, path, spec)),
                    Err(reason) => cache.unusable.push(reason),
                }
            }
        }
        Ok(cache)
    }

    /// A device and the specification that it is of. None: there is none.
    fn find(&self, full_name: &str) -> Result<Option<(&Specification, &Device)>> {
        let (kind, name) = full_name.split_once('=').ok_or_else(|| {
            Error::invalid(format!(
                "invalid CDI device {full_name:?}: it reads like vendor.com/class=name"
            ))
        })?;
        let found = self.specs.iter().filter_map(|(number, path, spec)| {
            let device = spec.devices.iter().find(|device| device.name == name)?;
            (spec.kind == kind).then_some((*number, path, spec, device))
        });
        let found: Vec<_> = found.collect();
        let Some(last) = found.iter().map(|(number, ..)| *number).max() else {
            return Ok(None);
        };
        let mut best = found.into_iter().filter(|(number, ..)| *number == last);
        match (best.next(), best.next()) {
            (Some((_, path, ..)), Some((_, other, ..))) => Err(Error::invalid(format!(
                "CDI device {full_name} is in {} and in {}",
                path.display(),
                other.display()
            ))),
            (first, _) => Ok(first.map(|(_, _, spec, device)| (spec, device))),
        }
    }

    fn missing(&self, names: &[String]) -> Error {
        let mut text = format!(
            "CDI device injection failed: unresolvable CDI devices {}",
            names.join(", ")
        );
        for reason in &self.unusable {
            text.push_str(&format!("; {reason}"));
        }
        Error::invalid(text)
    }
}

/// How a specification is written.
#[derive(Debug, Clone, Copy)]
enum Syntax {
    Json,
    Yaml,
}

/// The error is a sentence about the file.
fn read_one(path: &Path, syntax: Syntax) -> std::result::Result<Specification, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| named(&error))?;
    let mut text = Vec::new();
    let read = file.take(SPEC_BYTES_MAX + 1).read_to_end(&mut text);
    read.map_err(|error| named(&error))?;
    if text.len() as u64 > SPEC_BYTES_MAX {
        return Err(named(&format!("longer than {SPEC_BYTES_MAX} bytes")));
    }
    match syntax {
        Syntax::Json => serde_json::from_slice(&text).map_err(|error| named(&error)),
        Syntax::Yaml => {
            let options = serde_saphyr::options! {
                budget: serde_saphyr::budget! { max_anchors: 0, max_aliases: 0, max_documents: 1 },
                with_snippet: false,
            };
            let read = serde_saphyr::from_slice_with_options(&text, options);
            read.map_err(|error| named(&error))
        }
    }
}

/// Every device of the directories, by its full name, in order.
///
/// # Errors
/// A directory that cannot be listed.
pub fn devices(directories: &[PathBuf]) -> Result<Vec<String>> {
    let cache = Cache::read(directories)?;
    let names = cache.specs.iter().flat_map(|(_, _, spec)| {
        let devices = spec.devices.iter();
        devices.map(|device| format!("{}={}", spec.kind, device.name))
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Finds what is asked for, and what it takes.
pub(crate) fn resolve(requests: &[DeviceRequest], directories: &[PathBuf]) -> Result<Injection> {
    let mut injection = Injection::default();
    if requests.is_empty() {
        return Ok(injection);
    }
    let cache = Cache::read(directories)?;
    let mut whole: Vec<&Specification> = Vec::new();
    for request in requests {
        let names = names(request, &cache)?;
        let mut missing = Vec::new();
        for name in names {
            let Some((spec, device)) = cache.find(&name)? else {
                missing.push(name);
                continue;
            };
            // What a specification says for all of its devices counts once.
            if !whole.iter().any(|known| std::ptr::eq(*known, spec)) {
                whole.push(spec);
                injection.add(&spec.container_edits)?;
            }
            injection.add(&device.container_edits)?;
        }
        if !missing.is_empty() {
            return Err(cache.missing(&missing));
        }
    }
    Ok(injection)
}

/// The full names of the devices that a request means.
fn names(request: &DeviceRequest, cache: &Cache) -> Result<Vec<String>> {
    if request.driver == "cdi" {
        return Ok(request.names.clone());
    }
    let cannot = || {
        Error::invalid(format!(
            "could not select device driver {:?} with capabilities: {:?}: no CDI specification has such devices",
            request.driver, request.capabilities
        ))
    };
    if !request.options.is_empty() {
        return Err(Error::unsupported(
            "options of a device request (--gpus options=…) are not supported",
        ));
    }
    let for_gpus = request
        .capabilities
        .iter()
        .any(|all| all.iter().any(|one| one == "gpu"));
    let mut kinds = GPUS
        .iter()
        .filter(|(driver, _)| request.driver.is_empty() || request.driver == *driver);
    let has = |kind: &str| cache.specs.iter().any(|(_, _, spec)| spec.kind == kind);
    let kind = kinds.find(|(_, kind)| for_gpus && has(kind));
    let (_, kind) = kind.ok_or_else(cannot)?;
    if !request.names.is_empty() {
        let names = request.names.iter();
        return Ok(names.map(|name| format!("{kind}={name}")).collect());
    }
    match request.count {
        -1 => Ok(vec![format!("{kind}=all")]),
        count => Ok((0..count)
            .map(|number| format!("{kind}={number}"))
            .collect()),
    }
}

impl Injection {
    fn add(&mut self, edits: &Edits) -> Result<()> {
        self.env.extend(edits.env.iter().cloned());
        for node in &edits.device_nodes {
            let (node, access) = resolve_node(node)?;
            self.rules.push(rt::DeviceRule {
                allow: true,
                kind: Some(node.kind.clone()),
                major: node.major,
                minor: node.minor,
                access: Some(access),
            });
            self.nodes.retain(|other| other.path != node.path);
            self.nodes.push(node);
        }
        for mount in &edits.mounts {
            let options = match &mount.options[..] {
                [] => ["rbind", "rprivate"].map(str::to_owned).to_vec(),
                options => options.to_vec(),
            };
            self.mounts.push(rt::Mount {
                destination: mount.container_path.clone(),
                source: Some(mount.host_path.clone()),
                kind: Some(mount.kind.clone().unwrap_or_else(|| "bind".to_owned())),
                options,
                ..rt::Mount::default()
            });
        }
        for hook in &edits.hooks {
            self.add_hook(hook)?;
        }
        self.gids
            .extend(edits.additional_gids.iter().filter(|gid| **gid != 0));
        Ok(())
    }

    fn add_hook(&mut self, hook: &Hook) -> Result<()> {
        let hooks = self.hooks.get_or_insert_default();
        let list = match hook.hook_name.as_str() {
            "prestart" => &mut hooks.prestart,
            "createRuntime" => &mut hooks.create_runtime,
            "createContainer" => &mut hooks.create_container,
            "startContainer" => &mut hooks.start_container,
            "poststart" => &mut hooks.poststart,
            "poststop" => &mut hooks.poststop,
            other => {
                return Err(Error::invalid(format!(
                    "a CDI specification has a hook {other:?}, which is none"
                )));
            }
        };
        list.push(rt::Hook {
            path: hook.path.clone(),
            args: hook.args.clone(),
            env: hook.env.clone(),
            timeout: hook.timeout,
        });
        Ok(())
    }
}

/// The node, and how it may be used. What the specification leaves out is the host's node's.
fn resolve_node(node: &Node) -> Result<(rt::Device, String)> {
    let host = node.host_path.as_deref().unwrap_or(&node.path);
    let mut device = rt::Device {
        path: node.path.clone(),
        kind: node.kind.clone().unwrap_or_default(),
        major: node.major,
        minor: node.minor,
        file_mode: node.file_mode,
        uid: node.uid,
        gid: node.gid,
    };
    let complete = !device.kind.is_empty() && (device.kind == "p" || device.major.is_some());
    if !complete {
        let stat = rustix::fs::stat(host)
            .map_err(std::io::Error::from)
            .context(|| format!("stat the CDI device node {host:?}"))?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => "c",
            FileType::BlockDevice => "b",
            FileType::Fifo => "p",
            _ => {
                return Err(Error::invalid(format!(
                    "the CDI device node {host:?} is no device"
                )));
            }
        };
        device.kind = kind.to_owned();
        if kind != "p" {
            device.major = Some(major(stat.st_rdev).into());
            device.minor = Some(minor(stat.st_rdev).into());
        }
        device.file_mode = device.file_mode.or(Some(stat.st_mode & 0o777));
        device.uid = device.uid.or(Some(stat.st_uid));
        device.gid = device.gid.or(Some(stat.st_gid));
    }
    let access = node.permissions.clone().unwrap_or_else(|| "rwm".to_owned());
    Ok((device, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories(specs: &[(usize, &str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let root = tempfile::tempdir().unwrap();
        let all = [root.path().join("a"), root.path().join("b")];
        for directory in &all {
            std::fs::create_dir(directory).unwrap();
        }
        for (number, name, text) in specs {
            std::fs::write(all[*number].join(name), text).unwrap();
        }
        (root, all.to_vec())
    }

    fn spec(edits: &str) -> String {
        format!(
            r#"{{"cdiVersion":"0.6.0","kind":"v.com/c","containerEdits":{{"env":["ALL=1"]}},
                "devices":[{{"name":"x","containerEdits":{edits}}},{{"name":"y","containerEdits":{{}}}}]}}"#
        )
    }

    fn request(names: &[&str]) -> DeviceRequest {
        DeviceRequest {
            driver: "cdi".to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeviceRequest::default()
        }
    }

    #[test]
    fn a_devices_edits_are_made_and_those_of_all_once() {
        let edits = r#"{"env":["X=1"],"deviceNodes":[{"path":"/dev/n","hostPath":"/dev/null","permissions":"rw"}],
            "mounts":[{"hostPath":"/lib/v","containerPath":"/lib/v","options":["ro","rbind"]}],
            "hooks":[{"hookName":"createContainer","path":"/bin/h","args":["h"]}],"additionalGids":[44]}"#;
        let (_root, all) = directories(&[(0, "v.json", &spec(edits))]);
        let found = resolve(&[request(&["v.com/c=x", "v.com/c=y"])], &all).unwrap();
        assert_eq!(found.env, ["ALL=1", "X=1"]);
        let node = &found.nodes[0];
        assert_eq!(
            (node.kind.as_str(), node.major, node.minor),
            ("c", Some(1), Some(3))
        );
        assert_eq!(found.rules[0].access.as_deref(), Some("rw"));
        assert_eq!(found.mounts[0].options, ["ro", "rbind"]);
        assert_eq!(found.hooks.unwrap().create_container[0].args, ["h"]);
        assert_eq!(found.gids, [44]);
        assert_eq!(devices(&all).unwrap(), ["v.com/c=x", "v.com/c=y"]);
    }

    #[test]
    fn a_later_directory_wins_and_one_has_a_device_once() {
        let (earlier, later) = (spec(r#"{"env":["A=1"]}"#), spec(r#"{"env":["B=1"]}"#));
        let (_root, all) = directories(&[(0, "v.json", &earlier), (1, "v.json", &later)]);
        let found = resolve(&[request(&["v.com/c=x"])], &all).unwrap();
        assert_eq!(found.env, ["ALL=1", "B=1"]);
        let (_root, all) = directories(&[(0, "v.json", &earlier), (0, "w.json", &later)]);
        let error = resolve(&[request(&["v.com/c=x"])], &all).unwrap_err();
        assert!(error.to_string().contains("v.json"), "{error}");
    }

    #[test]
    fn yaml_is_read_as_json_is() {
        let yaml = r#"
cdiVersion: "0.6.0"
kind: v.com/c
# As vendors' programs write it.
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/null
      permissions: rw
- name: all
  containerEdits:
    env: ["ALL=1"]
containerEdits:
  env:
  - A=1
  mounts:
  - {hostPath: /h, containerPath: /c, options: [ro, nosuid]}
  hooks:
  - hookName: createContainer
    path: /bin/h
    args: [h, --x]
"#;
        for name in ["v.yaml", "v.yml"] {
            let (_root, all) = directories(&[(1, name, yaml)]);
            assert_eq!(devices(&all).unwrap(), ["v.com/c=0", "v.com/c=all"]);
            let found = resolve(&[request(&["v.com/c=0", "v.com/c=all"])], &all).unwrap();
            assert_eq!(found.env, ["A=1", "ALL=1"]);
            assert_eq!(found.nodes[0].path, Path::new("/dev/null"));
            assert_eq!(found.mounts[0].destination, Path::new("/c"));
            assert_eq!(found.hooks.unwrap().create_container[0].args, ["h", "--x"]);
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let (_root, all) = directories(&[
            (0, "v.yaml", "kind: v.com/c"),
            (0, "x.yaml", "a: &a [b]\nc: [*a, *a]\n"),
            (0, "w.json", &spec(r#"{"somethingNew":[]}"#)),
        ]);
        let error = resolve(&[request(&["v.com/c=x"])], &all)
            .unwrap_err()
            .to_string();
        for part in [
            "unresolvable CDI devices v.com/c=x",
            "v.yaml: ",
            "x.yaml: ",
            "somethingNew",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn gpus_are_devices_of_their_vendor() {
        let gpus = |count, names: &[&str]| DeviceRequest {
            count,
            capabilities: vec![vec!["gpu".to_owned()]],
            driver: String::new(),
            ..request(names)
        };
        let (_root, none) = directories(&[]);
        let error = resolve(&[gpus(-1, &[])], &none).unwrap_err().to_string();
        assert!(error.contains("could not select device driver"), "{error}");
        let text = spec("{}")
            .replace("v.com/c", "amd.com/gpu")
            .replace("\"x\"", "\"all\"")
            .replace("\"y\"", "\"0\"");
        let (_root, all) = directories(&[(1, "amd.json", &text)]);
        for good in [gpus(-1, &[]), gpus(1, &[]), gpus(0, &["0"])] {
            assert_eq!(resolve(&[good], &all).unwrap().env, ["ALL=1"]);
        }
        assert!(resolve(&[gpus(2, &[])], &all).is_err());
    }
}
