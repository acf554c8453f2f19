//! Client hellos of TLS (RFC 8446 section 4.1.2), made by hand: right ones and wrong ones; a
//! reader that knows nothing of the kernel's; and mutations of what real clients send.

pub mod build;
pub mod mutate;
pub mod naive;
