//! What is in an image: the packages that the databases of dpkg and apk name, as an SPDX document.
//!
//! Invariant: the databases come from images, and are untrusted: only so much of them is read, and nothing of them is a path.
//! Sources: SPDX 2.3 (JSON), package-url/purl-spec, deb822(5), apk's `installed` (Alpine's "Apk spec").

use crate::bundle::Predicate;
use crate::context::read;
use crate::error::{Doing, Result};
use images::copy::{self, Want};
use images::tar::Kind;
use oci::Digest;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use sys::root::Root;

pub(super) const TYPE: &str = "https://spdx.dev/Document";
/// The package databases: a list of all, and in images without a shell a file for each.
const DPKG_STATUS: &str = "var/lib/dpkg/status";
const DPKG_STATUS_D: &str = "var/lib/dpkg/status.d";
const APK_INSTALLED: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
/// Databases that are not read.
const RPM: [&str; 3] = [
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
];
/// Bytes of one database.
const DATABASE_BYTES_MAX: usize = 64 << 20;
/// Packages of one image.
const PACKAGES_MAX: usize = 100_000;
const OS_RELEASE: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];
const OS_RELEASE_BYTES_MAX: usize = 64 << 10;

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    /// `deb` or `apk`.
    kind: &'static str,
    name: String,
    version: String,
    architecture: String,
    maintainer: String,
    /// Of apk alone, whose are SPDX's.
    license: String,
}

/// What is in a tree of these layers; with a sentence on what is not told, if anything.
pub(crate) fn sbom(
    root: &Root,
    layers: &[Digest],
    created: &str,
) -> Result<(Predicate, Option<String>)> {
    let mut packages = BTreeSet::new();
    for text in dpkg(root)? {
        packages.extend(
            paragraphs(&text)
                .filter_map(|it| of_dpkg(&it))
                .take(PACKAGES_MAX),
        );
    }
    for path in APK_INSTALLED {
        if let Some(text) = text(root, path, DATABASE_BYTES_MAX)? {
            packages.extend(text.split("\n\n").filter_map(of_apk).take(PACKAGES_MAX));
        }
    }
    let has_rpm = RPM.iter().any(|path| root.resolve(Path::new(path)).is_ok());
    let untold = has_rpm.then(|| "the SBOM does not list the packages of RPM".to_owned());
    let names: Vec<String> = layers.iter().map(Digest::to_string).collect();
    let document = Digest::sha256(names.join(" ").as_bytes()).hex();
    let distribution = distribution(root)?;
    let told: Vec<Value> = (1..)
        .zip(&packages)
        .map(|(number, it)| it.told(number, &distribution))
        .collect();
    let relations: Vec<Value> = (1..=told.len()).map(describes).collect();
    let value = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "sbom",
        "documentNamespace": format!("https://spdx.org/spdxdocs/hull-{document}"),
        "creationInfo": {
            "created": created,
            "creators": [concat!("Tool: hull-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": told,
        "relationships": relations,
    });
    let predicate = Predicate {
        name: "sbom.spdx.json".to_owned(),
        kind: TYPE,
        subjects: Vec::new(),
        value,
    };
    Ok((predicate, untold))
}

fn describes(number: usize) -> Value {
    json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": format!("SPDXRef-Package-{number}"),
    })
}

impl Package {
    fn told(&self, number: usize, (id, version): &(String, String)) -> Value {
        let kind = self.kind;
        let vendor = match (id.as_str(), kind) {
            ("", "deb") => "debian",
            ("", _) => "alpine",
            (id, _) => id,
        };
        let distribution = match version.as_str() {
            "" => String::new(),
            version => format!("&distro={}-{}", escaped(vendor), escaped(version)),
        };
        let purl = format!(
            "pkg:{kind}/{}/{}@{}?arch={}{distribution}",
            escaped(vendor),
            escaped(&self.name),
            escaped(&self.version),
            escaped(&self.architecture),
        );
        let or_none = |text: &str| match text {
            "" => "NOASSERTION".to_owned(),
            text => text.to_owned(),
        };
        let supplier = match self.maintainer.as_str() {
            "" => "NOASSERTION".to_owned(),
            maintainer => format!("Person: {maintainer}"),
        };
        json!({
            "SPDXID": format!("SPDXRef-Package-{number}"),
            "name": self.name,
            "versionInfo": self.version,
            "supplier": supplier,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": or_none(&self.license),
            "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl,
            }],
        })
    }
}

