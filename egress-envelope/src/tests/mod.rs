//! Whole requests: hostile ones of which none passes, lawful ones of which all do, and garbage.

mod hostile;
mod lawful;
mod world;
