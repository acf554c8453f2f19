//! Packet sockets: a whole frame, past the network stack.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Duration,
};

use libc::{AF_INET, AF_PACKET, SOCK_DGRAM, SOCK_RAW, SOL_PACKET};
use nix::errno::Errno;

use super::{
    Attempt, Job, Vector,
    below::packet,
    sys::{self, Memory},
};

const ETH_P_IP: u16 = 0x0800;
const UP: &str = "up0";
/// Everybody: the sender does not know the router's address, and the receivers listen to all.
const EVERYBODY: [u8; 6] = [0xff; 6];

pub(super) const VECTORS: &[Vector] = &[
    Vector::new("packet", "a packet socket that makes the frame", |job| {
        send_datagram(&socket(SOCK_DGRAM)?, job)
    })
    .by_root(),
    Vector::new("packet-raw", "a packet socket, own frame", |job| {
        Ok(sys::send(&socket(SOCK_RAW)?, &frame(job), 0, &address()?)?)
    })
    .by_root(),
    Vector::new("packet-bypass", "a packet socket past the queues", |job| {
        let socket = socket(SOCK_RAW)?;
        sys::set(&socket, SOL_PACKET, 20, &1i32.to_ne_bytes())?;
        Ok(sys::send(&socket, &frame(job), 0, &address()?)?)
    })
    .by_root(),
    Vector::new(
        "packet-ring",
        "a packet socket with a ring to send from",
        tx_ring,
    )
    .by_root(),
    Vector::new("packet-old", "the packet socket of Linux 2.0", |job| {
        const SOCK_PACKET: i32 = 10;
        let socket = sys::socket(AF_INET, SOCK_PACKET, i32::from(ETH_P_IP.to_be()))?;
        let mut to = (AF_PACKET as u16).to_ne_bytes().to_vec();
        to.extend(UP.as_bytes());
        to.resize(16, 0);
        to.extend(ETH_P_IP.to_be_bytes());
        Ok(sys::send(&socket, &frame(job), 0, &to)?)
    })
    .by_root(),
    Vector::new("xdp", "an XDP socket", xdp).by_root(),
];

/// A packet socket for IPv4.
pub(super) fn socket(kind: i32) -> Result<OwnedFd, Errno> {
    sys::socket(AF_PACKET, kind, i32::from(ETH_P_IP.to_be()))
}

/// Sends a whole IP packet to everybody on the wire.
pub(super) fn send_datagram(socket: &OwnedFd, job: &Job) -> Attempt {
    Ok(sys::send(socket, &packet(job, 17), 0, &address()?)?)
}

/// The bytes of a `sockaddr_ll`.
fn address() -> Result<Vec<u8>, Errno> {
    let mut to = (AF_PACKET as u16).to_ne_bytes().to_vec();
    to.extend(ETH_P_IP.to_be_bytes());
    to.extend(sys::interface(UP)?.to_ne_bytes());
    to.extend([0, 0, 0, 6]);
    to.extend(EVERYBODY);
    to.extend([0, 0]);
    Ok(to)
}

/// An Ethernet frame.
pub(super) fn frame(job: &Job) -> Vec<u8> {
    let mut frame = EVERYBODY.to_vec();
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend(ETH_P_IP.to_be_bytes());
    frame.extend(packet(job, 17));
    frame
}

fn tx_ring(job: &Job) -> Attempt {
    const TX_RING: i32 = 13;
    const SEND_REQUEST: u32 = 1;
    const DATA: usize = 32; // TPACKET_HDRLEN less the sockaddr_ll, tpacket v1
    let socket = socket(SOCK_RAW)?;
    // struct tpacket_req: block size, blocks, frame size, frames.
    let request: Vec<u8> = [4096_u32, 1, 2048, 2]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    sys::set(&socket, SOL_PACKET, TX_RING, &request)?;
    let memory = Memory::of(&socket, 4096, 0)?;
    let frame = frame(job);
    memory.write(DATA, &frame);
    // struct tpacket_hdr: status (long), length, …
    let length = (frame.len() as u32).to_ne_bytes();
    memory.write(8, &length);
    memory
        .word(0)
        .store(SEND_REQUEST, std::sync::atomic::Ordering::Release);
    Ok(sys::send(&socket, &[], 0, &address()?)?)
}

fn xdp(job: &Job) -> Attempt {
    const SOL_XDP: i32 = 283;
    const TX_RING: i32 = 3;
    const UMEM: i32 = 4;
    const FILL: i32 = 5;
    const COMPLETION: i32 = 6;
    const OFFSETS: i32 = 1;
    const TX_PLACE: usize = 0x8000_0000;
    const COPY: u16 = 2;
    let socket = match sys::socket_plain(libc::AF_XDP, SOCK_RAW, 0) {
        Err(Errno::EAFNOSUPPORT) => return super::missing("this kernel has no XDP sockets"),
        socket => socket?,
    };
    let memory = Memory::low(16 * 4096)?;
    memory.write(0, &frame(job));
    // struct xdp_umem_reg: address, length, chunk size, headroom, flags, metadata length.
    let mut registration = (memory.start as u64).to_ne_bytes().to_vec();
    registration.extend((memory.length as u64).to_ne_bytes());
    registration.extend(4096_u32.to_ne_bytes());
    registration.extend([0; 12]);
    sys::set(&socket, SOL_XDP, UMEM, &registration)?;
    for ring in [FILL, COMPLETION, TX_RING] {
        sys::set(&socket, SOL_XDP, ring, &8_u32.to_ne_bytes())?;
    }
    // struct xdp_mmap_offsets: rx, tx, fill, completion of {producer, consumer, desc, flags}.
    let mut offsets = [0_u64; 16];
    let mut length = size_of_val(&offsets) as u32;
    let arguments = [
        socket.as_raw_fd() as usize,
        SOL_XDP as usize,
        OFFSETS as usize,
        sys::place_mut(&mut offsets),
        sys::place_mut(&mut length),
    ];
    sys::call(libc::SYS_getsockopt, &arguments)?;
    let ring = Memory::of(&socket, 4096, TX_PLACE)?;
    let mut to = (libc::AF_XDP as u16).to_ne_bytes().to_vec();
    to.extend(COPY.to_ne_bytes());
    to.extend(sys::interface(UP)?.to_ne_bytes());
    to.extend([0; 8]);
    // Another vector's socket may hold the queue for a moment.
    for _ in 0..20 {
        match sys::bind(&socket, &to) {
            Err(Errno::EBUSY) => thread::sleep(Duration::from_millis(50)),
            bound => {
                bound?;
                break;
            }
        }
    }
    // struct xdp_desc: address 0, length, options.
    ring.write(offsets[6] as usize, &[0; 8]);
    let size = frame(job).len() as u32;
    ring.write(offsets[6] as usize + 8, &size.to_ne_bytes());
    ring.word(offsets[4] as usize)
        .store(1, std::sync::atomic::Ordering::Release);
    let arguments = [
        socket.as_raw_fd() as usize,
        0,
        0,
        libc::MSG_DONTWAIT as usize,
        0,
        0,
    ];
    sys::call(libc::SYS_sendto, &arguments)?;
    thread::sleep(Duration::from_millis(100));
    Ok(())
}
