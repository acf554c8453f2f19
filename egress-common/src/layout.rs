//! Sizes and offsets of every shared record, pinned at compile time on both sides.

use core::mem::{offset_of, size_of};

use crate::{
    event::{Client, ClientKey, Event, Repeat, RepeatKey, SniEvent},
    grant::{Connector, Grant, PortRange, PrefixRules, Rule, SocketState},
    key::{Addr, GrantKey, PrefixKey, RouteKey},
    proxied::ProxiedKey,
    sni::{NameKey, NameQuery},
    stat::RuleStat,
    unix::{UnixEvent, UnixGrant, UnixKey, UnixRepeatKey},
};

const _: () = {
    assert!(size_of::<Addr>() == 16);
    assert!(size_of::<GrantKey>() == 24);
    assert!(offset_of!(GrantKey, connector) == 16);
    assert!(offset_of!(GrantKey, port) == 20);
    assert!(offset_of!(GrantKey, protocol) == 22);
    assert!(size_of::<PrefixKey>() == 24);
    assert!(offset_of!(PrefixKey, addr) == 8);
    assert!(size_of::<RouteKey>() == 24);
    assert!(offset_of!(RouteKey, addr) == 8);
    assert!(size_of::<Grant>() == 16);
    assert!(size_of::<PortRange>() == 12);
    assert!(size_of::<PrefixRules>() == 196);
    assert!(size_of::<Connector>() == 32);
    assert!(offset_of!(Connector, mode) == 22);
    assert!(offset_of!(Connector, unix) == 24);
    assert!(size_of::<UnixKey>() == 120);
    assert!(offset_of!(UnixKey, name) == 8);
    assert!(size_of::<UnixGrant>() == 8);
    assert!(size_of::<UnixEvent>() == 192);
    assert!(offset_of!(UnixEvent, key) == 72);
    assert!(size_of::<UnixRepeatKey>() == 128);
    assert!(size_of::<Rule>() == 8);
    assert!(offset_of!(Rule, connector) == 4);
    assert!(size_of::<NameKey>() == 256);
    assert!(offset_of!(NameKey, name) == 2);
    assert!(size_of::<NameQuery>() == 260);
    assert!(offset_of!(NameQuery, key) == 4);
    assert!(NameKey::ALL_BITS as usize == 8 * size_of::<NameKey>());
    assert!(size_of::<SocketState>() == 104);
    assert!(offset_of!(SocketState, addr) == 8);
    assert!(offset_of!(SocketState, rule) == 24);
    assert!(offset_of!(SocketState, stage) == 31);
    assert!(offset_of!(SocketState, asked_addr) == 40);
    assert!(offset_of!(SocketState, pending) == 60);
    assert!(offset_of!(SocketState, way) == 64);
    assert!(offset_of!(SocketState, decided) == 92);
    assert!(size_of::<SniEvent>() == 360);
    assert!(offset_of!(SniEvent, cookie) == 72);
    assert!(offset_of!(SniEvent, source) == 80);
    assert!(offset_of!(SniEvent, name) == 104);
    assert!(size_of::<Event>() == 72);
    assert!(offset_of!(Event, connector) == 24);
    assert!(offset_of!(Event, port) == 48);
    assert!(offset_of!(Event, comm) == 56);
    assert!(size_of::<RepeatKey>() == 24);
    assert!(size_of::<Repeat>() == 16);
    assert!(size_of::<ClientKey>() == 24);
    assert!(size_of::<Client>() == 8);
    assert!(size_of::<RuleStat>() == 24);
    assert!(size_of::<ProxiedKey>() == 12);
    assert!(offset_of!(ProxiedKey, source_port) == 8);
};
