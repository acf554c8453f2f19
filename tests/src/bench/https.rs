//! The HTTPS server of the measurements: TLS with a certificate of an authority of its own, a
//! short answer for each request or as long a one as it asks for.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read as _, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
};

use anyhow::{Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::scene::NAME;

/// Bytes of an answer's body.
pub(super) const BODY: usize = 1024;

/// A configuration for [`NAME`]; the authority's certificate goes into a file.
pub(super) fn config(authority: &Path) -> Result<Arc<ServerConfig>> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Of the same name as its subject's, a certificate would count as signed by itself.
    params
        .distinguished_name
        .push(DnType::CommonName, "authority of the measurements");
    fs::write(authority, params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Answers requests until the connection ends, however it ends: those for `/large/N` with N bytes.
pub(super) fn answer(stream: TcpStream, config: Arc<ServerConfig>) -> Result<()> {
    stream.set_nodelay(true)?;
    let session = ServerConnection::new(config)?;
    let mut stream = BufReader::new(StreamOwned::new(session, stream));
    let short = ".".repeat(BODY);
    let short = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n{short}");
    while let Some(request) = request(&mut stream)? {
        let sent = io::copy(&mut (&mut stream).take(request.body), &mut io::sink())?;
        ensure!(sent == request.body, "the body is cut");
        let session = stream.get_mut();
        match request.large {
            None => session.write_all(short.as_bytes())?,
            Some(bytes) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
                session.write_all(head.as_bytes())?;
                io::copy(&mut io::repeat(b'.').take(bytes), session)?;
            }
        }
        session.flush()?;
    }
    Ok(())
}

/// What the server reads of a request.
struct Request {
    /// How many bytes are asked for.
    large: Option<u64>,
    /// How many follow the head.
    body: u64,
}

/// The next request's head; `None`: there is none.
fn request(stream: &mut impl BufRead) -> Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default();
    let large = path.strip_prefix("/large/").map(str::parse).transpose()?;
    let mut body = 0;
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line)? > 0, "the head is cut");
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                body = value.trim().parse()?;
            }
            Some(_) => {}
            None => return Ok(Some(Request { large, body })),
        }
    }
}
