//! Loopback is closed but for connections of which the connector has both ends: local helpers,
//! OAuth call-backs and debuggers keep working. Whose an end is counts when something is
//! delivered, not when it was dialled.

use std::{
    env,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{self, policy},
    event::Denial,
    process::{Running, must},
    token,
    world::World,
    zone,
};

/// A port at which the connector and somebody outside listen in turn.
const PORT: u16 = 13_000;
/// How long [`somebody_else_is_never_reached_in_a_race`] runs where nothing is said.
const RACE: u64 = 12;

/// Each line of its output is round trips over one connection to a port of its own.
const ROUND_TRIPS: &str = r"
import socket, struct, threading
def echo(server, wait):
    peer, _ = server.accept()
    while data := peer.recv(9):
        peer.sendall(data)
for family, host, name in [(socket.AF_INET, '127.0.0.1', 'v4'), (socket.AF_INET6, '::1', 'v6'),
                           (socket.AF_INET, '127.9.8.7', 'other'), (socket.AF_INET, '0.0.0.0', 'any')]:
    for kind in ['plain', 'deferred']:
        server = socket.create_server((host, 0), family=family)
        if kind == 'deferred':
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
        threading.Thread(target=echo, args=(server, kind), daemon=True).start()
        with socket.create_connection(server.getsockname()[:2], 5) as client:
            said = b''
            for number in range(40):
                client.sendall(b'ping %03d!' % number)
                said = client.recv(9)
            print('tcp', kind, name, said.decode(), flush=True)
";

#[test]
fn a_connector_reaches_what_it_listens_on() -> Result<()> {
    let world = World::new()?;
    let agent = world.agent(policy("listener", &[]));
    let report = agent.run(&["/usr/bin/python3", "-c", ROUND_TRIPS])?;
    for family in ["v4", "v6", "other", "any"] {
        for kind in ["plain", "deferred"] {
            report.ensure_printed(&format!("tcp {kind} {family} ping 039!"))?;
        }
    }
    report.ensure_nothing_denied()
}

/// What one process sends to a datagram socket of its own, and to a broadcast address.
const DATAGRAMS: &str = r"
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
receiver.bind(('', 13001))
receiver.settimeout(1)
def attempt(name, send):
    try:
        send()
        print(name, receiver.recv(20).decode(), flush=True)
    except OSError as error:
        print(name, error.errno, flush=True)
def sender(broadcast=False):
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if broadcast:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return sender
def connected(host, broadcast=False):
    out = sender(broadcast)
    out.connect((host, 13001))
    out.send(b'connected')
attempt('unconnected', lambda: sender().sendto(b'unconnected', ('127.0.0.1', 13001)))
attempt('connected', lambda: connected('127.0.0.1'))
attempt('broadcast', lambda: sender(True).sendto(b'broadcast', ('127.255.255.255', 13001)))
attempt('broadcast-connected', lambda: connected('127.255.255.255', True))
";

/// A datagram is delivered to whoever has the port then, so it needs a rule; and no rule is about
/// broadcast addresses of loopback.
#[test]
fn datagrams_to_loopback_need_a_rule() -> Result<()> {
    let world = World::new()?;
    let words = ["/usr/bin/python3", "-c", DATAGRAMS];
    let free = world.agent("").free().run(&words)?;
    free.ensure_printed("broadcast broadcast")?;
    free.ensure_printed("broadcast-connected connected")?;

    let report = world.agent(policy("datagrams", &[])).run(&words)?;
    report.ensure_printed("unconnected 1\nconnected 1\nbroadcast 1\nbroadcast-connected 1")?;
    let to = |address: [u8; 4]| Denial::of_address(Ipv4Addr::from(address)).port(13001);
    report.ensure_denied(&to([127, 0, 0, 1]).because(&["loopback"]))?;

    let rule = "{ cidr: 127.0.0.0/8, ports: [13001], protocol: udp }";
    let report = world.agent(policy("datagrams", &[rule])).run(&words)?;
    report.ensure_printed("unconnected unconnected\nconnected connected")?;
    report.ensure_printed("broadcast 1\nbroadcast-connected 1")?;
    report.ensure_denied(&to([127, 255, 255, 255]).because(&["broadcast"]))?;
    Ok(())
}

