//! Name servers of many kinds, and the host's files: real sockets on loopback.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Edns, Message, OpCode, ResponseCode},
    rr::RecordType,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

use super::stub::{a, aaaa, cname, wire_name};
use crate::{
    dns::{
        exchange::Question,
        files::Files,
        news::News,
        resolv_conf::Options,
        servers::Servers,
        upstream::{Reply, Upstream, UpstreamError},
        verdict::{Family, Wanted},
    },
    policy::{model::DnsSettings, name::Name, server::Server},
};

const NAME: &str = "git.corp.example";
const INSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);

/// What a server does with a question: messages to send, in order.
type Answers = dyn Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync;

/// A server that does as it is told.
struct Script {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<Message>>>,
    _tasks: JoinSet<()>,
}

impl Script {
    async fn start(
        delay: Duration,
        answers: impl Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, Arc::new(udp));
            }
        };
        let addr = udp.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answers: Arc<Answers> = Arc::new(answers);
        let mut tasks = JoinSet::new();
        let (seen, told) = (asked.clone(), answers.clone());
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            let mut pending = JoinSet::new();
            loop {
                // An answer to who is gone comes back as an error.
                let Ok((length, client)) = udp.recv_from(&mut buffer).await else {
                    continue;
                };
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let answers = told(&query, false);
                seen.lock().unwrap().push(query);
                let udp = udp.clone();
                pending.spawn(async move {
                    tokio::time::sleep(delay).await;
                    for answer in answers {
                        udp.send_to(&answer, client).await.unwrap();
                    }
                });
            }
        });
        let seen = asked.clone();
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let length = stream.read_u16().await.unwrap();
                let mut query = vec![0; usize::from(length)];
                stream.read_exact(&mut query).await.unwrap();
                let query = Message::from_vec(&query).unwrap();
                for answer in answers(&query, true) {
                    stream
                        .write_u16(answer.len().try_into().unwrap())
                        .await
                        .unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
                seen.lock().unwrap().push(query);
            }
        });
        Self {
            addr,
            asked,
            _tasks: tasks,
        }
    }

    /// Answers every question for A records with one address.
    async fn of(delay: Duration, address: Ipv4Addr) -> Self {
        Self::start(delay, move |query, _| vec![good(query, address)]).await
    }

    /// Answers every question with a code.
    async fn code(code: ResponseCode) -> Self {
        Self::start(Duration::ZERO, move |query, _| {
            let mut answer = response(query);
            answer.metadata.response_code = code;
            vec![answer.to_vec().unwrap()]
        })
        .await
    }

    async fn silent() -> Self {
        Self::start(Duration::ZERO, |_, _| Vec::new()).await
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn response(query: &Message) -> Message {
    let mut answer = Message::response(query.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_queries(query.queries.clone());
    answer
}

fn good(query: &Message, address: Ipv4Addr) -> Vec<u8> {
    let mut answer = response(query);
    if query.queries[0].query_type() == RecordType::A {
        let name = query.queries[0].name().to_ascii();
        answer.add_answer(a(name.trim_end_matches('.'), address, 60));
    }
    answer.to_vec().unwrap()
}

/// An address where nothing listens.
fn refusing() -> SocketAddr {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap()
}

fn servers(list: &[SocketAddr], options: Options) -> Servers {
    let list: Vec<Server> = list.iter().map(|&addr| addr.into()).collect();
    Servers::new(&list, options)
}

/// The first address of the answer, and how long it took.
async fn ask(servers: &Servers) -> (Result<Option<IpAddr>, UpstreamError>, Duration) {
    let question = Question {
        name: wire_name(NAME),
        kind: RecordType::A,
    };
    let start = Instant::now();
    let answer = servers.ask(&question).await;
    let address = answer.map(|answer| {
        let first = answer.answers.first();
        first.and_then(|record| record.data.ip_addr())
    });
    (address, start.elapsed())
}

#[track_caller]
fn is(answer: &Result<Option<IpAddr>, UpstreamError>, address: Ipv4Addr) {
    assert_eq!(*answer.as_ref().unwrap(), Some(IpAddr::V4(address)));
}

const SOON: Duration = Duration::from_millis(500);

#[tokio::test]
async fn the_first_server_counts_however_quick_the_second_is() {
    let first = Script::of(Duration::from_millis(300), INSIDE).await;
    let second = Script::of(Duration::ZERO, OUTSIDE).await;
    let both = servers(&[first.addr, second.addr], Options::default());
    for _ in 0..3 {
        is(&ask(&both).await.0, INSIDE);
    }
    let missing = Script::code(ResponseCode::NXDomain).await;
    let both = servers(&[missing.addr, second.addr], Options::default());
    assert_eq!(
        ask(&both).await.0.unwrap(),
        None,
        "its NXDOMAIN counts, too"
    );
    assert_eq!(second.asked(), 0);
}

#[tokio::test]
async fn a_refusal_is_passed_over_at_once() {
    let good = Script::of(Duration::ZERO, INSIDE).await;
    let three = servers(&[refusing(), refusing(), good.addr], Options::default());
    let (answer, took) = ask(&three).await;
    is(&answer, INSIDE);
    assert!(took < SOON, "{took:?}");
    let none = servers(&[refusing(), refusing()], Options::default());
    let (answer, took) = ask(&none).await;
    assert!(
        matches!(answer, Err(UpstreamError::NoAnswer(_))),
        "{answer:?}"
    );
    assert!(took < SOON, "{took:?}");
}

#[tokio::test]
async fn errors_are_passed_over_as_glibc_does() {
    let good = Script::of(Duration::ZERO, INSIDE).await;
    let lame = Script::start(Duration::ZERO, |query, _| {
        let mut answer = response(query);
        answer.metadata.recursion_available = false;
        vec![answer.to_vec().unwrap()]
    });
    let bare = Script::start(Duration::ZERO, |query, _| {
        let mut answer = Message::response(query.id, OpCode::Query);
        answer.metadata.response_code = ResponseCode::FormErr;
        vec![answer.to_vec().unwrap()]
    });
    for other in [
        Script::code(ResponseCode::ServFail).await,
        Script::code(ResponseCode::Refused).await,
        Script::code(ResponseCode::NotImp).await,
        Script::code(ResponseCode::FormErr).await,
        lame.await,
        bare.await,
    ] {
        let both = servers(&[other.addr, good.addr], Options::default());
        let (answer, took) = ask(&both).await;
        is(&answer, INSIDE);
        assert!(took < SOON, "{took:?}");
        let alone = servers(&[other.addr], Options::default());
        let (answer, took) = ask(&alone).await;
        assert!(
            matches!(answer, Err(UpstreamError::Failed(_))),
            "{answer:?}"
        );
        assert!(took < SOON, "{took:?}");
    }
}

#[tokio::test]
async fn silent_servers_cost_their_share_once_and_a_trip_from_then_on() {
    let (one, two) = (Script::silent().await, Script::silent().await);
    let good = Script::of(Duration::ZERO, INSIDE).await;
    let three = servers(&[one.addr, two.addr, good.addr], Options::default());
    let (answer, took) = ask(&three).await;
    is(&answer, INSIDE);
    assert!(took < Duration::from_millis(4500), "{took:?}");
    assert!(
        took > Duration::from_secs(3),
        "they had their time: {took:?}"
    );
    let (answer, took) = ask(&three).await;
    is(&answer, INSIDE);
    assert!(took < Duration::from_millis(400), "{took:?}");
    let options = Options {
        timeout: Duration::from_secs(1),
        attempts: 1,
        ..Options::default()
    };
    let short = servers(&[one.addr, good.addr], options);
    let (answer, took) = ask(&short).await;
    is(&answer, INSIDE);
    assert!(took < Duration::from_millis(1500), "timeout:1, {took:?}");
    let none = servers(&[one.addr, two.addr], options);
    let (answer, took) = ask(&none).await;
    assert!(
        matches!(answer, Err(UpstreamError::NoAnswer(_))),
        "{answer:?}"
    );
    assert!(took < Duration::from_millis(2500), "{took:?}");
}

/// The first is silent to one question, and its answer to another comes after the second's.
#[tokio::test]
async fn a_server_that_is_back_comes_first_again() {
    let silent = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let now = silent.clone();
    let first = Script::start(Duration::from_millis(200), move |query, _| {
        if now.load(std::sync::atomic::Ordering::SeqCst) {
            return Vec::new();
        }
        vec![good(query, INSIDE)]
    });
    let first = first.await;
    let second = Script::of(Duration::ZERO, OUTSIDE).await;
    let both = servers(&[first.addr, second.addr], Options::default());
    is(&ask(&both).await.0, OUTSIDE);
    silent.store(false, std::sync::atomic::Ordering::SeqCst);
    is(&ask(&both).await.0, OUTSIDE);
    // Its answer comes although nobody waits for it.
    tokio::time::sleep(Duration::from_millis(400)).await;
    is(&ask(&both).await.0, INSIDE);
}

#[tokio::test]
async fn late_answers_and_lost_questions() {
    let late = Script::of(Duration::from_millis(5500), INSIDE).await;
    let alone = servers(&[late.addr], Options::default());
    is(&ask(&alone).await.0, INSIDE);
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let lossy = Script::start(Duration::ZERO, move |query, _| {
        match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Vec::new(),
            _ => vec![good(query, INSIDE)],
        }
    });
    let lossy = lossy.await;
    let second = Script::of(Duration::ZERO, OUTSIDE).await;
    let both = servers(&[lossy.addr, second.addr], Options::default());
    let (answer, took) = ask(&both).await;
    is(&answer, INSIDE);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn rotate_and_use_vc() {
    let (one, two) = (
        Script::of(Duration::ZERO, INSIDE).await,
        Script::of(Duration::ZERO, OUTSIDE).await,
    );
    let options = Options {
        rotate: true,
        ..Options::default()
    };
    let both = servers(&[one.addr, two.addr], options);
    for address in [INSIDE, OUTSIDE, INSIDE] {
        is(&ask(&both).await.0, address);
    }
    let stream = Script::start(Duration::ZERO, |query, tcp| {
        vec![good(query, if tcp { INSIDE } else { OUTSIDE })]
    });
    let stream = stream.await;
    let options = Options {
        use_vc: true,
        ..Options::default()
    };
    is(&ask(&servers(&[stream.addr], options)).await.0, INSIDE);
    assert_eq!(stream.asked(), 1);
}

#[tokio::test]
async fn edns_only_where_it_is_asked_for_and_spoken() {
    let plain = |query: &Message| query.edns.is_none();
    let good_server = Script::of(Duration::ZERO, INSIDE).await;
    is(
        &ask(&servers(&[good_server.addr], Options::default()))
            .await
            .0,
        INSIDE,
    );
    assert!(good_server.asked.lock().unwrap().iter().all(plain));
    let options = Options {
        edns0: true,
        ..Options::default()
    };
    is(&ask(&servers(&[good_server.addr], options)).await.0, INSIDE);
    assert_eq!(
        good_server.asked.lock().unwrap()[1]
            .edns
            .as_ref()
            .map(Edns::max_payload),
        Some(1232)
    );
    for code in [ResponseCode::FormErr, ResponseCode::NotImp] {
        let old = Script::start(Duration::ZERO, move |query, _| {
            if query.edns.is_none() {
                return vec![good(query, INSIDE)];
            }
            let mut answer = response(query);
            answer.metadata.response_code = code;
            vec![answer.to_vec().unwrap()]
        });
        let old = old.await;
        let one = servers(&[old.addr], options);
        for _ in 0..2 {
            let (answer, took) = ask(&one).await;
            is(&answer, INSIDE);
            assert!(took < SOON, "{took:?}");
        }
        assert_eq!(old.asked(), 3, "it is remembered");
    }
    let deaf = Script::start(Duration::ZERO, |query, _| {
        let spoken = query.edns.is_none();
        spoken.then(|| good(query, INSIDE)).into_iter().collect()
    });
    let deaf = deaf.await;
    let one = servers(&[deaf.addr], options);
    is(&ask(&one).await.0, INSIDE);
    let (answer, took) = ask(&one).await;
    is(&answer, INSIDE);
    assert!(took < SOON, "it is remembered: {took:?}");
}

#[tokio::test]
async fn what_does_not_fit_comes_over_tcp() {
    let cut = Script::start(Duration::ZERO, |query, tcp| {
        if tcp {
            return vec![good(query, INSIDE)];
        }
        let mut answer = response(query);
        answer.metadata.truncation = true;
        vec![answer.to_vec().unwrap()]
    });
    is(
        &ask(&servers(&[cut.await.addr], Options::default())).await.0,
        INSIDE,
    );
}

/// None of these is an answer to the question; the one behind them is.
#[tokio::test]
async fn answers_to_other_questions_are_passed_over() {
    let liar = Script::start(Duration::ZERO, |query, _| {
        let mut number = query.clone();
        number.metadata.id = query.id.wrapping_add(1);
        let mut name = query.clone();
        name.queries[0].set_name(wire_name("stranger.example"));
        let mut kind = query.clone();
        kind.queries[0].set_query_type(RecordType::TXT);
        let mut twice = query.clone();
        twice.add_query(query.queries[0].clone());
        let mut question = good(query, OUTSIDE);
        question[2] &= 0x7f;
        let bad = [number, name, kind, twice].map(|query| good(&query, OUTSIDE));
        let mut all: Vec<Vec<u8>> = bad.into();
        all.push(question);
        all.push(vec![0; 5]);
        all.push(good(query, INSIDE));
        all
    });
    let liar = liar.await;
    let (answer, took) = ask(&servers(&[liar.addr], Options::default())).await;
    is(&answer, INSIDE);
    assert!(took < SOON, "{took:?}");
}

/// Somebody else's datagram to the port of a question is not heard.
#[tokio::test]
async fn answers_from_other_addresses_are_not_heard() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = server.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, client) = server.recv_from(&mut buffer).await.unwrap();
        let query = Message::from_vec(&buffer[..length]).unwrap();
        tell.send((client, query.clone())).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.send_to(&good(&query, INSIDE), client).await.unwrap();
    });
    let spoofing = tokio::spawn(async move {
        let (client, query) = told.recv().await.unwrap();
        let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        other.send_to(&good(&query, OUTSIDE), client).await.unwrap();
    });
    is(&ask(&servers(&[addr], Options::default())).await.0, INSIDE);
    serving.await.unwrap();
    spoofing.await.unwrap();
}

