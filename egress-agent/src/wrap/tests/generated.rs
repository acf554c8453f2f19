//! Texts that nobody thought of.

use proptest::prelude::*;

use super::there_and_back;
use crate::{scan::form::Form, wrap::refused::Refused};

/// Blanks, line ends and comments between two tokens of JSON.
fn gap() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => Just(String::new()),
        3 => Just(" ".to_owned()),
        1 => Just("\t".to_owned()),
        2 => Just("\n  ".to_owned()),
        1 => Just("\r\n\t".to_owned()),
        1 => Just("/* [\"{ */".to_owned()),
        1 => Just("// \"c\n".to_owned()),
    ];
    prop::collection::vec(part, 1..3).prop_map(|parts| parts.concat())
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z/.@=-]{1,8}",
        "[a-zü😀 ]{1,6}",
        Just("a\\u0022\\\\b".to_owned()),
        Just("--".to_owned()),
        Just("exec".to_owned()),
        Just("${x}".to_owned()),
    ]
    .prop_map(|text| format!("\"{text}\""))
}

/// Values with gaps around them, in brackets, with or without a trailing comma.
fn list(items: Vec<String>, gaps: &[String], trailing: bool) -> String {
    let gap = |at: usize| gaps.get(at % gaps.len()).cloned().unwrap_or_default();
    let mut text = format!("[{}", gap(0));
    for (at, item) in items.iter().enumerate() {
        let comma = if trailing || at + 1 < items.len() {
            ","
        } else {
            ""
        };
        text += &format!("{item}{}{comma}{}", gap(2 * at + 1), gap(2 * at + 2));
    }
    text + "]"
}

prop_compose! {
    /// A server in JSON.
    fn entry()(
        command in text(),
        args in prop::option::of(prop::collection::vec(text(), 0..6)),
        gaps in prop::collection::vec(gap(), 9),
        trailing: (bool, bool),
        first: bool,
        as_list: bool,
        more in prop::option::of(Just("\"env\": {\"A\": \"b, ]\"}".to_owned())),
    ) -> String {
        let gap = |at: usize| gaps.get(at).cloned().unwrap_or_default();
        let mut parts = Vec::new();
        if as_list {
            let mut words = vec![command];
            words.extend(args.unwrap_or_default());
            parts.push(format!("\"command\"{}:{}{}", gap(1), gap(2), list(words, &gaps, trailing.0)));
        } else {
            parts.push(format!("\"command\"{}:{}{command}", gap(1), gap(2)));
            if let Some(args) = args {
                let args = format!("\"args\"{}:{}{}", gap(3), gap(4), list(args, &gaps, trailing.0));
                parts.insert(usize::from(first), args);
            }
        }
        parts.extend(more);
        let comma = if trailing.1 { "," } else { "" };
        let inner = parts.join(&format!("{},{}", gap(5), gap(6)));
        format!("{{{}{inner}{}{comma}{}}}", gap(0), gap(7), gap(8))
    }
}

fn json() -> impl Strategy<Value = String> {
    (prop::collection::vec(entry(), 1..4), any::<bool>(), gap()).prop_map(|(entries, mark, gap)| {
        let named = entries.iter().zip(0..);
        let named: Vec<_> = named
            .map(|(entry, at)| format!("\"s{at}\": {entry}"))
            .collect();
        let mark = if mark { "\u{feff}" } else { "" };
        format!(
            "{mark}{gap}{{\"mcpServers\":{{{}}}{gap}}}",
            named.join(&format!(",{gap}"))
        )
    })
}

/// TOML, from pieces that can each stand beside the others.
fn toml() -> impl Strategy<Value = String> {
    let command = prop::sample::select(vec![
        "command = \"npx\"",
        "command='x y/z'",
        "  command = 'ü' # c",
        "\"command\" = \"a\\\"b\"",
        "command = '''q'''",
    ]);
    let args = prop::sample::select(vec![
        "",
        "args = []",
        "args = [ ] # none",
        "args=['x']",
        "args = [\n  'x', # [\n  \"y\",\n]",
        "args = [ # c\n]",
        "'args' = [\"\"\"\nm\"\"\"]",
    ]);
    let end = prop::sample::select(vec!["\n", "\r\n"]);
    (
        prop::collection::vec((command, args, any::<bool>()), 1..4),
        end,
    )
        .prop_map(|(servers, end)| {
            let mut text = String::from("# c\nx = 1\n");
            for ((command, args, first), at) in servers.into_iter().zip(0..) {
                let [one, two] = if first {
                    [args, command]
                } else {
                    [command, args]
                };
                text += &format!("\n[mcp_servers.s{at}]\n{one}\n{two}\nenv = {{ A = 'b' }}\n");
            }
            text.replace('\n', end)
        })
}

/// The same of YAML.
fn yaml() -> impl Strategy<Value = String> {
    let command = prop::sample::select(vec![
        "npx",
        "\"npx\" # c",
        "'it''s'",
        "npx -y x",
        "ü",
        "/opt/a",
    ]);
    let args = prop::sample::select(vec![
        "",
        "args: []",
        "args: [x, \"y\"] # c",
        "args:\n- x\n- y",
        "args:\n  # c\n  - 'x'\n\n  - |\n    y\n  - {a: b}",
        "args: [\n  x,\n  y ]",
        "args: [ # c\n x]",
    ]);
    let end = prop::sample::select(vec!["\n", "\r\n"]);
    let server = (command, args, any::<bool>());
    (prop::collection::vec(server, 1..4), any::<bool>(), end).prop_map(|(servers, list, end)| {
        let mut text = String::from("# ü\nmcpServers:\n");
        for ((command, args, first), at) in servers.into_iter().zip(0..) {
            let command = format!("command: {command}");
            let both = if first {
                [args.to_owned(), command]
            } else {
                [command, args.to_owned()]
            };
            let lines = both.join("\n");
            let lines: Vec<&str> = lines.lines().filter(|line| !line.is_empty()).collect();
            text += &match list {
                true => format!("- {}\n  name: s{at}\n", lines.join("\n  ")),
                false => format!("  s{at}:\n      {}\n", lines.join("\n      ")),
            };
        }
        text.replace('\n', end)
    })
}

/// An odd text may be refused, never be changed into another or not come back.
fn holds(form: Form, text: &str) -> Result<(), TestCaseError> {
    match there_and_back(form, text) {
        Ok(_) => Ok(()),
        Err(refused) => Err(TestCaseError::fail(format!("{refused}\n{text}"))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn json_comes_back(text in json()) {
        holds(Form::Json, &text)?;
    }

    #[test]
    fn toml_comes_back(text in toml()) {
        holds(Form::Toml, &text)?;
    }

    #[test]
    fn yaml_comes_back(text in yaml()) {
        holds(Form::Yaml, &text)?;
    }

    /// Damage anywhere is refused or comes back; it never ends in another text.
    #[test]
    fn damage_is_refused_or_comes_back(text in json(), at in 0_usize..400, with in "[\\[\\]{},:\"/*x ]") {
        let mut damaged = text;
        if let Some((at, _)) = damaged.char_indices().nth(at) {
            damaged.insert_str(at, &with);
        }
        if crate::scan::form::read(Form::Json, &damaged).is_ok() {
            match there_and_back(Form::Json, &damaged) {
                Ok(_) | Err(Refused::Twice | Refused::NoList | Refused::Shared | Refused::Nothing) => {}
                Err(refused) => prop_assert!(false, "{refused}\n{damaged}"),
            }
        }
    }
}
