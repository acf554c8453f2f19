//! The body of a request, as it comes in.

use egress_envelope::{
    h1::{Chunk, Chunks},
    head::Framing,
    judge::Refusal,
};
use tokio::io::AsyncRead;

use super::buffer::Buffer;

/// A body of which some may still come.
pub(super) struct Incoming {
    state: State,
}

enum State {
    Length(u64),
    Chunked(Chunks),
    Over,
}

/// Why there is no more of it.
#[derive(Debug)]
pub(super) enum Stop {
    /// The program is gone.
    Gone,
    /// It is not proper.
    Refused(Refusal),
}

impl Incoming {
    pub(super) fn new(framing: &Framing) -> Self {
        let state = match framing {
            Framing::Length(length) => State::Length(*length),
            Framing::Chunked => State::Chunked(Chunks::new()),
            Framing::None | Framing::Stream => State::Over,
        };
        Self { state }
    }

    /// Whether nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over | State::Length(0))
    }

    /// Whether some of it is there already, and not in chunks.
    pub(super) fn is_at_hand(&self, input: &Buffer) -> bool {
        matches!(self.state, State::Length(1..)) && !input.left().is_empty()
    }

    /// Adds what comes next to `out`; `false`: it is over. Not safe to cancel.
    pub(super) async fn next(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        input: &mut Buffer,
        out: &mut Vec<u8>,
    ) -> Result<bool, Stop> {
        loop {
            match &mut self.state {
                State::Over | State::Length(0) => return Ok(false),
                State::Length(left) if !input.left().is_empty() => {
                    let there = input.left();
                    let len = there
                        .len()
                        .min(usize::try_from(*left).unwrap_or(usize::MAX));
                    out.extend(there.get(..len).unwrap_or_default());
                    *left = left.saturating_sub(u64::try_from(len).unwrap_or(u64::MAX));
                    input.take(len);
                    return Ok(true);
                }
                State::Chunked(chunks) => {
                    match chunks.next(input.left()).map_err(Stop::Refused)? {
                        Chunk::More => {}
                        Chunk::Skip(used) => {
                            input.take(used);
                            continue;
                        }
                        Chunk::Data(len) => {
                            out.extend(input.left().get(..len).unwrap_or_default());
                            input.take(len);
                            return Ok(true);
                        }
                        Chunk::End(used) => {
                            input.take(used);
                            self.state = State::Over;
                            return Ok(false);
                        }
                    }
                }
                State::Length(_) => {}
            }
            match input.fill(reader).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(Stop::Gone),
            }
        }
    }
}
