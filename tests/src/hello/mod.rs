//! Client hellos of TLS (RFC 8446 section 4.1.2), made by hand: right ones, and wrong ones.

pub mod build;
