//! Tests of reading and writing answers.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first fault"
)]

use super::*;

fn read(text: &str) -> Answer {
    let (answer, used) = head(text.as_bytes()).unwrap().unwrap();
    assert_eq!(used, text.len());
    answer
}

fn ends(text: &str, method: &str) -> Result<Ends, &'static str> {
    read(text).ends(method)
}

#[test]
fn where_bodies_end() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(ends(length, "GET"), Ok(Ends::After(5)));
    assert_eq!(ends(length, "HEAD"), Ok(Ends::Here));
    assert_eq!(
        ends("HTTP/1.1 204 No Content\r\n\r\n", "GET"),
        Ok(Ends::Here)
    );
    assert_eq!(
        ends("HTTP/1.1 304\r\nContent-Length: 9\r\n\r\n", "GET"),
        Ok(Ends::Here)
    );
    assert_eq!(ends("HTTP/1.0 200 OK\r\n\r\n", "GET"), Ok(Ends::Close));
    // What says both is chunked (RFC 9112 section 6.3).
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: Chunked\r\n\r\n";
    assert_eq!(ends(both, "GET"), Ok(Ends::Chunked));
    let twice = "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(ends(twice, "GET"), Ok(Ends::After(5)));
}

#[test]
fn what_is_no_proper_answer() {
    for bad in [
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200OK\r\n\r\n",
        "\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: nothing\r\n\r\n",
        "HTTP/1.1 200 OK\r\n half\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
    ] {
        assert!(head(bad.as_bytes()).is_err(), "{bad:?}");
    }
    for bad in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ] {
        assert!(ends(bad, "GET").is_err(), "{bad:?}");
    }
    assert!(head(&vec![b'a'; MAX_HEAD + 1]).is_err());
    assert_eq!(head(b"HTTP/1.1 200 OK\r\nA: b\r\n"), Ok(None));
}

#[test]
fn what_belongs_to_one_connection_is_not_written_on() {
    let answer = read(
        "HTTP/1.1 200 Fine \u{e4}\r\nX-One: 1\r\nConnection: Keep-Alive, x-two\r\nX-Two: 2\r\n\
         Keep-Alive: timeout=5\r\nAlt-Svc: h3=\":443\"\r\nContent-Length: 3\r\nX-Long: a\r\n\tb\r\n\r\n",
    );
    let mut out = Vec::new();
    answer.write(Ends::Chunked, true, &mut out);
    let expected = "HTTP/1.1 200 Fine \u{e4}\r\nX-One: 1\r\nX-Long: a b\r\n\
                    Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn the_length_of_a_body_that_is_not_sent_is_written_on() {
    let mut out = Vec::new();
    read("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").write(Ends::Here, false, &mut out);
    assert_eq!(out, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
}

#[test]
fn who_keeps_the_connection() {
    for (text, keeps) in [
        ("HTTP/1.1 200 OK\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", true),
    ] {
        assert_eq!(read(text).keeps(), keeps, "{text:?}");
    }
}

/// Data and trailers of a chunked body that arrives `step` bytes at a time.
fn whole(body: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>, usize), &'static str> {
    let mut chunks = Chunks::default();
    let (mut data, mut at, mut there) = (Vec::new(), 0, 0);
    loop {
        match chunks.next(&body[at..there])? {
            Piece::More if there == body.len() => return Err("it is not whole"),
            Piece::More => there = (there + step).min(body.len()),
            Piece::Skip(used) => at += used,
            Piece::Data(len) => {
                data.extend(&body[at..at + len]);
                at += len;
            }
            Piece::End(used, trailers) => return Ok((data, trailers, at + used)),
        }
    }
}

#[test]
fn chunks_are_read_whatever_the_steps() {
    let body = b"5;name=value\r\nhello\r\nA\r\n, world!!!\r\n0\r\nX-Sum: 1\r\n\r\nnext";
    for step in 1..=body.len() {
        let (data, trailers, used) = whole(body, step).unwrap();
        assert_eq!(data, b"hello, world!!!");
        assert_eq!(trailers, b"X-Sum: 1\r\n");
        assert_eq!(&body[used..], b"next");
    }
}

#[test]
fn chunks_that_are_none() {
    for bad in [
        "x\r\n",
        "-1\r\n",
        "11111111111111111\r\n",
        "1\r\nab\r\n",
        "1\r\na\r\n0\r\n",
    ] {
        assert!(whole(bad.as_bytes(), 3).is_err(), "{bad:?}");
    }
}
