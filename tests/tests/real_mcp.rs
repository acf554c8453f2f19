//! Published MCP servers, started by the SDKs' own clients through `egress-agent run`: the tool
//! call to a declared name is answered, every other ends in an error that the client
//! understands, and a line in the stream.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{self, policy},
    event::Denial,
    leftovers::Leftovers,
    mcp::{Answer, Ended, Sdk, Session},
    programs::{self, NPX_SERVER, UVX_SERVER},
    token,
    world::World,
    zone,
};
use serde_json::{Value, json};

/// A refusal reaches the client sooner than any time-out would.
const AT_ONCE_MS: u64 = 3000;
const REGISTRY: &str = "registry.npmjs.org";
const INDEX: &str = "pypi.org";
const ALLOW: [&str; 1] = ["api.postmarkapp.com:443"];

/// A published server with a tool that gets a URL.
struct Fetcher {
    sdk: Sdk,
    server: &'static str,
    version: &'static str,
    command: &'static [&'static str],
    tool: &'static str,
    arguments: fn(&str) -> Value,
    /// What the kernel calls the process.
    comm: &'static str,
}

/// PyPI's `mcp-server-fetch`. It would itself refuse the addresses of the embedded internet, which
/// are set aside for documentation; then nothing would be left for the agent to refuse.
const PYTHON: Fetcher = Fetcher {
    sdk: Sdk::Python,
    server: "mcp-fetch",
    version: "2026.10.24",
    command: &[
        "{cache}/mcp-python/bin/python",
        "-m",
        "mcp_server_fetch",
        "--ignore-robots-txt",
        "--allow-private-ips",
    ],
    tool: "fetch",
    arguments: |url| json!({ "url": url }),
    comm: "python",
};

/// npm's `@modelcontextprotocol/server-everything`.
const NODE: Fetcher = Fetcher {
    sdk: Sdk::Node,
    server: "mcp-servers/everything",
    version: "2.0.0",
    command: &[
        "node",
        "{cache}/mcp-node/node_modules/@modelcontextprotocol/server-everything/dist/index.js",
    ],
    tool: "gzip-file-as-resource",
    arguments: |url| json!({ "name": "page.gz", "data": url, "outputType": "resource" }),
    comm: "node",
};

impl Fetcher {
    fn get(&self, session: &mut Session, url: &str) -> Result<Answer> {
        session.call(self.tool, &(self.arguments)(url))
    }
}

#[test]
fn a_python_server_reaches_only_what_is_declared() -> Result<()> {
    reaches_only_what_is_declared(&PYTHON)
}

#[test]
fn a_node_server_reaches_only_what_is_declared() -> Result<()> {
    reaches_only_what_is_declared(&NODE)
}

fn reaches_only_what_is_declared(fetcher: &Fetcher) -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let mut session = world
        .mcp_server(policy("mail", &ALLOW), fetcher.command)
        .connect(fetcher.sdk)?;
    ensure!(
        session.hello.name == fetcher.server && session.hello.version == fetcher.version,
        "{:?}",
        session.hello
    );
    answered(&world, fetcher, &mut session)?;

    let strangers = [
        (
            "https://giftshop.club",
            Denial::of_name("giftshop.club")
                .by(&["dns"])
                .because(&["name-not-allowed"]),
        ),
        (
            "https://198.51.100.7",
            Denial::of_address(zone::STRANGER)
                .port(443)
                .by(&["connect"])
                .because(&["no-rule"]),
        ),
        (
            "https://[2001:db8:c6::7]",
            Denial::of_address(zone::STRANGER6)
                .port(443)
                .by(&["connect"])
                .because(&["no-rule"]),
        ),
    ];
    for (place, denial) in &strangers {
        let token = token::new();
        let answer = fetcher.get(&mut session, &format!("{place}/{token}"))?;
        ensure!(
            answer.failed && !answer.text.is_empty(),
            "{place}: {answer:?}"
        );
        ensure!(answer.ms < AT_ONCE_MS, "not at once: {place}: {answer:?}");
        let event = session.denial(denial)?;
        ensure!(event.connector.as_deref() == Some("mail"), "{event:?}");
        // At the DNS door the caller is read from /proc, and not known where that took too long.
        let comm = event.process.as_ref().and_then(|it| it.comm.as_deref());
        let unknown = event.process.is_none() && event.layer.as_deref() == Some("dns");
        ensure!(unknown || comm == Some(fetcher.comm), "{event:?}");
        world.fence()?;
        ensure!(world.sightings(&token)?.is_empty(), "{place} got the token");
    }
    answered(&world, fetcher, &mut session)?;

    for stranger in [
        IpAddr::from(zone::STRANGER),
        zone::STRANGER6.into(),
        zone::GIFTSHOP.into(),
    ] {
        ensure!(
            world.packets(stranger)?.is_empty(),
            "{stranger} got packets"
        );
    }
    ensure!(
        world
            .queries()?
            .iter()
            .all(|query| !query.name.contains("giftshop"))
    );
    ended_well(&session.end()?)?;
    before.ensure_nothing_new()?;
    ensure!(world.processes()?.is_empty(), "processes are left");
    Ok(())
}

