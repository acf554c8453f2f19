//! Names: the DNS door, a connector's only resolver.
//!
//! `server → wire → verdict → upstream → lease → grant::keeper → answer`, in that order and
//! never another: an address is in the kernel's table before the connector learns it.
//!
//! | file | holds |
//! |---|---|
//! | `wire` ◦ | strict reading of a query |
//! | `answer` ◦ | writing of an answer |
//! | `opening` ◦ | which ports the rules leave open for a name and for an address |
//! | `budget` ◦ | how much a connector may say by having names looked up |
//! | `cache` ◦ | what was answered lately |
//! | `lookup` | questions on their way upstream, each once |
//! | `verdict` ◦ | resolve, empty or refuse |
//! | `address` ◦ | rebinding protection: what an answer may point to |
//! | `dropped` ◦ | what is left out of an answer, and the key that would let it pass |
//! | `service` ◦ | SRV records: which may be asked for, and which targets are told |
//! | `lease` ◦ | TTL → lease, answered TTL and time of refresh |
//! | `chain` ◦ | from an asked name along its aliases to the addresses |
//! | `nat64` ◦ | the IPv4 address behind an IPv6 one |
//! | `resolv_conf` ◦, `hosts` ◦ | what the host's own files say |
//! | `files` | these files, read again when they change |
//! | `upstream` | where a name is looked up: the host's file, the policy's or the host's servers |
//! | `servers`, `exchange` | servers in their order; one question to one of them |
//! | `news` | what is told of the network |
//! | `places` ◦ | which loopback address stands for which name, where a proxy resolves |
//! | `stand` | loopback addresses that stand for names, and the process behind them |
//! | `proxied` | names that go through a company's proxy |
//! | `inspected` | names whose requests are judged |
//! | `names` | one name from verdict to grant; shared by the door and the refresher |
//! | `offer` | what is told of services |
//! | `report` | refusals and exact counters |
//! | `server`, `stream` | the sockets |
//! | `refresh` | exact names, resolved before the start and kept fresh |

pub mod address;
pub mod answer;
pub mod budget;
pub mod cache;
pub mod chain;
pub mod dropped;
pub mod files;
pub mod hosts;
pub mod inspected;
pub mod lease;
pub mod names;
pub mod nat64;
pub mod news;
pub mod opening;
pub mod places;
pub mod proxied;
pub mod refresh;
pub mod report;
pub mod resolv_conf;
pub mod server;
pub mod service;
pub mod stand;
pub mod upstream;
pub mod verdict;
pub mod wire;

mod exchange;
mod lookup;
mod offer;
mod servers;
mod stream;
#[cfg(test)]
mod tests;

pub use names::{Carrier, Names, NamesConfig, Successor};
pub use refresh::{Prefetched, prefetch, prefetch_for, refresh};
pub use report::{DoorStats, Refusal};
pub use server::Door;
