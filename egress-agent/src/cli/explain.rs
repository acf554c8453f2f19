//! `egress-agent explain`: may this connector reach that destination, and by which rule?

use std::path::{Path, PathBuf};

use clap::Args;

use super::check::{Output, POLICIES, complain, json, print};
use crate::{
    exit,
    policy::{
        self, Faults, Policy,
        explain::{Call, Dest, Explanation, Request, explain, explain_call, explain_request},
        fault::Complaint,
    },
};

/// The policy does not permit the destination.
const NOT_PERMITTED: u8 = 1;

/// Arguments of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Connector, or its policy file (anything with a slash or .yaml)
    #[arg(value_name = "CONNECTOR")]
    pub connector: String,
    /// Destination: a host name, an address or unix:/path; with --from, a port of the connector; or
    /// a request, "METHOD https://HOST/PATH"
    #[arg(value_name = "DEST[:PORT][/PROTO]")]
    pub dest: String,
    /// Ask about a request to this recipient, whom no tool call has named; several times for several
    #[arg(long, value_name = "RECIPIENT", conflicts_with_all = ["from", "sni"])]
    pub recipient: Vec<String>,
    /// Ask about a call that comes in from this address; DEST is then :PORT
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<String>,
    /// What a TLS client says as server name; "": none. Missing: the name in DEST
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    pub sni: Option<String>,
    /// Folder of policies
    #[arg(long, value_name = "DIR", default_value = POLICIES)]
    pub policies: PathBuf,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Why there is no explanation.
enum Failure {
    Dest(Complaint),
    Policy(Faults),
}

/// Explains a destination on stdout. Exit code 0: the policy permits it; 1: it does not, for
/// at least one of the ports and protocols shown; 2: the destination or policy is unusable.
pub fn run(args: &ExplainArgs) -> u8 {
    match explanation(args) {
        Err(failure) => {
            complain(&match failure {
                Failure::Dest(complaint) => format!("egress-agent: {complaint}"),
                Failure::Policy(faults) => faults.to_string(),
            });
            exit::USAGE
        }
        Ok(explanation) => {
            print(&match args.output {
                Output::Json => json(&explanation),
                Output::Text => explanation.to_string(),
            });
            if explanation.answers.iter().all(|answer| answer.is_allowed()) {
                0
            } else {
                NOT_PERMITTED
            }
        }
    }
}

fn explanation(args: &ExplainArgs) -> Result<Explanation, Failure> {
    let policy = || load(&args.connector, &args.policies).map_err(Failure::Policy);
    if let Some(from) = &args.from {
        let call = Call::parse(&args.dest, from).map_err(Failure::Dest)?;
        return explain_call(&policy()?, &call).map_err(Failure::Policy);
    }
    if Request::is_one(&args.dest) {
        let request = Request::parse(&args.dest).map_err(Failure::Dest)?;
        let found = explain_request(&policy()?, &request, &args.recipient);
        return found.map_err(Failure::Policy)?.map_err(Failure::Dest);
    }
    if !args.recipient.is_empty() {
        return Err(Failure::Dest(Complaint::new(
            "“--recipient” is about a request",
            "write one, such as “POST https://api.example.org/v1/mails”, in quotes",
        )));
    }
    let dest = Dest::parse(&args.dest).map_err(Failure::Dest)?;
    explain(&policy()?, &dest, args.sni.as_deref()).map_err(Failure::Policy)
}

fn load(connector: &str, folder: &Path) -> Result<Policy, Faults> {
    let file = Path::new(connector);
    let yaml = file
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml");
    if yaml || connector.contains('/') {
        return policy::load_file(file);
    }
    policy::find(folder, connector).map(|loaded| loaded.policy)
}
