//! A second hello: behind the first one, or when the server asks for it (RFC 8446 section 4.1.4).
//! Its name counts as well.

use std::{io::Write, net::TcpStream, thread, time::Duration};

use super::{
    Attempt, Job, Stop, Vector,
    tls::{
        DECLARED, GAP, answer, ask_for_retry_on, hello, linger, open, say, sys_open, tell, vector,
    },
};
use crate::hello::build::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, COOKIE, EARLY_DATA, Hello, KEY_SHARE, PADDING,
    key_share, record,
};

pub(super) const VECTORS: &[Vector] = &[
    vector(
        "hello-behind-hello",
        "a stranger's hello behind a declared one",
        |job| {
            let declared = Hello::named(DECLARED).record();
            say(job, &[declared, hello(job).record()].concat())
        },
    ),
    vector(
        "retry",
        "a stranger's name in the hello that the server asks for again",
        |job| retried(job, |job| second(job).record()),
    )
    .controlled(),
    vector("retry-ccs", "the same, behind change_cipher_spec", |job| {
        retried(job, |job| {
            [record(CHANGE_CIPHER_SPEC, &[1]), second(job).record()].concat()
        })
    })
    .controlled(),
    vector("retry-ccs-twice", "the same, behind two of them", |job| {
        retried(job, |job| {
            let ccs = record(CHANGE_CIPHER_SPEC, &[1]).repeat(2);
            [ccs, second(job).record()].concat()
        })
    }),
    vector(
        "retry-ccs-apart",
        "the same, change_cipher_spec in a segment of its own",
        |job| {
            let mut stream = ask_for_retry(job)?;
            stream.set_nodelay(true)?;
            stream.write_all(&record(CHANGE_CIPHER_SPEC, &[1]))?;
            thread::sleep(GAP);
            tell(stream, &second(job).record())
        },
    )
    .controlled(),
    vector(
        "retry-ccs-in-octets",
        "the same, each octet of it in a segment",
        |job| {
            let mut stream = ask_for_retry(job)?;
            stream.set_nodelay(true)?;
            for octet in record(CHANGE_CIPHER_SPEC, &[1]) {
                stream.write_all(&[octet])?;
                thread::sleep(Duration::from_millis(3));
            }
            tell(stream, &second(job).record())
        },
    ),
    vector("retry-alert", "the same, behind a warning", |job| {
        retried(job, |job| {
            [record(ALERT, &[1, 0]), second(job).record()].concat()
        })
    }),
    vector(
        "retry-empty-data",
        "the same, behind empty application data",
        |job| {
            retried(job, |job| {
                [record(APPLICATION_DATA, &[]), second(job).record()].concat()
            })
        },
    ),
    vector("retry-two-records", "the same, in two records", |job| {
        retried(job, |job| second(job).records(&[90]))
    }),
    vector(
        "retry-record-of-one",
        "the same, its first octet in a record of its own",
        |job| retried(job, |job| second(job).records(&[1])),
    ),
    vector("retry-split", "the same, in two segments", |job| {
        let mut stream = ask_for_retry(job)?;
        stream.set_nodelay(true)?;
        let bytes = second(job).record();
        stream.write_all(&bytes[..90])?;
        thread::sleep(GAP);
        tell(stream, &bytes[90..])
    })
    .controlled(),
    vector(
        "retry-split-type",
        "the same, cut behind the record's head",
        |job| {
            let mut stream = ask_for_retry(job)?;
            stream.set_nodelay(true)?;
            let bytes = second(job).record();
            stream.write_all(&bytes[..5])?;
            thread::sleep(GAP);
            tell(stream, &bytes[5..])
        },
    )
    .controlled(),
    vector(
        "retry-in-octets",
        "the same, each octet in a segment",
        |job| {
            let mut stream = ask_for_retry(job)?;
            stream.set_nodelay(true)?;
            for octet in second(job).record() {
                stream.write_all(&[octet])?;
            }
            linger(stream)
        },
    )
    .controlled(),
    vector(
        "retry-early-data",
        "the same, early data between the two hellos",
        |job| {
            let first = Hello::named(DECLARED)
                .instead(KEY_SHARE, &[0, 0])
                .with(EARLY_DATA, vec![]);
            let early = record(APPLICATION_DATA, &[0x5a; 200]);
            retried_from(job, &[first.record(), early].concat())
        },
    ),
    vector(
        "retry-early-data-late",
        "the same, early data after the server's answer",
        |job| {
            let first = Hello::named(DECLARED)
                .instead(KEY_SHARE, &[0, 0])
                .with(EARLY_DATA, vec![]);
            let mut stream = open(job)?;
            stream.set_nodelay(true)?;
            stream.write_all(&first.record())?;
            answer(&mut stream)?;
            stream.write_all(&record(APPLICATION_DATA, &[0x5a; 200]))?;
            thread::sleep(GAP);
            tell(stream, &second(job).record())
        },
    ),
    vector(
        "retry-huge",
        "the same, as long as a hello can be, in nine records",
        |job| {
            retried(job, |job| {
                let mut hello = second(job);
                hello.ciphers.resize(32_767, 0x1a1a);
                let message = hello.instead(KEY_SHARE, &key_share());
                // So long that the extensions have no room for one octet more.
                let missing = 131_090 - message.message().len();
                let bytes = message.with(PADDING, vec![0; missing]);
                let cuts: Vec<usize> = (1..9).map(|index| index * 16_000).collect();
                bytes.records(&cuts)
            })
        },
    ),
    vector(
        "retry-nameless",
        "no name in the hello that is asked for again",
        |job| {
            retried(job, |job| {
                Hello::nameless()
                    .with(COOKIE, vec![0, 1, 7])
                    .carrying(&job.token)
                    .record()
            })
        },
    ),
];

/// The answer to the server's wish for another hello.
fn second(job: &Job) -> Hello {
    hello(job).instead(KEY_SHARE, &key_share())
}

/// Says a declared hello without a key, which makes the server ask for another.
fn ask_for_retry(job: &Job) -> Result<TcpStream, Stop> {
    let socket = sys_open(job)?;
    ask_for_retry_on(&socket)?;
    Ok(socket.into())
}

fn retried(job: &Job, second: fn(&Job) -> Vec<u8>) -> Attempt {
    tell(ask_for_retry(job)?, &second(job))
}

fn retried_from(job: &Job, first: &[u8]) -> Attempt {
    let mut stream = open(job)?;
    stream.write_all(first)?;
    answer(&mut stream)?;
    tell(stream, &second(job).record())
}
