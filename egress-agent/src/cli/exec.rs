//! `egress-agent exec`: a connector for whoever may start it, without root.

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::{MetadataExt as _, PermissionsExt as _},
            process::ExitStatusExt as _,
        },
    },
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::Args;
use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe::Receiver,
    sync::{Mutex, mpsc},
    time::timeout,
};

use super::fail;
use crate::{
    control::{
        Answer, Client, Exec, Request,
        client::{ClientError, SOCKET},
        protocol::{self, Text, message},
    },
    exit,
    host::inherited::Inherited,
    launch::{Callers, Signals, signals::forward, stdio},
};

/// How long the daemon may take to say how a connector ended that the init says nothing of.
const LAST_WORD: Duration = Duration::from_secs(10);
/// How long a connector whose caller is gone has for its own end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Start a connector through the daemon, confined, as yourself
///
/// The connector has this command's standard input, output and error, its working directory,
/// limits and umask, and its environment as far as the policy passes it. It ends with this command.
///
/// Exit status: the connector's own; 128 and the signal that ended it; 125 where the daemon
/// failed or refused (the connector was then not started); 126 where the program cannot be
/// executed; 127 where it does not exist.
#[derive(Debug, Args)]
#[command(after_help = "Example, in an MCP client's configuration:\n  \
    \"command\": \"egress-agent\", \"args\": [\"exec\", \"postmark\"]")]
pub struct ExecArgs {
    /// Name of the connector
    connector: String,
    /// Control socket of the daemon
    #[arg(long, value_name = "FILE", default_value = SOCKET)]
    socket: PathBuf,
    /// Program and arguments, where the policy says none (run.command)
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the connector. Answers the exit code.
pub fn run(args: ExecArgs) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(format!("cannot start: {error}")),
    };
    let code = runtime
        .block_on(exec(args))
        .unwrap_or_else(|(code, message)| {
            fail(message);
            code
        });
    // A thread that still reads standard input ends with the process.
    runtime.shutdown_background();
    code
}

/// Exit code, and what to say.
type Failure = (u8, String);

async fn exec(args: ExecArgs) -> Result<u8, Failure> {
    let failed = |error: std::io::Error| (exit::AGENT_FAILED, format!("cannot start: {error}"));
    let refused = |error: ClientError| (exit::AGENT_FAILED, error.to_string());
    let inherited = Inherited::note().map_err(failed)?;
    let callers = Callers::find().map_err(failed)?;
    egress_sys::set_blocked_signals(0).map_err(failed)?;
    let mut signals = Signals::listen().map_err(failed)?;
    let command = found(args.command)?;
    let mut client = Client::connect(&args.socket).map_err(refused)?;
    // What the daemon is not to hold: with these everything goes on without it.
    let standard = stdio::standard(nix::unistd::getuid().as_raw(), None).map_err(failed)?;
    let (lifeline, _alive) = pipe2(OFlag::O_CLOEXEC).map_err(|error| failed(error.into()))?;
    let (status, write_status) = pipe2(OFlag::O_CLOEXEC).map_err(|error| failed(error.into()))?;
    let request = Request::Exec(Box::new(request(args.connector, command, inherited)?));
    let [input, output, error] = &standard.given;
    let given = [
        input.as_fd(),
        output.as_fd(),
        error.as_fd(),
        lifeline.as_fd(),
        write_status.as_fd(),
    ];
    client.ask(&request, &given).map_err(refused)?;
    drop((standard.given, lifeline, write_status));
    let relaying = standard.relay.start().map_err(failed)?;
    let mut status = Receiver::from_owned_fd(status).map_err(failed)?;
    let say = Arc::new(Mutex::new(client.another().map_err(failed)?));
    let mut answers = listen(client).map_err(failed)?;
    let mut process: Option<OwnedFd> = None;
    let (mut daemon, mut abandoned) = (true, false);
    let mut bytes = [0; 4];
    let ended = loop {
        tokio::select! {
            read = status.read(&mut bytes) => match read {
                Ok(4) => {
                    let status = ExitStatus::from_raw(i32::from_ne_bytes(bytes));
                    if process.is_some() || !daemon {
                        break Some(status);
                    }
                    // It may be the launcher's: the daemon knows why.
                    break Some(last(&mut answers).await?.unwrap_or(status));
                }
                // Nobody has it any more who could write: only the daemon may know.
                _ if daemon => break last(&mut answers).await?,
                _ => break None,
            },
            answer = answers.recv(), if daemon => match answer {
                Some((Answer::Started { .. }, descriptor)) => process = descriptor,
                Some((Answer::Failed { code, message }, _)) => return Err((code, message)),
                Some((Answer::Ended { status }, _)) => break Some(ExitStatus::from_raw(status)),
                Some(_) => {}
                // It may come back; the connector runs.
                None if process.is_some() => daemon = false,
                None => {
                    let told = "the daemon ended before the connector was started";
                    return Err((exit::AGENT_FAILED, told.to_owned()));
                }
            },
            signal = signals.next() => match &process {
                Some(process) => pass_on(signal, process, &say).await,
                None => return Ok(exit::of_signal(signal as i32)),
            },
            _ = callers.gone(), if !abandoned => {
                abandoned = true;
                if let Some(process) = &process {
                    pass_on(nix::sys::signal::Signal::SIGTERM, process, &say).await;
                }
                tokio::spawn(async {
                    tokio::time::sleep(FAREWELL).await;
                    // Its lifeline ends with this process, and it with that.
                    std::process::exit(i32::from(exit::AGENT_FAILED));
                });
            }
        }
    };
    relaying.finish().await;
    match ended {
        Some(status) => Ok(exit::of_child(status)),
        None => Err((
            exit::of_signal(9),
            "the connector was ended from outside (SIGKILL)".to_owned(),
        )),
    }
}

