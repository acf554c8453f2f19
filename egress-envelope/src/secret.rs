//! Secrets in requests: private keys, keys and tokens of known forms, and the connector's own.
//!
//! What is found is never told: only its kind and, of the connector's own, the variable's name.

use std::collections::{BTreeMap, HashMap};

use regex::bytes::{Regex, RegexBuilder, RegexSet};
use serde::{Deserialize, Serialize};

use crate::views::{self, TooMany};

/// Bytes of the shortest own secret that is looked for: shorter ones stand in texts by chance.
pub const SHORTEST: usize = 8;
/// Own secrets that are looked for.
const MAX_OWN: usize = 256;
/// Memory of one compiled expression. Bytes.
const MAX_COMPILED: usize = 4 << 20;

/// What is looked for in every request, and where the connector's own secrets belong.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Content {
    /// Kinds that are refused.
    pub refuse: Vec<Secret>,
    /// Variables of the environment, and the hosts where their values belong.
    pub belongs: BTreeMap<String, Vec<String>>,
}

/// Kinds of secrets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Secret {
    /// PEM, OpenSSH, PGP, PuTTY and age.
    PrivateKey,
    /// AWS access key ids.
    AwsAccessKey,
    /// Google API keys, OAuth client secrets and access tokens.
    GoogleKey,
    /// Azure storage keys and shared access signatures, DigitalOcean tokens.
    CloudKey,
    /// GitHub and GitLab.
    ForgeToken,
    /// Slack, Discord webhooks, Telegram bots.
    ChatToken,
    /// Stripe, SendGrid, Mailgun, Twilio, Shopify and the like.
    ServiceKey,
    /// Anthropic, OpenAI, Hugging Face, Groq.
    ModelKey,
    /// npm, PyPI, crates.io.
    PackageToken,
    /// JSON web tokens.
    WebToken,
    /// Values of the connector's environment that look like secrets.
    OwnSecrets,
}

