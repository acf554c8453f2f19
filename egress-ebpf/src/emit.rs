//! Denials: counted exactly, shown to the agent with repeats held back.

use core::{
    arch::asm,
    ptr::{addr_of, addr_of_mut},
};

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        bpf_ktime_get_boot_ns,
        generated::{bpf_get_socket_cookie, bpf_probe_read_kernel},
    },
    programs::SkBuffContext,
};
use egress_common::{
    abi::REPEAT_WINDOW_NS,
    decide::Flow,
    event::{Event, Repeat, RepeatKey, SniEvent},
    sni::NameKey,
    stat::denial_slot,
    unix::{UnixEvent, UnixRepeatKey},
    verdict::{Reason, Verdict},
};

use crate::{
    header::Parsed,
    maps::{DENIALS, EVENTS, LOST, REPEATS, RULE_STATS, UNIX_REPEATS},
    scratch::Scratch,
};

/// `AF_UNIX`, `include/linux/socket.h`.
const AF_UNIX: u8 = 1;

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
        Self {
            pid,
            tid: 0,
            uid,
            comm: [0; 16],
        }
    }
}

/// Counts a denial and shows it, unless it repeats one that was shown a moment ago.
#[inline(always)]
pub fn denial(flow: &Flow, verdict: &Verdict, process: &Process, family: u8) {
    let key = RepeatKey {
        addr: flow.addr,
        connector: flow.connector,
        port: flow.port,
        protocol: flow.protocol,
        reason: verdict.reason.code(),
    };
    repeated(&key, flow, verdict, process, family);
}

/// The same, with a key of its own by which it repeats.
#[inline(always)]
pub fn repeated(key: &RepeatKey, flow: &Flow, verdict: &Verdict, process: &Process, family: u8) {
    count(flow.connector, verdict.reason);
    // SAFETY: a helper without pointers.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let hidden = match shown(REPEATS.get_ptr_mut(key), now) {
        Shown::Not => return,
        Shown::Again(hidden) => hidden,
        Shown::First => {
            // A full table only means that a repeat is shown again.
            let _shown_again = REPEATS.insert(
                key,
                Repeat {
                    shown_ns: now,
                    hidden: 0,
                },
                0,
            );
            0
        }
    };
    let Some(mut entry) = EVENTS.reserve(0) else {
        lost(flow.connector, hidden);
        return;
    };
    entry.write(record(flow, verdict, process, family, now, hidden));
    entry.submit(0);
}

/// The same for a unix socket, which has a name and no address.
#[inline(always)]
pub fn unix_denial(flow: &Flow, verdict: &Verdict, process: &Process, key: &UnixRepeatKey) {
    count(flow.connector, verdict.reason);
    // SAFETY: a helper without pointers.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let hidden = match shown(UNIX_REPEATS.get_ptr_mut(key), now) {
        Shown::Not => return,
        Shown::Again(hidden) => hidden,
        Shown::First => {
            // As above.
            let _shown_again = UNIX_REPEATS.insert(
                key,
                Repeat {
                    shown_ns: now,
                    hidden: 0,
                },
                0,
            );
            0
        }
    };
    let Some(mut entry) = EVENTS.reserve_untyped::<UnixEvent>(0) else {
        lost(flow.connector, hidden);
        return;
    };
    let to = entry.as_mut_ptr();
    // SAFETY: the ring's own memory, reserved for this record; both halves are written.
    // Apart, because the whole record has no room on the stack beside the key.
    unsafe {
        addr_of_mut!((*to).event).write(record(flow, verdict, process, AF_UNIX, now, hidden));
        addr_of_mut!((*to).key).write(key.key);
    }
    entry.submit(0);
}

/// A connection that was refused for its name: counted and always shown, for the agent ends
/// its socket by the record.
#[inline(always)]
pub fn sni_denial(
    ctx: &SkBuffContext,
    flow: &Flow,
    verdict: &Verdict,
    process: &Process,
    parsed: &Parsed,
    kept: &Scratch,
) {
    count(flow.connector, verdict.reason);
    // SAFETY: a helper without pointers.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let Some(mut entry) = EVENTS.reserve_untyped::<SniEvent>(0) else {
        lost(flow.connector, 0);
        return;
    };
    let to = entry.as_mut_ptr();
    let family = parsed.family as u8;
    // SAFETY: the ring's own memory, reserved for this record; every field is written. Apart,
    // because the whole record has no room on the stack.
    unsafe {
        addr_of_mut!((*to).event).write(record(flow, verdict, process, family, now, 0));
        addr_of_mut!((*to).cookie).write(bpf_get_socket_cookie(ctx.as_ptr()));
        addr_of_mut!((*to).source).write(parsed.source);
        addr_of_mut!((*to).source_port).write(parsed.source_port);
        addr_of_mut!((*to).pad).write(0);
        // By the kernel: the compiler's own copy takes octet for octet, which is 2,000 instructions
        // for each way that leads here, and on Linux 6.1 too many. It writes zeros where it
        // cannot read (a kernel that is locked down).
        let copied = bpf_probe_read_kernel(
            addr_of_mut!((*to).name).cast(),
            size_of::<NameKey>() as u32,
            addr_of!(kept.query.key).cast(),
        );
        let name_len = if copied == 0 { kept.name_len } else { 0 };
        addr_of_mut!((*to).name_len).write(name_len as u16);
    }
    entry.submit(0);
}

/// Whether a denial is to be shown now, and how many it stands for beside itself.
#[inline(always)]
fn shown(repeat: Option<*mut Repeat>, now: u64) -> Shown {
    let Some(repeat) = repeat else {
        return Shown::First;
    };
    // SAFETY: an entry of the map, not null. Two CPUs may race for it: the counters are
    // exact, these only say how many a shown record stands for.
    unsafe {
        if now.wrapping_sub((*repeat).shown_ns) < REPEAT_WINDOW_NS {
            add(&raw mut (*repeat).hidden, 1);
            return Shown::Not;
        }
        let hidden = (*repeat).hidden;
        (*repeat).hidden = 0;
        (*repeat).shown_ns = now;
        Shown::Again(hidden)
    }
}

enum Shown {
    /// A moment ago already.
    Not,
    /// For the first time.
    First,
    /// Again, with as many that were not shown.
    Again(u64),
}

/// Counts a denial for which there is no record.
#[inline(always)]
pub fn unshown(connector: u32, reason: Reason) {
    count(connector, reason);
    lost(connector, 0);
}

/// Counts denials that no record shows.
#[inline(always)]
fn lost(connector: u32, hidden: u64) {
    if let Some(lost) = LOST.get_ptr_mut(connector) {
        // SAFETY: an entry of a per-CPU array.
        unsafe { add(lost, hidden + 1) };
    }
}

#[inline(always)]
fn record(
    flow: &Flow,
    verdict: &Verdict,
    process: &Process,
    family: u8,
    now: u64,
    hidden: u64,
) -> Event {
    Event {
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
    }
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
