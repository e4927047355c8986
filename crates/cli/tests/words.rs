//! What the program says: help of every command, and errors, as snapshots.
//!
//! After a wanted change: `INSTA_UPDATE=always cargo test -p hull-cli`, and read the difference.

#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only test functions for tests"
)]

mod support;

use std::os::unix::process::CommandExt;
use support::{Answer, Engine};

/// Exit code, standard output and standard error of a command line.
fn say(program: &str, line: &str, host: &str) -> String {
    let words = line
        .split_whitespace()
        .map(|word| if word == "EMPTY" { "" } else { word });
    let output = support::command(&support::hull())
        .arg0(program)
        .args(words)
        .env("DOCKER_HOST", host)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let code = output.status.code().unwrap();
    let mut said = format!("$ {program} {line}\n");
    for (mark, text) in [("", stdout), ("! ", stderr)] {
        said.extend(text.lines().map(|line| format!("{mark}{line}\n")));
    }
    format!("{said}[{code}]\n\n")
}

#[test]
fn help() {
    let names = |text: &str| -> Vec<String> {
        let commands = text.split("Commands:\n").skip(1).flat_map(|part| {
            part.lines()
                .take_while(|line| line.starts_with("  "))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        commands
            .map(|line| line.split_whitespace().next().unwrap().to_owned())
            .collect()
    };
    let root = say("hull", "--help", "");
    let mut all = root.clone();
    for name in names(&root) {
        let text = say("hull", &format!("{name} --help"), "");
        let below = names(&text);
        all.push_str(&text);
        // The commands of a group that have no short form.
        for command in below
            .iter()
            .filter(|command| name == "manifest" || !names(&root).contains(command))
        {
            all.push_str(&say("hull", &format!("{name} {command} --help"), ""));
        }
    }
    insta::assert_snapshot!(all);
}

/// Command lines that fail, or engines that do.
const MISTAKES: &[&str] = &[
    "ps --foo",
    "ps -Z",
    "ps extra",
    "ps --filter foo",
    "ps -f foo=bar",
    "ps --format {{.Nope}}",
    "network ls",
    "volume ls",
    "info",
    "run",
    "run --name",
    "run --cpu-shares x img",
    "run --rm=maybe img",
    "run -m 1x img",
    "run -p 1:2:3:4 img",
    "run --mount foo img",
    "run --restart always --rm img",
    "run --network a --network none img",
    "run --pid foo img",
    "run --pull sometimes img",
    "pull",
    "pull Img",
    "pull -a img:tag",
    "pull --disable-content-trust=false img",
    "pull --platform /x img",
    "push -a img:tag",
    "push --platform a/b/c/d img",
    "push img@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "login",
    "login -u me",
    "login --password-stdin",
    "login --password-stdin -u me -p x",
    "login -u me -p x host:1",
    "logout",
    "logout https://host:1/x",
    "search -f x img",
    "manifest inspect",
    "manifest inspect list img",
    "manifest annotate --arch arm64 list img",
    "manifest push list",
    "manifest rm a b",
    "manifest create A b",
    "run --cpu-count 1 img",
    "run --disable-content-trust=false img",
    "run -d -a stdout img",
    "run -it img",
    "run --env-file /nonexistent img",
    "run --security-opt foo img",
    "run --health-cmd x --no-healthcheck img",
    "run ./nonexistent",
    "create -v EMPTY img",
    "exec c",
    "start --checkpoint x c d",
    "start -a c d",
    "stop EMPTY",
    "logs --since yesterday c",
    "inspect x",
    "inspect -f {{.x x",
    "inspect --type secret x",
    "update c",
    "cp a b",
    "cp c:a d:b",
    "cp c: b",
    "commit c a@sha256:0",
    "tag a b@sha256:0",
    "images --tree -q",
    "save",
    "volume create --scope multi x",
    "network create --subnet 10.0.0.0/8 --gateway 11.0.0.1 n",
    "system prune -f --volumes --filter until=1h",
    "foo",
    "container foo",
    "bake",
    "compose up",
    "--foo ps",
    "--context other ps",
    "--tlsverify ps",
    "-H a -H b ps",
    "-H foo://x ps",
    "-H ssh://a:b@x ps",
    "-l loud ps",
];

#[test]
fn errors() {
    let engine = Engine::start(|request| match request.path.as_str() {
        "/containers/json" => Answer::json(400, r#"{"message":"invalid filter 'foo'"}"#),
        "/networks" => Answer::Whole(502, vec![], b"<html>bad gateway</html>".to_vec()),
        "/volumes" => Answer::json(200, r#"{"Volumes":[{"Name":7}]}"#),
        "/info" => Answer::empty(500),
        _ => Answer::json(404, r#"{"message":"No such container: x"}"#),
    });
    let host = engine.host();
    let mut all = String::new();
    for line in MISTAKES {
        all.push_str(&say("hull", line, &host));
    }
    all.push_str(&say("docker", "foo", &host));
    all.push_str(&say("/usr/bin/docker", "run", &host));
    insta::assert_snapshot!(all.replace(&host, "unix://HOST"));
}

/// Command lines that show things.
const LISTS: &[&str] = &[
    "ps -a",
    "ps -as --no-trunc",
    "ps -q",
    "ps --format json",
    "ps --format table\\t{{.Names}}\\t{{.Labels}}\\t{{.Mounts}}\\t{{.Networks}}",
    "images",
    "images --digests --no-trunc",
    "images -q",
    "images --format json",
    "history --human=false x",
    "history --no-trunc --format {{.ID}}|{{.CreatedBy}}|{{.Size}} x",
    "network ls",
    "network ls --format json",
    "volume ls",
    "volume ls --format {{.Name}}={{.Mountpoint}}",
    "version",
    "version --format {{.Server.Version}}/{{.Client.APIVersion}}",
    "info",
    "system df",
    "top c",
    "diff c",
    "port c",
    "port c 80",
    "port c 5",
    "container prune -f",
    "image prune -f",
    "pull -q img",
    "pull img",
    "push img",
    "push -q img:tag",
    "search img",
    "search --no-trunc --format {{.Name}}|{{.Description}}|{{.IsOfficial}} img",
    "search --format json img",
    "create img",
    "create -q img",
    "create --pull never img",
    "rmi y",
    "events",
    "events --format json",
    "inspect c",
    "inspect --format {{(index(index.NetworkSettings.Ports`9/udp`)0).HostPort}} c",
    "-D diff c",
    "inspect --format {{.ID}} c",
];

#[test]
fn lists() {
    let engine = Engine::start(|request| {
        if request.path == "/containers/create" {
            return Answer::json(404, r#"{"message":"No such image: img"}"#);
        }
        Answer::json(
            200,
            match request.path.as_str() {
                "/images/create" => {
                    r#"{"status":"Pulling from library/img","id":"latest"}
                    {"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"0123"}
                    {"status":"Pull complete","progressDetail":{},"id":"0123"}
                    {"status":"Status: Downloaded newer image for img:latest"}"#
                }
                "/images/docker.io/library/img/push" => {
                    r#"{"status":"The push refers to repository [docker.io/library/img]"}
                    {"progressDetail":{},"aux":{"Tag":"latest"}}"#
                }
                "/images/search" => include_str!("words/search.json"),
                "/containers/json" => include_str!("words/containers.json"),
                "/images/json" => include_str!("words/images.json"),
                "/images/x/history" => include_str!("words/history.json"),
                "/networks" => include_str!("words/networks.json"),
                "/volumes" => include_str!("words/volumes.json"),
                "/version" => include_str!("words/version.json"),
                "/info" => include_str!("words/info.json"),
                "/system/df" => include_str!("words/df.json"),
                "/containers/c/top" => {
                    r#"{"Titles":["PID","CMD"],"Processes":[["1","sleep 5"],["20","sh -c 'a b'"]]}"#
                }
                "/containers/c/changes" => {
                    r#"[{"Path":"/a","Kind":0},{"Path":"/a/b","Kind":1},{"Path":"/c","Kind":2}]"#
                }
                "/containers/c/json" => {
                    r#"{"Id":"c","NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"9/udp":[{"HostIp":"127.0.0.1","HostPort":"9"}],"5/tcp":null}}}"#
                }
                "/containers/prune" => {
                    r#"{"ContainersDeleted":["a","b"],"SpaceReclaimed":1234567}"#
                }
                "/images/prune" => {
                    r#"{"ImagesDeleted":[{"Untagged":"x:1"},{"Deleted":"sha256:0"}],"SpaceReclaimed":5}"#
                }
                "/images/y" => r#"[{"Untagged":"y:1"},{"Deleted":"sha256:0"}]"#,
                "/events" => include_str!("words/events.json"),
                _ => "{}",
            },
        )
    });
    let mut all = String::new();
    for line in LISTS {
        all.push_str(&say("hull", line, &engine.host()));
    }
    const YEAR_S: u64 = 365 * 86400;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let all = all.replace(&format!("{} years ago", now / YEAR_S), "NN years ago");
    insta::assert_snapshot!(all.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}
