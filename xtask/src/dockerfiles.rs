//! `cargo xtask dockerfiles [NAME,…]`: Dockerfiles after common patterns, built by this engine and by Docker's, and compared.
//!
//! Each directory beside this file's own is one: a Dockerfile and its context, with up to three files that are no part of the context.
//!
//! | file | what |
//! |---|---|
//! | `prepare` | a script that is run in a copy of the context: for what a repository of sources cannot hold |
//! | `flags` | flags of the build, one a line; `{context}` is that copy, `{work}` the script's directory `$WORK` |
//! | `beyond` | where the oracle does not know the language: why, and everything that the upper layers of the image have |
//!
//! The images are built by `docker buildx` on Docker's engine, by `hull build`, and by `docker buildx` on this one.
//!
//! `cargo xtask dockerfiles language [TEXT[:TITLE],…]` does that with hundreds of Dockerfiles of a few lines: those of all texts, of
//! some, or those whose titles begin so.

mod compare;
mod image;
mod language;
mod oracle;
mod served;
mod tar;

use crate::engine::Engine;
use crate::{Result, install_missing, shell};
use compare::Times;
use image::{Image, Tree};
use oracle::{Client, Oracle};
use served::Served;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Base images, and what they have beyond Debian's smallest installation.
const BASES: [(&str, &str); 2] = [
    ("debian", "--include=ca-certificates"),
    (
        "tools",
        "--include=ca-certificates,python3-venv,python3-dev,nodejs,npm,cargo,gcc,libc6-dev,make,autoconf,automake,git,libcap2-bin,attr",
    ),
];
/// The release of the base images.
const SUITE: &str = "bookworm";
/// Every file of a context has this time, in seconds since 1970, unless its script says otherwise.
const CONTEXT_TIME: &str = "@1700000000";
/// How long one build may take.
const BUILD_TIMEOUT: &str = "1200";
/// The bridge of the engine, in the network that builds reach mirrors from.
const BRIDGE: &str = "hull-files0";

/// Builds all of them, or those that are named; or the language's texts.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let words = |from: usize| {
        let words = arguments.iter().skip(from).flat_map(|word| word.split(','));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let of_language = arguments.first().is_some_and(|word| word == "language");
    let place = root.join("target/dockerfiles");
    let work = place.join("work");
    if work.exists() {
        std::fs::remove_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    }
    std::fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    let (cases, bases) = match of_language {
        true => (Vec::new(), Vec::new()),
        false => {
            let cases = cases(&root.join("xtask/src/dockerfiles"), &words(0))?;
            (cases, bases(&place)?)
        }
    };
    let client = Client::install(&place, &work)?;
    let bench = Bench {
        served: Served::start(&work)?,
        oracle: Oracle::start(&client)?,
        engine: Engine::start_in_this_network(root, &work, BRIDGE)?,
        client,
        work,
        started_s: std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |it| it.as_secs().cast_signed()),
    };
    shell::print(&bench.oracle.docker(&[
        "version",
        "--format",
        "the oracle: Docker {{.Server.Version}}",
    ])?);
    if of_language {
        let (different, count) = language::run(&bench, root, &words(1))?;
        return judged(different, count);
    }
    bench.load(&bases, &cases)?;
    let mut known = BTreeMap::new();
    let mut different = 0;
    for case in &cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy();
        let found = bench
            .judge(case, &name, &mut known)
            .unwrap_or_else(|error| vec![error]);
        let verdict = if found.is_empty() {
            "the same"
        } else {
            "DIFFERENT"
        };
        shell::print(&format!("{name}: {verdict}"));
        for difference in &found {
            shell::print(&format!("    {difference}"));
        }
        different += usize::from(!found.is_empty());
    }
    judged(different, cases.len())
}

fn judged(different: usize, count: usize) -> Result<()> {
    match different {
        0 => Ok(()),
        different => Err(format!("{different} of {count} are different")),
    }
}

