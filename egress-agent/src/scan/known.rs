//! Names of well-known servers, and names that are nearly theirs. Pure.

use super::pinned::{Package, Registry};

/// Shortest name that is compared: short ones are near each other by chance.
const SHORTEST: usize = 8;

/// Packages that many people start, as their maintainers publish them.
const NPM: [&str; 44] = [
    "@modelcontextprotocol/server-filesystem",
    "@modelcontextprotocol/server-memory",
    "@modelcontextprotocol/server-everything",
    "@modelcontextprotocol/server-sequential-thinking",
    "@modelcontextprotocol/server-github",
    "@modelcontextprotocol/server-gitlab",
    "@modelcontextprotocol/server-postgres",
    "@modelcontextprotocol/server-slack",
    "@modelcontextprotocol/server-puppeteer",
    "@modelcontextprotocol/server-brave-search",
    "@modelcontextprotocol/server-google-maps",
    "@modelcontextprotocol/server-gdrive",
    "@modelcontextprotocol/server-redis",
    "@modelcontextprotocol/server-everart",
    "@modelcontextprotocol/server-aws-kb-retrieval",
    "@modelcontextprotocol/inspector",
    "@playwright/mcp",
    "@upstash/context7-mcp",
    "@notionhq/notion-mcp-server",
    "@brave/brave-search-mcp-server",
    "@sentry/mcp-server",
    "@stripe/mcp",
    "@supabase/mcp-server-supabase",
    "@cloudflare/mcp-server-cloudflare",
    "@azure/mcp",
    "@azure-devops/mcp",
    "@browserbasehq/mcp-server-browserbase",
    "@browsermcp/mcp",
    "@executeautomation/playwright-mcp-server",
    "@wonderwhy-er/desktop-commander",
    "@hubspot/mcp-server",
    "@heroku/mcp-server",
    "@mapbox/mcp-server",
    "@elastic/mcp-server-elasticsearch",
    "@activecampaign/postmark-mcp",
    "chrome-devtools-mcp",
    "firecrawl-mcp",
    "figma-developer-mcp",
    "exa-mcp-server",
    "tavily-mcp",
    "mongodb-mcp-server",
    "mcp-remote",
    "supergateway",
    "postmark-mcp",
];

/// The same, of Python.
const PYPI: [&str; 12] = [
    "mcp-server-fetch",
    "mcp-server-git",
    "mcp-server-time",
    "mcp-server-sqlite",
    "mcp-server-sentry",
    "mcp-server-qdrant",
    "mcp-atlassian",
    "awslabs.core-mcp-server",
    "blender-mcp",
    "duckduckgo-mcp-server",
    "arxiv-mcp-server",
    "serena-agent",
];

/// The well-known package that another one's name is nearly: one letter more, less, different
/// or exchanged with its neighbour, other signs between words, or letters of another script.
pub fn resembled(package: &Package) -> Option<&'static str> {
    let known: &[&str] = match package.registry {
        Registry::Npm => &NPM,
        Registry::Pypi => &PYPI,
        Registry::Container | Registry::Other => return None,
    };
    let name = match package.registry {
        Registry::Pypi => package.name.to_lowercase().replace(['_', '.'], "-"),
        _ => package.name.clone(),
    };
    if name.contains(':') {
        return None;
    }
    let same = |one: &str| one == name || one.replace(['_', '.'], "-") == name;
    if name.chars().count() < SHORTEST || known.iter().any(|one| same(one)) {
        return None;
    }
    let plain = skeleton(&name);
    known.iter().copied().find(|one| {
        let distant = one.chars().count().abs_diff(name.chars().count()) > 1;
        skeleton(one) == plain || (!distant && strsim::osa_distance(one, &name) == 1)
    })
}

/// A name in its most common look: Latin letters, no signs between words.
fn skeleton(name: &str) -> String {
    let plain = name.to_lowercase();
    plain
        .chars()
        .filter_map(|char| match char {
            '-' | '_' | '.' => None,
            'а' => Some('a'),
            'с' => Some('c'),
            'е' => Some('e'),
            'о' => Some('o'),
            'р' => Some('p'),
            'ѕ' => Some('s'),
            'і' => Some('i'),
            'у' => Some('y'),
            'х' => Some('x'),
            '0' => Some('o'),
            '1' | 'l' => Some('i'),
            char => Some(char),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(registry: Registry, name: &str) -> Option<&'static str> {
        let name = name.to_owned();
        resembled(&Package {
            registry,
            spec: name.clone(),
            name,
            pinned: true,
        })
    }

    #[test]
    fn nearly_is_seen_and_neighbours_are_not() {
        for name in [
            "@modelcontextprotocol/server-filesytem",
            "@modelcontextprotocal/server-github",
            "@mode1contextprotocol/server-memory",
            "@modelcontextprotocol/server_github",
            "postmark-mpc",
            "tavily-mсp",
            "mcp-remotes",
        ] {
            assert!(of(Registry::Npm, name).is_some(), "{name}");
        }
        assert!(of(Registry::Pypi, "mcp-server-fetsh").is_some());
        for name in NPM {
            assert_eq!(of(Registry::Npm, name), None);
        }
        for name in PYPI {
            assert_eq!(of(Registry::Pypi, name), None);
            assert_eq!(of(Registry::Pypi, &name.replace('-', "_")), None);
        }
        for name in [
            "@modelcontextprotocol/server-gitea",
            "@acme/mcp",
            "my-mcp-server",
            "postmark-mcp-server",
            "@stripe/cli",
        ] {
            assert_eq!(of(Registry::Npm, name), None, "{name}");
        }
    }
}
