//! What a response says: all at once, in pieces that somebody sends, or made while it is sent.
//!
//! Invariant: a body that cannot be ended as it should breaks its connection off, so that the peer cannot take what it got for the
//! whole.

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde::Serialize;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// How large a piece of a list is, at least, unless it is the last. A list that is shorter has a length, as dockerd's short ones have.
const LIST_PIECE_BYTES: usize = 32 << 10;

/// A response's body.
#[derive(Debug)]
pub(crate) enum Body {
    /// All of it; None once it was sent.
    Whole(Option<Bytes>),
    /// Piece by piece, until the sender is dropped or has sent an error.
    Pieces(mpsc::Receiver<io::Result<Bytes>>),
    /// Each piece when the one before is on its way.
    Made(Made),
}

impl Body {
    /// A JSON array and a line's end.
    ///
    /// # Errors
    /// One of its first elements has no JSON.
    pub(crate) fn array<T: Serialize>(
        elements: impl Iterator<Item = T> + Send + 'static,
    ) -> io::Result<Self> {
        let mut array = Array {
            elements,
            begun: false,
            ended: false,
        };
        let first = array.next().transpose()?;
        if array.ended {
            return Ok(Self::Whole(first));
        }
        Ok(Self::Made(Made {
            pieces: Box::new(first.map(Ok).into_iter().chain(array)),
            sending: false,
        }))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Self::Pieces(receiver) => receiver.poll_recv(context),
            Self::Made(made) => made.poll_next(context),
        };
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Pieces(_) | Self::Made(_) => SizeHint::default(),
        }
    }
}

/// Pieces that are made one after the other.
pub(crate) struct Made {
    pieces: Box<dyn Iterator<Item = io::Result<Bytes>> + Send>,
    /// Whether the last piece may not be on its way yet.
    sending: bool,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Made")
    }
}

impl Made {
    /// A connection collects what is ready and sends it when there is nothing more for now. So after each piece there is nothing, once:
    /// the peer reads it while the next is made.
    fn poll_next(&mut self, context: &Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.sending = !self.sending;
        if self.sending {
            return Poll::Ready(self.pieces.next());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The pieces of a JSON array.
struct Array<I> {
    elements: I,
    begun: bool,
    ended: bool,
}

impl<T: Serialize, I: Iterator<Item = T>> Iterator for Array<I> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.ended {
            return None;
        }
        let mut piece = Vec::with_capacity(LIST_PIECE_BYTES);
        while piece.len() < LIST_PIECE_BYTES {
            let Some(element) = self.elements.next() else {
                let end: &[u8] = if self.begun { b"]\n" } else { b"[]\n" };
                piece.extend_from_slice(end);
                self.ended = true;
                break;
            };
            piece.push(if self.begun { b',' } else { b'[' });
            self.begun = true;
            if let Err(error) = serde_json::to_writer(&mut piece, &element) {
                self.ended = true;
                return Some(Err(error.into()));
            }
        }
        Some(Ok(piece.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn text(body: Body) -> String {
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_array_is_the_same_whole_and_in_pieces() {
        for count in [0, 1, 3, 20_000] {
            let all: Vec<u32> = (0..count).collect();
            let body = Body::array(all.clone().into_iter()).unwrap();
            assert_eq!(matches!(body, Body::Whole(_)), count < 100, "{count}");
            let expected = format!("{}\n", serde_json::to_string(&all).unwrap());
            assert_eq!(text(body).await, expected);
        }
    }

    #[tokio::test]
    async fn an_element_without_json_breaks_the_body_off() {
        struct Unspeakable(bool);
        impl Serialize for Unspeakable {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.0 {
                    true => Err(serde::ser::Error::custom("no words")),
                    false => serializer.serialize_bool(false),
                }
            }
        }
        let list = |at: usize| (0..20_000).map(move |index| Unspeakable(index == at));
        assert!(Body::array(list(0)).is_err());
        let late = Body::array(list(19_999)).unwrap();
        assert!(late.collect().await.is_err());
    }
}
