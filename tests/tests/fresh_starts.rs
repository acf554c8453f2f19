//! No race at the start: the first thing a connector does is decided rightly, every time.

use anyhow::{Result, ensure};
use egress_tests::{agent::policy, event::Denial, token, world::World, zone};

const STARTS: usize = 50;

#[test]
fn fifty_starts_in_a_row() -> Result<()> {
    let world = World::new()?;
    for start in 0..STARTS {
        let token = token::new();
        let url = format!("https://allowed.example/{token}");
        let report = world
            .agent(policy("fresh", &["allowed.example:443"]))
            .run(&["curl", "-sS", &url])?;
        report.ensure_printed("\"ok\":true")?;
        report.ensure_nothing_denied()?;
        ensure!(!world.sightings(&token)?.is_empty(), "start {start}");

        let token = token::new();
        let url = format!("http://{}/{token}", zone::STRANGER);
        let report = world
            .agent(policy("fresh", &["allowed.example:443"]))
            .run(&["curl", "-sS", &url])?;
        ensure!(report.code() == 7, "start {start}: {report}");
        report.ensure_denied(&Denial::of_address(zone::STRANGER).port(80).by(&["connect"]))?;
        world.fence()?;
        ensure!(world.sightings(&token)?.is_empty(), "start {start}");
    }
    ensure!(world.packets(zone::STRANGER)?.is_empty());
    Ok(())
}
