//! SBOMs by an image that makes them: its command gets file systems to read, and a directory for what it writes.
//!
//! Invariant: the file systems are read-only, and what the command writes is untrusted: only so much of its regular files is read.
//! Source: moby/buildkit `docs/attestations/sbom-protocol.md`, `frontend/attestations/sbom`, `exporter/attestation`.

use super::sbom::TYPE;
use crate::build::Build;
use crate::bundle::Predicate;
use crate::config::set;
use crate::container::{Confinement, Container, Order};
use crate::error::{Doing, Error, Result};
use crate::progress::Event;
use crate::scope::{SCAN_CONTEXT, SCAN_STAGE};
use crate::stage::Finished;
use engine::model::{Mount, MountForm, MountSource, ProcessSpec};
use oci::Digest;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use sys::root::Root;

/// What the image is called in statements; the rest of a build comes as `sbom-<name>`.
const CORE: &str = "sbom";
/// Where the file systems are, and what is written about them.
const SOURCE: &str = "/run/src/core/sbom";
const EXTRAS: &str = "/run/src/extras/";
const DESTINATION: &str = "/run/out/";
/// Statements of one run.
const STATEMENTS_MAX: usize = 1024;
/// Bytes of one statement, as in BuildKit.
const STATEMENT_BYTES_MAX: u64 = 40 << 20;

/// An in-toto statement, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(default)]
    predicate_type: String,
    #[serde(default)]
    subject: Option<Vec<Value>>,
    predicate: Value,
}

impl Build<'_> {
    /// Has a generator scan layers, and what else the Dockerfile wants scanned.
    pub(crate) fn generate(
        &self,
        generator: &str,
        parameters: &BTreeMap<String, String>,
        layers: &[Digest],
    ) -> Result<Vec<Predicate>> {
        let platform = match self.told_platform() {
            Some(platform) => format!("[{platform}] "),
            None => String::new(),
        };
        let task = format!("{platform}generating sbom using {generator}");
        self.tell(&Event::Task(&task));
        let made = self.scan(generator, parameters, layers);
        let why = made.as_ref().err().map(Error::chain);
        self.tell(&Event::TaskEnded(&task, why.as_deref()));
        made
    }

    fn scan(
        &self,
        generator: &str,
        parameters: &BTreeMap<String, String>,
        layers: &[Digest],
    ) -> Result<Vec<Predicate>> {
        let image = self.image(generator, Some(images::host_platform()))?;
        let config = &image.config.config;
        let words = { config.entrypoint.iter().flatten() }.chain(config.cmd.iter().flatten());
        let argv: Vec<String> = words.cloned().collect();
        if argv.is_empty() {
            let text = format!("the generator {generator} has neither entrypoint nor command");
            return Err(Error::Invalid(text));
        }
        let scratch = self.images.scratch();
        let scratch = scratch.doing(|| "make room for SBOMs".to_owned())?;
        let extras = self.extras();
        let mut environment = config.env.clone();
        set(&mut environment, "BUILDKIT_SCAN_DESTINATION", DESTINATION);
        set(&mut environment, "BUILDKIT_SCAN_SOURCE", SOURCE);
        if !extras.is_empty() {
            set(&mut environment, "BUILDKIT_SCAN_SOURCE_EXTRAS", EXTRAS);
        }
        for (name, value) in parameters {
            set(&mut environment, &format!("BUILDKIT_SCAN_{name}"), value);
        }
        let mut mounts = vec![
            mount(
                "/tmp",
                MountSource::Tmpfs {
                    options: Vec::new(),
                },
                false,
            ),
            mount(SOURCE, of_layers(layers), true),
            mount(DESTINATION, of_directory(scratch.path()), false),
        ];
        for (name, source) in extras {
            mounts.push(mount(&format!("{EXTRAS}{CORE}-{name}"), source, true));
        }
        let order = Order {
            on: image.layers(),
            argv,
            process: ProcessSpec {
                environment,
                working_dir: config.working_dir.clone(),
                ..ProcessSpec::default()
            },
            mounts,
            confinement: Confinement {
                network: self.request.network.clone(),
                privileged: false,
            },
        };
        let request = order.request(self.request);
        let container = Container::create(self, None, image.layers().to_vec(), request)?;
        match container.run()? {
            0 => container.remove()?,
            code => {
                let said = container.said();
                let text = format!("the generator {generator} has failed with {code}: {said}");
                return Err(Error::Invalid(text));
            }
        }
        statements(scratch.path()).map_err(|error| {
            let why = error.chain();
            Error::Invalid(format!("what the generator {generator} has written: {why}"))
        })
    }

    /// What the Dockerfile wants scanned besides the image: the context, if its last stage says so, and other stages that do.
    fn extras(&self) -> Vec<(String, MountSource)> {
        let stages = self.stages_done();
        let Some(((target, last), others)) = stages.split_last() else {
            return Vec::new();
        };
        let mut extras = Vec::new();
        if self.wants(*target, last, SCAN_CONTEXT) {
            let context = of_directory(self.request.context.path());
            extras.push(("context".to_owned(), context));
        }
        for (at, stage) in others {
            if self.wants(*at, stage, SCAN_STAGE) {
                extras.push((self.name_of(*at), of_layers(&stage.layers)));
            }
        }
        extras
    }

    fn name_of(&self, stage: usize) -> String {
        let name = &self.definition.file.stages[stage].from.name;
        name.clone().unwrap_or_else(|| format!("stage-{stage}"))
    }

    /// Whether an argument says yes for a stage: to it, or before all.
    fn wants(&self, at: usize, stage: &Finished, argument: &str) -> bool {
        let own = stage.argument(argument);
        let mut global = self.definition.global.args();
        let value = own.or_else(|| Some(global.find(|(name, _)| *name == argument)?.1));
        is_for(value.unwrap_or_default(), &self.name_of(at))
    }
}

