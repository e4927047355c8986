//! Addresses and names: `--dns`, `--dns-search`, `--add-host`, `--mac-address`, `--link`.

use std::net::IpAddr;

/// An address in its canonical form.
pub(crate) fn ip(text: &str) -> Result<String, String> {
    let address: Result<IpAddr, _> = text.trim().parse();
    address
        .map(|address| address.to_string())
        .map_err(|_| format!("IP address is not correctly formatted: {text}"))
}

/// A search domain, or `.` for none.
pub(crate) fn dns_search(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name == "." {
        return Ok(name.to_owned());
    }
    const DOMAIN_BYTES_MAX: usize = 254;
    let bare = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let letters = bare.bytes().any(|byte| byte.is_ascii_alphabetic());
    match letters && bare.len() <= DOMAIN_BYTES_MAX && bare.split('.').all(label) {
        true => Ok(bare.to_owned()),
        false => Err(format!("{text} is not a valid domain")),
    }
}

/// `name:address` or `name=address` to `name:address`. The address may be `host-gateway`, or in brackets.
pub(crate) fn extra_host(text: &str) -> Result<String, String> {
    let pair = text.split_once('=').or_else(|| text.split_once(':'));
    let (name, address) = pair
        .filter(|(name, _)| !name.is_empty() && !name.contains(':'))
        .ok_or_else(|| format!("bad format for add-host: {text:?}"))?;
    let address = match address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
    {
        Some(inner) if !inner.is_empty() => inner,
        _ => address,
    };
    if address != "host-gateway" && ip(address).is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{address}"))
}

/// Whether text is a hardware address of 6, 8 or 20 bytes, in any of the usual forms.
pub(crate) fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize| {
        let groups: Vec<&str> = text.trim().split(separator).collect();
        let hex = |group: &&str| {
            group.len() == digits && group.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        groups.iter().all(hex).then_some(groups.len() * digits / 2)
    };
    let bytes = groups(':', 2)
        .or_else(|| groups('-', 2))
        .or_else(|| groups('.', 4));
    matches!(bytes, Some(6 | 8 | 20))
}

/// `container[:alias]`.
pub(crate) fn check_link(text: &str) -> Result<(), String> {
    match text.split(':').count() {
        _ if text.is_empty() => Err("empty string specified for links".to_owned()),
        1 | 2 => Ok(()),
        _ => Err(format!("bad format for links: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(ip(" ::0001 "), Ok("::1".to_owned()));
        assert!(ip("1.2.3").is_err());
        assert!(
            is_mac("92:d0:c6:0a:29:33") && is_mac("92-d0-c6-0a-29-33") && is_mac("92d0.c60a.2933")
        );
        assert!(!is_mac("92:d0:c6:0a:29") && !is_mac("") && !is_mac("92:d0:c6:0a:29:3g"));
    }

    #[test]
    fn names() {
        assert_eq!(dns_search(" example.com. "), Ok("example.com".to_owned()));
        assert_eq!(dns_search("."), Ok(".".to_owned()));
        for text in ["", "..", "1.2.3.4", "-a.b", "a..b", "a b"] {
            assert!(dns_search(text).is_err(), "{text}");
        }
        assert_eq!(extra_host("a:1.2.3.4"), Ok("a:1.2.3.4".to_owned()));
        assert_eq!(extra_host("a=[::1]"), Ok("a:::1".to_owned()));
        assert_eq!(
            extra_host("a:host-gateway"),
            Ok("a:host-gateway".to_owned())
        );
        for text in ["a", ":1.2.3.4", "a:x", "a:[]", ""] {
            assert!(extra_host(text).is_err(), "{text}");
        }
        assert!(
            check_link("a:b").is_ok() && check_link("a:b:c").is_err() && check_link("").is_err()
        );
    }
}
