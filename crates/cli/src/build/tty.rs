//! A build on a terminal: its steps with their times, redrawn while they go on, the last lines of what they say below them.
//!
//! Invariant: nothing that a build says moves the cursor or changes the terminal: control characters are left out. What is drawn
//! is never higher than the terminal, so that it can be drawn over.

use super::plain::{Summary, findings};
use crate::error::Result;
use crate::output;
use api_types::{BuildEvent, BuildFinding};
use rustix::termios;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Instant;

/// Lines of a step's output that are shown while it goes on.
const OUTPUT_LINES: usize = 6;
/// Lines of a failed step's output that are shown in the end.
const FAILED_LINES: usize = 100;
/// Where the terminal does not tell.
const COLUMNS: usize = 80;
const ROWS: usize = 24;
/// Columns for the time at the end of a line.
const TIME_COLUMNS: usize = 8;
/// Goes to the start of a line, and clears it.
const CLEAR_LINE: &str = "\r\u{1b}[2K";
/// Clears what is below.
const CLEAR_BELOW: &str = "\u{1b}[J";

/// What is drawn.
#[derive(Debug)]
pub(crate) struct Screen {
    begun: Instant,
    planned: usize,
    ended: usize,
    lines: Vec<Line>,
    /// The lines of steps, and of what else goes on.
    steps: BTreeMap<usize, usize>,
    tasks: BTreeMap<String, usize>,
    notes: Vec<String>,
    found: Vec<BuildFinding>,
    summary: Summary,
    /// Lines on the terminal that are to be drawn over.
    drawn: usize,
}

/// A step or something else that goes on.
#[derive(Debug)]
struct Line {
    text: String,
    begun: Instant,
    state: State,
    /// The last lines of its output.
    output: VecDeque<String>,
    rest: String,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Goes,
    Done { seconds: f64, cached: bool },
    Failed,
}

/// Text without what a terminal obeys.
fn plain(text: &str) -> String {
    // What a program drew over is not shown.
    let last = text
        .rsplit('\r')
        .find(|part| !part.is_empty())
        .unwrap_or_default();
    let mut plain = String::new();
    let mut characters = last.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                // Colours and the like, to their last letter.
                if characters.next_if_eq(&'[').is_some() {
                    while characters.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
                    characters.next();
                }
            }
            '\t' => plain.push_str("    "),
            character if character.is_control() => {}
            character => plain.push(character),
        }
    }
    plain
}

/// At most so many characters.
fn cut(text: &str, columns: usize) -> String {
    match text.chars().count() <= columns {
        true => text.to_owned(),
        false => {
            let kept: String = text.chars().take(columns.saturating_sub(3)).collect();
            format!("{kept}...")
        }
    }
}

impl Line {
    fn new(text: String) -> Self {
        Self {
            text,
            begun: Instant::now(),
            state: State::Goes,
            output: VecDeque::new(),
            rest: String::new(),
        }
    }

    fn said(&mut self, bytes: &[u8]) {
        self.rest.push_str(&String::from_utf8_lossy(bytes));
        while let Some((line, rest)) = self.rest.split_once('\n') {
            self.output.push_back(plain(line));
            self.rest = rest.to_owned();
        }
        let extra = self.output.len().saturating_sub(FAILED_LINES);
        self.output.drain(..extra);
        // A line without an end is not kept without an end.
        if self.rest.len() > 4 * COLUMNS * FAILED_LINES {
            let line = std::mem::take(&mut self.rest);
            self.output.push_back(plain(&line));
        }
    }

