//! First flights of another form: no TLS, other records in front, a hello that is cut up or says
//! wrong lengths, hellos of every size.

use super::{
    Attempt, Job, Vector,
    tls::{DECLARED, hello, name, say, token_place, vector},
};
use crate::hello::build::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, Hello, SERVER_NAME, record, server_name,
};

pub(super) const VECTORS: &[Vector] = &[
    vector("plain-http", "HTTP where TLS is due", |job| {
        let text = format!("GET /{} HTTP/1.1\r\nHost: {DECLARED}\r\n\r\n", job.token);
        say(job, text.as_bytes())
    }),
    vector("plain-text", "anything but TLS", |job| {
        say(job, format!("SSH-2.0-{}\r\n", job.token).as_bytes())
    }),
    vector("sslv2-hello", "a hello of SSL 2", |job| {
        let mut body = vec![1, 3, 1, 0, 3, 0, 0, 0, 32, 0, 0, 0x2f];
        body.extend(Hello::nameless().carrying(&job.token).session);
        let length = 0x8000 | u16::try_from(body.len()).unwrap_or_default();
        say(job, &[&length.to_be_bytes(), body.as_slice()].concat())
    }),
    vector(
        "sslv3-hello",
        "a hello of SSL 3, which has no names",
        |job| {
            let mut hello = Hello::nameless().carrying(&job.token);
            (hello.record_version, hello.version) = (0x0300, 0x0300);
            hello.extensions.clear();
            say(job, &hello.record())
        },
    ),
    vector(
        "dtls-version",
        "a record version of another protocol",
        |job| {
            let mut hello = hello(job);
            hello.record_version = 0xfefd;
            say(job, &hello.record())
        },
    ),
    vector("ccs-first", "change_cipher_spec, then the hello", |job| {
        behind(job, &record(CHANGE_CIPHER_SPEC, &[1]))
    }),
    vector("alert-first", "a warning, then the hello", |job| {
        behind(job, &record(ALERT, &[1, 0]))
    }),
    vector("data-first", "application data, then the hello", |job| {
        behind(job, &record(APPLICATION_DATA, &[0; 32]))
    }),
    vector(
        "empty-record-first",
        "an empty record, then the hello",
        |job| behind(job, &record(HANDSHAKE, &[])),
    ),
    vector(
        "empty-records-first",
        "twenty empty records, then the hello",
        |job| behind(job, &record(HANDSHAKE, &[]).repeat(20)),
    ),
    vector(
        "other-message-first",
        "a finished, then the hello, in one record",
        |job| {
            let message = [&[20, 0, 0, 4, 1, 2, 3, 4], hello(job).message().as_slice()].concat();
            say(job, &record(HANDSHAKE, &message))
        },
    ),
    vector(
        "two-records",
        "the hello in two records, cut in the name",
        |job| {
            let message = hello(job).message();
            let place = token_place(&message, job);
            say(job, &hello(job).records(&[place + 9]))
        },
    ),
    vector(
        "record-of-one",
        "the hello's first octet in a record of its own",
        |job| say(job, &hello(job).records(&[1])),
    ),
    vector(
        "record-per-octet",
        "each octet in a record of its own",
        |job| {
            let cuts: Vec<usize> = (1..hello(job).message().len()).collect();
            // The token is in pieces: what proves it is the name that the server puts together.
            say(
                job,
                &[hello(job).records(&cuts), job.bytes().to_vec()].concat(),
            )
        },
    ),
    vector(
        "hello-twice-in-record",
        "a declared hello and a stranger's in one record",
        |job| {
            let first = Hello::named(DECLARED).message();
            say(
                job,
                &record(HANDSHAKE, &[first, hello(job).message()].concat()),
            )
        },
    ),
    vector(
        "hello-too-long",
        "a hello that is longer than its record says",
        |job| {
            let mut bytes = hello(job).record();
            let end = bytes.len() - job.token.len();
            bytes[3..5].copy_from_slice(&u16::try_from(end).unwrap_or_default().to_be_bytes());
            say(job, &bytes)
        },
    ),
    vector(
        "hello-too-short",
        "a message shorter than its record",
        |job| {
            let message = [Hello::named(DECLARED).message(), job.bytes().to_vec()].concat();
            say(job, &record(HANDSHAKE, &message))
        },
    ),
    vector(
        "junk-behind-extensions",
        "bytes behind the extensions",
        |job| {
            let mut message = Hello::named(DECLARED).message();
            message.extend(job.bytes());
            let length = u32::try_from(message.len() - 4)
                .unwrap_or_default()
                .to_be_bytes();
            message[1..4].copy_from_slice(&length[1..]);
            say(job, &record(HANDSHAKE, &message))
        },
    ),
    vector(
        "many-extensions",
        "a hundred extensions in front of the name",
        |job| {
            let mut hello = hello(job);
            for kind in 0x7000..0x7064 {
                hello = hello.first(kind, vec![0]);
            }
            say(job, &hello.record())
        },
    ),
    vector(
        "hello-2k",
        "a hello of all that TCP sends in one packet, the name at its end",
        |job| at_the_end(job, 2_890),
    )
    .controlled(),
    vector("hello-4k", "a hello of 4 KiB, the name at its end", |job| {
        at_the_end(job, 4_096)
    }),
    vector(
        "hello-14k",
        "a hello of ten segments, which TCP sends before an answer (RFC 6928)",
        |job| at_the_end(job, 14_400),
    ),
    vector(
        "hello-16k",
        "a hello of 16 KiB, the name at its end",
        |job| at_the_end(job, 16_380),
    ),
    vector("hello-beyond", "a name beyond the longest record", |job| {
        at_the_end(job, 20000)
    }),
];

fn behind(job: &Job, front: &[u8]) -> Attempt {
    say(job, &[front, hello(job).record().as_slice()].concat())
}

/// A hello of this length whose name is its last extension.
fn at_the_end(job: &Job, length: usize) -> Attempt {
    let list = server_name(&[(0, name(job).as_bytes())]);
    let hello = Hello::nameless().carrying(&job.token);
    let hello = hello.padded(length - list.len() - 4);
    say(job, &hello.with(SERVER_NAME, list).record())
}
