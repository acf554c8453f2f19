//! Secrets that stand in a file, by what their key or their own beginning says. Pure.
//!
//! A value is never kept or shown: only the name of its key and its kind.

/// Beginnings that only tokens of one service have, with the fewest characters behind them.
#[rustfmt::skip]
const TOKENS: [(&str, usize, &str); 38] = [
    ("github_pat_", 20, "GitHub token"), ("ghp_", 20, "GitHub token"), ("gho_", 20, "GitHub token"),
    ("ghu_", 20, "GitHub token"), ("ghs_", 20, "GitHub token"), ("ghr_", 20, "GitHub token"),
    ("glpat-", 16, "GitLab token"), ("sk-ant-", 20, "Anthropic key"), ("sk-proj-", 20, "OpenAI key"),
    ("sk-or-", 20, "OpenRouter key"), ("sk_live_", 16, "Stripe key"), ("rk_live_", 16, "Stripe key"),
    ("sk_test_", 16, "Stripe test key"), ("rk_test_", 16, "Stripe test key"), ("sk-", 32, "API key"),
    ("xoxb-", 16, "Slack token"), ("xoxp-", 16, "Slack token"), ("xoxa-", 16, "Slack token"),
    ("xapp-", 16, "Slack token"), ("xoxc-", 16, "Slack token"), ("xoxd-", 16, "Slack token"),
    ("AKIA", 16, "AWS key id"), ("ASIA", 16, "AWS key id"), ("AIza", 35, "Google key"),
    ("npm_", 30, "npm token"), ("pypi-", 40, "PyPI token"), ("hf_", 30, "Hugging Face token"),
    ("ntn_", 30, "Notion token"), ("secret_", 40, "Notion token"), ("lin_api_", 20, "Linear key"),
    ("dop_v1_", 40, "DigitalOcean token"), ("SG.", 40, "SendGrid key"), ("shpat_", 20, "Shopify token"),
    ("figd_", 20, "Figma token"), ("tvly-", 20, "Tavily key"), ("sntrys_", 20, "Sentry token"),
    ("gsk_", 30, "Groq key"), ("sbp_", 30, "Supabase token"),
];

/// Last words of a key whose value is a secret.
const WORDS: [&str; 11] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "PAT",
    "APIKEY",
    "MNEMONIC",
    "CREDENTIAL",
    "CREDENTIALS",
    "AUTHORIZATION",
];
/// The same, of two words.
const PAIRS: [(&str, &str); 12] = [
    ("API", "KEY"),
    ("ACCESS", "KEY"),
    ("PRIVATE", "KEY"),
    ("SECRET", "KEY"),
    ("AUTH", "KEY"),
    ("ENCRYPTION", "KEY"),
    ("SIGNING", "KEY"),
    ("ROLE", "KEY"),
    ("SEED", "PHRASE"),
    ("WALLET", "KEY"),
    ("SUBSCRIPTION", "KEY"),
    ("SERVICE", "KEY"),
];

/// What kind of secret a value is, if it is one. `key` is the name it is given under, as
/// written (`API_KEY`, `apiKey`, `--api-key`, `X-Api-Key`).
pub fn kind(key: &str, value: &str) -> Option<&'static str> {
    let value = value.trim();
    let bare = ["Bearer ", "bearer ", "Token ", "token ", "Basic ", "basic "]
        .iter()
        .find_map(|scheme| value.strip_prefix(scheme))
        .unwrap_or(value)
        .trim();
    if is_elsewhere(bare) || is_placeholder(bare) {
        return None;
    }
    if let Some(kind) = by_itself(bare) {
        return Some(kind);
    }
    let long = bare.chars().count() >= 6 && !is_number(bare) && !is_path(bare);
    if long && bare.len() < value.len() {
        return Some("authorization");
    }
    (long && is_secret_key(key) && !bare.contains("://")).then(|| kind_of_key(key))
}

/// Bytes of the shortest text that is told from others by chance.
const TELLING: usize = 8;
/// Letters of a text that looks like a secret whatever its key is.
const LONG: usize = 20;
/// Bits for each letter that texts have whose letters are not those of words.
const ENTROPY: f64 = 3.0;

