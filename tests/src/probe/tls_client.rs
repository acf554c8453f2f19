//! `probe rustls URL…`: a client made with rustls, which trusts `SSL_CERT_FILE`. One after the
//! other; a session that a server gave is resumed.

use std::{
    env,
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

/// Fetches each, says `ok` or why not. Errors: one of them could not be fetched.
pub(super) fn main(urls: &[&str]) -> Result<()> {
    let bundle = env::var_os("SSL_CERT_FILE").context("SSL_CERT_FILE")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(bundle)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let mut failed = 0;
    for url in urls {
        match fetch(&config, url) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                println!("{error:#}");
                failed += 1;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} failed");
    }
    Ok(())
}

fn fetch(config: &Arc<ClientConfig>, url: &str) -> Result<String> {
    let rest = url.strip_prefix("https://").context("https alone")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let name = ServerName::try_from(host.to_owned())?;
    let session = ClientConnection::new(config.clone(), name)?;
    let mut stream = StreamOwned::new(session, TcpStream::connect((host, 443))?);
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
