//! Queries and answers about names on the wire: RFC 1035 section 4, RFC 6891 section 6.
//!
//! Only what an answer from a table needs is understood: one question, and how much the client can receive. Everything else is
//! passed on as it came.

use std::net::IpAddr;

/// The longest name in its text form.
pub(crate) const NAME_BYTES_MAX: usize = 253;

/// The most that is sent in a datagram, whatever a client says it can receive.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// What every client can receive in a datagram.
const DATAGRAM_BYTES: usize = 512;

/// The most in one message over a stream: its length has 16 bits.
const STREAM_BYTES_MAX: usize = 65535;

/// How many seconds an answer may be remembered: containers come and go.
const TTL_S: u32 = 5;

const HEADER_BYTES: usize = 12;
const CLASS_IN: u16 = 1;
const OPT: u16 = 41;
/// Points to the question's name, which follows the header.
const NAME_OF_QUESTION: [u8; 2] = [0xc0, 12];

const RESPONSE: u16 = 1 << 15;
const OPCODE: u16 = 0xf << 11;
const AUTHORITATIVE: u16 = 1 << 10;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;
const RECURSION_AVAILABLE: u16 = 1 << 7;

/// Types of records.
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const ANY: u16 = 255;
}

/// How a query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is such a name, perhaps without a record of the type.
    Found = 0,
    /// The query makes no sense.
    Malformed = 1,
    /// Nobody who was asked has answered.
    Failed = 2,
    /// There is no such name.
    NoName = 3,
    /// Something that is not a query.
    NotImplemented = 4,
}

/// How a query came, which says how long its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Datagram,
    Stream,
}

/// A query with one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    message: &'a [u8],
    flags: u16,
    /// In lower case, without the last dot.
    pub(crate) name: String,
    pub(crate) kind: u16,
    /// Whether it is about the Internet, as all are.
    pub(crate) is_internet: bool,
    /// Where the question ends.
    question_end: usize,
    /// How much the client can receive in a datagram, where it says so.
    receives: Option<u16>,
}

/// An answer's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Address(IpAddr),
    Name(String),
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// The id of a message.
pub(crate) fn id(message: &[u8]) -> Option<u16> {
    number(message, 0)
}

/// Gives a message another id.
pub(crate) fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

/// Whether a message is an answer to a query: the same question, with its id.
pub(crate) fn answers(answer: &[u8], query: &[u8]) -> bool {
    let Ok(asked) = Query::parse(query) else {
        return false;
    };
    let same = |end: usize| match answer.get(HEADER_BYTES..end) {
        Some(question) => question.eq_ignore_ascii_case(&query[HEADER_BYTES..end]),
        None => false,
    };
    id(answer) == id(query)
        && number(answer, 2).is_some_and(|flags| flags & RESPONSE != 0)
        // Some servers leave the question out of an error.
        && (same(asked.question_end) || number(answer, 4) == Some(0))
}

/// Whether an answer says that the server cannot or will not tell, so that another one may be asked.
pub(crate) fn is_refusal(answer: &[u8]) -> bool {
    const SERVER_FAILURE: u16 = 2;
    const REFUSED: u16 = 5;
    number(answer, 2).is_some_and(|flags| matches!(flags & 0xf, SERVER_FAILURE | REFUSED))
}

/// An answer to what cannot be read as a query. None: it has no answer, not even an error.
pub(crate) fn reject(message: &[u8], outcome: Outcome) -> Option<Vec<u8>> {
    let flags = number(message, 2)?;
    if flags & RESPONSE != 0 || message.len() < HEADER_BYTES {
        return None;
    }
    let mut answer = message[..2].to_vec();
    let kept = flags & (OPCODE | RECURSION_DESIRED);
    answer.extend((RESPONSE | kept | RECURSION_AVAILABLE | outcome as u16).to_be_bytes());
    answer.extend([0; 8]);
    Some(answer)
}

