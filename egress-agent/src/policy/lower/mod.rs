//! From what is written ([`super::schema`]) to what it means ([`super::model`]), with every
//! fault collected on the way.

mod document;
mod inspect;
mod judging;
mod limits;
mod listen;
mod operation;
mod pin;
mod ports;
mod proxy;
mod rule;
mod run;
mod settings;
mod target;
mod tls;
mod value;

pub use document::{is_connector, lower};
pub use target::{Short, host, short, unix};
