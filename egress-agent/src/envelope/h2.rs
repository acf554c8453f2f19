//! A conversation in HTTP/2: streams come and are judged one by one.
//!
//! What is bounded, and by whom: streams at a time, heads and what waits to be read by the settings
//! below, which the library keeps; streams that are reset as soon as they are opened
//! (CVE-2023-44487), heads in endless pieces (CVE-2024-27316), empty and tiny frames, and answers
//! to settings and pings by the library; streams of all connections together, and connections on
//! which nothing happens, here.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{Reason, server::Builder};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::server::TlsStream;

use super::{
    h1::IDLE_FOR,
    relay::Tcp,
    shared::{Asked, Shared},
    stream,
    why::Why,
};

/// Streams of one connection at a time.
const MAX_STREAMS: u32 = 1_024;
/// Longest head, as HTTP/2 counts it: 32 bytes more for each field. Bytes.
const MAX_HEAD: u32 = 64 << 10;
/// What a program may send ahead on one stream. Bytes.
const WINDOW: u32 = 64 << 10;
/// On all together: enough for each, since a stream whose body waits for its turn must not hold up
/// those that have theirs. What it comes to is bounded by the streams of all connections.
const WINDOWS: u32 = MAX_STREAMS * WINDOW;
/// What small frames that wait may cost, as the library counts it. Bytes.
const SMALL_FRAMES: usize = 256 << 10;
/// What waits for a program to read it, on one stream. Bytes.
const MAX_WAITING: usize = 128 << 10;
/// How long a program may take for its first words in HTTP/2, and for its last.
const BEGUN_WITHIN: Duration = Duration::from_secs(30);

/// Carries what a program says, until it ends.
pub(super) async fn converse(client: TlsStream<Tcp>, asked: Asked, shared: &Arc<Shared>) {
    let asked = Arc::new(asked);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOWS)
        .data_frame_budget(SMALL_FRAMES)
        .max_send_buffer_size(MAX_WAITING);
    let begun = timeout(BEGUN_WITHIN, builder.handshake::<_, Bytes>(client)).await;
    let mut connection = match begun {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) if error.is_io() => return shared.lost(&asked, Why::Dropped),
        Ok(Err(error)) => return shared.lost(&asked, Why::Handshake(error.to_string())),
        Err(_) => return shared.lost(&asked, Why::Handshake("it took too long".to_owned())),
    };
    // They end with the connection.
    let mut streams = JoinSet::new();
    let lease = Arc::new(shared.pool.lease(&asked));
    let (mut first, mut ends, mut idle) = (true, false, Instant::now() + IDLE_FOR);
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, mut respond))) => {
                    first = false;
                    match Arc::clone(&shared.streams).try_acquire_owned() {
                        Ok(place) => {
                            let (asked, shared) = (Arc::clone(&asked), Arc::clone(shared));
                            let lease = Arc::clone(&lease);
                            streams.spawn(async move {
                                stream::carry(request, respond, &lease, &asked, &shared).await;
                                drop(place);
                            });
                        }
                        // It was not looked at, and may be sent again (RFC 9113 section 8.7).
                        Err(_) => respond.send_reset(Reason::REFUSED_STREAM),
                    }
                }
                Some(Err(_)) | None => break,
            },
            Some(_) = streams.join_next() => idle = Instant::now() + IDLE_FOR,
            () = sleep_until(idle), if streams.is_empty() => {
                if ends {
                    break;
                }
                connection.graceful_shutdown();
                (ends, idle) = (true, Instant::now() + BEGUN_WITHIN);
            }
        }
    }
    streams.shutdown().await;
    shared.pool.free(&asked, &lease).await;
    if first && !ends {
        shared.lost(&asked, Why::Dropped);
    }
}
