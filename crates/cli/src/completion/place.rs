//! What a half-written command line asks for next.
//!
//! The words before the last are read as [`crate::flags`] reads them; the last one is what is being written.

use crate::pages::{Choice, Page};

/// What may stand where the cursor is.
#[derive(Debug)]
pub(crate) enum Place<'a> {
    /// A word of this page: one of its commands.
    Command(&'a Page),
    /// A flag of this page.
    Flag(&'a Page),
    /// The value of a flag; `before` is what is written before the value in the same word.
    Value { flag: &'a Choice, before: String },
    /// An argument: what the command's usage calls it, and those before it.
    Argument {
        page: &'a Page,
        name: &'static str,
        earlier: Vec<String>,
    },
    /// Nothing that is known.
    Unknown,
}

/// Where the last of `words` stands, which are those behind the program's name.
pub(crate) fn place<'a>(pages: &'a [Page], words: &[String]) -> Place<'a> {
    let Some((last, before)) = words.split_last() else {
        return Place::Unknown;
    };
    let mut reader = Reader {
        pages,
        page: &pages[0],
        waiting: None,
        flags_ended: false,
        arguments: Vec::new(),
    };
    for word in before {
        if !reader.read(word) {
            return Place::Unknown;
        }
    }
    reader.place(last)
}

struct Reader<'a> {
    pages: &'a [Page],
    page: &'a Page,
    /// The flag whose value comes next.
    waiting: Option<&'a Choice>,
    flags_ended: bool,
    arguments: Vec<String>,
}

impl<'a> Reader<'a> {
    /// Reads a whole word. False: there is no such command.
    fn read(&mut self, word: &str) -> bool {
        if self.waiting.take().is_some() {
            return true;
        }
        if !self.flags_ended && word.starts_with('-') && word.len() > 1 {
            match word.strip_prefix("--") {
                Some("") => self.flags_ended = true,
                Some(long) => self.waiting = self.long(long),
                None => self.waiting = self.shorts(&word[1..]),
            }
            return true;
        }
        if self.page.commands.is_empty() {
            self.arguments.push(word.to_owned());
            self.flags_ended |= !self.page.interspersed;
            return true;
        }
        let path = match self.page.path.as_str() {
            "" => word.to_owned(),
            above => format!("{above} {word}"),
        };
        // Help of a command is asked for in the command's own words.
        if path == "help" {
            return true;
        }
        match self.pages.iter().find(|page| page.path == path) {
            Some(page) => self.page = page,
            None => return false,
        }
        true
    }

    /// The flag that waits for its value behind this word.
    fn long(&self, long: &str) -> Option<&'a Choice> {
        let mut flags = self.page.options.iter();
        flags.find(|flag| flag.long == long && !flag.value.is_empty())
    }

    fn shorts(&self, cluster: &str) -> Option<&'a Choice> {
        for (index, letter) in cluster.char_indices() {
            let mut flags = self.page.options.iter();
            let flag = flags.find(|flag| flag.short == Some(letter))?;
            if !flag.value.is_empty() {
                let is_last = index + letter.len_utf8() == cluster.len();
                return is_last.then_some(flag);
            }
        }
        None
    }

    fn place(self, last: &str) -> Place<'a> {
        let page = self.page;
        if let Some(flag) = self.waiting {
            let before = String::new();
            return Place::Value { flag, before };
        }
        if !self.flags_ended && last.starts_with('-') {
            let Some((name, _)) = last.split_once('=') else {
                return Place::Flag(page);
            };
            return match self.long(name.trim_start_matches("--")) {
                Some(flag) => Place::Value {
                    flag,
                    before: format!("{name}="),
                },
                None => Place::Unknown,
            };
        }
        if !page.commands.is_empty() {
            return Place::Command(page);
        }
        match argument(&page.usage, self.arguments.len()) {
            Some(name) => Place::Argument {
                page,
                name,
                earlier: self.arguments,
            },
            None => Place::Unknown,
        }
    }
}

/// The names of arguments that can be completed.
const NAMES: [&str; 10] = [
    "CONTAINER",
    "CONTAINER:SRC_PATH",
    "FILE",
    "IMAGE",
    "NAME[:TAG]",
    "NAME|ID",
    "NETWORK",
    "SHELL",
    "SOURCE_IMAGE[:TAG]",
    "VOLUME",
];

/// What a usage calls the argument of this number: `CONTAINER` is that of each in `[OPTIONS] CONTAINER [CONTAINER...]`.
fn argument(usage: &str, number: usize) -> Option<&'static str> {
    let mut words = usage.split(' ').filter(|word| *word != "[OPTIONS]");
    let words: Vec<&str> = words.by_ref().collect();
    let word = match words.get(number) {
        Some(word) => word,
        None => words.last().filter(|word| word.contains("..."))?,
    };
    let word = word.strip_prefix('[').map_or(*word, |word| {
        word.trim_end_matches(']').trim_end_matches("...")
    });
    let word = match word {
        // Whatever a command in a container takes, files of this machine are a fair guess.
        "COMMAND" | "ARG" | "PATH" | "DIR" | "FILE|URL|-" => "FILE",
        "DEST_PATH|-" => "CONTAINER:SRC_PATH",
        "REPOSITORY[:TAG" | "NAME[:TAG|@DIGEST]" | "TARGET_IMAGE[:TAG]" => "NAME[:TAG]",
        word => word,
    };
    NAMES.into_iter().find(|name| *name == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> String {
        let pages = crate::pages::all(Vec::new());
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match place(&pages, &words) {
            Place::Command(page) => format!("command of {:?}", page.path),
            Place::Flag(page) => format!("flag of {:?}", page.path),
            Place::Value { flag, before, .. } => format!("value of {}, {before:?}", flag.long),
            Place::Argument { name, earlier, .. } => format!("{name} behind {earlier:?}"),
            Place::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn places_are_found() {
        for (line, expected) in [
            ("", "command of \"\""),
            ("-H unix:///x co", "command of \"\""),
            ("--host=unix:///x container l", "command of \"container\""),
            ("container ls -", "flag of \"container ls\""),
            ("run --network ", "value of network, \"\""),
            ("run --network=a", "value of network, \"--network=\""),
            ("run --net ", "value of net, \"\""),
            ("run -it --rm -e A=b ", "IMAGE behind []"),
            ("run -itv ", "value of volume, \"\""),
            ("run -v/a:/b ", "IMAGE behind []"),
            ("run busybox ls -", "FILE behind [\"busybox\", \"ls\"]"),
            ("stop -t 3 one ", "CONTAINER behind [\"one\"]"),
            ("stop -- -", "CONTAINER behind []"),
            ("stop one -", "flag of \"stop\""),
            ("network connect net ", "CONTAINER behind [\"net\"]"),
            ("cp ", "CONTAINER:SRC_PATH behind []"),
            ("rename one ", "unknown"),
            ("nothing ", "unknown"),
            ("stop --nothing=", "unknown"),
            ("help network ", "command of \"network\""),
        ] {
            assert_eq!(at(line), expected, "{line:?}");
        }
    }
}