/// The directories of those that are wanted, ordered.
fn cases(place: &Path, names: &[String]) -> Result<Vec<PathBuf>> {
    let read = std::fs::read_dir(place).map_err(|error| format!("{}: {error}", place.display()))?;
    let entries = read.flatten().map(|entry| entry.path());
    let mut all: Vec<PathBuf> = entries
        .filter(|path| path.join("Dockerfile").exists())
        .collect();
    all.sort();
    let mut wanted = Vec::new();
    for name in names {
        let path = place.join(name);
        if !all.contains(&path) {
            return Err(format!("there is no Dockerfile {name:?}"));
        }
        wanted.push(path);
    }
    Ok(if wanted.is_empty() { all } else { wanted })
}

/// The archives of the base images, made once.
fn bases(place: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    install_missing(&[("mmdebstrap", "mmdebstrap"), ("git", "git")])?;
    let mut all = Vec::new();
    for (name, packages) in BASES {
        let archive = place.join(format!("{name}.tar"));
        if !archive.exists() {
            shell::say(&format!("making the base image {name}"));
            let made = place.join(format!("{name}.new.tar"));
            let made_path = made.display().to_string();
            let mut words = vec!["--quiet", "--variant=minbase", packages, SUITE, &made_path];
            let mirror = crate::compose::mirror()?;
            words.extend(mirror.as_deref());
            shell::run("mmdebstrap", &words)?;
            let moved = std::fs::rename(&made, &archive);
            moved.map_err(|error| format!("{}: {error}", archive.display()))?;
        }
        all.push((name, archive));
    }
    Ok(all)
}

/// What a program says, which has to succeed.
fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(said.trim().to_owned()),
        false => {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            let lines: Vec<&str> = errors.lines().collect();
            let last = lines[lines.len().saturating_sub(25)..].join("\n    ");
            Err(format!("{}: {said}{last}", output.status))
        }
    }
}

/// Both engines, and what builds fetch.
struct Bench {
    served: Served,
    oracle: Oracle,
    engine: Engine,
    client: Client,
    work: PathBuf,
    started_s: i64,
}

impl Bench {
    /// Imports those base images that are used into both engines, by the same client.
    fn load(&self, bases: &[(&str, PathBuf)], cases: &[PathBuf]) -> Result<()> {
        let texts = cases
            .iter()
            .map(|case| std::fs::read_to_string(case.join("Dockerfile")));
        let texts = texts
            .collect::<std::io::Result<String>>()
            .map_err(|error| error.to_string())?;
        let used = |name: &str| {
            ["FROM", "BASE"].iter().any(|word| {
                texts
                    .lines()
                    .any(|line| line.contains(word) && line.contains(name))
            })
        };
        for (name, archive) in bases.iter().filter(|(name, _)| used(name)) {
            let shared = self.work.join(format!("{name}.tar"));
            let linked = std::fs::hard_link(archive, &shared);
            linked.map_err(|error| format!("{}: {error}", shared.display()))?;
            let shared = shared.display().to_string();
            let command = "CMD [\"bash\"]";
            let words = ["import", "--change", command, &shared, name];
            self.oracle.docker(&words)?;
            self.client.docker(&self.engine.host, &words)?;
        }
        Ok(())
    }