/// A server outside that prints what it gets and answers. Arguments: address, port, seconds.
const OUTSIDE: &str = r"
import socket, sys, time
host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
end = time.time() + 20
while True:
    try:
        server = socket.create_server((host, port), family=socket.AF_INET6 if ':' in host else socket.AF_INET)
        break
    except OSError:
        if time.time() > end: raise
        time.sleep(.02)
print('up', flush=True)
server.settimeout(seconds)
try:
    while True:
        peer, who = server.accept()
        peer.settimeout(1)
        try:
            print('got', peer.recv(100).decode(), flush=True)
            peer.sendall(b'answer')
        except OSError as error:
            print('nothing', error, flush=True)
except TimeoutError:
    print('end', flush=True)
";

fn outside(world: &World, host: &str, seconds: u32) -> Result<Running> {
    let mut command = world.command("/usr/bin/python3");
    command.args(["-c", OUTSIDE, host, &PORT.to_string(), &seconds.to_string()]);
    Running::start(command, agent::LIMIT)
}

/// What it printed, once it has printed a line.
fn printed(server: &Running, line: &str) -> Result<String> {
    let end = Instant::now() + agent::LIMIT;
    loop {
        let text = String::from_utf8_lossy(&server.stdout()).into_owned();
        if text.lines().any(|it| it == line) {
            return Ok(text);
        }
        ensure!(
            Instant::now() < end,
            "no {line}: {text} {}",
            server.stderr()
        );
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_port_of_somebody_else_stays_closed() -> Result<()> {
    let world = World::new()?;
    let server = outside(&world, "127.0.0.1", 30)?;
    printed(&server, "up")?;
    // The port is taken by a program outside; the connector finds it refused, not closed.
    let script = format!("import socket; print(socket.socket().connect_ex(('127.0.0.1', {PORT})))");
    let report = world
        .agent(policy("listener", &[]))
        .run(&["/usr/bin/python3", "-c", &script])?;
    ensure!(report.text().trim() == "1", "not EPERM: {report}");
    Ok(())
}

/// Somebody outside calls the connector over loopback, as a browser does after a login.
#[test]
fn a_caller_over_loopback_gets_an_answer() -> Result<()> {
    let world = World::new()?;
    let serve = format!(
        "import socket; s=socket.create_server(('127.0.0.1',{PORT})); print('up',flush=True)\n\
         p,_=s.accept()\nfor _ in range(3): p.sendall(p.recv(10)*2)"
    );
    let mut confined =
        world
            .agent(policy("callback", &[]))
            .start(&["/usr/bin/python3", "-c", &serve])?;
    confined.printed("up", agent::LIMIT)?;
    let call = format!(
        "import socket; c=socket.create_connection(('127.0.0.1',{PORT}),10)\n\
         for _ in range(3): c.sendall(b'code'); print(c.recv(10).decode(),flush=True)"
    );
    let mut caller = world.command("/usr/bin/python3");
    caller.args(["-c", &call]);
    let caller = Running::start(caller, agent::LIMIT)?.wait()?;
    let text = String::from_utf8_lossy(&caller.stdout).into_owned();
    ensure!(text == "codecode\n".repeat(3), "{text:?}");
    confined.wait()?.ensure_nothing_denied()
}

/// A connection of the connector's own whose *local* end has the port at which somebody outside
/// listens; then a call to that port, from the address of the other end's port. Arguments: address,
/// another address of the host, port, token.
const PORT_AT_ITS_END: &str = r"
import socket, sys, time
host, other, port, token = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
family = socket.AF_INET6 if ':' in host else socket.AF_INET
def new():
    new = socket.socket(family)
    new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    new.settimeout(.5)
    return new
own = socket.create_server((host, 0), family=family)
decoy = new()
decoy.bind((host, port))
decoy.connect(own.getsockname()[:2])
accepted, _ = own.accept()
print('ready', flush=True)
sys.stdin.readline()
for source in [host, other]:
    out = new()
    try:
        if source != host:
            out.bind((source, own.getsockname()[1]))
        out.connect((host, port))
        out.sendall(token)
        print('answer', out.recv(100), flush=True)
    except OSError as error:
        print(error, flush=True)
# What is open goes on all the same.
accepted.sendall(b'still here')
print(decoy.recv(100).decode(), flush=True)
";

#[test]
fn a_connection_with_the_port_at_its_end_opens_nothing() -> Result<()> {
    let world = World::new()?;
    for (host, other) in [
        ("127.0.0.1", "127.0.0.9".to_owned()),
        ("::1", zone::HOST6.to_string()),
    ] {
        let token = token::new();
        let port = PORT.to_string();
        let words = [
            "/usr/bin/python3",
            "-c",
            PORT_AT_ITS_END,
            host,
            &other,
            &port,
            &token,
        ];
        let mut confined = world.agent(policy("decoy", &[])).start(&words)?;
        confined.printed("ready", agent::LIMIT)?;
        let server = outside(&world, host, 3)?;
        printed(&server, "up")?;
        use std::io::Write as _;
        writeln!(confined.agent.stdin()?)?;
        let report = confined.wait()?;
        let heard = printed(&server, "end")?;
        ensure!(!heard.contains(&token), "{host}: {heard}; {report}");
        report.ensure_printed("still here")?;
        ensure!(!report.text().contains("answer"), "{report}");
    }
    Ok(())
}

/// Calls that wait for a full queue of the connector's own; then the listener closes. They go on
/// calling whoever listens there next. Arguments: port, token.
const WAITING: &str = r"
import select, socket, sys, time
port, token = int(sys.argv[1]), sys.argv[2].encode()
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(('127.0.0.1', port))
server.listen(0)
def call():
    out = socket.socket()
    out.setblocking(False)
    out.connect_ex(('127.0.0.1', port))
    return out
full = [call() for _ in range(3)]
time.sleep(.3)
calls = [call() for _ in range(8)]
time.sleep(.2)
made = select.select([], calls, [], 0)[1]
calls = [out for out in calls if out not in made]
print('waiting', len(calls), flush=True)
sys.stdin.readline()
server.close()
for out in full + made:
    try: out.send(token)
    except OSError: pass
end = time.time() + 8
while calls and time.time() < end:
    for out in select.select([], calls, [], 1)[1]:
        calls.remove(out)
        if not out.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            out.send(token)
print('still here', flush=True)
";

#[test]
fn a_call_that_waits_does_not_reach_the_next_listener() -> Result<()> {
    use std::io::Write as _;
    let world = World::new()?;
    let token = token::new();
    let words = ["/usr/bin/python3", "-c", WAITING, &PORT.to_string(), &token];
    let mut confined = world.agent(policy("waits", &[])).start(&words)?;
    confined.printed("waiting", agent::LIMIT)?;
    // The server outside tries until the port is free, which it is from now on.
    let server = outside(&world, "127.0.0.1", 9)?;
    writeln!(confined.agent.stdin()?)?;
    let report = confined.wait()?;
    let heard = printed(&server, "end")?;
    ensure!(!heard.contains(&token), "{heard}; {report}");
    ensure!(!report.text().contains("waiting 0"), "{report}");
    report.ensure_printed("still here")?;
    Ok(())
}

/// With a shared port the kernel would choose who of the user's processes gets a call, and hand
/// calls on where one closes.
#[test]
fn a_stream_port_is_shared_with_nobody() -> Result<()> {
    let world = World::new()?;
    let script = "
import socket
for kind, name in [(socket.SOCK_STREAM, 'tcp'), (socket.SOCK_DGRAM, 'udp')]:
    for value in [0, 1]:
        try:
            socket.socket(socket.AF_INET6, kind).setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, value)
            print(name, value, 'set')
        except OSError as error:
            print(name, value, error.errno)
place = ('127.0.0.1', 0)
for number in [1, 2]:
    out = socket.socket()
    out.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        out.bind(place)
        out.listen()
        place, first = out.getsockname(), out
    except OSError as error:
        print('shared', error.errno)
";
    let report = world
        .agent(policy("shares", &[]))
        .run(&["/usr/bin/python3", "-c", script])?;
    report.ensure_printed("tcp 0 set\ntcp 1 set\nudp 0 set\nudp 1 set")?;
    report.ensure_printed("shared 98")?;
    report.ensure_nothing_denied()
}

/// Keeps eight datagrams on the way, so that whatever else goes over a slow loopback waits for a
/// quarter of a second. Argument: seconds.
const TRAFFIC: &str = r"
import socket, sys, time
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.bind(('127.0.0.1', 9))
sink.settimeout(1)
end = time.time() + float(sys.argv[1])
send = lambda: sink.sendto(bytes(18), ('127.0.0.1', 9))
for _ in range(8): send()
while time.time() < end:
    try: sink.recv(100)
    except OSError: pass
    send()
";

/// The connector gets its own connection by a SYN cookie, has calls on the way that will overflow the
/// next listener, sends, and closes. Arguments: port, token, the address that it calls from.
const COOKIE_INSIDE: &str = r"
import select, socket, sys, time
port, token, source = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3]
def call():
    out = socket.socket()
    out.setblocking(False)
    out.bind((source, 0))
    out.connect_ex(('127.0.0.1', port))
    return out
