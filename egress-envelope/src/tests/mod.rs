//! Whole requests: hostile ones of which none passes, lawful ones of which all do, and garbage.

mod calls;
mod encodings;
mod hostile;
mod lawful;
mod libraries;
mod mails;
mod parts;
mod servers;
mod world;
