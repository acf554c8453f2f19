//! What the data plane is measured against: programs that do nothing, and a packet filter as
//! systemd writes one for `IPAddressAllow=` and `IPAddressDeny=any`. Never part of the agent.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    reason = "the entry-point macros drop the docs they are given"
)]

use core::ptr::addr_of_mut;

use aya_ebpf::{
    btf_maps::{LpmTrie, lpm_trie::Key},
    helpers::generated::bpf_skb_load_bytes,
    macros::{btf_map, cgroup_skb, cgroup_sock, cgroup_sock_addr},
    programs::{SkBuffContext, SockAddrContext, SockContext},
};

const PASS: i32 = 1;
const REFUSE: i32 = 0;
/// `ETH_P_IP`, `include/uapi/linux/if_ether.h`, as `__sk_buff.protocol` holds it.
const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
/// `ETH_P_IPV6`, likewise.
const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
/// Where the destination is in an IPv4 header.
const V4_DESTINATION: u32 = 16;
/// Where the destination is in an IPv6 header.
const V6_DESTINATION: u32 = 24;
/// Prefixes of one family.
const PREFIXES: usize = 64;

#[cgroup_sock_addr(connect4)]
pub fn noop_connect4(_ctx: SockAddrContext) -> i32 {
    PASS
}

#[cgroup_sock_addr(connect6)]
pub fn noop_connect6(_ctx: SockAddrContext) -> i32 {
    PASS
}

#[cgroup_sock_addr(sendmsg4)]
pub fn noop_sendmsg4(_ctx: SockAddrContext) -> i32 {
    PASS
}

#[cgroup_sock(sock_create)]
pub fn noop_sock_create(_ctx: SockContext) -> i32 {
    PASS
}

#[cgroup_skb(egress)]
pub fn noop_egress(_ctx: SkBuffContext) -> i32 {
    PASS
}

/// Permitted IPv4 prefixes, network order. systemd's values have eight bytes; here they are two
/// words, because the map puts them behind a key that is aligned to four.
#[btf_map]
pub static ALLOW4: LpmTrie<u32, [u32; 2], PREFIXES> = LpmTrie::new();

/// Permitted IPv6 prefixes, network order.
#[btf_map]
pub static ALLOW6: LpmTrie<[u32; 4], [u32; 2], PREFIXES> = LpmTrie::new();

/// One look-up for each packet, as `add_lookup_instructions()` in systemd's
/// `src/core/bpf-firewall.c` makes it: the address is copied out of the packet and looked up
/// in a trie; what is not found is refused. Its accounting is left out.
#[cgroup_skb(egress)]
pub fn filter_egress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the program's own context.
    let protocol = unsafe { (*skb).protocol };
    let mut allowed = true;
    if protocol == ETH_P_IP {
        let mut key = Key::new(32, 0_u32);
        // SAFETY: the key has room for the four bytes; the helper checks the packet's length.
        unsafe {
            bpf_skb_load_bytes(skb.cast(), V4_DESTINATION, addr_of_mut!(key.data).cast(), 4);
        }
        allowed = ALLOW4.get(&key).is_some();
    }
    if protocol == ETH_P_IPV6 {
        let mut key = Key::new(128, [0_u32; 4]);
        // SAFETY: the key has room for the 16 bytes; the helper checks the packet's length.
        unsafe {
            bpf_skb_load_bytes(
                skb.cast(),
                V6_DESTINATION,
                addr_of_mut!(key.data).cast(),
                16,
            );
        }
        allowed = ALLOW6.get(&key).is_some();
    }
    if allowed { PASS } else { REFUSE }
}

/// As in the data plane: what loads cannot panic.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
