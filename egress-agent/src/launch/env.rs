//! The environment of a connector.

use std::ffi::OsString;

use crate::policy::model::Environment;

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

fn set(env: &mut Vec<(OsString, OsString)>, name: OsString, value: OsString) {
    env.retain(|(other, _)| *other != name);
    env.push((name, value));
}

#[cfg(test)]
mod tests {
    use super::*;

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
