//! The proxy over loopback: a real TLS server behind it, and clients in front.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use egress_envelope::judge::Inspect;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};

use crate::envelope::{serve::serve, shared::Shared, spec::Said, why::Why};

/// The name that is inspected.
pub(super) const NAME: &str = "api.mail.example";
/// The address that stands for it.
const CALLED: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);
/// Where it really is.
pub(super) const REAL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
pub(super) const SOON: Duration = Duration::from_secs(20);

/// What a server does with one connection.
pub(super) type Script = fn(tokio_rustls::server::TlsStream<TcpStream>) -> BoxFuture;
pub(super) type BoxFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// How the server's certificate is.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Certificate {
    Good,
    Expired,
    OtherName,
    Stranger,
    WantsClient,
}

/// A proxy, a server behind it, and what the proxy says.
pub(super) struct World {
    pub(super) shared: Arc<Shared>,
    pub(super) said: mpsc::Receiver<Said>,
    /// What the agent has ordered and nobody has carried out yet: texts of the operator's.
    pub(super) ordered: Arc<Mutex<Vec<String>>>,
    pub(super) called: SocketAddr,
    /// Connections that the server has taken.
    pub(super) taken: Arc<AtomicUsize>,
}

pub(super) fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl World {
    pub(super) async fn new(inspect: Inspect, script: Script) -> Self {
        Self::with(inspect, script, Certificate::Good).await
    }

    pub(super) async fn with(inspect: Inspect, script: Script, certificate: Certificate) -> Self {
        Self::speaking(inspect, script, certificate, &[]).await
    }

    /// `alpn`: what the server speaks, in its order.
    pub(super) async fn speaking(
        inspect: Inspect,
        script: Script,
        certificate: Certificate,
        alpn: &[&str],
    ) -> Self {
        let (host, stranger) = (authority("host"), authority("stranger"));
        let signer = match certificate {
            Certificate::Stranger => &stranger,
            _ => &host,
        };
        let name = match certificate {
            Certificate::OtherName => "elsewhere.example",
            _ => NAME,
        };
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if certificate == Certificate::Expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, signer).unwrap();
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = if certificate == Certificate::WantsClient {
            let mut roots = RootCertStore::empty();
            roots.add(host.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .unwrap();
            config.with_client_cert_verifier(verifier)
        } else {
            config.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = config
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let real = TcpListener::bind((REAL, 0)).await.unwrap();
        let port = real.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = real.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(tls) = acceptor.accept(tcp).await {
                        script(tls).await;
                    }
                });
            }
        });
        let (lines, said) = mpsc::channel(4_096);
        let inspects = HashMap::from([(NAME.to_owned(), inspect)]);
        let (shared, mut settles) = Shared::new((&host.pem(), &[]), inspects, lines).unwrap();
        let shared = Arc::new(shared);
        shared.learn(CALLED, NAME.to_owned());
        shared.is_at(NAME.to_owned(), vec![IpAddr::V4(REAL)]);
        let ordered: Arc<Mutex<Vec<String>>> = Arc::default();
        let (orders, carrying) = (Arc::clone(&ordered), Arc::clone(&shared));
        tokio::spawn(async move {
            while let Some(settle) = settles.recv().await {
                for text in orders.lock().unwrap().drain(..) {
                    carrying.ledger().operator(&text);
                }
                settle.send(()).unwrap();
            }
        });
        let listener = TcpListener::bind((CALLED, port)).await.unwrap();
        tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self {
            shared,
            said,
            ordered,
            called: SocketAddr::from((CALLED, port)),
            taken,
        }
    }

    /// A connection of a client that trusts the proxy and asks for `name`.
    pub(super) async fn client(&self, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let pem = CertificateDer::from_pem_slice(self.shared.ca.pem().as_bytes()).unwrap();
        roots.add(pem).unwrap();
        self.trusting(name, roots).await
    }

    pub(super) async fn trusting(
        &self,
        name: &str,
        roots: RootCertStore,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.offering(name, roots, &[]).await
    }

    /// A connection of a client that trusts the proxy and offers these protocols.
    pub(super) async fn speaks(&self, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let pem = CertificateDer::from_pem_slice(self.shared.ca.pem().as_bytes()).unwrap();
        roots.add(pem).unwrap();
        self.offering(NAME, roots, alpn).await
    }

    async fn offering(
        &self,
        name: &str,
        roots: RootCertStore,
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let tcp = TcpStream::connect(self.called).await?;
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
    }

    /// What the proxy says next.
    pub(super) async fn next(&mut self) -> Said {
        timeout(SOON, self.said.recv()).await.unwrap().unwrap()
    }

    /// Why an operation was refused, counted, and what it was answered.
    pub(super) async fn told(&mut self) -> (usize, Option<u16>) {
        match self.next().await {
            Said::Operation {
                refusals, status, ..
            } => (refusals.len(), status),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn lost(&mut self) -> Why {
        match self.next().await {
            Said::Lost { name, port, why } => {
                assert_eq!((name.as_str(), port), (NAME, self.called.port()));
                why
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Sends bytes and reads until the other side ends.
pub(super) async fn talk(stream: &mut TlsStream<TcpStream>, bytes: &str) -> String {
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(answer).unwrap()
}

/// Answers every request with what it received, until the client ends.
pub(super) fn echo(mut tls: tokio_rustls::server::TlsStream<TcpStream>) -> BoxFuture {
    Box::pin(async move {
        while let Some(request) = request(&mut tls).await {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                request.len()
            );
            let whole = [head.into_bytes(), request].concat();
            if tls.write_all(&whole).await.is_err() {
                return;
            }
        }
    })
}

/// One request as it arrives; its body has a length or chunks, or there is none.
pub(super) async fn request(
    tls: &mut tokio_rustls::server::TlsStream<TcpStream>,
) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map(|length| length.parse::<usize>().unwrap());
            let chunked = head.contains("transfer-encoding: chunked");
            let whole = match length {
                Some(length) => body.len() >= length,
                None => !chunked || body.ends_with("0\r\n\r\n"),
            };
            if whole {
                return Some(bytes);
            }
        }
        if tls.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A table with one operation that sends mail, and one that does not.
pub(super) fn inspect(mode: &str) -> Inspect {
    serde_json::from_value(serde_json::json!({
        "service": { "service": "mail", "hosts": [NAME], "operations": [
            { "id": "send", "method": "POST", "path": "/email", "body": "json",
              "recipients": { "mail": ["/To", "/Bcc"] } },
            { "id": "upload", "method": "PUT", "path": "/file", "body": "any" },
            { "id": "read", "method": "GET", "path": "/server" },
            { "id": "chat", "method": "POST", "path": "/chat", "body": "any" },
            { "id": "look", "method": "HEAD", "path": "/server" },
        ]},
        "recipients": "from-call",
        "listed": [],
        "unlisted": "refuse",
        "mode": mode,
        "limits": { "body": 4096 },
    }))
    .unwrap()
}

pub(super) fn mail(body: &str) -> String {
    format!(
        "POST /email HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
