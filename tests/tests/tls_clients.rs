//! TLS clients as they are reach the declared name and no other name behind its address: there
//! nothing of theirs arrives, and they are told at once.

use anyhow::{Result, ensure};
use egress_tests::{
    agent::{Agent, policy},
    attempts::{Attempt, Attempts},
    event::{Denial, Event},
    kernel,
    process::patience,
    programs,
    protocol::Connection,
    token,
    world::World,
    zone,
};

/// "At once": no time-out of any client is this short, and slow ones start in it.
const AT_ONCE_MS: u64 = 3000;
const ALLOW: [&str; 1] = ["allowed.example:443"];
const DECLARED: &str = "allowed.example";
const STRANGER: &str = "stranger.example";

/// What a client negotiates with the declared name.
#[derive(Default)]
struct Expected {
    version: &'static str,
    alpn: &'static str,
    retried: bool,
}

const TLS13: Expected = Expected {
    version: "1.3",
    alpn: "",
    retried: false,
};

/// A client: a line of shell that fetches `https://$1/$2`.
struct Client {
    line: &'static str,
    expected: Expected,
}

/// Every client that is a program of its own: one shell, one start of the agent.
fn reach_only_the_declared_name(clients: &[(&str, Client)]) -> Result<()> {
    let world = World::new()?;
    world.set_hosts(&format!(
        "127.0.0.1 localhost\n::1 localhost\n{} {STRANGER}\n",
        zone::ALLOWED
    ))?;
    let tokens: Vec<[String; 3]> = clients
        .iter()
        .map(|_| [token::new(), token::new(), token::new()])
        .collect();
    let labels: Vec<[String; 3]> = clients
        .iter()
        .map(|(name, _)| ["control", "stranger", "again"].map(|what| format!("{name}: {what}")))
        .collect();
    let mut commands = Vec::new();
    for (index, (_, client)) in clients.iter().enumerate() {
        for (try_, host) in [DECLARED, STRANGER, DECLARED].iter().enumerate() {
            let words = [
                "/bin/bash",
                "-c",
                client.line,
                "client",
                host,
                &tokens[index][try_],
            ];
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            commands.push((labels[index][try_].as_str(), words));
        }
    }
    let attempts = world.agent(policy("clients", &ALLOW)).attempts(&commands)?;
    world.fence()?;
    let mut connections = world.connections(zone::ALLOWED)?;
    connections.extend(world.connections(zone::ALLOWED6)?);
    keep_hellos(clients[0].0, &connections)?;
    for (index, (name, client)) in clients.iter().enumerate() {
        let [control, stranger, again] = &labels[index];
        for label in [control, again] {
            let attempt = attempts.get(label)?;
            ensure!(
                attempt.code == 0 && attempt.output.contains("\"ok\":true"),
                "{}",
                explain(label, &attempts)
            );
        }
        refused(attempts.get(stranger)?, &attempts)?;
        for (token, arrives) in tokens[index].iter().zip([true, false, true]) {
            let places = world.sightings(token)?;
            ensure!(
                places.is_empty() != arrives,
                "{name}: {token} at {places:?}"
            );
        }
        let expected = &client.expected;
        let as_expected = |one: &&Connection| {
            one.sni.as_deref() == Some(DECLARED)
                && one.version == expected.version
                && one.alpn == expected.alpn
                && one.retried == expected.retried
        };
        let found = connections.iter().filter(as_expected).count();
        ensure!(
            found >= 2,
            "{name}: not what it negotiates: {:?}",
            connections.iter().map(brief).collect::<Vec<_>>()
        );
    }
    nothing_arrived_for_the_stranger(&connections)?;
    one_denial_each(&attempts, clients.len())
}

/// Into the folder that `EGRESS_TEST_HELLOS` names, the first record of each connection: so the
/// files in `corpus/hello` were made.
fn keep_hellos(name: &str, connections: &[Connection]) -> Result<()> {
    let Some(folder) = std::env::var_os("EGRESS_TEST_HELLOS") else {
        return Ok(());
    };
    for (index, one) in connections.iter().enumerate() {
        if let [_, _, _, high, low, ..] = one.first[..] {
            let length = 5 + usize::from(u16::from_be_bytes([high, low]));
            let file = format!("{}-{index}", name.replace(['/', ' '], "-"));
            let record = &one.first[..length.min(one.first.len())];
            std::fs::write(std::path::Path::new(&folder).join(file), record)?;
        }
    }
    Ok(())
}

