//! The container's view of its control groups, at the place of a mount of type `cgroup`.
//!
//! On v2 that is the hierarchy. On v1 it is a tmpfs with a directory for each hierarchy, as on the host. With a cgroup
//! namespace each shows the container's own group as its root; without, v1's hierarchies show that group alone, and v2 all.

use super::filesystem::{Filesystem, attach, clone_tree, create};
use super::options::Options;
use super::{DIRECTORY_MODE, Site, change_propagation, restrict};
use crate::cgroup::{Hierarchy, Version, hierarchies, unified};
use crate::error::{Doing, Result};
use rustix::fs::CWD;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use sys::Context;
use sys::mount::{Attributes, MOUNT_ATTR_RDONLY, set_attributes};
use sys::root::Root;

/// Enough for the directories of all hierarchies.
const TMPFS_SIZE: &str = "64k";

pub(super) fn mount(site: &Site<'_>, target: OwnedFd, options: &Options) -> Result<()> {
    if unified()? {
        let hierarchy = &hierarchies()?[0];
        let made = view(site, hierarchy, options)?;
        return attach(made.as_fd(), target.as_fd()).doing("mounting the cgroups");
    }
    // Read-only comes last: directories and links must be made first.
    let mut tmpfs_options = Options {
        attributes: options.attributes,
        ..Options::default()
    };
    tmpfs_options.attributes.set &= !MOUNT_ATTR_RDONLY;
    let tmpfs = create(
        "tmpfs",
        Some("cgroup"),
        &tmpfs_options,
        &[("mode", "755"), ("size", TMPFS_SIZE)],
    )?;
    let doing = "mounting the cgroups";
    let again = tmpfs.try_clone().call(|| "dup(<tmpfs>)").doing(doing)?;
    let directory = Root::from_fd(again);
    let mut places = Vec::new();
    for hierarchy in hierarchies()? {
        let name = hierarchy.name();
        let place = directory
            .create_dir_all(Path::new(&name), DIRECTORY_MODE)
            .doing(doing)?;
        places.push((hierarchy, place));
        if hierarchy.controllers.len() > 1 && hierarchy.version == Version::V1 {
            for controller in &hierarchy.controllers {
                rustix::fs::symlinkat(&name, &directory, controller.as_str())
                    .call(|| format!("symlinkat({name:?}, {controller:?})"))
                    .doing(doing)?;
            }
        }
    }
    if options.read_only() {
        let read_only = Attributes {
            set: MOUNT_ATTR_RDONLY,
            ..Attributes::default()
        };
        set_attributes(tmpfs.as_fd(), false, &read_only).doing(doing)?;
    }
    change_propagation(tmpfs.as_fd(), options).doing(doing)?;
    attach(tmpfs.as_fd(), target.as_fd()).doing(doing)?;
    for (hierarchy, place) in places {
        let made = view(site, hierarchy, options)?;
        attach(made.as_fd(), place.as_fd()).doing(doing)?;
    }
    Ok(())
}

/// A detached mount of one hierarchy.
fn view(site: &Site<'_>, hierarchy: &Hierarchy, options: &Options) -> Result<OwnedFd> {
    let doing = || format!("mounting the cgroup hierarchy {}", hierarchy.name());
    if site.cgroup_namespace {
        let made = new_mount(hierarchy, options).doing_with(doing)?;
        change_propagation(made.as_fd(), options).doing_with(doing)?;
        return Ok(made);
    }
    // A new mount from inside the host's cgroup namespace would change the hierarchy's options for the whole host.
    let path = match hierarchy.version {
        Version::V1 => hierarchy.mount.join(site.cgroup),
        Version::V2 => hierarchy.mount.clone(),
    };
    let tree = clone_tree(CWD, &path, false).doing_with(doing)?;
    restrict(tree.as_fd(), options).doing_with(doing)?;
    if site.cgroup.as_os_str().is_empty() {
        // Without a group of its own the container would get at those of others.
        let read_only = Attributes {
            set: MOUNT_ATTR_RDONLY,
            ..Attributes::default()
        };
        set_attributes(tree.as_fd(), false, &read_only).doing_with(doing)?;
    }
    Ok(tree)
}

fn new_mount(hierarchy: &Hierarchy, options: &Options) -> sys::Result<OwnedFd> {
    let attributes = options.attributes.set;
    if hierarchy.version == Version::V2 {
        let filesystem = Filesystem::new("cgroup2")?;
        filesystem.set("source", "cgroup")?;
        return filesystem.mount(attributes);
    }
    let filesystem = Filesystem::new("cgroup")?;
    filesystem.set("source", "cgroup")?;
    for controller in &hierarchy.controllers {
        match controller.split_once('=') {
            // A named hierarchy has no controllers.
            Some((key, name)) => {
                filesystem.flag("none")?;
                filesystem.set(key, name)?;
            }
            None => filesystem.flag(controller)?,
        }
    }
    filesystem.mount(attributes)
}
