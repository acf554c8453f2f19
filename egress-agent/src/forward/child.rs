//! The forwarder: the same binary, re-executed, on its way to its work.

use std::fs::File;

use tokio::runtime::Runtime;

use super::{
    confined::{self, FAILED},
    serve::{Forwarding, serve},
    spec::{Said, Spec},
};
use crate::launch::spec::say;

/// The agent's first line is shorter. Bytes.
const MAX_LINE: usize = 64 * 1024;
/// Memory. Bytes.
const MEMORY: u64 = 256 * 1024 * 1024;

/// Becomes the forwarder. `commands` and `answers` are the numbers of the two pipes that the agent
/// left open. Answers the exit code, when the agent is gone.
pub fn run(commands: i32, answers: i32) -> u8 {
    let (commands, mut answers) = match confined::reopen(commands, answers) {
        Ok(pipes) => pipes,
        Err(error) => {
            eprintln!("egress-agent: the forwarder is not meant to be called by hand: {error}");
            return FAILED;
        }
    };
    match prepare(commands, &answers) {
        Ok((runtime, forwarding)) => {
            drop(answers);
            runtime.block_on(serve(forwarding));
            0
        }
        Err(message) => {
            // The agent that is gone has nobody to tell.
            let _gone = say(&mut answers, &Said::Failed(message));
            FAILED
        }
    }
}

fn prepare(commands: File, answers: &File) -> Result<(Runtime, Forwarding), String> {
    let spec: Spec = confined::first_line(&commands, MAX_LINE)?;
    let (runtime, listener) = confined::enter(&spec.place, (&commands, answers), MEMORY)?;
    let forwarding = {
        let _inside = runtime.enter();
        answers
            .try_clone()
            .and_then(|answers| Forwarding::new(listener, commands, answers, spec.authorization))
            .map_err(|error| format!("cannot start: {error}"))?
    };
    confined::close_up()?;
    Ok((runtime, forwarding))
}
