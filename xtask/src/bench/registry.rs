//! Large images from and to Debian's docker-registry on loopback: pull, push, save, pull of what has changed in one layer, and
//! of ten images on one base.
//!
//! CPU time is that of the engine and of all processes below it, without the registry's.

use super::engines::{Engine, TemporaryDirectory};
use super::process::{Registry, cpu_time, peak_bytes};
use super::{bytes_to_mb, image, print_table};
use crate::{Result, shell};
use std::path::Path;
use std::time::{Duration, Instant};

/// Images on one base.
const IMAGES: usize = 10;
/// Bytes of a layer that has changed, and of what each of several images has of its own.
const CHANGED_BYTES: u64 = 20_000_000;
const OWN_BYTES: u64 = 1_000_000;

/// Measures engines in turns.
pub(super) fn run(root: &Path, engines: &[&Engine], rounds: usize) -> Result<()> {
    if !shell::is_installed("docker-registry") {
        shell::print("pull and push: docker-registry is not installed");
        return Ok(());
    }
    let archive = image::cached(&root.join("target/bench"))?;
    let bench = Bench {
        registry: Registry::docker()?,
        work: TemporaryDirectory::new("hull-registry-bench")?,
        engines,
        rounds,
    };
    bench.prepare(&archive.display().to_string())?;
    bench.pull_and_push()?;
    bench.pull_changed()?;
    bench.pull_many()?;
    for engine in engines {
        if let Some(peak) = peak_bytes(engine.pid()) {
            let mb = bytes_to_mb(peak);
            shell::print(&format!("  {}: at most {mb:.1} MB resident", engine.name()));
        }
    }
    Ok(())
}

struct Bench<'a> {
    registry: Registry,
    work: TemporaryDirectory,
    engines: &'a [&'a Engine],
    rounds: usize,
}

impl Bench<'_> {
    fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.registry.address)
    }

    /// Pushes what is pulled later: all of it by one engine, so that what images share is the same to every other.
    fn prepare(&self, archive: &str) -> Result<()> {
        let (maker, name) = (self.engines[0], self.name("bench:latest"));
        maker.docker(&["load", "-q", "-i", archive])?;
        maker.docker(&["tag", image::NAME, &name])?;
        maker.docker(&["push", "-q", &name])?;
        self.push_changed(maker, &self.name("bench:changed"), CHANGED_BYTES)?;
        for number in 0..IMAGES {
            self.push_changed(maker, &self.name(&format!("ten:{number}")), OWN_BYTES)?;
        }
        maker.docker(&["rmi", image::NAME, &name])
    }

    /// Pushes the image with another layer, of bytes that nobody can compress.
    fn push_changed(&self, engine: &Engine, name: &str, bytes: u64) -> Result<()> {
        let file = self.work.path.join("changed");
        let error = |error: std::io::Error| error.to_string();
        let random = std::fs::File::open("/dev/urandom").map_err(error)?;
        let mut content = std::fs::File::create(&file).map_err(error)?;
        std::io::copy(&mut std::io::Read::take(random, bytes), &mut content).map_err(error)?;
        engine.docker(&["create", "--name", "changed", image::NAME, "true"])?;
        engine.docker(&["cp", &file.display().to_string(), "changed:/changed"])?;
        engine.docker(&["commit", "changed", name])?;
        engine.docker(&["rm", "changed"])?;
        engine.docker(&["push", "-q", name])?;
        engine.docker(&["rmi", name])
    }

    /// Calls for each engine in turns.
    fn each(
        &self,
        what: &str,
        mut act: impl FnMut(usize, &Engine, usize) -> Result<()>,
    ) -> Result<()> {
        for round in 1..=self.rounds {
            shell::say(&format!("{what}: round {round} of {}", self.rounds));
            for (index, engine) in self.engines.iter().enumerate() {
                act(index, engine, round)?;
            }
        }
        Ok(())
    }

    fn pull_and_push(&self) -> Result<()> {
        let name = self.name("bench:latest");
        let archive = self.work.path.join("saved.tar").display().to_string();
        let mut peers = self.pullers();
        let mut pulls = Rows::new(self.engines);
        let (mut saves, mut pushes) = (Rows::new(self.engines), Rows::new(self.engines));
        self.each("pull, save, push", |index, engine, round| {
            pulls.time(index, engine, &["pull", "-q", &name])?;
            saves.time(index, engine, &["save", "-o", &archive, &name])?;
            let other = self.name(&format!("{}-{round}:latest", engine.name()));
            engine.docker(&["tag", &name, &other])?;
            pushes.time(index, engine, &["push", "-q", &other])?;
            engine.docker(&["rmi", &name, &other])?;
            if index == 0 {
                peers.iter_mut().try_for_each(|peer| peer.time(&name))?;
            }
            Ok(())
        })?;
        pulls.print("pull of 6 layers", peers);
        saves.print("save of it", Vec::new());
        pushes.print(
            "push of 6 layers that the registry has in another repository",
            Vec::new(),
        );
        Ok(())
    }

    fn pull_changed(&self) -> Result<()> {
        let (name, changed) = (self.name("bench:latest"), self.name("bench:changed"));
        let mut rows = Rows::new(self.engines);
        self.each("pull of a changed image", |index, engine, _| {
            engine.docker(&["pull", "-q", &name])?;
            rows.time(index, engine, &["pull", "-q", &changed])?;
            engine.docker(&["rmi", &name, &changed])
        })?;
        rows.print("pull of it again with one more layer, of 20 MB", Vec::new());
        Ok(())
    }

    fn pull_many(&self) -> Result<()> {
        let name = self.name("ten");
        let tags: Vec<String> = (0..IMAGES)
            .map(|number| format!("{name}:{number}"))
            .collect();
        let mut rmi = vec!["rmi"];
        rmi.extend(tags.iter().map(String::as_str));
        let mut rows = Rows::new(self.engines);
        self.each("pull of ten images", |index, engine, _| {
            rows.time(index, engine, &["pull", "-q", "-a", &name])?;
            engine.docker(&rmi)
        })?;
        rows.print("pull of ten images on that base", Vec::new());
        Ok(())
    }

    /// Programs without an engine that pull, too.
    fn pullers(&self) -> Vec<Puller> {
        let at = |name: &str| self.work.path.join(name).display().to_string();
        let podman = |line: &[&str]| {
            let roots = [
                "podman",
                "--root",
                &at("podman"),
                "--runroot",
                &at("podman-run"),
            ];
            roots
                .iter()
                .chain(line)
                .map(|word| (*word).to_owned())
                .collect()
        };
        let target = format!("dir:{}", at("skopeo"));
        let words = |line: &[&str]| line.iter().map(|word| (*word).to_owned()).collect();
        let pullers = [
            Puller {
                name: "podman",
                pull: podman(&["pull", "-q", "--tls-verify=false", ""]),
                remove: podman(&["rmi", ""]),
                wall: Vec::new(),
            },
            Puller {
                name: "skopeo, without unpacking",
                pull: words(&[
                    "skopeo",
                    "copy",
                    "-q",
                    "--src-tls-verify=false",
                    "docker://",
                    &target,
                ]),
                remove: words(&["rm", "-r", &at("skopeo")]),
                wall: Vec::new(),
            },
        ];
        let installed = |puller: &Puller| shell::is_installed(&puller.pull[0]);
        pullers.into_iter().filter(installed).collect()
    }
}

