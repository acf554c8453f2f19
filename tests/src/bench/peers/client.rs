//! The worker's side of an errand: connects directly or through an HTTP proxy's tunnel.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::errand::{Errand, Proxy, Way};
use crate::bench::{
    https::BODY,
    job::Done,
    worker::{done, timed},
};

/// No single answer takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Small sends before their echo is waited for.
const TOGETHER: u32 = 8;
/// Longest head of an answer.
const HEAD: usize = 4096;

/// Does it.
pub(in crate::bench) fn work(way: &Way, errand: &Errand) -> Result<Done> {
    let way = &Prepared::new(way)?;
    match *errand {
        Errand::Connect { count } => timed(count, || way.dial().map(drop)),
        Errand::Sends { count, size } => sends(way.dial()?, count, size),
        Errand::Stream { bytes, size } => streamed(way.dial()?, bytes, size),
        Errand::Exchange { count, size } => exchange(way.dial()?, count, size),
        Errand::Handshakes { count } => {
            let config = way.tls()?;
            timed(count, || way.session(&config).map(drop))
        }
        Errand::Gets { count, kept } => gets(way, count, kept),
        Errand::Posts { count, size } => posts(way, count, size),
        Errand::Moves { bytes, up } => moves(way, bytes, up),
    }
}

/// Never more on the way than the first window of a connection holds (RFC 6928), so that no send
/// waits and joins the next.
fn sends(mut stream: TcpStream, count: u32, size: usize) -> Result<Done> {
    let message = vec![b'.'; size];
    let mut echo = vec![0; size * TOGETHER as usize];
    let start = Instant::now();
    for _ in 0..count.div_ceil(TOGETHER) {
        for _ in 0..TOGETHER {
            stream.write_all(&message)?;
        }
        stream.read_exact(&mut echo)?;
    }
    done(start)
}

/// The first eight bytes say how many follow.
fn streamed(mut stream: TcpStream, bytes: u64, size: usize) -> Result<Done> {
    let message = vec![b'.'; size];
    let count = bytes.div_ceil(size as u64);
    stream.write_all(&(count * size as u64).to_be_bytes())?;
    let start = Instant::now();
    for _ in 0..count {
        stream.write_all(&message)?;
    }
    stream.read_exact(&mut [0]).context("not all arrived")?;
    done(start)
}

fn exchange(mut stream: TcpStream, count: u32, size: usize) -> Result<Done> {
    let message = vec![b'.'; size];
    let mut echo = vec![0; size];
    timed(count, || {
        stream.write_all(&message)?;
        Ok(stream.read_exact(&mut echo)?)
    })
}

fn gets(way: &Prepared<'_>, count: u32, kept: bool) -> Result<Done> {
    let config = way.tls()?;
    if kept {
        let mut session = BufReader::new(way.session(&config)?);
        // What a proxy does once for each connection is done before.
        get(&mut session, &way.way.name)?;
        return timed(count, || get(&mut session, &way.way.name));
    }
    timed(count, || {
        get(&mut BufReader::new(way.session(&config)?), &way.way.name)
    })
}

fn posts(way: &Prepared<'_>, count: u32, size: usize) -> Result<Done> {
    let config = way.tls()?;
    let mut session = BufReader::new(way.session(&config)?);
    let name = &way.way.name;
    let text = "How are you? ".repeat(size / 13);
    let body = format!(r#"{{"To":"ann@example.org","Subject":"Hello","TextBody":"{text}"}}"#);
    let length = body.len();
    let request = format!(
        "POST /mail HTTP/1.1\r\nhost: {name}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    ask(&mut session, &request)?;
    timed(count, || ask(&mut session, &request))
}

fn moves(way: &Prepared<'_>, bytes: u64, up: bool) -> Result<Done> {
    let config = way.tls()?;
    let mut session = BufReader::new(way.session(&config)?);
    let name = &way.way.name;
    get(&mut session, name)?;
    let start = Instant::now();
    if up {
        let head =
            format!("PUT /large HTTP/1.1\r\nhost: {name}\r\ncontent-length: {bytes}\r\n\r\n");
        session.get_mut().write_all(head.as_bytes())?;
        io::copy(&mut io::repeat(b'.').take(bytes), session.get_mut())?;
        answer(&mut session)?;
    } else {
        let request = format!("GET /large/{bytes} HTTP/1.1\r\nhost: {name}\r\n\r\n");
        session.get_mut().write_all(request.as_bytes())?;
        let head = head(&mut session)?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        let got = io::copy(&mut session.take(bytes), &mut io::sink())?;
        ensure!(got == bytes, "{got} bytes of {bytes}");
    }
    done(start)
}

fn get(stream: &mut BufReader<Session>, name: &str) -> Result<()> {
    ask(stream, &format!("GET / HTTP/1.1\r\nhost: {name}\r\n\r\n"))
}

fn ask(stream: &mut BufReader<Session>, request: &str) -> Result<()> {
    stream.get_mut().write_all(request.as_bytes())?;
    answer(stream)
}

fn answer(stream: &mut BufReader<Session>) -> Result<()> {
    let head = head(stream)?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut body = [0; BODY];
    Ok(stream.read_exact(&mut body)?)
}

/// Lines up to the empty one.
fn head(stream: &mut impl BufRead) -> Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        ensure!(head.len() < HEAD, "no end: {head}");
        let length = stream.read_line(&mut head)?;
        ensure!(length > 0, "the connection ended: {head}");
    }
    Ok(head)
}

