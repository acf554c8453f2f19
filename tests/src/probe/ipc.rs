//! Whatever else passes bytes to another process of the host.

use std::{
    fs,
    io::Write,
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Duration,
};

use nix::errno::Errno;

use super::{
    Attempt, Evidence, Job, Stop, Vector,
    accomplice::{self, number},
    neighbour, sys,
};

const COOPERATION: &str = "a helper outside reads it as a file; no network is involved";

pub(super) const VECTORS: &[Vector] = &[
    Vector::new("system-v-queue", "a System V message queue", |job| {
        let key = number(&job.stage) as usize;
        let queue = sys::call(libc::SYS_msgget, &[key, 0])?;
        let message = [&1_u64.to_ne_bytes(), job.bytes()].concat();
        let arguments = [queue, message.as_ptr() as usize, job.bytes().len(), 0];
        Ok(sys::call(libc::SYS_msgsnd, &arguments).map(drop)?)
    }),
    Vector::new("system-v-memory", "System V shared memory", |job| {
        let key = number(&job.stage) as usize;
        let id = sys::call(libc::SYS_shmget, &[key, 0, 0])?;
        let start = sys::call(libc::SYS_shmat, &[id, 0, 0])?;
        let memory = sys::Memory {
            start,
            length: accomplice::SEGMENT,
        };
        memory.write(0, job.bytes());
        thread::sleep(Duration::from_millis(100));
        Ok(())
    }),
    Vector::new("posix-queue", "a POSIX message queue", |job| {
        let name = format!("{}\0", accomplice::queue(&job.stage));
        let arguments = [name.as_ptr() as usize, libc::O_WRONLY as usize, 0, 0];
        enqueue(&sys::call_fd(libc::SYS_mq_open, &arguments)?, job)
    }),
    Vector::new(
        "posix-queue-file",
        "the same queue, opened as a file of the mqueue file system",
        |job| {
            let name = accomplice::queue(&job.stage);
            let file = fs::File::options()
                .write(true)
                .open(job.stage.join("mqueue").join(name))?;
            enqueue(&file.into(), job)
        },
    ),
    Vector::new("netlink-user", "a netlink socket between programs", |job| {
        let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_USERSOCK)?;
        let to = accomplice::netlink_address(number(&job.stage));
        Ok(sys::send(&socket, job.bytes(), 0, &to)?)
    }),
    Vector::new(
        "netlink-route-peer",
        "a routing socket that addresses another program",
        |job| {
            let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
            let to = accomplice::netlink_address(number(&job.stage));
            sys::send(&socket, job.bytes(), 0, &to)?;
            Ok(())
        },
    )
    .optional(),
    Vector::new(
        "keyring",
        "a key that another process of the user reads",
        keyring,
    ),
    Vector::new(
        "request-key",
        "request_key(\"dns_resolver\"): the kernel starts a helper outside",
        request_key,
    )
    .proven_by(Evidence::Reached),
    Vector::new("fifo", "a FIFO that a helper outside reads", |job| {
        let mut fifo = fs::File::options()
            .write(true)
            .open(job.stage.join("fifo"))?;
        fifo.write_all(job.bytes())?;
        Ok(())
    })
    .limit(COOPERATION),
    Vector::new("file", "a file that a helper outside reads", |job| {
        fs::write(job.stage.join("box").join(&job.token), job.bytes())?;
        thread::sleep(Duration::from_millis(100));
        Ok(())
    })
    .limit(COOPERATION),
];

fn enqueue(queue: &OwnedFd, job: &Job) -> Attempt {
    let data = job.bytes();
    let arguments = [
        queue.as_raw_fd() as usize,
        data.as_ptr() as usize,
        data.len(),
        0,
        0,
    ];
    Ok(sys::call(libc::SYS_mq_timedsend, &arguments).map(drop)?)
}

fn keyring(job: &Job) -> Attempt {
    let name = neighbour::key_name(&job.stage);
    let data = job.bytes();
    let user_keyring = -4_isize as usize;
    let arguments = [
        c"user".as_ptr() as usize,
        name.as_ptr() as usize,
        data.as_ptr() as usize,
        data.len(),
        user_keyring,
    ];
    let key = sys::call(libc::SYS_add_key, &arguments)?;
    const SET_PERMISSIONS: usize = 5;
    sys::call(libc::SYS_keyctl, &[SET_PERMISSIONS, key, 0x3f3f_0000])?;
    thread::sleep(Duration::from_millis(150));
    Ok(())
}

/// The helper would ask from the machine's first network namespace, where no receiver stands; so
/// all that is told is whether the call gets as far as the kernel.
fn request_key(_: &Job) -> Attempt {
    // A name that the key type refuses by itself: nothing is asked anywhere.
    let arguments = [
        c"dns_resolver".as_ptr() as usize,
        c"".as_ptr() as usize,
        0,
        0,
    ];
    match sys::call(libc::SYS_request_key, &arguments) {
        Err(Errno::EPERM | Errno::EACCES) => Err(Errno::EPERM.into()),
        _ => Err(Stop::Reached("the call is open".to_owned())),
    }
}
