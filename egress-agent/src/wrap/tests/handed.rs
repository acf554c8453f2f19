//! Texts as people and clients write them.

#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use super::{servers, there_and_back};
use crate::{
    scan::form::Form,
    wrap::{
        back::take,
        front::{Front, put},
        refused::Refused,
    },
};

const FRONT: Front<'_> = Front {
    agent: "egress-agent",
    connector: "a",
};

/// Puts the agent in front of the first server.
fn first(form: Form, text: &str) -> Result<String, Refused> {
    let (which, _) = servers(form, text).into_iter().next().unwrap();
    put(form, text, which, FRONT)
}

#[test]
fn what_is_put_in_keeps_the_layout() {
    for (form, text, expected) in [
        (
            Form::Json,
            "{ \"mcpServers\": { \"a\": { \"command\": \"npx\", \"args\": [\"-y\", \"x\"] } } }",
            "{ \"mcpServers\": { \"a\": { \"command\": \"egress-agent\", \"args\": [\"exec\", \"a\", \"--\", \"npx\", \"-y\", \"x\"] } } }",
        ),
        (
            Form::Json,
            "{\"mcpServers\":{\"a\":{\n  \"command\": \"node\" // c\n}}}",
            "{\"mcpServers\":{\"a\":{\n  \"command\": \"egress-agent\",\n  \"args\": [\"exec\", \"a\", \"--\", \"node\"] // c\n}}}",
        ),
        (
            Form::Json,
            "{\"mcp\":{\"a\":{\"command\":[\n\t\t\"npx\",\n\t\t\"x\",\n\t]}}}",
            "{\"mcp\":{\"a\":{\"command\":[\n\t\t\"egress-agent\",\n\t\t\"exec\",\n\t\t\"a\",\n\t\t\"--\",\n\t\t\"npx\",\n\t\t\"x\",\n\t]}}}",
        ),
        (
            Form::Toml,
            "[mcp_servers.a]\r\ncommand = 'npx' # c\r\n",
            "[mcp_servers.a]\r\nargs = [\"exec\", \"a\", \"--\", 'npx']\r\ncommand = \"egress-agent\" # c\r\n",
        ),
        (
            Form::Yaml,
            "mcpServers:\n  - name: a\n    command: npx\n    args:\n    # c\n    - -y # y\n    - x\n",
            "mcpServers:\n  - name: a\n    command: egress-agent\n    args:\n    # c\n    - exec\n    - \"a\"\n    - \"--\"\n    - npx\n    - -y # y\n    - x\n",
        ),
        (
            Form::Yaml,
            "extensions:\n  a:\n    cmd: npx -y x\n    args: []\n",
            "extensions:\n  a:\n    cmd: egress-agent exec a -- npx -y x\n    args: []\n",
        ),
    ] {
        assert_eq!(first(form, text).as_deref(), Ok(expected), "{text}");
        there_and_back(form, text).unwrap();
    }
}