own = socket.socket()
own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
own.bind(('127.0.0.1', port))
own.listen(0)
own.setblocking(False)
for _ in range(9):
    # A call that is gone before it is answered fills the queue, so that the next gets a cookie.
    call().close()
    client = call()
    established = bool(select.select([], [client], [], 4)[1])
    if established:
        break
    # On a busy machine it went too late, was complete, and took the place of the next.
    client.close()
    while select.select([own], [], [], .5)[0]:
        own.accept()[0].close()
print('established', established)
print('accepted', bool(select.select([own], [], [], 9)[0]))
held = [call(), call(), call()]
client.send(token)
own.close()
# Its reset is still on the way, and somebody else is there.
time.sleep(.05)
client.send(token)
time.sleep(2)
";

/// Outside: waits for the port, and prints what it got there. Arguments: port, seconds.
const COOKIE_OUTSIDE: &str = r"
import socket, sys, time
port, end = int(sys.argv[1]), time.time() + float(sys.argv[2])
while time.time() < end:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(('127.0.0.1', port))
        server.listen(0)
        break
    except OSError:
        server.close()
        time.sleep(.001)
server.settimeout(2)
try:
    peer, _ = server.accept()
    peer.settimeout(2)
    print('outside', len(peer.recv(1000)))
except OSError:
    print('outside', 0)