/// The program was told, soon, and not by a time-out of its own.
fn refused(attempt: &Attempt, attempts: &Attempts) -> Result<()> {
    ensure!(
        attempt.code != 0 && !attempt.output.contains("\"ok\":true"),
        "{}",
        explain(&attempt.label, attempts)
    );
    ensure!(
        attempt.ms < AT_ONCE_MS * u64::from(patience()),
        "not at once: {}",
        explain(&attempt.label, attempts)
    );
    Ok(())
}

/// Connections may stand; not one octet came on them but under the declared name.
fn nothing_arrived_for_the_stranger(connections: &[Connection]) -> Result<()> {
    for one in connections {
        ensure!(
            one.received == 0 || one.sni.as_deref() == Some(DECLARED),
            "the server got {}",
            brief(one)
        );
    }
    Ok(())
}

fn stranger() -> Denial {
    Denial {
        name: Some(STRANGER.to_owned()),
        ..Denial::default()
    }
    .by(&["sni"])
    .because(&["sni-stranger"])
    .port(443)
}

/// One event for each connection that was refused. Clients that try again have more.
fn one_denial_each(attempts: &Attempts, clients: usize) -> Result<()> {
    let mut denied = attempts.report.denials();
    // Some releases of node try it at their start and do without.
    let tried = Denial::default().by(&["seccomp"]).because(&["io-uring"]);
    denied.retain(|event| !tried.fits(event));
    let ours: Vec<&&Event> = denied
        .iter()
        .filter(|event| stranger().fits(event))
        .collect();
    let count: u64 = ours.iter().map(|event| event.count.unwrap_or(1)).sum();
    ensure!(
        count >= clients as u64 && ours.len() == denied.len(),
        "{count} denials of {clients} clients: {}",
        attempts.report
    );
    Ok(())
}

fn brief(one: &Connection) -> String {
    format!(
        "{} octets, name {:?}, TLS {}, {}, resumed {}, retried {}, {:?}",
        one.received, one.sni, one.version, one.alpn, one.resumed, one.retried, one.fault
    )
}

fn explain(label: &str, attempts: &Attempts) -> String {
    format!("{label}: {:?}\n{}", attempts.get(label), attempts.report)
}

/// A request by hand, for clients that only carry octets.
macro_rules! by_hand {
    ($command:literal) => {
        concat!(
            "printf 'GET /%s HTTP/1.1\\r\\nhost: %s\\r\\nconnection: close\\r\\n\\r\\n' \"$2\" \"$1\" | ",
            $command
        )
    };
}

#[test]
fn curl() -> Result<()> {
    let client = |line, alpn, version| Client {
        line,
        expected: Expected {
            version,
            alpn,
            ..TLS13
        },
    };
    reach_only_the_declared_name(&[
        (
            "http/2",
            client("curl -sS --max-time 10 --http2 https://$1/$2", "h2", "1.3"),
        ),
        (
            "http/1.1",
            client(
                "curl -sS --max-time 10 --http1.1 https://$1/$2",
                "http/1.1",
                "1.3",
            ),
        ),
        (
            "TLS 1.2",
            client(
                "curl -sS --max-time 10 --tls-max 1.2 https://$1/$2",
                "h2",
                "1.2",
            ),
        ),
    ])
}

#[test]
fn openssl() -> Result<()> {
    let client = |line, expected| Client { line, expected };
    reach_only_the_declared_name(&[
        (
            "TLS 1.3",
            client(
                by_hand!(
                    "timeout 10 openssl s_client -quiet -verify_return_error -connect $1:443 -servername $1"
                ),
                TLS13,
            ),
        ),
        (
            "TLS 1.2",
            client(
                by_hand!(
                    "timeout 10 openssl s_client -quiet -tls1_2 -verify_return_error -connect $1:443 -servername $1"
                ),
                Expected {
                    version: "1.2",
                    ..TLS13
                },
            ),
        ),
        (
            "a second hello",
            client(
                by_hand!(
                    "timeout 10 openssl s_client -quiet -groups P-521:P-256 -verify_return_error -connect $1:443 -servername $1"
                ),
                Expected {
                    retried: true,
                    ..TLS13
                },
            ),
        ),
    ])
}

