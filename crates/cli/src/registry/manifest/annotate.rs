//! `hull manifest annotate`.

use super::local::Lists;
use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Kind, Matches};
use crate::session::Session;

const FLAGS: &[Flag] = &[
    Flag::text("arch", "Architecture"),
    Flag::text("os", "Operating system"),
    Flag::of(
        "os-features",
        Kind::Strings,
        "Features of the system that are needed",
    ),
    Flag::text("os-version", "Version of the system"),
    Flag::text("variant", "Variant of the architecture"),
];

pub(crate) const ANNOTATE: Command = Command {
    usage: "[OPTIONS] MANIFEST_LIST MANIFEST",
    about: "Say what a manifest of a list is for",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(2),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

/// Architectures of each system that Docker's client takes: those of Go.
const KNOWN: [(&str, &[&str]); 10] = [
    ("aix", &["ppc64"]),
    ("android", &["386", "amd64", "arm", "arm64"]),
    ("darwin", &["amd64", "arm64"]),
    ("dragonfly", &["amd64"]),
    ("freebsd", &["386", "amd64", "arm"]),
    (
        "linux",
        &[
            "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle",
            "ppc64", "ppc64le", "riscv64", "s390x",
        ],
    ),
    ("netbsd", &["386", "amd64", "arm"]),
    ("openbsd", &["386", "amd64", "arm"]),
    ("solaris", &["amd64"]),
    ("windows", &["386", "amd64", "arm", "arm64"]),
];

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let lists = Lists::of(session);
    let (list, name) = (&matches.args[0], &matches.args[1]);
    let (list_name, entry_name) = (super::name(list)?, super::name(name)?);
    let Some(mut entry) = lists.entry(&list_name, &entry_name)? else {
        let problem = format!("manifest for image {name} does not exist in {list}");
        return Err(Error::msg(problem));
    };
    let platform = entry.descriptor.platform.get_or_insert_default();
    let given = |flag| {
        matches
            .get(flag)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    if let Some(os) = given("os") {
        platform.os = os;
    }
    if let Some(architecture) = given("arch") {
        platform.architecture = architecture;
    }
    if let Some(variant) = given("variant") {
        platform.variant = Some(variant);
    }
    if let Some(version) = given("os-version") {
        platform.os_version = Some(version);
    }
    for feature in matches.list("os-features") {
        if !platform.os_features.contains(feature) {
            platform.os_features.push(feature.clone());
        }
    }
    let known = KNOWN.iter().any(|(os, architectures)| {
        *os == platform.os && architectures.contains(&platform.architecture.as_str())
    });
    if !known {
        let (os, architecture) = (&platform.os, &platform.architecture);
        return Err(Error::msg(format!(
            "manifest entry for image has unsupported os/arch combination: {os}/{architecture}"
        )));
    }
    lists.put(&list_name, &entry_name, &entry)
}