type Session = StreamOwned<ClientConnection, TcpStream>;

/// A way, and what is looked up once.
struct Prepared<'a> {
    way: &'a Way,
    to: SocketAddr,
    proxy: Option<(SocketAddr, String)>,
}

impl<'a> Prepared<'a> {
    fn new(way: &'a Way) -> Result<Self> {
        let (mut to, mut proxy) = (way.to, None);
        match way.proxy {
            Proxy::None => {}
            Proxy::At(address) => proxy = Some((address, String::new())),
            Proxy::Environment => proxy = Some(from_environment()?),
            Proxy::Unseen => {
                let mut found = (way.name.as_str(), way.to.port()).to_socket_addrs()?;
                let found = found.find(SocketAddr::is_ipv4);
                to = found.with_context(|| format!("{} has no address", way.name))?;
            }
        }
        Ok(Self { way, to, proxy })
    }

    /// A connection to the server, closed by reset: no port waits, so any number can follow.
    fn dial(&self) -> Result<TcpStream> {
        let first = self.proxy.as_ref().map_or(self.to, |(proxy, _)| *proxy);
        let stream = TcpStream::connect(first).with_context(|| format!("connect to {first}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let reset = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, sockopt::Linger, &reset)?;
        let Some((_, credentials)) = &self.proxy else {
            return Ok(stream);
        };
        let (name, port) = (&self.way.name, self.way.to.port());
        let request =
            format!("CONNECT {name}:{port} HTTP/1.1\r\nhost: {name}:{port}\r\n{credentials}\r\n");
        (&stream).write_all(request.as_bytes())?;
        // The server says nothing first: one buffer holds the answer and nothing behind it.
        let head = head(&mut BufReader::new(&stream))?;
        let granted = head.split(' ').nth(1) == Some("200");
        ensure!(granted, "the proxy refused: {head}");
        Ok(stream)
    }

    fn session(&self, config: &Arc<ClientConfig>) -> Result<Session> {
        let name = ServerName::try_from(self.way.name.clone())?;
        let mut session = ClientConnection::new(config.clone(), name)?;
        let mut stream = self.dial()?;
        while session.is_handshaking() {
            session.complete_io(&mut stream).context("TLS")?;
        }
        Ok(StreamOwned::new(session, stream))
    }

    fn tls(&self) -> Result<Arc<ClientConfig>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(&self.way.authority)?)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn roots(file: &Path) -> Result<RootCertStore> {
    let pem = fs::read(file).with_context(|| file.display().to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

/// The proxy of this process's environment, and the line that it wants to be shown.
fn from_environment() -> Result<(SocketAddr, String)> {
    let names = ["HTTPS_PROXY", "https_proxy"];
    let url = names.iter().find_map(|name| env::var(name).ok());
    let url = url.context("no HTTPS_PROXY")?;
    let rest = url.trim_start_matches("http://").trim_end_matches('/');
    let (credentials, host) = match rest.rsplit_once('@') {
        Some((credentials, host)) => (base64(&decoded(credentials)), host),
        None => (String::new(), rest),
    };
    let line = match credentials.as_str() {
        "" => String::new(),
        _ => format!("proxy-authorization: Basic {credentials}\r\n"),
    };
    let mut addresses = host.to_socket_addrs().with_context(|| host.to_owned())?;
    match addresses.find(SocketAddr::is_ipv4) {
        Some(address) => Ok((address, line)),
        None => bail!("{host} has no address"),
    }
}

/// Without the escapes of RFC 3986 section 2.1.
fn decoded(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let number = part
            .get(..2)
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        match number {
            Some(number) => {
                bytes.push(number);
                bytes.extend(&part.as_bytes()[2..]);
            }
            None => bytes.extend([b"%", part.as_bytes()].concat()),
        }
    }
    bytes
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut number = [0; 3];
        number[..chunk.len()].copy_from_slice(chunk);
        let [a, b, c] = number.map(u32::from);
        let number = a << 16 | b << 8 | c;
        for place in 0..4 {
            text.push(if place <= chunk.len() {
                ALPHABET[(number >> (18 - 6 * place) & 63) as usize] as char
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_taken_out() {
        assert_eq!(decoded("a%3Db%zz%"), b"a=b%zz%");
    }

    #[test]
    fn credentials_are_written_as_the_rfc_says() {
        let cases = [("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