#[test]
fn gnutls() -> Result<()> {
    let client = |line| Client {
        line,
        expected: TLS13,
    };
    reach_only_the_declared_name(&[
        (
            "gnutls-cli",
            client(by_hand!(
                "timeout 10 gnutls-cli --logfile=/dev/null --x509cafile=$SSL_CERT_FILE $1"
            )),
        ),
        (
            "wget",
            client(
                "wget -nv --tries=1 --timeout=10 --ca-certificate=$SSL_CERT_FILE -O - https://$1/$2",
            ),
        ),
    ])
}

#[test]
fn node() -> Result<()> {
    programs::install_node_releases()?;
    let client = |line, alpn| Client {
        line,
        expected: Expected { alpn, ..TLS13 },
    };
    reach_only_the_declared_name(&[
        // OpenSSL 1.1.1
        (
            "16",
            client(
                "$CLIENTS/tls-node/node_modules/node16/bin/node -e \"require('https').get('https://$1/$2', r => r.pipe(process.stdout)).on('error', e => { console.log(e); process.exit(1) })\"",
                "",
            ),
        ),
        // OpenSSL 3.0
        (
            "18",
            client(
                "$CLIENTS/tls-node/node_modules/node18/bin/node -e \"fetch('https://$1/$2').then(r => r.text()).then(t => console.log(t), e => { console.log(e); process.exit(1) })\"",
                "http/1.1",
            ),
        ),
        (
            "of the machine",
            client(
                "node -e \"fetch('https://$1/$2').then(r => r.text()).then(t => console.log(t), e => { console.log(e); process.exit(1) })\"",
                "http/1.1",
            ),
        ),
        // OpenSSL 3.5: a key for ML-KEM makes the hello longer than a segment.
        (
            "24",
            client(
                "$CLIENTS/tls-node/node_modules/node24/bin/node -e \"fetch('https://$1/$2').then(r => r.text()).then(t => console.log(t), e => { console.log(e); process.exit(1) })\"",
                "http/1.1",
            ),
        ),
    ])
}

#[test]
fn python() -> Result<()> {
    programs::install_clients()?;
    let client = |line, alpn| Client {
        line,
        expected: Expected { alpn, ..TLS13 },
    };
    reach_only_the_declared_name(&[
        (
            "urllib",
            client(
                "/usr/bin/python3 -c \"import urllib.request as r; print(r.urlopen('https://$1/$2', timeout=10).read().decode())\"",
                "http/1.1",
            ),
        ),
        (
            "httpx",
            client(
                "PYTHONPATH=$CLIENTS/python /usr/bin/python3 -c \"import httpx; print(httpx.get('https://$1/$2', timeout=10).text)\"",
                "http/1.1",
            ),
        ),
    ])
}

#[test]
fn go() -> Result<()> {
    programs::build_go_tls_client()?;
    let client = Client {
        line: "$CLIENTS/go-fetch https://$1/$2",
        expected: Expected {
            alpn: "h2",
            ..TLS13
        },
    };
    reach_only_the_declared_name(&[("go", client)])
}

#[test]
fn rustls() -> Result<()> {
    let client = Client {
        line: "$CLIENTS/../bin/probe rustls https://$1/$2",
        expected: TLS13,
    };
    reach_only_the_declared_name(&[("rustls", client)])
}

#[test]
fn java() -> Result<()> {
    programs::build_java_client()?;
    let client = Client {
        line: "java -Xshare:auto -XX:TieredStopAtLevel=1 -cp $CLIENTS/java Fetch https://$1/$2",
        expected: Expected {
            alpn: "h2",
            ..TLS13
        },
    };
    reach_only_the_declared_name(&[("java", client)])
}

