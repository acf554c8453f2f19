//! Calls in JSON-RPC, and transactions of Ethereum in them: which are read, and which are not.

use super::world::{JSON, all_pass, all_refused, post};
use crate::judge::Reason::{
    self, RecipientNotInCall, UnlistedOperation, UnreadableBody, UnreadableRecipient,
};

/// Named in a call, and not named.
const OWN: [u8; 20] = [0x35; 20];
const EVE: [u8; 20] = [0xee; 20];

/// The example of EIP-155, to [`OWN`].
const EXAMPLE: &str = "0xf86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a028ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83";

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}

fn head(short: u8, length: usize) -> Vec<u8> {
    let bytes = length.to_be_bytes();
    let digits: Vec<u8> = bytes
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect();
    match (u8::try_from(length), u8::try_from(digits.len())) {
        (Ok(length), _) if length <= 55 => vec![short + length],
        (_, Ok(count)) => [vec![short + 55 + count], digits].concat(),
        (_, Err(_)) => Vec::new(),
    }
}

fn bytes(text: &[u8]) -> Vec<u8> {
    match text {
        [0..=0x7f] => text.to_vec(),
        _ => [head(0x80, text.len()), text.to_vec()].concat(),
    }
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let held = items.concat();
    [head(0xc0, held.len()), held].concat()
}

fn numbers(count: usize) -> Vec<Vec<u8>> {
    vec![bytes(&[9, 0]); count]
}

/// Of before EIP-2718.
fn legacy(to: &[u8], data: &[u8]) -> Vec<u8> {
    let own = vec![bytes(to), bytes(&[]), bytes(data)];
    list(&[numbers(3), own, numbers(3)].concat())
}

/// Of EIP-2930 (1) and 1559 (2), with a list of accounts that are read.
fn typed(kind: u8, to: &[u8], data: &[u8]) -> Vec<u8> {
    let access = list(&[list(&[bytes(&EVE), list(&[bytes(&[7; 32])])])]);
    let own = vec![bytes(to), bytes(&[]), bytes(data), access];
    let before = usize::from(kind) + 3;
    [
        vec![kind],
        list(&[numbers(before), own, numbers(3)].concat()),
    ]
    .concat()
}

fn word(account: &[u8; 20]) -> Vec<u8> {
    [vec![0; 12], account.to_vec()].concat()
}

fn call(selector: [u8; 4], words: &[Vec<u8>]) -> Vec<u8> {
    [selector.to_vec(), words.concat()].concat()
}

fn transfer(account: &[u8; 20]) -> Vec<u8> {
    call([0xa9, 0x05, 0x9c, 0xbb], &[word(account), vec![1; 32]])
}

fn send(bytes: &[u8]) -> Vec<u8> {
    raw(&hex(bytes))
}

