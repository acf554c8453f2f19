//! Reading the files of all instances as one stream, merged by time.

pub mod merge;
pub mod reader;
pub mod source;

pub use merge::{Tail, TailError};
pub use source::Line;
