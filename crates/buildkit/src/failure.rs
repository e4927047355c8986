//! A build that failed, as clients show it: the sentence, and the lines of the Dockerfile it is about.
//!
//! Source: moby/buildkit `util/grpcerrors`, `solver/errdefs/source.go`: details of a status are JSON, named by their type.

use crate::grpc::{Code, Detail, Status};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use builder::Error;
use builder::language::{Position, last_line};
use serde_json::json;

const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";
/// Lines that clients show around those that are meant.
const LINES_AROUND: usize = 8;

/// The Dockerfile that a failure is about.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) name: &'a str,
    pub(crate) text: &'a [u8],
    pub(crate) escape: char,
}

/// The sentence of a failure, as BuildKit says it where it does.
pub fn sentence(error: &Error) -> String {
    match error {
        Error::Step { source, .. } => sentence(source),
        Error::Command { command, code } => {
            format!("process {command:?} did not complete successfully: exit code: {code}")
        }
        Error::Language(mistake) => {
            let hint = mistake.hint.as_ref();
            let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            let line = mistake.position.line;
            format!(
                "dockerfile parse error on line {line}: {}{hint}",
                mistake.message
            )
        }
        other => other.chain(),
    }
}

/// Where in the Dockerfile a build failed.
pub(crate) fn place(error: &Error) -> Option<Position> {
    match error {
        Error::Step { position, .. } => Some(*position),
        Error::Language(mistake) => Some(mistake.position),
        _ => None,
    }
}

/// The status that ends the call.
pub(crate) fn status(error: &Error, source: Option<&Source<'_>>) -> Status {
    let code = match error {
        Error::Cancelled => Code::Cancelled,
        // Clients put the code's name before the sentence of any other.
        _ => Code::Unknown,
    };
    let mut status = Status::new(code, sentence(error));
    if let (Some(place), Some(source)) = (place(error), source) {
        status.details.push(source.detail(place));
    }
    status
}

impl Source<'_> {
    fn detail(&self, place: Position) -> Detail {
        let text = String::from_utf8_lossy(self.text);
        let first = place.line as usize;
        let last = last_line(&text, first, self.escape);
        // What clients do not show is not sent: headers are short.
        let shown: Vec<&str> = text.split('\n').take(last + LINES_AROUND).collect();
        let value = json!({
            "info": { "filename": self.name, "data": BASE64.encode(shown.join("\n")), "language": "Dockerfile" },
            "ranges": [{ "start": { "line": first }, "end": { "line": last } }],
        });
        Detail {
            type_url: SOURCE.to_owned(),
            value: value.to_string().into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_told_with_its_lines() {
        let error = Error::Step {
            text: "RUN a && b".to_owned(),
            position: Position { line: 2, column: 1 },
            source: Box::new(Error::Command {
                command: "/bin/sh -c a && b".to_owned(),
                code: 3,
            }),
        };
        let source = Source {
            name: "Dockerfile",
            text: b"FROM x\nRUN a \\\n && b\nRUN c\n",
            escape: '\\',
        };
        let status = status(&error, Some(&source));
        assert_eq!(
            status.message,
            "process \"/bin/sh -c a && b\" did not complete successfully: exit code: 3"
        );
        let detail: serde_json::Value = serde_json::from_slice(&status.details[0].value).unwrap();
        assert_eq!(detail["ranges"][0]["start"]["line"], 2);
        assert_eq!(detail["ranges"][0]["end"]["line"], 3);
    }

    #[test]
    fn a_mistake_is_told_without_its_drawing() {
        let error = builder::language::parse("Dockerfile", b"FORM x").unwrap_err();
        let text = sentence(&Error::Language(error));
        assert!(
            text.starts_with("dockerfile parse error on line 1:"),
            "{text}"
        );
        assert!(!text.contains('\n') && text.contains("FROM"), "{text}");
    }
}