#[test]
fn a_python_server_reaches_no_other_name_behind_the_address() -> Result<()> {
    reaches_no_other_name_behind_the_address(&PYTHON)
}

#[test]
fn a_node_server_reaches_no_other_name_behind_the_address() -> Result<()> {
    reaches_no_other_name_behind_the_address(&NODE)
}

/// The name comes from `/etc/hosts`, so that no question for it is refused before.
fn reaches_no_other_name_behind_the_address(fetcher: &Fetcher) -> Result<()> {
    let world = World::new()?;
    let line = format!("{} shop.example\n", zone::POSTMARK);
    world.set_hosts(&format!("127.0.0.1 localhost\n::1 localhost\n{line}"))?;
    let mut session = world
        .mcp_server(policy("mail", &ALLOW), fetcher.command)
        .connect(fetcher.sdk)?;
    answered(&world, fetcher, &mut session)?;
    let token = token::new();
    let answer = fetcher.get(&mut session, &format!("https://shop.example/{token}"))?;
    ensure!(answer.failed && !answer.text.is_empty(), "{answer:?}");
    ensure!(answer.ms < AT_ONCE_MS, "not at once: {answer:?}");
    let denial = Denial {
        name: Some("shop.example".to_owned()),
        ..Denial::of_address(zone::POSTMARK)
    };
    session.denial(&denial.port(443).by(&["sni"]).because(&["sni-stranger"]))?;
    answered(&world, fetcher, &mut session)?;
    world.fence()?;
    ensure!(world.sightings(&token)?.is_empty(), "it got the token");
    for one in world.connections(zone::POSTMARK)? {
        let declared = one.sni.as_deref() == Some("api.postmarkapp.com");
        ensure!(one.received == 0 || declared, "it got {one:?}");
    }
    ensure!(session.end()?.outcome.ok());
    Ok(())
}

/// `npx --offline` of a version that it has started before asks nobody. Without `--offline` it
/// asks the registry each time, also for an exact version that is there (npm 11, libnpmexec).
#[test]
fn npx_starts_from_a_warm_cache() -> Result<()> {
    let world = World::new()?;
    let mut session = world
        .mcp_server(
            policy("mail", &ALLOW),
            &["npx", "--offline", "-y", NPX_SERVER],
        )
        .env("npm_config_cache", &world.npx_cache()?)
        // Otherwise npm looks for a newer npm, beside the start and in vain.
        .env("npm_config_update_notifier", "false")
        .connect(Sdk::Node)?;
    answered(&world, &NODE, &mut session)?;
    let answer = NODE.get(&mut session, "https://giftshop.club/")?;
    ensure!(answer.failed, "{answer:?}");
    session.denial(&Denial::of_name("giftshop.club"))?;
    let ended = session.end()?;
    ended_well(&ended)?;
    ensure!(!ended.asked_for(REGISTRY), "{ended}");
    Ok(())
}

