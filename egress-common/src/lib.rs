//! What the eBPF programs and the agent share.
//!
//! Records that cross the kernel boundary ([`grant`], [`event`], [`stat`]), the keys they
//! are found by ([`key`]), the codes that explain a refusal ([`verdict`]) and the one
//! function that decides ([`decide`]). Everything here is `no_std`, panic-free and free of
//! input and output: the data plane, `explain`, the tests' oracle and the fuzzer call the
//! same code.
//!
//! Records have fixed-width integers, explicit padding and no `bool`, `Option` or enum;
//! [`layout`] pins every size and offset at compile time.

#![no_std]

pub mod abi;
pub mod decide;
pub mod event;
pub mod grant;
pub mod hello;
pub mod key;
pub mod layout;
#[cfg(feature = "user")]
pub mod pod;
pub mod proxied;
pub mod sni;
pub mod socket;
pub mod stat;
pub mod unix;
pub mod verdict;
