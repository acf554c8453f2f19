//! The bill of materials, in CycloneDX 1.5 (ECMA-424): every crate that is built into the
//! agent and into the eBPF programs it carries, from the two lock files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::lock;
use crate::host;

/// The shipped packages, each with the manifest of its workspace.
const ROOTS: [(&str, &str); 2] = [
    ("egress-agent", "Cargo.toml"),
    ("egress-ebpf", "egress-ebpf/Cargo.toml"),
];

/// Crates by their reference, and what each depends on.
#[derive(Default)]
struct Bill {
    components: BTreeMap<String, Value>,
    depends: BTreeMap<String, BTreeSet<String>>,
}

/// The bill as text. `time` is that of the commit, RFC 3339.
pub(super) fn write(time: &str) -> Result<String> {
    let mut bill = Bill::default();
    for (root, manifest) in ROOTS {
        let metadata = metadata(manifest)?;
        let lock = host::workspace()
            .join(manifest)
            .with_file_name("Cargo.lock");
        let lock = fs::read_to_string(&lock).with_context(|| lock.display().to_string())?;
        bill.add(&metadata, root, &lock::sums(&lock))?;
    }
    let text = serde_json::to_string_pretty(&bill.document(time)?)?;
    Ok(text + "\n")
}

/// What cargo knows of a workspace, for this platform and without reaching for the network.
fn metadata(manifest: &str) -> Result<Value> {
    let mut cargo = host::cargo();
    cargo.args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--manifest-path",
        manifest,
    ]);
    if manifest == "Cargo.toml" {
        cargo.args(["--filter-platform", &platform()?]);
    }
    let output = cargo.output().context("cargo cannot be started")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    serde_json::from_slice(&output.stdout).context("what cargo says of the workspace")
}

fn platform() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("the compiler does not say what this host is")
}

impl Bill {
    /// Adds a package and all it is built from. Crates that only its tests need stay out.
    fn add(
        &mut self,
        metadata: &Value,
        root: &str,
        sums: &BTreeMap<lock::Package, String>,
    ) -> Result<()> {
        let by_id = |list: &Value| -> BTreeMap<String, Value> {
            let entries = list.as_array().into_iter().flatten();
            let id = |entry: &Value| entry["id"].as_str().unwrap_or_default().to_owned();
            entries.map(|entry| (id(entry), entry.clone())).collect()
        };
        let packages = by_id(&metadata["packages"]);
        let nodes = metadata.pointer("/resolve/nodes");
        let nodes = by_id(nodes.unwrap_or(&Value::Null));
        let start = packages.iter().find(|(_, package)| package["name"] == root);
        let (start, _) = start.with_context(|| format!("cargo knows no package {root}"))?;
        let mut seen = BTreeSet::new();
        let mut open = vec![start.clone()];
        while let Some(id) = open.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            let (package, node) = packages
                .get(&id)
                .zip(nodes.get(&id))
                .with_context(|| format!("cargo says nothing of {id}"))?;
            let needed: Vec<String> = needed(node);
            let references = needed.iter().filter_map(|id| packages.get(id));
            let references: BTreeSet<String> = references.map(reference).collect();
            let own = reference(package);
            self.depends
                .entry(own.clone())
                .or_default()
                .extend(references);
            self.components.insert(own, component(package, sums));
            open.extend(needed);
        }
        Ok(())
    }

    /// The agent is what the bill is about; the eBPF programs are one of its parts.
    fn document(mut self, time: &str) -> Result<Value> {
        let is = |name: &str, reference: &str| reference.split('@').next() == Some(name);
        let root = self
            .components
            .keys()
            .find(|key| is("egress-agent", key))
            .cloned();
        let programs = self
            .components
            .keys()
            .find(|key| is("egress-ebpf", key))
            .cloned();
        let (Some(root), Some(programs)) = (root, programs) else {
            bail!("the agent or its programs are missing from their own bill");
        };
        self.depends
            .entry(root.clone())
            .or_default()
            .insert(programs);
        let mut about = self.components.remove(&root).unwrap_or_default();
        if let Some(about) = about.as_object_mut() {
            about.insert("type".to_owned(), json!("application"));
        }
        let dependencies: Vec<Value> = self
            .depends
            .iter()
            .map(|(reference, on)| json!({ "ref": reference, "dependsOn": on }))
            .collect();
        Ok(json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": { "timestamp": time, "component": about },
            "components": self.components.into_values().collect::<Vec<_>>(),
            "dependencies": dependencies,
        }))
    }
}

/// The ids of what a package is built with: its dependencies and its build script's.
fn needed(node: &Value) -> Vec<String> {
    let dependencies = node["deps"].as_array().into_iter().flatten();
    let built = dependencies.filter(|dependency| {
        let mut kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
        kinds.any(|kind| kind["kind"] != "dev")
    });
    built
        .filter_map(|dependency| dependency["pkg"].as_str().map(str::to_owned))
        .collect()
}

