//! A permitted and a stranger's URL, and what must have become of both after a run.

use anyhow::{Result, ensure};

use crate::{
    agent::{self, Agent, Report},
    event::Denial,
    token,
    world::World,
    zone,
};

/// A permitted and a forbidden URL for one run, each with a token of its own.
pub struct Urls {
    permitted: String,
    stranger: String,
    tokens: [String; 2],
}

impl Urls {
    /// Two new tokens, and URLs with them.
    pub fn fresh() -> Self {
        let tokens = [token::new(), token::new()];
        Self {
            permitted: format!("https://allowed.example/{}", tokens[0]),
            stranger: format!("http://{}:9999/{}", zone::STRANGER, tokens[1]),
            tokens,
        }
    }

    /// The token of the permitted URL.
    pub fn permitted_token(&self) -> &str {
        &self.tokens[0]
    }

    /// The token of the stranger's.
    pub fn stranger_token(&self) -> &str {
        &self.tokens[1]
    }

    /// Gives them to a run as `PERMITTED` and `STRANGER`.
    pub fn to<'w>(&self, agent: Agent<'w>) -> Agent<'w> {
        agent
            .env("PERMITTED", &self.permitted)
            .env("STRANGER", &self.stranger)
    }

    /// Each helper said that it reached the one and was refused the other, and that is so.
    pub fn held(&self, world: &World, report: &Report, helpers: &[&str]) -> Result<()> {
        let text = report.text();
        for helper in helpers {
            let line = format!("{helper} ok EPERM");
            ensure!(
                text.lines().any(|said| said == line),
                "no {line:?}: {report}"
            );
        }
        ensure!(report.outcome.ok(), "{report}");
        ensure!(
            !world.sightings(&self.tokens[0])?.is_empty(),
            "nothing came to the permitted host: {report}"
        );
        stranger_heard_nothing(world, &self.tokens[1])?;
        if !agent::unconfined() {
            report.ensure_denied(&Denial::of_address(zone::STRANGER).port(9999))?;
        }
        Ok(())
    }
}

/// Errors where the token, or any packet, came to the stranger.
pub fn stranger_heard_nothing(world: &World, token: &str) -> Result<()> {
    world.fence()?;
    ensure!(
        world.sightings(token)?.is_empty(),
        "the stranger got the token"
    );
    ensure!(
        world.packets(zone::STRANGER)?.is_empty(),
        "the stranger got packets"
    );
    Ok(())
}
