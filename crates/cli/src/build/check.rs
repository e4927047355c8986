//! What checks of a Dockerfile have found, and what else is asked of it, as `docker build --check` and `--call` show it.

use crate::error::{Error, Result};
use crate::output;
use api_types::{BuildEvent, BuildFinding, JsonMessage};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::JsonLines;
use std::fmt::Write as _;

/// Lines around an instruction of one line, and of several.
const AROUND: [usize; 2] = [4, 2];
/// The exit code where anything is found.
const FOUND: u8 = 1;

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// With the lines of the Dockerfile.
    Text,
    /// As JSON.
    Json,
}

/// Prints what an engine has found.
pub(crate) async fn show(
    mut messages: JsonLines<JsonMessage>,
    form: Form,
    file: &str,
    text: &str,
) -> Result<()> {
    let mut found = Vec::new();
    let mut is_whole = false;
    while let Some(message) = messages.next().await? {
        match super::display::event(message)? {
            Some(BuildEvent::Found(finding)) => found.push(finding),
            Some(BuildEvent::Checked) => is_whole = true,
            _ => {}
        }
    }
    if !is_whole {
        return Err(Error::msg("the engine did not check to the end"));
    }
    match form {
        Form::Text => output::print(&in_words(&found, file, text))?,
        Form::Json => output::line(&as_json(&found, file, text)?)?,
    }
    match found.is_empty() {
        true => Ok(()),
        false => Err(Error::Exit(FOUND)),
    }
}

/// Prints what an engine answers to something else that was asked.
pub(crate) async fn show_answer(mut messages: JsonLines<JsonMessage>, form: Form) -> Result<()> {
    while let Some(message) = messages.next().await? {
        if let Some(BuildEvent::Answered { document, text }) = super::display::event(message)? {
            return match form {
                Form::Text => output::print(&text),
                Form::Json => output::line(&format!("{document:#}")),
            };
        }
    }
    Err(Error::msg("the engine did not answer"))
}

fn in_words(found: &[BuildFinding], file: &str, text: &str) -> String {
    let mut said = match found.len() {
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for finding in found {
        let url = { finding.url.iter() }.map(|url| format!(" - {url}"));
        let url: String = url.collect();
        // Writing to a string does not fail.
        let _ = write!(
            said,
            "\nWARNING: {}{url}\n{}\n{}",
            finding.rule,
            finding.detail,
            source(finding, file, text)
        );
    }
    said
}

/// The lines of an instruction with some around them, those of the instruction marked.
fn source(finding: &BuildFinding, file: &str, text: &str) -> String {
    const RULE: &str = "--------------------\n";
    let lines: Vec<&str> = text.split('\n').collect();
    let marked = finding.first_line as usize..=finding.last_line as usize;
    if *marked.start() > lines.len() {
        return String::new();
    }
    let (mut first, mut last) = (*marked.start(), (*marked.end()).min(lines.len()));
    let around = AROUND[usize::from(first != last)];
    let mut added = 0;
    while added < around {
        if first > 1 {
            first -= 1;
            added += 1;
        }
        if last < lines.len() {
            last += 1;
            added += 1;
        }
        added += 1;
    }
    let mut shown = format!("{file}:{}\n{RULE}", marked.start());
    for (number, line) in (first..=last).zip(&lines[first - 1..]) {
        let mark = if marked.contains(&number) {
            ">>>"
        } else {
            "   "
        };
        let _ = writeln!(shown, " {number:3} | {mark} {line}");
    }
    shown + RULE
}

fn as_json(found: &[BuildFinding], file: &str, text: &str) -> Result<String> {
    let warnings: Vec<serde_json::Value> = { found.iter() }
        .map(|finding| {
            let range = serde_json::json!({
                "start": { "line": finding.first_line },
                "end": { "line": finding.last_line },
            });
            serde_json::json!({
                "ruleName": finding.rule,
                "description": finding.description,
                "url": finding.url.as_deref().unwrap_or_default(),
                "detail": finding.detail,
                "location": { "ranges": [range] },
            })
        })
        .collect();
    let source = serde_json::json!({
        "filename": file,
        "language": "Dockerfile",
        "data": BASE64.encode(text),
    });
    let whole = serde_json::json!({ "warnings": warnings, "sources": [source] });
    serde_json::to_string_pretty(&whole).map_err(|error| Error::msg(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_marked() {
        let finding = BuildFinding {
            rule: "JSONArgsRecommended".to_owned(),
            description: String::new(),
            url: Some("https://rule/".to_owned()),
            detail: "use JSON".to_owned(),
            first_line: 2,
            last_line: 3,
        };
        assert_eq!(
            in_words(&[finding], "Dockerfile", "FROM a\nCMD x \\\n  y\n# end\n"),
            "Check complete, 1 warning has been found!\n\nWARNING: JSONArgsRecommended - https://rule/\nuse JSON\n\
             Dockerfile:2\n--------------------\n   1 |     FROM a\n   2 | >>> CMD x \\\n   3 | >>>   y\n   4 |     # end\n\
             --------------------\n"
        );
        assert_eq!(
            in_words(&[], "Dockerfile", ""),
            "Check complete, no warnings found.\n"
        );
    }
}