/// By what each kind is known. Letters before and behind are no part of it, so that a name that ends
/// like a token's beginning is none.
#[rustfmt::skip]
const FORMS: [(Secret, &str); 29] = [
    (Secret::PrivateKey, r"-----BEGIN ([A-Z0-9]+ ){0,3}PRIVATE KEY( BLOCK)?-----"),
    (Secret::PrivateKey, r"PuTTY-User-Key-File-[0-9]:"),
    (Secret::PrivateKey, r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b"),
    (Secret::AwsAccessKey, r"\b(AKIA|ASIA)[A-Z2-7]{16}\b"),
    (Secret::GoogleKey, r"\bAIza[0-9A-Za-z_-]{35}"),
    (Secret::GoogleKey, r"\bGOCSPX-[0-9A-Za-z_-]{28}"),
    (Secret::GoogleKey, r"\bya29\.[0-9A-Za-z_-]{30}"),
    (Secret::CloudKey, r"\bAccountKey=[A-Za-z0-9+/]{86}=="),
    (Secret::CloudKey, r"\bdo[oprt]_v1_[0-9a-f]{64}\b"),
    (Secret::ForgeToken, r"\bgh[opsur]_[A-Za-z0-9]{36}"),
    (Secret::ForgeToken, r"\bgithub_pat_[A-Za-z0-9_]{60}"),
    (Secret::ForgeToken, r"\bglpat-[A-Za-z0-9_-]{20}"),
    (Secret::ChatToken, r"\bxox[abceoprs]-[A-Za-z0-9-]{20}"),
    (Secret::ChatToken, r"\bxapp-[0-9]-[A-Za-z0-9-]{30}"),
    (Secret::ChatToken, r"hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20}"),
    (Secret::ChatToken, r"discord(app)?\.com/api/webhooks/[0-9]{17,}/[A-Za-z0-9_-]{60}"),
    (Secret::ChatToken, r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"),
    (Secret::ServiceKey, r"\b[rs]k_(live|test)_[A-Za-z0-9]{20}"),
    (Secret::ServiceKey, r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    (Secret::ServiceKey, r"\bshp(at|ca|pa|ss)_[0-9a-f]{32}"),
    (Secret::ServiceKey, r"\b(ntn_|lin_api_|figd_|sntrys_|sbp_)[A-Za-z0-9_-]{36}"),
    (Secret::ModelKey, r"\bsk-ant-[A-Za-z0-9_-]{40}"),
    (Secret::ModelKey, r"\bsk-(proj|svcacct|admin)-[A-Za-z0-9_-]{40}"),
    (Secret::ModelKey, r"\bsk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}"),
    (Secret::ModelKey, r"\b(hf|gsk)_[A-Za-z0-9]{34}"),
    (Secret::PackageToken, r"\bnpm_[A-Za-z0-9]{36}"),
    (Secret::PackageToken, r"\bpypi-[A-Za-z0-9_-]{50}"),
    (Secret::PackageToken, r"\bcio[A-Za-z0-9]{32}\b"),
    (Secret::WebToken, r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20}"),
];

/// A secret of the connector's own.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// The variable that holds it.
    pub name: String,
    /// What is looked for: its value, or a part of that.
    pub text: String,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Own({}, …)", self.name)
    }
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// A secret of a known form.
    Form(Secret),
    /// One of the connector's own, by the name of its variable.
    Own(String),
    /// More encodings than are looked through.
    TooMany,
}

/// Why secrets cannot be looked for.
#[derive(Debug, thiserror::Error)]
#[error("the secrets of the connector's environment cannot be looked for: {0}")]
pub struct FinderError(#[from] regex::Error);

/// Looks for secrets. Made once: what it knows of the connector's environment does not change.
#[derive(Debug)]
pub struct Finder {
    forms: RegexSet,
    own: Option<Regex>,
    /// The variables, by their values in small letters.
    names: HashMap<Vec<u8>, String>,
}

impl Finder {
    /// Looks for these besides known forms. Those that are too short are left out.
    pub fn new(own: &[Own]) -> Result<Self, FinderError> {
        let mut own: Vec<&Own> = own
            .iter()
            .filter(|own| own.text.len() >= SHORTEST)
            .collect();
        // Of two that begin alike the longer one counts.
        own.sort_by_key(|own| std::cmp::Reverse(own.text.len()));
        own.truncate(MAX_OWN);
        let literals: Vec<String> = own.iter().map(|own| regex::escape(&own.text)).collect();
        let compiled = |text: &str| {
            // Names of header fields are in small letters when they are read.
            let mut builder = RegexBuilder::new(text);
            builder.unicode(false).case_insensitive(true);
            builder.size_limit(MAX_COMPILED).build()
        };
        let own_regex = match literals.is_empty() {
            true => None,
            false => Some(compiled(&literals.join("|"))?),
        };
        let forms = FORMS.iter().map(|(_, form)| format!("(?-u){form}"));
        let names = own.iter().rev();
        Ok(Self {
            forms: RegexSet::new(forms)?,
            own: own_regex,
            names: names
                .map(|own| (own.text.to_ascii_lowercase().into_bytes(), own.name.clone()))
                .collect(),
        })
    }

    /// The first secret in a text, however it is encoded, that a rule refuses. `belongs`: whether an
    /// own one may stand there.
    pub(crate) fn find(
        &self,
        text: &[u8],
        refuse: &[Secret],
        belongs: &impl Fn(&str) -> bool,
    ) -> Option<Found> {
        let mut found = None;
        let own = self.own.as_ref();
        let own = own.filter(|_| refuse.contains(&Secret::OwnSecrets));
        let looked = views::each(text, &mut |view| {
            found = self.form(view, refuse).map(Found::Form).or_else(|| {
                let mut all = own.into_iter().flat_map(|own| own.find_iter(view));
                all.find_map(|it| {
                    let name = self.names.get(&it.as_bytes().to_ascii_lowercase())?;
                    (!belongs(name)).then(|| Found::Own(name.clone()))
                })
            });
            found.is_some()
        });
        match looked {
            Ok(_) => found,
            Err(TooMany) => Some(Found::TooMany),
        }
    }

    fn form(&self, view: &[u8], refuse: &[Secret]) -> Option<Secret> {
        let known = self.forms.matches(view);
        let mut kinds = known.iter().filter_map(|at| Some(FORMS.get(at)?.0));
        kinds.find(|kind| refuse.contains(kind))
    }
}

impl Secret {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::PrivateKey,
        Self::AwsAccessKey,
        Self::GoogleKey,
        Self::CloudKey,
        Self::ForgeToken,
        Self::ChatToken,
        Self::ServiceKey,
        Self::ModelKey,
        Self::PackageToken,
        Self::WebToken,
        Self::OwnSecrets,
    ];

    /// As policies and events write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PrivateKey => "private-key",
            Self::AwsAccessKey => "aws-access-key",
            Self::GoogleKey => "google-key",
            Self::CloudKey => "cloud-key",
            Self::ForgeToken => "forge-token",
            Self::ChatToken => "chat-token",
            Self::ServiceKey => "service-key",
            Self::ModelKey => "model-key",
            Self::PackageToken => "package-token",
            Self::WebToken => "web-token",
            Self::OwnSecrets => "own-secrets",
        }
    }
}

#[cfg(test)]
#[path = "secret_tests.rs"]
mod tests;
