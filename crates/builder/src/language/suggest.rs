//! Which word was meant where one is not known.

/// Characters that may differ for a word to be suggested.
const DISTANCE_MAX: usize = 3;

/// The nearest of `known` to `word`, as the hint of a message.
pub(crate) fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // A word that shares nothing with another is no misspelling of it.
    let limit = DISTANCE_MAX.min(word.chars().count() / 2);
    let near = known
        .into_iter()
        .map(|known| (distance(word, known), known))
        .filter(|(distance, _)| *distance <= limit);
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| format!("did you mean {known}?"))
}

/// Insertions, deletions and replacements of characters, whatever their case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    // Whoever writes more than that has not misspelt a word of ours.
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().map(|c| c.to_ascii_lowercase()).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_suggested() {
        let known = ["COPY", "RUN", "ENTRYPOINT"];
        assert_eq!(hint("cpoy", known).unwrap(), "did you mean COPY?");
        assert_eq!(
            hint("ENTRYPONT", known).unwrap(),
            "did you mean ENTRYPOINT?"
        );
        assert_eq!(hint("xyz", known), None);
        assert_eq!(hint("", known), None);
        assert_eq!(hint(&"x".repeat(100), known), None);
    }
}