impl<'a> Query<'a> {
    /// Reads a query.
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self, Outcome> {
        let count = |at| number(message, at).ok_or(Outcome::Malformed);
        let flags = count(2)?;
        if flags & OPCODE != 0 {
            return Err(Outcome::NotImplemented);
        }
        let others = (count(6)?, count(8)?);
        if flags & RESPONSE != 0 || count(4)? != 1 || others != (0, 0) {
            return Err(Outcome::Malformed);
        }
        let (name, end) = read_name(message, HEADER_BYTES).ok_or(Outcome::Malformed)?;
        Ok(Self {
            message,
            flags,
            name,
            kind: count(end)?,
            is_internet: count(end + 2)? == CLASS_IN,
            question_end: end + 4,
            receives: receives(message, end + 4),
        })
    }

    /// An answer with these records, as many as fit.
    pub(crate) fn answer(
        &self,
        outcome: Outcome,
        records: &[Record],
        transport: Transport,
    ) -> Vec<u8> {
        let room = match (transport, self.receives) {
            (Transport::Stream, _) => STREAM_BYTES_MAX,
            (Transport::Datagram, None) => DATAGRAM_BYTES,
            (Transport::Datagram, Some(bytes)) => {
                usize::from(bytes).clamp(DATAGRAM_BYTES, DATAGRAM_BYTES_MAX)
            }
        };
        let opt = self.receives.map_or(Vec::new(), |_| own_opt());
        let mut answer = self.message[..self.question_end].to_vec();
        let mut count: u16 = 0;
        let mut flags = RESPONSE
            | (self.flags & RECURSION_DESIRED)
            | AUTHORITATIVE
            | RECURSION_AVAILABLE
            | outcome as u16;
        for record in records {
            let encoded = encode(record);
            if answer.len() + encoded.len() + opt.len() > room {
                flags |= TRUNCATED;
                break;
            }
            answer.extend(encoded);
            count += 1;
        }
        answer.extend(&opt);
        answer[2..4].copy_from_slice(&flags.to_be_bytes());
        answer[6..8].copy_from_slice(&count.to_be_bytes());
        answer[10..12].copy_from_slice(&u16::from(!opt.is_empty()).to_be_bytes());
        answer
    }
}

/// A name that begins here, and where it ends. A pointer has nothing to point to in a query.
fn read_name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    const LABEL_BYTES_MAX: u8 = 63;
    let mut name = Vec::new();
    loop {
        let length = *message.get(at)?;
        at += 1;
        if length == 0 {
            break;
        }
        if length > LABEL_BYTES_MAX {
            return None;
        }
        let label = message.get(at..at + usize::from(length))?;
        at += usize::from(length);
        if !name.is_empty() {
            name.push(b'.');
        }
        name.extend(label.to_ascii_lowercase());
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
    }
    // What is no text is nobody's name here; it is passed on as it is.
    Some((String::from_utf8_lossy(&name).into_owned(), at))
}

/// How much the client can receive: the class of the record behind the question, if that is an OPT.
fn receives(message: &[u8], at: usize) -> Option<u16> {
    let has_opt = number(message, 10)? > 0
        && message.get(at) == Some(&0)
        && number(message, at + 1) == Some(OPT);
    number(message, at + 3).filter(|_| has_opt)
}

/// The record that says how much can be received here.
fn own_opt() -> Vec<u8> {
    let mut opt = vec![0];
    opt.extend(OPT.to_be_bytes());
    opt.extend(
        u16::try_from(DATAGRAM_BYTES_MAX)
            .unwrap_or(u16::MAX)
            .to_be_bytes(),
    );
    opt.extend([0; 6]);
    opt
}

