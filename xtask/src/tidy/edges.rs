//! Who may know whom among the crates, as `cargo metadata` tells it.
//!
//! The graph is ARCHITECTURE.md's. Dependencies that only tests or build scripts have do not count.

use crate::Result;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Which crates of the workspace each may depend on. `hull` ties them together and may know all; `xtask` is no part of the product.
const EDGES: [(&str, &[&str]); 18] = [
    (
        "api",
        &[
            "api-types",
            "builder",
            "buildkit",
            "connections",
            "engine",
            "oci",
            "sys",
        ],
    ),
    ("api-types", &[]),
    ("builder", &["engine", "images", "oci", "patterns", "sys"]),
    (
        "buildkit",
        &["builder", "engine", "images", "oci", "patterns", "sys"],
    ),
    ("certificates", &[]),
    (
        "cli",
        &["api-types", "client", "oci", "patterns", "registry"],
    ),
    ("client", &["api-types", "connections"]),
    ("connections", &["certificates"]),
    (
        "engine",
        &["images", "network", "oci", "shim", "store", "sys"],
    ),
    ("images", &["oci", "patterns", "registry", "sys"]),
    ("network", &["sys"]),
    ("oci", &[]),
    ("patterns", &[]),
    ("registry", &["connections", "oci"]),
    ("runtime", &["oci", "sys"]),
    ("shim", &["certificates", "oci", "runtime", "sys"]),
    ("store", &[]),
    ("sys", &[]),
];

/// What the small, single-threaded crates must not pull in, however deep.
const HEAVY: [&str; 4] = ["tokio", "clap", "hyper", "http"];
const LIGHT: [&str; 6] = ["certificates", "network", "oci", "runtime", "shim", "sys"];

/// Every edge that is not in the graph.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .output();
    let output = output.map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata: {error}"))?;
    Ok(Graph::new(&metadata)
        .ok_or("cargo metadata has another shape")?
        .violations())
}

/// The resolved dependencies, those for tests and build scripts left out.
struct Graph<'a> {
    /// By package id: the crate's name, without the prefix of the workspace's own.
    names: BTreeMap<&'a str, &'a str>,
    members: BTreeSet<&'a str>,
    needs: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Graph<'a> {
    fn new(metadata: &'a Value) -> Option<Self> {
        let members: BTreeSet<&str> = metadata["workspace_members"]
            .as_array()?
            .iter()
            .map(Value::as_str)
            .collect::<Option<_>>()?;
        let mut names = BTreeMap::new();
        for package in metadata["packages"].as_array()? {
            let (id, name) = (package["id"].as_str()?, package["name"].as_str()?);
            let ours = members.contains(id).then(|| name.strip_prefix("hull-"));
            names.insert(id, ours.flatten().unwrap_or(name));
        }
        let mut needs = BTreeMap::new();
        for node in metadata["resolve"]["nodes"].as_array()? {
            let normal = |dependency: &&Value| {
                { dependency["dep_kinds"].as_array() }
                    .is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
            };
            let ids = node["deps"].as_array()?.iter().filter(normal);
            let ids = ids.map(|dependency| dependency["pkg"].as_str());
            needs.insert(node["id"].as_str()?, ids.collect::<Option<_>>()?);
        }
        Some(Self {
            names,
            members,
            needs,
        })
    }

    fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for id in &self.members {
            let name = self.names[id];
            if matches!(name, "hull" | "xtask") {
                continue;
            }
            let Some((_, allowed)) = EDGES.iter().find(|(krate, _)| *krate == name) else {
                found.push(format!("{name} is not in the graph of ARCHITECTURE.md"));
                continue;
            };
            let ours = self.needs[id]
                .iter()
                .filter(|id| self.members.contains(*id));
            let ours = ours.map(|id| self.names[id]);
            found.extend(ours.filter(|other| !allowed.contains(other)).map(|other| {
                format!("{name} must not know {other}: see the graph in ARCHITECTURE.md")
            }));
            if LIGHT.contains(&name) {
                let heavy = self
                    .all_below(id)
                    .into_iter()
                    .filter(|other| HEAVY.contains(other));
                found.extend(heavy.map(|other| {
                    format!(
                        "{name} stays free of {other}: every container pays for what it pulls in"
                    )
                }));
            }
        }
        found
    }

    /// The names of all that a package needs, however deep.
    fn all_below(&self, id: &'a str) -> BTreeSet<&'a str> {
        let mut seen = BTreeSet::from([id]);
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            let needs = self.needs.get(id).into_iter().flatten();
            pending.extend(needs.filter(|id| seen.insert(**id)));
        }
        seen.into_iter().map(|id| self.names[id]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn violations(crates: &[(&str, &[&str])], members: &[&str]) -> Vec<String> {
        let packages: Vec<Value> = crates
            .iter()
            .map(|(name, _)| json!({"id": name, "name": name}))
            .collect();
        let nodes: Vec<Value> = crates
            .iter()
            .map(|(name, needs)| {
                let kind = |word: &str| match word.strip_prefix("test:") {
                    Some(name) => json!({"pkg": name, "dep_kinds": [{"kind": "dev"}]}),
                    None => json!({"pkg": word, "dep_kinds": [{"kind": null}]}),
                };
                json!({"id": name, "deps": needs.iter().map(|need| kind(need)).collect::<Vec<_>>()})
            })
            .collect();
        let metadata = json!({
            "workspace_members": members,
            "packages": packages,
            "resolve": {"nodes": nodes},
        });
        Graph::new(&metadata).unwrap().violations()
    }

    #[test]
    fn an_edge_that_is_not_in_the_graph_is_refused() {
        let members = ["hull-network", "hull-images", "hull-sys"];
        let found = violations(
            &[
                ("hull-network", &["hull-images", "hull-sys"]),
                ("hull-images", &["test:hull-network"]),
                ("hull-sys", &[]),
            ],
            &members,
        );
        assert!(
            found.len() == 1 && found[0].contains("network must not know images"),
            "{found:?}"
        );
    }

    #[test]
    fn a_crate_that_nobody_drew_is_refused() {
        let found = violations(&[("hull-drawer", &[])], &["hull-drawer"]);
        assert!(found.len() == 1, "{found:?}");
    }

    #[test]
    fn the_shim_stays_small_however_deep() {
        let crates: [(&str, &[&str]); 3] = [
            ("hull-shim", &["nice"]),
            ("nice", &["tokio"]),
            ("tokio", &[]),
        ];
        let found = violations(&crates, &["hull-shim"]);
        assert!(
            found.len() == 1 && found[0].contains("free of tokio"),
            "{found:?}"
        );
    }
}
