//! Values of which the verifier shall know nothing.
//!
//! It follows each way through a program by itself, and takes two that meet for one only where it
//! knows no more of the second than of the first. A constant that one way brings along keeps
//! them apart for all that follows. So where many ways meet, what they differ in is made unknown;
//! the values stay what they are.

use core::arch::asm;

use egress_common::{
    key::Addr,
    verdict::{Action, Reason, Verdict},
};

/// The same value. `any`: one that the verifier does not know, such as a field of the context.
#[inline(always)]
pub fn value(value: u32, any: u32) -> u32 {
    let mut value = u64::from(value);
    // SAFETY: two operations on registers: what the first changes the second puts back. The
    // verifier knows nothing of the one in between, and so of neither.
    unsafe {
        asm!(
            "{value} ^= {any}",
            "{value} ^= {any}",
            value = inout(reg) value,
            any = in(reg) u64::from(any),
            options(pure, nomem, nostack),
        );
    }
    value as u32
}

/// The same value, of two words.
#[inline(always)]
fn wide(value: u64, any: u32) -> u64 {
    let any = u64::from(any) << 32 | u64::from(any);
    let mut value = value;
    // SAFETY: as in `value`.
    unsafe {
        asm!(
            "{value} ^= {any}",
            "{value} ^= {any}",
            value = inout(reg) value,
            any = in(reg) any,
            options(pure, nomem, nostack),
        );
    }
    value
}

/// The same address.
#[inline(always)]
pub fn addr(addr: &Addr, any: u32) -> Addr {
    let [high, low] = addr.halves;
    Addr {
        halves: [wide(high, any), wide(low, any)],
    }
}

/// The same reason.
#[inline(always)]
pub fn reason(reason: Reason, any: u32) -> Reason {
    let code = value(u32::from(reason.code()), any) as u8;
    // SAFETY: the code of a reason, as it was.
    unsafe { core::mem::transmute::<u8, Reason>(code) }
}

/// The same verdict.
#[inline(always)]
pub fn verdict(verdict: &Verdict, any: u32) -> Verdict {
    let code = value(u32::from(verdict.action.code()), any) as u8;
    Verdict {
        // SAFETY: the code of an action, as it was.
        action: unsafe { core::mem::transmute::<u8, Action>(code) },
        reason: reason(verdict.reason, any),
        rule: value(verdict.rule, any),
    }
}