";

/// A segment that is approved for the connector itself, and arrives when somebody else listens, is no
/// handshake there: connections with itself never have the numbers of a SYN cookie.
#[test]
fn cookies_lead_to_nobody_else() -> Result<()> {
    let world = World::new()?;
    for line in [
        "ip link set lo mtu 200",
        "tc qdisc add dev lo root tbf rate 18kbit burst 260 latency 20s",
    ] {
        let mut words = line.split(' ');
        let mut command = world.command(words.next().unwrap_or_default());
        command.args(words);
        let outcome = Running::start(command, agent::LIMIT)?.wait()?;
        ensure!(outcome.status.success(), "{line}: {}", outcome.stderr);
    }
    let mut command = world.command("/usr/bin/python3");
    command.args(["-c", TRAFFIC, "150"]);
    let _traffic = Running::start(command, 3 * agent::LIMIT)?;
    // Also from an address of the host, which a program may choose for calls over loopback, and a
    // policy may let in.
    let sources = [Ipv4Addr::LOCALHOST, zone::HOST];
    let mut ports = PORT + 6..;
    for (source, free) in sources.iter().flat_map(|it| [(*it, true), (*it, false)]) {
        // It is a matter of milliseconds, which a busy or emulated machine does not always have.
        let mut met = false;
        for port in ports.by_ref().take(5) {
            let (heard, denied) = cookie(&world, source, port, free)?;
            ensure!(free || !heard, "somebody else is reached from {source}");
            // What is sent is looked at, whatever connect() said.
            met = if free { heard } else { denied };
            if met {
                break;
            }
        }
        ensure!(
            met,
            "nothing came to the next listener, from {source}: {free}"
        );
    }
    Ok(())
}

