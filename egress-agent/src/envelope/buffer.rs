//! Bytes that were read and not yet used.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What is read at a time. Bytes.
const STEP: usize = 16 * 1024;

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
        from.read_buf(&mut self.bytes).await
    }
}
