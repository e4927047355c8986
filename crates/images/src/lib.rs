//! Content store, references, layers and snapshots.
