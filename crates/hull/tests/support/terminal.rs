//! A client at a terminal of its own.

use super::{Engine, WAIT};
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A command line that runs at a terminal, by `script`.
pub struct Terminal {
    child: Child,
    shown: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Terminal {
    pub fn new(engine: &Engine, line: &str) -> Self {
        let limited = ["--foreground", "-k", "5", "200", "script", "-qec", line];
        let mut command = engine.client("timeout", &[&limited[..], &["/dev/null"]].concat());
        command.env("TERM", "xterm").stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let all = Arc::clone(&shown);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                all.lock().unwrap().push_str(&text);
            }
        });
        Self {
            child,
            shown,
            reader: Some(reader),
        }
    }

    /// What was shown until now.
    pub fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Waits until something is shown.
    pub fn until(&self, text: &str) {
        let deadline = Instant::now() + WAIT;
        while !self.shown().contains(text) {
            let shown = self.shown();
            assert!(Instant::now() < deadline, "no {text:?} in\n{shown}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    pub fn types(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    /// Waits for its end: the exit code, and all that was shown.
    pub fn end(mut self) -> (i32, String) {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        self.reader.take().unwrap().join().unwrap();
        (code, self.shown())
    }
}
