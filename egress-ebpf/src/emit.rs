//! Denials: counted exactly, shown to the agent with repeats held back.

use core::arch::asm;

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_boot_ns,
};
use egress_common::{
    abi::REPEAT_WINDOW_NS,
    decide::Flow,
    event::{Event, Repeat, RepeatKey},
    stat::denial_slot,
    verdict::{Reason, Verdict},
};

use crate::maps::{DENIALS, EVENTS, LOST, REPEATS, RULE_STATS};

/// The process a denial is attributed to.
#[derive(Clone, Copy)]
pub struct Process {
    pub pid: u32,
    pub tid: u32,
    pub uid: u32,
    pub comm: [u8; 16],
}

impl Process {
    /// The calling process, in hooks where the kernel can tell it.
    #[inline(always)]
    pub fn current() -> Self {
        let pid_tgid = bpf_get_current_pid_tgid();
        Self {
            pid: (pid_tgid >> 32) as u32,
            tid: pid_tgid as u32,
            uid: bpf_get_current_uid_gid() as u32,
            comm: bpf_get_current_comm().unwrap_or([0; 16]),
        }
    }

    /// The process that made a socket, where the caller is not known.
    #[inline(always)]
    pub fn maker(pid: u32, uid: u32) -> Self {
        Self { pid, tid: 0, uid, comm: [0; 16] }
    }
}

/// Counts a denial and shows it, unless it repeats one that was shown a moment ago.
#[inline(always)]
pub fn denial(flow: &Flow, verdict: &Verdict, process: &Process, family: u8) {
    count(flow.connector, verdict.reason);
    // SAFETY: a helper without pointers.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let key = RepeatKey {
        addr: flow.addr,
        connector: flow.connector,
        port: flow.port,
        protocol: flow.protocol,
        reason: verdict.reason.code(),
    };
    let mut hidden = 0;
    if let Some(repeat) = REPEATS.get_ptr_mut(&key) {
        // SAFETY: an entry of the map, not null. Two CPUs may race for it: the counters
        // above are exact, these only say how many a shown record stands for.
        unsafe {
            if now.wrapping_sub((*repeat).shown_ns) < REPEAT_WINDOW_NS {
                add(&raw mut (*repeat).hidden, 1);
                return;
            }
            hidden = (*repeat).hidden;
            (*repeat).hidden = 0;
            (*repeat).shown_ns = now;
        }
    } else {
        // A full table only means that a repeat is shown again.
        let _shown_again = REPEATS.insert(&key, Repeat { shown_ns: now, hidden: 0 }, 0);
    }
    let Some(mut entry) = EVENTS.reserve(0) else {
        if let Some(lost) = LOST.get_ptr_mut(flow.connector) {
            // SAFETY: an entry of a per-CPU array.
            unsafe { add(lost, hidden + 1) };
        }
        return;
    };
    entry.write(Event {
        time_ns: now,
        addr: flow.addr,
        connector: flow.connector,
        pid: process.pid,
        tid: process.tid,
        uid: process.uid,
        rule: verdict.rule,
        count: (hidden + 1) as u32,
        port: flow.port,
        protocol: flow.protocol,
        layer: flow.layer.code(),
        reason: verdict.reason.code(),
        action: verdict.action.code(),
        family,
        pad: 0,
        comm: process.comm,
    });
    entry.submit(0);
}

/// Counts what passes under a rule.
#[inline(always)]
pub fn passed(rule: u32, connections: u64, packets: u64, bytes: u64) {
    if let Some(stat) = RULE_STATS.get_ptr_mut(rule) {
        // SAFETY: an entry of a per-CPU array.
        unsafe {
            if connections != 0 {
                add(&raw mut (*stat).connections, connections);
            }
            if packets != 0 {
                add(&raw mut (*stat).packets, packets);
                add(&raw mut (*stat).bytes, bytes);
            }
        }
    }
}

#[inline(always)]
fn count(connector: u32, reason: Reason) {
    if let Some(counter) = DENIALS.get_ptr_mut(denial_slot(connector, reason)) {
        // SAFETY: an entry of a per-CPU array.
        unsafe { add(counter, 1) };
    }
}

/// Adds without losing to a softirq that counts on the same CPU.
///
/// # Safety
///
/// `value` points to an aligned, live `u64`.
#[inline(always)]
unsafe fn add(value: *mut u64, amount: u64) {
    // SAFETY: see above. Written out because the target has no read-modify-write atomics in
    // `core`; this form, without fetch, is the one that every supported kernel has (fetching
    // ones need 5.12).
    unsafe {
        asm!("lock *(u64 *)({value} + 0) += {amount}", value = in(reg) value, amount = in(reg) amount);
    }
}
