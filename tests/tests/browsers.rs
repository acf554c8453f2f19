//! Browsers at work: the MCP servers of Playwright and of Chrome's developer tools drive a
//! headless Chromium. Declared pages load, pictures of them reach the client, and nothing
//! reaches a stranger.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{self, Report},
    event::Denial,
    mcp::{Sdk, Session},
    process, programs, token,
    world::{USER, World},
    zone,
};
use serde_json::{Value, json};

/// Debian's and Fedora's packages both put it here, or link it from here.
const CHROMIUM: &str = "/usr/bin/chromium";
const STEP: Duration = Duration::from_secs(30);
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// An MCP server that drives a browser.
struct Driver {
    /// The ready policy, and the example among its sites.
    policy: (&'static str, &'static str),
    command: &'static [&'static str],
    go: (&'static str, fn(&str) -> Value),
    look: &'static str,
    picture: &'static str,
}

const PLAYWRIGHT: Driver = Driver {
    policy: (
        include_str!("../../policies/playwright.yaml"),
        "playwright.dev",
    ),
    command: &[
        "/bin/sh",
        "-c",
        "HOME={home} exec node \"$@\" --output-dir \"$TMPDIR/pictures\"",
        "playwright",
        "{cache}/browsers/node_modules/@playwright/mcp/cli.js",
        "--headless",
        "--isolated",
        "--no-sandbox",
        "--ignore-https-errors",
        "--file-paths=absolute",
        "--executable-path",
        CHROMIUM,
    ],
    go: ("browser_navigate", |url| json!({ "url": url })),
    look: "browser_snapshot",
    picture: "browser_take_screenshot",
};

const DEVTOOLS: Driver = Driver {
    policy: (
        include_str!("../../policies/chrome-devtools.yaml"),
        "developer.chrome.com",
    ),
    command: &[
        "/usr/bin/env",
        "HOME={home}",
        "node",
        "{cache}/browsers/node_modules/chrome-devtools-mcp/build/src/bin/chrome-devtools-mcp.js",
        "--headless",
        "--isolated",
        "--acceptInsecureCerts",
        "--usageStatistics=false",
        "--pageIdRouting=false",
        "--chromeArg=--no-sandbox",
        "--executablePath",
        CHROMIUM,
    ],
    go: ("navigate_page", |url| json!({ "type": "url", "url": url })),
    look: "take_snapshot",
    picture: "take_screenshot",
};

#[test]
fn playwrights_server() -> Result<()> {
    drives(&PLAYWRIGHT)
}

#[test]
fn the_developer_tools_server() -> Result<()> {
    drives(&DEVTOOLS)
}

fn drives(driver: &Driver) -> Result<()> {
    ensure!(
        Path::new(CHROMIUM).exists(),
        "there is no {CHROMIUM}; Debian: chromium"
    );
    programs::install_browsers()?;
    let world = World::new()?;
    let (policy, example) = driver.policy;
    ensure!(policy.contains(example), "{policy}");
    let policy = policy.replace(example, "allowed.example");
    let mut session = world
        .mcp_server(policy, driver.command)
        .connect(Sdk::Node)?;
    let path = token::new();
    let answer = driver.go(&mut session, &format!("https://allowed.example/{path}"))?;
    ensure!(!answer.0, "{answer:?}");
    let page = session.call(driver.look, &json!({}))?;
    let request = world
        .requests()?
        .into_iter()
        .find(|request| request.line.ends_with(&path));
    let request = request.context("the page was never asked for")?;
    ensure!(page.text.contains(&request.answered), "{page:?}");

    let picture = session.call(driver.picture, &json!({}))?;
    ensure!(
        !picture.failed && picture.text.contains("image/png 89504e47"),
        "{picture:?}"
    );
    // Playwright's also leaves it in a file of the temporary folder, which the client opens.
    if let Some((_, rest)) = picture.text.split_once("[Screenshot of viewport](") {
        let path = rest.split(')').next().context("no path")?;
        ensure!(path.ends_with(".png") && path.contains("/tmp/pictures/"));
        let mut client = world.command("setpriv");
        client.args([&format!("--reuid={USER}"), &format!("--regid={USER}")]);
        client.args(["--clear-groups", "--", "cat", path]);
        let file = process::run(client, STEP)?;
        ensure!(file.stdout.starts_with(PNG), "{path}: {file:?}");
    } else {
        ensure!(driver.picture != PLAYWRIGHT.picture, "no file: {picture:?}");
    }

    let strange = token::new();
    let places = [
        ("giftshop.club", format!("https://giftshop.club/{strange}")),
        (
            "an address",
            format!("http://{}:9999/{strange}", zone::STRANGER),
        ),
    ];
    for (place, url) in places {
        let (failed, text) = driver.go(&mut session, &url)?;
        let told = ["ERR_NAME_NOT_RESOLVED", "ERR_ACCESS_DENIED"];
        ensure!(
            told.iter().any(|code| text.contains(code)),
            "{place}: {failed} {text}"
        );
    }
    if !agent::unconfined() {
        session.denial(&Denial::of_name("giftshop.club"))?;
        session.denial(&Denial::of_address(zone::STRANGER).port(9999))?;
    }
    // The page of the refusal may still be on its way, and come between.
    let mut said = String::new();
    let survived = (0..5).any(|_| {
        thread::sleep(Duration::from_millis(300));
        match driver.go(&mut session, "https://allowed.example/again") {
            Ok((failed, text)) => {
                said = text;
                !failed
            }
            Err(error) => {
                said = error.to_string();
                false
            }
        }
    });
    ensure!(survived, "the browser did not survive a refusal: {said}");
    let ended = session.end()?;
    world.fence()?;
    ensure!(world.sightings(&strange)?.is_empty(), "{ended}");
    ensure!(world.packets(zone::STRANGER)?.is_empty(), "{ended}");
    ensure!(ended.outcome.ok(), "{ended}");
    Ok(())
}

