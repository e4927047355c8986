//! A build as lines: `#3 [2/5] RUN make`, what it says with seconds before it, and how it ended. The lines of what goes on at the
//! same time are kept together as far as nobody waits for them.
//!
//! Source: moby/buildkit `util/progress/progressui/printer.go`.

use super::trace::{CANCELED, Part, Status, Vertex};
use crate::error::Result;
use crate::output;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long what goes on beside the vertex that is shown is held back.
const HELD_BACK: Duration = Duration::from_secs(5);
/// How often the bytes of a part are told.
const BYTES_INTERVAL: Duration = Duration::from_secs(5);
/// Lines of a failed vertex that are told again in the end.
const FAILED_LINES: usize = 10;

/// A build as lines.
#[derive(Debug, Default)]
pub(super) struct Plain {
    vertexes: BTreeMap<String, Shown>,
    /// In the order in which they have begun.
    order: Vec<String>,
    /// Those that have ended and are not told of yet.
    ended: Vec<String>,
    /// The one whose lines were written last, if it goes on.
    current: Option<String>,
    /// How many have a number.
    numbers: usize,
}

/// A vertex.
#[derive(Debug)]
struct Shown {
    vertex: Vertex,
    /// 0: it has none yet.
    number: usize,
    /// Lines that are not written yet, and since when there are any.
    lines: Vec<String>,
    since: Instant,
    /// What it has said without the end of the line.
    rest: Vec<u8>,
    /// The last lines that it has said.
    said: Vec<String>,
    /// When the bytes of its parts were told.
    parts: BTreeMap<String, Instant>,
}

impl Shown {
    fn line(&mut self, line: String) {
        if self.lines.is_empty() {
            self.since = Instant::now();
        }
        self.lines.push(line);
    }

    fn say(&mut self, time: Option<Timestamp>, data: &[u8]) {
        self.rest.extend_from_slice(data);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return;
        };
        let rest = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, rest);
        self.say_lines(time, &lines);
    }

    fn say_lines(&mut self, time: Option<Timestamp>, lines: &[u8]) {
        let since = self.vertex.started.zip(time);
        let seconds = since.map_or(0.0, |(started, now)| {
            now.duration_since(started).as_secs_f64()
        });
        let digits = match seconds {
            seconds if seconds < 10.0 => 3,
            seconds if seconds < 100.0 => 2,
            _ => 1,
        };
        for line in String::from_utf8_lossy(lines).lines() {
            let line = format!("{seconds:.digits$} {line}");
            self.said.push(line.clone());
            self.line(line);
        }
        let extra = self.said.len().saturating_sub(FAILED_LINES);
        self.said.drain(..extra);
    }

    fn part(&mut self, part: &Part) {
        let told = self.parts.get(&part.id);
        if part.completed.is_none() && told.is_some_and(|told| told.elapsed() < BYTES_INTERVAL) {
            return;
        }
        self.parts.insert(part.id.clone(), Instant::now());
        let bytes = counted(part);
        let seconds = match part.seconds() {
            seconds if seconds > 0.01 => format!(" {seconds:.1}s"),
            _ => String::new(),
        };
        let done = if part.completed.is_some() {
            " done"
        } else {
            ""
        };
        self.line(format!("{}{bytes}{seconds}{done}", part.id));
    }

    /// How it has ended.
    fn end(&self) -> String {
        match &self.vertex {
            vertex if vertex.error.ends_with(CANCELED) => "CANCELED".to_owned(),
            vertex if !vertex.error.is_empty() => format!("ERROR: {}", vertex.error),
            vertex if vertex.cached => "CACHED".to_owned(),
            vertex => format!("DONE {:.1}s", vertex.seconds()),
        }
    }
}

/// The bytes of a part behind its name, where they are counted.
pub(super) fn counted(part: &Part) -> String {
    match part.current {
        0 => String::new(),
        bytes => format!(" {}", size(bytes)),
    }
}

/// Bytes as BuildKit writes them: `2.10MB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes}B"),
        _ => format!("{value:.2}{}", UNITS[unit]),
    }
}

impl Plain {
    /// Takes a change.
    pub(super) fn update(&mut self, status: &Status) -> Result<()> {
        output::write_stderr(self.text(status).as_bytes())
    }

    /// Writes what has waited.
    pub(super) fn tick(&mut self) -> Result<()> {
        output::write_stderr(self.text(&Status::default()).as_bytes())
    }

