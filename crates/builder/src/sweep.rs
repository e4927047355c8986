//! What builds have left that ended with their engine.

use crate::error::{Doing, Result};
use crate::kept::Shelf;
use crate::mounts::SECRETS;
use engine::Engine;
use engine::model::ImageSource;
use std::io::ErrorKind;

/// Removes the containers and secrets of builds, and contexts that cannot be used any more. To be called when an engine starts, before it serves: nothing is built then.
///
/// # Errors
/// What cannot be removed.
pub async fn sweep(engine: &Engine) -> Result<()> {
    for container in engine.list() {
        if let ImageSource::Layers(_) = container.spec.image {
            let id = &container.spec.id;
            let removed = engine.remove(id, true, true).await;
            removed.doing(|| format!("remove the container {id} of a build"))?;
        }
    }
    Shelf::of(engine)?.sweep(engine.images())?;
    match std::fs::remove_dir_all(engine.config().run_root.join(SECRETS)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
    .doing(|| "remove secrets of builds".to_owned())
}