#[tokio::test]
async fn numbers_and_ports_are_hard_to_guess() {
    let ports = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = server.local_addr().unwrap();
    let seen = ports.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, client) = server.recv_from(&mut buffer).await.unwrap();
            let query = Message::from_vec(&buffer[..length]).unwrap();
            seen.lock().unwrap().insert((client.port(), query.id));
            server.send_to(&good(&query, INSIDE), client).await.unwrap();
        }
    });
    let one = servers(&[addr], Options::default());
    for _ in 0..32 {
        is(&ask(&one).await.0, INSIDE);
    }
    let seen = ports.lock().unwrap();
    let distinct = |numbers: Vec<u16>| {
        numbers
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    assert!(
        distinct(seen.iter().map(|(port, _)| *port).collect()) > 24,
        "{seen:?}"
    );
    assert!(
        distinct(seen.iter().map(|(_, id)| *id).collect()) > 24,
        "{seen:?}"
    );
}

struct Host {
    folder: tempfile::TempDir,
    upstream: Upstream,
    news: Arc<News>,
}

impl Host {
    fn new(settings: &DnsSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let files = Arc::new(Files::at(at("resolv.conf"), at("hosts"), u32::MAX));
        let news = Arc::new(News::default());
        Self {
            upstream: Upstream::new(settings, files, news.clone()),
            folder,
            news,
        }
    }

