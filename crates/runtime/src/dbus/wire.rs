//! D-Bus messages as bytes: what systemd's manager is asked and answers, no more of the type system than that.
//!
//! Invariant: everything received is bounded and checked; nothing is read beyond a message's end.
//! Source: D-Bus specification, "Type System" and "Message Protocol".

use super::BusError;

/// The longest message taken; systemd's answers have some hundred bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The part of every message that says how long the rest is.
pub(super) const PROLOGUE_BYTES: usize = 16;

const LITTLE_ENDIAN: u8 = b'l';
const VERSION: u8 = 1;

// Kinds of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

/// A value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// `b`
    Flag(bool),
    /// `i`
    Signed32(i32),
    /// `u`
    Unsigned32(u32),
    /// `x`
    Signed64(i64),
    /// `t`
    Unsigned64(u64),
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Flag(_) => "b",
            Self::Signed32(_) => "i",
            Self::Unsigned32(_) => "u",
            Self::Signed64(_) => "x",
            Self::Unsigned64(_) => "t",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::Numbers(_) => "au",
            Self::Bytes(_) => "ay",
            Self::Pairs(_) => "a(ss)",
        }
    }
}

/// Bytes being written, aligned to the message's begin.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// A `u`.
    pub(crate) fn number(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
    }

    /// A `b`.
    pub(crate) fn flag(&mut self, flag: bool) {
        self.number(flag.into());
    }

    /// An `au`.
    pub(crate) fn numbers(&mut self, numbers: &[u32]) {
        self.array(4, |writer| {
            numbers.iter().for_each(|number| writer.number(*number));
        });
    }

    /// An `s` or `o`.
    pub(crate) fn text(&mut self, text: &str) {
        self.number(length(text.len()));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.bytes
            .push(u8::try_from(text.len()).expect("signatures here have some letters"));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// An array, its elements aligned so.
    fn array(&mut self, align: usize, write: impl FnOnce(&mut Self)) {
        self.number(0);
        let place = self.bytes.len() - size_of::<u32>();
        self.align(align);
        let start = self.bytes.len();
        write(self);
        let bytes = length(self.bytes.len() - start).to_le_bytes();
        self.bytes[place..place + bytes.len()].copy_from_slice(&bytes);
    }

    fn wide(&mut self, bytes: [u8; 8]) {
        self.align(8);
        self.bytes.extend(bytes);
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Flag(flag) => self.flag(*flag),
            Value::Signed32(number) => self.number(number.cast_unsigned()),
            Value::Unsigned32(number) => self.number(*number),
            Value::Signed64(number) => self.wide(number.to_le_bytes()),
            Value::Unsigned64(number) => self.wide(number.to_le_bytes()),
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => self.array(4, |writer| {
                texts.iter().for_each(|text| writer.text(text));
            }),
            Value::Numbers(numbers) => self.numbers(numbers),
            Value::Bytes(bytes) => self.array(1, |writer| writer.bytes.extend(bytes)),
            Value::Pairs(pairs) => self.array(8, |writer| {
                for (one, other) in pairs {
                    writer.align(8);
                    writer.text(one);
                    writer.text(other);
                }
            }),
        }
    }

    /// Properties as `a(sv)`.
    pub(crate) fn properties(&mut self, properties: &[(String, Value)]) {
        self.array(8, |writer| {
            for (name, value) in properties {
                writer.align(8);
                writer.text(name);
                writer.variant(value);
            }
        });
    }

    /// An empty array of structures.
    pub(crate) fn nothing(&mut self) {
        self.array(8, |_| ());
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("what is sent was bounded by who made it")
}

/// What a method is called on and with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
    /// The types of the body.
    pub(crate) signature: &'a str,
}

/// A method call as bytes.
pub(super) fn encode(call: Call<'_>, serial: u32, body: &Writer) -> Vec<u8> {
    let mut message = Writer {
        bytes: vec![LITTLE_ENDIAN, Kind::Call as u8, 0, VERSION],
    };
    message.number(length(body.bytes.len()));
    message.number(serial);
    message.array(8, |writer| {
        let texts = [
            (PATH, "o", call.path),
            (DESTINATION, "s", call.destination),
            (INTERFACE, "s", call.interface),
            (MEMBER, "s", call.member),
        ];
        for (kind, signature, text) in texts {
            writer.align(8);
            writer.bytes.push(kind);
            writer.signature(signature);
            writer.text(text);
        }
        if !call.signature.is_empty() {
            writer.align(8);
            writer.bytes.push(SIGNATURE);
            writer.signature("g");
            writer.signature(call.signature);
        }
    });
    message.align(8);
    message.bytes.extend(&body.bytes);
    message.bytes
}

