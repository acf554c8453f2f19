//! Unix sockets: the verdict by the name that is written into `connect()` or `sendto()`.
//!
//! The kernel shows these hooks nothing of the name (its setter is a kernel function that
//! only writes), so it is read out of the kernel's own copy, which the program can no longer
//! change: `struct bpf_sock_addr_kern`, `include/linux/filter.h`, the same from Linux 6.7 on.
//! What is not where it is expected is no `AF_UNIX` address, and refused.
//!
//! Only one folder is not taken by its name: the temporary one, which the connector shares with
//! its caller and in which symbolic links are followed. An address in it is led to another mount
//! of the same folder that follows none, so that what it leads to was bound by the connector.

use core::{
    arch::asm,
    ffi::c_void,
    mem::MaybeUninit,
    ptr::{addr_of, read_volatile},
};

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_set_retval},
    programs::SockAddrContext,
};
use egress_common::{
    abi::{OWN_TEMPORARY, RULE_NONE, UNIX_NAME_MAX, UNIX_NAME_ROOM},
    decide::{Flow, Lookup as _, refused},
    grant::Connector,
    unix::{self, UnixKey, UnixRepeatKey},
    verdict::{Action, Layer, Reason},
};

use super::{PASS, REFUSE, answer};
use crate::{emit, lookup::Maps, socket, vague};

/// `AF_UNIX`, `include/linux/socket.h`.
const AF_UNIX: u16 = 1;
/// `ENOENT`, `include/uapi/asm-generic/errno-base.h`.
const ENOENT: i32 = 2;
/// Bytes in front of `sun_path`.
const FAMILY: usize = 2;
/// Numbers that no helper has, for the agent to replace.
const CAST: u32 = egress_common::abi::kfunc::CAST;
const SET_PATH: u32 = egress_common::abi::kfunc::SET_PATH;

/// The kernel's side of the context.
#[repr(C)]
struct Kernel {
    sk: u64,
    uaddr: u64,
    tmp_reg: u64,
    t_ctx: u64,
    uaddrlen: u32,
    pad: u32,
}

/// Decides a unix socket's name.
#[inline(always)]
pub fn decide(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the program's own context; the field is readable in these hooks.
    let kind = unsafe { read_volatile(addr_of!((*ctx.sock_addr).type_)) };
    let mut asked = UnixRepeatKey {
        key: UnixKey {
            connector: socket::current_connector(),
            kind: 0,
            len: 0,
            name: [0; UNIX_NAME_ROOM],
        },
        reason: 0,
        socket: kind,
    };
    let maps = Maps {
        ctx: ctx.as_ptr(),
        own: Some(false),
    };
    let named = name(ctx, &mut asked.key);
    let mut led = asked.key;
    // One verdict for both names: the verifier would walk a second one as well.
    let temporary = named && is_temporary(&asked.key, &mut led, &maps);
    // Nor shall it remember for all that follows which way it came.
    let temporary = vague::value(u32::from(temporary), kind) != 0;
    let verdict = if named {
        maps.blurred(unix::decide(&led, &maps))
    } else {
        refused(asked.key.connector, Reason::Malformed, RULE_NONE, &maps)
    };
    match verdict.action {
        Action::Allow => {
            if temporary && !lead(ctx, &led) {
                return REFUSE;
            }
            emit::passed(verdict.rule, 1, 0, 0);
            return PASS;
        }
        Action::Audit | Action::Deny | Action::Redirect | Action::Check => {}
    }
    if unix::looks_absent(&asked.key) {
        if matches!(verdict.action, Action::Audit) {
            return PASS;
        }
        // SAFETY: a helper without pointers.
        unsafe { bpf_set_retval(-ENOENT) };
        return REFUSE;
    }
    let flow = Flow {
        port: kind as u16,
        ..Flow::nowhere(asked.key.connector, Layer::Unix)
    };
    asked.reason = u32::from(verdict.reason.code());
    emit::unix_denial(&flow, &verdict, &emit::Process::current(), &asked);
    answer(&verdict)
}

/// Whether the name lies in the connector's temporary folder. Then `led`, which comes in as the
/// same name, is where it is led; otherwise it stays what it is.
#[inline(always)]
fn is_temporary(key: &UnixKey, led: &mut UnixKey, maps: &Maps) -> bool {
    let Some(connector) = maps.connector(key.connector) else {
        return false;
    };
    let len = u64::from(connector.unix >> Connector::FOLDER_SHIFT);
    if len == 0 || key.kind != UnixKey::PATH || u64::from(key.len) <= len {
        return false;
    }
    let len = bounded(len);
    led.kind = UnixKey::FOLDER;
    led.len = len as u16;
    led.name = [0; UNIX_NAME_ROOM];
    let from = key.name.as_ptr();
    // A helper, since the verifier would walk a loop of unknown length once for each length.
    // SAFETY: `len` is at most the size of both names.
    let read =
        unsafe { bpf_probe_read_kernel(led.name.as_mut_ptr().cast(), len as u32, from.cast()) };
    if read != 0 || maps.unix(led).is_none() {
        *led = *key;
        return false;
    }
    let prefix = OWN_TEMPORARY.as_bytes();
    led.name = [0; UNIX_NAME_ROOM];
    for (to, from) in led.name.iter_mut().zip(prefix) {
        *to = *from;
    }
    let Some(rest) = led.name.get_mut(OWN_TEMPORARY.len()..) else {
        *led = *key;
        return false;
    };
    // SAFETY: exactly the rest of the one name; the other ends in a NUL, which is its last byte
    // at the latest, and is longer than `len`.
    let read = unsafe {
        bpf_probe_read_kernel_str(
            rest.as_mut_ptr().cast(),
            (UNIX_NAME_ROOM - OWN_TEMPORARY.len()) as u32,
            from.add(len as usize).cast(),
        )
    };
    // A name that is cut off or ends in the folder is refused as none of the connector's own.
    if read < 2 {
        *led = *key;
        return false;
    }
    led.len = (OWN_TEMPORARY.len() as i64 + read - 1) as u16;
    led.kind = UnixKey::PATH;
    true
}

