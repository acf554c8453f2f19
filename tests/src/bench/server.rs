//! The other end of every measured connection: outside all lanes, the same for each.

use std::{
    io::{self, BufRead, Read, Write},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    thread,
};

use anyhow::{Context, Result};
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};

use super::https;

/// Accepts and closes.
pub(super) const CLOSE: u16 = 7001;
/// Sends back what it gets.
pub(super) const ECHO: u16 = 7002;
/// Reads to the end.
pub(super) const SINK: u16 = 7003;
/// The same, where the name in TLS is checked.
pub(super) const CHECKED: u16 = 7005;
/// A UDP socket that nobody reads: once its buffer is full, sending costs the same each time.
pub(super) const HOLE: u16 = 7004;

/// Reads as many bytes as the first eight say, then sends one.
pub(super) const COUNT: u16 = 7006;
/// HTTPS.
pub(super) const HTTPS: u16 = 443;

/// Connections that may wait, more than a job makes.
const WAITING: i32 = 4096;
const SMALL: usize = 4096;
const CHUNK: usize = 256 << 10;

/// Serves until standard input ends; puts the certificate of its authority into a file first.
pub(super) fn main(authority: &Path) -> Result<()> {
    let tls = https::config(authority)?;
    serve(HTTPS, move |stream| {
        let tls = tls.clone();
        thread::spawn(move || https::answer(stream, tls));
    })?;
    serve(COUNT, |stream| drop(thread::spawn(|| count(stream))))?;
    serve(CLOSE, drop)?;
    serve(ECHO, |stream| drop(thread::spawn(|| echo(stream))))?;
    for port in [SINK, CHECKED] {
        serve(port, |stream| drop(thread::spawn(|| sink(stream))))?;
    }
    let hole = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, HOLE)).context("UDP")?;
    setsockopt(&hole, sockopt::RcvBuf, &SMALL)?;
    println!("{}", std::process::id());
    for line in io::stdin().lock().lines() {
        line?;
    }
    Ok(())
}

fn serve(port: u16, each: impl Fn(TcpStream) + Send + 'static) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .with_context(|| format!("TCP port {port}"))?;
    // Again, for the longer queue.
    listen(&listener, Backlog::new(WAITING)?)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            each(stream);
        }
    });
    Ok(())
}

/// Ends with the connection, however that ends.
fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; SMALL];
    while let length @ 1.. = stream.read(&mut buffer)? {
        stream.write_all(&buffer[..length])?;
    }
    Ok(())
}

/// Ends with the connection, however that ends.
fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

/// So no proxy has to know half-closed connections for the sender to know that all has arrived.
fn count(mut stream: TcpStream) -> io::Result<()> {
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    let mut left = u64::from_be_bytes(length);
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        let length @ 1.. = stream.read(&mut buffer)? else {
            return Ok(());
        };
        left = left.saturating_sub(length as u64);
    }
    stream.write_all(b".")
}