/// The kinds of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call = 1,
    Reply = 2,
    Error = 3,
    Signal = 4,
}

/// A message received.
#[derive(Debug)]
pub(crate) struct Message {
    pub(super) kind: Option<Kind>,
    pub(super) member: String,
    pub(super) error: String,
    sender: String,
    pub(super) reply_to: u32,
    signature: String,
    body: Vec<u8>,
    swapped: bool,
}

impl Message {
    /// How many bytes follow the prologue.
    pub(super) fn rest(prologue: &[u8; PROLOGUE_BYTES]) -> Result<usize, BusError> {
        let swapped = swapped(prologue[0])?;
        if prologue[3] != VERSION {
            return Err(BusError::Malformed("a message of another version"));
        }
        let number = |at: usize| {
            let bytes = prologue[at..at + 4].try_into().expect("four bytes");
            usize::try_from(number(bytes, swapped)).unwrap_or(usize::MAX)
        };
        let (body, fields) = (number(4), number(12));
        if body > MESSAGE_BYTES_MAX || fields > MESSAGE_BYTES_MAX {
            return Err(BusError::Malformed("a message that is too long"));
        }
        Ok(fields.next_multiple_of(8) + body)
    }

    /// Reads what [`Self::rest`] counted.
    pub(super) fn decode(prologue: &[u8; PROLOGUE_BYTES], rest: &[u8]) -> Result<Self, BusError> {
        let swapped = swapped(prologue[0])?;
        let kind = match prologue[1] {
            1 => Some(Kind::Call),
            2 => Some(Kind::Reply),
            3 => Some(Kind::Error),
            4 => Some(Kind::Signal),
            // To be ignored.
            _ => None,
        };
        let fields_length = prologue[12..].try_into().expect("four bytes");
        let fields_length = usize::try_from(number(fields_length, swapped)).unwrap_or(usize::MAX);
        let fields = rest.get(..fields_length).ok_or(CUT)?;
        let body = rest
            .get(fields_length.next_multiple_of(8)..)
            .ok_or(CUT)?
            .to_vec();
        let mut message = Self {
            kind,
            member: String::new(),
            error: String::new(),
            sender: String::new(),
            reply_to: 0,
            signature: String::new(),
            body,
            swapped,
        };
        // The prologue is a multiple of 8, so that alignment counts from the fields' begin as well.
        let mut reader = Reader {
            bytes: fields,
            at: 0,
            swapped,
        };
        while reader.at < fields.len() {
            reader.align(8);
            let kind = reader.byte()?;
            let signature = reader.signature()?;
            match (kind, signature.as_str()) {
                (MEMBER, "s") => message.member = reader.text()?,
                (ERROR_NAME, "s") => message.error = reader.text()?,
                (SENDER, "s") => message.sender = reader.text()?,
                (SIGNATURE, "g") => message.signature = reader.signature()?,
                (REPLY_SERIAL, "u") => message.reply_to = reader.number()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.number()?),
                _ => return Err(BusError::Malformed("a header field of an unknown type")),
            }
        }
        Ok(message)
    }

    /// Who sent it, as the bus says.
    pub(crate) fn sender(&self) -> &str {
        &self.sender
    }

    /// The body, which must begin with values of these types.
    pub(crate) fn body(&self, signature: &str) -> Result<Reader<'_>, BusError> {
        if !self.signature.starts_with(signature) {
            return Err(BusError::Malformed("a body of other types"));
        }
        Ok(Reader {
            bytes: &self.body,
            at: 0,
            swapped: self.swapped,
        })
    }
}

const CUT: BusError = BusError::Malformed("a message that ends early");

fn swapped(order: u8) -> Result<bool, BusError> {
    match order {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(BusError::Malformed("a message of no byte order")),
    }
}