/// Has the kernel look the socket up by this name instead.
#[inline(always)]
fn lead(ctx: &SockAddrContext, led: &UnixKey) -> bool {
    let len = bounded(u64::from(led.len));
    let done: i64;
    // SAFETY: the agent puts the kernel's own functions in the place of the two numbers
    // (`egress-agent/src/kernel/unix.rs`): `bpf_cast_to_kern_ctx`, which answers with the
    // kernel's side of the context it is given, and `bpf_sock_addr_set_sun_path`, which reads
    // `len` bytes of the name. Both use up the registers that every call does.
    unsafe {
        asm!(
            "call {cast}",
            "r1 = r0",
            "r2 = {name}",
            "r3 = {len}",
            "call {set}",
            cast = const CAST,
            set = const SET_PATH,
            name = in(reg) led.name.as_ptr(),
            len = in(reg) len,
            inout("r1") ctx.as_ptr() => _,
            out("r2") _,
            out("r3") _,
            out("r4") _,
            out("r5") _,
            out("r0") done,
        );
    }
    done == 0
}

/// Reads the name; false where it cannot be read or is none.
#[inline(always)]
fn name(ctx: &SockAddrContext, key: &mut UnixKey) -> bool {
    let mut kernel = MaybeUninit::<Kernel>::uninit();
    // SAFETY: the helper checks both sides; the context is kernel memory at run time.
    let read = unsafe {
        bpf_probe_read_kernel(
            kernel.as_mut_ptr().cast(),
            size_of::<Kernel>() as u32,
            ctx.as_ptr().cast_const(),
        )
    };
    if read != 0 {
        return false;
    }
    // SAFETY: written whole by the helper; any bytes are a value.
    let kernel = unsafe { kernel.assume_init() };
    let mut head = [0_u8; FAMILY + 1];
    let len = kernel.uaddrlen as usize;
    // The kernel has refused shorter and longer ones (`unix_validate_addr`).
    if len <= FAMILY || len > FAMILY + UNIX_NAME_MAX || !copy(&mut head, kernel.uaddr) {
        return false;
    }
    if u16::from_ne_bytes([head[0], head[1]]) != AF_UNIX {
        return false;
    }
    let at = kernel.uaddr + FAMILY as u64;
    if head[FAMILY] == 0 {
        key.kind = UnixKey::ABSTRACT;
        abstract_name(key, at + 1, (len - FAMILY - 1) as u64)
    } else {
        key.kind = UnixKey::PATH;
        path(key, at, (len - FAMILY) as u64)
    }
}

/// A path ends at its first NUL or with the address.
#[inline(always)]
fn path(key: &mut UnixKey, from: u64, len: u64) -> bool {
    let room = bounded(len + 1);
    // SAFETY: `room` is at most the size of `name`.
    let read = unsafe {
        bpf_probe_read_kernel_str(
            key.name.as_mut_ptr().cast(),
            room as u32,
            from as *const c_void,
        )
    };
    if read < 2 {
        return false;
    }
    key.len = (read - 1) as u16;
    true
}

/// An abstract name is all bytes behind its first, NULs included.
#[inline(always)]
fn abstract_name(key: &mut UnixKey, from: u64, len: u64) -> bool {
    let len = bounded(len);
    if len == 0 {
        return true;
    }
    // SAFETY: `len` is at most the size of `name`.
    let read = unsafe {
        bpf_probe_read_kernel(
            key.name.as_mut_ptr().cast(),
            len as u32,
            from as *const c_void,
        )
    };
    key.len = len as u16;
    read == 0
}

#[inline(always)]
fn copy<const N: usize>(to: &mut [u8; N], from: u64) -> bool {
    // SAFETY: the helper checks the kernel's side; the other is an array of this size.
    unsafe { bpf_probe_read_kernel(to.as_mut_ptr().cast(), N as u32, from as *const c_void) == 0 }
}

/// At most the bytes that a name can have and its NUL. Written out, because LLVM knows the
/// bound already and would drop the check that the verifier wants to see.
#[inline(always)]
fn bounded(len: u64) -> u64 {
    let mut len = len;
    // SAFETY: registers only.
    unsafe {
        asm!(
            "if {len} < {limit} goto +1",
            "{len} = {limit}",
            len = inout(reg) len,
            limit = const UNIX_NAME_MAX + 1,
        );
    }
    len
}