    fn hosts(&self, text: &str) {
        // As editors do: another file takes its place.
        let path: PathBuf = self.folder.path().join("hosts.new");
        std::fs::write(&path, text).unwrap();
        std::fs::rename(path, self.folder.path().join("hosts")).unwrap();
    }

    async fn find(&self, name: &str, family: Family) -> Vec<String> {
        let name = Name::parse(name).unwrap();
        match self
            .upstream
            .lookup(&name, Wanted::Addresses(family))
            .await
            .unwrap()
        {
            Reply::Found(found) => found.addresses.iter().map(ToString::to_string).collect(),
            Reply::NoData => Vec::new(),
            Reply::NxDomain => vec!["none".to_owned()],
            Reply::Offers(offers) => panic!("{offers:?}"),
        }
    }
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_is_followed() {
    let server = Script::of(Duration::ZERO, OUTSIDE).await;
    let host = Host::new(&DnsSettings {
        servers: vec![server.addr.into()],
        ..DnsSettings::default()
    });
    assert_eq!(host.find(NAME, Family::V4).await, ["198.51.100.99"]);
    host.hosts("203.0.113.10 git.corp.example git\n");
    assert_eq!(host.find(NAME, Family::V4).await, ["203.0.113.10"]);
    assert_eq!(host.find(NAME, Family::V6).await, Vec::<String>::new());
    host.hosts("203.0.113.11 git.corp.example git\n");
    assert_eq!(host.find(NAME, Family::V4).await, ["203.0.113.11"]);
    host.hosts("");
    assert_eq!(host.find(NAME, Family::V4).await, ["198.51.100.99"]);
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn domains_have_their_own_servers() {
    let general = Script::of(Duration::ZERO, OUTSIDE).await;
    let corp = Script::of(Duration::ZERO, INSIDE).await;
    let lab = Script::code(ResponseCode::NXDomain).await;
    let name = |text: &str| Name::parse(text).unwrap();
    let host = Host::new(&DnsSettings {
        servers: vec![general.addr.into()],
        domains: [
            (name("corp.example"), vec![corp.addr.into()]),
            (name("lab.corp.example"), vec![lab.addr.into()]),
        ]
        .into(),
        ..DnsSettings::default()
    });
    for (asked, answer) in [
        ("git.corp.example", "203.0.113.10"),
        ("corp.example", "203.0.113.10"),
        ("a.b.corp.example", "203.0.113.10"),
        ("x.lab.corp.example", "none"),
        ("notcorp.example", "198.51.100.99"),
        ("corp.example.com", "198.51.100.99"),
    ] {
        assert_eq!(host.find(asked, Family::V4).await, [answer], "{asked}");
    }
}

#[tokio::test]
async fn the_networks_own_translation_is_asked_for_once() {
    let server = Script::start(Duration::ZERO, |query, _| {
        let mut answer = response(query);
        let name = query.queries[0].name().to_ascii();
        let name = name.trim_end_matches('.');
        let v4 = if name == "ipv4only.arpa" {
            "c000:aa"
        } else {
            "a00:5"
        };
        let v6 = format!("2001:db8:64::{v4}").parse().unwrap();
        answer.add_answer(aaaa(name, v6, 60));
        vec![answer.to_vec().unwrap()]
    });
    let server = server.await;
    let host = Host::new(&DnsSettings {
        servers: vec![server.addr.into()],
        ..DnsSettings::default()
    });
    let name = Name::parse(NAME).unwrap();
    for _ in 0..2 {
        let Reply::Found(found) = host
            .upstream
            .lookup(&name, Wanted::Addresses(Family::V6))
            .await
            .unwrap()
        else {
            panic!("not found");
        };
        let told: Vec<String> = found.nat64.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["2001:db8:64::/96"]);
    }
    assert_eq!(server.asked(), 3);
}

#[tokio::test]
async fn aliases_that_lead_in_a_circle_end() {
    let server = Script::start(Duration::ZERO, |query, _| {
        let mut answer = response(query);
        let name = query.queries[0].name().to_ascii();
        let name = name.trim_end_matches('.');
        let other = if name == NAME { "other.example" } else { NAME };
        answer.add_answer(cname(name, other, 60));
        vec![answer.to_vec().unwrap()]
    });
    let server = server.await;
    let host = Host::new(&DnsSettings {
        servers: vec![server.addr.into()],
        ..DnsSettings::default()
    });
    assert_eq!(host.find(NAME, Family::V4).await, Vec::<String>::new());
    assert!(server.asked() <= 9, "{}", server.asked());
}

#[tokio::test]
async fn dead_servers_are_told_once() {
    let host = Host::new(&DnsSettings {
        servers: vec![refusing().into()],
        ..DnsSettings::default()
    });
    let name = Name::parse(NAME).unwrap();
    for _ in 0..5 {
        assert!(
            host.upstream
                .lookup(&name, Wanted::Addresses(Family::V4))
                .await
                .is_err()
        );
    }
    let line = host.news.line().await;
    assert!(
        line.contains("the DNS servers of the policy do not answer"),
        "{line}"
    );
    let more = tokio::time::timeout(Duration::from_millis(100), host.news.line());
    assert!(more.await.is_err());
}
