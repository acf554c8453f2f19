//! Datagrams leave by the interfaces by which this host sends, whatever changes there, and by no
//! other that their program names. Each case of a refused interface has its control outside the
//! agent, where the same datagram is answered.

use std::{
    io::{BufRead, BufReader, Write},
    net::IpAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{Report, policy},
    process::{self, patience},
    shell::Shell,
    world::{USER, World},
    zone,
};

const SEND: &str = include_str!("../fixtures/routes/send.py");
const PORT: u16 = 9999;
const LIMIT: Duration = Duration::from_secs(30);
/// How long after a change datagrams go the new way.
const FOLLOWED: Duration = Duration::from_secs(1);
/// The interface that every world has, and a second one to the same internet.
const FIRST: &str = "up0";
const SECOND: &str = "up1";
/// An interface that leads nowhere.
const NOWHERE: &str = "no0";

/// A host with a second wire to the internet, like a laptop with cable and radio.
struct Roaming {
    world: World,
    // Is in the internet's namespace, so that wires can be put there.
    holder: Ended,
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.0.kill().is_ok() {
            drop(self.0.wait());
        }
    }
}

impl Roaming {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let mut holder = world.internet_command("sh");
        holder.args(["-c", "echo ready; exec sleep 600"]);
        let mut holder = holder.stdout(Stdio::piped()).spawn()?;
        let stdout = holder.stdout.take().context("no output")?;
        let holder = Ended(holder);
        // It is in the namespace by then.
        let mut ready = String::new();
        BufReader::new(stdout).read_line(&mut ready)?;
        ensure!(ready == "ready\n", "the internet's side: {ready:?}");
        let roaming = Self { world, holder };
        roaming.wire(SECOND, "100.64.7", "2001:db8:7:")?;
        roaming.host(&format!(
            "ip link add {NOWHERE} type veth peer name no1
             ip link set no1 up
             ip link set {NOWHERE} up
             ip -6 route add default dev {NOWHERE} metric 9999
             ip -6 route add default via 2001:db8:7::1 dev {SECOND} metric 4096
             ip route add default via 100.64.7.1 dev {SECOND} metric 4096
             ip route add default via 192.0.2.1 dev {FIRST} metric 100
             ip route del default dev {FIRST} metric 0"
        ))?;
        Ok(roaming)
    }

    /// A wire to the internet; the host is 2 on it, the internet 1.
    fn wire(&self, name: &str, v4: &str, v6: &str) -> Result<()> {
        let pid = self.holder.0.id();
        self.host(&format!(
            "ip link add {name} type veth peer name far-{name} netns {pid}
             ip link set {name} up
             ip address add {v4}.2/24 dev {name}
             ip address add {v6}:2/64 dev {name} nodad"
        ))?;
        self.internet(&format!(
            "ip link set far-{name} up
             ip address add {v4}.1/24 dev far-{name}
             ip address add {v6}:1/64 dev far-{name} nodad"
        ))
    }

    fn host(&self, script: &str) -> Result<()> {
        script_in(self.world.command("sh"), script)
    }

    fn internet(&self, script: &str) -> Result<()> {
        script_in(self.world.internet_command("sh"), script)
    }

    /// Outside the agent, as the connector's user.
    fn outside(&self) -> Result<Sender> {
        let mut command = self.world.command("setpriv");
        command.args([&format!("--reuid={USER}"), &format!("--regid={USER}")]);
        command.args(["--clear-groups", "--", "/usr/bin/python3", "-c", SEND]);
        Sender::start(command)
    }

    /// The program that sends, as a file.
    fn program(&self) -> Result<String> {
        let file = self.world.path("send.py");
        std::fs::write(&file, SEND)?;
        Ok(file.display().to_string())
    }

    fn agent(&self, rules: &[&str]) -> Result<Inside> {
        let file = self.program()?;
        let mut shell = self.world.agent(policy("roaming", rules)).shell()?;
        // One process for all, so that its connected sockets stay.
        shell.run(&format!("coproc S {{ exec /usr/bin/python3 {file}; }}"))?;
        Ok(Inside(shell))
    }
}

fn script_in(mut command: Command, script: &str) -> Result<()> {
    command.args(["-ec", script]);
    let outcome = process::run(command, LIMIT)?;
    ensure!(outcome.code() == 0, "{script}: {outcome:?}");
    Ok(())
}

/// The program that sends.
struct Sender {
    _child: Ended,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

trait Send {
    fn line(&mut self, line: &str) -> Result<String>;