fn raw(text: &str) -> Vec<u8> {
    rpc("eth_sendRawTransaction", &format!(r#"["{text}"]"#))
}

fn unsigned(fields: &str) -> Vec<u8> {
    rpc("eth_sendTransaction", &format!("[{fields}]"))
}

fn rpc(method: &str, params: &str) -> Vec<u8> {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    post("/chain", JSON, &body)
}

#[test]
fn calls_that_pass() {
    let own = hex(&OWN);
    let data = hex(&transfer(&OWN));
    let zero = vec![0; 32];
    all_pass(&[
        ("the example", raw(EXAMPLE)),
        (
            "in capitals",
            raw(&EXAMPLE.to_uppercase().replacen("0X", "0x", 1)),
        ),
        ("before types", send(&legacy(&OWN, &[]))),
        ("type 1", send(&typed(1, &OWN, &[]))),
        ("type 2", send(&typed(2, &OWN, &[]))),
        ("of a token", send(&typed(2, &OWN, &transfer(&OWN)))),
        (
            "of another one's tokens",
            send(&legacy(
                &OWN,
                &call(
                    [0x23, 0xb8, 0x72, 0xdd],
                    &[word(&EVE), word(&OWN), zero.clone()],
                ),
            )),
        ),
        (
            "an allowance",
            send(&legacy(
                &OWN,
                &call([0x09, 0x5e, 0xa7, 0xb3], &[word(&OWN), vec![0xff; 32]]),
            )),
        ),
        (
            "an item",
            send(&legacy(
                &OWN,
                &call(
                    [0xb8, 0x8d, 0x4f, 0xde],
                    &[
                        word(&EVE),
                        word(&OWN),
                        zero.clone(),
                        zero.clone(),
                        zero.clone(),
                    ],
                ),
            )),
        ),
        ("wrapping", send(&legacy(&OWN, &[0xd0, 0xe3, 0x0d, 0xb0]))),
        (
            "unwrapping",
            send(&legacy(
                &OWN,
                &call([0x2e, 0x1a, 0x7d, 0x4d], &[vec![1; 32]]),
            )),
        ),
        (
            "unsigned",
            unsigned(&format!(
                r#"{{"from":"{own}","to":"{own}","value":"0x1","gas":"0x5208"}}"#
            )),
        ),
        (
            "unsigned, of a token",
            unsigned(&format!(
                r#"{{"to":"{own}","data":"{data}","input":"{data}"}}"#
            )),
        ),
        (
            "without data",
            unsigned(&format!(r#"{{"to":"{own}","data":"0x","input":null}}"#)),
        ),
        ("another method", rpc("eth_blockNumber", "[]")),
        (
            "by a number",
            post(
                "/rpc",
                JSON,
                r#"{"jsonrpc":"2.0","method":"pay","params":[{"to":"acct1"}],"id":"a"}"#,
            ),
        ),
        (
            "without parameters",
            post(
                "/chain",
                JSON,
                r#"{"method":"eth_blockNumber","id":7,"jsonrpc":"2.0"}"#,
            ),
        ),
        (
            "a notification",
            post("/rpc", JSON, r#"{"jsonrpc":"2.0","method":"balance"}"#),
        ),
        (
            "a batch",
            post(
                "/rpc",
                JSON,
                r#"[{"jsonrpc":"2.0","id":1,"method":"balance"},{"jsonrpc":"2.0","id":2,"method":"pay","params":[{"to":"acct1"}]}]"#,
            ),
        ),
    ]);
}

#[test]
fn strangers_in_calls() {
    let (own, eve) = (hex(&OWN), hex(&EVE));
    let token = |data: &[u8]| send(&typed(2, &OWN, data));
    let zero = vec![0; 32];
    let data = hex(&transfer(&EVE));
    let rows = [
        ("before types", send(&legacy(&EVE, &[]))),
        ("type 1", send(&typed(1, &EVE, &[]))),
        ("type 2", send(&typed(2, &EVE, &[]))),
        ("an unknown contract", send(&legacy(&EVE, &transfer(&OWN)))),
        ("a token", token(&transfer(&EVE))),
        (
            "an allowance",
            token(&call([0x09, 0x5e, 0xa7, 0xb3], &[word(&EVE), zero.clone()])),
        ),
        (
            "more allowance",
            token(&call([0x39, 0x50, 0x93, 0x51], &[word(&EVE), zero.clone()])),
        ),
        (
            "less allowance",
            token(&call([0xa4, 0x57, 0xc2, 0xd7], &[word(&EVE), zero.clone()])),
        ),
        (
            "another one's tokens",
            token(&call(
                [0x23, 0xb8, 0x72, 0xdd],
                &[word(&OWN), word(&EVE), zero.clone()],
            )),
        ),
        (
            "an item",
            token(&call(
                [0x42, 0x84, 0x2e, 0x0e],
                &[word(&OWN), word(&EVE), zero.clone()],
            )),
        ),
        (
            "an item with data",
            token(&call(
                [0xb8, 0x8d, 0x4f, 0xde],
                &[
                    word(&OWN),
                    word(&EVE),
                    zero.clone(),
                    zero.clone(),
                    zero.clone(),
                    zero.clone(),
                ],
            )),
        ),
        (
            "some items",
            token(&call(
                [0xf2, 0x42, 0x43, 0x2a],
                &[
                    word(&OWN),
                    word(&EVE),
                    zero.clone(),
                    zero.clone(),
                    zero.clone(),
                    zero.clone(),
                ],
            )),
        ),
        (
            "all items",
            token(&call([0xa2, 0x2c, 0xb4, 0x65], &[word(&EVE), zero.clone()])),
        ),
        ("unsigned", unsigned(&format!(r#"{{"to":"{eve}"}}"#))),
        (
            "unsigned, in capitals",
            unsigned(&format!(r#"{{"to":"{}"}}"#, eve.replace('e', "E"))),
        ),
        (
            "unsigned, of a token",
            unsigned(&format!(r#"{{"to":"{own}","data":"{data}"}}"#)),
        ),
        (
            "unsigned, as input",
            unsigned(&format!(r#"{{"to":"{own}","input":"{data}"}}"#)),
        ),
        (
            "by an index",
            post(
                "/rpc",
                JSON,
                r#"{"jsonrpc":"2.0","id":1,"method":"pay","params":[{"to":"eve"}]}"#,
            ),
        ),
        (
            "by a name",
            post(
                "/rpc",
                JSON,
                r#"{"jsonrpc":"2.0","id":1,"method":"pay","params":{"to":"eve"}}"#,
            ),
        ),
        (
            "by a number",
            post(
                "/rpc",
                JSON,
                r#"{"jsonrpc":"2.0","id":1,"method":"pay","params":{"0":{"to":"eve"}}}"#,
            ),
        ),
        (
            "as a list",
            post(
                "/rpc",
                JSON,
                r#"{"jsonrpc":"2.0","id":1,"method":"pay","params":[[{"TO":"eve"}]]}"#,
            ),
        ),
        (
            "the last of a batch",
            post(
                "/rpc",
                JSON,
                r#"[{"jsonrpc":"2.0","id":1,"method":"balance"},{"jsonrpc":"2.0","id":2,"method":"pay","params":[{"to":"eve"}]}]"#,
            ),
        ),
    ];
    all_refused(&rows.map(|(name, request)| (name, request, RecipientNotInCall)));
    all_refused(&[
        (
            "an unknown method",
            rpc("eth_sign", "[]"),
            UnlistedOperation,
        ),
        (
            "in other case",
            rpc("ETH_BLOCKNUMBER", "[]"),
            UnlistedOperation,
        ),
        (
            "a blank behind it",
            rpc("eth_blockNumber ", "[]"),
            UnlistedOperation,
        ),
        ("of another path", rpc("pay", "[]"), UnlistedOperation),
        (
            "in a batch",
            post(
                "/rpc",
                JSON,
                r#"[{"jsonrpc":"2.0","id":1,"method":"balance"},{"jsonrpc":"2.0","id":2,"method":"sweep"}]"#,
            ),
            UnlistedOperation,
        ),
        (
            "no account",
            post(
                "/rpc",
                JSON,
                r#"{"jsonrpc":"2.0","method":"pay","params":[{"to":"a b"}]}"#,
            ),
            UnreadableRecipient,
        ),
    ]);
}

#[test]
fn calls_that_are_no_proper_ones() {
    let bodies = [
        ("no call", "{}"),
        ("an empty batch", "[]"),
        (
            "a batch of a batch",
            r#"[[{"jsonrpc":"2.0","method":"balance"}]]"#,
        ),
        ("a text", r#""balance""#),
        (
            "a text in a batch",
            r#"[{"jsonrpc":"2.0","method":"balance"},"pay"]"#,
        ),
        ("no version", r#"{"method":"balance","id":1}"#),
        (
            "another version",
            r#"{"jsonrpc":"1.0","method":"balance","id":1}"#,
        ),
        (
            "a number as version",
            r#"{"jsonrpc":2.0,"method":"balance","id":1}"#,
        ),
        ("no method", r#"{"jsonrpc":"2.0","id":1}"#),
        (
            "a method in other case",
            r#"{"jsonrpc":"2.0","Method":"balance"}"#,
        ),
        (
            "two methods",
            r#"{"jsonrpc":"2.0","method":"balance","Method":"pay"}"#,
        ),
        (
            "two methods, the same",
            r#"{"jsonrpc":"2.0","method":"balance","method":"pay"}"#,
        ),
        (
            "a list as method",
            r#"{"jsonrpc":"2.0","method":["balance"]}"#,
        ),
        (
            "another key",
            r#"{"jsonrpc":"2.0","method":"balance","auth":"x"}"#,
        ),
        (
            "two parameters",
            r#"{"jsonrpc":"2.0","method":"balance","params":[],"Params":[]}"#,
        ),
        (
            "a text as parameters",
            r#"{"jsonrpc":"2.0","method":"balance","params":"x"}"#,
        ),
        (
            "an object as id",
            r#"{"jsonrpc":"2.0","method":"balance","id":{}}"#,
        ),
        (
            "two documents",
            r#"{"jsonrpc":"2.0","method":"balance"}{"jsonrpc":"2.0","method":"pay"}"#,
        ),
    ];
    let many = format!(
        "[{}]",
        vec![r#"{"jsonrpc":"2.0","method":"balance"}"#; 1001].join(",")
    );
    let own = bodies.iter().copied().chain([("many", many.as_str())]);
    let rows: Vec<_> = own
        .map(|(name, body)| (name, post("/rpc", JSON, body), UnreadableBody))
        .collect();
    all_refused(&rows);
    all_refused(&[(
        "as a text",
        post("/rpc", "text/plain", "{}"),
        UnreadableBody,
    )]);
}

#[test]
fn transactions_that_are_not_read() {
    let own = hex(&OWN);
    let good = legacy(&OWN, &[]);
    let token = |data: &[u8]| send(&legacy(&OWN, data));
    let zero = vec![0; 32];
    let dirty = [vec![1; 12], OWN.to_vec()].concat();
    let with = |fields: &[Vec<u8>]| send(&list(fields));
    let parts = |to: Vec<u8>, rest: Vec<Vec<u8>>| [numbers(3), vec![to], rest].concat();
    let rest = || [vec![bytes(&[]), bytes(&[])], numbers(3)].concat();
    // The length of 41 bytes needs no byte of its own.
    assert_eq!(good.first(), Some(&(0xc0 + 41)));
    let longer = [&[0xf8, 41], good.get(1..).unwrap_or_default()].concat();
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("something behind", send(&[good.clone(), vec![0]].concat())),
        ("two", send(&[good.clone(), legacy(&EVE, &[])].concat())),
        ("cut", send(good.get(..good.len() - 1).unwrap_or_default())),
        ("a long length", send(&longer)),
        ("nothing", raw("0x")),
        ("no digits", raw("0xzz")),
        ("half a byte", raw(EXAMPLE.trim_end_matches('3'))),
        ("no prefix", raw(EXAMPLE.trim_start_matches("0x"))),
        ("a capital prefix", raw(&EXAMPLE.replacen("0x", "0X", 1))),
        ("a blank", raw(&format!(" {EXAMPLE}"))),
        ("a text", rpc("eth_sendRawTransaction", "[\"x\"]")),
        ("a number", rpc("eth_sendRawTransaction", "[1]")),
        ("null", rpc("eth_sendRawTransaction", "[null]")),
        ("no parameter", rpc("eth_sendRawTransaction", "[]")),
        (
            "by a name",
            rpc(
                "eth_sendRawTransaction",
                &format!(r#"{{"data":"{EXAMPLE}"}}"#),
            ),
        ),
        (
            "in a list",
            rpc("eth_sendRawTransaction", &format!(r#"[["{EXAMPLE}"]]"#)),
        ),
        ("blobs", send(&typed(3, &OWN, &[]))),
        ("accounts handed over", send(&typed(4, &OWN, &[]))),
        ("an unknown type", send(&typed(5, &OWN, &[]))),
        ("type 0", send(&[vec![0], good.clone()].concat())),
        (
            "type 2 as 3",
            send(&[vec![3], typed(2, &OWN, &[]).split_off(1)].concat()),
        ),
        (
            "type 2 as 4",
            send(&[vec![4], typed(2, &OWN, &[]).split_off(1)].concat()),
        ),
        (
            "bytes for the list",
            send(&{
                let own = vec![bytes(&OWN), bytes(&[]), bytes(&[]), bytes(&[])];
                [vec![2], list(&[numbers(5), own, numbers(3)].concat())].concat()
            }),
        ),
        (
            "type 1 as 2",
            send(&[vec![2], typed(1, &OWN, &[]).split_off(1)].concat()),
        ),
        ("type 2 as none", send(&typed(2, &OWN, &[]).split_off(1))),
        ("a contract is made", send(&legacy(&[], &[0x60, 0x80]))),
        ("a short account", send(&legacy(&[0x35; 19], &[]))),
        ("a long account", send(&legacy(&[0x35; 32], &[]))),
        (
            "an account as a list",
            with(&parts(list(&[bytes(&OWN)]), rest())),
        ),
        (
            "a list as a number",
            with(&[vec![list(&[])], numbers(2), vec![bytes(&OWN)], rest()].concat()),
        ),
        (
            "a zero before a number",
            with(&[vec![bytes(&[0, 9])], numbers(2), vec![bytes(&OWN)], rest()].concat()),
        ),
        (
            "a long number",
            with(&[vec![bytes(&[9; 33])], numbers(2), vec![bytes(&OWN)], rest()].concat()),
        ),
        (
            "a field too many",
            with(&[parts(bytes(&OWN), rest()), numbers(1)].concat()),
        ),
        (
            "a field too few",
            with(
                &[
                    numbers(3),
                    vec![bytes(&OWN), bytes(&[]), bytes(&[])],
                    numbers(2),
                ]
                .concat(),
            ),
        ),
        (
            "a byte in two",
            with(&[vec![vec![0x81, 9]], numbers(2), vec![bytes(&OWN)], rest()].concat()),
        ),
        ("an unknown call", token(&call([1, 2, 3, 4], &[word(&OWN)]))),
        (
            "several calls",
            token(&call(
                [0xac, 0x96, 0x50, 0xd8],
                &[zero.clone(), zero.clone()],
            )),
        ),
        ("half a call", token(&[0xa9, 0x05, 0x9c])),
        ("a call of nothing", token(&[0xa9, 0x05, 0x9c, 0xbb])),
        (
            "a call with a word too few",
            token(&call([0xa9, 0x05, 0x9c, 0xbb], &[word(&OWN)])),
        ),
        (
            "a call with a word more",
            token(&call(
                [0xa9, 0x05, 0x9c, 0xbb],
                &[word(&OWN), zero.clone(), zero.clone()],
            )),
        ),
        (
            "a call with a byte less",
            token(transfer(&OWN).get(..67).unwrap_or_default()),
        ),
        (
            "a call with a byte more",
            token(&[transfer(&OWN), vec![0]].concat()),
        ),
        (
            "a dirty account",
            token(&call([0xa9, 0x05, 0x9c, 0xbb], &[dirty, zero.clone()])),
        ),
        ("unsigned, to nobody", unsigned(r#"{"data":"0x6080"}"#)),
        (
            "unsigned, to null",
            unsigned(r#"{"to":null,"value":"0x1"}"#),
        ),
        ("unsigned, a name", unsigned(r#"{"to":"own.eth"}"#)),
        (
            "unsigned, in other case",
            unsigned(&format!(r#"{{"To":"{own}"}}"#)),
        ),
        (
            "unsigned, two receivers",
            unsigned(&format!(r#"{{"to":"{own}","TO":"{}"}}"#, hex(&EVE))),
        ),
        (
            "unsigned, two data",
            unsigned(&format!(
                r#"{{"to":"{own}","data":"{}","input":"{}"}}"#,
                hex(&transfer(&OWN)),
                hex(&transfer(&EVE))
            )),
        ),
        (
            "unsigned, an unknown call",
            unsigned(&format!(r#"{{"to":"{own}","data":"0x01020304"}}"#)),
        ),
        (
            "unsigned, handed over",
            unsigned(&format!(r#"{{"to":"{own}","authorizationList":[]}}"#)),
        ),
        (
            "unsigned, a list",
            unsigned(&format!(r#"{{"to":["{own}"]}}"#)),
        ),
        ("unsigned, a number", unsigned(r#"{"to":1}"#)),
        (
            "unsigned, half a byte",
            unsigned(&format!(r#"{{"to":"{own}3"}}"#)),
        ),
    ];
    let rows: Vec<(&str, Vec<u8>, Reason)> = rows
        .into_iter()
        .map(|(name, request)| (name, request, UnreadableBody))
        .collect();
    all_refused(&rows);
}