    /// Builds one in three ways; all that differs.
    fn judge(
        &self,
        case: &Path,
        name: &str,
        known: &mut BTreeMap<String, Tree>,
    ) -> Result<Vec<String>> {
        let context = self.context(case, name)?;
        let flags = self.flags(case, &context)?;
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let context = context.display().to_string();
        let build = [
            &["build", "--progress=plain", "--no-cache", "-t", name],
            &flags[..],
            &[&context],
        ]
        .concat();
        let buildx = [&["buildx"], &build[..]].concat();
        let host = &self.engine.host;
        let listed = std::fs::read_to_string(case.join("beyond")).ok();
        let expected = match listed {
            Some(_) => None,
            None => {
                let built = self.oracle.docker(&buildx);
                built.map_err(|error| format!("by the oracle: {error}"))?;
                let save = |to: &str| self.oracle.docker(&["save", "-o", to, name]);
                Some(self.saved(&save, known)?)
            }
        };
        let save = |to: &str| self.client.docker(host, &["save", "-o", to, name]);
        let epoch = flags
            .iter()
            .find_map(|flag| flag.strip_prefix("--build-arg=SOURCE_DATE_EPOCH="));
        let times = Times {
            started_s: self.started_s,
            epoch_s: epoch.and_then(|text| text.parse().ok()),
        };
        let mut found = Vec::new();
        for way in ["hull build", "buildx"] {
            let built = match way {
                "buildx" => self.client.docker(host, &buildx),
                _ => {
                    let limited = [
                        "--kill-after",
                        "10",
                        BUILD_TIMEOUT,
                        self.engine.program(),
                        "-H",
                        host,
                    ];
                    output(Command::new("timeout").args(limited).args(&build))
                }
            };
            built.map_err(|error| format!("by {way}: {error}"))?;
            let made = self.saved(&save, known)?;
            let differences = match (&expected, &listed) {
                (Some(expected), _) => compare::compare(expected, &made, times),
                (None, list) => compare::with_list(list.as_deref().unwrap_or_default(), &made),
            };
            found.extend(differences.into_iter().map(|text| format!("{way}: {text}")));
        }
        Ok(found)
    }

    /// An image as it is saved.
    fn saved(
        &self,
        save: &dyn Fn(&str) -> Result<String>,
        known: &mut BTreeMap<String, Tree>,
    ) -> Result<Image> {
        let to = self.work.join("saved.tar");
        save(&to.display().to_string())?;
        let read = Image::read(&to, known);
        std::fs::remove_file(&to).map_err(|error| format!("{}: {error}", to.display()))?;
        read
    }

    /// A copy of the context, as it is to be built.
    fn context(&self, case: &Path, name: &str) -> Result<PathBuf> {
        let context = self.work.join("contexts").join(name);
        let beside = self.work.join("beside").join(name);
        let script = r#"set -e
            mkdir -p "$2" "$3"; cp -a "$1/." "$2"; cd "$2"; chmod -R u=rwX,go=rX .
            rm -f flags prepare beyond
            find . -depth -exec touch -h -d "$4" {} +
            if [ -e "$1/prepare" ]; then WORK=$3 TIME=$4 sh -e "$1/prepare"; fi"#;
        let mut command = Command::new("sh");
        command
            .args(["-c", script, "context"])
            .args([case, &context, &beside])
            .arg(CONTEXT_TIME);
        output(&mut command).map_err(|error| format!("{name}: {error}"))?;
        Ok(context)
    }

    /// The flags that all builds have, and its own.
    fn flags(&self, case: &Path, context: &Path) -> Result<Vec<String>> {
        let own = match std::fs::read_to_string(case.join("flags")) {
            Ok(own) => own,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("flags: {error}")),
        };
        let name = case.file_name().unwrap_or_default();
        let beside = self.work.join("beside").join(name).display().to_string();
        let own = own
            .replace("{context}", &context.display().to_string())
            .replace("{work}", &beside);
        let mut flags = vec!["--network=host".to_owned()];
        let mirror =
            crate::compose::mirror()?.unwrap_or_else(|| "http://deb.debian.org/debian".to_owned());
        let arguments = [
            ("MIRROR", mirror),
            ("WEB", self.served.web()),
            ("REPOSITORY", self.served.repository()),
        ];
        let text =
            std::fs::read_to_string(case.join("Dockerfile")).map_err(|error| error.to_string())?;
        // An argument that nothing declares is warned of.
        let arguments = arguments
            .into_iter()
            .filter(|(name, _)| text.contains(&format!("ARG {name}")));
        flags.extend(arguments.map(|(name, value)| format!("--build-arg={name}={value}")));
        if text.contains("id=authorities") {
            flags.push("--secret=id=authorities,src=/etc/ssl/certs/ca-certificates.crt".to_owned());
        }
        flags.extend(own.lines().map(str::to_owned));
        Ok(flags)
    }
}
