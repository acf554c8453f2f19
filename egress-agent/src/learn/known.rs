//! Names that a connector reaches without needing them for its work, and wildcards that are none of
//! one owner. Pure.

/// Services of telemetry, crash reports and feature switches: their domains.
const TELEMETRY: [&str; 26] = [
    "sentry.io",
    "segment.io",
    "segment.com",
    "posthog.com",
    "amplitude.com",
    "mixpanel.com",
    "google-analytics.com",
    "googletagmanager.com",
    "analytics.google.com",
    "app-measurement.com",
    "datadoghq.com",
    "datadoghq.eu",
    "browser-intake-datadoghq.com",
    "newrelic.com",
    "nr-data.net",
    "bugsnag.com",
    "rollbar.com",
    "honeycomb.io",
    "statsig.com",
    "statsigapi.net",
    "launchdarkly.com",
    "heapanalytics.com",
    "rudderstack.com",
    "applicationinsights.azure.com",
    "dc.services.visualstudio.com",
    "scarf.sh",
];

/// First labels that say the same.
const LABELS: [&str; 5] = [
    "telemetry",
    "analytics",
    "crashreports",
    "crash-reports",
    "events-telemetry",
];

/// Registries of packages: they take uploads from anybody.
const REGISTRIES: [&str; 7] = [
    "registry.npmjs.org",
    "registry.yarnpkg.com",
    "pypi.org",
    "files.pythonhosted.org",
    "crates.io",
    "rubygems.org",
    "proxy.golang.org",
];

/// Whether a name is one of telemetry.
pub fn is_telemetry(name: &str) -> bool {
    let label = name.split('.').next().unwrap_or_default();
    LABELS.contains(&label) || TELEMETRY.iter().any(|domain| is_at_or_below(name, domain))
}

/// Whether a name is one of a registry of packages.
pub fn is_registry(name: &str) -> bool {
    REGISTRIES.contains(&name)
}

fn is_at_or_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The domain below which all of several names are, where it is one owner's: never a public suffix,
/// such as `co.uk` or `github.io`, and nothing above the domain that was registered.
pub fn common(names: &[&str]) -> Option<String> {
    let mut shared: Vec<&str> = names.first()?.rsplit('.').collect();
    for name in names {
        let labels: Vec<&str> = name.rsplit('.').collect();
        let same = shared
            .iter()
            .zip(&labels)
            .take_while(|(one, other)| one == other);
        let same = same.count();
        shared.truncate(same);
    }
    // One label has to stand below it.
    let longest = names.iter().map(|name| name.split('.').count()).min()?;
    shared.truncate(longest.saturating_sub(1));
    shared.reverse();
    let domain = shared.join(".");
    let registered = registered(&domain)?;
    is_at_or_below(&domain, registered).then_some(domain)
}

/// The part of a name that somebody registered (publicsuffix.org, both sections).
pub fn registered(name: &str) -> Option<&str> {
    let domain = psl::domain(name.as_bytes())?;
    domain.suffix().is_known().then_some(())?;
    std::str::from_utf8(domain.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_one_owners() {
        let common = |names: &str| common(&names.split(' ').collect::<Vec<_>>());
        assert_eq!(
            common("a.x.example.com b.x.example.com").as_deref(),
            Some("x.example.com")
        );
        assert_eq!(
            common("a.x.example.com b.example.com").as_deref(),
            Some("example.com")
        );
        assert_eq!(common("example.com b.example.com"), None);
        assert_eq!(common("a.co.uk b.co.uk"), None);
        assert_eq!(common("a.b.co.uk c.b.co.uk").as_deref(), Some("b.co.uk"));
        assert_eq!(common("a.github.io b.github.io"), None);
        assert_eq!(common("a.s3.amazonaws.com b.s3.amazonaws.com"), None);
        assert_eq!(common("a.example.com a.example.net"), None);
        assert_eq!(common("a.nothing-known b.nothing-known"), None);
    }

    #[test]
    fn telemetry_is_told_by_its_domain() {
        for name in ["o1.ingest.sentry.io", "sentry.io", "telemetry.example.com"] {
            assert!(is_telemetry(name), "{name}");
        }
        for name in ["mysentry.io", "api.example.com", "sentry.io.example.com"] {
            assert!(!is_telemetry(name), "{name}");
        }
    }
}
