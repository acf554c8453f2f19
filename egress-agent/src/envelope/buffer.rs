//! Bytes that were read and not yet used.

use std::{future::poll_fn, io, pin::pin, task::Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What is read at a time. Bytes.
const STEP: usize = 16 * 1024;
/// What is gathered of what has arrived already, so that it goes on at once. Bytes.
const GATHERED: usize = 64 * 1024;

/// Bytes that were read and not yet used.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// What is there.
    pub(super) fn left(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Drops what was used.
    pub(super) fn take(&mut self, used: usize) {
        self.start = self.start.saturating_add(used).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Reads more. Answers how much; 0: the other side has ended. Safe to cancel.
    pub(super) async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.reserve(STEP);
        let mut read = from.read_buf(&mut self.bytes).await?;
        while read > 0 && read < GATHERED {
            self.bytes.reserve(STEP);
            let mut more = pin!(from.read_buf(&mut self.bytes));
            let at_once = poll_fn(|cx| {
                Poll::Ready(match more.as_mut().poll(cx) {
                    Poll::Ready(read) => Some(read),
                    Poll::Pending => None,
                })
            });
            match at_once.await {
                Some(Ok(more @ 1..)) => read = read.saturating_add(more),
                // Nothing just now. An end and an error come again with the next call.
                Some(Ok(0) | Err(_)) | None => break,
            }
        }
        Ok(read)
    }

    /// Gives memory back that was for more than a head.
    pub(super) fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes.shrink_to(2 * STEP);
        }
    }
}
