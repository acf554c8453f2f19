//! Tests of the room: whole homes, and single command lines.

mod home;
mod lines;
mod policies;
