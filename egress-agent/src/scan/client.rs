//! The clients that are known: where each keeps its servers. Pure.
//!
//! Where each looks, as far as is known. `{code}` stands for the folders of VS Code and of what
//! is built from it, `*` for one part of a path.

/// A client's configuration.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Name for people.
    pub name: &'static str,
    /// Files below a home directory.
    pub home: &'static [&'static str],
    /// Files below a project's folder.
    pub project: &'static [&'static str],
    /// Files of the whole host.
    pub host: &'static [&'static str],
    /// Where servers stand in them: keys with `/` between them, `*` for each key.
    pub keys: &'static [&'static str],
}

/// Folders of `{code}`.
pub const CODE: [&str; 7] = [
    ".config/Code/User",
    ".config/Code - Insiders/User",
    ".config/VSCodium/User",
    ".config/Cursor/User",
    ".config/Windsurf/User",
    ".vscode-server/data/User",
    ".cursor-server/data/User",
];

const MCP_SERVERS: &[&str] = &["mcpServers"];

#[rustfmt::skip]
const NONE: Client = Client { name: "", home: &[], project: &[], host: &[], keys: MCP_SERVERS };

/// All of them.
#[rustfmt::skip]
pub const CLIENTS: [Client; 27] = [
    Client { name: "Claude Desktop", home: &[".config/Claude/claude_desktop_config.json"], ..NONE },
    Client { name: "Claude Code", home: &[".claude.json", ".claude/settings.json", ".claude/.mcp.json"], project: &[".mcp.json"], host: &["/etc/claude-code/managed-mcp.json"], keys: &["mcpServers", "projects/*/mcpServers"] },
    Client { name: "Cursor", home: &[".cursor/mcp.json"], project: &[".cursor/mcp.json"], ..NONE },
    Client { name: "VS Code", home: &["{code}/mcp.json", "{code}/profiles/*/mcp.json"], project: &[".vscode/mcp.json"], keys: &["servers"], ..NONE },
    Client { name: "VS Code", home: &["{code}/settings.json"], project: &[".vscode/settings.json"], keys: &["mcp/servers", "mcp.servers", "amp.mcpServers"], ..NONE },
    Client { name: "Windsurf", home: &[".codeium/windsurf/mcp_config.json", ".codeium/mcp_config.json"], ..NONE },
    Client { name: "Cline", home: &["{code}/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json", ".cline/data/settings/cline_mcp_settings.json"], ..NONE },
    Client { name: "Roo Code", home: &["{code}/globalStorage/rooveterinaryinc.roo-cline/settings/mcp_settings.json"], project: &[".roo/mcp.json"], ..NONE },
    Client { name: "Kilo Code", home: &["{code}/globalStorage/kilocode.kilo-code/settings/mcp_settings.json"], project: &[".kilocode/mcp.json"], ..NONE },
    Client { name: "Zed", home: &[".config/zed/settings.json", ".var/app/dev.zed.Zed/config/zed/settings.json"], project: &[".zed/settings.json"], keys: &["context_servers"], ..NONE },
    Client { name: "Continue", home: &[".continue/config.yaml", ".continue/config.json", ".continue/mcpServers/*"], project: &[".continue/mcpServers/*"], keys: &["mcpServers", "experimental/modelContextProtocolServers"], ..NONE },
    Client { name: "Codex", home: &[".codex/config.toml"], project: &[".codex/config.toml"], host: &["/etc/codex/config.toml", "/etc/codex/managed_config.toml"], keys: &["mcp_servers", "profiles/*/mcp_servers"] },
    Client { name: "Goose", home: &[".config/goose/config.yaml"], host: &["/etc/goose/config.yaml"], keys: &["extensions"], ..NONE },
    Client { name: "Gemini CLI", home: &[".gemini/settings.json"], project: &[".gemini/settings.json"], host: &["/etc/gemini-cli/settings.json", "/etc/gemini-cli/system-defaults.json"], ..NONE },
    Client { name: "Qwen Code", home: &[".qwen/settings.json"], project: &[".qwen/settings.json"], host: &["/etc/qwen-code/settings.json"], ..NONE },
    Client { name: "LM Studio", home: &[".lmstudio/mcp.json", ".cache/lm-studio/mcp.json"], ..NONE },
    Client { name: "opencode", home: &[".config/opencode/opencode.json", ".config/opencode/opencode.jsonc", ".config/opencode/config.json", ".opencode.json"], project: &["opencode.json", "opencode.jsonc", ".opencode.json"], keys: &["mcp", "mcpServers"], ..NONE },
    Client { name: "Crush", home: &[".config/crush/crush.json", ".crush.json"], project: &["crush.json", ".crush.json"], keys: &["mcp"], ..NONE },
    Client { name: "Amazon Q", home: &[".aws/amazonq/mcp.json", ".aws/amazonq/default.json", ".aws/amazonq/cli-agents/*", ".aws/amazonq/agents/*"], project: &[".amazonq/mcp.json", ".amazonq/default.json"], ..NONE },
    Client { name: "Kiro", home: &[".kiro/settings/mcp.json", ".kiro/agents/*"], project: &[".kiro/settings/mcp.json"], ..NONE },
    Client { name: "Copilot CLI", home: &[".copilot/mcp-config.json"], ..NONE },
    Client { name: "Junie", home: &[".junie/mcp/mcp.json"], project: &[".junie/mcp/mcp.json"], ..NONE },
    Client { name: "Amp", home: &[".config/amp/settings.json", ".config/amp/settings.jsonc"], project: &[".amp/settings.json"], keys: &["amp.mcpServers", "mcpServers"], ..NONE },
    Client { name: "Factory", home: &[".factory/mcp.json"], project: &[".factory/mcp.json"], ..NONE },
    Client { name: "MCPHost", home: &[".mcphost.yml", ".mcphost.yaml", ".mcphost.json", ".mcp.json"], keys: &["mcpServers", "servers"], ..NONE },
    Client { name: "Kimi CLI", home: &[".kimi/mcp.json"], ..NONE },
    Client { name: "LibreChat", project: &["librechat.yaml"], ..NONE },
];

/// A file that is named and whose client is not known: every place that any client reads.
pub const ANY: Client = Client {
    name: "a configuration",
    home: &[],
    project: &[],
    host: &[],
    keys: &[
        "mcpServers",
        "projects/*/mcpServers",
        "servers",
        "mcp/servers",
        "mcp.servers",
        "amp.mcpServers",
        "context_servers",
        "mcp_servers",
        "profiles/*/mcp_servers",
        "experimental/modelContextProtocolServers",
        "extensions",
        "mcp",
    ],
};

/// The client whose file ends like this path, otherwise [`ANY`].
pub fn of(path: &str) -> Client {
    let ends = |pattern: &&&str| {
        let tail = pattern.strip_prefix("{code}/").unwrap_or(pattern);
        // A short name says nothing: `settings.json`, `mcp.json` are many clients'.
        tail.contains('/') && !tail.contains('*') && path.ends_with(&format!("/{tail}"))
    };
    let found = CLIENTS.iter().find(|client| {
        let mut patterns = client.home.iter().chain(client.project).chain(client.host);
        patterns.any(|pattern| ends(&pattern))
    });
    found.copied().unwrap_or(ANY)
}

/// The patterns of a client below a home directory, `{code}` put in.
pub fn below_home(client: &Client) -> impl Iterator<Item = String> {
    client
        .home
        .iter()
        .flat_map(|pattern| match pattern.strip_prefix("{code}") {
            Some(rest) => CODE.iter().map(|code| format!("{code}{rest}")).collect(),
            None => vec![(*pattern).to_owned()],
        })
}
