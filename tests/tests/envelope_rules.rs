//! What rules say of requests besides who they go to: how many there may be, and what may not be in
//! them.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use egress_tests::{event::Event, process, shell::Shell, world::World, zone};
use nix::sys::signal::Signal;

const API: &str = "api.postmarkapp.com";
/// What is refused is said within this time.
const SAID_WITHIN: Duration = Duration::from_secs(5);

/// A service that takes JSON, forms and anything else, and knows no recipients but of mails.
fn policy(inspect: &str, rest: &str) -> String {
    format!(
        "version: 1\nconnector: rules\nallow:\n  - host: {API}\n    ports: [443]\n    inspect:\n      \
         recipients: any\n{inspect}      operations:\n        - {{ id: read, method: GET, path: \
         \"/{{name...}}\" }}\n        - {{ id: send, method: POST, path: /email, body: json, \
         recipients: {{ mail: [/to] }}, destinations: {{ mail: [/reply] }} }}\n        - {{ id: \
         form, method: POST, path: /form, body: form }}\n        - {{ id: upload, method: PUT, path: \
         /file, body: any }}\n  - allowed.example:443\n{rest}"
    )
}

/// The status of what `curl` is answered with these options.
fn status(shell: &mut Shell, options: &str, path: &str) -> Result<String> {
    let url = format!("https://{API}{path}");
    let said = shell.run(&format!(
        "curl -sS --max-time 20 -o /dev/null -w '%{{http_code}}' {options} {url}"
    ))?;
    Ok(said.text)
}

fn mail(to: &str) -> String {
    format!(
        "-H 'Content-Type: application/json' -d '{{\"to\":\"{to}\",\"reply\":\"r@shop.example\"}}'"
    )
}

