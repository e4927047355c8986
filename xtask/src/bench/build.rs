//! Building: hull beside BuildKit, as it is in the dockerd that is installed, and buildah, each with its data on the same file system.
//!
//! What is timed is a whole command of each one's own client: `hull build`, `docker-buildx build`, `buildah build --layers`.

use super::engines::{Engine, TemporaryDirectory, write_busybox};
use super::print_table;
use crate::{Result, buildx, shell};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// RUNs of the build that has nothing else.
const STEPS: usize = 20;
/// Files of the context of which one changes.
const CONTEXT_FILES: usize = 100_000;
/// Files that are copied from another stage.
const STAGE_FILES: usize = 50_000;
/// Files of one directory.
const DIRECTORY_FILES: usize = 500;
/// The large context: so many files of so many bytes.
const LARGE_FILES: usize = 64;
const LARGE_BYTES: usize = 16 << 20;
/// Stages that need nothing of each other.
const STAGES: usize = 4;

/// Something that builds.
enum Builder<'a> {
    Hull(&'a Engine),
    BuildKit(&'a Engine, PathBuf),
    Buildah(Buildah),
}

/// buildah, which has no engine, with storage of its own. Of its isolations `chroot` is the fastest: a step by runc takes as long
/// at the best, and with a network of its own four times as long.
struct Buildah {
    storage: PathBuf,
}

impl Buildah {
    /// `None`: it is not installed.
    fn new(storage: PathBuf) -> Result<Option<Self>> {
        if !shell::is_installed("buildah") {
            return Ok(None);
        }
        let buildah = Self { storage };
        let rootfs = TemporaryDirectory::new("buildah-bench-rootfs")?;
        write_busybox(&rootfs.path)?;
        let script = r#"c=$("$@" from scratch) && "$@" add -q "$c" "$0" / && "$@" config --cmd sh "$c" && "$@" commit -q --rm "$c" busybox"#;
        let mut command = shell::quiet("sh");
        command.args(["-c", script]).arg(&rootfs.path);
        command.args(buildah.words());
        succeed("buildah", &mut command)?;
        Ok(Some(buildah))
    }

    fn words(&self) -> Vec<String> {
        let at = |name: &str| self.storage.join(name).display().to_string();
        ["buildah", "--storage-driver", "overlay", "--root"]
            .map(str::to_owned)
            .into_iter()
            .chain([at("root"), "--runroot".to_owned(), at("run")])
            .collect()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let words = self.words();
        let mut command = shell::quiet(&words[0]);
        command.args(&words[1..]).args(arguments);
        command
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        // Its overlay is mounted below the directory that is about to be removed.
        let _ = self.command(&["rm", "--all"]).status();
        let _ = self.command(&["rmi", "--all", "--force"]).status();
        let overlay = self.storage.join("root/overlay");
        let _ = shell::quiet("umount").arg(overlay).status();
    }
}

impl Builder<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Hull(_) => "hull",
            Self::BuildKit(..) => "BuildKit in dockerd",
            Self::Buildah(_) => "buildah",
        }
    }

    /// A build of a directory.
    fn build(&self, directory: &Path, cached: bool) -> Command {
        let mut command = match self {
            Self::Hull(engine) => engine.command(&["build", "--quiet", "-t", "built"]),
            Self::BuildKit(engine, program) => {
                let mut command = shell::quiet(&program.display().to_string());
                command
                    .args(["build", "--quiet", "--provenance=false", "-t", "built"])
                    .env("DOCKER_HOST", engine.host());
                command
            }
            Self::Buildah(buildah) => {
                let how = ["--quiet", "--layers", "--isolation=chroot"];
                buildah.command(&[&["build"][..], &how, &["-t", "built"]].concat())
            }
        };
        if !cached {
            command.arg("--no-cache");
        }
        command.arg(directory);
        command
    }

    /// Forgets what was built, and everything that came of clients.
    fn forget(&self) -> Result<()> {
        match self {
            Self::Hull(engine) => {
                engine.client(&["rmi", "--force", "built"])?;
                engine.client(&["builder", "prune", "--all", "--force"])
            }
            Self::BuildKit(engine, _) => {
                engine.client(&["rmi", "--force", "built"])?;
                engine.client(&["builder", "prune", "--all", "--force"])
            }
            Self::Buildah(buildah) => {
                succeed(
                    "buildah",
                    &mut buildah.command(&["rmi", "--force", "built"]),
                )?;
                succeed(
                    "buildah",
                    &mut buildah.command(&["rmi", "--prune", "--force"]),
                )
            }
        }
    }
}

fn succeed(name: &str, command: &mut Command) -> Result<()> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name}: {command:?}: {status}")),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// Something to build again and again.
struct Case {
    name: &'static str,
    title: &'static str,
    /// Steps may be taken from the cache.
    cached: bool,
    /// Before each build everything is forgotten that was built, and what came of clients.
    cold: bool,
    /// Writes the directory that is built.
    write: fn(&Path) -> Result<()>,
    /// Changes it before each round.
    change: fn(&Path, usize) -> Result<()>,
}

const CASES: [Case; 6] = [
    Case {
        name: "steps",
        title: "20 trivial RUNs, no cache",
        cached: false,
        cold: false,
        write: write_steps,
        change: unchanged,
    },
    Case {
        name: "cached",
        title: "20 trivial RUNs, all in the cache",
        cached: true,
        cold: false,
        write: write_steps,
        change: unchanged,
    },
    Case {
        name: "changed",
        title: "COPY of a context of 100,000 files of which one has changed",
        cached: true,
        cold: false,
        write: write_many,
        change: change_one,
    },
    Case {
        name: "large",
        title: "COPY of a context of 1 GiB that nobody has seen",
        cached: true,
        cold: true,
        write: write_large,
        change: unchanged,
    },
    Case {
        name: "stages",
        title: "four stages side by side, no cache",
        cached: false,
        cold: false,
        write: write_stages,
        change: unchanged,
    },
    Case {
        name: "from",
        title: "COPY --from of 50,000 files",
        cached: true,
        cold: false,
        write: |directory| write_from(directory, 0),
        change: write_from,
    },
];

