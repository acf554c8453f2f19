//! Slips of people who write their first policy: each is named as what it is.

use std::{fs, io};

use super::{faults, policy};
use crate::policy::load_file;

#[test]
fn a_wildcard_without_quotes_is_named() {
    for (rest, token) in [
        (
            "allow:\n  - host: *.example.org\n    ports: [443]\n",
            "*.example.org",
        ),
        ("allow: [*.example.org:443]\n", "*.example.org:443"),
        ("allow:\n  - *.example.org:443\n", "*.example.org:443"),
        (
            "allow:\n  - { host: *.example.org, ports: [443] }\n",
            "*.example.org",
        ),
        ("allow:\n  - host: a.example\n    ports: *\n", "*"),
        ("allow: [**.example.org:443]\n", "**.example.org:443"),
    ] {
        let found = faults(rest).join("\n");
        assert!(found.contains("without quotes"), "{rest}: {found}");
        assert!(
            found.contains(&format!("in quotes: \"{token}\"")),
            "{rest}: {found}"
        );
    }
    // What is quoted, in a comment or an alias indeed is none of these.
    policy("allow: [\"*.example.org:443\"] # *.example.net is another\n");
    let alias = faults("allow: [*ports]\n").join("\n");
    assert!(!alias.contains("without quotes"), "{alias}");
    let late = faults("allow: [\"*.a.example:443\"]\nallow: [\n").join("\n");
    assert!(!late.contains("without quotes"), "{late}");
}

#[test]
fn marks_of_byte_order_and_other_encodings_are_told_apart() -> io::Result<()> {
    const TEXT: &str = "version: 1\nconnector: x\nallow: [api.example.org:443]\n";
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("x.yaml");
    let said = |bytes: &[u8]| -> io::Result<String> {
        fs::write(&file, bytes)?;
        Ok(load_file(&file).map_or_else(|faults| faults.to_string(), |_| String::new()))
    };
    let utf16 = |swap: bool| -> Vec<u8> {
        let units = std::iter::once(0xfeff).chain(TEXT.encode_utf16());
        let bytes = |unit: u16| {
            if swap {
                unit.to_be_bytes()
            } else {
                unit.to_le_bytes()
            }
        };
        units.flat_map(bytes).collect()
    };
    assert_eq!(said(TEXT.as_bytes())?, "");
    assert_eq!(said(&[b"\xef\xbb\xbf", TEXT.as_bytes()].concat())?, "");
    assert!(said(&utf16(false))?.contains("UTF-16"));
    assert!(said(&utf16(true))?.contains("UTF-16"));
    let latin = said(b"version: 1\nconnector: x\nallow: ['b\xfccher.example:443']\n")?;
    assert!(latin.contains("Latin-1"), "{latin}");
    Ok(())
}