/// A part of a package URL.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// A file of the image as text; `None` where there is none, or none that is regular.
fn text(root: &Root, path: &str, bytes_max: usize) -> Result<Option<String>> {
    let bytes = read(root, Path::new(path), bytes_max)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The texts of dpkg's databases.
fn dpkg(root: &Root) -> Result<Vec<String>> {
    let mut texts = Vec::from_iter(text(root, DPKG_STATUS, DATABASE_BYTES_MAX)?);
    let directory = Path::new("/").join(DPKG_STATUS_D);
    if root.resolve(&directory).is_err() {
        return Ok(texts);
    }
    let found = copy::find(root, &directory, false, &|_| Want::Take);
    let found = found.doing(|| "list the packages of an image".to_owned())?;
    for file in found
        .iter()
        .filter(|it| it.entry.kind == Kind::File)
        .take(PACKAGES_MAX)
    {
        // Beside each is a list of its files.
        if let Some(name) = file
            .path
            .to_str()
            .filter(|name| !name.ends_with(".md5sums"))
        {
            texts.extend(text(
                root,
                &format!("{DPKG_STATUS_D}/{name}"),
                DATABASE_BYTES_MAX,
            )?);
        }
    }
    Ok(texts)
}

/// Paragraphs of fields, without what goes on in further lines.
fn paragraphs(text: &str) -> impl Iterator<Item = BTreeMap<&str, &str>> {
    text.split("\n\n").map(|paragraph| {
        let lines = paragraph
            .lines()
            .filter(|line| !line.starts_with([' ', '\t']));
        lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name, value.trim()))
            .collect()
    })
}

fn of_dpkg(fields: &BTreeMap<&str, &str>) -> Option<Package> {
    let field = |name: &str| fields.get(name).copied().unwrap_or_default().to_owned();
    // Of a package in a file of its own, nothing is said of its state.
    let is_there = fields
        .get("Status")
        .is_none_or(|status| status.ends_with(" installed"));
    let name = field("Package");
    (is_there && !name.is_empty()).then(|| Package {
        kind: "deb",
        name,
        version: field("Version"),
        architecture: field("Architecture"),
        maintainer: field("Maintainer"),
        license: String::new(),
    })
}

fn of_apk(paragraph: &str) -> Option<Package> {
    let field = |letter: &str| {
        let found = paragraph.lines().find_map(|line| line.strip_prefix(letter));
        found
            .and_then(|rest| rest.strip_prefix(':'))
            .unwrap_or_default()
            .to_owned()
    };
    let name = field("P");
    (!name.is_empty()).then(|| Package {
        kind: "apk",
        name,
        version: field("V"),
        architecture: field("A"),
        maintainer: field("m"),
        license: field("L"),
    })
}

/// The distribution's name and version, as far as they are known.
fn distribution(root: &Root) -> Result<(String, String)> {
    let mut release = None;
    for path in OS_RELEASE {
        release = release.or(text(root, path, OS_RELEASE_BYTES_MAX)?);
    }
    let release = release.unwrap_or_default();
    let field = |name: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(name));
        value
            .unwrap_or_default()
            .trim_matches(['"', '\''])
            .to_owned()
    };
    Ok((field("ID="), field("VERSION_ID=")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(files: &[(&str, &str)]) -> (Vec<String>, Option<String>) {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::open(directory.path()).unwrap();
        let (predicate, untold) = sbom(&root, &[], "2026-01-01T00:00:00Z").unwrap();
        let packages = predicate.value["packages"].as_array().unwrap().clone();
        let purl = |it: &Value| {
            it["externalRefs"][0]["referenceLocator"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let relations = predicate.value["relationships"].as_array().unwrap().len();
        assert_eq!(relations, packages.len());
        (packages.iter().map(purl).collect(), untold)
    }

    #[test]
    fn packages_are_listed() {
        let status = "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1+b1\nDescription: a\n shell\n .\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n";
        let single = "Package: libc6\nArchitecture: arm64\nVersion: 2:2.36\n";
        let release = "ID=debian\nVERSION_ID=\"12\"\n";
        let (found, untold) = listed(&[
            (DPKG_STATUS, status),
            ("var/lib/dpkg/status.d/libc6", single),
            ("var/lib/dpkg/status.d/libc6.md5sums", "Package: no\n"),
            ("etc/os-release", release),
        ]);
        assert_eq!(untold, None);
        assert_eq!(
            found,
            [
                "pkg:deb/debian/bash@5.2-1%2Bb1?arch=amd64&distro=debian-12",
                "pkg:deb/debian/libc6@2%3A2.36?arch=arm64&distro=debian-12"
            ]
        );
        let installed = "C:Q1\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\nm:A <a@b>\nF:lib\n\nP:zlib\nV:1.3\nA:x86_64\n\n";
        let (found, _) = listed(&[(APK_INSTALLED[0], installed)]);
        assert_eq!(
            found,
            [
                "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64",
                "pkg:apk/alpine/zlib@1.3?arch=x86_64"
            ]
        );
    }

    #[test]
    fn what_is_not_listed_is_told() {
        let (found, untold) = listed(&[(RPM[0], "")]);
        assert!(found.is_empty() && untold.unwrap().contains("RPM"));
        let (found, untold) = listed(&[(DPKG_STATUS, "no: paragraphs\n\n\n:\n")]);
        assert!(found.is_empty() && untold.is_none());
    }
}
