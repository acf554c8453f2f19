//! Servers that sign: those that are given a wallet's key. Pure.

use super::{pinned::Origin, secret, server::Server};

/// Words of names that belong to chains and wallets.
const CHAINS: [&str; 22] = [
    "WALLET",
    "EVM",
    "ETH",
    "ETHEREUM",
    "SOLANA",
    "SOL",
    "WEB3",
    "RPC",
    "BITCOIN",
    "BTC",
    "POLYGON",
    "ARBITRUM",
    "ONCHAIN",
    "BLOCKCHAIN",
    "CHAIN",
    "INFURA",
    "ALCHEMY",
    "SUI",
    "APTOS",
    "STARKNET",
    "COSMOS",
    "TRON",
];

/// The names of the keys by which a server signs, joined; `None` where it is given none.
///
/// A seed phrase is a wallet's. A private key is one where another name of the same server is
/// about a chain, or where it has the form of one (64 hexadecimal digits).
pub fn marks(server: &Server, origin: &Origin) -> Option<String> {
    let mut about: Vec<String> = server
        .values
        .iter()
        .flat_map(|value| secret::words(&value.key))
        .collect();
    about.extend(
        origin
            .packages
            .iter()
            .flat_map(|package| secret::words(&package.name)),
    );
    about.extend(secret::words(&server.name));
    let chain = about.iter().any(|word| CHAINS.contains(&word.as_str()));
    let signs = server.values.iter().filter(|value| {
        let words = secret::words(&value.key);
        let has = |pair: [&str; 2]| words.windows(2).any(|two| two == pair);
        let one = |word: &str| words.iter().any(|it| it == word);
        one("MNEMONIC")
            || has(["SEED", "PHRASE"])
            || has(["WALLET", "KEY"])
            || (has(["PRIVATE", "KEY"]) && (chain || is_key(&value.text)))
            || (chain && (one("KEYPAIR") || one("KEYSTORE") || one("SIGNER")))
    });
    let names: Vec<&str> = signs.map(|value| value.key.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn is_key(text: &str) -> bool {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}