/// Whether somebody else got what a connector sent to a listener of its own, by a cookie, and whether
/// it was refused.
fn cookie(world: &World, source: Ipv4Addr, port: u16, free: bool) -> Result<(bool, bool)> {
    let (token, port, source) = (token::new(), port.to_string(), source.to_string());
    let listen = format!("listen: [{port} from {}]\n", zone::HOST);
    let agent = world.agent(policy("cookie", &[]) + &listen);
    let agent = if free { agent.free() } else { agent };
    let python = ["/usr/bin/python3", "-u", "-c", COOKIE_INSIDE];
    let inside = agent.start(&[&python[..], &[&port, &token, &source]].concat())?;
    // Before the connector has the port it would be there first.
    let end = Instant::now() + agent::LIMIT;
    while inside.agent.stdout().is_empty() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    let mut command = world.command("setpriv");
    command.args(["--reuid=12345", "--clear-groups", "/usr/bin/python3"]);
    command.args(["-c", COOKIE_OUTSIDE, &port, "50"]);
    let outside = Running::start(command, agent::LIMIT)?;
    let report = inside.wait()?;
    report.ensure_printed("established True\naccepted True")?;
    let heard = String::from_utf8_lossy(&outside.wait()?.stdout).into_owned();
    let denial = Denial::of_address(Ipv4Addr::LOCALHOST);
    let denied = report.events.iter().any(|event| denial.fits(event));
    let heard = heard.trim().strip_prefix("outside ");
    let heard = heard.with_context(|| report.to_string())?;
    Ok((heard != "0", denied))
}

/// More calls than a listener has room for get through, each in its time, as where the kernel makes
/// no cookies; with data that waits for its call to be complete.
#[test]
fn a_listener_with_little_room_is_reached_by_all() -> Result<()> {
    let world = World::new()?;
    let script = r"
import socket, threading, time
own = socket.socket()
own.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
own.bind(('127.0.0.1', PORT))
own.listen(1)
def call(number):
    out = socket.socket()
    out.connect(own.getsockname())
    out.send(b'%d' % number)
    print('back', number, out.recv(9) == b'%d' % number, flush=True)
calls = [threading.Thread(target=call, args=[number]) for number in range(6)]
for one in calls: one.start()
time.sleep(.3)
for _ in calls:
    peer, _ = own.accept()
    peer.send(peer.recv(9))
for one in calls: one.join()
print('all')
";
    // Also where a rule permits the port, whoever listens there.
    let rule = format!("127.0.0.1:{}", PORT + 3);
    for (rules, port) in [(vec![], PORT + 2), (vec![rule.as_str()], PORT + 3)] {
        let script = script.replace("PORT", &port.to_string());
        let report =
            world
                .agent(policy("room", &rules))
                .run(&["/usr/bin/python3", "-c", &script])?;
        report.ensure_printed("all")?;
        let back = (0..6).all(|number| report.text().contains(&format!("back {number} True")));
        ensure!(back, "{report}");
        report.ensure_nothing_denied()?;
    }
    Ok(())
}

/// The connector: its listener at the port opens, takes what comes, and closes all the time, and
/// other processes of it, on another processor, call and send in several ways. Arguments: port,
/// seconds, token. Prints how many bytes its own listeners got.
const RACE_INSIDE: &str = r"
import os, select, socket, struct, sys, time
port, seconds, token = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3].encode()
end = time.time() + seconds
MSG_FASTOPEN, FASTOPEN_CONNECT = 0x20000000, 30
def on(processor):
    try: os.sched_setaffinity(0, {processor % os.cpu_count()})
    except OSError: pass
def send(way):
    on(1)
    held = []
    while time.time() < end:
        out = socket.socket()
        out.setblocking(False)
        try:
            if way == 0:
                out.sendto(token, MSG_FASTOPEN, ('127.0.0.1', port))
            elif way == 1:
                out.setsockopt(socket.IPPROTO_TCP, FASTOPEN_CONNECT, 1)
                out.connect(('127.0.0.1', port))
                out.send(token)
            else:
                out.connect_ex(('127.0.0.1', port))
                for _ in range(way):
                    out.send(token)
        except OSError:
            pass
        # Some stay, and send when the listener is another.
        held.append(out)
        if len(held) > 40:
            old = held.pop(0)
            for _ in range(3):
                try: old.send(token)
                except OSError: pass
            if len(held) % 3 == 0:
                old.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            old.close()