#[test]
fn odd_texts_come_back_byte_for_byte() {
    let json = [
        "\u{feff}{\r\n\t\"mcpServers\" : {\r\n\t\t\"a\":{\"command\"\t:\t\"npx\"\t,\"args\" :[ ]}\r\n}}",
        "{\"mcpServers\":{\"a\":{\"args\":[],\"command\":\"n\\u006fde\"},},}",
        "{\"mcpServers\":{\"a\":{\"command\":\"node\",\"args\":[\"x\",],},\"a\":{\"command\":\"b\"}}}",
        "{\"mcpServers\":{\"a\":{\"args\":[/* none */],/**/\"command\":/* c */\"node\"/* d */}}}",
        "{\"mcpServers\":{\"a\":{\"args\":[// one\n\"x\"\n],\"command\":\"node\"}}} // end",
        "{\"mcpServers\":{\"ü😀\":{\"command\":\"/opt/ü/😀\",\"args\":[\"ü\"]}, \"r\":{\"url\":\"https://x\"}}}",
        "{\"mcpServers\":{\"a\":{\"command\":\"npx -y @x/y --flag \\\"a b\\\"\"}}}",
        "{\"mcpServers\":{\"a\":{\"command\":\"node\",\"args\":[1,true,null,{\"x\":[]},\"y\"]}}}",
        "{\"context_servers\":{\"a\":{\"command\":{\"path\":\"node\",\"args\":[\"x\"],\"env\":{}}}}}",
        "{\"context_servers\":{\"a\":{\"command\":{\"path\":\"node\"}, \"settings\": {}}}}",
        "{\"mcpServers\":[{\"name\":\"a\",\"transport\":{\"type\":\"stdio\",\"command\":\"node\",\"args\":[\"x\"]}}]}",
        "{\"mcp\":{\"servers\":{\"a\":{\"command\":\"node\"}}},\"projects\":{\"/x\":{\"mcpServers\":{\"b\":{\"command\":\"c\"}}}}}",
        "{\"mcp\":{\"a\":{\"type\":\"local\",\"command\":[\"x\"]},\"b\":{\"command\":[ /* c */ \"y\", \"z\" ]}}}",
        "{\"mcpServers\":{\"a\":{\"command\":\"node\",\"args\":[\"x\"\n,\"y\"\n]}}}",
        "{\"mcpServers\":{\"a\":{\n  \"command\": \"node\",\n  \"args\": []\n}}}",
        "{\"mcpServers\":{\"a\":{\n  \"args\": [],\n  \"command\": \"node\"\n}}}",
    ];
    let toml = [
        "[mcp_servers.a]\ncommand = \"npx\"\nargs = [\"-y\", \"x\"]\n[mcp_servers.b]\nurl = \"https://x\"\n",
        "[mcp_servers.a]\n  command=\"\"\"npx\"\"\" # c\n  args = [ # none\n  ]\n",
        "[mcp_servers]\na.command = 'x'\na . env . B = 'c'\n\"b c\".command='y'\n\"b c\".args=['z',]\n",
        "mcp_servers.a.command = 'x'\n[mcp_servers.'b']\ncommand = 'y'",
        "mcp_servers = { a = { command = 'x' }, b = { command = \"y\", args = [] } }\n",
        "[mcp_servers.a]\r\nargs = [\r\n  'x', # c\r\n  'y',\r\n]\r\ncommand = 'z'\r\n",
        "[profiles.p.mcp_servers.'ü']\ncommand = 'ü'\nargs = ['😀']\n",
        "[mcp_servers.a]\ncommand = 'npx'\n\n\n[mcp_servers.a.env]\nX = 'y'\n",
    ];
    let yaml = [
        "mcpServers:\n- name: a\n  command: npx\n- command: \"node\"\n  name: b\n  args: [x, 'y', \"z\"]\n- command: c\n",
        "\u{feff}# c\r\nmcpServers:\r\n  a:\r\n    command: npx\r\n    args:\r\n      - -y\r\n      - \"x\"\r\n",
        "extensions:\n  a: {cmd: npx, args: [], enabled: true}\n  b: { cmd: npx }\n  c: {cmd: npx, args: [&x y, *x]}\n",
        "x: &x [a]\nmcpServers:\n  ü: {command: ü, args: [😀]}\n  b:\n    args:\n\n    - z\n    command: 'it''s'\n",
        "mcpServers:\n  a:\n    command: npx # c\n    env: &e\n      A: b\n  b:\n    command: npx\n    env: *e\n    args:\n      - |\n        text\n      - y\n",
        "{\"mcpServers\": {\"a\": {\"command\": \"npx\", \"args\": [\"x\"]}, \"b\": {\"command\": \"y\"}}}\n",
        "---\nmcpServers:\n  a:\n    \"command\": npx\n    'args': []\n...\n",
        "base: &base\n  env: {A: b}\nmcpServers:\n  a:\n    <<: *base\n    command: npx\n    args: [x]\n",
        "mcpServers:\n  a:\n    command: &c x\n    args: &a [y]\n  b:\n    command: *c\n    args: &b\n    - &d-e z\n",
        "p: &p npx\nmcpServers:\n  a:\n    command: *p\n    args: [x]\n  b:\n    command: *p\n",
    ];
    for (form, texts) in [
        (Form::Json, &json[..]),
        (Form::Toml, &toml[..]),
        (Form::Yaml, &yaml[..]),
    ] {
        for text in texts {
            if let Err(refused) = there_and_back(form, text) {
                panic!("{refused}:\n{text}");
            }
        }
    }
}

