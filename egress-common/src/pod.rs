//! Marks the shared records as plain bytes for the agent's map access.
//!
//! This is the only `unsafe` on the agent's side of the boundary. The contract of
//! [`aya::Pod`]: every bit pattern is a value, no padding, no pointers. [`crate::layout`]
//! pins the sizes that rule out hidden padding.

use crate::{
    event::{Client, ClientKey},
    grant::{Connector, Grant, PrefixRules, Rule},
    key::{GrantKey, PrefixKey, RouteKey},
    sni::NameKey,
    stat::RuleStat,
    unix::{UnixGrant, UnixKey},
};

macro_rules! pod {
    ($($record:ty),* $(,)?) => {$(
        // SAFETY: `repr(C)`, integers only, explicit padding, size pinned in `layout`.
        unsafe impl aya::Pod for $record {}
    )*};
}

pod!(
    Client,
    ClientKey,
    Connector,
    Grant,
    GrantKey,
    NameKey,
    PrefixKey,
    PrefixRules,
    RouteKey,
    Rule,
    RuleStat,
    UnixGrant,
    UnixKey
);
