//! What a client asks of a Dockerfile and does not build: which rules it does not keep, which stages it has, what they take.
//!
//! Source: moby/buildkit `frontend/subrequests`: documents for programs, and texts for people.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use builder::Request;
use builder::lint::Finding;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The version of both documents.
const VERSION: &str = "1.0.0";
/// Lines that are shown around those that are meant.
const LINES_AROUND: usize = 4;

/// An answer by its parts.
pub(crate) type Answer = BTreeMap<String, Vec<u8>>;

fn answer(document: &Value, text: String) -> Answer {
    BTreeMap::from([
        ("result.json".to_owned(), document.to_string().into_bytes()),
        ("result.txt".to_owned(), text.into_bytes()),
        ("version".to_owned(), VERSION.into()),
    ])
}

/// What was found by checking a Dockerfile.
pub(crate) fn lint(request: &Request, found: &[Finding]) -> Answer {
    let name = &request.dockerfile_name;
    let source = String::from_utf8_lossy(&request.dockerfile);
    let warnings = found.iter().map(|finding| {
        let place = |line: u32| json!({ "line": line });
        json!({
            "ruleName": finding.rule.name(),
            "description": finding.rule.description(),
            "url": finding.rule.url().unwrap_or_default(),
            "detail": finding.detail,
            "location": { "ranges": [{
                "start": place(finding.first_line),
                "end": place(finding.last_line),
            }] },
        })
    });
    let document = json!({
        "warnings": warnings.collect::<Vec<_>>(),
        "sources": [{
            "filename": name,
            "language": "Dockerfile",
            "data": BASE64.encode(&request.dockerfile),
        }],
    });
    let text = found.iter().map(|finding| shown(name, &source, finding));
    let mut answer = answer(&document, text.collect());
    let status = if found.is_empty() { "0" } else { "1" };
    answer.insert("result.statuscode".to_owned(), status.into());
    answer
}

fn shown(name: &str, source: &str, finding: &Finding) -> String {
    let (first, last) = (finding.first_line as usize, finding.last_line as usize);
    let url = finding.rule.url().map(|url| format!(" - {url}"));
    let mut text = format!(
        "\nWARNING: {}{}\n{}\n{name}:{first}\n--------------------\n",
        finding.rule.name(),
        url.unwrap_or_default(),
        finding.detail
    );
    let skipped = first.saturating_sub(LINES_AROUND + 1);
    let lines = (1..).zip(source.lines()).skip(skipped);
    for (number, line) in lines.take(last + LINES_AROUND - skipped) {
        let mark = if (first..=last).contains(&number) {
            ">>>"
        } else {
            "   "
        };
        writeln!(text, "{number:>4} | {mark} {line}").expect("a string takes everything");
    }
    text.push_str("--------------------\n");
    text
}

/// What the builder answers.
pub(crate) fn told(told: &builder::Answer) -> Answer {
    answer(&told.document, told.text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_shown_with_their_lines() {
        let source = "FROM a\nRUN b\nCMD c\n";
        let finding = Finding {
            rule: builder::lint::Rule::JSONArgsRecommended,
            detail: "it is no array".to_owned(),
            first_line: 3,
            last_line: 3,
        };
        let text = shown("Dockerfile", source, &finding);
        assert!(
            text.contains("   2 |     RUN b\n   3 | >>> CMD c\n"),
            "{text}"
        );
        assert!(
            text.contains("WARNING: JSONArgsRecommended - https://"),
            "{text}"
        );
    }
}
