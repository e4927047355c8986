//! Who a certificate is of: the subject of RFC 5280, written as RFC 4514 says.

use x509_cert::Certificate;
use x509_cert::der::{Decode as _, SliceReader};

/// Characters of a subject that are told; what is longer is cut.
const SUBJECT_CHARS_MAX: usize = 256;

/// The subject of a certificate in DER, such as `CN=ann,O=Example`; none where it has none, or is no certificate. Control
/// characters are replaced: it is for logs.
pub fn subject(certificate: &[u8]) -> Option<String> {
    let mut reader = SliceReader::new(certificate).ok()?;
    let decoded = Certificate::decode(&mut reader).ok()?;
    let text = decoded.tbs_certificate().subject().to_string();
    let printable = |character: char| match character.is_control() {
        true => char::REPLACEMENT_CHARACTER,
        false => character,
    };
    let text: String = text
        .chars()
        .take(SUBJECT_CHARS_MAX)
        .map(printable)
        .collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_has_no_subject() {
        for bytes in [&b""[..], b"x", &[0x30, 0x82, 0xff, 0xff]] {
            assert_eq!(subject(bytes), None);
        }
    }
}
