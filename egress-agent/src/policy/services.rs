//! The tables of services that come with the agent: which operations each has, and where they say
//! who they go to. Data: `policies/services/`.

use std::sync::LazyLock;

use egress_envelope::service::Service;

/// Name and text of each.
const TEXTS: [(&str, &str); 7] = [
    (
        "discord",
        include_str!("../../../policies/services/discord.yaml"),
    ),
    (
        "mailgun",
        include_str!("../../../policies/services/mailgun.yaml"),
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
    (
        "slack",
        include_str!("../../../policies/services/slack.yaml"),
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

fn read(text: &str) -> Result<Service, serde_yaml::Error> {
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
