//! The tables of a verdict, as maps.

use core::{ffi::c_void, ptr::read_volatile};

use aya_ebpf::{btf_maps::lpm_trie::Key, helpers::bpf_ktime_get_boot_ns};
use egress_common::{
    abi::{MAX_CONNECTORS, MAX_RULES},
    decide::{Flow, Lookup},
    grant::{Connector, Grant, PrefixRules},
    key::{GrantKey, PrefixKey, RouteKey},
    sni::{NameKey, NameQuery},
    unix::{UnixGrant, UnixKey},
    verdict::Verdict,
};

use crate::{
    maps::{CONNECTORS, GRANTS, NAMES, PREFIXES, ROUTES, RULES, UNIX_NAMES},
    own, vague,
};

/// The maps, and what is known of sockets.
pub struct Maps {
    /// The program's context.
    pub ctx: *mut c_void,
    /// Whether what is decided reaches the connector itself ([`own`]). For a packet that is looked
    /// up before the verdict and not in its midst, where the verifier would follow each outcome
    /// through all that comes after. `None`: as a `connect()` is, which is cheaper the other way.
    pub own: Option<bool>,
}

impl Lookup for Maps {
    #[inline(always)]
    fn connector(&self, id: u32) -> Option<&Connector> {
        if id == 0 || id >= MAX_CONNECTORS {
            return None;
        }
        CONNECTORS.get(id)
    }

    #[inline(always)]
    fn exact(&self, key: &GrantKey) -> Option<&Grant> {
        // SAFETY: the agent replaces entries whole; a replaced one stays readable until the
        // program ends (RCU).
        unsafe { GRANTS.get(key) }
    }

    #[inline(always)]
    fn prefix(&self, key: &PrefixKey) -> Option<&PrefixRules> {
        PREFIXES.get(&Key::new(PrefixKey::HOST_BITS, *key))
    }

    #[inline(always)]
    fn leads(&self, key: &RouteKey) -> bool {
        ROUTES
            .get(&Key::new(RouteKey::HOST_BITS, *key))
            .is_some_and(|&way| way == RouteKey::LEADS)
    }

    #[inline(always)]
    fn unix(&self, key: &UnixKey) -> Option<&UnixGrant> {
        // SAFETY: as for exact grants.
        unsafe { UNIX_NAMES.get(key) }
    }

    #[inline(always)]
    fn name(&self, name: &NameQuery) -> Option<&PrefixRules> {
        // SAFETY: the same layout, length in front (`layout` pins it); both have alignment 1
        // or more, and the trie's is packed.
        NAMES.get(unsafe { &*core::ptr::from_ref(name).cast::<Key<NameKey>>() })
    }

    #[inline(always)]
    fn rule_active(&self, rule: u32) -> bool {
        rule_active(rule)
    }

    #[inline(always)]
    fn rule_flags(&self, rule: u32) -> u16 {
        if rule >= MAX_RULES {
            return 0;
        }
        RULES.get(rule).map_or(0, |rule| rule.flags)
    }

    #[inline(always)]
    fn own_peer(&self, flow: &Flow) -> bool {
        match self.own {
            Some(own) => own,
            None => own::listens(self.ctx, flow),
        }
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: a helper without pointers.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn blurred(&self, verdict: Verdict) -> Verdict {
        // SAFETY: the context of a hook that decides (a packet or an address) begins with a
        // number, which the verifier does not know.
        let any = unsafe { read_volatile(self.ctx.cast::<u32>()) };
        vague::verdict(&verdict, any)
    }
}

/// Whether a rule is in force.
#[inline(always)]
pub fn rule_active(rule: u32) -> bool {
    rule < MAX_RULES && RULES.get(rule).is_some_and(|rule| rule.active == 1)
}
