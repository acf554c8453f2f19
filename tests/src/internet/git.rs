//! A host of git repositories, over the smart protocol: git's own program behind HTTP, as a CGI
//! program (RFC 3875).

use std::{io, path::Path, process::Stdio};

use tokio::{io::AsyncWriteExt, process::Command};

/// Paths that begin so are git's.
pub(super) const PREFIX: &str = "/git/";

/// One request to git.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// Path and query.
    pub(super) target: &'a str,
    pub(super) kind: &'a str,
    pub(super) encoding: &'a str,
    pub(super) version: &'a str,
    pub(super) body: &'a [u8],
}

/// The whole answer, head and body, for repositories in a folder.
pub(super) async fn answer(folder: &Path, request: &Request<'_>) -> io::Result<Vec<u8>> {
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((request.target, ""));
    let path = path.strip_prefix(PREFIX).unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{path}"))
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", request.method)
        .env("CONTENT_TYPE", request.kind)
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", request.encoding)
        .env("GIT_PROTOCOL", request.version)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take();
    let fed = async {
        if let Some(mut input) = input.take() {
            // It may end without having read everything; then its answer says why.
            drop(input.write_all(request.body).await);
        }
    };
    let ((), output) = tokio::join!(fed, child.wait_with_output());
    Ok(respond(&output?.stdout))
}

/// HTTP from what a CGI program printed.
fn respond(printed: &[u8]) -> Vec<u8> {
    let end = printed.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = match end {
        Some(at) => (&printed[..at], &printed[at + 4..]),
        None => (&b"Status: 502 Bad Gateway"[..], &b""[..]),
    };
    let head = String::from_utf8_lossy(head);
    let mut status = "200 OK";
    let mut rest = String::new();
    for line in head.lines() {
        if let Some(said) = line.strip_prefix("Status: ") {
            status = said;
        } else {
            rest.push_str(&format!("{line}\r\n"));
        }
    }
    let length = body.len();
    let mut answer =
        format!("HTTP/1.1 {status}\r\n{rest}content-length: {length}\r\n\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}
