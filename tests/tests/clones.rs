//! Copies of datagrams that the kernel makes for listeners on this host, of what is sent to groups
//! and broadcast addresses (`net/ipv4/ip_output.c` `ip_mc_output`). They have no socket, so no
//! program sees them, and they are delivered even where the datagram itself is refused.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use egress_tests::{
    agent::{self, policy},
    event::Denial,
    process::Running,
    token,
    world::World,
    zone,
};

/// Hears everything sent to one port on this host, and to a group.
const EARS: &str = r"
import select, socket, sys, time
ears = []
for family, any, join in [
    (socket.AF_INET, '', [(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
        socket.inet_aton('239.7.7.7') + socket.inet_aton(sys.argv[1]))]),
    (socket.AF_INET6, '::', []),
]:
    ear = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    ear.bind((any, 13100))
    for option in join:
        ear.setsockopt(*option)
    ears.append(ear)
print('up', flush=True)
while True:
    for ear in select.select(ears, [], [])[0]:
        print('heard', ear.recv(200).decode(), flush=True)
";

/// Says a word to each address in several ways. Arguments: word, addresses.
const SAYS: &str = r"
import socket, sys
word = sys.argv[1].encode()
def new(to):
    out = socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET, socket.SOCK_DGRAM)
    return out
def broadcast(out):
    out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
def before(to):
    out = new(to); broadcast(out); out.connect((to, 13100)); out.send(word)
def after(to):
    out = new(to)
    try: out.connect((to, 13100))
    except OSError: pass
    broadcast(out); out.connect((to, 13100)); out.send(word)
def unconnected(to):
    out = new(to); broadcast(out); out.sendto(word, (to, 13100))
def elsewhere(to):
    out = new(to); broadcast(out); out.connect(('203.0.113.20', 13100)); out.sendto(word, (to, 13100))
for to in sys.argv[2:]:
    for way in [before, after, unconnected, elsewhere]:
        try:
            way(to)
            print(way.__name__, to, 'sent', flush=True)
        except OSError as error:
            print(way.__name__, to, error.errno, flush=True)
";

struct Ears(Running);

impl Ears {
    fn open(world: &World) -> Result<Self> {
        let mut command = world.command("/usr/bin/python3");
        command.args(["-c", EARS, &zone::HOST.to_string()]);
        let ears = Self(Running::start(command, agent::LIMIT)?);
        let end = Instant::now() + agent::LIMIT;
        while !ears.text().contains("up") {
            ensure!(Instant::now() < end, "{}", ears.0.stderr());
            thread::sleep(Duration::from_millis(5));
        }
        Ok(ears)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout()).into_owned()
    }
}

/// The broadcast address of the subnet that the host's address is in.
fn of_the_subnet(world: &World) -> Result<Ipv4Addr> {
    let mut command = world.command("ip");
    command.args(["-4", "-o", "addr", "show"]);
    let outcome = Running::start(command, agent::LIMIT)?.wait()?;
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    let host = format!(" {}/", zone::HOST);
    let line = text.lines().find(|line| line.contains(&host));
    let bits = line.and_then(|line| line.split_once(&host)?.1.split(' ').next()?.parse().ok());
    let bits: u32 = bits.unwrap_or(32);
    ensure!(bits < 31, "no broadcast address: {text}");
    Ok(Ipv4Addr::from_bits(
        zone::HOST.to_bits() | (u32::MAX >> bits),
    ))
}