/// A boolean as Go reads it, or the names of stages.
fn is_for(value: &str, stage: &str) -> bool {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        names => names.split(',').any(|name| name == stage),
    }
}

fn mount(target: &str, source: MountSource, read_only: bool) -> Mount {
    Mount {
        target: target.to_owned(),
        source,
        read_only,
        form: MountForm::Long,
    }
}

fn of_layers(layers: &[Digest]) -> MountSource {
    MountSource::Layers {
        layers: layers.to_vec(),
        subpath: String::new(),
    }
}

fn of_directory(path: &Path) -> MountSource {
    MountSource::Bind {
        path: path.to_owned(),
        propagation: None,
        non_recursive: false,
        recursive_read_only: false,
        create: false,
        mode: String::new(),
    }
}

/// The statements that were written, those of the image first.
fn statements(directory: &Path) -> Result<Vec<Predicate>> {
    let reading = || "list the statements".to_owned();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).doing(reading)? {
        let name = entry.doing(reading)?.file_name();
        let name = name
            .into_string()
            .map_err(|name| Error::Invalid(format!("the name {} is not UTF-8", name.display())))?;
        if names.len() == STATEMENTS_MAX {
            let text = format!("there are more than {STATEMENTS_MAX} statements");
            return Err(Error::Invalid(text));
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(Error::Invalid("there is no statement".to_owned()));
    }
    let is_core = |name: &str| name.split('.').next() == Some(CORE);
    names.sort_by_key(|name| (!is_core(name), name.clone()));
    let root = Root::open(directory).doing(reading)?;
    let all = names.into_iter().map(|name| statement(&root, name));
    all.collect()
}

fn statement(root: &Root, name: String) -> Result<Predicate> {
    let invalid = |what: String| Error::Invalid(format!("{name}: {what}"));
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let path = PathBuf::from("/").join(&name);
    let opened = root.open_at(&path, flags, Mode::empty());
    let file = File::from(opened.map_err(|error| invalid(error.to_string()))?);
    let reading = || format!("read {name}");
    if !file.metadata().doing(reading)?.is_file() {
        return Err(invalid("it is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    let mut limited = file.take(STATEMENT_BYTES_MAX + 1);
    limited.read_to_end(&mut bytes).doing(reading)?;
    if bytes.len() as u64 > STATEMENT_BYTES_MAX {
        let text = format!("it has more than {STATEMENT_BYTES_MAX} bytes");
        return Err(invalid(text));
    }
    let statement: Statement = serde_json::from_slice(&bytes)
        .map_err(|error| invalid(format!("it is no statement of in-toto: {error}")))?;
    if statement.predicate_type != TYPE {
        let kind = statement.predicate_type;
        return Err(invalid(format!(
            "its predicate is of type {kind:?}, not {TYPE:?}"
        )));
    }
    Ok(Predicate {
        kind: TYPE,
        subjects: statement.subject.unwrap_or_default(),
        value: statement.predicate,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPDX: &str =
        r#"{"predicateType": "https://spdx.dev/Document", "predicate": {"name": "x"}}"#;

    fn read(files: &[(&str, &str)]) -> Result<Vec<Predicate>> {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        statements(directory.path())
    }

    #[test]
    fn the_image_comes_first() {
        let files = ["a.spdx.json", "sbom.spdx.json", "sbom-context.spdx.json"];
        let found = read(&files.map(|name| (name, SPDX))).unwrap();
        let names: Vec<_> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(
            names,
            ["sbom.spdx.json", "a.spdx.json", "sbom-context.spdx.json"]
        );
        let beside = [serde_json::json!({"name": "y"})];
        let statement = found[0].statement(&beside);
        assert_eq!(statement["subject"][0]["name"], "y");
        assert_eq!(statement["predicate"]["name"], "x");
        let own = SPDX.replacen('{', r#"{"subject": [{"name": "own"}], "#, 1);
        let found = read(&[("sbom.spdx.json", &own)]).unwrap();
        assert_eq!(found[0].statement(&beside)["subject"][0]["name"], "own");
    }

    #[test]
    fn what_is_no_statement_is_refused() {
        let other = SPDX.replace("spdx.dev", "slsa.dev/provenance");
        for (content, why) in [
            ("", "no statement of in-toto"),
            ("{}", "no statement of in-toto"),
            (other.as_str(), "its predicate is of type"),
        ] {
            let error = read(&[("sbom.spdx.json", content)]).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        read(&[]).unwrap_err();
        // A link leads nowhere, and a directory is no file.
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("sbom.spdx.json");
        std::os::unix::fs::symlink("/etc/passwd", &place).unwrap();
        statements(directory.path()).unwrap_err();
        std::fs::remove_file(&place).unwrap();
        std::fs::create_dir(&place).unwrap();
        statements(directory.path()).unwrap_err();
    }

    #[test]
    fn arguments_name_stages() {
        for (value, expected) in [
            ("true", true),
            ("0", false),
            ("", false),
            ("a,b", true),
            ("ab", false),
        ] {
            assert_eq!(is_for(value, "b"), expected, "{value}");
        }
    }
}
