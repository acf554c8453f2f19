//! The envelope proxy: a small confined process that ends TLS for rules with `inspect:`, reads and
//! judges requests, and carries those that pass to the name's real addresses.
//!
//! ```text
//! connector ─TLS▶ 127.64.…:443, which stands for a name ─▶ envelope proxy ─TLS▶ the name's addresses
//! ```
//!
//! It knows the name by the address that was called, never by what the connector says; the name in
//! TLS and every request's authority have to be the same. What is sent on is written from what was
//! judged. It speaks HTTP/1.1 and HTTP/2, with each program what the server chooses of what the
//! program offers, so that neither side meets what it would not meet without a proxy.
//!
//! | file | holds |
//! |---|---|
//! | `child` | becoming the proxy |
//! | `orders` | its side of the pipes to the agent |
//! | `handle` | the agent's side of it |
//! | `tap` | what the client says to the connector, known to the proxy first |
//! | `shapes` | what requests were made of, kept between runs |
//! | `spec` | what agent and proxy say to each other |
//! | `why` ◦ | why a connection came to nothing, for people |
//! | `ca` | its authority, in memory |
//! | `upstream` | the way to the server |
//! | `pool` | connections to servers that are kept |
//! | `verdict` | the whole verdict on a request |
//! | `shared` | what every connection needs |
//! | `answer` ◦ | a server's answer: where it ends, how it is written on |
//! | `buffer` | bytes that were read and not yet used |
//! | `relay` | moving bytes between the two sides |
//! | `incoming` | a request's body |
//! | `refusal` | what a program is answered that was refused |
//! | `carry` | one request that passes, to the server and its answer back |
//! | `h1` | a conversation in HTTP/1.1: head, verdict, body, and again |
//! | `transit` | one stream that passes, to the server and its answer back |
//! | `stream` | one stream in HTTP/2: head, verdict, body |
//! | `h2` | a conversation in HTTP/2 |
//! | `serve` | its work |

mod answer;
mod buffer;
mod ca;
mod carry;
pub mod child;
mod h1;
mod h2;
mod handle;
mod incoming;
mod orders;
mod pool;
mod refusal;
mod relay;
mod serve;
pub mod shapes;
mod shared;
mod spec;
mod stream;
mod tap;
#[cfg(test)]
mod tests;
mod transit;
mod upstream;
mod verdict;
mod why;

pub use handle::{Envelope, Judged, Start, Told};
pub use spec::ENVELOPE;
pub use tap::tap;
