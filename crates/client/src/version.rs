//! API versions: `1.51`.

use std::fmt;
use std::str::FromStr;

/// An API version, ordered as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    major: u16,
    minor: u16,
}

impl ApiVersion {
    /// The newest version this client speaks.
    pub const NEWEST: Self = Self::new(1, 51);
    /// The oldest version this client speaks.
    pub const OLDEST: Self = Self::new(1, 24);

    /// `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text
            .strip_prefix('v')
            .unwrap_or(text)
            .split_once('.')
            .ok_or(())?;
        let number = |text: &str| text.parse().map_err(|_| ());
        Ok(Self {
            major: number(major)?,
            minor: number(minor)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_the_types_versions_and_order_as_numbers() {
        assert_eq!(ApiVersion::NEWEST.to_string(), api_types::API_VERSION);
        assert_eq!(ApiVersion::OLDEST.to_string(), api_types::API_VERSION_MIN);
        assert!(ApiVersion::from_str("1.9").unwrap() < ApiVersion::from_str("v1.24").unwrap());
        for text in ["", "1", "1.", ".1", "1.x", "1.2.3", "-1.2", "1.99999"] {
            assert!(ApiVersion::from_str(text).is_err(), "{text}");
        }
    }
}
