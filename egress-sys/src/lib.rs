//! The few system calls that neither aya nor nix nor rustix has a safe face for: some of bpf(2)
//! here; fork(2), descriptors by number, and seccomp's notifications in files of their own.
//!
//! aya 0.14 knows no program type for unix sockets, and reads all of the kernel's types for a program
//! of security modules, so those programs are loaded, attached and pinned here; and it cannot pin
//! the link of a socket option program. Everything else goes through aya. Layouts follow
//! `union bpf_attr`, `include/uapi/linux/bpf.h`: the kernel takes a shorter one and reads the rest
//! as zero.
use std::{
    ffi::{CStr, c_int, c_long},
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

pub mod mount;
pub mod notify;
pub mod process;

/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
const CGROUP_SOCK_ADDR: u32 = 18;
/// `BPF_PROG_TYPE_LSM`.
const LSM: u32 = 29;
/// `BPF_MAP_TYPE_SK_STORAGE`.
const SK_STORAGE: u32 = 24;
/// Bytes of a program's name, its NUL included: `BPF_OBJ_NAME_LEN`.
const NAME: usize = 16;
/// Room for what the verifier says.
const LOG: usize = 256 * 1024;

/// One eBPF instruction as the kernel takes it: opcode, registers, offset, immediate.
pub type Instruction = [u8; 8];

/// Hooks by their number in `enum bpf_attach_type`: those for unix sockets (Linux 6.7),
/// `setsockopt()`, whose links aya cannot pin, and those of security modules, whose programs
/// wait long after they were loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Hook {
    /// `BPF_CGROUP_SETSOCKOPT`.
    Setsockopt = 22,
    /// `BPF_LSM_CGROUP`: whichever hook the program was loaded for.
    Lsm = 43,
    /// `BPF_CGROUP_UNIX_CONNECT`.
    Connect = 49,
    /// `BPF_CGROUP_UNIX_SENDMSG`.
    Sendmsg = 50,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
}

#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// A program that was refused.
#[derive(Debug)]
pub struct Refused {
    /// What the call said.
    pub error: io::Error,
    /// What the verifier said, where it came to that.
    pub log: String,
}

/// A program before it is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Its hook: of security modules or of unix sockets.
    pub hook: Hook,
    /// The number of the function of the kernel's that is hooked, among its types (BTF); 0 where the
    /// hook says all.
    pub function: u32,
    /// For people; cut off after 15 bytes.
    pub name: &'a str,
    /// Which helpers it may call goes by that.
    pub license: &'a CStr,
    /// What it does.
    pub instructions: &'a [Instruction],
}

/// Loads a program. `EINVAL` without a log: the kernel has no such hook.
pub fn load(program: &Program<'_>) -> Result<OwnedFd, Refused> {
    let mut attr = attributes(program);
    match bpf_fd(Command::ProgLoad, &attr) {
        Ok(program) => return Ok(program),
        // A hook the kernel does not have is refused before the verifier looks.
        Err(error) if error.raw_os_error() == Some(libc::E2BIG) => {
            return Err(Refused {
                error,
                log: String::new(),
            });
        }
        Err(_) => {}
    }
    // Once more, to be told why.
    let mut log = vec![0_u8; LOG];
    attr.log_level = 1;
    attr.log_size = u32::try_from(log.len()).unwrap_or(u32::MAX);
    attr.log_buf = address(log.as_mut_ptr());
    let again = bpf_fd(Command::ProgLoad, &attr);
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    let log = String::from_utf8_lossy(log.get(..end).unwrap_or_default()).into_owned();
    again.map_err(|error| Refused { error, log })
}

/// Attaches a program at a cgroup. The link holds until its last descriptor and pin go.
pub fn attach(hook: Hook, program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attr = LinkCreate {
        prog_fd: number(program),
        target_fd: number(cgroup),
        attach_type: hook as u32,
        flags: 0,
    };
    bpf_fd(Command::LinkCreate, &attr)
}

/// Pins a link in a bpf file system.
pub fn pin(link: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let attr = ObjPin {
        pathname: address(path.as_ptr()),
        bpf_fd: number(link),
        file_flags: 0,
    };
    bpf(Command::ObjPin, &attr).map(drop)
}

