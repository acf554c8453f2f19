//! Taking connections: the name by the address that was called, TLS with a leaf for it, and the
//! conversation.

use std::{io, sync::Arc, time::Duration};

use egress_envelope::judge::Judged;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{interval, sleep, timeout},
};
use tokio_rustls::{
    LazyConfigAcceptor,
    rustls::{
        self, AlertDescription, ServerConfig,
        crypto::ring,
        server::{Acceptor, ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
    server::TlsStream,
};

use super::{
    h1, h2,
    pool::Met,
    relay::{Tcp, buffered},
    shared::{Asked, Shared},
    spec::Said,
    upstream::{Offer, Speaks, plain},
    why::Why,
};

/// Connections at a time; more wait in the listener.
const MAX_FLOWS: usize = 1_024;
/// How often connections to servers that nobody uses are looked for.
const SWEPT_EVERY: Duration = Duration::from_secs(10);
/// How long a program may take for its handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(30);

/// Serves until its task is ended.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(MAX_FLOWS));
    let mut sweeps = interval(SWEPT_EVERY);
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                _ = sweeps.tick() => shared.pool.sweep(),
            }
        };
        match accepted {
            Ok((client, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    carry(client, &shared).await;
                    drop(permit);
                });
            }
            // No descriptor or memory is left, or the client has gone already.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One connection from beginning to end.
async fn carry(client: TcpStream, shared: &Arc<Shared>) {
    let Some(asked) = shared.asked(&client) else {
        // Nobody is led to an address that stands for nothing.
        let _ends_anyway = client.set_zero_linger();
        return;
    };
    plain(&client);
    match shaken(buffered(client), &asked, shared).await {
        Ok((client, met)) => match met.speaks {
            Speaks::Http1 => h1::converse(client, met, &asked, shared).await,
            Speaks::Http2 => h2::converse(client, asked, shared).await,
        },
        Err(Some(why)) => shared.lost(&asked, why),
        // It came and went without a word, as programs do that try whether a port is open.
        Err(None) => {}
    }
}

/// The handshake with the program. `None` in the error: there is nothing to tell.
async fn shaken(
    client: Tcp,
    asked: &Asked,
    shared: &Shared,
) -> Result<(TlsStream<Tcp>, Met), Option<Why>> {
    let slow = |_| Some(Why::Handshake("it took too long".to_owned()));
    let begun = LazyConfigAcceptor::new(Acceptor::default(), client);
    let started = match timeout(HANDSHAKE_WITHIN, begun).await.map_err(slow)? {
        Ok(started) => started,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(None),
        Err(error) => return Err(Some(beginning(&error))),
    };
    let named = started.client_hello().server_name().map(str::to_owned);
    let config = match &named {
        Some(name) if name.eq_ignore_ascii_case(&asked.name) => shared
            .ca
            .config(&asked.name)
            .map_err(|error| Why::NoCertificate(error.to_string())),
        _ => Err(Why::OtherName(named)),
    };
    match config {
        Ok(config) => {
            let met = match offer(&started.client_hello()) {
                Offer::Only(speaks) => Met::only(speaks),
                Offer::Either => {
                    let addresses = shared.addresses(&asked.name);
                    let upstream = &shared.upstream;
                    shared.pool.meet(asked, &addresses, upstream).await
                }
            };
            let shaking = started.into_stream(config.by(met.speaks));
            match timeout(HANDSHAKE_WITHIN, shaking).await.map_err(slow)? {
                Ok(stream) => Ok((stream, met)),
                Err(error) => Err(Some(handshake(&error))),
            }
        }
        Err(why) => {
            if let Ok(nothing) = nothing() {
                // It fails, and says so to the program in TLS' own words.
                let fails = started.into_stream(nothing);
                let _failed = timeout(HANDSHAKE_WITHIN, fails).await;
            }
            Err(Some(why))
        }
    }
}

/// What a program offers. One that offers neither is answered in TLS that there is nothing for it.
fn offer(hello: &ClientHello<'_>) -> Offer {
    let offers = |speaks: Speaks| {
        let mut names = hello.alpn().into_iter().flatten();
        names.any(|name| name == speaks.alpn())
    };
    match (offers(Speaks::Http1), offers(Speaks::Http2)) {
        (true, true) => Offer::Either,
        (false, true) => Offer::Only(Speaks::Http2),
        (_, false) => Offer::Only(Speaks::Http1),
    }
}

impl Shared {
    /// Tells the agent of an operation, once.
    pub(super) fn told(&self, asked: &Asked, judged: &mut Option<Judged>, status: Option<u16>) {
        if let Some(judged) = judged.take() {
            self.tell(Said::Operation {
                name: asked.name.clone(),
                port: asked.port,
                operation: judged.operation,
                refusals: judged.refusals,
                status,
            });
        }
    }

    /// Tells the agent that a connection came to nothing.
    pub(super) fn lost(&self, asked: &Asked, why: Why) {
        self.tell(Said::Lost {
            name: asked.name.clone(),
            port: asked.port,
            why,
        });
    }
}

/// What an error in the program's first message means.
fn beginning(error: &io::Error) -> Why {
    match tls(error) {
        Some(rustls::Error::InvalidMessage(_)) => Why::NotTls,
        Some(other) => Why::Handshake(other.to_string()),
        None => Why::Handshake(error.to_string()),
    }
}

/// What an error later in the handshake means.
fn handshake(error: &io::Error) -> Why {
    match tls(error) {
        Some(rustls::Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::AccessDenied
            | AlertDescription::NoCertificate),
        )) => Why::Distrusted(format!("{alert:?}")),
        Some(rustls::Error::NoApplicationProtocol) => {
            Why::Handshake("the program speaks neither HTTP/1.1 nor HTTP/2".to_owned())
        }
        Some(other) => Why::Handshake(other.to_string()),
        // It went away when it had seen the certificate, without an alert.
        None if error.kind() == io::ErrorKind::UnexpectedEof
            || error.kind() == io::ErrorKind::ConnectionReset =>
        {
            Why::Distrusted("nothing, and ended the connection".to_owned())
        }
        None => Why::Handshake(error.to_string()),
    }
}

fn tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Speaks for no name.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

fn nothing() -> Result<Arc<ServerConfig>, rustls::Error> {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Nobody));
    Ok(Arc::new(config))
}
