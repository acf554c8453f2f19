//! What a connector may reach, from a file's text to the data plane's tables.

pub mod model;
pub mod name;