fn number(bytes: [u8; 4], swapped: bool) -> u32 {
    if swapped {
        u32::from_be_bytes(bytes)
    } else {
        u32::from_le_bytes(bytes)
    }
}

/// Bytes being read.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    swapped: bool,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Result<&[u8], BusError> {
        let end = self.at.checked_add(count).ok_or(CUT)?;
        let taken = self.bytes.get(self.at..end).ok_or(CUT)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, BusError> {
        Ok(self.take(1)?[0])
    }

    /// A `u`.
    pub(crate) fn number(&mut self) -> Result<u32, BusError> {
        self.align(4);
        let swapped = self.swapped;
        let bytes = self.take(4)?.try_into().expect("four bytes");
        Ok(number(bytes, swapped))
    }

    /// An `s` or `o`.
    pub(crate) fn text(&mut self) -> Result<String, BusError> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        self.string(length)
    }

    fn signature(&mut self) -> Result<String, BusError> {
        let length = self.byte()?.into();
        self.string(length)
    }

    fn string(&mut self, length: usize) -> Result<String, BusError> {
        let text = self.take(length)?.to_vec();
        let text =
            String::from_utf8(text).map_err(|_| BusError::Malformed("a text of no UTF-8"))?;
        match self.byte()? {
            0 => Ok(text),
            _ => Err(BusError::Malformed("a text without end")),
        }
    }

    /// A `v` that holds a text.
    pub(crate) fn text_variant(&mut self) -> Result<String, BusError> {
        match self.signature()?.as_str() {
            "s" | "o" => self.text(),
            _ => Err(BusError::Malformed("a value of another type")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALL: Call<'_> = Call {
        destination: "org.example",
        path: "/org/example",
        interface: "org.example.Of",
        member: "Do",
        signature: "s",
    };

    fn decode(bytes: &[u8]) -> Result<Message, BusError> {
        let prologue = bytes.first_chunk().ok_or(CUT)?;
        let rest = &bytes[PROLOGUE_BYTES..];
        let length = Message::rest(prologue)?;
        Message::decode(prologue, rest.get(..length).ok_or(CUT)?)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut body = Writer::default();
        body.text("grüße");
        let bytes = encode(CALL, 7, &body);
        let message = decode(&bytes).unwrap();
        assert_eq!(
            (message.kind, message.member.as_str()),
            (Some(Kind::Call), "Do")
        );
        assert_eq!(message.body("s").unwrap().text().unwrap(), "grüße");
        assert!(message.body("u").is_err());
    }

    #[test]
    fn values_are_aligned_as_the_specification_says() {
        let mut writer = Writer::default();
        writer.properties(&[
            ("A".into(), Value::Bytes(vec![9])),
            ("B".into(), Value::Unsigned64(1)),
            ("C".into(), Value::Pairs(vec![("x".into(), "y".into())])),
        ]);
        let expected: &[&[u8]] = &[
            &[84, 0, 0, 0, 0, 0, 0, 0],
            &[
                1, 0, 0, 0, b'A', 0, 2, b'a', b'y', 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0,
            ],
            &[
                1, 0, 0, 0, b'B', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
            ],
            &[
                1, 0, 0, 0, b'C', 0, 5, b'a', b'(', b's', b's', b')', 0, 0, 0, 0,
            ],
            &[14, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, b'x', 0, 0, 0, 1, 0, 0, 0, b'y', 0],
        ];
        let expected = expected.concat();
        assert_eq!(expected.len() - 8, 86);
        assert_eq!(&writer.bytes[4..], &expected[4..]);
        assert_eq!(writer.bytes[0], 86);
    }

    #[test]
    fn lengths_beyond_the_limit_are_refused_before_anything_is_read() {
        let mut prologue = [0; PROLOGUE_BYTES];
        prologue[..4].copy_from_slice(&[b'l', 2, 0, 1]);
        prologue[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Message::rest(&prologue).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(start) = bytes.first_chunk_mut::<4>() {
                *start = [b'l', 2, 0, 1];
            }
            if let Ok(message) = decode(&bytes) {
                for signature in ["", "s", "v"] {
                    if let Ok(mut reader) = message.body(signature) {
                        drop(reader.text());
                        drop(reader.text_variant());
                    }
                }
            }
        }
    }
}
