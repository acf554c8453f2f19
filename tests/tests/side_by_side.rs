//! Several runs at a time: each has its own grants, also two of the same connector.

use anyhow::{Result, ensure};
use egress_tests::{agent::policy, event::Denial, shell::Shell, world::World, zone};

const ALLOWED: &str = "http://203.0.113.20:8080/";
const OTHER: &str = "http://203.0.113.21:8080/";

fn curl(shell: &mut Shell, url: &str) -> Result<bool> {
    let said = shell.run(&format!("curl -sS --max-time 5 {url}"))?;
    ensure!(
        said.code == 0 || said.code == 7 || said.code == 6,
        "{said:?}"
    );
    Ok(said.code == 0)
}

#[test]
fn no_run_has_another_ones_grants() -> Result<()> {
    let world = World::new()?;
    let first = policy("first", &["203.0.113.20:8080", "allowed.example:443"]);
    let second = policy("second", &["203.0.113.21:8080", "other.example:443"]);
    let first_otherwise = policy("first", &["203.0.113.21:8080"]);
    let mut shells = [
        world.agent(first.clone()).shell()?,
        world.agent(second).shell()?,
        world.agent(first).shell()?,
        world.agent(first_otherwise).shell()?,
    ];
    let may = [(true, false), (false, true), (true, false), (false, true)];
    for _ in 0..2 {
        for (index, shell) in shells.iter_mut().enumerate() {
            let got = (curl(shell, ALLOWED)?, curl(shell, OTHER)?);
            ensure!(got == may[index], "run {index}: {got:?}");
        }
    }
    // Addresses from names: what one has just resolved is closed to the others.
    ensure!(curl(&mut shells[0], "https://allowed.example/")?);
    ensure!(!curl(&mut shells[1], "https://allowed.example/")?);
    ensure!(!curl(&mut shells[1], "-k https://203.0.113.20/")?);
    ensure!(!curl(&mut shells[3], "-k https://203.0.113.20/")?);

    // One that ends takes nothing from the others, and leaves them nothing.
    let [first, mut second, mut third, _fourth] = shells;
    let report = first.end()?;
    report.ensure_denied(&Denial::of_address(zone::OTHER).port(8080))?;
    ensure!(
        report
            .events
            .iter()
            .all(|event| event.connector.as_deref() != Some("second"))
    );
    ensure!(curl(&mut second, OTHER)? && !curl(&mut second, ALLOWED)?);
    ensure!(curl(&mut third, ALLOWED)? && !curl(&mut third, OTHER)?);
    Ok(())
}

#[test]
fn ten_start_at_once() -> Result<()> {
    let world = World::new()?;
    let runs: Vec<_> = (0..10)
        .map(|index| {
            let own = 100 + index;
            let allow = format!("203.0.113.{own}:8080");
            let script = "for n in {100..109}; do curl -s --max-time 5 -o /dev/null http://203.0.113.$n:8080/ && echo reached $n; done";
            let agent = world.agent(policy("crowd", &[&allow]));
            agent.start(&["/bin/bash", "-c", script]).map(|run| (own, run))
        })
        .collect::<Result<_>>()?;
    for (own, run) in runs {
        let report = run.wait()?;
        let reached: Vec<String> = report.text().lines().map(str::to_owned).collect();
        ensure!(
            reached == [format!("reached {own}")],
            "{reached:?}; {report}"
        );
    }
    Ok(())
}