/// Enters a socket in a map of socket storage whose records are one number
/// (`net/core/bpf_sk_storage.c` `bpf_fd_sk_storage_update_elem`). The record ends with the socket.
/// `EINVAL`: the map is another one.
pub fn store(map: BorrowedFd<'_>, socket: BorrowedFd<'_>, value: u32) -> io::Result<()> {
    let mut info = MapInfo::default();
    let ask = Info {
        bpf_fd: number(map),
        info_len: u32::try_from(size_of::<MapInfo>()).map_err(io::Error::other)?,
        info: address(&raw mut info),
    };
    bpf(Command::ObjGetInfo, &ask)?;
    // The kernel reads as many bytes as the map says.
    if info.kind != SK_STORAGE || usize::try_from(info.value_size) != Ok(size_of::<u32>()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let key = number(socket);
    let attr = MapUpdate {
        map_fd: number(map),
        pad: 0,
        key: address(&raw const key),
        value: address(&raw const value),
        flags: 0,
    };
    bpf(Command::MapUpdate, &attr).map(drop)
}

fn attributes(program: &Program<'_>) -> ProgLoad {
    let mut prog_name = [0; NAME];
    // The last byte stays NUL.
    for (to, from) in prog_name
        .iter_mut()
        .take(NAME - 1)
        .zip(program.name.bytes())
    {
        *to = from;
    }
    ProgLoad {
        prog_type: match program.hook {
            Hook::Lsm => LSM,
            Hook::Setsockopt | Hook::Connect | Hook::Sendmsg => CGROUP_SOCK_ADDR,
        },
        insn_cnt: u32::try_from(program.instructions.len()).unwrap_or(u32::MAX),
        insns: address(program.instructions.as_ptr()),
        license: address(program.license.as_ptr()),
        prog_name,
        expected_attach_type: program.hook as u32,
        attach_btf_id: program.function,
        ..ProgLoad::default()
    }
}

/// Commands of `enum bpf_cmd`.
#[derive(Clone, Copy)]
enum Command {
    MapUpdate = 2,
    ProgLoad = 5,
    ObjPin = 6,
    ObjGetInfo = 15,
    LinkCreate = 28,
}

/// The part of `union bpf_attr` that a command reads.
///
/// # Safety
///
/// Every field that the kernel takes for an address points to memory of the length it is
/// told, for as long as the value is used; memory it writes to is the value's alone.
unsafe trait Attributes {}

// SAFETY: made by `attributes` from slices and strings that its callers hold during the
// call; the log is a vector of `log_size` bytes that nobody reads before the call is over.
unsafe impl Attributes for ProgLoad {}
// SAFETY: `key` and `value` are numbers on the stack of `store`, which outlive the call; it has
// made sure that the map's records are no longer than that.
unsafe impl Attributes for MapUpdate {}
// SAFETY: `info` is a value of `info_len` bytes on the stack of `store`, which outlives the call.
unsafe impl Attributes for Info {}
// SAFETY: no addresses.
unsafe impl Attributes for LinkCreate {}
// SAFETY: `pathname` is a C string that `pin` borrows during the call.
unsafe impl Attributes for ObjPin {}

/// The number of the network namespace of a socket, which no other ever has (`SO_NETNS_COOKIE`,
/// socket(7), Linux 5.14). `ENOPROTOOPT`: the kernel has no such option.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const SO_NETNS_COOKIE: c_int = 71;
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which has eight, and the
    // length itself; both live until the call is over.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}

/// The supplementary groups that the other side of a unix socket had when it connected
/// (`SO_PEERGROUPS`, unix(7), Linux 4.13).
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // NGROUPS_MAX, `include/uapi/linux/limits.h`.
    let mut groups = vec![0_u32; 65_536];
    let mut length = libc::socklen_t::try_from(size_of_val(groups.as_slice()))
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the kernel writes at most `length` bytes to `groups`, which has as many, and the
    // length itself; both live until the call is over.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(usize::try_from(length).unwrap_or(0) / size_of::<u32>());
    groups.shrink_to_fit();
    Ok(groups)
}

