//! How slow a client may be: slower ones are cut off, so that they cannot keep others out.
//!
//! [`Pace`] is for what a client sends, [`Paced`] for what it takes: each so many bytes have a time to pass.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a client may take …
pub(crate) const STALL: Duration = Duration::from_secs(60);
/// … for so many bytes, or for the rest where that is less.
pub(crate) const STALL_BYTES: usize = 64 << 10;

/// The deadline of the next bytes.
#[derive(Debug)]
pub(crate) struct Pace {
    stall: Duration,
    deadline: Instant,
    bytes: usize,
}

impl Pace {
    pub(crate) fn new(stall: Duration) -> Self {
        Self {
            stall,
            deadline: Instant::now() + stall,
            bytes: 0,
        }
    }

    /// When the client is too slow.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// So many bytes have passed.
    pub(crate) fn passed(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= STALL_BYTES {
            self.renew();
        }
    }

    /// The client was not the one that was waited for.
    pub(crate) fn renew(&mut self) {
        *self = Self::new(self.stall);
    }
}

/// A connection that fails when its client does not take what is written.
#[derive(Debug)]
pub(crate) struct Paced<S> {
    inner: S,
    stall: Duration,
    /// Runs while there is something that the client has not taken.
    waiting: Option<(Pace, Pin<Box<Sleep>>)>,
}

impl<S> Paced<S> {
    pub(crate) fn new(inner: S, stall: Duration) -> Self {
        Self {
            inner,
            stall,
            waiting: None,
        }
    }

    /// Looks at the clock when the client has not taken anything; counts what it has.
    fn watch(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => {
                if let Some((pace, sleep)) = &mut self.waiting {
                    pace.passed(*bytes);
                    sleep.as_mut().reset(pace.deadline());
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let stall = self.stall;
                let (_, sleep) = self.waiting.get_or_insert_with(|| {
                    let pace = Pace::new(stall);
                    let sleep = Box::pin(tokio::time::sleep_until(pace.deadline()));
                    (pace, sleep)
                });
                if sleep.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // All that was to be written is the kernel's.
        self.waiting = None;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut_off() {
        let (mine, _theirs) = tokio::io::duplex(10);
        let mut paced = Paced::new(mine, STALL);
        let error = paced.write_all(&[0; 11]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_byte_now_and_then_is_cut_off_too() {
        let (mine, mut theirs) = tokio::io::duplex(10);
        let reading = tokio::spawn(async move {
            while theirs.read_u8().await.is_ok() {
                tokio::time::sleep(STALL / 2).await;
            }
        });
        let mut paced = Paced::new(mine, STALL);
        let error = paced.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        reading.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_enough_is_served_however_long() {
        let (mine, mut theirs) = tokio::io::duplex(STALL_BYTES);
        let reading = tokio::spawn(async move {
            let mut piece = vec![0; STALL_BYTES];
            let mut total = 0;
            while theirs.read_exact(&mut piece).await.is_ok() {
                total += piece.len();
                tokio::time::sleep(STALL / 2).await;
            }
            total
        });
        let mut paced = Paced::new(mine, STALL);
        paced.write_all(&vec![0; 10 * STALL_BYTES]).await.unwrap();
        drop(paced);
        assert_eq!(reading.await.unwrap(), 10 * STALL_BYTES);
    }
}
