//! The envelope proxy: the same binary, re-executed, on its way to its work.

use std::{fs::File, net::TcpListener, sync::Arc};

use tokio::{net::unix::pipe, runtime::Runtime, sync::mpsc};

use super::{
    orders::{Orders, answer},
    serve::serve,
    shared::{Settle, Shared},
    spec::{Said, Spec},
};
use crate::{
    forward::confined::{self, FAILED},
    launch::spec::say,
};

/// The agent's first line, with the host's trust anchors and all tables, is shorter. Bytes.
const MAX_LINE: usize = 32 << 20;
/// Memory: bodies that are judged, and connections. Bytes.
const MEMORY: u64 = 512 << 20;
/// Lines that may wait for the agent.
const LINES: usize = 1_024;

/// What the proxy has at its start.
struct Proxy {
    listener: tokio::net::TcpListener,
    orders: Orders,
    answers: pipe::Sender,
    shared: Arc<Shared>,
    settles: mpsc::Receiver<Settle>,
    said: (mpsc::Sender<Said>, mpsc::Receiver<Said>),
}

/// Becomes the envelope proxy. `commands` and `answers` are the numbers of the two pipes that the
/// agent left open. Comes back only when it failed, with the exit code.
pub fn run(commands: i32, answers: i32) -> u8 {
    let (commands, mut answers) = match confined::reopen(commands, answers) {
        Ok(pipes) => pipes,
        Err(error) => {
            eprintln!(
                "egress-agent: the envelope proxy is not meant to be called by hand: {error}"
            );
            return FAILED;
        }
    };
    match prepare(commands, &answers) {
        Ok((runtime, proxy)) => {
            drop(answers);
            runtime.block_on(work(proxy));
            FAILED
        }
        Err(message) => {
            // The agent that is gone has nobody to tell.
            let _gone = say(&mut answers, &Said::Failed(message));
            FAILED
        }
    }
}

fn prepare(commands: File, answers: &File) -> Result<(Runtime, Proxy), String> {
    let spec: Spec = confined::first_line(&commands, MAX_LINE)?;
    let (runtime, listener) = confined::enter(&spec.place, (&commands, answers), MEMORY)?;
    let proxy = {
        let _inside = runtime.enter();
        opened(spec, listener, commands, answers)?
    };
    confined::close_up()?;
    Ok((runtime, proxy))
}

/// Everything is opened here, and nothing after.
fn opened(
    spec: Spec,
    listener: TcpListener,
    commands: File,
    answers: &File,
) -> Result<Proxy, String> {
    let failed = |error: std::io::Error| format!("cannot start: {error}");
    let (said, written) = mpsc::channel(LINES);
    let (mut shared, settles) = Shared::new((&spec.roots, &spec.secrets), spec.rules, said.clone())
        .map_err(|error| format!("cannot start: {error}"))?;
    shared.version = spec.version;
    *shared.baseline() = spec.baseline;
    let mut ledger = shared.ledger();
    spec.operator.iter().for_each(|text| ledger.operator(text));
    drop(ledger);
    Ok(Proxy {
        listener: tokio::net::TcpListener::from_std(listener).map_err(failed)?,
        orders: Orders::new(pipe::Receiver::from_file(commands).map_err(failed)?),
        answers: answers
            .try_clone()
            .and_then(pipe::Sender::from_file)
            .map_err(failed)?,
        shared: Arc::new(shared),
        settles,
        said: (said, written),
    })
}

/// Says that it is ready, and serves until it is ended with its instance. It needs no agent for
/// names that it knows: one that is gone tells it nothing more and hears nothing more.
async fn work(proxy: Proxy) {
    let (said, written) = proxy.said;
    let ca_pem = proxy.shared.ca.pem().to_owned();
    // There is room for it.
    let _gone_then = said.send(Said::Ready { ca_pem }).await;
    tokio::join!(
        proxy.orders.carry_out(&proxy.shared, proxy.settles, said),
        answer(proxy.answers, written),
        serve(proxy.listener, Arc::clone(&proxy.shared)),
    );
}
