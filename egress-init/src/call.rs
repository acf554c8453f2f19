//! The ten system calls of the init, by number: there is no C library to ask.

use core::{
    arch::{asm, global_asm},
    ffi::CStr,
};

/// `SIGCHLD`, `include/uapi/asm-generic/signal.h`.
pub const SIGCHLD: u32 = 17;

/// Numbers of the calls (`arch/x86/entry/syscalls/syscall_64.tbl`).
#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const WAIT4: usize = 61;
    pub const CAPSET: usize = 126;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;
    pub const PPOLL: usize = 271;
    pub const SIGNALFD4: usize = 289;
}

/// Numbers of the calls (`include/uapi/asm-generic/unistd.h`).
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
mod number {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const PPOLL: usize = 73;
    pub const SIGNALFD4: usize = 74;
    pub const CAPSET: usize = 91;
    pub const EXIT_GROUP: usize = 94;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const PRCTL: usize = 167;
    pub const WAIT4: usize = 260;
}

// The kernel enters here with the arguments on the stack (System V ABI, "Process Initialization").
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor %ebp, %ebp",
    "mov %rsp, %rdi",
    "and $-16, %rsp",
    "call egress_init",
    options(att_syntax)
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x30, #0",
    "mov x0, sp",
    "b egress_init"
);
#[cfg(target_arch = "riscv64")]
global_asm!(".globl _start", "_start:", "mv a0, sp", "tail egress_init");

/// The argument at `index` (0 is the program's name), where it is a positive decimal number.
///
/// # Safety
///
/// `stack` points to the argument count, behind which stand as many addresses of strings
/// that end with NUL and are never freed, as execve(2) leaves them.
pub unsafe fn number_argument(stack: *const usize, index: usize) -> Option<i32> {
    // SAFETY: the caller's promise, within the count and not beyond the NUL.
    unsafe {
        if index >= *stack {
            return None;
        }
        let mut text = *stack.add(1 + index) as *const u8;
        let mut number = 0_i32;
        while *text != 0 {
            let digit = i32::from((*text).checked_sub(b'0').filter(|&digit| digit <= 9)?);
            number = number.checked_mul(10)?.checked_add(digit)?;
            text = text.add(1);
        }
        (number > 0).then_some(number)
    }
}

/// A set of signals as the kernel takes it: one bit each, from 1.
#[repr(transparent)]
pub struct SignalSet {
    bits: u64,
}

impl SignalSet {
    /// Bytes of a set.
    const SIZE: usize = size_of::<u64>();

    /// One signal.
    pub const fn of(signal: u32) -> Self {
        Self {
            bits: 1 << (signal - 1),
        }
    }
}

/// One entry of poll(2): `struct pollfd`.
#[repr(C)]
pub struct Poll {
    fd: i32,
    wanted: i16,
    found: i16,
}

impl Poll {
    /// The other end of `fd` is gone.
    pub const fn hang_up(fd: i32) -> Self {
        Self {
            fd,
            wanted: 0,
            found: 0,
        }
    }

    /// There is something to read.
    pub const fn readable(fd: i32) -> Self {
        Self {
            fd,
            wanted: 1,
            found: 0,
        }
    }
}

/// Ends the process.
pub fn exit(code: i32) -> ! {
    loop {
        call(number::EXIT_GROUP, [code as usize, 0, 0, 0, 0]);
    }
}

/// Blocks signals for good.
pub fn block(signals: &SignalSet) {
    const SIG_BLOCK: usize = 0;
    let set = address(&signals.bits);
    call(
        number::RT_SIGPROCMASK,
        [SIG_BLOCK, set, 0, SignalSet::SIZE, 0],
    );
}

/// A descriptor that is readable while one of the signals waits: signalfd(2).
pub fn signal_descriptor(signals: &SignalSet) -> Option<i32> {
    const NEW: usize = usize::MAX;
    const NONBLOCK_CLOEXEC: usize = 0o2_004_000;
    let set = address(&signals.bits);
    let arguments = [NEW, set, SignalSet::SIZE, NONBLOCK_CLOEXEC, 0];
    i32::try_from(call(number::SIGNALFD4, arguments))
        .ok()
        .filter(|&fd| fd >= 0)
}

/// The name that `ps` shows.
pub fn set_name(name: &CStr) {
    const PR_SET_NAME: usize = 15;
    call(
        number::PRCTL,
        [PR_SET_NAME, name.as_ptr() as usize, 0, 0, 0],
    );
}

/// Makes the process one that only CAP_SYS_PTRACE opens (`PR_SET_DUMPABLE`, prctl(2)).
pub fn close_to_others() {
    const PR_SET_DUMPABLE: usize = 4;
    call(number::PRCTL, [PR_SET_DUMPABLE, 0, 0, 0, 0]);
}

/// Gives up every capability: capset(2), version 3.
pub fn drop_capabilities() {
    let header = [0x2008_0522_u32, 0];
    let none = [0_u32; 6];
    call(number::CAPSET, [address(&header), address(&none), 0, 0, 0]);
}

/// Whether all bytes, which a pipe takes at once, were written.
pub fn write(fd: i32, bytes: &[u8]) -> bool {
    let arguments = [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0];
    call(number::WRITE, arguments) == bytes.len() as isize
}

/// Reads away what a signal descriptor has: one record, for one signal at most waits.
pub fn drain(fd: i32) {
    let mut record = [0_u8; 128];
    let arguments = [
        fd as usize,
        record.as_mut_ptr() as usize,
        record.len(),
        0,
        0,
    ];
    call(number::READ, arguments);
}

/// A child that has ended, and its wait status.
pub fn reap() -> Option<(i32, i32)> {
    const ANY: usize = usize::MAX;
    const WNOHANG: usize = 1;
    const ALL: usize = 0x4000_0000;
    let mut status = 0_i32;
    let place = core::ptr::from_mut(&mut status) as usize;
    let pid = call(number::WAIT4, [ANY, place, WNOHANG | ALL, 0, 0]);
    i32::try_from(pid)
        .ok()
        .filter(|&pid| pid > 0)
        .map(|pid| (pid, status))
}

/// Waits without end; which entries have something.
pub fn poll(mut entries: [Poll; 2]) -> [bool; 2] {
    let place = core::ptr::from_mut(&mut entries) as usize;
    call(number::PPOLL, [place, entries.len(), 0, 0, 0]);
    entries.map(|entry| entry.found != 0)
}

fn address<T>(value: &T) -> usize {
    core::ptr::from_ref(value) as usize
}

/// A system call. Negative: an error's number.
///
/// Private to this file, whose callers pass addresses of values that live during the call and
/// are as large as the call takes them to be.
#[cfg(target_arch = "x86_64")]
fn call(number: usize, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    let result;
    // SAFETY: the kernel keeps all registers but these (syscall(2)); memory is as said above.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A system call. Negative: an error's number.
#[cfg(target_arch = "aarch64")]
fn call(number: usize, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    let result;
    // SAFETY: the kernel keeps all registers but x0 (syscall(2)); memory is as said above.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack),
        );
    }
    result
}

/// A system call. Negative: an error's number.
#[cfg(target_arch = "riscv64")]
fn call(number: usize, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    let result;
    // SAFETY: the kernel keeps all registers but a0 (syscall(2)); memory is as said above.
    unsafe {
        asm!(
            "ecall",
            in("a7") number,
            inlateout("a0") a => result,
            in("a1") b, in("a2") c, in("a3") d, in("a4") e,
            options(nostack),
        );
    }
    result
}
