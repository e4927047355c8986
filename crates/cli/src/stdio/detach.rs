//! The keys that detach from a terminal: `ctrl-p,ctrl-q`.
//!
//! The engine reads them from the stream and then ends it. This side only watches what it sends, to tell a detached
//! stream from one whose process has ended.

/// The keys without a wish for others.
const DEFAULT_KEYS: &[u8] = &[16, 17];

/// Watches bytes for the keys.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
    pressed: bool,
}

impl DetachKeys {
    /// Reads `ctrl-<letter>` and single characters, separated by commas; empty for the default.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let keys = match text {
            "" => DEFAULT_KEYS.to_vec(),
            text => text.split(',').map(key).collect::<Option<_>>().ok_or_else(|| {
                format!("invalid detach keys {text:?}: expected ctrl-<letter> or single characters, separated by commas")
            })?,
        };
        Ok(Self {
            keys,
            matched: 0,
            pressed: false,
        })
    }

    /// Sees bytes that go to the process.
    pub(crate) fn watch(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.matched = match self.keys.get(self.matched) {
                Some(expected) if expected == byte => self.matched + 1,
                _ => usize::from(self.keys.first() == Some(byte)),
            };
            if self.matched == self.keys.len() {
                self.pressed = true;
                self.matched = 0;
            }
        }
    }

    /// Whether the keys have been pressed.
    pub(crate) fn pressed(&self) -> bool {
        self.pressed
    }
}

fn key(text: &str) -> Option<u8> {
    let control = |c: char| match c {
        '@' | '[' | '\\' | ']' | '^' | '_' => u8::try_from(c).ok().map(|byte| byte - b'@'),
        c if c.is_ascii_lowercase() => u8::try_from(c).ok().map(|byte| byte - b'a' + 1),
        _ => None,
    };
    let mut chars = text.strip_prefix("ctrl-").unwrap_or(text).chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) if text.starts_with("ctrl-") => control(c),
        (Some(c), None) => u8::try_from(c).ok().filter(u8::is_ascii),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_seen_across_reads() {
        let mut keys = DetachKeys::parse("").unwrap();
        keys.watch(&[b'a', 16]);
        assert!(!keys.pressed());
        keys.watch(&[16, 17]);
        assert!(keys.pressed());
    }

    #[test]
    fn other_keys_in_between_do_not_count() {
        let mut keys = DetachKeys::parse("ctrl-a,x").unwrap();
        keys.watch(&[1, b'y', b'x', 1]);
        assert!(!keys.pressed());
        keys.watch(b"x");
        assert!(keys.pressed());
    }

    #[test]
    fn malformed_keys_are_refused() {
        for text in [",", "ctrl-", "ctrl-A", "ctrl-ab", "ab", "\u{e4}", "a,"] {
            assert!(DetachKeys::parse(text).is_err(), "{text}");
        }
        assert!(DetachKeys::parse("ctrl-\\,ctrl-@").is_ok());
    }
}
