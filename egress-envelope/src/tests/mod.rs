//! Whole requests: hostile ones of which none passes, lawful ones of which all do, and garbage.

mod encodings;
mod hostile;
mod lawful;
mod parts;
mod world;
