//! `hull system install` and `uninstall`, below a directory: what is put is usable, and all of it goes again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// What a program says, and whether it succeeds.
fn say(program: &Path, words: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(words).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// Everything below a directory.
fn tree(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(tree(&path));
        }
        found.push(path.display().to_string());
    }
    found.sort();
    found
}

#[test]
fn what_is_installed_works_and_goes_again() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\ndocker:x:999:ann\n").unwrap();
    fs::write(root.join("usr/bin/docker"), "another's").unwrap();
    let before = tree(root);
    let hull = Path::new(env!("CARGO_BIN_EXE_hull"));
    let place = root.display().to_string();
    let install = [
        "system", "install", "--root", &place, "--prefix", "/usr", "--docker",
    ];
    let uninstall = ["system", "uninstall", "--root", &place, "--prefix", "/usr"];

    let (done, said) = say(hull, &install);
    assert!(!done && said.contains("usr/bin/docker is there"), "{said}");
    assert_eq!(tree(root), before);

    let (done, said) = say(hull, &[&install[..], &["--force"]].concat());
    assert!(
        done && said.contains("for root and the group docker"),
        "{said}"
    );
    let docker = root.join("usr/bin/docker");
    let (done, said) = say(&docker, &["--version"]);
    assert!(done && said.starts_with("docker version "), "{said}");
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    assert!(text("usr/lib/systemd/system/hull.socket").contains("SocketGroup=docker\n"));
    assert!(text("usr/share/zsh/site-functions/_docker").starts_with("#compdef docker\n"));
    // The faces that other crates answer have pages, too.
    for (page, flag) in [
        ("daemon", "data"),
        ("registry-serve", "storage"),
        ("run", "network"),
    ] {
        let page = text(&format!("usr/share/man/man1/hull-{page}.1"));
        assert!(page.contains(&format!("\\-\\-{flag}")), "{flag}");
    }

    // What is installed installs the next one over itself.
    let (done, said) = say(&docker, &install);
    assert!(done, "{said}");
    let (done, said) = say(&root.join("usr/bin/hull"), &uninstall);
    assert!(done && said.contains("removed "), "{said}");
    assert_eq!(tree(root), before);
    assert_eq!(text("usr/bin/docker"), "another's");

    let (done, said) = say(hull, &uninstall);
    assert!(!done && said.contains("no record"), "{said}");
}

/// On this machine itself, by systemd: for a machine that is thrown away.
#[test]
#[ignore = "it installs on this machine"]
fn systemd_starts_the_engine_for_its_first_client() {
    let units = Path::new("/run/systemd/system");
    assert!(units.is_dir(), "systemd runs this machine");
    let hull = Path::new(env!("CARGO_BIN_EXE_hull"));
    let systemctl = |words: &[&str]| say(Path::new("systemctl"), words);
    let (done, said) = say(hull, &["system", "install"]);
    assert!(done && said.contains("systemd listens"), "{said}");
    let (_, state) = systemctl(&["is-active", "hull.socket", "hull.service"]);
    assert_eq!(state, "active\ninactive\n");
    let installed = Path::new("/usr/local/bin/hull");
    let client = |words: &[&str]| say(installed, words);
    let (done, said) = client(&["version"]);
    assert!(done && said.contains("Server"), "{said}");
    assert_eq!(systemctl(&["is-active", "hull.service"]).1, "active\n");
    // Containers stay when the service is started anew, and have a cgroup that is not the service's.
    let (done, said) = client(&["run", "-d", "--name", "kept", "/", "sleep", "600"]);
    assert!(done, "{said}");
    let (done, said) = systemctl(&["restart", "hull.service"]);
    assert!(done, "{said}");
    let (done, said) = client(&["inspect", "-f", "{{.State.Running}}", "kept"]);
    assert!(done && said == "true\n", "{said}");
    let (done, said) = systemctl(&["reload", "hull.service"]);
    assert!(done, "{said}");
    let (done, said) = client(&["rm", "-f", "kept"]);
    assert!(done, "{said}");
    let (done, said) = client(&["system", "uninstall"]);
    assert!(done && said.contains("removed "), "{said}");
    assert!(!installed.exists());
    assert!(!systemctl(&["cat", "hull.service"]).0, "it is gone");
    assert!(!Path::new("/run/hull/hull.sock").exists());
}
