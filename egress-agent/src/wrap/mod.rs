//! Puts the agent in front of the servers of a client's configuration, and takes it away again.
//!
//! [`place`] finds a server's words, [`front`] and [`back`] change the text ([`edit`]) and touch
//! no other byte, [`mod@write`] puts it in the place of the file. [`starting`] makes the policy that a
//! server starts with, where [`ready`] knows its package from a ready one. [`job`] goes the whole way;
//! only it and [`mod@write`] touch files.

pub mod back;
pub mod edit;
pub mod front;
pub mod job;
pub mod place;
pub mod ready;
pub mod refused;
pub mod starting;
pub mod write;

#[cfg(test)]
mod tests;
