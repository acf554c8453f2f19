//! A tiny upstream server on loopback, and what the tests need around a door.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use egress_common::{
    grant::Grant,
    key::{Addr, GrantKey},
};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name as WireName, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    dns::{Carrier, Door, Names, NamesConfig, Refusal, files::Files, lease::Holder},
    grant::{Keeper, Table, TableError},
    policy::{
        model::{DnsSettings, Mode, Policy, PortSpan, Protocols, Rule, Start, Target},
        name::{HostPattern, Name},
    },
};

/// What the stub answers for one name.
#[derive(Clone, Default)]
pub(super) struct Zone {
    pub(super) records: Vec<Record>,
    pub(super) delay: Duration,
    pub(super) truncate_udp: bool,
    pub(super) servfail: bool,
    /// To questions for these records it answers much later than anybody waits.
    pub(super) silent: Option<RecordType>,
}

/// The stub upstream. Names it does not know do not exist.
pub(super) struct Stub {
    pub(super) address: SocketAddr,
    /// Every query as it came: the bytes of its question, and whether over TCP.
    pub(super) seen: Seen,
    zones: Arc<Mutex<HashMap<String, Zone>>>,
    _tasks: JoinSet<()>,
}

impl Stub {
    pub(super) async fn start() -> Self {
        let (tcp, udp, address) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = tcp.local_addr().unwrap();
            if let Ok(udp) = UdpSocket::bind(address).await {
                break (tcp, udp, address);
            }
        };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let zones = Arc::new(Mutex::new(HashMap::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(Arc::new(udp), zones.clone(), seen.clone()));
        tasks.spawn(serve_tcp(tcp, zones.clone(), seen.clone()));
        Self {
            address,
            seen,
            zones,
            _tasks: tasks,
        }
    }

    /// Adds records, each under its own name; all are sent for `name`.
    pub(super) fn zone(&self, name: &str, zone: Zone) {
        self.zones.lock().unwrap().insert(name.to_owned(), zone);
    }

    pub(super) fn a(&self, name: &str, addresses: &[Ipv4Addr]) {
        let records = addresses.iter().map(|&v4| a(name, v4, 60)).collect();
        self.zone(
            name,
            Zone {
                records,
                ..Zone::default()
            },
        );
    }

    pub(super) fn asked(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

pub(super) fn a(name: &str, address: Ipv4Addr, ttl: u32) -> Record {
    Record::from_rdata(wire_name(name), ttl, RData::A(A(address)))
}

pub(super) fn aaaa(name: &str, address: Ipv6Addr, ttl: u32) -> Record {
    Record::from_rdata(wire_name(name), ttl, RData::AAAA(AAAA(address)))
}

pub(super) fn cname(name: &str, target: &str, ttl: u32) -> Record {
    Record::from_rdata(wire_name(name), ttl, RData::CNAME(CNAME(wire_name(target))))
}

pub(super) fn wire_name(name: &str) -> WireName {
    WireName::from_str(&format!("{name}.")).unwrap()
}

type Zones = Arc<Mutex<HashMap<String, Zone>>>;
type Seen = Arc<Mutex<Vec<(Vec<u8>, bool)>>>;

async fn serve_udp(socket: Arc<UdpSocket>, zones: Zones, seen: Seen) {
    let mut buffer = [0; 4096];
    let mut pending = JoinSet::new();
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let query = buffer[..length].to_vec();
        let (socket, zones, seen) = (socket.clone(), zones.clone(), seen.clone());
        pending.spawn(async move {
            let answer = respond(&query, false, &zones, &seen).await;
            socket.send_to(&answer, client).await.unwrap();
        });
    }
}

async fn serve_tcp(listener: TcpListener, zones: Zones, seen: Seen) {
    let mut pending = JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (zones, seen) = (zones.clone(), seen.clone());
        pending.spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut query = vec![0; usize::from(length)];
                stream.read_exact(&mut query).await.unwrap();
                let answer = respond(&query, true, &zones, &seen).await;
                let length = u16::try_from(answer.len()).unwrap();
                stream.write_u16(length).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
    }
}

