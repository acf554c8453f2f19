//! Connectors by the hundred, each with the cgroups, programs, maps and pins that
//! `egress-agent run` makes for it, by the same code; only its processes are missing: a
//! thousand agents would take the memory of a larger host.

use std::{
    fs,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use egress_agent::kernel::{Plane, Settings, instance::Instance, load::Sizes};

/// What has to stay free on the host. KiB.
const RESERVE: u64 = 2 << 20;
const SAY_EVERY: Duration = Duration::from_secs(5);
/// As for a policy of a few rules.
const RULES: u32 = 64;

/// Ended when dropped.
#[derive(Default)]
pub(super) struct Planes {
    instances: Vec<Instance>,
}

impl Planes {
    /// So many at most; fewer where memory ends.
    pub(super) fn grow(&mut self, count: u32) -> Result<u32> {
        let have = self.instances.len() as u32;
        let left = AtomicU32::new(count.saturating_sub(have));
        let full = AtomicBool::new(false);
        let made = Mutex::new(Vec::new());
        let start = Instant::now();
        let work = || -> Result<()> {
            let mut said = start;
            while !full.load(Ordering::Relaxed)
                && left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                    .is_ok()
            {
                if available()? < RESERVE {
                    full.store(true, Ordering::Relaxed);
                    break;
                }
                let instance = one()?;
                let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
                made.push(instance);
                if said.elapsed() > SAY_EVERY {
                    eprintln!("connectors: {} of {count}", have as usize + made.len());
                    said = Instant::now();
                }
            }
            Ok(())
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let result = thread::scope(|scope| {
            let all: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
            let each = all.into_iter().map(|one| {
                one.join()
                    .unwrap_or_else(|_| Err(anyhow!("a loader broke off")))
            });
            each.collect::<Result<Vec<()>>>()
        });
        self.instances
            .extend(made.into_inner().unwrap_or_else(PoisonError::into_inner));
        result?;
        Ok(self.instances.len() as u32)
    }
}

impl Drop for Planes {
    fn drop(&mut self) {
        for instance in self.instances.drain(..) {
            if let Err(error) = instance.end() {
                eprintln!("{error}");
            }
        }
    }
}

/// The links are pinned: they stay when the plane is dropped.
fn one() -> Result<Instance> {
    /// Names hold the millisecond, in which two threads may meet.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let instance = Instance::create(&format!("growth{number}"))?;
    let attached = (|| {
        let settings = Settings {
            connector_level: instance.connector().level()?,
            connectors: 1,
            proxy_net: None,
            rules: RULES,
            sizes: Sizes::ONE,
        };
        let mut plane = Plane::load(&settings, instance.pins().clone())?;
        plane.attach(instance.parent().path())?;
        anyhow::Ok(())
    })();
    match attached {
        Ok(()) => Ok(instance),
        Err(error) => {
            instance.end()?;
            Err(error)
        }
    }
}

/// KiB, proc(5) meminfo.
pub(super) fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    Ok(kib.context("no MemAvailable")?.parse()?)
}
