//! Where a container's processes are: groups below its own, none at all, and a root that was not pivoted to.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{Bundle, unified};
use serde_json::json;

/// A directory below each of a container's groups.
struct Below<'a>(&'a Bundle);

impl Below<'_> {
    fn make<'a>(bundle: &'a Bundle, name: &str) -> Below<'a> {
        for group in bundle.cgroups() {
            let below = group.join(name);
            std::fs::create_dir(&below).unwrap();
            // Nothing can enter a CPU set of v1 that is empty.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if !unified() && below.join(file).exists() {
                    let own = std::fs::read_to_string(group.join(file)).unwrap();
                    std::fs::write(below.join(file), own.trim()).unwrap();
                }
            }
        }
        Below(bundle)
    }

    /// The groups below the own one that a process is in, by controllers.
    fn of(&self, flags: &[&str]) -> Vec<(String, String)> {
        let arguments = [&["exec"], flags, &[&self.0.id, "cat", "/proc/self/cgroup"]].concat();
        let text = self.0.invoke(&arguments).ok();
        let lines = text.lines().map(|line| {
            let mut parts = line.splitn(3, ':').skip(1).map(str::to_owned);
            (parts.next().unwrap(), parts.next().unwrap())
        });
        let own = format!("/{}", self.0.id);
        let below = |(controllers, path): (String, String)| {
            let path = path.strip_prefix(&own).unwrap_or(&path).to_owned();
            (controllers, path)
        };
        lines.map(below).collect()
    }
}

#[test]
fn a_process_is_executed_in_a_group_below() {
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    bundle.start().ok();
    let below = Below::make(&bundle, "sub");
    let everywhere = below.of(&["--cgroup", "sub"]);
    let own = bundle.cgroups().len();
    let count = everywhere.iter().filter(|(_, path)| path == "/sub").count();
    // Hierarchies that are not mounted have no directory.
    assert!(count > 0 && count <= own, "{everywhere:?}");
    let nowhere = below.of(&["--cgroup", "/"]);
    assert!(
        nowhere.iter().all(|(_, path)| path != "/sub"),
        "{nowhere:?}"
    );
    for bad in ["nope", "../..", "sub/..", "nope:sub", ":sub"] {
        let error = bundle.exec(&["true"]).code;
        assert_eq!(error, Some(0));
        let outcome = bundle.invoke(&["exec", "--cgroup", bad, &bundle.id, "true"]);
        assert_eq!(outcome.code, Some(255), "{bad}: {outcome:?}");
    }
    if !unified() {
        let two = below.of(&["--cgroup", "pids,memory:sub"]);
        for (controllers, path) in &two {
            let wanted = matches!(controllers.as_str(), "pids" | "memory");
            assert_eq!(path == "/sub", wanted, "{two:?}");
        }
        let both = [
            "exec", "--cgroup", "pids:sub", "--cgroup", "pids:/", &bundle.id, "true",
        ];
        assert!(bundle.invoke(&both).failed().contains("twice"));
    }
    bundle.delete().ok();
}

#[test]
fn a_container_without_a_cgroup_stays_in_its_creators() {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let mut bundle = Bundle::new(&["cat", "/proc/self/cgroup"]);
    bundle.remove_namespace("cgroup");
    let run = ["--cgroup-manager", "disabled", "run", &bundle.id];
    let outcome = bundle.invoke(&run);
    assert!(outcome.stderr.contains("no device rules"), "{outcome:?}");
    assert_eq!(outcome.ok(), own);
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 10});
    let error = bundle.invoke(&run).failed();
    assert!(
        error.contains("limits of a container without a cgroup"),
        "{error}"
    );
}

#[test]
fn a_container_without_a_cgroup_is_killed_and_deleted() {
    let bundle = Bundle::new(&["sleep", "60"]);
    let run = ["--cgroup-manager=disabled", "run", "--detach", &bundle.id];
    let mut command = bundle.command(&run);
    let null = std::process::Stdio::null;
    assert!(
        command
            .stdout(null())
            .stderr(null())
            .status()
            .unwrap()
            .success()
    );
    assert!(bundle.cgroups().is_empty());
    bundle.exec(&["true"]).ok();
    assert!(
        bundle
            .invoke(&["pause", &bundle.id])
            .failed()
            .contains("no cgroup")
    );
    assert!(
        bundle
            .invoke(&["kill", "--all", &bundle.id])
            .failed()
            .contains("without a cgroup")
    );
    bundle.invoke(&["kill", &bundle.id, "KILL"]).ok();
    bundle.await_status("stopped");
    bundle.delete().ok();
}

#[test]
fn a_root_is_entered_without_pivot_root() {
    let bundle = Bundle::shell("ls -d /* && cat /proc/self/mountinfo");
    let outcome = bundle.invoke(&["run", "--no-pivot", &bundle.id]);
    assert!(outcome.stderr.contains("can leave its root"), "{outcome:?}");
    assert!(
        outcome.stdout.starts_with("/bin\n/dev\n/etc\n/proc\n"),
        "{outcome:?}"
    );
    // The host's own is gone from the mount namespace: what is left is the container's, and what masks it.
    let whole = outcome
        .stdout
        .lines()
        .filter(|line| line.contains(" / ") && line.contains(" - proc "));
    assert_eq!(whole.count(), 1, "{outcome:?}");
}

#[test]
fn a_root_of_a_user_namespace_is_entered_without_pivot_root() {
    let mut bundle = Bundle::shell("cat /proc/self/uid_map; ls /sys/kernel; exec sleep 60");
    bundle.add_namespace(json!({"type": "user"}));
    let mappings = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = mappings.clone();
    bundle.config["linux"]["gidMappings"] = mappings;
    std::fs::set_permissions(
        bundle.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let mut command = bundle.command(&["run", "--no-pivot", "--detach", &bundle.id]);
    let null = std::process::Stdio::null;
    assert!(
        command
            .stdout(null())
            .stderr(null())
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        bundle.exec(&["ls", "/"]).ok(),
        "bin\ndev\netc\nproc\nsys\ntmp\n"
    );
    bundle.delete().ok();
}
