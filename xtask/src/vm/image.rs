//! The machine: a Debian root filesystem as an ext4 image, its kernel and its initrd.
//!
//! Invariant: beside a recipe lies what it makes, whole: it is taken away first and written last.

use crate::{NEEDED, Result, install_missing, shell};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The release whose kernel (6.1) has none of the newest mount calls: the fallbacks run here, the newest elsewhere.
const SUITE: &str = "bookworm";

/// What the host needs.
const TOOLS: [(&str, &str); 3] = [
    ("mmdebstrap", "mmdebstrap"),
    ("mkfs.ext4", "e2fsprogs"),
    ("qemu-system-x86_64", "qemu-system-x86"),
];

/// What the machine has beside the programs that the tests call.
const PACKAGES: [&str; 13] = [
    "apparmor",
    "criu",
    "dbus",
    "dbus-user-session",
    "initramfs-tools",
    "kmod",
    "libpam-systemd",
    "linux-image-cloud-amd64",
    "procps",
    "systemd-sysv",
    "uidmap",
    "udev",
    "xfsprogs",
];

/// The initrd has what finds the root filesystem and nothing else: under emulation every module costs seconds.
const INITRD_HOOK: &str = r#"--essential-hook=set -e
    mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
    echo MODULES=list > "$1/etc/initramfs-tools/conf.d/vm"
    printf '%s\n' virtio_pci virtio_blk ext4 > "$1/usr/share/initramfs-tools/modules.d/vm""#;

/// Programs that the tests only use as clients bring services; the machine runs none of them.
const MASKED: [&str; 4] = [
    "containerd.service",
    "docker.service",
    "docker.socket",
    "nftables.service",
];

/// Runs the payload, and powers off whatever becomes of it. Tests see the cgroup of a delegated service, as an engine would.
const SERVICE: &str = "\
[Unit]
Description=The payload's tests
Requires=dev-vdb.device dev-virtio\\x2dports-hull.results.device
After=dev-vdb.device dev-virtio\\x2dports-hull.results.device
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStartPre=/bin/mkdir -p /payload
ExecStartPre=/bin/mount /dev/vdb /payload
ExecStart=/payload/xtask vm-guest /payload
Environment=HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
Delegate=yes
LimitNOFILE=524288
TasksMax=infinity
StandardOutput=journal+console
";

/// The ordinary user of rootless tests, with as many subordinate ids as `useradd` gives.
pub(super) const USER: &str = "ordinary";
const USER_HOOK: &str =
    "--customize-hook=chroot \"$1\" useradd --create-home --shell /bin/sh ordinary";

/// More than the tree: the tests' own files, which QEMU throws away. The image is sparse.
const IMAGE_BYTES: &str = "6G";

/// The machine's files.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) disk: PathBuf,
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
}

/// Makes the image unless it is there and made by this recipe.
pub(super) fn ensure(directory: &Path) -> Result<Image> {
    install_missing(&TOOLS)?;
    let image = Image {
        disk: directory.join("root.ext4"),
        kernel: directory.join("vmlinuz"),
        initrd: directory.join("initrd.img"),
    };
    let recipe_file = directory.join("recipe");
    let tree = directory.join("tree");
    let arguments = arguments(&tree);
    let recipe = format!(
        "{}\n{SERVICE}\n{MASKED:?}\n{IMAGE_BYTES}\n",
        arguments.join("\n")
    );
    if fs::read_to_string(&recipe_file).is_ok_and(|text| text == recipe) {
        return Ok(image);
    }
    shell::say(&format!("making a Debian {SUITE} machine, once"));
    let _ = fs::remove_file(&recipe_file);
    make(&image, &tree, &arguments)?;
    fs::write(&recipe_file, recipe)
        .map_err(|error| format!("{}: {error}", recipe_file.display()))?;
    Ok(image)
}

fn arguments(tree: &Path) -> Vec<String> {
    let packages: Vec<&str> = NEEDED
        .iter()
        .map(|(_, package)| *package)
        .chain(PACKAGES)
        .collect();
    let mut arguments: Vec<String> = [
        "--variant=minbase",
        "--aptopt=APT::Install-Recommends \"false\"",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        INITRD_HOOK,
        USER_HOOK,
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("--include={}", packages.join(",")));
    arguments.extend([SUITE.to_owned(), tree.display().to_string()]);
    arguments
}

fn make(image: &Image, tree: &Path, arguments: &[String]) -> Result<()> {
    remove_tree(tree)?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    shell::run("mmdebstrap", &arguments)?;
    configure(tree).map_err(|error| format!("{}: {error}", tree.display()))?;
    for (name, target) in [("vmlinuz", &image.kernel), ("initrd.img", &image.initrd)] {
        let source = boot_file(tree, name)?;
        fs::copy(&source, target).map_err(|error| format!("{}: {error}", source.display()))?;
    }
    pack(tree, &image.disk, IMAGE_BYTES)?;
    remove_tree(tree)
}

fn configure(tree: &Path) -> std::io::Result<()> {
    let units = tree.join("etc/systemd/system");
    for unit in MASKED {
        symlink("/dev/null", units.join(unit))?;
    }
    fs::write(units.join("payload.service"), SERVICE)?;
    let wants = units.join("multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    symlink("../payload.service", wants.join("payload.service"))?;
    // A machine that has an id does not look at itself as booting for the first time.
    fs::write(
        tree.join("etc/machine-id"),
        "0123456789abcdef0123456789abcdef\n",
    )?;
    fs::write(tree.join("etc/hostname"), "vm\n")
}

/// The one file of `/boot` whose name begins so.
fn boot_file(tree: &Path, name: &str) -> Result<PathBuf> {
    let boot = tree.join("boot");
    let entries = fs::read_dir(&boot).map_err(|error| format!("{}: {error}", boot.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let prefix = format!("{name}-");
    let is_it = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
    };
    paths
        .find(is_it)
        .ok_or_else(|| format!("no {prefix}… in {}", boot.display()))
}

/// Makes an ext4 image of a directory, without mounting anything.
pub(super) fn pack(tree: &Path, image: &Path, size: &str) -> Result<()> {
    let _ = fs::remove_file(image);
    let [tree, image] = [tree, image].map(|path| path.display().to_string());
    // No journal: what the guest writes is thrown away.
    let arguments = [
        "-q",
        "-O",
        "^has_journal",
        "-E",
        "lazy_itable_init=1",
        "-d",
        &tree,
        &image,
        size,
    ];
    shell::run("mkfs.ext4", &arguments)
}

/// Removes a directory that may not be there.
pub(super) fn remove_tree(tree: &Path) -> Result<()> {
    match fs::remove_dir_all(tree) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", tree.display()))
        }
        _ => Ok(()),
    }
}
