//! Dockerfile instructions that change an image's configuration, as `commit --change` and `import --change` take them.

use crate::Result;
use oci::image::Config;

/// Applies instructions to a configuration, in their order.
pub fn apply_changes(config: &mut Config, changes: &[String]) -> Result<()> {
    let _ = (config, changes);
    todo!()
}
