//! Containers, exec, volumes, events, restore.