/// What is a secret of the value of a variable: the value itself, the password of an address, and
/// the lines of what has several. It is one by its key or form ([`kind`]), or where nothing but
/// chance writes so: 20 letters and more of at least 3 bits each, with capitals, small letters and
/// digits, or 32 hexadecimal digits and more. Shorter ones than 8 bytes stand in texts by chance.
pub fn texts(key: &str, value: &str) -> Vec<String> {
    let value = value.trim();
    if kind(key, value).is_none() && !is_random(value) {
        return Vec::new();
    }
    let lines = value.lines().map(str::trim);
    let lines = lines.filter(|line| value.contains('\n') && line.len() >= LONG && is_random(line));
    let password = value.split_once("://").and_then(|(_, rest)| {
        let authority = rest.split(['/', '?', '#']).next()?;
        let (_, password) = authority.rsplit_once('@')?.0.split_once(':')?;
        Some(password)
    });
    let mut texts: Vec<String> = std::iter::once(value)
        .chain(lines)
        .chain(password)
        .filter(|text| text.len() >= TELLING)
        .map(str::to_owned)
        .collect();
    texts.dedup();
    texts
}

/// Whether nothing but chance writes so.
fn is_random(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+/=".contains(&byte);
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    let mixed = text.bytes().any(|byte| byte.is_ascii_uppercase())
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && text.bytes().any(|byte| byte.is_ascii_digit());
    let form = text.bytes().all(hex) && digits >= 32
        || text.bytes().all(token) && mixed && text.len() >= LONG && !is_path(text);
    form && entropy(text) >= ENTROPY
}

/// Bits for each byte of a text, by how often each stands in it (C. Shannon).
fn entropy(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in text.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count = count.saturating_add(1);
        }
    }
    let all: u32 = counts.iter().sum();
    let share = |count: &u32| f64::from(*count) / f64::from(all.max(1));
    let shares = counts.iter().filter(|count| **count > 0).map(share);
    -shares.map(|share| share * share.log2()).sum::<f64>()
}

/// By its own form.
fn by_itself(value: &str) -> Option<&'static str> {
    if value.contains("-----BEGIN ") && value.contains("PRIVATE KEY-----") {
        return Some("private key");
    }
    if let Some((_, rest)) = value.split_once("://") {
        return in_address(rest);
    }
    let token = TOKENS.iter().find(|(start, least, _)| {
        value.strip_prefix(start).is_some_and(|rest| {
            rest.len() >= *least
                && rest
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        })
    });
    if let Some((_, _, kind)) = token {
        return Some(kind);
    }
    let parts: Vec<&str> = value.split('.').collect();
    let is_jwt = parts.len() == 3
        && value.starts_with("eyJ")
        && value.len() > 40
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    is_jwt.then_some("JSON web token")
}

/// Passwords before the host of an address, keys among its parameters.
fn in_address(rest: &str) -> Option<&'static str> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some((user, _)) = authority.rsplit_once('@')
        && let Some((_, password)) = user.split_once(':')
        && !password.is_empty()
        && !is_elsewhere(password)
        && !is_placeholder(password)
        && !matches!(password, "password" | "pass" | "postgres")
    {
        return Some("password in an address");
    }
    let (_, query) = rest.split_once('?')?;
    let query = query.split('#').next().unwrap_or_default();
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        kind(key, value).map(|_| "key in an address")
    })
}

fn kind_of_key(key: &str) -> &'static str {
    let words = words(key);
    match words.last().map(String::as_str) {
        Some("TOKEN" | "PAT") => "token",
        Some("PASSWORD" | "PASSWD" | "PASSPHRASE") => "password",
        Some("MNEMONIC" | "PHRASE") => "seed phrase",
        Some("AUTHORIZATION") => "authorization",
        Some("SECRET" | "CREDENTIAL" | "CREDENTIALS") => "secret",
        _ if words.iter().any(|word| word == "PRIVATE") => "private key",
        _ => "key",
    }
}

/// Whether a name says that its value is a secret.
pub fn is_secret_key(key: &str) -> bool {
    let words = words(key);
    let mut last = words.iter().rev().map(String::as_str);
    let (Some(last), before) = (last.next(), last.next().unwrap_or_default()) else {
        return false;
    };
    WORDS.contains(&last) || PAIRS.contains(&(before, last))
}