    /// What becomes of a datagram.
    fn send(&mut self, to: &str, interface: &str) -> Result<String> {
        self.line(&format!("{to} {PORT} {interface}"))
    }

    /// The same on a connected socket, always the same one.
    fn keep(&mut self, to: &str, interface: &str) -> Result<String> {
        self.line(&format!("{to} {PORT} {interface} keep"))
    }
}

impl Sender {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self {
            ask: child.stdin.take().context("no input")?,
            answers: BufReader::new(child.stdout.take().context("no output")?),
            _child: Ended(child),
        })
    }
}

impl Send for Sender {
    fn line(&mut self, line: &str) -> Result<String> {
        writeln!(self.ask, "{line}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }
}

struct Inside(Shell);

impl Send for Inside {
    fn line(&mut self, line: &str) -> Result<String> {
        let ask = format!("echo '{line}' >&${{S[1]}}; read -r answer <&${{S[0]}}; echo $answer");
        Ok(self.0.run(&ask)?.text.trim().to_owned())
    }
}

impl Inside {
    /// Waits until a datagram is answered that the kernel sends as it likes.
    fn follows(&mut self, to: &str) -> Result<()> {
        self.becomes(to, "-", "echo")
    }

    /// Waits until this becomes of a datagram.
    fn becomes(&mut self, to: &str, interface: &str, what: &str) -> Result<()> {
        let end = Instant::now() + FOLLOWED * patience();
        loop {
            let found = self.send(to, interface)?;
            if found == what {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{to} by {interface}: {found}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn is(&mut self, to: &str, interface: &str, what: &str) -> Result<()> {
        let found = self.send(to, interface)?;
        ensure!(found == what, "{to} by {interface}: {found}, not {what}");
        Ok(())
    }

    /// The end; how many datagrams were refused for their interface.
    fn end(mut self) -> Result<(Report, u64)> {
        self.0.run("exec {S[1]}>&-")?;
        let report = self.0.end()?;
        let stopped = report.events.iter().find(|event| event.kind == "stopped");
        let stopped = stopped.context("nothing was summed up")?;
        let count = stopped.number("denied", "interface");
        Ok((report, count))
    }
}

/// Addresses that a name, a single address and a range lead to: by exact grant, entry of one
/// address, and prefix.
fn targets() -> ([String; 4], Vec<&'static str>) {
    let ranged = zone::STRANGER;
    let targets = [
        IpAddr::from(zone::ALLOWED),
        zone::ALLOWED6.into(),
        ranged.into(),
        zone::STRANGER6.into(),
    ];
    let rules = vec![
        "allowed.example:9999/udp",
        "{cidr: 198.51.100.0/24, ports: [9999], protocol: udp}",
        "'[2001:db8:c6::7]:9999/udp'",
    ];
    (targets.map(|ip| ip.to_string()), rules)
}

/// Cable is unplugged, radio goes on: the default route has another interface. The old one is
/// closed, and the new one open, for every kind of rule and on a socket that stays.
#[test]
fn the_default_route_moves_to_another_interface() -> Result<()> {
    let roaming = Roaming::new()?;
    let (targets, rules) = targets();
    let mut outside = roaming.outside()?;
    for to in &targets {
        for by in ["-", FIRST, SECOND] {
            ensure!(outside.send(to, by)? == "echo", "the control: {to} by {by}");
        }
    }
    let mut inside = roaming.agent(&rules)?;
    for to in &targets {
        inside.is(to, "-", "echo")?;
        inside.is(to, FIRST, "echo")?;
        inside.is(to, SECOND, "EPERM")?;
        for (by, what) in [("-", "echo"), (FIRST, "echo"), (SECOND, "EPERM")] {
            // IPv6 takes the interface of a connected socket for advice, and the route all the same.
            let what = if to.contains(':') { "echo" } else { what };
            let found = inside.keep(to, by)?;
            ensure!(found == what, "{to} by {by}, connected: {found}");
        }
    }
    roaming.host(&format!(
        "ip route replace default via 100.64.7.1 dev {SECOND} metric 1
         ip -6 route replace default via 2001:db8:7::1 dev {SECOND} metric 1"
    ))?;
    // Repeats of a denial within a second are counted, not shown.
    thread::sleep(Duration::from_secs(1));
    for to in &targets {
        inside.follows(to)?;
        inside.is(to, SECOND, "echo")?;
        inside.is(to, FIRST, "EPERM")?;
        ensure!(inside.keep(to, "-")? == "echo", "{to}, connected still");
        if !to.contains(':') {
            // What was judged a moment ago counts for 256 ticks.
            inside.becomes_kept(to, FIRST, "EPERM")?;
        }
    }
    let (report, refused) = inside.end()?;
    ensure!(refused >= 12, "{refused}: {report}");
    // Which it was, and which is right, before and after.
    let mut lines = report.events.iter().map(|event| event.line.as_str());
    for (by, now) in [(SECOND, FIRST), (FIRST, SECOND)] {
        let told = format!("by {by}, but this host sends there by {now}: ");
        ensure!(lines.any(|line| line.contains(&told)), "{told}: {report}");
    }
    Ok(())
}

/// What cannot be followed is no way: datagrams are refused, the operator is told, and TCP, which
/// cannot choose an interface, goes on.
#[test]
fn routes_that_do_not_fit_are_no_ways() -> Result<()> {
    let roaming = Roaming::new()?;
    let file = roaming.program()?;
    let script = format!(
        "echo '{} {PORT} -' | /usr/bin/python3 {file}
         curl -sS --max-time 5 http://allowed.example:8080/ >/dev/null && echo fetched",
        zone::ALLOWED
    );
    let rules = ["allowed.example:9999/udp", "allowed.example:8080"];
    for (room, expected) in [("ROUTES=1000", "echo"), ("ROUTES=3", "EPERM")] {
        let report = roaming
            .world
            .agent(policy("roaming", &rules))
            .without("")
            .env("EGRESS_TEST_ROOM", room)
            .run(&["/bin/bash", "-c", &script])?;
        report.ensure_printed(expected)?;
        report.ensure_printed("fetched")?;
        let warned = report
            .events
            .iter()
            .any(|event| event.kind == "warning" && event.line.contains("\"topic\":\"routes\""));
        ensure!(warned == (expected == "EPERM"), "{room}: {report}");
    }
    Ok(())
}

impl Inside {
    fn becomes_kept(&mut self, to: &str, interface: &str, what: &str) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(4) * patience();
        loop {
            let found = self.keep(to, interface)?;
            if found == what {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{to} by {interface}, connected: {found}"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Every next hop of a route may be used, however the route is written, and however many there
/// are. A third interface is none of them.
#[test]
fn every_next_hop_of_the_route_may_be_used() -> Result<()> {
    let roaming = Roaming::new()?;
    let (targets, rules) = targets();
    let both = |command: &str, extra: &str| {
        format!(
            "ip route {command} default metric 1 {extra} \
                 nexthop via 192.0.2.1 dev {FIRST} nexthop via 100.64.7.1 dev {SECOND}
             ip -6 route {command} default metric 1 {extra} \
                 nexthop via 2001:db8:1::1 dev {FIRST} nexthop via 2001:db8:7::1 dev {SECOND}"
        )
    };
    let mut inside = roaming.agent(&rules)?;
    let mut outside = roaming.outside()?;
    for to in &targets {
        inside.is(to, SECOND, "EPERM")?;
        inside.is(to, NOWHERE, "EPERM")?;
        ensure!(
            outside.send(to, NOWHERE)? == "silent",
            "the control: {to} by nowhere"
        );
    }
    let check = |inside: &mut Inside, what: &str| -> Result<()> {
        for to in &targets {
            let by_all = [FIRST, SECOND, "-"];
            inside
                .becomes(to, SECOND, "echo")
                .context(what.to_owned())?;
            for by in by_all {
                inside.is(to, by, "echo").context(what.to_owned())?;
            }
            inside.is(to, NOWHERE, "EPERM").context(what.to_owned())?;
        }
        Ok(())
    };
    roaming.host(&both("add", ""))?;
    check(&mut inside, "two next hops in the route")?;
    roaming.host(&both("del", ""))?;
    for to in &targets {
        inside.becomes(to, SECOND, "EPERM")?;
    }
    // By objects of their own, which the route only names, as routing daemons write them.
    roaming.host(&format!(
        "echo 0 > /proc/sys/net/ipv4/nexthop_compat_mode
         ip nexthop add id 1 via 192.0.2.1 dev {FIRST}
         ip nexthop add id 2 via 100.64.7.1 dev {SECOND}
         ip nexthop add id 3 via 2001:db8:1::1 dev {FIRST}
         ip nexthop add id 4 via 2001:db8:7::1 dev {SECOND}
         ip nexthop add id 10 group 1/2
         ip nexthop add id 11 group 3/4
         ip route add default metric 1 nhid 10
         ip -6 route add default metric 1 nhid 11"
    ))?;
    check(&mut inside, "a group of next hops")?;
    // The route stays as it is, and its object changes.
    roaming.host("ip nexthop replace id 10 group 1\nip nexthop replace id 11 group 3")?;
    for to in &targets {
        inside.becomes(to, SECOND, "EPERM")?;
        inside.is(to, FIRST, "echo")?;
    }
    Ok(())
}

/// Rules that send one user elsewhere count for the connector's user, and not for root, who
/// asks.
#[test]
fn routing_by_user_is_that_of_the_connectors_user() -> Result<()> {
    let roaming = Roaming::new()?;
    let (targets, rules) = targets();
    roaming.host(&format!(
        "ip route add default via 100.64.7.1 dev {SECOND} table 77
         ip -6 route add default via 2001:db8:7::1 dev {SECOND} table 77"
    ))?;
    let mut inside = roaming.agent(&rules)?;
    let mut outside = roaming.outside()?;
    for to in &targets {
        inside.is(to, SECOND, "EPERM")?;
    }
    for (other, here, there) in [(USER, SECOND, FIRST), (USER - 1, FIRST, SECOND)] {
        let rule = |verb: &str| {
            format!(
                "ip rule {verb} uidrange {other}-{other} lookup 77
                 ip -6 rule {verb} uidrange {other}-{other} lookup 77"
            )
        };
        roaming.host(&rule("add"))?;
        for to in &targets {
            inside.follows(to)?;
            inside.becomes(to, there, "EPERM")?;
            inside.is(to, here, "echo")?;
            ensure!(outside.send(to, "-")? == "echo", "the control: {to}");
            ensure!(
                outside.send(to, there)? == "echo",
                "the control: {to} by {there}"
            );
        }
        roaming.host(&rule("del"))?;
    }
    Ok(())
}

/// A VPN for some addresses, and one for all by rules of its own, as wg-quick(8) makes them: it
/// comes and goes while the connector runs.
#[test]
fn a_vpn_comes_and_goes() -> Result<()> {
    let roaming = Roaming::new()?;
    let (targets, rules) = targets();
    let mut inside = roaming.agent(&rules)?;
    let mut outside = roaming.outside()?;
    for (what, up) in [
        (
            "single addresses",
            targets
                .iter()
                .map(|to| {
                    let via = if to.contains(':') {
                        "2001:db8:9::1"
                    } else {
                        "100.64.9.1"
                    };
                    format!("ip route add {to} via {via} dev vpn0\n")
                })
                .collect::<String>(),
        ),
        (
            "everything",
            "ip route add default via 100.64.9.1 dev vpn0 table 51820
             ip -6 route add default via 2001:db8:9::1 dev vpn0 table 51820
             for family in -4 -6; do
                 ip $family rule add not fwmark 51820 lookup 51820
                 ip $family rule add lookup main suppress_prefixlength 0
             done"
                .to_owned(),
        ),
    ] {
        for round in 0..2 {
            let told = || format!("{what}, round {round}");
            roaming.wire("vpn0", "100.64.9", "2001:db8:9:")?;
            roaming.host("ip -6 route add default via 2001:db8:9::1 dev vpn0 metric 5000")?;
            for to in &targets {
                inside.is(to, "vpn0", "EPERM").with_context(told)?;
            }
            roaming.host(&up)?;
            for to in &targets {
                inside.becomes(to, FIRST, "EPERM").with_context(told)?;
                inside.is(to, "-", "echo").with_context(told)?;
                inside.is(to, "vpn0", "echo").with_context(told)?;
                ensure!(
                    outside.send(to, FIRST)? == "echo",
                    "the control, {}: {to} past the VPN",
                    told()
                );
            }
            roaming.host("ip link del vpn0")?;
            for to in &targets {
                inside.follows(to).with_context(told)?;
                inside.becomes(to, FIRST, "echo").with_context(told)?;
            }
            if what == "everything" {
                roaming.host(
                    "for family in -4 -6; do
                         ip $family rule del not fwmark 51820 lookup 51820
                         ip $family rule del lookup main suppress_prefixlength 0
                     done",
                )?;
            }
        }
    }
    Ok(())
}

/// This host's own addresses are reached by loopback, also one that came a moment ago. On a wire
/// anybody could claim them.
#[test]
fn own_addresses_are_reached_by_loopback_alone() -> Result<()> {
    const SERVER: &str = "import socket,sys
s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_V6ONLY,0)
s.bind(('::',9999)); print('ready',flush=True)
s.setsockopt(socket.IPPROTO_IPV6,49,1)
s.setsockopt(socket.IPPROTO_IP,8,1)
while True:
    d,a,_,f=s.recvmsg(2000,256)
    s.sendmsg([d],[x for x in a if x[0]==socket.IPPROTO_IPV6],0,f)
";
    let roaming = Roaming::new()?;
    let mut server = roaming.world.command("/usr/bin/python3");
    server.args(["-c", SERVER]).stdout(Stdio::piped());
    let mut server = server.spawn()?;
    let mut ready = String::new();
    BufReader::new(server.stdout.take().context("no output")?).read_line(&mut ready)?;
    let _server = Ended(server);
    let (v4, v6) = (zone::HOST.to_string(), zone::HOST6.to_string());
    let (late4, late6) = ("100.64.7.99", "2001:db8:7::99");
    let rules = [&v4, late4].map(|ip| format!("'{ip}:9999/udp'"));
    let rules6 = [&v6, late6].map(|ip| format!("'[{ip}]:9999/udp'"));
    let rules: Vec<&str> = rules.iter().chain(&rules6).map(String::as_str).collect();
    let mut outside = roaming.outside()?;
    let mut inside = roaming.agent(&rules)?;
    for (own, late) in [(v4.as_str(), late4), (&v6, late6)] {
        ensure!(outside.send(own, "-")? == "echo", "the control: {own}");
        inside.is(own, "-", "echo")?;
        // Nobody has it yet: the route is the wire's.
        ensure!(inside.send(late, "-")? != "EPERM", "{late}");
        let bits = if own.contains(':') { "128 nodad" } else { "32" };
        roaming.host(&format!("ip address add {late}/{bits} dev {SECOND}"))?;
        inside.follows(late)?;
    }
    // IPv4 takes an interface that does not have the address for a wire to somebody else.
    ensure!(
        outside.send(&v4, NOWHERE)? == "silent",
        "the control: it leaves"
    );
    inside.is(&v4, NOWHERE, "EPERM")?;
    Ok(())
}

/// Without a route nobody sends, and a program that names an interface does not get round that.
#[test]
fn without_a_route_no_interface_is_the_right_one() -> Result<()> {
    let roaming = Roaming::new()?;
    let (targets, rules) = targets();
    let mut inside = roaming.agent(&rules)?;
    let mut outside = roaming.outside()?;
    roaming.host(
        "while ip route del default; do :; done 2>/dev/null
         while ip -6 route del default; do :; done 2>/dev/null",
    )?;
    for to in targets.iter().filter(|to| !to.contains(':')) {
        ensure!(outside.send(to, "-")? == "ENETUNREACH", "the control: {to}");
        ensure!(
            outside.send(to, SECOND)? == "echo",
            "the control: {to} on the wire"
        );
        inside.becomes(to, FIRST, "EPERM")?;
        inside.is(to, SECOND, "EPERM")?;
        inside.is(to, "-", "ENETUNREACH")?;
    }
    // IPv6 needs a route for an interface that is named, too.
    for to in targets.iter().filter(|to| to.contains(':')) {
        inside.is(to, "-", "ENETUNREACH")?;
        inside.is(to, SECOND, "ENETUNREACH")?;
    }
    Ok(())
}

/// Changes that come faster than they can be told, and all at once.
#[test]
fn many_changes_at_once_are_followed() -> Result<()> {
    let roaming = Roaming::new()?;
    let (targets, rules) = targets();
    let mut inside = roaming.agent(&rules)?;
    // More than the socket for changes holds (net.core.rmem_default): some are lost.
    let batch: String = (0..4000)
        .map(|n| {
            format!(
                "route add 10.{}.{}.0/24 via 192.0.2.1\n",
                100 + n / 250,
                n % 250
            )
        })
        .chain([
            format!("route replace default via 100.64.7.1 dev {SECOND} metric 1\n"),
            format!("-6 route replace default via 2001:db8:7::1 dev {SECOND} metric 1\n"),
        ])
        .collect();
    let file = roaming.world.path("batch");
    std::fs::write(&file, batch.replace("-6 ", ""))?;
    roaming.host(&format!("ip -batch {}", file.display()))?;
    let end = Instant::now() + Duration::from_secs(10) * patience();
    for to in &targets {
        while inside.send(to, "-")? != "echo" {
            ensure!(Instant::now() < end, "{to} is not followed");
        }
        inside.becomes(to, FIRST, "EPERM")?;
    }
    Ok(())
}