#[test]
fn over_ipv6() -> Result<()> {
    let world = World::new()?;
    world.set_hosts(&format!("::1 localhost\n{} {STRANGER}\n", zone::ALLOWED6))?;
    let get = |host: &str| {
        let url = format!("https://{host}/");
        ["curl", "-6", "-sS", "--max-time", "10", &url]
            .map(str::to_owned)
            .to_vec()
    };
    let attempts = world.agent(policy("clients", &ALLOW)).attempts(&[
        ("control", get(DECLARED)),
        ("stranger", get(STRANGER)),
        ("again", get(DECLARED)),
    ])?;
    for label in ["control", "again"] {
        ensure!(
            attempts.get(label)?.code == 0,
            "{}",
            explain(label, &attempts)
        );
    }
    refused(attempts.get("stranger")?, &attempts)?;
    let connections = world.connections(zone::ALLOWED6)?;
    let served = |one: &&Connection| one.version == "1.3";
    ensure!(connections.iter().filter(served).count() == 2);
    nothing_arrived_for_the_stranger(&connections)?;
    one_denial_each(&attempts, 1)
}

/// Under TLS 1.2 a client that resumes speaks first after the server, with
/// `change_cipher_spec` and a handshake record that is encrypted and may look like anything.
#[test]
fn resumed_sessions() -> Result<()> {
    const COUNT: usize = 300;
    let world = World::new()?;
    let script = world.dir().join("resume.py");
    std::fs::write(&script, include_str!("../fixtures/tls/resume.py"))?;
    for (version, resumed) in [("1.2", COUNT - 1), ("1.3", COUNT - 1)] {
        let words = [
            "/usr/bin/python3",
            &script.display().to_string(),
            DECLARED,
            version,
            &COUNT.to_string(),
        ]
        .map(str::to_owned);
        let report = world.agent(policy("clients", &ALLOW)).run(&words)?;
        report.ensure_printed(&format!("ok {resumed}"))?;
        report.ensure_nothing_denied()?;
    }
    Ok(())
}

#[test]
fn many_at_once() -> Result<()> {
    let world = World::new()?;
    let urls = format!("https://{DECLARED}/[1-40]");
    let report = confined(&world).run(&[
        "curl",
        "-sS",
        "--max-time",
        "30",
        "-Z",
        "--no-keepalive",
        "--http1.1",
        "--parallel-max",
        "20",
        &urls,
    ])?;
    report.ensure_printed("\"ok\":true")?;
    let answers = report.text().matches("\"ok\":true").count();
    ensure!(answers == 40, "{answers} of 40: {report}");
    report.ensure_nothing_denied()
}

/// A server that takes small segments, and one with a window of which the hello makes two
/// packets. Where no hello fits into the window none is let go, and the reason says so. Before
/// Linux 6.10 two packets that were held back are not put together again, so no hello fits into
/// the first window either.
#[test]
fn servers_that_take_little_at_a_time() -> Result<()> {
    let world = World::new()?;
    let names = [
        "small-mss.example",
        "small-window.example",
        "tiny-window.example",
    ];
    let allow = names.map(|name| format!("{name}:443"));
    let tries = names.map(|name| {
        let url = format!("https://{name}/");
        let words = ["curl", "-sS", "--max-time", "20", &url].map(str::to_owned);
        (name, words.to_vec())
    });
    let attempts = world
        .agent(policy("clients", &allow.each_ref().map(String::as_str)))
        .attempts(&tries)?;
    let [small, tight, tiny] = names;
    let (mut pass, mut refused) = (vec![small], vec![(tiny, zone::TINY)]);
    if kernel::is_before((6, 10)) {
        refused.push((tight, zone::TIGHT));
    } else {
        pass.push(tight);
    }
    for label in pass {
        ensure!(
            attempts.get(label)?.code == 0,
            "{}",
            explain(label, &attempts)
        );
    }
    world.fence()?;
    for (label, address) in &refused {
        ensure!(
            attempts.get(label)?.code != 0,
            "{}",
            explain(label, &attempts)
        );
        let denial = Denial::of_address(*address).by(&["sni"]);
        attempts
            .report
            .ensure_denied(&denial.because(&["sni-incomplete"]))?;
        for one in world.connections(*address)? {
            ensure!(one.received == 0, "{}", brief(&one));
        }
    }
    let denied = attempts.report.denials().len();
    ensure!(denied == refused.len(), "{}", attempts.report);
    Ok(())
}

fn confined(world: &World) -> Agent<'_> {
    world.agent(policy("clients", &ALLOW))
}
