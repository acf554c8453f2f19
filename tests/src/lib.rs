//! A small internet inside network namespaces, and what the tests need to run connectors in it.

pub mod agent;
pub mod attempts;
pub mod bench;
pub mod demo;
pub mod event;
pub mod faults;
pub mod hello;
pub mod internet;
pub mod layers;
pub mod leftovers;
pub mod machine;
pub mod mcp;
pub mod modules;
mod namespaces;
mod pipe;
pub mod postgres;
pub mod probe;
pub mod process;
pub mod programs;
pub mod protocol;
pub mod shell;
pub mod stage;
pub mod suite;
pub mod token;
pub mod vectors;
pub mod world;
pub mod zone;
