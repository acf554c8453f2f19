//! Connections of a connector to its forwarder, which carries them to the company's proxy.

/// Both ends of such a connection, as the connector sees them. 12 bytes.
///
/// Nobody else can have these two ends as long as the connector's socket is there, so what is
/// noted for them speaks for that socket alone.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProxiedKey {
    /// Its own address, network order.
    pub source: u32,
    /// The forwarder's address, network order; it stands for a name.
    pub destination: u32,
    /// Its own port, host order.
    pub source_port: u16,
    /// The forwarder's port, host order.
    pub port: u16,
}

/// Whether an IPv4 address (host order) is in the forwarder's range, which begins at `net`;
/// never where there is no forwarder.
#[inline(always)]
pub const fn in_range(address: u32, net: u32) -> bool {
    net != 0 && address >> crate::abi::PROXY_HOST_BITS == net >> crate::abi::PROXY_HOST_BITS
}
