//! Programs as they are: curl and Python.

use std::{io::Write as _, process::Stdio};

use tokio::process::Command;

use super::world::{NAME, World, echo, inspect};
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
