//! A build on a terminal: its steps with their times, redrawn while they go on, the last lines of what they say below them.
//!
//! Invariant: nothing that a build says moves the cursor or changes the terminal: control characters are left out. What is drawn
//! is never higher than the terminal, so that it can be drawn over; nor wider, unless the terminal has become narrower since.

use super::colors::{Colors, Kind};
use super::plain::counted;
use super::trace::{CANCELED, Part, Status, Vertex};
use crate::error::Result;
use crate::output;
use rustix::termios;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Instant;

/// Lines of a step's output that are shown while it goes on, and the variable that says otherwise.
const OUTPUT_LINES: usize = 6;
const OUTPUT_LINES_VARIABLE: &str = "BUILDKIT_TTY_LOG_LINES";
/// Lines of a failed step's output that are shown in the end.
const FAILED_LINES: usize = 100;
/// Where the terminal does not tell.
const COLUMNS: usize = 80;
const ROWS: usize = 24;
/// Columns for the time at the end of a line.
const TIME_COLUMNS: usize = 7;
/// Goes to the start of a line, and clears it.
const CLEAR_LINE: &str = "\r\u{1b}[2K";
/// Clears what is below.
const CLEAR_BELOW: &str = "\u{1b}[J";

/// What is drawn.
#[derive(Debug)]
pub(super) struct Screen {
    begun: Instant,
    colors: Colors,
    output_lines: usize,
    lines: Vec<Line>,
    /// Where each vertex is.
    places: BTreeMap<String, usize>,
    /// The columns of the lines on the terminal that are to be drawn over.
    drawn: Vec<usize>,
}

/// A vertex.
#[derive(Debug)]
struct Line {
    vertex: Vertex,
    parts: Vec<Part>,
    warnings: Vec<String>,
    /// The last lines of its output.
    output: VecDeque<String>,
    rest: String,
}

/// A line as it is to be seen.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    kind: Kind,
    /// It belongs to something that goes on.
    is_open: bool,
    text: String,
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

