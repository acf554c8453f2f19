//! What the agent decides and parses, held against naive readings of the same input.
//!
//! Each file of [`target`] takes bytes that anybody could have written, hands them to the
//! agent's code and to an independent reading of them, and panics where the two differ. The
//! fuzzer (`fuzz/`) feeds them, and so does a plain test with the committed seeds. The
//! `oracle` program compares verdicts by the hundred million, on tables and policies that
//! [`world`] and [`policy`] draw.
//!
//! Naive means: the standard library's addresses, every rule walked for every question, no
//! code shared with what is judged.

pub mod draw;
pub mod flow;
pub mod matcher;
pub mod names;
pub mod policy;
pub mod run;
pub mod target;
pub mod world;