/// The words of a name: `apiKey`, `API_KEY`, `x-api-key` → `API`, `KEY`.
pub fn words(key: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut lower = false;
    for char in key.chars() {
        if !char.is_alphanumeric() {
            words.push(String::new());
        } else {
            if char.is_uppercase() && lower {
                words.push(String::new());
            }
            match words.last_mut() {
                Some(word) => word.extend(char.to_uppercase()),
                None => words.push(char.to_uppercase().collect()),
            }
        }
        lower = char.is_lowercase() || char.is_numeric();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// It is looked up where the server is started: variables, inputs, stores of secrets.
fn is_elsewhere(value: &str) -> bool {
    value.is_empty()
        || value.contains("${")
        || value.contains("{{")
        || value.contains("$(")
        || [
            "op://", "env:", "keyring:", "vault:", "file:", "{env:", "{file:",
        ]
        .iter()
        .any(|start| value.starts_with(start))
        || value.strip_prefix('$').is_some_and(is_variable)
        || value
            .strip_prefix('%')
            .and_then(|it| it.strip_suffix('%'))
            .is_some_and(is_variable)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What documentation writes in a secret's place.
fn is_placeholder(value: &str) -> bool {
    let low = value.to_ascii_lowercase();
    value.contains('…')
        || low.ends_with("...")
        || (low.starts_with('<') && low.ends_with('>'))
        || (low.starts_with('[') && low.ends_with(']'))
        || [
            "your",
            "my-",
            "my_",
            "insert",
            "replace",
            "changeme",
            "change-me",
            "change_me",
            "example",
            "placeholder",
            "todo",
            "dummy",
            "enter-",
            "enter_",
        ]
        .iter()
        .any(|start| low.starts_with(start))
        || low.ends_with("_here")
        || low.ends_with("-here")
        || low.contains("xxxx")
        || low.contains("your-")
        || low.contains("your_")
        || low
            .bytes()
            .all(|byte| matches!(byte, b'*' | b'.' | b'x' | b'-' | b'0'))
        || (is_variable(value)
            && is_secret_key(value)
            && value.bytes().all(|byte| !byte.is_ascii_lowercase()))
}

fn is_number(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'))
        || matches!(
            value.to_ascii_lowercase().as_str(),
            "true" | "false" | "required" | "optional"
        )
}

fn is_path(value: &str) -> bool {
    value.starts_with(['/', '~'])
        || value.starts_with("./")
        || value.starts_with("../")
        || value.contains(":\\")
}

#[cfg(test)]
mod tests {
    use super::texts;

    #[test]
    fn what_looks_like_a_secret() {
        for (key, value) in [
            ("MAIL_TOKEN", "tk_7Fq2mZ9xLw4Rb8Nc"),
            ("DB_PASSWORD", "correct horse"),
            ("ANYTHING", "7Fq2mZ9xLw4Rb8NcQp3T"),
            ("ANYTHING", "0e7d5a72-4a1b-4b8e-9d15-3c1ab0f4d6aa"),
        ] {
            assert_eq!(texts(key, value), [value], "{key}={value}");
        }
        for (key, value) in [
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("HOME", "/home/somebody/With/Some/Long/Path123"),
            ("MAIL_TOKEN", "short"),
            ("MAIL_TOKEN", "${MAIL_TOKEN_OF_HOST}"),
            ("MAIL_TOKEN_FILE", "/run/secrets/mail"),
            ("PROJECT", "my-project-2024-production-eu"),
            ("NAME", "AReallyLongNameOfSomebody"),
            ("HOST", "ip-10-0-0-12.eu-central-1.compute.internal"),
        ] {
            let found = texts(key, value);
            assert!(found.is_empty(), "{key}={value}: {found:?}");
        }
        let address = "postgres://app:7Fq2mZ9xLw4R@db.example/app";
        assert_eq!(texts("DATABASE_URL", address), [address, "7Fq2mZ9xLw4R"]);
        let lines = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----";
        assert_eq!(
            texts("KEY_PEM", lines),
            [lines, "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"]
        );
    }
}
