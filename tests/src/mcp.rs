//! Real MCP clients, made with the SDKs, that start servers the way a desktop client does: from
//! the `mcpServers` part of a configuration file.

use std::{
    fmt, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    agent,
    event::{self, Denial, Event},
    process::{Outcome, Running, must},
    programs,
    world::{USER, World},
};

/// Starting a client, an agent and a server takes this long at most on a busy machine.
const START: Duration = Duration::from_secs(60);
/// One call.
const CALL: Duration = Duration::from_secs(40);
/// A whole session.
const SESSION: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(2);
/// The server's name in the configuration file.
const NAME: &str = "confined";
const PYTHON_CLIENT: &str = include_str!("../fixtures/mcp/client.py");
const NODE_CLIENT: &str = include_str!("../fixtures/mcp/client.cjs");
const TURNED_POSTMARK: &str = include_str!("../fixtures/mcp/turned_postmark.cjs");
/// What authenticates the turned server to the API. Of the form that the service has.
const POSTMARK_TOKEN: &str = "0e7d5a72-4a1b-4b8e-9d15-3c1ab0f4d6aa";

/// The library a client is made with.
#[derive(Clone, Copy, Debug)]
pub enum Sdk {
    /// `mcp` of PyPI.
    Python,
    /// `@modelcontextprotocol/sdk` of npm.
    Node,
}

/// A server as a configuration file names it, before the client starts.
pub struct Server<'w> {
    world: &'w World,
    policy: String,
    command: Vec<String>,
    environment: Vec<(String, String)>,
}

/// A client with a session.
pub struct Session {
    client: Running,
    seen: usize,
    events: PathBuf,
    /// What the server said of itself.
    pub hello: Hello,
}

/// What a server says of itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Hello {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Names of its tools.
    pub tools: Vec<String>,
}

/// The answer to one call, as the client sees it.
#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    /// The call failed: the tool said so, or the protocol.
    pub failed: bool,
    /// Text of the result, or of the error.
    pub text: String,
    /// From call to answer. Milliseconds.
    pub ms: u64,
}

/// What a session left.
#[derive(Debug)]
pub struct Ended {
    /// Of the client; standard error has the agent's and the server's, too.
    pub outcome: Outcome,
    /// How long the server took to end. Milliseconds; `None`: the session never began.
    pub closed_in_ms: Option<u64>,
    /// Everything the stream says.
    pub events: Vec<Event>,
}

#[derive(Deserialize)]
struct Goodbye {
    closed_in_ms: u64,
}

impl World {
    /// A server under the agent with a policy. A word `{cache}` in the command becomes the
    /// folder of what [`programs::install_mcp`] installs, `{home}` one that the connector owns.
    pub fn mcp_server(&self, policy: impl Into<String>, command: &[&str]) -> Server<'_> {
        let server = Server {
            world: self,
            policy: policy.into(),
            command: Vec::new(),
            environment: Vec::new(),
        };
        let command = command.iter().map(|word| server.place(word)).collect();
        let dir = self.dir().display();
        Server { command, ..server }
            .env("SSL_CERT_FILE", &format!("{dir}/bundle.pem"))
            .env("NODE_EXTRA_CA_CERTS", &format!("{dir}/authority.pem"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
    }
}

impl World {
    /// The mail server that turned against its user after some `honest` mails, and calls the API
    /// of a mail service. Its one tool is `sendEmail`, with `to`, `subject` and `textBody`.
    pub fn turned_postmark(&self, policy: impl Into<String>, honest: u32) -> Result<Server<'_>> {
        let file = self.path("turned_postmark.cjs");
        fs::write(&file, TURNED_POSTMARK)?;
        let command = ["node", &file.display().to_string(), &honest.to_string()];
        Ok(self
            .mcp_server(policy, &command)
            .env("NODE_PATH", "{cache}/mcp-node/node_modules")
            .env("POSTMARK_SERVER_TOKEN", POSTMARK_TOKEN)
            .env("DEFAULT_SENDER_EMAIL", "shop@example.org"))
    }

    /// A copy, for the connector's user, of what npx keeps of [`programs::NPX_SERVER`]; npx
    /// writes into its cache also where everything is there. The value of `npm_config_cache`.
    pub fn npx_cache(&self) -> Result<String> {
        programs::install_mcp()?;
        self.copied("mcp-npx")
    }

    /// The same of what uvx keeps of [`programs::UVX_SERVER`]. The value of `UV_CACHE_DIR`.
    pub fn uvx_cache(&self) -> Result<String> {
        programs::install_uvx()?;
        self.copied("uvx")
    }

    fn copied(&self, name: &str) -> Result<String> {
        let copy = self.path(name);
        let mut cp = Command::new("cp");
        // With its links: uv's cache is made of them.
        cp.arg("--archive")
            .arg(programs::cache_dir()?.join(name))
            .arg(&copy);
        must(cp, START)?;
        let mut chown = Command::new("chown");
        chown.args(["-R", &format!("{USER}:{USER}")]).arg(&copy);
        must(chown, START)?;
        Ok(copy.display().to_string())
    }
}