/// Answers as they come, from a thread that may wait.
fn listen(mut client: Client) -> std::io::Result<mpsc::Receiver<(Answer, Option<OwnedFd>)>> {
    let (sender, answers) = mpsc::channel(4);
    thread::Builder::new()
        .name("answers".to_owned())
        .spawn(move || {
            while let Ok(answer) = client.hear() {
                let descriptor = client.take_descriptor();
                if sender.blocking_send((answer, descriptor)).is_err() {
                    return;
                }
            }
        })?;
    Ok(answers)
}

/// What the daemon says of an end.
async fn last(
    answers: &mut mpsc::Receiver<(Answer, Option<OwnedFd>)>,
) -> Result<Option<ExitStatus>, Failure> {
    loop {
        match timeout(LAST_WORD, answers.recv()).await {
            Ok(Some((Answer::Ended { status }, _))) => {
                return Ok(Some(ExitStatus::from_raw(status)));
            }
            Ok(Some((Answer::Failed { code, message }, _))) => return Err((code, message)),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return Ok(None),
        }
    }
}

/// By oneself where the connector is this user's; or else by the daemon.
async fn pass_on(
    signal: nix::sys::signal::Signal,
    process: &OwnedFd,
    say: &Arc<Mutex<std::os::unix::net::UnixStream>>,
) {
    if forward(signal, process.as_fd()) {
        return;
    }
    if let Ok(bytes) = message(&Request::Signal(signal as i32)) {
        // A daemon that is gone cannot be asked.
        let _not_heard = say.lock().await.write_all(&bytes);
    }
}

fn request(
    connector: String,
    command: Vec<OsString>,
    inherited: Inherited,
) -> Result<Exec, Failure> {
    let text = |text: OsString| Text(text.into_vec());
    let nowhere = |error| {
        let told = format!("there is no working directory: {error}; change to another folder");
        (exit::AGENT_FAILED, told)
    };
    let cwd = std::env::current_dir().map_err(nowhere)?;
    let is = std::fs::metadata(".").map_err(nowhere)?;
    Ok(Exec {
        version: protocol::VERSION,
        connector,
        command: command.into_iter().map(text).collect(),
        env: std::env::vars_os()
            .map(|(name, value)| (text(name), text(value)))
            .collect(),
        cwd: text(cwd.into_os_string()),
        cwd_is: (is.dev(), is.ino()),
        inherited,
    })
}

/// Says at once where there is no such program: nobody knows better than this process, which has
/// the caller's rights and search path.
fn found(command: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let Some(program) = command.first() else {
        return Ok(command);
    };
    let is_program = |path: &Path| {
        std::fs::metadata(path)
            .is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
    };
    if program.as_bytes().contains(&b'/') {
        return Ok(command);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| is_program(&folder.join(program)));
    if there {
        return Ok(command);
    }
    Err((
        127,
        format!(
            "there is no program “{}” on your PATH ({}); write its whole path",
            program.display(),
            OsStr::new(&path).display()
        ),
    ))
}
