//! Transactions of Ethereum: who gets something by one, signed (EIP-155, 2930, 1559) or still to be
//! signed by a node.

use serde_json::{Map, Value};

use crate::rlp::{self, Item};

/// Calls of contracts that are read: the selector (the first four bytes of the hash of the call's
/// name), how many words of 32 bytes it takes, whether more may follow, and which word is the
/// account that gets something, or may take it.
const CALLS: [([u8; 4], usize, bool, Option<usize>); 11] = [
    // ERC-20: transfer, approve, transferFrom, and what tokens have beside it.
    ([0xa9, 0x05, 0x9c, 0xbb], 2, false, Some(0)),
    ([0x09, 0x5e, 0xa7, 0xb3], 2, false, Some(0)),
    ([0x23, 0xb8, 0x72, 0xdd], 3, false, Some(1)),
    ([0x39, 0x50, 0x93, 0x51], 2, false, Some(0)),
    ([0xa4, 0x57, 0xc2, 0xd7], 2, false, Some(0)),
    // ERC-721 and ERC-1155: safeTransferFrom in its three forms, setApprovalForAll.
    ([0x42, 0x84, 0x2e, 0x0e], 3, false, Some(1)),
    ([0xb8, 0x8d, 0x4f, 0xde], 5, true, Some(1)),
    ([0xf2, 0x42, 0x43, 0x2a], 6, true, Some(1)),
    ([0xa2, 0x2c, 0xb4, 0x65], 2, false, Some(0)),
    // Wrapped ether: deposit, withdraw.
    ([0xd0, 0xe3, 0x0d, 0xb0], 0, false, None),
    ([0x2e, 0x1a, 0x7d, 0x4d], 1, false, None),
];
/// Fields of a transaction that is still to be signed (execution-apis, `GenericTransaction`), but for
/// those that hand an account over to a contract.
const FIELDS: [&str; 13] = [
    "accessList",
    "chainId",
    "data",
    "from",
    "gas",
    "gasPrice",
    "input",
    "maxFeePerGas",
    "maxPriorityFeePerGas",
    "nonce",
    "to",
    "type",
    "value",
];

/// The accounts that get something by a transaction.
pub(crate) fn accounts(transaction: &Value) -> Result<Vec<String>, &'static str> {
    match transaction {
        Value::String(text) => {
            let bytes = hex(text).ok_or("a transaction that is not in hexadecimal")?;
            let (to, data) = signed(&bytes)
                .ok_or("a transaction that is none, or of a type that is not read")?;
            paid(to, data)
        }
        Value::Object(fields) => unsigned(fields),
        _ => Err("a transaction that is none"),
    }
}

/// Receiver and data of a signed transaction.
fn signed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (list, items, to): (_, usize, usize) = match bytes {
        [0x01, rest @ ..] => (rest, 11, 4),
        [0x02, rest @ ..] => (rest, 12, 5),
        [0xc0..=0xff, ..] => (bytes, 9, 3),
        // Others carry blobs, or hand the account over to a contract (EIP-4844, 7702).
        _ => return None,
    };
    let fields = rlp::list(list, items).filter(|it| it.len() == items)?;
    let data = to.checked_add(2)?;
    let list = data.checked_add(1)?;
    for (at, field) in fields.iter().enumerate() {
        let good = match field {
            Item::List(_) => at == list && items > 9,
            Item::Bytes(_) if at == list && items > 9 => false,
            Item::Bytes(_) if at == to || at == data => true,
            Item::Bytes(number) => number.len() <= 32 && number.first() != Some(&0),
        };
        if !good {
            return None;
        }
    }
    let (Item::Bytes(to), Item::Bytes(data)) = (fields.get(to)?, fields.get(data)?) else {
        return None;
    };
    Some((to, data))
}

fn unsigned(fields: &Map<String, Value>) -> Result<Vec<String>, &'static str> {
    if !fields.keys().all(|key| FIELDS.contains(&key.as_str())) {
        return Err("a field of a transaction that is not read");
    }
    let bytes = |key: &str| match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => hex(text).map(Some).ok_or("a field of a transaction"),
        Some(_) => Err("a field of a transaction"),
    };
    let to = bytes("to")?.unwrap_or_default();
    let data = match (bytes("data")?, bytes("input")?) {
        (Some(one), Some(other)) if one != other => return Err("a transaction with two data"),
        (one, other) => one.or(other).unwrap_or_default(),
    };
    paid(&to, &data)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    let value = |digit: &u8| char::from(*digit).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from((value(high)? << 4) | value(low)?).ok(),
        _ => None,
    };
    pairs.map(byte).collect()
}

/// Who gets something: the receiver, and whom the call of a contract names.
fn paid(to: &[u8], data: &[u8]) -> Result<Vec<String>, &'static str> {
    if to.len() != 20 {
        return Err("a transaction that makes a contract, or has no proper receiver");
    }
    let mut accounts = vec![account(to)];
    if data.is_empty() {
        return Ok(accounts);
    }
    let call = data.split_at_checked(4).and_then(|(selector, words)| {
        let call = CALLS.iter().find(|(own, ..)| own == selector)?;
        Some((call, words))
    });
    let ((_, count, more, place), words) = call.ok_or("a call of a contract that is not read")?;
    let (words, rest) = words.as_chunks::<32>();
    let fits = words.len() == *count || (*more && words.len() >= *count);
    if !fits || !rest.is_empty() {
        return Err("a call of a contract with more or less than it takes");
    }
    if let Some(word) = place.and_then(|at| words.get(at)) {
        let (zeros, own) = word.split_at(12);
        // Some contracts leave out of account what stands there.
        if zeros.iter().any(|byte| *byte != 0) {
            return Err("a call of a contract with an account that is too long");
        }
        accounts.push(account(own));
    }
    Ok(accounts)
}

fn account(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    format!("0x{}", digits.collect::<String>())
}