impl Server<'_> {
    /// Sets a variable in the `env` of the configuration file.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        let value = self.place(value);
        self.environment.push((key.to_owned(), value));
        self
    }

    /// Starts a client that starts this server. Errors: no session came about; they say what the
    /// client, the agent and the server said.
    pub fn connect(&self, sdk: Sdk) -> Result<Session> {
        let mut session = self.start(sdk)?;
        session.hello = session.next(START)?;
        Ok(session)
    }

    /// Starts a client whose session will not come about, and waits for its end.
    pub fn fail(&self, sdk: Sdk) -> Result<Ended> {
        self.start(sdk)?.end()
    }

    fn start(&self, sdk: Sdk) -> Result<Session> {
        programs::install_mcp()?;
        let (policy, config) = (self.world.path("policy.yaml"), self.world.path("mcp.json"));
        let events = self.world.path("events.jsonl");
        fs::write(&policy, &self.policy)?;
        let words = self.words(&policy, &events)?;
        let environment: serde_json::Map<String, Value> = self
            .environment
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().into()))
            .collect();
        let entry = json!({ "command": words[0], "args": words[1..], "env": environment });
        fs::write(
            &config,
            json!({ "mcpServers": { NAME: entry } }).to_string(),
        )?;
        let mut command = self.client(sdk)?;
        command.arg(&config).arg(NAME);
        Ok(Session {
            client: Running::start(command, SESSION)?,
            seen: 0,
            events,
            hello: Hello {
                name: String::new(),
                version: String::new(),
                tools: Vec::new(),
            },
        })
    }

    /// The client's own command line. It runs on the host, unconfined, as root: what it starts
    /// is the agent, which needs that.
    fn client(&self, sdk: Sdk) -> Result<Command> {
        let (file, text) = match sdk {
            Sdk::Python => (self.world.path("client.py"), PYTHON_CLIENT),
            Sdk::Node => (self.world.path("client.cjs"), NODE_CLIENT),
        };
        fs::write(&file, text)?;
        let cache = self.world.dir().join("cache");
        let mut command = match sdk {
            Sdk::Python => self.world.command(cache.join("mcp-python/bin/python")),
            Sdk::Node => self.world.command("node"),
        };
        command
            .arg(file)
            .env_remove("PYTHONPATH")
            .env("NODE_PATH", cache.join("mcp-node/node_modules"));
        Ok(command)
    }

    /// What the configuration file names: the agent and behind it the server; with
    /// [`agent::unconfined`] the server alone, as the same user.
    fn words(&self, policy: &Path, events: &Path) -> Result<Vec<String>> {
        let path = |path: &Path| path.display().to_string();
        let user = USER.to_string();
        let mut words: Vec<String> = if agent::unconfined() {
            let ids = [format!("--reuid={user}"), format!("--regid={user}")];
            let mut words = vec!["setpriv".to_owned()];
            words.extend(ids);
            words.extend(["--clear-groups", "--"].map(str::to_owned));
            words
        } else {
            let agent = path(&programs::agent()?);
            let (policy, events) = (path(policy), path(events));
            [&agent, "run", "--policy", &policy, "--events", &events]
                .into_iter()
                .chain(["--user", &user, "--"])
                .map(str::to_owned)
                .collect()
        };
        words.extend(self.command.iter().cloned());
        Ok(words)
    }

    fn place(&self, word: &str) -> String {
        let dir = self.world.dir();
        word.replace("{cache}", &dir.join("cache").display().to_string())
            .replace("{home}", &dir.join("home").display().to_string())
    }
}

impl Session {
    /// Calls a tool.
    pub fn call(&mut self, tool: &str, arguments: &Value) -> Result<Answer> {
        let request = json!({ "tool": tool, "arguments": arguments });
        writeln!(self.client.stdin()?, "{request}").context("the client is gone")?;
        self.next(CALL)
    }

    /// Waits for a denial in the stream, at most [`agent::SHOWN_WITHIN`].
    pub fn denial(&self, denial: &Denial) -> Result<Event> {
        let end = Instant::now() + agent::SHOWN_WITHIN;
        loop {
            let events = self.events()?;
            if let Some(event) = events.iter().find(|event| denial.fits(event)) {
                return Ok(event.clone());
            }
            ensure!(
                Instant::now() < end,
                "no {denial:?}; the stream says {events:#?}"
            );
            thread::sleep(POLL);
        }
    }

    /// Everything that the stream says so far.
    pub fn events(&self) -> Result<Vec<Event>> {
        event::read(&self.events)
    }

    /// What the client, the agent and the server said on standard error.
    pub fn stderr(&self) -> String {
        self.client.stderr()
    }

    /// Has the client close the session, and waits for its end.
    pub fn end(mut self) -> Result<Ended> {
        self.client.close_stdin();
        let goodbye: Option<Goodbye> = self.next(CALL).ok();
        let outcome = self.client.wait()?;
        Ok(Ended {
            outcome,
            closed_in_ms: goodbye.map(|goodbye| goodbye.closed_in_ms),
            events: event::read(&self.events)?,
        })
    }

    /// The client's next line.
    fn next<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            let out = self.client.stdout();
            let new = out.get(self.seen..).unwrap_or_default();
            if let Some(length) = new.iter().position(|byte| *byte == b'\n') {
                self.seen += length + 1;
                return serde_json::from_slice(&new[..length])
                    .with_context(|| String::from_utf8_lossy(new).into_owned());
            }
            let ended = self.client.ended()?;
            if ended || Instant::now() > end {
                let what = if ended { "ended" } else { "says nothing" };
                bail!("the client {what}: {}", self.client.stderr());
            }
            thread::sleep(POLL);
        }
    }
}

impl Ended {
    /// Whether the connector was refused a name.
    pub fn asked_for(&self, name: &str) -> bool {
        let denial = Denial::of_name(name);
        self.events.iter().any(|event| denial.fits(event))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, text) = (self.outcome.code(), self.outcome.text());
        writeln!(
            f,
            "client ended with {code}; closed in {:?} ms",
            self.closed_in_ms
        )?;
        writeln!(f, "stdout: {text}\nstderr: {}", self.outcome.stderr)?;
        let lines = self.events.iter().map(|event| event.line.as_str());
        write!(f, "stream:\n{}", lines.collect::<Vec<_>>().join("\n"))
    }
}
