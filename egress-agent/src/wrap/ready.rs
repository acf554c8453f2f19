//! The ready policies that are built in, and the one that a command's package has. Pure.

use std::path::Path;

use crate::{
    policy::{self, Policy},
    scan::pinned::{Package, origin},
};

/// A ready policy.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Its file in `policies/`, without the ending.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
    /// What it says.
    pub policy: Policy,
    /// The package that its command starts.
    pub package: Package,
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../policies/", $name, ".yaml")))),*]
    };
}

/// Those whose command starts a package.
const SHIPPED: [(&str, &str); 13] = shipped![
    "brave-search",
    "chrome-devtools",
    "context7",
    "fetch",
    "filesystem",
    "github",
    "linear",
    "notion",
    "playwright",
    "sentry",
    "slack",
    "stripe",
    "tavily",
];

/// All of them.
pub fn all() -> Vec<Ready> {
    SHIPPED
        .iter()
        .filter_map(|&(name, text)| {
            let policy = policy::parse(Path::new(name), text).ok()?;
            let command = &policy.run.as_ref()?.command;
            let package = origin(command).packages.into_iter().next()?;
            Some(Ready {
                name,
                text,
                policy,
                package,
            })
        })
        .collect()
}

/// The one for a command: by registry and package, and by the address where the package is only a way
/// to one (`mcp-remote`).
pub fn of(words: &[String]) -> Option<Ready> {
    let package = origin(words).packages.into_iter().next()?;
    all().into_iter().find(|ready| {
        let command = ready.policy.run.iter().flat_map(|run| &run.command);
        let mut addresses = command.filter(|word| word.contains("://"));
        ready.package.registry == package.registry
            && ready.package.name == package.name
            && addresses.all(|address| words.contains(address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(line: &str) -> Option<&'static str> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        of(&words).map(|ready| ready.name)
    }

    #[test]
    fn each_is_known_by_its_package() {
        assert_eq!(all().len(), SHIPPED.len());
        let github = "@modelcontextprotocol/server-github";
        assert_eq!(name(&format!("npx -y {github}")), Some("github"));
        assert_eq!(name(&format!("bunx {github}@1.0.0 --x")), Some("github"));
        assert_eq!(name("uvx mcp-server-fetch@2026.10.24"), Some("fetch"));
        let linear = "https://mcp.linear.app/mcp";
        assert_eq!(name(&format!("npx mcp-remote {linear}")), Some("linear"));
        for other in [
            "npx mcp-remote https://other.example/mcp",
            "npx @modelcontextprotocol/server-githob",
            "uvx @modelcontextprotocol/server-github",
            "node github.js",
            "npx server-github",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }
}
