//! Docker's buildx, and a directory that it builds by an engine.

use super::{Engine, Said, said};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory to build, and the engine that does.
pub struct Bench {
    pub engine: Engine,
    pub context: PathBuf,
}

impl Bench {
    /// With a Dockerfile and files beside it.
    pub fn new(dockerfile: &str, files: &[(&str, &str)]) -> Self {
        let engine = Engine::new();
        let context = engine.path("context");
        let bench = Self { engine, context };
        bench.write("context/Dockerfile", dockerfile);
        for (path, content) in files {
            bench.write(&format!("context/{path}"), content);
        }
        bench
    }

    /// Writes a file in the engine's directory.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.engine.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> String {
        self.engine.path(name).display().to_string()
    }

    /// A command of buildx.
    pub fn buildx(&self, arguments: &[&str]) -> Command {
        let program = program().display().to_string();
        let limited = ["--foreground", "-k", "5", "120", &program];
        let mut command = self
            .engine
            .client("timeout", &[&limited[..], arguments].concat());
        command
            .env("DOCKER_CONFIG", self.engine.path("docker-config"))
            .env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")
            .stdin(Stdio::null());
        command
    }

    /// Builds; what was said.
    pub fn try_build(&self, arguments: &[&str]) -> Said {
        let context = self.context.display().to_string();
        let arguments = [&["build", "--progress", "plain"], arguments, &[&context]].concat();
        said(self.buildx(&arguments).output().unwrap())
    }

    /// Builds as `t`; what was shown.
    pub fn build(&self, arguments: &[&str]) -> String {
        let said = self.try_build(&[&["-t", "t"], arguments].concat());
        assert_eq!(
            said.code,
            0,
            "{}\nengine: {}",
            said.stderr,
            self.engine.log()
        );
        said.stderr
    }

    /// Builds in vain; what was said.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let said = self.try_build(arguments);
        assert_ne!(said.code, 0, "{}", said.stderr);
        self.assert_clean();
        said.stderr
    }

    /// What a command says in a container of `t`.
    pub fn shell(&self, script: &str) -> String {
        let run = ["run", "--rm", "--network", "none", "t", "sh", "-c", script];
        self.engine.ok(&run)
    }

    /// No container, snapshot, secret or temporary file is left.
    pub fn assert_clean(&self) {
        self.engine.until("containers go", || {
            self.engine.ok(&["ps", "-aq"]).is_empty()
        });
        for directory in ["data/tmp", "run/build-secrets"] {
            let path = self.engine.path(directory);
            let is_empty = || std::fs::read_dir(&path).map_or(true, |mut all| all.next().is_none());
            self.engine.until("temporary files go", is_empty);
        }
        self.engine.assert_nothing_left();
    }
}

/// The program buildx.
pub fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/docker-buildx");
    assert!(
        program.exists(),
        "`cargo xtask test` downloads docker-buildx"
    );
    program
}

/// All parts are in a text.
pub fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}
