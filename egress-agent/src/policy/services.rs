//! The tables of services that come with the agent: which operations each has, and where they say
//! who they go to. Data: `policies/services/`.

use std::sync::LazyLock;

use egress_envelope::service::Service;

/// Name and text of each.
pub(super) const TEXTS: [(&str, &str); 15] = [
    (
        "discord",
        include_str!("../../../policies/services/discord.yaml"),
    ),
    (
        "ethereum",
        include_str!("../../../policies/services/ethereum.yaml"),
    ),
    (
        "github",
        include_str!("../../../policies/services/github.yaml"),
    ),
    (
        "gmail",
        include_str!("../../../policies/services/gmail.yaml"),
    ),
    (
        "graph",
        include_str!("../../../policies/services/graph.yaml"),
    ),
    (
        "mailgun",
        include_str!("../../../policies/services/mailgun.yaml"),
    ),
    (
        "notion",
        include_str!("../../../policies/services/notion.yaml"),
    ),
    (
        "postmark",
        include_str!("../../../policies/services/postmark.yaml"),
    ),
    (
        "resend",
        include_str!("../../../policies/services/resend.yaml"),
    ),
    (
        "sendgrid",
        include_str!("../../../policies/services/sendgrid.yaml"),
    ),
    ("ses", include_str!("../../../policies/services/ses.yaml")),
    (
        "slack",
        include_str!("../../../policies/services/slack.yaml"),
    ),
    (
        "stripe",
        include_str!("../../../policies/services/stripe.yaml"),
    ),
    (
        "telegram",
        include_str!("../../../policies/services/telegram.yaml"),
    ),
    (
        "twilio",
        include_str!("../../../policies/services/twilio.yaml"),
    ),
];

/// All, in the order of their names.
static TABLES: LazyLock<Vec<Service>> = LazyLock::new(|| {
    let tables = TEXTS.iter().filter_map(|(_, text)| read(text).ok());
    tables.collect()
});

pub(super) fn read(text: &str) -> Result<Service, serde_yaml::Error> {
    serde_yaml::from_str(text)
}

/// The table of a service.
pub fn find(name: &str) -> Option<&'static Service> {
    TABLES.iter().find(|table| table.service == name)
}

/// The names of all services with a table.
pub fn names() -> impl Iterator<Item = &'static str> {
    TEXTS.iter().map(|(name, _)| *name)
}
