//! What ADD fetches: files over HTTP, and a repository over git's own protocol, both on the loopback device.

use super::output;
use crate::Result;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is served is made by this, the same whenever it is made.
const MAKE: &str = r#"set -e
    mkdir -p web repositories tree/dir; cd tree
    echo content > file; ln file dir/hard; ln -s ../file dir/soft; mkfifo -m 600 dir/pipe; chmod 4755 file
    find . -depth -exec touch -h -d @1600000000 {} +; cd ..
    for way in gzip xz bzip2; do tar --sort=name --owner=5 --group=6 --use-compress-program="$way" -cf "web/tree.tar.$way" -C tree .; done
    echo 'a file of the web' > web/file.txt
    export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_CONFIG_GLOBAL=/dev/null
    git init -q -b main r; cd r; git config user.email a@example.org; git config user.name a
    mkdir -p src/deep; echo one > src/file; echo '#!/bin/sh' > src/deep/run; chmod 755 src/deep/run; ln -s file src/link
    git add -A; git commit -qm one; git tag v1; echo two > src/file; git commit -qam two
    git clone -q --bare . ../repositories/r.git"#;
/// How long the repository may take to be served.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// When all files were changed last, as HTTP says it.
const MODIFIED: &str = "Sun, 13 Sep 2020 12:26:40 GMT";

/// Both servers.
pub(super) struct Served {
    web: u16,
    git: u16,
    daemon: Child,
}

impl Served {
    pub(super) fn start(work: &Path) -> Result<Self> {
        output(Command::new("sh").args(["-c", MAKE]).current_dir(work))?;
        let failed = |error: std::io::Error| format!("cannot serve files: {error}");
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let web = listener.local_addr().map_err(failed)?.port();
        let directory = work.join("web");
        std::thread::spawn(move || serve(&listener, &directory));
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let git = free.map_err(failed)?.port();
        let base = format!("--base-path={}", work.join("repositories").display());
        let daemon = Command::new("git")
            .args([
                "daemon",
                "--export-all",
                "--listen=127.0.0.1",
                &format!("--port={git}"),
                &base,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let daemon = daemon.map_err(|error| format!("cannot run git: {error}"))?;
        let served = Self { web, git, daemon };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", git)).is_err() {
            if Instant::now() > deadline {
                return Err("git daemon does not answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(served)
    }

    /// The address that files are below.
    pub(super) fn web(&self) -> String {
        format!("http://127.0.0.1:{}", self.web)
    }

    /// The address of the repository.
    pub(super) fn repository(&self) -> String {
        format!("git://127.0.0.1:{}/r.git", self.git)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // `git daemon` is a process of its own below `git`, which passes a signal on.
        let pid = i32::try_from(self.daemon.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.daemon.wait();
    }
}

/// Answers one request after the other, for as long as the process lives.
fn serve(listener: &TcpListener, directory: &Path) {
    for stream in listener.incoming().flatten() {
        // Who does not want the answer does not get it.
        let _ = answer(stream, directory.to_owned());
    }
}

fn answer(mut stream: TcpStream, directory: PathBuf) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request
        .split(' ')
        .nth(1)
        .unwrap_or("/")
        .trim_start_matches('/')
        .to_owned();
    let (status, body) = match std::fs::read(directory.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nLast-Modified: {MODIFIED}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    if !request.starts_with("HEAD") {
        stream.write_all(&body)?;
    }
    Ok(())
}
