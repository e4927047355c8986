//! What fuzzers feed: Dockerfiles and ignore files, and the words in them.

use crate::language::expand::Expander;
use crate::language::{self, Mount};
use patterns::Ignore;

/// Reads bytes as everything that the language has, and renders every mistake.
pub fn language(bytes: &[u8]) {
    if let Err(mistake) = language::parse("Dockerfile", bytes) {
        // Rendering must hold for every place a mistake can be at.
        assert!(!mistake.to_string().is_empty());
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let lookup = |name: &str| name.len().is_multiple_of(2).then(|| name.repeat(2));
    let expander = Expander {
        escape: '\\',
        lookup: &lookup,
    };
    // Only that they end matters.
    let _ = (
        expander.word(text),
        expander.words(text),
        expander.document(text),
    );
    let _ = Mount::parse(text);
    if let Ok(ignore) = Ignore::parse(text) {
        let _ = (ignore.excludes("a/b"), ignore.excludes_all_of("a"));
    }
}
