//! Whom the kernel ends first where memory runs out (proc(5), `oom_score_adj`).

use std::{fs, io};

const FILE: &str = "/proc/self/oom_score_adj";
/// Behind every ordinary process. Not -1000, which would keep the last one of a unit that has
/// no memory left from ever being ended.
const SPARED: i16 = -900;

/// Puts this process and its future children behind all others: a connector that takes all memory
/// of a unit would take its agent along. Answers what held before, for [`set`]; `None` where
/// nothing was changed, because it is there already or the host does not permit it
/// (CAP_SYS_RESOURCE).
pub fn spare() -> Option<i16> {
    let before: i16 = fs::read_to_string(FILE).ok()?.trim().parse().ok()?;
    (before > SPARED && set(SPARED).is_ok()).then_some(before)
}

/// Gives this process and its future children a value. Every process may have a higher one; the
/// lowest that it may go back to without rights is the one that it was given with them.
pub fn set(value: i16) -> io::Result<()> {
    fs::write(FILE, value.to_string())
}
