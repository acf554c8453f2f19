//! What every place that takes lines can do.

use crate::event::model::Record;

/// A place that takes lines.
pub trait Sink: Send {
    /// Takes a line, as a record and as its JSON with the line end. It may be kept back
    /// until [`Sink::flush`].
    fn push(&mut self, record: &Record, json: &[u8]);
    /// Hands over what is kept back. What cannot be handed over now is tried again later.
    fn flush(&mut self);
    /// Lines given up since this was last asked.
    fn take_unwritten(&mut self) -> u64;
    /// Why lines cannot be handed over now; `None`: they can.
    fn fault(&self) -> Option<String>;
    /// Hands over what is left, within a bounded time, and gives the rest up.
    fn close(&mut self);
}
