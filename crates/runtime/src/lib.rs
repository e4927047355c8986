//! The OCI runtime: namespaces, mounts, cgroups, capabilities, seccomp, exec, hooks.
