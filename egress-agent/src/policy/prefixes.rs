//! The entries of the prefix table: outbound destinations, and callers.
//!
//! The table answers with the longest prefix only, so each entry holds the ranges of every
//! rule that covers it, denials first, then narrow rules before wide ones. Three kinds of
//! entries make the answer of the longest prefix that of the whole policy: the prefixes of
//! the rules, the special ranges inside them ([`super::special`]), and all of IPv4 where an
//! IPv6 prefix such as `::/0` lies around its mapped form.
//!
//! Callers (`listen:`) have entries of their own, under a protocol number that no packet has;
//! their ranges are local ports. `deny:` says nothing about them: it is about what the
//! connector reaches, not about who reaches it.

use std::{cmp::Reverse, collections::BTreeSet};

use egress_common::{
    abi::{TCP, UDP},
    grant::PrefixRules,
    key::{Addr, PrefixKey},
};
use ipnet::IpNet;

use super::{
    compile::{CompiledRule, Misfit},
    model::{List, Policy, PortSpan, Target},
    ranges::{self, Saying},
    special::{self, Block},
};

/// An entry: length in bits, key, value.
type Entry = (u32, PrefixKey, PrefixRules);

/// What speaks for prefixes under each protocol number of the table.
pub(super) fn lines<'a>(
    policy: &'a Policy,
    rules: &'a [CompiledRule],
) -> [(u32, Vec<Line<'a>>); 3] {
    [
        (u32::from(TCP), outbound(policy, rules, TCP)),
        (u32::from(UDP), outbound(policy, rules, UDP)),
        (PrefixKey::INBOUND | u32::from(TCP), inbound(policy, rules)),
    ]
}

/// The entries for one protocol number, or what does not fit.
pub(super) fn entries(
    connector: u32,
    protocol: u32,
    lines: &[Line<'_>],
) -> impl Iterator<Item = Result<Entry, Misfit>> {
    blocks(lines).into_iter().map(move |block| {
        let value = ranges(&block, lines)?;
        let (length, key) = key(connector, protocol, &block);
        Ok((length, key, value))
    })
}

/// A prefix that a rule speaks for.
pub(super) struct Line<'a> {
    block: Block,
    v4: bool,
    saying: Saying<'a>,
}

impl Line<'_> {
    /// Whether the rule speaks for every address of a block.
    fn speaks_for(&self, block: &Block) -> bool {
        let family = self.v4 || !Block::V4.covers(block);
        family && self.block.covers(block) && (self.saying.deny || self.is_inside_special(block))
    }

    /// Whether the rule lies inside every special range that the block lies in.
    fn is_inside_special(&self, block: &Block) -> bool {
        special::apart()
            .filter(|special| special.block.covers(block))
            .all(|special| special.block.covers(&self.block))
    }
}

fn outbound<'a>(policy: &'a Policy, rules: &'a [CompiledRule], protocol: u8) -> Vec<Line<'a>> {
    let all = policy.allow.iter().chain(&policy.deny);
    let speaking = rules.iter().zip(all).enumerate();
    sorted(
        speaking
            .filter(|(_, (_, rule))| rule.protocols.has(protocol))
            .filter_map(|(index, (compiled, rule))| match &rule.target {
                Target::Cidr(net) => Some(line(index, compiled, net, &rule.ports)),
                Target::Host(_) | Target::Unix(_) | Target::Session(_) => None,
            }),
    )
}

fn inbound<'a>(policy: &'a Policy, rules: &'a [CompiledRule]) -> Vec<Line<'a>> {
    let compiled = rules.iter().enumerate();
    let compiled = compiled.filter(|(_, rule)| rule.list == List::Listen);
    sorted(
        compiled
            .zip(&policy.listen)
            .flat_map(|((index, compiled), rule)| {
                let nets = rule.from.iter();
                nets.map(move |net| line(index, compiled, net, &rule.ports))
            }),
    )
}

fn line<'a>(index: usize, rule: &'a CompiledRule, net: &IpNet, ports: &'a [PortSpan]) -> Line<'a> {
    Line {
        block: Block::of(net),
        v4: net.addr().is_ipv4(),
        saying: Saying::new(index, rule, ports),
    }
}

fn sorted<'a>(lines: impl Iterator<Item = Line<'a>>) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = lines.collect();
    lines.sort_by_key(|line| (!line.saying.deny, Reverse(line.block.len), line.saying.slot));
    lines
}

/// The prefixes that need an entry.
fn blocks(lines: &[Line<'_>]) -> BTreeSet<Block> {
    let mut blocks: BTreeSet<Block> = lines.iter().map(|line| line.block).collect();
    let carved = special::apart()
        .map(|special| special.block)
        .chain([Block::V4]);
    blocks.extend(carved.filter(|block| lines.iter().any(|line| line.block.covers(block))));
    blocks
}

fn ranges(block: &Block, lines: &[Line<'_>]) -> Result<PrefixRules, Misfit> {
    let speaking = lines.iter().filter(|line| line.speaks_for(block));
    ranges::ranges(
        speaking.map(|line| &line.saying),
        &format_args!("under {block}"),
        "join ranges, or keep ports that only some addresses need apart from wide prefixes",
    )
}

/// The trie's key of a block. The address is not canonicalised: a prefix is no address, and
/// `0.0.0.0/0` starts at zero.
fn key(connector: u32, protocol: u32, block: &Block) -> (u32, PrefixKey) {
    let octets = block.addr.to_be_bytes();
    let (high, low) = octets.split_at(8);
    let half = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    let key = PrefixKey {
        connector,
        protocol,
        addr: Addr {
            halves: [half(high), half(low)],
        },
    };
    (PrefixKey::FIXED_BITS + u32::from(block.len), key)
}