fn reference(package: &Value) -> String {
    let text = |key: &str| package[key].as_str().unwrap_or_default();
    format!("{}@{}", text("name"), text("version"))
}

fn component(package: &Value, sums: &BTreeMap<lock::Package, String>) -> Value {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let (name, version) = (text("name"), text("version"));
    let sum = sums.get(&(name.clone(), version.clone()));
    let hashes: Vec<Value> = sum
        .iter()
        .map(|sum| json!({ "alg": "SHA-256", "content": sum }))
        .collect();
    // Only what comes from the registry has a place there.
    let purl = sum.map(|_| json!(format!("pkg:cargo/{name}@{version}")));
    let sources: Vec<Value> = package["repository"]
        .as_str()
        .iter()
        .map(|url| json!({ "type": "vcs", "url": url }))
        .collect();
    let fields = [
        ("type", Some(json!("library"))),
        ("bom-ref", Some(json!(reference(package)))),
        ("name", Some(json!(name))),
        ("version", Some(json!(version))),
        ("hashes", Some(json!(hashes))),
        // The slash is the old way to write a choice, which is no SPDX expression.
        (
            "licenses",
            Some(json!([{ "expression": text("license").replace('/', " OR ") }])),
        ),
        ("purl", purl),
        ("externalReferences", Some(json!(sources))),
    ];
    fields
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_tests_need_stays_out() {
        let package = |name: &str| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0" });
        let on = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let node = |name: &str, deps: Vec<Value>| json!({ "id": name, "deps": deps });
        let names = [
            "egress-agent",
            "used",
            "built-with",
            "tested-with",
            "egress-ebpf",
        ];
        let metadata = json!({
            "packages": names.map(package),
            "resolve": { "nodes": [
                node("egress-agent", vec![
                    on("used", Value::Null), on("built-with", json!("build")),
                    on("tested-with", json!("dev")),
                ]),
                node("used", vec![]), node("built-with", vec![on("used", Value::Null)]),
                node("tested-with", vec![]), node("egress-ebpf", vec![]),
            ] },
        });
        let sums = BTreeMap::from([(("used".into(), "1.0.0".into()), "ab".into())]);
        let mut bill = Bill::default();
        for root in ["egress-agent", "egress-ebpf"] {
            assert!(bill.add(&metadata, root, &sums).is_ok());
        }
        let bill = bill.document("2026-01-01T00:00:00Z").unwrap_or_default();
        let components = bill.pointer("/components").and_then(Value::as_array);
        let built: Vec<&str> = components
            .into_iter()
            .flatten()
            .filter_map(|it| it["name"].as_str())
            .collect();
        assert_eq!(built, ["built-with", "egress-ebpf", "used"]);
        let at = |place: &str| bill.pointer(place).cloned().unwrap_or_default();
        assert_eq!(at("/metadata/component/name"), "egress-agent");
        assert_eq!(at("/metadata/component/type"), "application");
        assert_eq!(at("/components/2/hashes/0/content"), "ab");
        let license = at("/components/2/licenses/0/expression");
        assert_eq!(license, "MIT OR Apache-2.0");
        assert_eq!(at("/dependencies/1/ref"), "egress-agent@1.0.0");
        let on = ["built-with@1.0.0", "egress-ebpf@1.0.0", "used@1.0.0"];
        assert_eq!(at("/dependencies/1/dependsOn"), json!(on));
    }

    #[test]
    fn the_bill_of_this_checkout_is_whole() {
        let text = write("2026-01-01T00:00:00Z").unwrap_or_default();
        let bill: Value = serde_json::from_str(&text).unwrap_or_default();
        let components = bill.pointer("/components").and_then(Value::as_array);
        let components = components.map(Vec::as_slice).unwrap_or_default();
        let has = |name: &str| components.iter().any(|it| it["name"] == name);
        for built in [
            "aya",
            "aya-ebpf",
            "egress-common",
            "egress-ebpf",
            "object",
            "rcgen",
            "tokio",
        ] {
            assert!(has(built), "{built} is missing");
        }
        for other in ["egress-tests", "proptest", "tempfile"] {
            assert!(!has(other), "{other} is not built in");
        }
        for component in components {
            let own = component["name"]
                .as_str()
                .unwrap_or_default()
                .starts_with("egress-");
            let sum = component
                .pointer("/hashes/0/content")
                .and_then(Value::as_str);
            assert_eq!(
                sum.map_or(0, str::len),
                if own { 0 } else { 64 },
                "{component}"
            );
            let license = component.pointer("/licenses/0/expression");
            assert!(
                license
                    .and_then(Value::as_str)
                    .is_some_and(|it| !it.is_empty())
            );
        }
        let reference = |it: &Value| it["bom-ref"].as_str().map(str::to_owned);
        let listed: BTreeSet<Option<String>> = components.iter().map(reference).collect();
        assert_eq!(listed.len(), components.len());
    }
}
