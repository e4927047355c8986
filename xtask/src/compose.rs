//! `cargo xtask compose`: a project of five services by the Compose plugin, version 2, as the next Debian has it.
//!
//! The plugin is installed in a root of its own in target/, and is run in it: the packages of this machine stay as they are.

use crate::engine::Engine;
use crate::{Result, install_missing, shell};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release that has version 2.
const SUITE: &str = "trixie";
/// How long one command of the plugin may take.
const COMMAND_TIMEOUT: &str = "120";

/// What is said, and what the answer has to have; nothing at all, where nothing is expected.
const STEPS: [(&str, &[&str]); 17] = [
    ("up -d", &["shop-db-1  Healthy", "shop-web-1  Started"]),
    (
        "ps -a --format {{.Service}}:{{.State}}:{{.Health}}:{{.ExitCode}}",
        &[
            "db:running:healthy:0",
            "migrate:exited::0",
            "api:running::0",
        ],
    ),
    ("logs --no-log-prefix migrate", &["stored", "s3cret"]),
    ("exec -T web wget -q -O- http://api:8080/", &["first"]),
    ("exec -T web cat /etc/web.conf", &["settings of the shop"]),
    ("exec -T web ping -c 1 -W 1 db", &["bad address"]),
    ("exec -T debug true", &["not running"]),
    ("port web 80", &["127.0.0.1:18080"]),
    ("up -d --scale api=3", &["shop-api-3  Started"]),
    ("exec -T --index 3 api wget -q -O- http://www/", &["seen"]),
    ("--profile debug up -d debug", &["shop-debug-1  Started"]),
    ("stop -t 0 api", &["shop-api-1  Stopped"]),
    ("start api", &["shop-api-1  Started"]),
    ("run --rm -T debug echo one-off", &["one-off"]),
    ("kill web", &["shop-web-1  Killed"]),
    (
        "--profile debug down -v -t 0",
        &["Volume shop_stored  Removed", "Network shop_front  Removed"],
    ),
    ("ps -aq", &[]),
];

/// Brings the project up, changes it, and takes it down.
pub(crate) fn run(root: &Path) -> Result<()> {
    let place = root.join("target/compose");
    let project = place.join("project");
    std::fs::create_dir_all(&project).map_err(|error| format!("{}: {error}", project.display()))?;
    let plugin = Plugin {
        root: install(&place)?,
        project,
    };
    plugin.write("compose.yaml", include_str!("compose/compose.yaml"))?;
    plugin.write("password", "s3cret\n")?;
    let engine = Engine::start(root, &place)?;
    engine.make_image()?;
    for (words, expected) in STEPS {
        plugin.says(&engine, "first", words, expected)?;
        if words == "up -d" {
            seen(&engine)?;
            // What has changed is made anew, and nothing else.
            plugin.says(
                &engine,
                "second",
                "up -d",
                &["shop-api-1  Recreated", "shop-db-1  Healthy"],
            )?;
            plugin.says(
                &engine,
                "second",
                "exec -T web wget -q -O- http://api:8080/",
                &["second"],
            )?;
            plugin.says(&engine, "first", "up -d", &["shop-api-1  Recreated"])?;
        }
    }
    let (_, networks) = engine.client(&["network", "ls", "--format", "{{.Name}}"])?;
    let (_, volumes) = engine.client(&["volume", "ls", "-q"])?;
    if networks.lines().count() != 3 || !volumes.is_empty() {
        return Err(format!("something is left:\n{networks}{volumes}"));
    }
    shell::print("compose: a project of five services came, changed and went");
    Ok(())
}

/// The published port, from outside of the containers.
fn seen(engine: &Engine) -> Result<()> {
    let mut command = Command::new("nsenter");
    command.args([
        &engine.network(),
        "curl",
        "-sS",
        "--max-time",
        "10",
        "http://127.0.0.1:18080/",
    ]);
    let output = command
        .output()
        .map_err(|error| format!("cannot run nsenter: {error}"))?;
    match output.stdout.starts_with(b"seen") {
        true => Ok(()),
        false => Err(format!("the published port does not answer: {output:?}")),
    }
}

/// Installs the plugin, once.
fn install(place: &Path) -> Result<PathBuf> {
    install_missing(&[("mmdebstrap", "mmdebstrap")])?;
    let tree = place.join("root");
    let ready = place.join("ready");
    if ready.exists() {
        return Ok(tree);
    }
    // What an interrupted run has left.
    if tree.exists() {
        std::fs::remove_dir_all(&tree).map_err(|error| format!("{}: {error}", tree.display()))?;
    }
    let tree_path = tree.display().to_string();
    let mut arguments = vec![
        "--quiet",
        "--variant=essential",
        "--include=docker-compose",
        SUITE,
        &tree_path,
    ];
    let mirror = mirror()?;
    arguments.extend(mirror.as_deref());
    shell::run("mmdebstrap", &arguments)?;
    std::fs::write(&ready, "").map_err(|error| format!("{}: {error}", ready.display()))?;
    Ok(tree)
}

/// Debian's mirror that this machine takes its packages from, if it names one.
pub(crate) fn mirror() -> Result<Option<String>> {
    let mut command = Command::new("apt-get");
    command.args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
    ]);
    let output = command
        .output()
        .map_err(|error| format!("cannot run apt-get: {error}"))?;
    let addresses = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut addresses = addresses.lines();
    let debians = addresses.find(|address| address.trim_end_matches('/').ends_with("debian"));
    Ok(debians.map(str::to_owned))
}

/// The plugin, in a root of its own.
struct Plugin {
    root: PathBuf,
    project: PathBuf,
}

impl Plugin {
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.project.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Runs a command, which has to say what is expected.
    fn says(&self, engine: &Engine, mode: &str, words: &str, expected: &[&str]) -> Result<()> {
        // The project and the engine's socket are where they are outside, in mounts that only this command has.
        let script = r#"set -e
            for dir in "$2" "$3"; do mkdir -p "$1$dir"; mount --bind "$dir" "$1$dir"; done
            mount -t proc proc "$1/proc"
            root=$1 project=$2; shift 3
            exec chroot "$root" env HOME=/root "$@" --project-directory "$project" -f "$project/compose.yaml" $WORDS"#;
        let socket = engine.host.trim_start_matches("unix://");
        let run = Path::new(socket).parent().unwrap_or(Path::new("/"));
        let mut command = Command::new("nsenter");
        command
            .args([
                &engine.network(),
                "unshare",
                "--mount",
                "sh",
                "-c",
                script,
                "compose",
            ])
            .args([&self.root, &self.project, run])
            .arg(format!("DOCKER_HOST={}", engine.host))
            .arg(format!("MODE={mode}"))
            .args([
                "timeout",
                "--kill-after",
                "5",
                COMMAND_TIMEOUT,
                "docker-compose",
            ])
            .env("WORDS", words)
            .stdin(Stdio::null());
        let output = command
            .output()
            .map_err(|error| format!("cannot run nsenter: {error}"))?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        match expected.iter().find(|text| !said.contains(*text)) {
            Some(text) => Err(format!("compose {words}: there is no {text:?} in\n{said}")),
            None if expected.is_empty() && !said.is_empty() => {
                Err(format!("compose {words}: {said}"))
            }
            None => Ok(()),
        }
    }
}
