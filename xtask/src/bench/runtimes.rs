//! The runtimes alone, on the same bundle: Docker's defaults with all its namespaces, the default seccomp profile, and 40 masked
//! and bound paths.
//!
//! Besides wall time there is CPU time: of the runtime's processes and of the container's, to which this process is the reaper.

use super::engines::{Engine, TemporaryDirectory, write_busybox};
use crate::{Result, shell, strays};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The part of the bench that runs where crun starts.
pub(super) const INSIDE: &str = "runtime-inside";

/// How often each is timed.
const ROUNDS: usize = 100;

/// How many containers are run at once.
const PARALLEL: usize = 100;

/// Masked, read-only and bound paths together.
const PATHS: usize = 40;

/// The parent of all their cgroups.
const CGROUP: &str = "/hull-bench";

/// Between these a container's least memory limit is looked for, in KiB.
const MEMORY_KIB: (u64, u64) = (64, 16 << 10);

/// Measures in a mount namespace without the unified hierarchy, which crun does not start beside v1.
pub(super) fn run() -> Result<()> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let script = format!(
        "umount /sys/fs/cgroup/unified 2>/dev/null; exec {} bench {INSIDE}",
        this.display()
    );
    shell::run("unshare", &["--mount", "sh", "-c", &script])
}

/// Compares hull with the runtimes that are installed.
pub(super) fn compare_all(hull: &Path) -> Result<()> {
    strays::adopt()?;
    let bundle = Bundle::new(hull)?;
    let mut runtimes = vec![Runtime::new(
        "hull runtime",
        &hull.display().to_string(),
        &["runtime"],
    )];
    for name in ["crun", "runc"] {
        if shell::is_installed(name) {
            runtimes.push(Runtime::new(name, name, &[]));
        } else {
            shell::print(&format!("{name}: not installed"));
        }
    }
    measure("run of /bin/true", &runtimes, |runtime| {
        runtime.succeed(&bundle, &["run", "bench"])
    })?;
    measure("create, start, delete of /bin/true", &runtimes, |runtime| {
        let pid_file = bundle.path().join("pid").display().to_string();
        runtime.succeed(&bundle, &["create", "--pid-file", &pid_file, "bench"])?;
        runtime.succeed(&bundle, &["start", "bench"])?;
        let pid = std::fs::read_to_string(&pid_file).map_err(|error| error.to_string())?;
        let pid = pid.trim().parse().map_err(|_| "no pid in the pid file")?;
        waitpid(Pid::from_raw(pid), None).map_err(|error| format!("waitpid: {error}"))?;
        runtime.succeed(&bundle, &["delete", "bench"])
    })?;
    for runtime in &runtimes {
        bundle.configure(&["/bin/sleep", "3600"], &runtime.target(), None)?;
        runtime.succeed(&bundle, &["create", &runtime.target()])?;
        runtime.succeed(&bundle, &["start", &runtime.target()])?;
    }
    let executed = measure("exec of /bin/true", &runtimes, |runtime| {
        runtime.succeed(&bundle, &["exec", &runtime.target(), "/bin/true"])
    });
    for runtime in &runtimes {
        runtime.succeed(&bundle, &["delete", "--force", &runtime.target()])?;
    }
    executed?;
    bundle.configure(&["/bin/true"], "bench", None)?;
    parallel(&bundle, &runtimes)?;
    least_memory(&bundle, &runtimes)
}

/// A runtime's command line.
struct Runtime {
    name: String,
    program: String,
    first: Vec<String>,
}

impl Runtime {
    fn new(name: &str, program: &str, first: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            first: first.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    /// The name of its container for further processes.
    fn target(&self) -> String {
        format!("bench-{}", self.name.replace(' ', "-"))
    }

    fn command(&self, bundle: &Bundle, arguments: &[&str]) -> Command {
        let mut command = shell::quiet(&self.program);
        command.args(&self.first).args(arguments);
        command.current_dir(bundle.path());
        command
    }

    fn succeed(&self, bundle: &Bundle, arguments: &[&str]) -> Result<()> {
        match self.command(bundle, arguments).status() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(format!("{} {} failed", self.name, arguments.join(" "))),
        }
    }
}

/// The bundle that all of them run.
struct Bundle {
    directory: TemporaryDirectory,
    config: Value,
}

impl Bundle {
    /// The configuration of a container of hull's own engine, with a plain root.
    fn new(hull: &Path) -> Result<Self> {
        let directory = TemporaryDirectory::new("hull-bench-bundle")?;
        write_busybox(&directory.path.join("rootfs"))?;
        let engine = Engine::hull(hull)?;
        engine.client(&["run", "-d", "--name", "target", "busybox", "sleep", "3600"])?;
        let containers = engine.run_root().join("containers");
        let entries = std::fs::read_dir(&containers).map_err(|error| error.to_string())?;
        let container = { entries.flatten() }.next().ok_or("no container")?.path();
        let config =
            std::fs::read(container.join("config.json")).map_err(|error| error.to_string())?;
        let config = serde_json::from_slice(&config).map_err(|error| error.to_string())?;
        let mut bundle = Self { directory, config };
        bundle.complete(&container)?;
        bundle.configure(&["/bin/true"], "bench", None)?;
        Ok(bundle)
    }

    fn path(&self) -> &Path {
        &self.directory.path
    }