/// Waits for an operation that was refused, or would have been, for a reason.
fn told(shell: &Shell, verdict: &str, reason: &str) -> Result<Event> {
    let end = Instant::now() + process::patient(SAID_WITHIN);
    loop {
        let events = shell.confined.events()?;
        let fits = |event: &&Event| {
            let field = |name: &str| event.rest.get(name).cloned().unwrap_or_default();
            let refusals = field("refusals");
            let mut reasons = refusals.as_array().into_iter().flatten();
            field("verdict") == verdict && reasons.any(|refusal| refusal["reason"] == reason)
        };
        if let Some(event) = events.iter().find(fits) {
            return Ok(event.clone());
        }
        let stderr = shell.confined.agent.stderr();
        ensure!(Instant::now() < end, "no {verdict} {reason}: {stderr}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Requests that the API got.
fn arrived(world: &World) -> Result<usize> {
    let requests = world.requests()?.into_iter();
    Ok(requests
        .filter(|request| request.to.ip() == zone::POSTMARK)
        .count())
}

fn reload(shell: &Shell, file: &std::path::Path, text: &str, added: &str) -> Result<()> {
    fs::write(file, text)?;
    shell.confined.agent.signal(Signal::SIGHUP)?;
    let end = Instant::now() + process::patient(SAID_WITHIN);
    let took = |event: &Event| event.kind == "policy" && event.line.contains(added);
    while !shell.confined.events()?.iter().any(took) {
        ensure!(Instant::now() < end, "{}", shell.confined.agent.stderr());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn what_is_over_a_limit_is_refused_and_a_change_of_the_policy_forgets_nothing() -> Result<()> {
    let world = World::new()?;
    let file = world.path("policy.yaml");
    let limits =
        |requests: &str| format!("      limits: {{ requests: {requests}, recipients: 3/h }}\n");
    fs::write(&file, policy(&limits("3/d"), ""))?;
    let mut shell = world.agent("").shell_with_file(&file)?;
    // Over both versions of HTTP.
    for options in ["", "--http1.1", ""] {
        ensure!(
            status(&mut shell, options, "/server")? == "200",
            "{options}"
        );
    }
    for options in ["", "--http1.1"] {
        ensure!(
            status(&mut shell, options, "/server")? == "429",
            "{options}"
        );
    }
    let said = shell.run(&format!("curl -sSi --http1.1 https://{API}/server"))?;
    ensure!(said.text.contains("Retry-After: "), "{}", said.text);
    let line = told(&shell, "refused", "over-request-limit")?.line;
    ensure!(
        line.contains("limit of 3/d requests") && line.contains("\"status\":429"),
        "{line}"
    );
    ensure!(arrived(&world)? == 3);
    // Two more than before, of which one goes to somebody.
    reload(
        &shell,
        &file,
        &policy(&limits("5/d"), "  - other.example:443\n"),
        "other.example",
    )?;
    ensure!(status(&mut shell, &mail("a@shop.example"), "/email")? == "200");
    // One recipient more would be the fourth, with three of one mail, and is one request too many
    // for nobody yet.
    let three = mail("b@shop.example, c@shop.example, d@shop.example");
    ensure!(status(&mut shell, &three, "/email")? == "429");
    told(&shell, "refused", "over-recipient-limit")?;
    ensure!(
        status(
            &mut shell,
            &mail("b@shop.example, c@shop.example"),
            "/email"
        )? == "200"
    );
    ensure!(status(&mut shell, "", "/server")? == "429");
    ensure!(arrived(&world)? == 5);
    // All else goes on.
    let other = shell.run("curl -fsS --max-time 10 -o /dev/null https://allowed.example/")?;
    ensure!(other.code == 0, "{}", other.text);
    Ok(())
}

#[test]
fn bytes_are_limited_however_a_body_is_sent() -> Result<()> {
    let world = World::new()?;
    for (mode, expected, verdict) in [
        ("", "403", "refused"),
        ("      mode: report\n", "200", "would-refuse"),
    ] {
        let limits = format!("      limits: {{ bytes: 64KiB/h }}\n{mode}");
        let mut shell = world.agent(policy(&limits, "")).shell()?;
        shell
            .run("head -c 40000 /dev/zero > $TMPDIR/40k; head -c 70000 /dev/zero > $TMPDIR/70k")?;
        // Sent with a length, and without one in both versions.
        let chunks = "-H 'Transfer-Encoding: chunked'";
        for options in [
            "-T $TMPDIR/70k",
            &format!("--http1.1 {chunks} -T $TMPDIR/70k"),
            "-T - < $TMPDIR/70k",
        ] {
            ensure!(
                status(&mut shell, options, "/file")? == expected,
                "{options}"
            );
        }
        told(&shell, verdict, "over-byte-limit")?;
        if mode.is_empty() {
            ensure!(status(&mut shell, "-T $TMPDIR/40k", "/file")? == "200");
            ensure!(status(&mut shell, "-T $TMPDIR/40k", "/file")? == "429");
        }
    }
    Ok(())
}

const TOKEN: &str = "tk_7Fq2mZ9xLw4Rb8Nc";
const HEADER: &str = "      credentials: [header X-Token]\n";

fn content(rest: &str) -> String {
    format!("content: {{ refuse: [private-key, aws-access-key, own-secrets]{rest} }}\n")
}

#[test]
fn secrets_are_found_wherever_they_stand_and_pass_where_they_belong() -> Result<()> {
    let world = World::new()?;
    let text = policy(HEADER, &content(""));
    let mut shell = world
        .agent(text)
        .env("MAIL_TOKEN", TOKEN)
        .env("PLACE", "a-plain-place")
        .shell()?;
    let json = "-H 'Content-Type: application/json'";
    let encoded = "$(printf %s \"note: $MAIL_TOKEN\" | base64 -w0)";
    let pem = "-----BEGIN PRIVATE KEY-----";
    shell.run("printf 'AKIA%s' IOSFODNN7EXAMPLE > $TMPDIR/aws; gzip -k $TMPDIR/aws; printf 'plain text' > $TMPDIR/plain")?;
    let (first, rest) = TOKEN.split_at(5);
    let code = rest.bytes().next().unwrap_or_default();
    let escaped = format!(
        "{first}\\u00{code:02x}{}",
        rest.get(1..).unwrap_or_default()
    );
    let rows = [
        (
            format!("{json} -d '{{\"to\":\"a@b.example\",\"text\":\"{pem}\"}}'"),
            "/email",
        ),
        (
            format!("{json} -d '{{\"to\":\"a@b.example\",\"text\":\"{escaped}\"}}'"),
            "/email",
        ),
        (
            format!(
                "--http1.1 {json} -d \"{{\\\"to\\\":\\\"a@b.example\\\",\\\"text\\\":\\\"{encoded}\\\"}}\""
            ),
            "/email",
        ),
        ("-d x=\"$MAIL_TOKEN\"".to_owned(), "/form"),
        ("-T $TMPDIR/aws".to_owned(), "/file"),
        (
            "-T $TMPDIR/aws.gz -H 'Content-Encoding: gzip'".to_owned(),
            "/file",
        ),
        ("-H \"X-Other: $MAIL_TOKEN\"".to_owned(), "/server"),
        ("-H \"X-$MAIL_TOKEN: 1\"".to_owned(), "/server"),
        (String::new(), "/server?x=$MAIL_TOKEN"),
        (String::new(), "/server/$MAIL_TOKEN"),
        // Where it authenticates it stands once.
        (
            "-H \"X-Token: $MAIL_TOKEN\" -H \"User-Agent: $MAIL_TOKEN\"".to_owned(),
            "/server",
        ),
    ];
    for (options, path) in &rows {
        let status = status(&mut shell, options, path)?;
        ensure!(status == "403", "{options} {path}: {status}");
    }
    let line = told(&shell, "refused", "secret-in-request")?.line;
    ensure!(line.contains("private-key"), "{line}");
    ensure!(arrived(&world)? == 0);
    let events = shell.confined.events()?;
    let own = |event: &&Event| event.line.contains("own-secrets MAIL_TOKEN");
    ensure!(events.iter().filter(own).count() == 8, "{events:?}");
    let telling = events
        .iter()
        .find(|event| event.kind == "operation" && event.line.contains(&TOKEN[3..]));
    ensure!(telling.is_none(), "{telling:?}");
    // Where it belongs, and what is no secret.
    for (options, path) in [
        ("-H \"X-Token: $MAIL_TOKEN\"", "/server"),
        ("-H \"Authorization: Bearer $MAIL_TOKEN\"", "/server"),
        ("-T $TMPDIR/plain", "/file"),
        ("-H \"X-Place: $PLACE\"", "/server?token=none"),
        (&mail("a@b.example"), "/email"),
    ] {
        let status = status(&mut shell, options, path)?;
        ensure!(status == "200", "{options} {path}: {status}");
    }
    ensure!(arrived(&world)? == 5);
    Ok(())
}

#[test]
fn a_policy_says_where_a_secret_belongs() -> Result<()> {
    let world = World::new()?;
    let other = "  - { host: other.example, ports: [443], inspect: { unlisted: report } }\n";
    for (hosts, inspect, expected) in [
        // Anywhere at its host, and nowhere at another.
        (API, "", ["200", "200"]),
        ("other.example", "", ["403", "403"]),
        ("other.example", "      mode: report\n", ["200", "200"]),
    ] {
        let belongs = content(&format!(", belongs: {{ MAIL_TOKEN: [{hosts}] }}"));
        let text = policy(&format!("{HEADER}{inspect}"), &format!("{other}{belongs}"));
        let mut shell = world.agent(text).env("MAIL_TOKEN", TOKEN).shell()?;
        let header = status(&mut shell, "-H \"X-Token: $MAIL_TOKEN\"", "/server")?;
        let query = status(&mut shell, "", "/server?x=$MAIL_TOKEN")?;
        ensure!(
            [header.as_str(), &query] == expected,
            "{hosts}: {header} {query}"
        );
        if !inspect.is_empty() {
            told(&shell, "would-refuse", "secret-in-request")?;
        }
    }
    Ok(())
}