fn encode(record: &Record) -> Vec<u8> {
    let (kind, data) = match record {
        Record::Address(IpAddr::V4(v4)) => (kind::A, v4.octets().to_vec()),
        Record::Address(IpAddr::V6(v6)) => (kind::AAAA, v6.octets().to_vec()),
        Record::Name(name) => (kind::PTR, encode_name(name)),
    };
    let mut bytes = NAME_OF_QUESTION.to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    bytes.extend(TTL_S.to_be_bytes());
    bytes.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        // Names in the table are checked by who writes it.
        let label = &label.as_bytes()[..label.len().min(63)];
        bytes.push(u8::try_from(label.len()).unwrap_or(63));
        bytes.extend(label);
    }
    bytes.push(0);
    bytes
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for: RFC 1035 section 3.5, RFC 3596 section 2.5.
pub(crate) fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(parts) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut parts = parts.split('.').rev();
        for octet in &mut octets {
            *octet = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then(|| octets.into());
    }
    let mut octets = [0_u8; 16];
    let mut nibbles = name.strip_suffix(".ip6.arpa")?.split('.').rev();
    for octet in &mut octets {
        for _ in 0..2 {
            let nibble = nibbles.next().filter(|nibble| nibble.len() == 1)?;
            *octet = (*octet << 4) | u8::from_str_radix(nibble, 16).ok()?;
        }
    }
    nibbles.next().is_none().then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(name: &str, kind: u16, opt: Option<u16>) -> Vec<u8> {
        let mut message = vec![
            0x12,
            0x34,
            1,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            u8::from(opt.is_some()),
        ];
        message.extend(encode_name(name));
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        if let Some(bytes) = opt {
            message.extend([0, 0, 41]);
            message.extend(bytes.to_be_bytes());
            message.extend([0; 6]);
        }
        message
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let message = query("Web.Front", kind::A, None);
        let query = Query::parse(&message).unwrap();
        assert_eq!(
            (query.name.as_str(), query.kind, query.is_internet),
            ("web.front", kind::A, true)
        );
        let records = [Record::Address([10, 0, 0, 2].into())];
        let answer = query.answer(Outcome::Found, &records, Transport::Datagram);
        assert_eq!(
            answer[..12],
            [0x12, 0x34, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]
        );
        assert_eq!(
            answer[answer.len() - 16..],
            [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 2]
        );
        assert!(answers(&answer, &message));
        let mut other = answer.clone();
        other[0] ^= 1;
        assert!(!answers(&other, &message));
    }

    #[test]
    fn an_answer_fits_what_the_client_receives() {
        let records = vec![Record::Address([10, 0, 0, 2].into()); 100];
        let lengths = [
            (None, Transport::Datagram),
            (Some(1232), Transport::Datagram),
            (Some(1), Transport::Datagram),
            (None, Transport::Stream),
        ]
        .map(|(opt, transport)| {
            let message = query("web", kind::A, opt);
            let answer =
                Query::parse(&message)
                    .unwrap()
                    .answer(Outcome::Found, &records, transport);
            (
                answer.len() <= 512,
                answer.len() <= 1232,
                answer[2] & 2 != 0,
                answer[11],
            )
        });
        assert_eq!(
            lengths,
            [
                (true, true, true, 0),
                (false, true, true, 1),
                (true, true, true, 1),
                (false, false, false, 0)
            ]
        );
    }

    #[test]
    fn names_of_addresses_are_read() {
        assert_eq!(
            reverse_address("2.0.17.172.in-addr.arpa"),
            Some([172, 17, 0, 2].into())
        );
        let v6 = format!(
            "{}8.b.d.0.1.0.0.2.ip6.arpa",
            "1.".to_owned() + &"0.".repeat(23)
        );
        assert_eq!(reverse_address(&v6), Some("2001:db8::1".parse().unwrap()));
        for bad in [
            "17.172.in-addr.arpa",
            "1.2.3.4.5.in-addr.arpa",
            "a.0.17.172.in-addr.arpa",
            "web",
            "0.ip6.arpa",
        ] {
            assert_eq!(reverse_address(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_query_is_told_so_or_ignored() {
        let message = query("web", kind::A, None);
        let mut update = message.clone();
        update[2] = 5 << 3;
        assert_eq!(Query::parse(&update), Err(Outcome::NotImplemented));
        let mut response = message.clone();
        response[2] |= 0x80;
        assert_eq!(reject(&response, Outcome::Malformed), None);
        let mut pointer = message.clone();
        pointer[12] = 0xc0;
        assert_eq!(Query::parse(&pointer), Err(Outcome::Malformed));
        assert_eq!(reject(&message[..5], Outcome::Malformed), None);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let records = [Record::Name("a.b".to_owned())];
            if let Ok(query) = Query::parse(&bytes) {
                query.answer(Outcome::Found, &records, Transport::Datagram);
            }
            let _ = reject(&bytes, Outcome::Malformed);
            let _ = answers(&bytes, &bytes);
        }
    }
}
