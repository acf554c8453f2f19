//! HTTP/1.1, as much as the clients of the tests speak: any method, a body by length or in
//! chunks, connections that stay open. Every answer is JSON and says who answered.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::{git, state::State};
use crate::{
    protocol::{HttpRequest, Sighting},
    token,
};

const BODY_LIMIT: usize = 8 << 20;

/// Where a connection came in.
pub(super) struct Place {
    pub(super) to: SocketAddr,
    pub(super) peer: IpAddr,
    pub(super) sni: Option<String>,
}

/// Answers requests until the client ends.
pub(super) async fn serve<S>(
    stream: S,
    place: &Place,
    arrival: &Sighting,
    state: &State,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        state.scan(line.as_bytes(), arrival);
        let headers = headers(&mut stream, arrival, state).await?;
        let body = body(&mut stream, &headers).await?;
        state.scan(&body, arrival);
        let asked = Asked {
            host: headers.get("host").unwrap_or_default().to_owned(),
            line: line.trim_end().trim_end_matches(" HTTP/1.1").to_owned(),
            body,
        };
        let offered = repository(&line, &headers, &asked.body, state).await?;
        let text = answer(place, asked, state);
        if let Some(offered) = offered {
            stream.get_mut().write_all(&offered).await?;
            stream.get_mut().flush().await?;
            continue;
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        let sent = if line.starts_with("HEAD ") {
            head
        } else {
            head + &text
        };
        stream.get_mut().write_all(sent.as_bytes()).await?;
        stream.get_mut().flush().await?;
        if headers.get("connection") == Some("close") {
            return stream.get_mut().shutdown().await;
        }
    }
}

/// A request, whatever version of HTTP it came in.
pub(super) struct Asked {
    pub(super) host: String,
    pub(super) line: String,
    pub(super) body: Vec<u8>,
}

/// Remembers a request and says what it is answered.
pub(super) fn answer(place: &Place, asked: Asked, state: &State) -> String {
    let answered = token::new();
    let answer = json!({
        "ok": true,
        "host": asked.host,
        "address": place.to.ip(),
        "port": place.to.port(),
        "from": place.peer,
        "received": asked.body.len(),
        "token": answered,
    });
    state.add_request(HttpRequest {
        host: asked.host,
        sni: place.sni.clone(),
        to: place.to,
        line: asked.line,
        body: String::from_utf8_lossy(&asked.body).into_owned(),
        answered,
    });
    format!("{answer}\n")
}

/// The answer of the host of repositories, where there is one and the path is its.
async fn repository(
    line: &str,
    headers: &Headers,
    body: &[u8],
    state: &State,
) -> io::Result<Option<Vec<u8>>> {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let Some(folder) = state
        .repositories()
        .filter(|_| target.starts_with(git::PREFIX))
    else {
        return Ok(None);
    };
    let header = |name| headers.get(name).unwrap_or_default();
    let request = git::Request {
        method,
        target,
        kind: header("content-type"),
        encoding: header("content-encoding"),
        version: header("git-protocol"),
        body,
    };
    git::answer(&folder, &request).await.map(Some)
}

struct Headers(Vec<(String, String)>);

impl Headers {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

async fn headers<R>(stream: &mut R, arrival: &Sighting, state: &State) -> io::Result<Headers>
where
    R: AsyncBufReadExt + Unpin,
{
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        state.scan(line.as_bytes(), arrival);
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(Headers(headers));
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

async fn body<R>(stream: &mut R, headers: &Headers) -> io::Result<Vec<u8>>
where
    R: AsyncBufReadExt + Unpin,
{
    let mut body = Vec::new();
    if let Some(length) = headers.get("content-length") {
        let length = length.parse().map_err(io::Error::other)?;
        read(stream, length, &mut body).await?;
        return Ok(body);
    }
    if headers.get("transfer-encoding") == Some("chunked") {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let digits = line.trim_end().split(';').next().unwrap_or_default();
            let length = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
            read(stream, length, &mut body).await?;
            stream.read_line(&mut String::new()).await?;
            if length == 0 {
                break;
            }
        }
    }
    Ok(body)
}

async fn read<R>(stream: &mut R, length: usize, body: &mut Vec<u8>) -> io::Result<()>
where
    R: AsyncBufReadExt + Unpin,
{
    let start = body.len();
    if start + length > BODY_LIMIT {
        return Err(io::Error::other("the body is too long"));
    }
    body.resize(start + length, 0);
    stream.read_exact(&mut body[start..]).await?;
    Ok(())
}