    fn drawn(&self, columns: usize) -> String {
        let (mark, seconds) = match &self.state {
            State::Goes => ("", self.begun.elapsed().as_secs_f64()),
            State::Done { seconds, cached } => (if *cached { "CACHED " } else { "" }, *seconds),
            State::Failed => ("ERROR ", self.begun.elapsed().as_secs_f64()),
        };
        let width = columns.saturating_sub(TIME_COLUMNS);
        let text = cut(&format!(" => {mark}{}", self.text), width);
        format!("{text:width$} {:>6}", format!("{seconds:.1}s"))
    }
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            planned: 0,
            ended: 0,
            lines: Vec::new(),
            steps: BTreeMap::new(),
            tasks: BTreeMap::new(),
            notes: Vec::new(),
            found: Vec::new(),
            summary: Summary::default(),
            drawn: 0,
        }
    }

    /// Takes an event; what it changes is drawn with the next [`Screen::draw`].
    pub(crate) fn event(&mut self, event: &BuildEvent) {
        match event {
            BuildEvent::Planned { steps } => self.planned = *steps,
            BuildEvent::Began {
                step,
                stage,
                place,
                text,
            } => {
                if let Some((at, all)) = place {
                    let first = text.lines().next().unwrap_or_default();
                    let shown = plain(&format!("[{stage} {at}/{all}] {first}"));
                    self.steps.insert(*step, self.lines.len());
                    self.lines.push(Line::new(shown));
                    self.summary.began(*step, text);
                }
            }
            BuildEvent::Explained { step, reason } => {
                if let Some(line) = self.steps.get(step) {
                    self.lines[*line].text =
                        format!("{} ({})", self.lines[*line].text, plain(reason));
                }
            }
            BuildEvent::Ended {
                step,
                cached,
                layer_bytes,
            } => {
                self.ended += 1;
                self.summary.ended(*step, *layer_bytes);
                let line = self.steps.get(step).copied();
                self.end(line, None, *cached);
            }
            BuildEvent::Task { name } => {
                self.tasks.insert(name.clone(), self.lines.len());
                self.lines.push(Line::new(plain(name)));
            }
            BuildEvent::TaskEnded { name, error } => {
                let line = self.tasks.remove(name);
                self.end(line, error.as_deref(), false);
            }
            BuildEvent::Warning { text } => self.notes.push(format!("WARNING: {}", plain(text))),
            BuildEvent::Found(finding) => self.found.push(finding.clone()),
            BuildEvent::Built { .. } => self.summary.built(event, self.begun),
            BuildEvent::Output { .. }
            | BuildEvent::Shell { .. }
            | BuildEvent::Agent { .. }
            | BuildEvent::Checked
            | BuildEvent::Answered { .. }
            | BuildEvent::Piece { .. } => {}
        }
    }

    /// Takes what a step says.
    pub(crate) fn output(&mut self, step: usize, bytes: &[u8]) {
        if let Some(line) = self.steps.get(&step) {
            self.lines[*line].said(bytes);
        }
    }

    fn end(&mut self, line: Option<usize>, error: Option<&str>, cached: bool) {
        let Some(line) = line else { return };
        let line = &mut self.lines[line];
        line.state = match error {
            Some(error) => {
                line.text = format!("{}: {}", line.text, plain(error));
                State::Failed
            }
            None => State::Done {
                seconds: line.begun.elapsed().as_secs_f64(),
                cached,
            },
        };
    }

    /// The lines as they are to be seen, at most so many.
    fn view(&self, rows: usize, columns: usize, is_over: bool) -> Vec<String> {
        // The last column stays free: what is in it may wrap.
        let columns = columns.saturating_sub(1);
        let seconds = self.begun.elapsed().as_secs_f64();
        let state = if is_over && self.ended >= self.planned {
            " FINISHED"
        } else {
            ""
        };
        let title = format!(
            "[+] Building {seconds:.1}s ({}/{}){state}",
            self.ended,
            self.planned.max(self.ended)
        );
        let goes = |line: &&Line| line.state == State::Goes && !is_over;
        let open = self.lines.iter().filter(goes);
        let says = open.clone().filter(|line| !line.output.is_empty()).count();
        let room = rows.saturating_sub(2);
        // Whatever goes on has its line before anything has its output.
        let said_max = room.saturating_sub(open.count()) / says.max(1);
        let said_max = said_max.min(OUTPUT_LINES);
        let mut below = Vec::new();
        for line in &self.lines {
            let is_open = goes(&line);
            below.push((is_open, line.drawn(columns)));
            if is_open {
                let skipped = line.output.len().saturating_sub(said_max);
                let said = line.output.iter().skip(skipped);
                below.extend(said.map(|text| (true, cut(&format!(" => => # {text}"), columns))));
            }
        }
        // What has ended scrolls away first; in the end everything is shown.
        let mut surplus = match is_over {
            true => 0,
            false => below.len().saturating_sub(room),
        };
        for is_hidden in [|is_open: bool| !is_open, |_| true] {
            below.retain(|(is_open, _)| {
                let hides = surplus > 0 && is_hidden(*is_open);
                surplus -= usize::from(hides);
                !hides
            });
        }
        let shown = below.into_iter().map(|(_, text)| text);
        std::iter::once(cut(&title, columns)).chain(shown).collect()
    }

    /// Draws over what was drawn before.
    pub(crate) fn draw(&mut self, is_over: bool) -> Result<()> {
        let (rows, columns) = size();
        let lines = self.view(rows, columns, is_over);
        let mut text = String::new();
        if self.drawn > 0 {
            write!(text, "\u{1b}[{}A", self.drawn).expect("a string takes everything");
        }
        for line in &lines {
            text.push_str(CLEAR_LINE);
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(CLEAR_BELOW);
        self.drawn = lines.len();
        output::write_stderr(text.as_bytes())
    }

    /// Everything is built.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.draw(true)?;
        for note in &self.notes {
            output::write_stderr(format!("{note}\n").as_bytes())?;
        }
        output::write_stderr(self.summary.text().as_bytes())?;
        output::write_stderr(findings(&self.found).as_bytes())
    }

    /// The build has failed: what the steps said that went on.
    pub(crate) fn fail(&mut self) -> Result<()> {
        for line in &mut self.lines {
            if line.state == State::Goes {
                line.state = State::Failed;
            }
        }
        self.draw(true)?;
        let mut text = findings(&self.found);
        for line in self.lines.iter().filter(|line| line.state == State::Failed) {
            if line.output.is_empty() && line.rest.is_empty() {
                continue;
            }
            text.push_str(&format!("------\n > {}:\n", line.text));
            let rest = Some(plain(&line.rest)).filter(|rest| !rest.is_empty());
            for said in line.output.iter().chain(&rest) {
                text.push_str(&format!("{said}\n"));
            }
            text.push_str("------\n");
        }
        output::write_stderr(text.as_bytes())
    }
}

