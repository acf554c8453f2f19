//! Which process holds a socket, by what /proc says (proc_pid_net(5), proc_pid_fd(5)).

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// Bytes of one table that are read.
const MAX_TABLE: u64 = 4 << 20;
/// Processes that are looked at.
const MAX_PIDS: usize = 256;
/// Descriptors of a process that are looked at.
const MAX_FDS: usize = 4096;

/// The process among `pids` that holds the socket whose own address is `local`; `protocol`
/// is 6 (TCP) or 17 (UDP). `None`: none of them does, or not any more. The work is bounded.
///
/// To name who asked for a name, call it before the answer is sent: a resolver closes its
/// socket as soon as it has one.
pub fn owner(local: SocketAddr, protocol: u8, pids: &[u32]) -> Option<u32> {
    let inode = inode(local, protocol)?;
    let link = format!("socket:[{inode}]");
    pids.iter()
        .copied()
        .take(MAX_PIDS)
        .find(|&pid| holds(pid, link.as_bytes()))
}

/// The inode of a socket in the network namespace of this process, which is where its peers
/// on loopback are. A v4 peer can belong to a v6 socket, so both tables are read.
fn inode(local: SocketAddr, protocol: u8) -> Option<u64> {
    let name = if protocol == TCP { "tcp" } else { "udp" };
    let folder = Path::new("/proc/self/net");
    ["", "6"].iter().find_map(|version| {
        let table = fs::File::open(folder.join(format!("{name}{version}"))).ok()?;
        BufReader::new(table.take(MAX_TABLE))
            .lines()
            .skip(1)
            .map_while(Result::ok)
            .find_map(|line| entry(&line, local))
    })
}

/// `sl local remote st queues timer retr uid timeout inode …`: the inode of the line whose
/// local address is the one asked for, or the wildcard on the same port.
fn entry(line: &str, local: SocketAddr) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    if u16::from_str_radix(port, 16).ok()? != local.port() {
        return None;
    }
    let own = address_of(address)?;
    if own != local.ip().to_canonical() && !own.is_unspecified() {
        return None;
    }
    // 0 is a socket that no process holds any more.
    fields.nth(7)?.parse().ok().filter(|&inode| inode != 0)
}

/// Each 32-bit word of the address stands in the byte order of this machine.
fn address_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical())
        }
        _ => None,
    }
}

fn holds(pid: u32, link: &[u8]) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    entries
        .take(MAX_FDS)
        .map_while(Result::ok)
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str().as_bytes() == link))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn sockets_of_this_process() {
        let pids = [u32::MAX, std::process::id()];
        for bind in ["127.0.0.1:0", "0.0.0.0:0"] {
            let socket = UdpSocket::bind(bind).unwrap();
            let seen = SocketAddr::new(
                Ipv4Addr::LOCALHOST.into(),
                socket.local_addr().unwrap().port(),
            );
            assert_eq!(owner(seen, 17, &pids), Some(std::process::id()), "{bind}");
            assert_eq!(owner(seen, TCP, &pids), None);
            assert_eq!(owner(seen, 17, &[]), None);
            drop(socket);
            assert_eq!(owner(seen, 17, &pids), None);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(
            owner(stream.local_addr().unwrap(), TCP, &pids),
            Some(std::process::id())
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_the_tables() {
        let local = "127.0.0.1:53".parse().unwrap();
        let line = |address: &str, inode: u32| {
            format!(
                "  1: {address}:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 {inode} 2 0 0"
            )
        };
        assert_eq!(entry(&line("0100007F", 77), local), Some(77));
        assert_eq!(entry(&line("00000000", 77), local), Some(77));
        assert_eq!(
            entry(&line("0000000000000000FFFF00000100007F", 77), local),
            Some(77)
        );
        assert_eq!(entry(&line("0200007F", 77), local), None);
        assert_eq!(entry(&line("0100007F", 0), local), None);
        for broken in [
            "",
            "1: x",
            "1: 0100007F:0035",
            "1: 01:0035 0 0 0 0 0 0 0 5",
            "1: é0100007:0035 1",
        ] {
            assert_eq!(entry(broken, local), None);
        }
    }
}
