//! A registry on a free port of this machine: Debian's docker-registry.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a registry may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// `me` and `secret`, as htpasswd(1) has them.
const PASSWORDS: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A running registry; its content goes with it.
pub struct Registry {
    pub address: String,
    directory: tempfile::TempDir,
    child: Child,
}

impl Registry {
    /// A registry for everybody.
    pub fn open() -> Self {
        Self::start("")
    }

    /// A registry for `me` with the password `secret`.
    pub fn locked() -> Self {
        Self::start("auth: {htpasswd: {realm: here, path: DIRECTORY/passwords}}\n")
    }

    fn start(more: &str) -> Self {
        // Another program may take the port before the registry does: then the next one is tried.
        for _ in 0..5 {
            let directory = tempfile::tempdir().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            drop(listener);
            let root = directory.path().display().to_string();
            let config = format!(
                "version: 0.1\nlog: {{accesslog: {{disabled: false}}}}\n\
                 storage: {{filesystem: {{rootdirectory: DIRECTORY/data}}}}\nhttp: {{addr: \"{address}\"}}\n{more}"
            );
            std::fs::write(directory.path().join("passwords"), PASSWORDS).unwrap();
            let path = directory.path().join("config.yml");
            std::fs::write(&path, config.replace("DIRECTORY", &root)).unwrap();
            let log = std::fs::File::create(directory.path().join("log")).unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&path)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .expect("docker-registry is installed");
            let deadline = Instant::now() + START_TIMEOUT;
            while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
                if std::net::TcpStream::connect(&address).is_ok() {
                    return Self {
                        address,
                        directory,
                        child,
                    };
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        panic!("docker-registry does not start");
    }

    /// The name of an image here.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// What was asked of it so far: lines of its access log that have all of these texts.
    pub fn asked(&self, texts: &[&str]) -> usize {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
        let access = log.lines().filter(|line| line.starts_with("127.0.0.1 - "));
        access
            .filter(|line| texts.iter().all(|text| line.contains(text)))
            .count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has seen by then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