async fn respond(bytes: &[u8], tcp: bool, zones: &Zones, seen: &Seen) -> Vec<u8> {
    seen.lock().unwrap().push((bytes.to_vec(), tcp));
    let query = Message::from_vec(bytes).unwrap();
    let question = query.queries[0].clone();
    let name = question.name().to_ascii().to_lowercase();
    let zone = zones
        .lock()
        .unwrap()
        .get(name.trim_end_matches('.'))
        .cloned();
    let mut answer = Message::response(query.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_query(question.clone());
    match zone {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(zone) => {
            tokio::time::sleep(zone.delay).await;
            if zone.silent == Some(question.query_type()) {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            if zone.servfail {
                answer.metadata.response_code = ResponseCode::ServFail;
            } else if zone.truncate_udp && !tcp {
                answer.metadata.truncation = true;
            } else {
                let kind = question.query_type();
                answer.add_answers(zone.records.into_iter().filter(|record| {
                    record.record_type() == kind || record.record_type() == RecordType::CNAME
                }));
            }
        }
    }
    answer.to_vec().unwrap()
}

/// A kernel table that remembers, and can be full or slow.
#[derive(Clone, Default)]
pub(super) struct FakeTable {
    pub(super) grants: Arc<Mutex<HashMap<GrantKey, Grant>>>,
    pub(super) puts: Arc<AtomicUsize>,
    pub(super) full: Arc<AtomicBool>,
    pub(super) slow: Arc<AtomicBool>,
}

impl Table for FakeTable {
    fn put(&self, key: &GrantKey, grant: &Grant) -> Result<(), TableError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(TableError::Full);
        }
        if self.slow.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(60));
        }
        self.grants.lock().unwrap().insert(*key, *grant);
        self.puts.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn delete(&self, key: &GrantKey) -> Result<(), TableError> {
        self.grants.lock().unwrap().remove(key);
        Ok(())
    }
}

impl FakeTable {
    pub(super) fn granted(&self, address: Ipv4Addr, port: u16, protocol: u8) -> Option<Grant> {
        let key = GrantKey {
            addr: Addr::from_v4(address.into()),
            connector: CONNECTOR,
            port,
            protocol,
            pad: 0,
        };
        self.grants.lock().unwrap().get(&key).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.grants.lock().unwrap().len()
    }
}

pub(in crate::dns) const CONNECTOR: u32 = 7;

/// Addresses that stand for the host's own, of all tests.
pub(super) static OWN: Mutex<Vec<IpAddr>> = Mutex::new(Vec::new());

pub(super) fn is_own(address: IpAddr) -> bool {
    OWN.lock().unwrap().contains(&address)
}

/// The rules of a policy have the slots from 8 on.
pub(in crate::dns) fn holder(policy: &Policy) -> Holder {
    Holder {
        connector: CONNECTOR,
        slots: (8..).take(policy.allow.len()).collect(),
        named: std::collections::BTreeSet::new(),
    }
}

/// Nanoseconds since the first call; stands for the boot clock.
pub(super) fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_nanos()).unwrap() + 1_000_000_000
}

pub(in crate::dns) fn host(pattern: &str, ports: &[(u16, u16)]) -> Rule {
    let target = match pattern.strip_prefix("*.") {
        Some(parent) => HostPattern::Below(Name::parse(parent).unwrap()),
        None => HostPattern::Exact(Name::parse(pattern).unwrap()),
    };
    rule(pattern, Target::Host(target), ports)
}

pub(in crate::dns) fn cidr(net: &str, ports: &[(u16, u16)]) -> Rule {
    rule(net, Target::Cidr(net.parse().unwrap()), ports)
}