/// A program that pulls: its command lines have the image's name for an empty word, and after `docker://`.
struct Puller {
    name: &'static str,
    pull: Vec<String>,
    remove: Vec<String>,
    wall: Vec<Duration>,
}

impl Puller {
    fn time(&mut self, image: &str) -> Result<()> {
        rustix::fs::sync();
        let start = Instant::now();
        Self::run(&self.pull, image)?;
        self.wall.push(start.elapsed());
        Self::run(&self.remove, image)
    }

    fn run(line: &[String], image: &str) -> Result<()> {
        let words = line.iter().map(|word| match word.as_str() {
            "" | "docker://" => format!("{word}{image}"),
            word => word.to_owned(),
        });
        let words: Vec<String> = words.collect();
        let status = shell::quiet(&words[0]).args(&words[1..]).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            _ => Err(format!("{} failed", words.join(" "))),
        }
    }
}

/// Times of one kind, by engine.
struct Rows<'a> {
    names: Vec<&'a str>,
    wall: Vec<Vec<Duration>>,
    cpu: Vec<Vec<Duration>>,
}

impl<'a> Rows<'a> {
    fn new(engines: &[&'a Engine]) -> Self {
        Self {
            names: engines.iter().map(|engine| engine.name()).collect(),
            wall: vec![Vec::new(); engines.len()],
            cpu: vec![Vec::new(); engines.len()],
        }
    }

    fn time(&mut self, index: usize, engine: &Engine, arguments: &[&str]) -> Result<()> {
        // What was left to be written is not this one's to wait for.
        rustix::fs::sync();
        let (before, start) = (cpu_time(engine.pid()), Instant::now());
        engine.docker(arguments)?;
        self.wall[index].push(start.elapsed());
        self.cpu[index].push(cpu_time(engine.pid()).saturating_sub(before));
        Ok(())
    }

    fn print(self, title: &str, peers: Vec<Puller>) {
        let peers = peers.into_iter().map(|peer| (peer.name, peer.wall));
        let engines = self.names.iter().copied();
        print_table(title, engines.clone().zip(self.wall).chain(peers));
        print_table("  of that, on a CPU", engines.zip(self.cpu));
    }
}
