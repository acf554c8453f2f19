//! Single command lines, addresses and values.

use crate::scan::{pinned::origin, secret};

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

#[test]
fn what_is_pinned_is_told_from_what_is_not() {
    let digest = "a".repeat(64);
    let commit = "b".repeat(40);
    for (line, pinned) in [
        ("npx -y pkg@1.2.3", true),
        ("npx -y @a/b@1.2.3-rc.1", true),
        ("npx --package=@a/b@1.2.3 -- b", true),
        ("npx.cmd -y pkg@1.2.3", true),
        ("npx -y pkg", false),
        ("npx -y @a/b", false),
        ("npx -y pkg@latest", false),
        ("npx -y pkg@^1.2.3", false),
        ("npx -y pkg@1.x", false),
        ("npx -y pkg@1", false),
        ("npx -y pkg@${VERSION}", false),
        ("npx -y github:a/b", false),
        ("npx -y a/b", false),
        ("npx -y https://x.example/a.tgz", false),
        (&format!("npx -y github:a/b#{commit}"), true),
        ("npm exec -y -- pkg@1.2.3", true),
        ("npm x pkg", false),
        ("pnpm dlx pkg", false),
        ("yarn dlx pkg@2.0.0", true),
        ("bunx pkg@latest", false),
        ("uvx pkg", false),
        ("uvx pkg==1.2", true),
        ("uvx pkg@1.2.3", true),
        ("uvx pkg@latest", false),
        ("uvx pkg==1.*", false),
        ("uvx pkg>=1,<2", false),
        ("uvx --from pkg[x]==1.2.3 tool", true),
        ("uvx --python 3.12 pkg", false),
        ("uvx --from git+https://x.example/a tool", false),
        (
            &format!("uvx --from git+https://x.example/a@{commit} tool"),
            true,
        ),
        ("uv tool run pkg", false),
        ("uv run --with pkg server.py", false),
        ("uv run --with pkg==1.0 server.py", true),
        ("pipx run pkg", false),
        ("pipx run --spec pkg==1.0 tool", true),
        ("deno run -A npm:@a/b@1.2.3/x", true),
        ("deno run -A npm:a", false),
        ("deno run --allow-net jsr:@a/b@1.2.3", true),
        ("deno run https://x.example/a@v1.2.3/m.ts", true),
        ("deno run https://x.example/m.ts", false),
        ("go run x.example/a@v1.2.3", true),
        ("go run x.example/a@latest", false),
        ("nix run github:a/b", false),
        (&format!("nix run github:a/b/{commit}"), true),
        ("dnx A.B@1.2.3 --yes", true),
        ("dnx A.B --yes", false),
        (
            "docker run -i --rm -e A=b -v /a:/b --network none a/b:1.2",
            false,
        ),
        ("docker run -i --rm a/b", false),
        (
            &format!("docker run -it --name x a/b:1@sha256:{digest} arg"),
            true,
        ),
        (
            &format!("podman --log-level error run -i reg:5000/a@sha256:{digest}"),
            true,
        ),
    ] {
        let found = origin(&words(line));
        assert_eq!(found.packages.len(), 1, "{line}: {found:?}");
        assert!(
            found
                .packages
                .iter()
                .all(|package| package.pinned == pinned),
            "{line}: {found:?}"
        );
    }
}

#[test]
fn what_lies_on_this_host_is_no_package() {
    for line in [
        "node /opt/x.js",
        "python -m server",
        "uv run server.py",
        "uv --directory /x run server",
        "uv run --directory /x server",
        "npx ./local",
        "npx --no-install pkg",
        "deno run main.ts",
        "go run .",
        "nix run .#x",
        "uvx --from /opt/x tool",
        "docker ps",
        "/opt/bin/server --npx",
        "docker compose run server",
        "docker exec -i box server",
        "",
    ] {
        assert_eq!(origin(&words(line)).packages, [], "{line}");
    }
    for (line, container) in [
        ("docker run -i a", true),
        ("docker exec -i box server", true),
        ("docker mcp gateway run", true),
        ("podman compose run x", true),
        ("docker-compose run x", true),
        ("docker version", false),
        ("/opt/docker-mcp run x", false),
    ] {
        assert_eq!(origin(&words(line)).container, container, "{line}");
    }
}

#[test]
fn secrets_are_told_from_references_and_examples() {
    for (key, value) in [
        ("A", "ghp_0123456789012345678901234567890123456789"),
        ("API_KEY", "k3y-0f-m1ne"),
        ("apiKey", "k3y-0f-m1ne"),
        ("x-api-key", "k3y-0f-m1ne"),
        ("DB_PASSWORD", "correct horse"),
        ("DATABASE_URL", "postgres://me:s3cr3tpw@db.example/x"),
        ("URL", "https://x.example/?token=abcdef0123"),
        ("Authorization", "Bearer abcdef0123456789"),
        ("X", "-----BEGIN RSA PRIVATE KEY-----\nabc"),
        (
            "J",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghij",
        ),
        ("MNEMONIC", "test test test test test junk"),
    ] {
        assert!(secret::kind(key, value).is_some(), "{key}={value}");
    }
    for (key, value) in [
        ("API_KEY", "${API_KEY}"),
        ("API_KEY", "$API_KEY"),
        ("API_KEY", "%API_KEY%"),
        ("API_KEY", ""),
        ("API_KEY", "${input:k}"),
        ("API_KEY", "{env:K}"),
        ("API_KEY", "op://vault/item/key"),
        ("API_KEY", "YOUR_API_KEY"),
        ("API_KEY", "<your key>"),
        ("API_KEY", "your-api-key-here"),
        ("API_KEY", "xxxxxxxxxxxx"),
        ("API_KEY", "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("API_KEY", "…"),
        ("Authorization", "Bearer ${TOKEN}"),
        ("MAX_TOKENS", "4096000"),
        ("TOKEN_LIMIT", "1000000"),
        ("API_KEY_FILE", "/run/secrets/key"),
        ("SSH_PRIVATE_KEY", "/home/a/.ssh/id"),
        ("PUBLIC_KEY", "abcdefghijk"),
        ("REQUIRE_TOKEN", "true"),
        ("DATABASE_URL", "postgres://db.example/x"),
        ("DATABASE_URL", "postgres://me:${PW}@db/x"),
        ("PATH", "/usr/bin:/bin"),
        ("NODE_ENV", "production"),
        ("KEYWORD", "something"),
        ("MONKEY", "something"),
        ("URL", "https://x.example/?page=abcdef0123"),
        ("COMPAT", "something"),
    ] {
        assert_eq!(secret::kind(key, value), None, "{key}={value}");
    }
}
