//! The environment of a connector.

use std::ffi::OsString;

use crate::policy::{model::Environment, proxy::Proxy};

/// Builds the environment: the caller's as it is, or, where the policy has an `env:` block,
/// what that names. `identity` (`HOME`, `USER` and the like) takes the place of the caller's
/// values, for the connector may run as somebody else. `folders` are the connector's own and
/// there in any case, unless the block sets them.
pub fn build(
    policy: Option<&Environment>,
    caller: impl IntoIterator<Item = (OsString, OsString)>,
    identity: &[(&str, OsString)],
    folders: &[(&str, OsString)],
) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = caller.into_iter().collect();
    for (name, value) in identity {
        set(&mut env, OsString::from(name), value.clone());
    }
    if let Some(policy) = policy {
        env.retain(|(name, _)| {
            policy
                .pass
                .iter()
                .any(|pass| name.as_os_str() == pass.as_str())
        });
    }
    for (name, value) in folders {
        set(&mut env, OsString::from(name), value.clone());
    }
    for (name, value) in policy.into_iter().flat_map(|policy| &policy.set) {
        set(&mut env, OsString::from(name), OsString::from(value));
    }
    env
}

/// Takes out what speaks of a proxy that the connector cannot reach: variables that name proxies,
/// and any that has the credentials of this one in it. Answers the names of the latter.
pub fn without_proxy(env: &mut Vec<(OsString, OsString)>, proxy: &Proxy) -> Vec<String> {
    let names_proxies = |name: &OsString| {
        let name = name.to_string_lossy().to_ascii_lowercase();
        name.ends_with("_proxy") || name == "proxy"
    };
    env.retain(|(name, _)| !names_proxies(name));
    let tells = |value: &OsString| {
        let credentials = proxy.credentials.as_ref();
        credentials.is_some_and(|it| it.are_in(value.as_encoded_bytes()))
    };
    let telling = env.iter().filter(|(_, value)| tells(value));
    let telling = telling
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .collect();
    env.retain(|(_, value)| !tells(value));
    telling
}

fn set(env: &mut Vec<(OsString, OsString)>, name: OsString, value: OsString) {
    env.retain(|(other, _)| *other != name);
    env.push((name, value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::proxy::Source;

    fn pairs(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        list.iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    #[test]
    fn without_a_block_the_callers_environment_stays() {
        let caller = pairs(&[("TOKEN", "x"), ("HOME", "/root")]);
        let env = build(None, caller, &[("HOME", "/home/a".into())], &[]);
        assert_eq!(env, pairs(&[("TOKEN", "x"), ("HOME", "/home/a")]));
    }

    #[test]
    fn nothing_speaks_of_a_proxy_that_is_not_reached() {
        let proxy = Proxy::parse("http://u:s3cret%21@proxy:3128", Source::Policy);
        let Ok(proxy) = proxy else {
            unreachable!("{proxy:?}")
        };
        let mut env = pairs(&[
            ("HTTPS_PROXY", "http://u:s3cret%21@proxy:3128"),
            ("http_proxy", "http://proxy:3128"),
            ("npm_config_https_proxy", "http://proxy:3128"),
            ("NO_PROXY", "a.example"),
            ("JAVA_TOOL_OPTIONS", "-Dhttps.proxyPassword=s3cret!"),
            ("HEADER", "Basic dTpzM2NyZXQh"),
            ("TOKEN", "x"),
        ]);
        let telling = without_proxy(&mut env, &proxy);
        assert_eq!(telling, ["JAVA_TOOL_OPTIONS", "HEADER"]);
        assert_eq!(env, pairs(&[("TOKEN", "x")]));
    }

    #[test]
    fn a_block_names_everything() {
        let policy = Environment {
            pass: vec!["TOKEN".into(), "HOME".into()],
            set: [("MODE".to_owned(), "production".to_owned())].into(),
        };
        let caller = pairs(&[
            ("TOKEN", "x"),
            ("OTHER", "y"),
            ("PATH", "/bin"),
            ("MODE", "z"),
        ]);
        let identity = [("HOME", "/home/a".into()), ("USER", "a".into())];
        let env = build(
            Some(&policy),
            caller,
            &identity,
            &[("TMPDIR", "/own".into())],
        );
        assert_eq!(
            env,
            pairs(&[
                ("TOKEN", "x"),
                ("HOME", "/home/a"),
                ("TMPDIR", "/own"),
                ("MODE", "production")
            ])
        );
    }
}