/// Columns that a character takes.
fn width_of(character: char) -> usize {
    match u32::from(character) {
        // Marks on the character before.
        0x0300..=0x036f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        // Scripts of East Asia, their full-width forms, and pictures.
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

/// As much of a text as fits.
fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(3);
    let mut kept = String::new();
    for character in text.chars() {
        let Some(rest) = left.checked_sub(width_of(character)) else {
            break;
        };
        left = rest;
        kept.push(character);
    }
    kept + &"..."[..columns.min(3)]
}

/// A text with a time at the end of the line.
fn timed(text: &str, seconds: f64, columns: usize) -> String {
    let room = columns.saturating_sub(TIME_COLUMNS);
    let text = cut(text, room);
    let blank = " ".repeat(room.saturating_sub(width(&text)));
    cut(
        &format!("{text}{blank} {:>6}", format!("{seconds:.1}s")),
        columns,
    )
}

impl Line {
    fn new(vertex: Vertex) -> Self {
        Self {
            vertex,
            parts: Vec::new(),
            warnings: Vec::new(),
            output: VecDeque::new(),
            rest: String::new(),
        }
    }

    fn say(&mut self, bytes: &[u8]) {
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

    fn part(&mut self, part: &Part) {
        match self.parts.iter_mut().find(|known| known.id == part.id) {
            Some(known) => *known = part.clone(),
            None => self.parts.push(part.clone()),
        }
    }

    fn is_open(&self) -> bool {
        self.vertex.completed.is_none()
    }

    fn has_failed(&self) -> bool {
        let error = &self.vertex.error;
        !error.is_empty() && !error.ends_with(CANCELED)
    }

    fn kind(&self) -> (Kind, &'static str) {
        match &self.vertex {
            vertex if vertex.completed.is_none() => (Kind::Open, ""),
            vertex if vertex.error.ends_with(CANCELED) => (Kind::Canceled, "CANCELED "),
            vertex if !vertex.error.is_empty() => (Kind::Failed, "ERROR "),
            vertex if vertex.cached => (Kind::Done, "CACHED "),
            _ => (Kind::Done, ""),
        }
    }

    fn rows(&self, columns: usize, output_lines: usize) -> Vec<Row> {
        let is_open = self.is_open();
        let row = |kind, text| Row {
            kind,
            is_open,
            text,
        };
        let (kind, mark) = self.kind();
        let name = plain(self.vertex.name.lines().next().unwrap_or_default());
        let text = format!(" => {mark}{name}");
        let mut rows = vec![row(kind, timed(&text, self.vertex.seconds(), columns))];
        for part in &self.parts {
            let kind = if is_open { Kind::Open } else { Kind::Done };
            let text = format!(" => => {}{}", plain(&part.id), counted(part));
            rows.push(row(kind, timed(&text, part.seconds(), columns)));
        }
        for warning in &self.warnings {
            rows.push(row(
                Kind::Warning,
                cut(&format!(" => WARN: {warning}"), columns),
            ));
        }
        if is_open {
            let skipped = self.output.len().saturating_sub(output_lines);
            for said in self.output.iter().skip(skipped) {
                rows.push(row(Kind::Said, cut(&format!(" => => # {said}"), columns)));
            }
        }
        rows
    }
}

impl Screen {
    pub(super) fn new() -> Self {
        let (colors, wrong) = Colors::of_environment();
        for text in wrong {
            output::complain(&text);
        }
        let output_lines = std::env::var(OUTPUT_LINES_VARIABLE).ok();
        let output_lines = output_lines.and_then(|text| text.parse().ok());
        Self {
            begun: Instant::now(),
            colors,
            output_lines: output_lines
                .filter(|lines| *lines > 0)
                .unwrap_or(OUTPUT_LINES),
            lines: Vec::new(),
            places: BTreeMap::new(),
            drawn: Vec::new(),
        }
    }

    /// Takes a change; it is drawn with the next [`Screen::draw`].
    pub(super) fn update(&mut self, status: &Status) {
        for vertex in &status.vertexes {
            match self.places.get(&vertex.digest) {
                Some(at) => self.lines[*at].vertex = vertex.clone(),
                None => {
                    self.places.insert(vertex.digest.clone(), self.lines.len());
                    self.lines.push(Line::new(vertex.clone()));
                }
            }
        }
        for part in &status.statuses {
            if let Some(line) = self.line(&part.vertex) {
                line.part(part);
            }
        }
        for log in &status.logs {
            if let Some(line) = self.line(&log.vertex) {
                line.say(&log.data);
            }
        }
        for warning in &status.warnings {
            let text = plain(&String::from_utf8_lossy(&warning.short));
            if let Some(line) = self.line(&warning.vertex) {
                line.warnings.push(text);
            }
        }
    }

    fn line(&mut self, digest: &str) -> Option<&mut Line> {
        let at = *self.places.get(digest)?;
        self.lines.get_mut(at)
    }

    /// The lines as they are to be seen, at most so many.
    fn view(&self, rows: usize, columns: usize, is_over: bool) -> Vec<Row> {
        // The last column stays free: what is in it may wrap.
        let columns = columns.saturating_sub(1);
        let seconds = self.begun.elapsed().as_secs_f64();
        let open = self.lines.iter().filter(|line| line.is_open());
        let ended = self.lines.len() - open.clone().count();
        let failed = self.lines.iter().any(|line| !line.vertex.error.is_empty());
        let state = match is_over && ended == self.lines.len() && !failed {
            true => " FINISHED",
            false => "",
        };
        let all = self.lines.len();
        let title = format!("[+] Building {seconds:.1}s ({ended}/{all}){state}");
        let says = open.clone().filter(|line| !line.output.is_empty()).count();
        let room = rows.saturating_sub(2);
        // Whatever goes on has its line before anything has its output.
        let output_lines = room.saturating_sub(open.count()) / says.max(1);
        let output_lines = output_lines.min(self.output_lines);
        let shown = self.lines.iter();
        let mut below: Vec<Row> = { shown }
            .flat_map(|line| line.rows(columns, output_lines))
            .collect();
        // What has ended scrolls away first; in the end everything is shown.
        let mut surplus = match is_over {
            true => 0,
            false => below.len().saturating_sub(room),
        };
        for is_hidden in [|is_open: bool| !is_open, |_| true] {
            below.retain(|row| {
                let hides = surplus > 0 && is_hidden(row.is_open);
                surplus -= usize::from(hides);
                !hides
            });
        }
        let title = Row {
            kind: Kind::Open,
            is_open: true,
            text: cut(&title, columns),
        };
        std::iter::once(title).chain(below).collect()
    }

    /// Rows on the terminal that are to be drawn over: a line that has become too wide for it has several.
    fn rows_drawn(&self, columns: usize) -> usize {
        let rows = |width: &usize| width.div_ceil(columns.max(1)).max(1);
        self.drawn.iter().map(rows).sum()
    }

    /// Draws over what was drawn before.
    pub(super) fn draw(&mut self, is_over: bool) -> Result<()> {
        let (rows, columns) = terminal();
        let lines = self.view(rows, columns, is_over);
        let mut text = String::new();
        match self.rows_drawn(columns) {
            0 => {}
            drawn => write!(text, "\u{1b}[{drawn}A").expect("a string takes everything"),
        }
        for line in &lines {
            text.push_str(CLEAR_LINE);
            text.push_str(&self.colors.paint(line.kind, &line.text));
            text.push('\n');
        }
        text.push_str(CLEAR_BELOW);
        self.drawn = lines.iter().map(|line| width(&line.text)).collect();
        output::write_stderr(text.as_bytes())
    }

    /// What failed steps have said last.
    pub(super) fn failed(&self) -> String {
        let mut text = String::new();
        for line in self.lines.iter().filter(|line| line.has_failed()) {
            text.push_str(&format!("------\n > {}:\n", plain(&line.vertex.name)));
            let rest = Some(plain(&line.rest)).filter(|rest| !rest.is_empty());
            for said in line.output.iter().chain(&rest) {
                text.push_str(&format!("{said}\n"));
            }
            text.push_str("------\n");
        }
        text
    }
}

/// Rows and columns of the terminal.
fn terminal() -> (usize, usize) {
    match termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => (ROWS, COLUMNS),
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace::Log;
    use super::*;
    use jiff::Timestamp;

    fn vertex(number: usize, name: &str) -> Vertex {
        Vertex {
            digest: number.to_string(),
            name: name.to_owned(),
            started: Some(Timestamp::now()),
            ..Vertex::default()
        }
    }

    fn of(vertex: Vertex) -> Status {
        Status {
            vertexes: vec![vertex],
            ..Status::default()
        }
    }

    fn began(number: usize, name: &str) -> Status {
        of(vertex(number, name))
    }

    fn ended(number: usize, name: &str, cached: bool, error: &str) -> Status {
        of(Vertex {
            completed: Some(Timestamp::now()),
            cached,
            error: error.to_owned(),
            ..vertex(number, name)
        })
    }

    fn said(number: usize, text: &str) -> Status {
        let log = Log {
            vertex: number.to_string(),
            stream: 1,
            data: text.as_bytes().to_vec(),
            timestamp: None,
        };
        Status {
            logs: vec![log],
            ..Status::default()
        }
    }

    fn view(screen: &Screen, rows: usize, columns: usize, is_over: bool) -> Vec<String> {
        let view = screen.view(rows, columns, is_over).into_iter();
        view.map(|row| row.text).collect()
    }

    #[test]
    fn steps_are_shown_with_what_they_say_last() {
        let mut screen = Screen::new();
        screen.update(&ended(1, "[1/2] FROM x", true, ""));
        screen.update(&began(2, "[2/2] RUN make \\\n all"));
        for line in 0..20 {
            screen.update(&said(2, &format!("line {line}\n")));
        }
        let shown = view(&screen, 24, 60, false);
        assert!(shown[0].ends_with("(1/2)"), "{shown:?}");
        assert!(
            shown[1].starts_with(" => CACHED [1/2] FROM x "),
            "{shown:?}"
        );
        assert!(shown[2].starts_with(" => [2/2] RUN make \\ "), "{shown:?}");
        let output: Vec<String> = (14..20).map(|at| format!(" => => # line {at}")).collect();
        assert_eq!(shown[3..], output);
        assert!(shown.iter().all(|line| width(line) < 60));
        screen.update(&ended(2, "[2/2] RUN make", false, ""));
        let shown = view(&screen, 24, 60, true);
        assert_eq!(shown.len(), 3, "what a step said collapses");
        assert!(shown[0].ends_with("(2/2) FINISHED"), "{shown:?}");
    }

    #[test]
    fn what_failed_and_what_was_ended_for_it_are_told_apart() {
        let mut screen = Screen::new();
        screen.update(&began(1, "a"));
        screen.update(&said(1, "why\nnot"));
        screen.update(&ended(1, "a", false, "exit code: 1"));
        screen.update(&ended(2, "b", false, CANCELED));
        let view = screen.view(24, 60, true);
        let kinds: Vec<Kind> = view.iter().map(|row| row.kind).collect();
        assert_eq!(kinds, [Kind::Open, Kind::Failed, Kind::Canceled]);
        assert!(!view[0].text.contains("FINISHED"));
        assert_eq!(screen.failed(), "------\n > a:\nwhy\nnot\n------\n");
    }

    #[test]
    fn it_is_never_higher_than_the_terminal() {
        let mut screen = Screen::new();
        for number in 0..100 {
            screen.update(&began(number, "RUN a"));
        }
        screen.update(&said(99, "a\nb\nc\n"));
        for rows in [2, 3, 10, 24] {
            let shown = view(&screen, rows, 20, false);
            assert!(shown.len() < rows, "{rows}");
            assert!(shown.iter().all(|line| width(line) < 20));
        }
        assert!(
            view(&screen, 10, 4, false)
                .iter()
                .all(|line| width(line) < 4)
        );
        assert!(view(&screen, 10, 80, true).len() > 100);
    }

    #[test]
    fn what_goes_on_is_seen_before_what_it_says() {
        let mut screen = Screen::new();
        for number in 1..=6 {
            screen.update(&began(number, &format!("RUN {number}")));
            screen.update(&said(number, "a\nb\nc\n"));
        }
        for number in [2, 3] {
            screen.update(&ended(number, &format!("RUN {number}"), false, ""));
        }
        let heads = |rows: usize| {
            let view = view(&screen, rows, 60, false);
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
    fn a_terminal_that_became_narrower_has_more_rows_to_draw_over() {
        let mut screen = Screen::new();
        screen.drawn = vec![10, 79, 0];
        assert_eq!(screen.rows_drawn(80), 3);
        assert_eq!(screen.rows_drawn(40), 4);
        assert_eq!(screen.rows_drawn(8), 2 + 10 + 1);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!((width("abc"), width("構築"), width("e\u{301}")), (3, 4, 1));
        assert_eq!(cut("構築する", 7), "構築...");
        assert_eq!(width(&timed("構築する", 1.0, 14)), 14);
        assert_eq!(cut("abcdef", 2), "..");
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
