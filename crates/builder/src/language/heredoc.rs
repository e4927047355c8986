//! Here-documents: what of a word makes one, and how its body is read.

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

    /// Reads a word such as `<<EOF`, `<<-"EOF"` or `3<<EOF`. Anything else is no here-document.
    pub(crate) fn read(word: &str) -> Option<Self> {
        let digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let rest = digits.strip_prefix("<<")?;
        let (chomp, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if rest.is_empty() || rest.contains('<') {
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
    split_raw(line, '\\')
        .into_iter()
        .filter_map(Heredoc::read)
        .collect()
}

/// Words as a shell would see them, with their quotes: `a'b c' "d"` has two.
pub(crate) fn split_raw(line: &str, escape: char) -> Vec<&str> {
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
                words.extend(start.take().map(|start: usize| &line[start..at]));
            }
            _ => start = start.or(Some(at)),
        }
    }
    words.extend(start.map(|start| &line[start..]));
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
        for none in ["<<", "<<<EOF", "<EOF", "x<<EOF", "<<-", "<<'EOF", "<<''"] {
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
    }

    #[test]
    fn tabs_are_taken_away_where_asked() {
        let mut heredoc = Heredoc::read("<<-E").unwrap();
        heredoc.content = "\t\ta\n b\n\tc".to_owned();
        assert_eq!(heredoc.body(), "a\n b\nc");
    }
}
