//! `egress-agent shape`: what a connector's requests are made of, and what was new in them.

use clap::Args;
use egress_envelope::shape::{Baseline, Shown, sentence};
use serde::Serialize;

use super::{
    check::{Output, json, print},
    fail,
};
use crate::{envelope::shapes::Shapes, event::escape};

/// Version of the JSON form.
const SCHEMA: &str = "egress-agent/shape/v1";

/// Show what a connector's requests are made of, and what was new in them; as root
///
/// With --accept what is new belongs to its operation from now on, with --forget the operation is
/// learned anew. Exit status: 0, or 1 where something is new.
#[derive(Debug, Args)]
pub struct ShapeArgs {
    /// The connector, as its policy names it
    connector: String,
    /// One operation; all if missing
    operation: Option<String>,
    /// Take what is new for known
    #[arg(long, conflicts_with = "forget")]
    accept: bool,
    /// Forget what is known
    #[arg(long)]
    forget: bool,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    connector: &'a str,
    /// By operation.
    operations: Vec<Operation<'a>>,
}

#[derive(Serialize)]
struct Operation<'a> {
    operation: &'a str,
    #[serde(flatten)]
    shown: &'a Shown,
}

/// Shows, accepts or forgets. Answers the exit code.
pub fn run(args: &ShapeArgs) -> u8 {
    match done(args) {
        Ok(code) => code,
        Err(error) => fail(format!(
            "the shapes of {} cannot be read: {error}",
            args.connector
        )),
    }
}

fn done(args: &ShapeArgs) -> std::io::Result<u8> {
    if !crate::policy::is_connector(&args.connector) {
        return Ok(fail(format!(
            "“{}” is no name of a connector",
            args.connector.escape_debug()
        )));
    }
    let shapes = Shapes::open(&args.connector)?;
    let operation = args.operation.as_deref();
    let baseline = if args.accept {
        shapes.change(|it| it.accept(operation))?.0
    } else if args.forget {
        shapes.change(|it| it.forget(operation))?.0
    } else {
        shapes.load()?
    };
    let shown = |name: &String| operation.is_none_or(|own| own == name);
    let operations = baseline.operations.iter().filter(|(name, _)| shown(name));
    let any = operations.clone().any(|(_, shown)| !shown.new.is_empty());
    match args.output {
        Output::Text => print(&text(&baseline, &shown)),
        Output::Json => print(&json(&Report {
            schema: SCHEMA,
            connector: &args.connector,
            operations: operations
                .map(|(operation, shown)| Operation { operation, shown })
                .collect(),
        })),
    };
    Ok(u8::from(any))
}

fn text(baseline: &Baseline, shown: &dyn Fn(&String) -> bool) -> String {
    let mut out = String::new();
    for (name, operation) in baseline.operations.iter().filter(|(name, _)| shown(name)) {
        let Shown {
            requests,
            known,
            new,
        } = operation;
        let known: Vec<&str> = known.keys().map(String::as_str).collect();
        let known = escape::inner(&known.join(", "));
        out += &format!(
            "{}: {requests} requests\n  known: {known}\n",
            escape::field(name)
        );
        for (thing, new) in new {
            let said = sentence(thing, name, new.before, &new.version);
            out += &format!("  new: {} ({} since)\n", escape::inner(&said), new.requests);
        }
    }
    if out.is_empty() {
        out += "nothing is known yet: requests under a rule with “shape: report” are kept\n";
    }
    out
}