#[test]
fn what_would_change_something_else_is_left_alone() {
    for (form, text, why) in [
        (
            Form::Json,
            "{\"mcpServers\":{\"a\":{\"command\":\"x\",\"command\":\"y\"}}}",
            Refused::Twice,
        ),
        (
            Form::Json,
            "{\"mcpServers\":{\"a\":{\"command\":\"x\",\"args\":null}}}",
            Refused::NoList,
        ),
        (
            Form::Json,
            "{\"mcpServers\":{\"a\":{\"command\":\"x\",\"args\":\"y\"}}}",
            Refused::NoList,
        ),
        (
            Form::Json,
            "{\"mcpServers\":{\"a\":{\"command\":42,\"url\":\"https://x\"}}}",
            Refused::Nothing,
        ),
        (
            Form::Yaml,
            "mcpServers:\n  a: &a\n    command: x\n    args: [y]\n  b: *a\n",
            Refused::Shared,
        ),
        (
            Form::Yaml,
            "x: &x [a]\nmcpServers:\n  a:\n    command: x\n    args: *x\n",
            Refused::Shared,
        ),
        (
            Form::Yaml,
            "mcpServers:\n  a:\n    command: >-\n      x\n    args: [y]\n",
            Refused::Lines,
        ),
        (
            Form::Toml,
            "[mcp_servers.a]\ncommand = \"\"\"\\\n  x\"\"\"\n",
            Refused::Lines,
        ),
    ] {
        assert_eq!(first(form, text), Err(why), "{text}");
    }
}

/// A client that writes its file anew keeps what it says and nothing of its layout.
#[test]
fn a_text_that_was_written_anew_goes_back_to_what_it_said() {
    let text = r#"{"mcpServers":{"a":{"command":"node"},"b":{"command":"npx","args":["x"]}}}"#;
    let there = there_and_back(Form::Json, text).unwrap();
    let anew: serde_json::Value = serde_json::from_str(&there).unwrap();
    let mut back = serde_json::to_string_pretty(&anew).unwrap();
    for (which, _) in servers(Form::Json, &back) {
        back = take(Form::Json, &back, which).unwrap().text;
    }
    let read: serde_json::Value = serde_json::from_str(&back).unwrap();
    assert_eq!(
        read,
        serde_json::from_str::<serde_json::Value>(text).unwrap()
    );
}

#[test]
fn only_what_was_put_there_is_taken_away() {
    for words in [
        r#""command": "node", "args": ["x"]"#,
        r#""command": "egress-agent", "args": ["run", "a", "--", "x"]"#,
        r#""command": "egress-agent", "args": ["exec", "a"]"#,
        r#""command": "egress-agent", "args": ["exec", "a", "--"]"#,
        r#""command": "my-egress-agent", "args": ["exec", "a", "--", "x"]"#,
        r#""command": "sudo", "args": ["egress-agent", "exec", "a", "--", "x"]"#,
    ] {
        let text = format!("{{\"mcpServers\": {{\"a\": {{{words}}}}}}}");
        let (which, _) = servers(Form::Json, &text).remove(0);
        assert_eq!(
            take(Form::Json, &text, which),
            Err(Refused::OtherWay),
            "{text}"
        );
    }
}