/// The same for `uvx --offline`. It resolves anew at each start, so the versions of the
/// dependencies have to be those of the start before.
#[test]
fn uvx_starts_from_a_warm_cache() -> Result<()> {
    let world = World::new()?;
    let cache = world.uvx_cache()?;
    let mut words = vec!["{cache}/uv/bin/uvx", "--offline", "--constraints"];
    words.extend(["{cache}/uvx-requirements.txt", UVX_SERVER]);
    words.extend(&PYTHON.command[3..]);
    let mut session = world
        .mcp_server(policy("mail", &ALLOW), &words)
        .env("UV_CACHE_DIR", &cache)
        // The user has no home of its own.
        .env("UV_TOOL_DIR", "{home}/tools")
        // Otherwise uv looks for interpreters of its own, which the user has none of.
        .env("UV_NO_MANAGED_PYTHON", "1")
        .connect(Sdk::Python)?;
    ensure!(session.hello.name == PYTHON.server, "{:?}", session.hello);
    answered(&world, &PYTHON, &mut session)?;
    let answer = PYTHON.get(&mut session, "https://giftshop.club/")?;
    ensure!(answer.failed, "{answer:?}");
    session.denial(&Denial::of_name("giftshop.club"))?;
    let ended = session.end()?;
    ended_well(&ended)?;
    ensure!(!ended.asked_for(INDEX), "{ended}");
    Ok(())
}

/// Where the package is not there and the registry is not declared, the client is told.
#[test]
fn npx_with_a_cold_cache_fails_and_says_what_it_misses() -> Result<()> {
    let world = World::new()?;
    let ended = world
        .mcp_server(policy("mail", &ALLOW), &["npx", "-y", NPX_SERVER])
        .env("npm_config_cache", "{home}/cold")
        // Otherwise npm itself waits for more than a minute.
        .env("npm_config_fetch_retries", "0")
        .fail(Sdk::Node)?;
    ensure!(ended.closed_in_ms.is_none(), "a session: {ended}");
    ensure!(ended.outcome.code() == 1, "{ended}");
    ensure!(
        ended.outcome.stderr.contains("Connection closed"),
        "{ended}"
    );
    ensure!(ended.asked_for(REGISTRY), "{ended}");
    let stopped = ended.events.last().context("no events")?;
    ensure!(stopped.number("exit", "code") == 1, "{}", stopped.line);
    Ok(())
}

/// The agent ends as the server did: by itself at the end of its input, or with its own fault.
#[test]
fn the_agent_ends_with_the_servers_code() -> Result<()> {
    programs::install_mcp()?;
    let world = World::new()?;
    let python = world.dir().join("cache").join("mcp-python/bin/python");
    let python = python.display().to_string();
    for (option, code) in [("--ignore-robots-txt", 0), ("--no-such-option", 2)] {
        let report = world
            .agent(policy("mail", &ALLOW))
            .env("PYTHONPATH", "")
            .run(&[&python, "-m", "mcp_server_fetch", option])?;
        ensure!(report.code() == code, "{report}");
        ensure!(report.text().is_empty(), "on the wire: {report}");
    }
    Ok(())
}

/// The declared name answers, and the client gets what only that answer said.
fn answered(world: &World, fetcher: &Fetcher, session: &mut Session) -> Result<()> {
    let path = format!("/{}", token::new());
    let answer = fetcher.get(session, &format!("https://api.postmarkapp.com{path}"))?;
    ensure!(!answer.failed, "{answer:?}");
    let requests = world.requests()?;
    let request = requests
        .iter()
        .find(|request| request.line.ends_with(&path));
    let request = request.with_context(|| format!("it never came: {requests:?}"))?;
    ensure!(
        request.sni.as_deref() == Some("api.postmarkapp.com"),
        "{request:?}"
    );
    ensure!(
        answer.text.contains(&request.answered),
        "{answer:?} to {request:?}"
    );
    Ok(())
}

/// The client closed the session; the server ended by itself and the agent with it.
fn ended_well(ended: &Ended) -> Result<()> {
    ensure!(ended.outcome.ok(), "{ended}");
    // The SDKs wait two seconds for the server's end before they send it a signal.
    ensure!(ended.closed_in_ms.is_some_and(|ms| ms < 2000), "{ended}");
    if !agent::unconfined() {
        let stopped = ended.events.last().context("no events")?;
        ensure!(stopped.kind == "stopped", "{}", stopped.line);
        ensure!(stopped.number("exit", "code") == 0, "{}", stopped.line);
        ensure!(
            stopped.number("denied", "name-not-allowed") > 0,
            "{}",
            stopped.line
        );
    }
    Ok(())
}
