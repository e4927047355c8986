//! `hull manifest push`.

use super::entry::{self, Entry};
use super::local::Lists;
use super::remote::{self, said};
use crate::app::{Arity, Command};
use crate::error::{Error, Result};
use crate::flags::{Flag, Matches};
use crate::output;
use crate::session::Session;
use oci::{Digest, Reference};
use registry::{Manifest, Purpose, Repository};
use std::sync::Arc;

const FLAGS: &[Flag] = &[
    Flag::bool("insecure", "Take plain HTTP and any certificate"),
    Flag::bool("purge", "Forget the list when it is pushed").short('p'),
];

pub(crate) const PUSH: Command = Command {
    usage: "[OPTIONS] MANIFEST_LIST",
    about: "Push a list of manifests to a registry",
    aliases: &[],
    flags: &[FLAGS],
    arity: Arity::Exactly(1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let lists = Lists::of(session);
    let name = super::name(&matches.args[0])?;
    let entries = lists.get(&name)?;
    let entries = entries.ok_or_else(|| Error::msg(format!("No such manifest: {name}")))?;
    let foreign = { entries.iter() }.find(|entry| entry.reference.domain() != name.domain());
    if let Some(entry) = foreign {
        return Err(Error::msg(format!(
            "cannot use source images from a different registry than the target image: {} != {}",
            entry.reference.domain(),
            name.domain()
        )));
    }
    let (media_type, list) = entry::list(&entries)?;
    let insecure = matches.on("insecure");
    let repository = remote::repository(session, &name, insecure, Purpose::Push)?;
    for entry in { entries.iter() }.filter(|entry| !entry.reference.same_repository(&name)) {
        bring(&repository, &name, entry).await?;
    }
    let digest = Digest::sha256(list.as_bytes());
    let list = Manifest {
        digest,
        media_type: media_type.to_owned(),
        bytes: list.into(),
    };
    repository.put_manifest(&name, &list).await.map_err(said)?;
    if matches.on("purge") {
        lists.remove(&name)?;
    }
    output::line(&digest.to_string())
}

/// Brings an image of another repository of the registry into the list's.
async fn bring(repository: &Arc<Repository>, name: &Reference, entry: &Entry) -> Result<()> {
    let manifest = entry.manifest()?;
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        let there = repository.has_blob(&blob.digest).await.map_err(said)?;
        if there
            || repository
                .mount(&blob.digest, &entry.reference)
                .await
                .map_err(said)?
        {
            continue;
        }
        return Err(Error::msg(format!(
            "the registry does not take {} from {} into {}: push the image there first",
            blob.digest,
            entry.reference.name(),
            name.name()
        )));
    }
    let digest = entry.descriptor.digest;
    let target = name.clone().with_digest(digest);
    let manifest = Manifest {
        digest,
        media_type: entry.descriptor.media_type.clone(),
        bytes: entry.bytes.clone().into(),
    };
    repository
        .put_manifest(&target, &manifest)
        .await
        .map_err(said)?;
    output::line(&format!("Pushed ref {target} with digest: {digest}"))
}