#[test]
fn nothing_is_copied_to_listeners_on_this_host() -> Result<()> {
    let world = World::new()?;
    let subnet = of_the_subnet(&world)?;
    let places = [
        "255.255.255.255",
        "127.255.255.255",
        "239.7.7.7",
        "::ffff:239.7.7.7",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([subnet.to_string(), format!("::ffff:{subnet}")]);
    let places: Vec<String> = places.collect();
    let (free, confined, ruled) = (token::new(), token::new(), token::new());
    let ears = Ears::open(&world)?;
    let words = |token: &str| {
        let mut words = ["/usr/bin/python3", "-c", SAYS, token]
            .map(str::to_owned)
            .to_vec();
        words.extend(places.iter().cloned());
        words
    };
    let free_run = world.agent("").free().run(&words(&free))?;
    let report = world.agent(policy("copies", &[])).run(&words(&confined))?;
    // A rule for an address, which could be a broadcast address: the option is the program's.
    let rule = "{ cidr: 203.0.113.20/32, ports: [13100], protocol: udp }";
    let second = world.agent(policy("copies", &[rule])).run(&words(&ruled))?;
    thread::sleep(Duration::from_millis(300));
    let heard = ears.text();
    // Sent in each way; the group needs a route, which this host has not for broadcasts alone.
    ensure!(heard.matches(&free).count() >= 6, "{heard}; {free_run}");
    let to = |address: IpAddr| Denial::of_address(address);
    for (token, report) in [(&confined, &report), (&ruled, &second)] {
        ensure!(!heard.contains(token), "{heard}; {report}");
        ensure!(!report.text().contains("sent"), "{report}");
    }
    // The kernel itself, which was never told that the socket may broadcast: EACCES.
    report.ensure_printed(&format!("before {subnet} 13"))?;
    second.ensure_denied(&to(subnet.into()).because(&["broadcast"]))?;
    report.ensure_denied(&to(Ipv4Addr::BROADCAST.into()).because(&["multicast"]))?;
    Ok(())
}

/// Java and Go set the option on every datagram socket: it hinders nothing that is permitted.
#[test]
fn a_socket_that_may_broadcast_reaches_what_is_permitted() -> Result<()> {
    let world = World::new()?;
    let subnet = of_the_subnet(&world)?;
    let (named, covered) = (token::new(), token::new());
    let script = "
import socket, sys
for word, to in [(sys.argv[1], '203.0.113.20'), (sys.argv[2], sys.argv[3])]:
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    out.connect((to, 13100))
    out.send(word.encode())
";
    let ears = Ears::open(&world)?;
    let rules = [
        "{ cidr: 203.0.113.20/32, ports: [13100], protocol: udp }".to_owned(),
        format!("{{ cidr: {subnet}/32, ports: [13100], protocol: udp }}"),
    ];
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let subnet = subnet.to_string();
    let words = ["/usr/bin/python3", "-c", script, &named, &covered, &subnet];
    let report = world.agent(policy("announces", &rules)).run(&words)?;
    report.ensure_nothing_denied()?;
    let end = Instant::now() + agent::LIMIT;
    while !ears.text().contains(&covered) {
        ensure!(Instant::now() < end, "{}; {report}", ears.text());
        thread::sleep(Duration::from_millis(5));
    }
    ensure!(!world.sightings(&named)?.is_empty(), "{report}");
    Ok(())
}

/// Joins groups, leaves one, and chooses the interface by which it sends. Argument: an address.
const JOINS: &str = r"
import socket, struct, sys
own = socket.inet_aton(sys.argv[1])
def attempt(name, family, level, option, value):
    out = socket.socket(family, socket.SOCK_DGRAM)
    try:
        out.setsockopt(level, option, value)
        print(name, 'set', flush=True)
        return out
    except OSError as error:
        print(name, error.errno, flush=True)
V4, V6 = (socket.AF_INET, socket.IPPROTO_IP), (socket.AF_INET6, socket.IPPROTO_IPV6)
def group(address):
    return struct.pack('=II', 0, 0) + struct.pack('=H', 2) + b'\0\0' + socket.inet_aton(address) + bytes(120)
attempt('mdns', *V4, 35, socket.inet_aton('224.0.0.251') + own)
attempt('other', *V4, 35, socket.inet_aton('224.0.0.252') + own)
attempt('short', *V4, 35, b'abc')
attempt('denied', *V4, 35, socket.inet_aton('239.9.9.9') + own)
attempt('mdns6', *V6, 20, socket.inet_pton(socket.AF_INET6, 'ff02::fb') + struct.pack('=I', 1))
attempt('other6', *V6, 20, socket.inet_pton(socket.AF_INET6, 'ff02::fc') + struct.pack('=I', 1))
attempt('source', *V4, 39, socket.inet_aton('224.0.0.251') + own + own)
attempt('interface', *V4, 32, own)
attempt('unicast', *V4, 50, struct.pack('!I', 1))
";

#[test]
fn groups_that_a_rule_names_are_joined_and_no_others() -> Result<()> {
    let world = World::new()?;
    let words = ["/usr/bin/python3", "-c", JOINS, &zone::HOST.to_string()];
    let mut text = policy(
        "joins",
        &[
            "{ cidr: 224.0.0.251/32, ports: [5353], protocol: udp }",
            "{ cidr: \"ff02::fb/128\", ports: [5353], protocol: udp }",
            "{ cidr: 239.0.0.0/8, ports: [5353], protocol: udp }",
        ],
    );
    text.push_str("deny:\n  - { cidr: 239.9.9.9/32 }\n");
    let report = world.agent(text).run(&words)?;
    for line in [
        "mdns set",
        "other 1",
        "denied 1",
        "mdns6 set",
        "other6 1",
        "source 1",
        "interface set",
        "unicast 1",
    ] {
        report.ensure_printed(line)?;
    }
    ensure!(!report.text().contains("short set"), "{report}");
    let group = Denial::of_address(Ipv4Addr::new(224, 0, 0, 252));
    let group = report.ensure_denied(&group.because(&["multicast"]))?;
    ensure!(
        group.protocol.as_deref() == Some("IP_ADD_MEMBERSHIP"),
        "{group:?}"
    );
    Ok(())
}
