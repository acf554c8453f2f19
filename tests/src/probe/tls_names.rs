//! The name in TLS: the address is declared, and a stranger's name stands behind it, too. What a
//! server takes for the name of the connection must be a declared one.

use std::net::SocketAddr;

use libc::AF_INET6;

use super::{
    Attempt, Job, Vector,
    tls::{DECLARED, PORT, hello, name, open_to, say, tell, vector},
};
use crate::hello::build::{ECH, ESNI, Hello, SERVER_NAME, ech, server_name};

pub(super) const VECTORS: &[Vector] = &[
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
];

/// A hello with a name that is none, or that ends elsewhere.
fn calling(job: &Job, name: &str) -> Attempt {
    say(job, &Hello::named(name).carrying(&job.token).record())
}

/// A hello with this for the list of names.
fn with_list(job: &Job, list: Vec<u8>) -> Attempt {
    let hello = Hello::nameless().first(SERVER_NAME, list);
    say(job, &hello.carrying(&job.token).record())
}
