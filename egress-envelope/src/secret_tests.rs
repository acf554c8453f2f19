//! Secrets are found, and what looks like one is none.
#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use super::{Finder, Found, Own, Secret};

fn finder() -> Finder {
    let own = |name: &str, text: &str| Own {
        name: name.into(),
        text: text.into(),
    };
    Finder::new(&[
        own("MAIL_TOKEN", "0e7d5a72-4a1b-4b8e-9d15-3c1ab0f4d6aa"),
        own("DB_PASSWORD", "p+ss/w0rd.x"),
        own("SHORT", "abc"),
    ])
    .unwrap()
}

fn find(text: &str) -> Option<Found> {
    finder().find(text.as_bytes(), &Secret::ALL, &|_| false)
}

/// Joined here, so that nobody takes these for real ones.
fn joined(parts: &[&str]) -> String {
    parts.concat()
}

#[test]
fn known_forms() {
    let letters = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V2w3X4y5Z6";
    let n = |count: usize| letters.repeat(2).chars().take(count).collect::<String>();
    for (kind, text) in [
        (
            Secret::PrivateKey,
            joined(&["-----BEGIN ", "PRIVATE KEY-----"]),
        ),
        (
            Secret::PrivateKey,
            joined(&["-----BEGIN RSA ", "PRIVATE KEY-----\\nMII"]),
        ),
        (
            Secret::PrivateKey,
            joined(&["-----BEGIN OPENSSH ", "PRIVATE KEY-----"]),
        ),
        (
            Secret::PrivateKey,
            joined(&["-----BEGIN PGP ", "PRIVATE KEY BLOCK-----"]),
        ),
        (Secret::AwsAccessKey, joined(&["AKIA", "IOSFODNN7EXAMPLE"])),
        (Secret::GoogleKey, joined(&["AIza", &n(35)])),
        (Secret::CloudKey, joined(&["dop_v1_", &"0a".repeat(32)])),
        (Secret::ForgeToken, joined(&["ghp_", &n(36)])),
        (Secret::ForgeToken, joined(&["glpat-", &n(20)])),
        (
            Secret::ChatToken,
            joined(&["xoxb-", "12345678901-", &n(24)]),
        ),
        (Secret::ChatToken, joined(&["123456789", ":AA", &n(33)])),
        (Secret::ServiceKey, joined(&["sk_live_", &n(24)])),
        (Secret::ServiceKey, joined(&["SG.", &n(22), ".", &n(43)])),
        (Secret::ModelKey, joined(&["sk-ant-", "api03-", &n(40)])),
        (Secret::PackageToken, joined(&["npm_", &n(36)])),
        (
            Secret::WebToken,
            joined(&["eyJ", &n(20), ".eyJ", &n(20), ".", &n(43)]),
        ),
    ] {
        let body = format!(r#"{{"text":"see {text}"}}"#);
        assert_eq!(find(&body), Some(Found::Form(kind)), "{body}");
        let others: Vec<Secret> = Secret::ALL.into_iter().filter(|it| *it != kind).collect();
        let found = finder().find(body.as_bytes(), &others, &|_| false);
        assert_eq!(found, None, "{body}");
    }
}

#[test]
fn what_is_none() {
    for text in [
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----",
        "a private key begins with BEGIN PRIVATE KEY",
        "SLAKIAIOSFODNN7EXAMPLE",
        "AKIA is a beginning, AKIAIOSFOD too short",
        "ghp_short and risk_live_1234567890123456789012",
        "sk-learn and task-management-for-everybody-in-the-office-and-more",
        "https://example.org/docs/a/very/long/path/with/many/parts?x=1&y=2",
        "2026-11-28T14:42:07.123456Z 550e8400-e29b-41d4-a716-446655440000",
        "0e7d5a72-4a1b-4b8e-9d15-3c1ab0f4d6a",
        "abc",
    ] {
        assert_eq!(find(text), None, "{text}");
    }
}

#[test]
fn own_ones_however_they_are_written() {
    for (name, text) in [
        ("MAIL_TOKEN", "0e7d5a72-4a1b-4b8e-9d15-3c1ab0f4d6aa"),
        ("MAIL_TOKEN", "x-0E7D5A72-4A1B-4B8E-9D15-3C1AB0F4D6AA"),
        ("MAIL_TOKEN", "a=0e7d5a72%2d4a1b%2D4b8e-9d15-3c1ab0f4d6aa"),
        (
            "MAIL_TOKEN",
            "MGU3ZDVhNzItNGExYi00YjhlLTlkMTUtM2MxYWIwZjRkNmFh",
        ),
        ("DB_PASSWORD", r"p+ss\/w0rd\u002Ex"),
        ("DB_PASSWORD", "p%2Bss%2Fw0rd.x"),
        ("DB_PASSWORD", "702b73732f773072642e78"),
    ] {
        assert_eq!(find(text), Some(Found::Own(name.into())), "{text}");
        let at_home = finder().find(text.as_bytes(), &Secret::ALL, &|own| own == name);
        assert_eq!(at_home, None, "{text}");
    }
    assert!(
        !format!(
            "{:?}",
            Own {
                name: "A".into(),
                text: "hidden".into()
            }
        )
        .contains("hidden")
    );
}
