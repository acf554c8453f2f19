//! Tokens: random texts that tell for certain whether something sent was delivered.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

const PREFIX: &[u8] = b"egt-";
const DIGITS: usize = 24;

/// A new token: `egt-` and 24 hexadecimal digits; fits a DNS label, an HTTP body, a datagram.
pub fn new() -> String {
    // The standard library seeds each RandomState from the kernel's random numbers.
    let half = || RandomState::new().build_hasher().finish();
    let digits = format!("{:016x}{:016x}", half(), half());
    format!("egt-{}", &digits[..DIGITS])
}

/// Every token in the bytes, in lower case, whatever case they were sent in.
pub fn find(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for start in 0..bytes.len().saturating_sub(PREFIX.len() + DIGITS - 1) {
        let candidate = &bytes[start..start + PREFIX.len() + DIGITS];
        let (prefix, digits) = candidate.split_at(PREFIX.len());
        if prefix.eq_ignore_ascii_case(PREFIX) && digits.iter().all(u8::is_ascii_hexdigit) {
            found.push(String::from_utf8_lossy(candidate).to_ascii_lowercase());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_any_case_and_place() {
        let token = new();
        assert_ne!(token, new());
        let text = format!("x{}..{}", token.to_uppercase(), token);
        assert_eq!(find(text.as_bytes()), vec![token.clone(), token]);
        assert!(find(b"egt-short").is_empty());
        assert!(find(b"").is_empty());
    }
}
