//! Loopback is closed but for what the connector itself listens on: local helpers, OAuth
//! call-backs and debuggers keep working.

use anyhow::{Result, ensure};
use egress_tests::{agent::policy, world::World};

/// Each line of its output is one round trip to a port of its own.
const ROUND_TRIPS: &str = r"
import socket
for family, host, name in [(socket.AF_INET, '127.0.0.1', 'v4'), (socket.AF_INET6, '::1', 'v6')]:
    with socket.create_server((host, 0), family=family) as server:
        with socket.create_connection(server.getsockname()[:2], 5) as client:
            peer, _ = server.accept()
            client.sendall(b'ping')
            peer.sendall(peer.recv(4) + b'-pong')
            print('tcp', name, client.recv(9).decode())
    receiver = socket.socket(family, socket.SOCK_DGRAM)
    receiver.bind((host, 0))
    receiver.settimeout(5)
    sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.sendto(b'unconnected', receiver.getsockname())
    print('udp', name, receiver.recv(20).decode())
    sender.connect(receiver.getsockname())
    sender.send(b'connected')
    print('udp', name, receiver.recv(20).decode())
";

#[test]
fn a_connector_reaches_what_it_listens_on() -> Result<()> {
    let world = World::new()?;
    let agent = world.agent(policy("listener", &[]));
    let report = agent.run(&["/usr/bin/python3", "-c", ROUND_TRIPS])?;
    for family in ["v4", "v6"] {
        for line in [
            format!("tcp {family} ping-pong"),
            format!("udp {family} unconnected"),
            format!("udp {family} connected"),
        ] {
            report.ensure_printed(&line)?;
        }
    }
    report.ensure_nothing_denied()
}

#[test]
fn a_port_of_somebody_else_stays_closed() -> Result<()> {
    let world = World::new()?;
    // The port is taken by a program outside; the connector finds it refused, not closed.
    let mut outside = world.command("/usr/bin/python3");
    let serve = "import socket,time; s=socket.create_server(('127.0.0.1',18181)); print('up',flush=True); time.sleep(60)";
    outside.args(["-c", serve]);
    let outside = egress_tests::process::Running::start(outside, egress_tests::agent::LIMIT)?;
    while outside.stdout().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let script = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 18181)))";
    let report = world
        .agent(policy("listener", &[]))
        .run(&["/usr/bin/python3", "-c", script])?;
    ensure!(report.text().trim() == "1", "not EPERM: {report}");
    Ok(())
}
