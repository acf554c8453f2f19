//! Programs as they are: curl and Python.

use std::{io::Write as _, process::Stdio};

use tokio::process::Command;

use super::{
    twos::serves,
    world::{Certificate, NAME, World, echo, inspect},
};
use crate::envelope::{spec::Said, why::Why};

/// Runs a program with the proxy's authority in a file, and answers what it said and whether it
/// ended well.
async fn run(world: &World, program: &str, arguments: &[&str], trusts: bool) -> (String, bool) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    if trusts {
        file.write_all(world.shared.ca.pem().as_bytes()).unwrap();
    } else {
        let other = super::world::authority("its own");
        file.write_all(other.pem().as_bytes()).unwrap();
    }
    let path = file.path().to_str().unwrap();
    let (address, port) = (
        world.called.ip().to_string(),
        world.called.port().to_string(),
    );
    let filled = arguments.iter().map(|argument| {
        let argument = argument.replace("{ca}", path).replace("{name}", NAME);
        argument
            .replace("{address}", &address)
            .replace("{port}", &port)
    });
    let output = Command::new(program)
        .args(filled)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        String::from_utf8_lossy(&said).into_owned(),
        output.status.success(),
    )
}

const CURL: [&str; 11] = [
    "--silent",
    "--show-error",
    "--include",
    "--noproxy",
    "*",
    "--cacert",
    "{ca}",
    "--resolve",
    "{name}:{port}:{address}",
    "--max-time",
    "20",
];

#[tokio::test]
async fn curl_is_served() {
    let world = World::new(inspect("enforce"), echo).await;
    world.shared.ledger().operator("ann@example.org");
    let mut arguments = CURL.to_vec();
    arguments.extend([
        "--json",
        r#"{"To":"ann@example.org"}"#,
        "https://{name}:{port}/email",
    ]);
    let (said, _) = run(&world, "curl", &arguments, true).await;
    assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
    arguments.extend(["--json", r#","Bcc":"eve@example.net"}"#]);
    let (said, _) = run(&world, "curl", &arguments, true).await;
    assert!(said.contains("HTTP/1.1 403 Forbidden"), "{said}");
}

#[tokio::test]
async fn curl_without_the_authority_is_told_of() {
    let mut world = World::new(inspect("enforce"), echo).await;
    let mut arguments = CURL.to_vec();
    arguments.push("https://{name}:{port}/server");
    let (said, well) = run(&world, "curl", &arguments, false).await;
    assert!(!well, "{said}");
    assert!(matches!(world.lost().await, Why::Distrusted(_)));
    let (said, well) = run(&world, "curl", &arguments, true).await;
    assert!(well, "{said}");
    assert!(matches!(
        world.next().await,
        Said::Operation {
            status: Some(200),
            ..
        }
    ));
}

/// Strict about certificates since 3.13.
const PYTHON: &str = r#"
import http.client, socket, ssl, sys
ca, name, address, port = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
connection = http.client.HTTPSConnection(name, int(port), context=context)
connection._create_connection = lambda to, *rest: socket.create_connection((address, int(port)))
for method, path, body in [("GET", "/server", None), ("PUT", "/file", b"x" * 300000), ("GET", "/server", None)]:
    connection.request(method, path, body)
    answer = connection.getresponse()
    print(method, answer.status, len(answer.read()) > 300000)
"#;

#[tokio::test]
async fn python_is_served_on_one_connection() {
    let world = World::new(inspect("enforce"), echo).await;
    let arguments = ["-c", PYTHON, "{ca}", "{name}", "{address}", "{port}"];
    let (said, well) = run(&world, "python3", &arguments, true).await;
    assert!(well, "{said}");
    assert_eq!(said, "GET 200 False\nPUT 200 True\nGET 200 False\n");
}

#[tokio::test]
async fn curl_is_served_in_http_2() {
    let both = &["h2", "http/1.1"];
    let world = World::speaking(inspect("enforce"), serves, Certificate::Good, both).await;
    world.shared.ledger().operator("ann@example.org");
    for (to, expected) in [
        ("ann@example.org", "HTTP/2 200"),
        ("eve@example.net", "HTTP/2 403"),
    ] {
        let mut arguments = CURL.to_vec();
        let json = format!(r#"{{"To":"{to}"}}"#);
        arguments.extend(["--http2", "--json", &json, "https://{name}:{port}/email"]);
        let (said, well) = run(&world, "curl", &arguments, true).await;
        assert!(
            well && said.starts_with(expected) && said.contains(to),
            "{said}"
        );
    }
}

/// Both modules of Node.
const NODE: &str = r#"
const [ca, name, address, port, spoken] = process.argv.slice(1);
const https = require("https"), http2 = require("http2"), fs = require("fs");
const pem = fs.readFileSync(ca), size = 300000;
const lookup = (host, options, done) =>
  options.all ? done(null, [{ address, family: 4 }]) : done(null, address, 4);
const agent = new https.Agent({ keepAlive: true, ca: pem, lookup });
const old = (method, path, body) => new Promise((done, failed) => {
  const request = https.request({ agent, host: name, port, method, path }, (answer) => {
    let length = 0;
    answer.on("data", (piece) => (length += piece.length));
    answer.on("end", () => done(`${method} ${answer.statusCode} ${length >= size}`));
  });
  request.on("error", failed);
  request.end(body);
});
const session = spoken === "h2" && http2.connect("https://" + name + ":" + port, { ca: pem, lookup });
const now = (method, path, body) => new Promise((done, failed) => {
  const request = session.request({ ":method": method, ":path": path });
  let status, length = 0, trailer = "";
  request.on("response", (head) => (status = head[":status"]));
  request.on("data", (piece) => (length += piece.length));
  request.on("trailers", (fields) => (trailer = fields["grpc-status"]));
  request.on("end", () => done(`${method} ${status} ${length >= size} ${trailer}`));
  request.on("error", failed);
  request.end(body);
});
(async () => {
  const body = Buffer.alloc(size), ask = session ? now : old;
  console.log(await ask("GET", "/server"));
  console.log(await ask("PUT", "/file", body));
  console.log(await ask("GET", "/elsewhere"));
  if (session) session.close();
  agent.destroy();
})();
"#;

#[tokio::test]
async fn node_is_served_in_both() {
    let world = World::new(inspect("enforce"), echo).await;
    let mut arguments = ["-e", NODE, "{ca}", "{name}", "{address}", "{port}", ""];
    let (said, well) = run(&world, "node", &arguments, true).await;
    assert!(well, "{said}");
    assert_eq!(said, "GET 200 false\nPUT 200 true\nGET 403 false\n");

    let world = World::speaking(inspect("enforce"), serves, Certificate::Good, &["h2"]).await;
    arguments[6] = "h2";
    let (said, well) = run(&world, "node", &arguments, true).await;
    assert!(well, "{said}");
    assert_eq!(said, "GET 200 false \nPUT 200 true 0\nGET 403 false \n");
}
