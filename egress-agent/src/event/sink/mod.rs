//! Where lines go: the instance's own file, a file of the user's, a terminal.

pub mod append;
pub mod contract;
pub mod folder;
pub mod hub;
pub mod json;
pub mod jsonl;
pub mod terminal;
pub mod text;

pub use append::UserFile;
pub use contract::Sink;
pub use folder::{Folder, SinkError};
pub use jsonl::Jsonl;
pub use terminal::Terminal;
