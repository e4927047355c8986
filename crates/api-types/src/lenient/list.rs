//! A list is decoded while it arrives.

use super::{Error, read_by_all_rules, streamed};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use std::marker::PhantomData;

/// A list of which the elements that have arrived are decoded and mapped already: of a long one no two are there at once, and what
/// is shown of it can be made before its end has come.
///
/// A list that gives cause to look twice, as [`streamed`] says, is decoded anew when it is whole: elements can be mapped twice.
#[derive(Debug)]
pub struct List<T, F, R> {
    map: F,
    mapped: Vec<R>,
    text: Vec<u8>,
    /// Where the text begins that was not understood yet.
    position: usize,
    /// How long the text must be before it is worth to look whether the next element is whole.
    wanted: usize,
    stage: Stage,
    element: PhantomData<fn() -> T>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its bracket has not come.
    Unopened,
    /// An element comes, or the end of a list without elements.
    First,
    /// An element comes.
    Element,
    /// A comma or the end comes.
    Separator,
    /// Nothing may come but white space.
    Closed,
    /// The rules in full have to say.
    Unusual,
}

impl<T: DeserializeOwned, F: Fn(T) -> R, R> List<T, F, R> {
    /// A list of which nothing has come.
    pub fn new(map: F) -> Self {
        Self {
            map,
            mapped: Vec::new(),
            text: Vec::new(),
            position: 0,
            wanted: 0,
            stage: Stage::Unopened,
            element: PhantomData,
        }
    }

    /// More of its text has come.
    pub fn push(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
        while let Some(byte) = self.next_byte() {
            let next = match (self.stage, byte) {
                (Stage::Unopened, b'[') => Stage::First,
                (Stage::First, b']') | (Stage::Separator, b']') => Stage::Closed,
                (Stage::Separator, b',') => Stage::Element,
                (Stage::First | Stage::Element, _) => {
                    if !self.element() {
                        return;
                    }
                    continue;
                }
                _ => Stage::Unusual,
            };
            self.stage = next;
            self.position += 1;
        }
    }

    /// The next byte that is not white space, where it matters.
    fn next_byte(&mut self) -> Option<u8> {
        if self.stage == Stage::Unusual || self.text.len() < self.wanted {
            return None;
        }
        let rest = &self.text[self.position..];
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.position += rest.iter().take_while(|byte| blank(byte)).count();
        self.text.get(self.position).copied()
    }

    /// Decodes an element. False: it has not come as a whole.
    fn element(&mut self) -> bool {
        let rest = &self.text[self.position..];
        let mut elements = serde_json::Deserializer::from_slice(rest).into_iter::<Element<T>>();
        match elements.next() {
            Some(Ok(Element(element))) => {
                self.position += elements.byte_offset();
                self.stage = Stage::Separator;
                self.mapped.push((self.map)(element));
                true
            }
            // A long element is looked at each time that twice as much of it is there, and not with every piece.
            Some(Err(error)) if error.is_eof() => {
                self.wanted = self.text.len() + rest.len();
                false
            }
            _ => {
                self.stage = Stage::Unusual;
                true
            }
        }
    }

    /// All that its elements were mapped to, now that it has come as a whole.
    ///
    /// # Errors
    /// It is no list of such elements.
    pub fn finish(mut self) -> Result<Vec<R>, Error> {
        self.wanted = 0;
        self.push(&[]);
        if self.stage == Stage::Closed {
            return Ok(self.mapped);
        }
        let all: Vec<T> = read_by_all_rules(&self.text)?;
        Ok(all.into_iter().map(self.map).collect())
    }
}

/// An element, decoded while it is read.
struct Element<T>(T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Element<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(streamed::Streamed(deserializer)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerSummary, from_slice};
    use std::cell::Cell;

    /// A list's ids, when it comes in pieces of so many bytes.
    fn ids(json: &str, piece_bytes: usize) -> Result<Vec<String>, String> {
        let mut list = List::new(|of: ContainerSummary| of.id);
        for piece in json.as_bytes().chunks(piece_bytes) {
            list.push(piece);
        }
        list.finish().map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_is_mapped_by_the_same_rules_however_it_arrives() {
        for (json, expected) in [
            ("[]", vec![]),
            (" [ \n] \r\n", vec![]),
            (r#"[{"Id":"a"},{"Id":"b,]}\""}]"#, vec!["a", "b,]}\""]),
            (
                r#"[ {"Id":"a", "Names":["[", "]"]} , {"Id":"b"} ] "#,
                vec!["a", "b"],
            ),
            // Those that are read again.
            ("null", vec![]),
            (r#"[{"Id":"a"},{"Id":null}]"#, vec!["a", ""]),
            (r#"[{"Id":"a"},null]"#, vec!["a", ""]),
        ] {
            for piece_bytes in [1, 2, 3, 7, 1000] {
                assert_eq!(ids(json, piece_bytes).unwrap(), expected, "{json}");
            }
        }
        for json in [
            "",
            "[",
            r#"[{"Id":"a"}"#,
            r#"[{"Id":"a"},"#,
            r#"[{"Id":"a"},]"#,
            r#"[,{"Id":"a"}]"#,
            r#"[{"Id":"a"}{"Id":"b"}]"#,
            r#"[{"Id":"a"}] x"#,
            r#"[{"Id":"a"}]]"#,
            r#"[{"Id":7}]"#,
            "{}",
        ] {
            let whole = from_slice::<Vec<ContainerSummary>>(json.as_bytes());
            let said = whole.unwrap_err().to_string();
            for piece_bytes in [1, 5, 1000] {
                assert_eq!(ids(json, piece_bytes).unwrap_err(), said, "{json}");
            }
        }
    }

    #[test]
    fn what_has_arrived_is_mapped_before_the_end() {
        let mapped = Cell::new(0);
        let mut list = List::new(|_: ContainerSummary| mapped.set(mapped.get() + 1));
        for count in 1..=3 {
            list.push(if count == 1 { b"[" } else { b"," });
            list.push(br#"{"Id":"a"}"#);
            assert_eq!(mapped.get(), count);
        }
    }

    #[test]
    fn a_long_element_is_looked_at_a_few_times_only() {
        let long = format!(r#"[{{"Id":"{}"}}]"#, "a".repeat(1 << 20));
        let mut list = List::new(|of: ContainerSummary| of.id.len());
        let mut looked = 0;
        for piece in long.as_bytes().chunks(100) {
            looked += usize::from(list.text.len() + piece.len() >= list.wanted);
            list.push(piece);
        }
        assert!(looked < 30, "{looked}");
        assert_eq!(list.finish().unwrap(), [1 << 20]);
    }
}
