//! How much there is of what: for quotas.

use super::links::Kind;
use super::{Call as _, Store, found, names};
use crate::error::Result;
use oci::Digest;
use std::collections::HashSet;
use std::fs;

impl Store {
    /// The content of the repositories whose names are within something, each once, and its bytes.
    pub(crate) fn usage(&self, within: &dyn Fn(&str) -> bool) -> Result<(HashSet<Digest>, u64)> {
        let (mut content, mut bytes) = (HashSet::new(), 0);
        self.each_repository(&mut |name| {
            if !within(name.as_str()) {
                return Ok(());
            }
            for kind in [Kind::Blobs, Kind::Manifests] {
                for (digest, _) in self.links(name, kind)? {
                    if !content.insert(digest) {
                        continue;
                    }
                    let path = self.blob_path(&digest);
                    let size = found(fs::metadata(&path)).call(|| format!("stat({path:?})"))?;
                    bytes += size.map_or(0, |size| size.len());
                }
            }
            Ok(())
        })?;
        Ok((content, bytes))
    }

    /// Bytes of the uploads under way to such repositories.
    pub(crate) fn uploads_bytes(&self, within: &dyn Fn(&str) -> bool) -> Result<u64> {
        let uploads = self.root.join("uploads");
        let mut bytes = 0;
        for id in names(&uploads)? {
            let directory = uploads.join(id?);
            let (about, data) = (directory.join("about"), directory.join("data"));
            let name = found(fs::read_to_string(&about)).call(|| format!("read({about:?})"))?;
            if name.is_some_and(|name| within(name.trim())) {
                let size = found(fs::metadata(&data)).call(|| format!("stat({data:?})"))?;
                bytes += size.map_or(0, |size| size.len());
            }
        }
        Ok(bytes)
    }
}
