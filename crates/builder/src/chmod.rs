//! Modes as `--chmod` has them: octal, or as chmod(1) has them (POSIX.1-2024, "chmod", extended description).

/// A change of modes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chmod {
    Set(u32),
    Clauses(Vec<Clause>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clause {
    /// Bits of the users it is about: 0o700, 0o070, 0o007.
    who: u32,
    operator: char,
    /// Of `rwxXst`, or of `ugo` for what a file lets those do.
    permissions: String,
}

impl Chmod {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok();
            return mode.filter(|mode| *mode <= 0o7777).map(Self::Set);
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let operators = part.find(['+', '-', '='])?;
            let (who, mut rest) = part.split_at(operators);
            let mut bits = 0;
            for c in who.chars() {
                bits |= match c {
                    'u' => 0o700,
                    'g' => 0o070,
                    'o' => 0o007,
                    'a' => 0o777,
                    _ => return None,
                };
            }
            while let Some(operator) = rest.chars().next() {
                let end = rest[1..]
                    .find(['+', '-', '='])
                    .map_or(rest.len(), |at| at + 1);
                let permissions = &rest[1..end];
                if !permissions.chars().all(|c| "rwxXstugo".contains(c)) {
                    return None;
                }
                clauses.push(Clause {
                    who: if bits == 0 { 0o777 } else { bits },
                    operator,
                    permissions: permissions.to_owned(),
                });
                rest = &rest[end..];
            }
        }
        Some(Self::Clauses(clauses))
    }

    /// The mode that a file gets which had `mode`.
    pub(crate) fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let clauses = match self {
            Self::Set(mode) => return *mode,
            Self::Clauses(clauses) => clauses,
        };
        clauses.iter().fold(mode, |mode, clause| {
            let bits = clause.bits(mode, is_directory);
            match clause.operator {
                '+' => mode | bits,
                '-' => mode & !bits,
                _ => (mode & !clause.covered()) | bits,
            }
        })
    }
}

/// What the last three bits of a mode allow, for everybody.
fn allowed(mode: u32) -> u32 {
    (mode & 0o7) * 0o111
}

impl Clause {
    fn bits(&self, mode: u32, is_directory: bool) -> u32 {
        let mut bits = 0;
        for c in self.permissions.chars() {
            bits |= match c {
                'r' => 0o444 & self.who,
                'w' => 0o222 & self.who,
                'x' => 0o111 & self.who,
                'X' if is_directory || mode & 0o111 != 0 => 0o111 & self.who,
                's' => self.special(),
                't' if self.who & 0o007 != 0 => 0o1000,
                'u' => allowed(mode >> 6) & self.who,
                'g' => allowed(mode >> 3) & self.who,
                'o' => allowed(mode) & self.who,
                _ => 0,
            };
        }
        bits
    }

    fn special(&self) -> u32 {
        let user = if self.who & 0o700 != 0 { 0o4000 } else { 0 };
        let group = if self.who & 0o070 != 0 { 0o2000 } else { 0 };
        user | group
    }

    fn covered(&self) -> u32 {
        let sticky = if self.who == 0o777 { 0o1000 } else { 0 };
        self.who | self.special() | sticky
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_chmod_does() {
        for (text, from, directory, to) in [
            ("755", 0o600, false, 0o755),
            ("4755", 0o600, false, 0o4755),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("go-w,o=", 0o666, false, 0o640),
            ("a=rX", 0o600, false, 0o444),
            ("a=rX", 0o700, false, 0o555),
            ("a=rX", 0o600, true, 0o555),
            ("u=rw,g+s", 0o755, false, 0o2655),
            ("+t", 0o755, true, 0o1755),
            ("u+r-w", 0o200, false, 0o400),
            ("g=u", 0o640, false, 0o660),
            ("u+w,g=u,o=g", 0o541, false, 0o777),
            ("o-u", 0o767, false, 0o760),
        ] {
            let parsed = Chmod::parse(text).unwrap();
            assert_eq!(parsed.apply(from, directory), to, "{text} on {from:o}");
        }
        for bad in ["", "999", "77777", "x", "u+y", "z+x", "u"] {
            assert_eq!(Chmod::parse(bad), None, "{bad}");
        }
    }
}
