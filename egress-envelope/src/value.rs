//! Values that name somebody or something, each kind in one canonical form: two texts that a
//! service takes for the same have the same form, and what cannot be told is no value.

use serde::{Deserialize, Serialize};

use crate::mail;

/// What kind of value stands at a place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A mail address, or a list of them.
    Mail,
    /// A telephone number.
    Phone,
    /// A web address.
    Url,
    /// An identifier: a word, compared as it is.
    Id,
    /// A channel or chat, by id or name.
    Channel,
    /// An address on a block chain.
    Address,
    /// Identifiers with commas between them, in tables alone: each of them is an [`Kind::Id`].
    Ids,
}

impl Kind {
    /// Every kind of a single value, and of mail addresses.
    pub const ALL: [Self; 6] = [
        Self::Mail,
        Self::Phone,
        Self::Url,
        Self::Id,
        Self::Channel,
        Self::Address,
    ];

    /// A bit of its own.
    pub(crate) const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Bytes of one value. Tokens that are documents themselves (JWT) have one or two thousand.
const MAX_VALUE: usize = 4096;

/// The values of a kind that a text says and nothing else, in their canonical forms. Empty: the
/// text is none, or says something besides.
pub fn canonical(kind: Kind, text: &str) -> Vec<String> {
    let one = |value: Option<String>| value.into_iter().collect();
    match kind {
        Kind::Mail => mail::list(text).unwrap_or_default(),
        Kind::Phone => one(phone(text)),
        Kind::Url => one(url(text)),
        Kind::Id => one(plain(text).map(str::to_owned)),
        Kind::Channel => one(plain(text).map(|text| text.trim_start_matches('#').to_lowercase())),
        Kind::Address => one(address(text)),
        Kind::Ids => {
            let ids = text.split(',').map(|id| plain(id).map(str::to_owned));
            ids.collect::<Option<_>>().unwrap_or_default()
        }
    }
}

/// A word: printable characters without blanks, but for those around it.
fn plain(text: &str) -> Option<&str> {
    let text = text.trim();
    let odd = |c: char| c.is_control() || c.is_whitespace();
    let good = !text.is_empty() && text.len() <= MAX_VALUE && !text.contains(odd);
    good.then_some(text)
}

/// A number as people write it, `+49 30 1234-56` (E.164); also behind `tel:`, `sms:`, `whatsapp:`.
fn phone(text: &str) -> Option<String> {
    let mut text = text.trim();
    for scheme in ["tel:", "sms:", "whatsapp:"] {
        text = text.strip_prefix(scheme).unwrap_or(text);
    }
    let (plus, rest) = text
        .strip_prefix('+')
        .map_or((false, text), |rest| (true, rest));
    let mut digits = String::new();
    for c in rest.chars() {
        match c {
            '0'..='9' => digits.push(c),
            ' ' | '-' | '.' | '(' | ')' | '/' | '\u{a0}' => {}
            _ => return None,
        }
    }
    let number = if plus {
        digits.as_str()
    } else {
        digits.strip_prefix("00").unwrap_or(&digits)
    };
    // What is so short without a country's number is national for some: `415-555-1212`.
    let is_short = number.len() <= 10 && (plus || digits != number);
    let sign = if is_short { "+" } else { "" };
    (5..=15)
        .contains(&number.len())
        .then(|| format!("{sign}{number}"))
}

/// A web address: scheme and host in lower case, without a standard port and a fragment.
fn url(text: &str) -> Option<String> {
    let text = plain(text).filter(|text| text.chars().all(|c| c.is_ascii_graphic()))?;
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at_checked(end)?;
    if host.is_empty() || host.contains(['@', '\\', '%']) {
        return None;
    }
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(port).unwrap_or(&host);
    let (path, fragment) = path.split_once('#').unwrap_or((path, ""));
    // Some take what is before an `@` for a user, wherever it stands, and `\` for a slash.
    if fragment.contains(['@', '\\', ':']) {
        return None;
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Some(format!("{scheme}://{host}{slash}{path}"))
}

/// An account of Ethereum in lower case, or one in a form whose case counts.
fn address(text: &str) -> Option<String> {
    let text = text.trim();
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    if let Some(hex) = hex {
        let good = hex.len() == 40 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        return good.then(|| format!("0x{}", hex.to_ascii_lowercase()));
    }
    let good =
        (26..=90).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Kind, canonical};

    #[test]
    fn one_form_for_what_is_the_same() {
        for (kind, text, forms) in [
            (Kind::Mail, "Bob@Shop.Example", &["bob@shop.example"][..]),
            (
                Kind::Mail,
                "\"Doe, Bob\" <bob@shop.example>, a.b+c@d.example;",
                &["bob@shop.example", "a.b+c@d.example"],
            ),
            (
                Kind::Mail,
                "a@b.example\nc@d.example\n",
                &["a@b.example", "c@d.example"],
            ),
            (
                Kind::Mail,
                r#""Ann@B.example" <ann@b.example>"#,
                &["ann@b.example"],
            ),
            (
                Kind::Mail,
                r#""Ann" Doe <ann@b.example>"#,
                &["ann@b.example"],
            ),
            (Kind::Mail, r#""ann"@b.example"#, &["ann@b.example"]),
            (
                Kind::Mail,
                "=?utf-8?q?J=C3=B6rg?= <j@b.example>",
                &["j@b.example"],
            ),
            (
                Kind::Mail,
                "Jörg Ö. <j@bücher.example>",
                &["j@xn--bcher-kva.example"],
            ),
            (Kind::Mail, "<a@b.example>", &["a@b.example"]),
            (Kind::Phone, "+49 (30) 12345-67", &["49301234567"]),
            (Kind::Phone, "0049 30 1234567", &["49301234567"]),
            (Kind::Phone, "whatsapp:+49301234567", &["49301234567"]),
            (Kind::Phone, "49301234567", &["49301234567"]),
            (Kind::Phone, "+41 5555 1212", &["+4155551212"]),
            (Kind::Phone, "0041 5555 1212", &["+4155551212"]),
            (Kind::Phone, "415-555-1212", &["4155551212"]),
            (
                Kind::Url,
                "HTTPS://A.example:443?x#y",
                &["https://a.example/?x"],
            ),
            (Kind::Id, " 12 ", &["12"]),
            (Kind::Channel, "#General", &["general"]),
            (
                Kind::Address,
                "0xABCDEF0123456789abcdef0123456789ABCDEF01",
                &["0xabcdef0123456789abcdef0123456789abcdef01"],
            ),
        ] {
            assert_eq!(canonical(kind, text), forms, "{text}");
        }
    }

    #[test]
    fn what_says_something_besides_is_no_value() {
        for (kind, text) in [
            (Kind::Mail, "write to bob@shop.example"),
            (Kind::Mail, "bob@shop.example and more"),
            (Kind::Mail, "a@b.example <c@d.example>"),
            (Kind::Mail, "a@b.example (c@d.example)"),
            (Kind::Mail, "a@b.example, whoever"),
            (Kind::Mail, "bob@localhost"),
            (Kind::Mail, "\"a"),
            (Kind::Mail, "a@b@c.example"),
            (Kind::Mail, r#""a" <e@x.example> "b" <a@b.example>"#),
            (Kind::Mail, r#""a" e@x.example "b" <a@b.example>"#),
            (Kind::Mail, r#""e@x.example, b" <a@b.example>"#),
            (Kind::Mail, r#"e@x.example <a@b.example>"#),
            (Kind::Mail, "<@x.example:a@b.example>"),
            (Kind::Mail, "Team: a@b.example;"),
            (Kind::Mail, "a@b.example (Ann)"),
            (Kind::Mail, "a@[192.0.2.1]"),
            (Kind::Mail, "a%x.example@b.example"),
            (Kind::Mail, "x.example!a@b.example"),
            (Kind::Mail, r#""a b"@c.example"#),
            (Kind::Mail, r#""e@x.example"@c.example"#),
            (Kind::Mail, r#"a"b"@c.example"#),
            (Kind::Mail, "=?utf-8?q?e=40x=2Eexample=2C?= <a@b.example>"),
            (Kind::Mail, "=?utf-8?b?ZUB4LmV4YW1wbGUs?= <a@b.example>"),
            (Kind::Mail, "=?utf-7?q?+AEA-?= <a@b.example>"),
            (Kind::Mail, "=?utf-8?q?e?=@x.example"),
            (Kind::Mail, "e＠x.example <a@b.example>"),
            (Kind::Mail, "a@b.example\0"),
            (Kind::Mail, "a\u{200b}@b.example"),
            (Kind::Mail, "<<a@b.example>>"),
            (Kind::Mail, "<a@b.example>x"),
            (Kind::Mail, "<e@x.example><a@b.example>"),
            (Kind::Mail, "<>"),
            (Kind::Phone, "call +49301234567"),
            (Kind::Phone, "1234"),
            (Kind::Url, "see https://a.example"),
            (Kind::Url, "https://a@b.example"),
            (Kind::Url, "https://b.example#@x.example/"),
            (Kind::Url, "https://b.example/#\\@x.example/"),
            (Kind::Url, "ftp://b.example"),
            (Kind::Id, ""),
            (Kind::Id, "two words"),
            (Kind::Address, "0x12"),
        ] {
            assert_eq!(canonical(kind, text), [""; 0], "{text}");
        }
    }
}