fn rule(id: &str, target: Target, ports: &[(u16, u16)]) -> Rule {
    Rule {
        id: id.to_owned(),
        target,
        ports: ports
            .iter()
            .map(|&(first, last)| PortSpan { first, last })
            .collect(),
        protocols: Protocols {
            tcp: true,
            udp: false,
        },
        why: None,
        private: false,
        lookups_per_minute: crate::policy::model::LOOKUPS_PER_MINUTE,
        tls: false,
        ech: false,
        inspect: None,
    }
}

pub(in crate::dns) fn policy(allow: Vec<Rule>) -> Policy {
    Policy {
        connector: "test".to_owned(),
        mode: Mode::Enforce,
        allow,
        deny: Vec::new(),
        listen: Vec::new(),
        dns: DnsSettings::default(),
        content: None,
        on_violation: egress_envelope::judge::OnViolation::Refuse,
        run: None,
        proxy: crate::policy::proxy::Choice::Caller,
        starters: crate::policy::model::Starters::default(),
        pin: Vec::new(),
        require: Vec::new(),
        start: Start::Lenient,
        source: "test.yaml".into(),
    }
}

/// A served door over a stub upstream.
pub(super) struct Fixture {
    pub(super) stub: Stub,
    pub(super) door: SocketAddr,
    pub(super) names: Arc<Names>,
    pub(super) table: FakeTable,
    pub(super) refusals: mpsc::Receiver<Refusal>,
    pub(super) shutdown: watch::Sender<bool>,
    pub(super) served: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Fixture {
    pub(super) async fn start(policy: Policy) -> Self {
        Self::carried(policy, None).await
    }

    pub(super) async fn carried(mut policy: Policy, carrier: Option<Carrier>) -> Self {
        let stub = Stub::start().await;
        policy.dns.servers = vec![stub.address.into()];
        let table = FakeTable::default();
        let (sender, refusals) = mpsc::channel(8);
        let names = Names::new(NamesConfig {
            holder: holder(&policy),
            policy: Arc::new(policy),
            keeper: Arc::new(Keeper::new(Box::new(table.clone()))),
            now_ns,
            is_own,
            refusals: sender,
            files: Arc::new(Files::at("/dev/null".into(), "/dev/null".into(), u32::MAX)),
            carrier,
        });
        let names = Arc::new(names);
        let door = Door::bind().unwrap();
        let address = door.addresses()[0];
        let (shutdown, stop) = watch::channel(false);
        let served = tokio::spawn(door.serve(names.clone(), stop));
        Self {
            stub,
            door: address,
            names,
            table,
            refusals,
            shutdown,
            served,
        }
    }

    pub(super) async fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.exchange(&query(name, kind)).await
    }

    pub(super) async fn exchange(&self, query: &[u8]) -> Message {
        Message::from_vec(&self.exchange_raw(query).await).unwrap()
    }

    pub(super) async fn exchange_raw(&self, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(self.door).await.unwrap();
        socket.send(query).await.unwrap();
        let mut buffer = vec![0; 4096];
        let received = tokio::time::timeout(Duration::from_secs(14), socket.recv(&mut buffer));
        let length = received.await.expect("no answer").unwrap();
        buffer.truncate(length);
        buffer
    }

    pub(super) async fn refusal(&mut self) -> Refusal {
        let refusal = tokio::time::timeout(Duration::from_secs(5), self.refusals.recv());
        refusal.await.expect("no refusal").unwrap()
    }

    pub(super) async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.door).await.unwrap()
    }
}

pub(super) fn query(name: &str, kind: RecordType) -> Vec<u8> {
    message(name, kind).to_vec().unwrap()
}

pub(super) fn query_edns(name: &str, kind: RecordType, payload: u16) -> Vec<u8> {
    let mut message = message(name, kind);
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message.to_vec().unwrap()
}

fn message(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(wire_name(name), kind));
    message
}

pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(message);
    out
}

pub(super) async fn read_framed(stream: &mut TcpStream) -> Message {
    let length = stream.read_u16().await.unwrap();
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}
