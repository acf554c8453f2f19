//! What a scan can find: kinds with stable ids, and findings with their places. Pure.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

/// How much a finding matters, as SARIF says it.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// To be mended.
    Warning,
    /// Open now.
    Error,
}

impl Severity {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A kind of finding. Ids are never given to another meaning.
#[derive(Debug)]
pub struct Rule {
    /// Stable id.
    pub id: &'static str,
    /// How much it matters, where nothing makes it less.
    pub severity: Severity,
    /// What it means, in one sentence.
    pub about: &'static str,
    /// What to do.
    pub help: &'static str,
}

macro_rules! rules {
    ($($name:ident: $id:literal, $severity:ident, $about:literal, $help:literal;)*) => {
        $(
            #[doc = $about]
            pub const $name: Rule = Rule {
                id: $id,
                severity: Severity::$severity,
                about: $about,
                help: $help,
            };
        )*
        /// Every kind there is.
        pub const RULES: &[&Rule] = &[$(&$name),*];
    };
}

rules! {
    NOT_CONFINED: "not-confined", Error,
        "A client starts the server without the agent, so it reaches every network its user reaches.",
        "put “egress-agent run CONNECTOR --” in front of the command, and write its policy";
    NOT_PINNED: "not-pinned", Warning,
        "What is started is chosen at the start, by whoever publishes there.",
        "install it and start the installed program, or write the exact version, commit or digest that was reviewed";
    PIPED_TO_SHELL: "piped-to-shell", Error,
        "The command runs whatever an address serves at that moment.",
        "fetch it once, review it, and start the file";
    REMOTE: "remote", Note,
        "The server is reached by an address; the agent confines programs of this host and cannot confine it.",
        "decide by who runs it; what it does on its side nobody here can limit";
    CONTAINER: "container", Warning,
        "The command only asks a container engine; the server is the engine's process, outside what the agent would confine.",
        "start the server's own program under the agent, or give the container no network but one that is limited";
    SECRET: "secret", Warning,
        "A secret stands in the file, for every program of its user and every backup to read.",
        "replace it by the client's own reference to a variable or a store of secrets, and change the secret";
    WRITABLE: "writable", Error,
        "Somebody else can change the file and so choose what its user starts.",
        "give the file and its folders to their user alone: chown and chmod go-w";
    POLICY_MISSING: "policy-missing", Error,
        "The agent is in front, but there is no policy for the connector, and it refuses to start.",
        "write the policy, or name the one there is";
    POLICY_FAULTY: "policy-faulty", Error,
        "The policy has faults, and the agent refuses to start the connector.",
        "see “egress-agent check FILE”";
    POLICY_WIDE: "policy-wide", Note,
        "The policy permits the whole public Internet.",
        "name the hosts that the server needs, if it is not there to fetch any address";
    POLICY_AUDIT: "policy-audit", Warning,
        "The connector runs in audit mode: what no rule permits is reported, and passes.",
        "add rules for what “egress-agent events” shows, and set “mode: enforce”";
    WALLET: "wallet", Error,
        "The server holds a signing key or a seed phrase and may reach more than hosts that are declared by their names.",
        "confine it with a policy that names its RPC hosts exactly, in mode enforce";
    NAME_TWICE: "name-twice", Warning,
        "One name stands for two different servers: which one answers depends on the client.",
        "give each its own name";
    LOOK_ALIKE: "look-alike", Error,
        "The package's name is nearly that of a well-known server.",
        "compare it with the name its maintainers publish, letter by letter";
    UNREAD: "unread", Warning,
        "The file cannot be read, so nothing is known about its servers.",
        "mend it; the client cannot read it either";
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its kind.
    pub rule: &'static Rule,
    /// How much it matters.
    pub severity: Severity,
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// The client that reads the file.
    pub client: &'static str,
    /// The server it is about.
    pub server: Option<String>,
    /// What it is about in the server, beside its name: tells two findings of one kind apart.
    pub subject: String,
    /// What was found.
    pub message: String,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Rule {}