for way in range(4):
    if os.fork() == 0:
        send(way)
        os._exit(0)
on(0)
own = opened = 0
while time.time() < end:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(('127.0.0.1', port))
        server.listen(opened % 3)
    except OSError:
        server.close()
        continue
    opened += 1
    server.settimeout(.0005)
    try:
        peer, _ = server.accept()
        peer.settimeout(.0005)
        own += len(peer.recv(1000))
        peer.close()
    except OSError:
        pass
    server.close()
print('own', own, 'opened', opened, flush=True)
";

/// Outside: as the connector does, at the same port. Prints what it got.
const RACE_OUTSIDE: &str = r"
import os, socket, sys, time
port, seconds, token = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3].encode()
try: os.sched_setaffinity(0, {0})
except OSError: pass
end = time.time() + seconds
got = opened = called = 0
while time.time() < end:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(('127.0.0.1', port))
        server.listen(16)
    except OSError:
        server.close()
        continue
    opened += 1
    server.settimeout(.001)
    try:
        while True:
            peer, _ = server.accept()
            called += 1
            peer.settimeout(.002)
            try: got += len(peer.recv(1000))
            except OSError: pass
            peer.close()
    except OSError:
        pass
    server.close()
print('outside', got, 'opened', opened, 'called', called, flush=True)
";

/// A few seconds; with `EGRESS_RACE_SECONDS=7200` as long as that. Half of them with a loopback
/// that takes its time: what was approved is on its way then while others come to listen.
#[test]
fn somebody_else_is_never_reached_in_a_race() -> Result<()> {
    let seconds = match env::var("EGRESS_RACE_SECONDS") {
        Ok(text) => text.parse().context("EGRESS_RACE_SECONDS")?,
        Err(_) => RACE,
    };
    let world = World::new()?;
    // Unconfined it is reached, and confined the connector reaches itself.
    let (own, heard) = race(&world, RACE.min(4), true)?;
    ensure!(heard > 0, "nothing was heard outside: {own} {heard}");
    for slow in [false, true] {
        if slow {
            let mut command = world.command("tc");
            command.args(["qdisc", "add", "dev", "lo", "root"]);
            command.args(["tbf", "rate", "20mbit", "burst", "1600", "limit", "20000"]);
            must(command, agent::LIMIT)?;
        }
        let (own, heard) = race(&world, (seconds / 2).max(1), false)?;
        ensure!(own > 0, "it did not reach itself, slow: {slow}");
        ensure!(heard == 0, "{heard} bytes were heard outside, slow: {slow}");
    }
    Ok(())
}

/// Bytes that the connector's own listeners got, and those outside.
fn race(world: &World, seconds: u64, free: bool) -> Result<(u64, u64)> {
    let token = token::new();
    let (port, time) = ((PORT + 1).to_string(), seconds.to_string());
    let limit = Duration::from_secs(seconds) + agent::LIMIT;
    let mut command = world.command("/usr/bin/python3");
    command.args(["-c", RACE_OUTSIDE, &port, &time, &token]);
    let outside = Running::start(command, limit)?;
    let agent = world.agent(policy("race", &[])).limit(limit);
    let agent = if free { agent.free() } else { agent };
    let report = agent.run(&["/usr/bin/python3", "-c", RACE_INSIDE, &port, &time, &token])?;
    let outside = String::from_utf8_lossy(&outside.wait()?.stdout).into_owned();
    println!("{}{outside}", report.text());
    let number = |text: &str, word: &str| -> Result<u64> {
        let mut words = text.split_whitespace();
        let found = words.find(|it| *it == word).and(words.next());
        let found = found.with_context(|| format!("no {word} in {text}"))?;
        Ok(found.parse()?)
    };
    Ok((number(&report.text(), "own")?, number(&outside, "outside")?))
}