/// A browser without a server: says what its page holds.
fn page(world: &World, rules: &str, behind: Option<&str>, url: &str) -> Result<Report> {
    ensure!(
        Path::new(CHROMIUM).exists(),
        "there is no {CHROMIUM}; Debian: chromium"
    );
    let sandbox = if behind == Some(OWN_SANDBOX) {
        ""
    } else {
        "--no-sandbox"
    };
    let script = format!(
        "export HOME={}; exec {CHROMIUM} --headless --disable-gpu {sandbox} \
         --ignore-certificate-errors --virtual-time-budget=5000 --dump-dom {url}",
        world.dir().join("home").display()
    );
    let agent = world.agent(format!(
        "version: 1\nconnector: browser\nallow: [{rules}]\n"
    ));
    let agent = match behind {
        Some(line) => agent.behind(line),
        None => agent,
    };
    agent.run(&["/bin/sh", "-c", &script])
}

const OWN_SANDBOX: &str = r#"exec "$@""#;
const STRICT: &str = "allowed.example:443";

/// Chromium sends an encrypted hello to every server. The line names two remedies, and both are
/// some.
#[test]
fn the_remedies_for_encrypted_hellos() -> Result<()> {
    /// In a mount namespace of its own, where the browser has an operator's policy.
    const MANAGED: &str = r#"exec unshare --mount /bin/sh -c '
        mount -t tmpfs none /etc/chromium && mkdir -p /etc/chromium/policies/managed &&
        echo "{\"EncryptedClientHelloEnabled\": false}" >/etc/chromium/policies/managed/ech.json &&
        exec "$@"' managed "$@""#;
    let world = World::new()?;
    let url = || format!("https://allowed.example/{}", token::new());
    let refused = page(&world, STRICT, None, &url())?;
    if !agent::unconfined() {
        let line = refused.ensure_denied(&Denial::default().because(&["sni-encrypted"]))?;
        let message = line.rest.get("message").map(ToString::to_string);
        let message = message.unwrap_or_default();
        for remedy in ["ech: allow", "EncryptedClientHelloEnabled: false"] {
            ensure!(message.contains(remedy), "{message}: {refused}");
        }
    }
    let allowed = "{ host: allowed.example, ports: [443], ech: allow }";
    for (rules, behind) in [(allowed, None), (STRICT, Some(MANAGED))] {
        let url = url();
        let report = page(&world, rules, behind, &url)?;
        let requests = world.requests()?;
        let path = url.rsplit('/').next().context("no path")?;
        let request = requests.iter().find(|one| one.line.ends_with(path));
        let request = request.with_context(|| format!("{behind:?}: never asked for; {report}"))?;
        ensure!(report.text().contains(&request.answered), "{report}");
        let strict = Denial::default().because(&["sni-encrypted"]);
        ensure!(report.ensure_denied(&strict).is_err(), "{report}");
    }
    Ok(())
}

/// What the browser's own sandbox needs is told once, with what to do.
#[test]
fn the_browsers_own_sandbox_is_one_line() -> Result<()> {
    let world = World::new()?;
    let report = page(&world, STRICT, Some(OWN_SANDBOX), "about:blank")?;
    if agent::unconfined() {
        return Ok(());
    }
    ensure!(!report.outcome.ok(), "{report}");
    let denials = report.denials();
    let lines: Vec<_> = denials
        .iter()
        .filter(|event| event.reason.as_deref() == Some("namespace"))
        .collect();
    let [line] = lines.as_slice() else {
        anyhow::bail!("{} lines: {report}", lines.len());
    };
    let message = line.rest.get("message").map(ToString::to_string);
    let message = message.unwrap_or_default();
    for word in [
        "--no-sandbox",
        "docs/browsers.md",
        "boundary around it stays",
    ] {
        ensure!(message.contains(word), "{message}: {report}");
    }
    Ok(())
}

impl Driver {
    /// Leads the page to a URL: whether that failed, and what was said.
    fn go(&self, session: &mut Session, url: &str) -> Result<(bool, String)> {
        let (tool, arguments) = self.go;
        let answer = session.call(tool, &arguments(url))?;
        Ok((answer.failed, answer.text))
    }
}
