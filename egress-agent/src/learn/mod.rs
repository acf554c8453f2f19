//! From what a connector's runs reached to the rules that are missing in its policy.
//!
//! [`observed`] reads lines of the stream, [`propose`] says which rules they call for ([`known`]
//! knows telemetry, registries and whose a domain is), [`render`] writes them, [`insert`] puts them
//! into the text of a policy, [`compare`] holds declared against observed and one record against
//! another. [`read`] alone touches files.

pub mod compare;
pub mod insert;
pub mod known;
pub mod observed;
pub mod propose;
pub mod read;
pub mod render;

#[cfg(test)]
mod tests;
