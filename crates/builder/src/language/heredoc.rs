//! Here-documents: what of a word makes one, and how its body is read.

use std::ops::Range;

/// A document in the text of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, which is also the name of the file that it becomes.
    pub name: String,
    /// Variables in it are replaced: no part of its word was quoted.
    pub expand: bool,
    /// Tabs at the beginning of its lines are taken away (`<<-`).
    pub chomp: bool,
    /// The lines, each with its end, as they are in the Dockerfile.
    pub content: String,
}

impl Heredoc {
    /// The content without the tabs that `<<-` takes away.
    pub fn body(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        let lines = self.content.split_inclusive('\n');
        lines.map(|line| line.trim_start_matches('\t')).collect()
    }

    /// The file that it becomes, in a directory that has no others; `None` where it is named as one in such.
    pub fn file_name(&self) -> Option<&str> {
        let mut parts = Vec::new();
        for part in self.name.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        match parts.as_slice() {
            [name] => Some(name),
            _ => None,
        }
    }

    /// Reads a word such as `<<EOF`, `<<-"EOF"`, `3<<EOF` or `<< EOF`. Anything else is no here-document.
    pub(crate) fn read(word: &str) -> Option<Self> {
        let digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let rest = digits.strip_prefix("<<")?;
        let (chomp, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.trim_start();
        let is_word = split_raw(rest, '\\').len() == 1;
        if !is_word || rest.contains('<') {
            return None;
        }
        let name = unquote(rest)?;
        Some(Self {
            expand: name == rest,
            name,
            chomp,
            content: String::new(),
        })
        .filter(|heredoc| !heredoc.name.is_empty())
    }
}

/// The here-documents that a line announces, in their order.
pub(crate) fn announced(line: &str) -> Vec<Heredoc> {
    let mut words: Vec<Range<usize>> = Vec::new();
    for word in ranges(line, '\\') {
        // Blanks behind the sign belong to the word.
        match words.last_mut() {
            Some(last) if line[last.clone()].ends_with("<<") => last.end = word.end,
            _ => words.push(word),
        }
    }
    { words.into_iter() }
        .filter_map(|word| Heredoc::read(&line[word]))
        .collect()
}

/// Words as a shell would see them, with their quotes: `a'b c' "d"` has two.
pub(crate) fn split_raw(line: &str, escape: char) -> Vec<&str> {
    { ranges(line, escape).into_iter() }
        .map(|word| &line[word])
        .collect()
}

/// Where the words of a line are.
fn ranges(line: &str, escape: char) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let (mut start, mut quote, mut escaped) = (None, None, false);
    for (at, c) in line.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        match (quote, c) {
            (None | Some('"'), c) if c == escape => {
                escaped = true;
                start = start.or(Some(at));
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                start = start.or(Some(at));
            }
            (Some(open), _) if open == c => quote = None,
            (None, c) if c.is_whitespace() => {
                words.extend(start.take().map(|start: usize| start..at));
            }
            _ => start = start.or(Some(at)),
        }
    }
    words.extend(start.map(|start| start..line.len()));
    words
}

/// A word without its quotes and escapes; `None` where a quote is not closed.
fn unquote(word: &str) -> Option<String> {
    let mut plain = String::new();
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next()),
            '\'' | '"' => loop {
                match chars.next()? {
                    end if end == c => break,
                    '\\' if c == '"' => plain.push(chars.next()?),
                    other => plain.push(other),
                }
            },
            other => plain.push(other),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_announce_documents() {
        let read = |word| Heredoc::read(word).map(|h| (h.name, h.expand, h.chomp));
        let doc = |name: &str, expand, chomp| Some((name.to_owned(), expand, chomp));
        assert_eq!(read("<<EOF"), doc("EOF", true, false));
        assert_eq!(read("<<-EOF"), doc("EOF", true, true));
        assert_eq!(read("<<'EOF'"), doc("EOF", false, false));
        assert_eq!(read("<<-\"a b\""), doc("a b", false, true));
        assert_eq!(read("3<<EOF"), doc("EOF", true, false));
        assert_eq!(read("<<E\\OF"), doc("EOF", false, false));
        assert_eq!(read("<< \t'E'"), doc("E", false, false));
        for none in [
            "<<",
            "<<<EOF",
            "<EOF",
            "x<<EOF",
            "<<-",
            "<<'EOF",
            "<<''",
            "<<EOF cat",
            "<< ",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
        let names = |line| {
            announced(line)
                .into_iter()
                .map(|h| h.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names("cat <<A - <<B >x"), ["A", "B"]);
        assert_eq!(names("echo '<<A' \"b <<B\""), Vec::<String>::new());
        assert_eq!(names("cat <<\"a b\" c"), ["a b"]);
        assert_eq!(names("cat << A 3<<  B > /x <<- C"), ["A", "B"]);
        assert_eq!(names("cat x<< A \"<<\" B <<< C <<"), Vec::<String>::new());
    }

    #[test]
    fn documents_become_files_without_directories() {
        let file_name = |word| {
            let heredoc = Heredoc::read(word).unwrap();
            heredoc.file_name().map(str::to_owned)
        };
        for word in ["<<a", "<</a", "<<./a", "<<../a", "<<b/../a", "<<a/"] {
            assert_eq!(file_name(word).as_deref(), Some("a"), "{word}");
        }
        for word in ["<<a/b", "<</", "<<.", "<<.."] {
            assert_eq!(file_name(word), None, "{word}");
        }
    }

    #[test]
    fn tabs_are_taken_away_where_asked() {
        let mut heredoc = Heredoc::read("<<-E").unwrap();
        heredoc.content = "\t\ta\n b\n\tc".to_owned();
        assert_eq!(heredoc.body(), "a\n b\nc");
    }
}