/// Compares the builders in `parts`, or in all.
pub(super) fn run(root: &Path, hull: &Path, rounds: usize, parts: &[String]) -> Result<()> {
    if let Some(unknown) = { parts.iter() }.find(|part| CASES.iter().all(|it| it.name != **part)) {
        let names = CASES.map(|case| case.name).join(", ");
        return Err(format!(
            "no part of the bench is called {unknown:?}: {names}"
        ));
    }
    buildx::install(root)?;
    let work = TemporaryDirectory::new("hull-bench-build")?;
    let hull = Engine::hull(hull)?;
    let dockerd = match shell::is_installed("dockerd") {
        true => Some(Engine::dockerd()?),
        false => None,
    };
    let mut builders = vec![Builder::Hull(&hull)];
    if let Some(dockerd) = &dockerd {
        shell::run("dockerd", &["--version"])?;
        let program = root.join("target/tools/docker-buildx");
        builders.push(Builder::BuildKit(dockerd, program));
    }
    match Buildah::new(work.path.join("buildah"))? {
        Some(buildah) => builders.push(Builder::Buildah(buildah)),
        None => shell::print("buildah: not installed"),
    }
    for case in &CASES {
        if parts.is_empty() || parts.iter().any(|part| part == case.name) {
            let directory = work.path.join(case.name);
            std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
            (case.write)(&directory)?;
            compare(case, &directory, &builders, rounds)?;
            std::fs::remove_dir_all(&directory).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Times a case in turns. The first round warms up, and fills the caches.
fn compare(case: &Case, directory: &Path, builders: &[Builder<'_>], rounds: usize) -> Result<()> {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); builders.len()];
    for round in 0..=rounds {
        shell::say(&format!("build {}: round {round} of {rounds}", case.name));
        (case.change)(directory, round)?;
        for (builder, times) in builders.iter().zip(&mut times) {
            if case.cold && round > 0 {
                builder.forget()?;
            }
            // What the last build left to be written is not this one's to wait for.
            rustix::fs::sync();
            let start = Instant::now();
            succeed(builder.name(), &mut builder.build(directory, case.cached))?;
            if round > 0 {
                times.push(start.elapsed());
            }
        }
    }
    print_table(
        case.title,
        { builders.iter() }.map(Builder::name).zip(times),
    );
    Ok(())
}

fn write(directory: &Path, name: &str, content: &[u8]) -> Result<()> {
    let path = directory.join(name);
    std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))
}

fn unchanged(_: &Path, _: usize) -> Result<()> {
    Ok(())
}

fn write_steps(directory: &Path) -> Result<()> {
    let runs: String = (0..STEPS)
        .map(|number| format!("RUN echo {number} > /{number}\n"))
        .collect();
    write(
        directory,
        "Dockerfile",
        format!("FROM busybox\n{runs}").as_bytes(),
    )
}

/// So many small files, in directories of [`DIRECTORY_FILES`].
fn write_files(directory: &Path, files: usize) -> Result<()> {
    for number in 0..files {
        let below = directory.join(format!("d{}", number / DIRECTORY_FILES));
        if number % DIRECTORY_FILES == 0 {
            std::fs::create_dir_all(&below).map_err(|error| error.to_string())?;
        }
        let content = format!("file {number}\n").repeat(1 + number % 40);
        write(&below, &format!("f{number}"), content.as_bytes())?;
    }
    Ok(())
}

fn write_many(directory: &Path) -> Result<()> {
    write_files(&directory.join("files"), CONTEXT_FILES)?;
    write(
        directory,
        "Dockerfile",
        b"FROM busybox\nCOPY files /files\n",
    )
}

fn change_one(directory: &Path, round: usize) -> Result<()> {
    write(
        directory,
        "files/d7/changed",
        format!("round {round}\n").as_bytes(),
    )
}

/// Bytes that do not compress, by an xorshift generator.
fn write_large(directory: &Path) -> Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..LARGE_FILES {
        let mut content = Vec::with_capacity(LARGE_BYTES);
        while content.len() < LARGE_BYTES {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.extend_from_slice(&state.to_le_bytes());
        }
        write(directory, &format!("large{number}"), &content)?;
    }
    write(directory, "Dockerfile", b"FROM busybox\nCOPY . /context\n")
}

fn write_stages(directory: &Path) -> Result<()> {
    let stages = (0..STAGES).map(|number| {
        format!(
            "FROM busybox AS s{number}\nRUN busybox dd if=/dev/urandom of=/s{number} bs=1M count=4 && busybox sha256sum /s{number}\n"
        )
    });
    let copies = (0..STAGES).map(|number| format!("COPY --from=s{number} /s{number} /\n"));
    let text = stages.chain(["FROM busybox\n".to_owned()]).chain(copies);
    write(directory, "Dockerfile", text.collect::<String>().as_bytes())
}

/// What is copied stays, and where it goes changes.
fn write_from(directory: &Path, round: usize) -> Result<()> {
    if round == 0 {
        write_files(&directory.join("files"), STAGE_FILES)?;
    }
    let text = format!(
        "FROM busybox AS files\nCOPY files /files\nFROM busybox\nCOPY --from=files /files /round{round}\n"
    );
    write(directory, "Dockerfile", text.as_bytes())
}