/// Rows and columns of the terminal.
fn size() -> (usize, usize) {
    match termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => (ROWS, COLUMNS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn began(step: usize, text: &str) -> BuildEvent {
        BuildEvent::Began {
            step,
            stage: "one".to_owned(),
            place: Some((step, 3)),
            text: text.to_owned(),
        }
    }

    fn ended(step: usize, cached: bool) -> BuildEvent {
        BuildEvent::Ended {
            step,
            cached,
            layer_bytes: None,
        }
    }

    #[test]
    fn steps_are_shown_with_what_they_say_last() {
        let mut screen = Screen::new();
        screen.event(&BuildEvent::Planned { steps: 3 });
        screen.event(&began(1, "FROM x"));
        screen.event(&ended(1, true));
        screen.event(&began(2, "RUN make \\\n all"));
        for line in 0..20 {
            screen.output(2, format!("line {line}\n").as_bytes());
        }
        let view = screen.view(24, 60, false);
        assert!(view[0].ends_with("(1/3)"), "{view:?}");
        assert!(
            view[1].starts_with(" => CACHED [one 1/3] FROM x "),
            "{view:?}"
        );
        assert!(
            view[2].starts_with(" => [one 2/3] RUN make \\ "),
            "{view:?}"
        );
        assert_eq!(
            view[3..],
            (14..20)
                .map(|at| format!(" => => # line {at}"))
                .collect::<Vec<_>>()
        );
        assert!(view.iter().all(|line| line.chars().count() < 60));
        screen.event(&ended(2, false));
        assert_eq!(
            screen.view(24, 60, false).len(),
            3,
            "what a step said collapses"
        );
    }

    #[test]
    fn it_is_never_higher_than_the_terminal() {
        let mut screen = Screen::new();
        for step in 0..100 {
            screen.event(&began(step, "RUN a"));
        }
        screen.output(99, b"a\nb\nc\n");
        for rows in [2, 3, 10, 24] {
            let view = screen.view(rows, 20, false);
            assert!(view.len() < rows, "{rows}");
            assert!(view.iter().all(|line| line.chars().count() < 20));
        }
        assert_eq!(screen.view(10, 80, true).len(), 101);
    }

    #[test]
    fn what_goes_on_is_seen_before_what_it_says() {
        let mut screen = Screen::new();
        for step in 1..=6 {
            screen.event(&began(step, &format!("RUN {step}")));
            screen.output(step, b"a\nb\nc\n");
        }
        for step in [2, 3] {
            screen.event(&ended(step, false));
        }
        let heads = |rows: usize| {
            let view = screen.view(rows, 60, false);
            let heads = view.iter().filter(|line| line.contains("RUN")).count();
            (heads, view.len() - 1 - heads)
        };
        // Four that go on, and as much of the rest as there is room for.
        assert_eq!(heads(6), (4, 0));
        assert_eq!(heads(10), (4, 4));
        assert_eq!(heads(12), (6, 4));
        assert_eq!(heads(40), (6, 12));
        assert_eq!(heads(4), (2, 0));
    }

    #[test]
    fn output_cannot_move_the_cursor() {
        for (text, shown) in [
            ("a\u{1b}[31mred\u{1b}[0m b", "ared b"),
            ("\u{1b}[2J\u{1b}[Hx", "x"),
            ("10%\r20%\r", "20%"),
            ("a\tb\u{7}\u{9b}", "a    b"),
            ("\u{1b}]0;title\u{7}y", "]0;titley"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }
}