    /// Takes out what lies in the engine's directory, and adds bind mounts until there are enough paths.
    fn complete(&mut self, container: &Path) -> Result<()> {
        let own = container.display().to_string();
        let config = &mut self.config;
        // The highest version that the older runtimes know.
        config["ociVersion"] = json!("1.0.2");
        let covered = ["maskedPaths", "readonlyPaths"]
            .map(|key| config["linux"][key].as_array().map_or(0, Vec::len));
        let covered: usize = covered.iter().sum();
        let mounts = config["mounts"].as_array_mut().ok_or("no mounts")?;
        mounts.retain(|mount| {
            !mount["source"]
                .as_str()
                .unwrap_or_default()
                .starts_with(&own)
        });
        for number in covered..PATHS {
            let source = self.directory.path.join(format!("bound-{number}"));
            std::fs::write(&source, "").map_err(|error| error.to_string())?;
            mounts.push(json!({
                "destination": format!("/tmp/bound-{number}"),
                "type": "bind",
                "source": source,
                "options": ["rbind", "rprivate", "ro"],
            }));
        }
        Ok(())
    }

    /// Writes the configuration for a program in a cgroup, with a limit of memory in bytes.
    fn configure(&self, arguments: &[&str], cgroup: &str, memory: Option<u64>) -> Result<()> {
        let mut config = self.config.clone();
        config["linux"]["cgroupsPath"] = json!(format!("{CGROUP}/{cgroup}"));
        config["process"]["args"] = json!(arguments);
        if let Some(limit) = memory {
            config["linux"]["resources"]["memory"] = json!({"limit": limit});
        }
        std::fs::write(self.path().join("config.json"), config.to_string())
            .map_err(|error| error.to_string())
    }

    /// A copy with a cgroup of its own.
    fn copy(&self, number: usize) -> Result<PathBuf> {
        let directory = self.path().join(format!("copy-{number}"));
        std::fs::create_dir(&directory).map_err(|error| error.to_string())?;
        let mut config = self.config.clone();
        config["linux"]["cgroupsPath"] = json!(format!("{CGROUP}/{number}"));
        config["process"]["args"] = json!(["/bin/true"]);
        config["root"]["path"] = json!(self.path().join("rootfs"));
        std::fs::write(directory.join("config.json"), config.to_string())
            .map_err(|error| error.to_string())?;
        Ok(directory)
    }
}

/// Wall and CPU times of one contender.
#[derive(Default)]
struct Times {
    wall: Vec<Duration>,
    cpu: Vec<Duration>,
}

/// Times all of them in turns and prints medians.
fn measure(title: &str, runtimes: &[Runtime], act: impl Fn(&Runtime) -> Result<()>) -> Result<()> {
    let mut times: Vec<Times> = runtimes.iter().map(|_| Times::default()).collect();
    for round in 0..=ROUNDS {
        for (runtime, times) in runtimes.iter().zip(&mut times) {
            let (before, start) = (cpu_time()?, Instant::now());
            act(runtime)?;
            let wall = start.elapsed();
            reap()?;
            // The first round warms up.
            if round > 0 {
                times.wall.push(wall);
                times.cpu.push(cpu_time()?.saturating_sub(before));
            }
        }
    }
    let names = || runtimes.iter().map(|runtime| runtime.name.as_str());
    let (wall, cpu) = times
        .into_iter()
        .map(|times| (times.wall, times.cpu))
        .unzip::<_, _, Vec<_>, Vec<_>>();
    super::print_table(&format!("runtime alone, {title}"), names().zip(wall));
    super::print_table("  of that, on a CPU", names().zip(cpu));
    Ok(())
}

/// Reaps what the runtimes left to this process.
fn reap() -> Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(nix::sys::wait::WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => {
                return Ok(());
            }
            Ok(_) => {}
            Err(error) => return Err(format!("waitpid: {error}")),
        }
    }
}

/// CPU time of all children that were waited for.
fn cpu_time() -> Result<Duration> {
    let usage =
        getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|error| format!("getrusage: {error}"))?;
    let microseconds = [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() * 1_000_000 + time.tv_usec())
        .sum::<i64>();
    Ok(Duration::from_micros(microseconds.unsigned_abs()))
}

/// Runs many at once, and counts those that fail.
fn parallel(bundle: &Bundle, runtimes: &[Runtime]) -> Result<()> {
    let bundles = (0..PARALLEL)
        .map(|number| bundle.copy(number))
        .collect::<Result<Vec<_>>>()?;
    shell::print(&format!(
        "\nruntime alone, {PARALLEL} run of /bin/true at once"
    ));
    for runtime in runtimes {
        let start = Instant::now();
        let mut children: Vec<Child> = Vec::new();
        for (number, directory) in bundles.iter().enumerate() {
            let mut command = runtime.command(bundle, &["run", &format!("bench-{number}")]);
            command.current_dir(directory);
            children.push(command.spawn().map_err(|error| error.to_string())?);
        }
        let mut failed = 0;
        for child in &mut children {
            let status = child.wait().map_err(|error| error.to_string())?;
            failed += usize::from(!status.success());
        }
        let took = start.elapsed().as_secs_f64() * 1e3;
        shell::print(&format!(
            "  {:<22} {took:8.2} ms   {failed} failed",
            runtime.name
        ));
    }
    Ok(())
}

/// Finds the smallest limit of memory under which the container runs, by halving.
fn least_memory(bundle: &Bundle, runtimes: &[Runtime]) -> Result<()> {
    shell::print("\nruntime alone, least memory limit of /bin/true");
    for runtime in runtimes {
        let (mut low, mut high) = MEMORY_KIB;
        while high - low > 16 {
            let middle = u64::midpoint(low, high);
            bundle.configure(&["/bin/true"], "bench", Some(middle << 10))?;
            if runtime.succeed(bundle, &["run", "bench"]).is_ok() {
                high = middle;
            } else {
                low = middle;
            }
            // What a failed run left.
            let _ = runtime.succeed(bundle, &["delete", "--force", "bench"]);
        }
        shell::print(&format!("  {:<22} {high} KiB", runtime.name));
    }
    Ok(())
}