/// Ignores a signal in this process, or gives it its default action back (signal(7)). What is
/// ignored stays so through `execve`.
pub fn ignore_signal(signal: i32, ignored: bool) -> io::Result<()> {
    // Handler, flags, restorer, mask: `struct sigaction` of the kernel on x86-64 and arm64. The C
    // library's call refuses the two signals that it uses itself.
    let handler = if ignored {
        libc::SIG_IGN
    } else {
        libc::SIG_DFL
    };
    let action = [handler, 0, 0, 0];
    // SAFETY: the kernel reads four words that live until the call is over; neither action runs
    // code of this program.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            std::ptr::null::<usize>(),
            size_of::<u64>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Blocks exactly these signals in this thread; bit 0 is signal 1 (rt_sigprocmask(2)).
pub fn set_blocked_signals(signals: u64) -> io::Result<()> {
    // SAFETY: the kernel reads eight bytes of a mask that lives until the call is over.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            std::ptr::from_ref(&signals),
            std::ptr::null::<u64>(),
            size_of::<u64>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether nobody has a file open for writing, or mapped so: a lease for reading can be had
/// (`F_SETLEASE`, fcntl(2)), which is given back at once. The descriptor has to be open for reading
/// alone, and the file be the caller's. Errors: a file system without leases.
pub fn has_no_writer(file: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the call takes a descriptor, which lives as long as the borrow, and a number.
    let set = |kind: c_int| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    if set(libc::F_RDLCK) < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EAGAIN) => Ok(false),
            _ => Err(error),
        };
    }
    match set(libc::F_UNLCK) {
        0 => Ok(true),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Does something in a thread of its own for which files are accessible as they are for a user
/// (setfsuid(2)). Signals and everything else about the thread stay this process's. Needs
/// `CAP_SETUID` and `CAP_SETGID`.
pub fn as_user<T: Send>(
    uid: u32,
    gid: u32,
    groups: &[u32],
    job: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            // The C library would change every thread's groups. The kernel's own calls change the
            // caller's alone.
            // SAFETY: the kernel reads `len` numbers from the slice, which outlives the call.
            let set = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
            if set < 0 {
                return Err(io::Error::last_os_error());
            }
            become_for_files(libc::SYS_setfsgid, gid)?;
            become_for_files(libc::SYS_setfsuid, uid)?;
            Ok(job())
        });
        inside
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
    })
}

/// These calls report no failure, but the number in force before.
fn become_for_files(call: c_long, id: u32) -> io::Result<()> {
    // SAFETY: they take a number and touch no memory.
    let now = unsafe {
        libc::syscall(call, id);
        libc::syscall(call, u32::MAX)
    };
    if now == c_long::from(id.cast_signed()) || now == c_long::from(id) {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(libc::EPERM))
}

/// Whether the user of this thread may write to what a descriptor is about, `O_PATH` ones
/// included (faccessat2(2), Linux 5.8). `EROFS`: the mode does not forbid it, the mount does.
pub fn may_write(file: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the path is an empty C string; the kernel writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::W_OK,
            libc::AT_EACCESS | libc::AT_EMPTY_PATH,
        )
    };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Ok(false),
        _ => Err(error),
    }
}

/// Gives freed memory back to the kernel (malloc_trim(3)). The allocator keeps what was needed
/// once, a kernel's types for example, as long as something small lies behind it.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer and locks the heaps itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn bpf<T: Attributes>(command: Command, attr: &T) -> io::Result<c_long> {
    // SAFETY: bpf(2) reads `size` bytes of `attr`, which is that large, and follows the
    // addresses in it as `Attributes` promises.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as c_long,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn bpf_fd<T: Attributes>(command: Command, attr: &T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: these commands answer with a new descriptor that nobody else knows; it is
    // close-on-exec already (`bpf_prog_new_fd`, `bpf_link_new_fd`).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// An address as the kernel takes it, also from 32-bit programs.
fn address<T>(pointer: *const T) -> u64 {
    pointer.addr() as u64
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<ProgLoad>(), 112);
        assert_eq!(offset_of!(ProgLoad, log_buf), 32);
        assert_eq!(offset_of!(ProgLoad, prog_name), 48);
        assert_eq!(offset_of!(ProgLoad, expected_attach_type), 68);
        assert_eq!(offset_of!(ProgLoad, attach_btf_id), 108);
        assert_eq!(size_of::<LinkCreate>(), 16);
        assert_eq!(size_of::<ObjPin>(), 16);
        assert_eq!(size_of::<MapUpdate>(), 32);
        assert_eq!(size_of::<Info>(), 16);
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = load(&Program {
            hook: Hook::Connect,
            function: 0,
            name: "nonsense",
            license: c"GPL",
            instructions: &[[0xff; 8]],
        });
        assert!(refused.is_err());
    }
}
