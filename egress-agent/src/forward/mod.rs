//! The forwarder: a small confined process that carries a connector's connections through a
//! company's proxy.
//!
//! ```text
//! connector ─▶ 127.64.…:443, which stands for a name ─▶ forwarder ─▶ CONNECT name:443 ─▶ proxy
//! ```
//!
//! It knows the name by the address that was called, never by what the connector says, and reads
//! nothing of that before the proxy has opened the way. The kernel lets it reach the proxy's
//! addresses and nothing else: it is a connector of the data plane's own, without a policy.
//!
//! | file | holds |
//! |---|---|
//! | `spec` | what agent and forwarder say to each other |
//! | `head` ◦ | the proxy's answer |
//! | `story` ◦ | what a connection that came to nothing means, for people |
//! | `range` | the loopback addresses of one instance |
//! | `confined` | a confined process on its way to its work |
//! | `pipes` | the agent's side of such a process: start, and lines both ways |
//! | `child` | becoming the forwarder |
//! | `filter` | the system calls and files it can use |
//! | `serve` | its work |
//! | `handle` | the agent's side of it |
//! | `whereabouts` | where the proxy is |

pub mod child;
pub mod confined;

mod filter;
mod handle;
mod head;

pub mod pipes;
mod range;
mod serve;
mod spec;
mod story;
mod whereabouts;

pub use handle::{Forwarder, Start};
pub use pipes::ForwardError;
pub use range::Range;
pub use spec::FORWARDER;
pub use whereabouts::{Lookless, Whereabouts};