    /// What a change has written.
    fn text(&mut self, status: &Status) -> String {
        for vertex in &status.vertexes {
            self.vertex(vertex);
        }
        for part in &status.statuses {
            if let Some(shown) = self.vertexes.get_mut(&part.vertex) {
                shown.part(part);
            }
        }
        for warning in &status.warnings {
            let text = String::from_utf8_lossy(&warning.short);
            let shown = self.vertexes.get_mut(&warning.vertex);
            // What comes after the end is told in the end of all.
            if let Some(shown) = shown.filter(|shown| shown.vertex.completed.is_none()) {
                shown.line(format!("WARN: {text}"));
            }
        }
        for log in &status.logs {
            if let Some(shown) = self.vertexes.get_mut(&log.vertex) {
                shown.say(log.timestamp, &log.data);
            }
        }
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn vertex(&mut self, vertex: &Vertex) {
        let shown = match self.vertexes.get_mut(&vertex.digest) {
            Some(shown) => {
                shown.vertex = vertex.clone();
                shown
            }
            None => {
                self.order.push(vertex.digest.clone());
                let shown = Shown {
                    vertex: vertex.clone(),
                    number: 0,
                    lines: Vec::new(),
                    since: Instant::now(),
                    rest: Vec::new(),
                    said: Vec::new(),
                    parts: BTreeMap::new(),
                };
                self.vertexes.entry(vertex.digest.clone()).or_insert(shown)
            }
        };
        if let Some(completed) = vertex.completed {
            let rest = std::mem::take(&mut shown.rest);
            shown.say_lines(Some(completed), &rest);
            self.ended.push(vertex.digest.clone());
        }
    }

    fn write(&mut self, text: &mut String) {
        if let Some(current) = self.current.clone()
            && !self.ended.contains(&current)
        {
            self.lines_of(&current, text);
        }
        // What has ended has nothing to wait for; the current one first.
        let mut ended = std::mem::take(&mut self.ended);
        ended.sort_by_key(|digest| Some(digest) != self.current.as_ref());
        for digest in ended {
            self.switch(&digest, text);
            self.lines_of(&digest, text);
            let shown = &self.vertexes[&digest];
            text.push_str(&format!("#{} {}\n", shown.number, shown.end()));
            self.current = None;
        }
        let waits = |digest: &&String| {
            let shown = &self.vertexes[*digest];
            let goes = shown.vertex.completed.is_none() && Some(*digest) != self.current.as_ref();
            let is_due = self.current.is_none() || shown.since.elapsed() >= HELD_BACK;
            goes && is_due && (shown.number == 0 || !shown.lines.is_empty())
        };
        let next = self.order.iter().find(waits).cloned();
        if let Some(next) = next {
            self.switch(&next, text);
            self.lines_of(&next, text);
        }
    }

    /// Writes what says whose lines follow.
    fn switch(&mut self, digest: &str, text: &mut String) {
        if self.current.as_deref() == Some(digest) {
            return;
        }
        if let Some(old) = self.current.take() {
            text.push_str(&format!("#{} ...\n", self.vertexes[&old].number));
        }
        let is_first = self.numbers == 0;
        let shown = self.vertexes.get_mut(digest).expect("it was told of");
        if shown.number == 0 {
            self.numbers += 1;
            shown.number = self.numbers;
        }
        let blank = if is_first { "" } else { "\n" };
        let name = shown.vertex.name.lines().next().unwrap_or_default();
        text.push_str(&format!("{blank}#{} {name}\n", shown.number));
        self.current = Some(digest.to_owned());
    }

    fn lines_of(&mut self, digest: &str, text: &mut String) {
        let shown = self.vertexes.get_mut(digest).expect("it was told of");
        let number = shown.number;
        for line in shown.lines.drain(..) {
            text.push_str(&format!("#{number} {line}\n"));
        }
    }

    /// What failed vertexes have said last.
    pub(super) fn failed(&self) -> String {
        let all = self.order.iter().map(|digest| &self.vertexes[digest]);
        let failed = all.filter(|shown| {
            let error = &shown.vertex.error;
            !error.is_empty() && !error.ends_with(CANCELED)
        });
        let told = failed.map(|shown| {
            let lines: String = shown.said.iter().map(|line| format!("{line}\n")).collect();
            format!("------\n > {}:\n{lines}------\n", shown.vertex.name)
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace::Log;
    use super::*;

    fn vertex(digest: &str) -> Vertex {
        Vertex {
            digest: digest.to_owned(),
            name: format!("step {digest}"),
            started: Some(Timestamp::UNIX_EPOCH),
            ..Vertex::default()
        }
    }

    fn began(digest: &str) -> Status {
        Status {
            vertexes: vec![vertex(digest)],
            ..Status::default()
        }
    }

    fn ended(digest: &str, error: &str) -> Status {
        let vertex = Vertex {
            completed: Some(Timestamp::UNIX_EPOCH),
            error: error.to_owned(),
            ..vertex(digest)
        };
        Status {
            vertexes: vec![vertex],
            ..Status::default()
        }
    }

    fn said(digest: &str, text: &str) -> Status {
        let log = Log {
            vertex: digest.to_owned(),
            stream: 1,
            data: text.as_bytes().to_vec(),
            timestamp: Some(Timestamp::UNIX_EPOCH + Duration::from_secs(12)),
        };
        Status {
            logs: vec![log],
            ..Status::default()
        }
    }

    #[test]
    fn lines_of_one_vertex_stay_together() {
        let mut plain = Plain::default();
        let mut text = String::new();
        for status in [
            began("a"),
            began("b"),
            said("b", "1\n2\n"),
            said("a", "x"),
            said("a", "y\nz"),
            ended("a", ""),
            said("b", "3\n"),
            ended("b", "no"),
        ] {
            text.push_str(&plain.text(&status));
        }
        assert_eq!(
            text,
            "#1 step a\n#1 12.00 xy\n#1 0.000 z\n#1 DONE 0.0s\n\n#2 step b\n#2 12.00 1\n#2 12.00 2\n#2 12.00 3\n#2 ERROR: no\n"
        );
        assert_eq!(
            plain.failed(),
            "------\n > step b:\n12.00 1\n12.00 2\n12.00 3\n------\n"
        );
    }

    #[test]
    fn what_has_ended_is_told_beside_what_goes_on() {
        let mut plain = Plain::default();
        let mut text = String::new();
        for status in [
            began("a"),
            began("b"),
            ended("b", CANCELED),
            said("a", "1\n"),
            ended("a", ""),
        ] {
            text.push_str(&plain.text(&status));
        }
        assert_eq!(
            text,
            "#1 step a\n#1 ...\n\n#2 step b\n#2 CANCELED\n\n#1 step a\n#1 12.00 1\n#1 DONE 0.0s\n"
        );
    }

    #[test]
    fn bytes_are_written_as_buildkit_writes_them() {
        let sizes = [
            (0, "0B"),
            (999, "999B"),
            (2_100_000, "2.10MB"),
            (1_500, "1.50kB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
    }
}
