//! Facts about this host: its clocks, its users, its cgroups and its processes.
//!
//! Nothing here decides anything. What is read is either certain or an error that says what
//! to do; text that other programs chose (names, arguments) is passed on as it is, and is
//! escaped by whoever shows it.

pub mod alive;
pub mod cgroup;
pub mod clock;
pub mod delegation;
pub mod follow;
pub mod inherited;
pub mod layers;
pub mod memory;
pub mod mountinfo;
pub mod netlink;
pub mod netns;
pub mod notify;
pub mod own_address;
pub mod owned;
pub mod process;
pub mod records;
pub mod routes;
pub mod rtnetlink;
pub mod session;
pub mod sockets;
pub mod stamp;
pub mod switch;
pub mod temporary;
pub mod tree;
pub mod trust;
pub mod user;
pub mod ways;

pub use cgroup::{Cgroup, CgroupError, Hierarchy};
pub use clock::{BootToWall, boot_ns};
pub use process::{Process, Stat};
pub use user::{User, UserError, calling_user};
