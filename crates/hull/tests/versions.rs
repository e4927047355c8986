//! What clients of older API versions get and mean. Source: moby's version history, and its engine at v28.5. Needs root and busybox.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::Engine;

/// An answer of a version, which has to be a success.
fn get(engine: &Engine, minor: u32, path: &str) -> Value {
    let (status, body) = engine.ask("GET", &format!("/v1.{minor}{path}"), None);
    let text = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 200, "1.{minor} {path}: {text}");
    serde_json::from_slice(&body).unwrap()
}

fn send(engine: &Engine, method: &str, minor: u32, path: &str, body: &Value) -> (u16, Value) {
    let text = body.to_string();
    let body = (!body.is_null()).then_some(text.as_str());
    let (status, body) = engine.ask(method, &format!("/v1.{minor}{path}"), body);
    let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    (status, value)
}

#[test]
fn versions_that_are_not_served_are_refused() {
    let engine = Engine::empty();
    let ask = |path: &str| {
        let (status, body) = engine.ask("GET", path, None);
        (status, String::from_utf8(body).unwrap())
    };
    let old = "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\n";
    let new =
        "{\"message\":\"client version 1.52 is too new. Maximum supported API version is 1.51\"}\n";
    assert_eq!(ask("/v1.23/info"), (400, old.to_owned()));
    assert_eq!(ask("/v1.52/info"), (400, new.to_owned()));
    for minor in 24..=51 {
        assert_eq!(ask(&format!("/v1.{minor}/_ping")), (200, "OK".to_owned()));
    }
}

/// A path's query as it is sent.
fn escaped(path: &str) -> String {
    let escape = |c: char| match c {
        '{' | '}' | '[' | ']' | '"' => format!("%{:02X}", u32::from(c)),
        c => c.to_string(),
    };
    path.chars().map(escape).collect()
}

/// What answers have: the path, the version that brought a change, a place in the answer, and what is there before and since;
/// `-` for nothing, which is not null.
const ANSWERS: &str = r#"
/info | 25 | /SecurityOptions/0 | "seccomp" | "name=seccomp,profile=builtin"
/networks?filters={"name":["own"]} | 28 | /0/Containers/ID/Name | "member" | -
/images/json?filter=nothing | 41 | /0/Containers | - | -1
/system/df?type=volume | 42 | /Containers/0/State | "running" | -
/images/json?filters={"dangling":["true"]} | 43 | /0/RepoTags | ["<none>:<none>"] | []
/images/json?filters={"dangling":["true"]} | 43 | /0/RepoDigests | ["<none>@<none>"] | []
/images/json?filters={"reference":["busybox"]} | 44 | /0/VirtualSize | SIZE | -
/images/busybox/json | 44 | /VirtualSize | SIZE | -
/containers/member/json | 45 | /NetworkSettings/Networks/own/Aliases | ["alias","SHORT","host"] | ["alias"]
/containers/json?all=1&filters={"name":["box"]} | 46 | /0/HostConfig/Annotations/a | - | "b"
/info | 47 | /RegistryConfig/AllowNondistributableArtifactsCIDRs | [] | -
/info | 50 | /BridgeNfIptables | false | -
/images/busybox/json | 50 | /Config/Hostname | "" | -
/images/busybox/json | 50 | /Config/Tty | false | -
/images/json?filters={"reference":["busybox"]} | 51 | /0/Containers | -1 | 2
"#;

/// A table's lines, and their columns.
fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    { table.lines() }
        .filter(|line| !line.is_empty())
        .map(|line| line.split(" | ").collect())
}

#[test]
fn older_clients_get_the_answers_they_know() {
    let engine = Engine::new();
    engine.words("create --name box --network none --annotation a=b busybox");
    engine.words("network create own");
    engine.words("run -d --name member --network own --hostname host --network-alias alias busybox sleep 1000");
    engine.ok(&["commit", "box"]);
    let id = engine.words("inspect -f {{.Id}} member");
    let size = get(&engine, 51, "/images/busybox/json")["Size"].to_string();
    let table = ANSWERS.replace("SIZE", &size).replace("SHORT", &id[..12]);
    for row in rows(&table.replace("/ID/", &format!("/{id}/"))) {
        let [path, since, place, before, after] = row[..] else {
            panic!("{row:?}");
        };
        let since: u32 = since.parse().unwrap();
        for (minor, expected) in [(since - 1, before), (since, after)] {
            let answer = get(&engine, minor, &escaped(path));
            let found = answer
                .pointer(place)
                .map_or("-".to_owned(), Value::to_string);
            assert_eq!(found, expected, "1.{minor} {path} {place}: {answer}");
        }
    }
    let image = get(&engine, 51, "/images/busybox/json");
    assert_eq!(image["Config"].get("Entrypoint"), Some(&Value::Null));
    let info = get(&engine, 51, "/info");
    assert_eq!(
        info["RegistryConfig"]["IndexConfigs"]["docker.io"]["Official"],
        json!(true)
    );
}

/// What requests come to: the version that brought a change, the request, and what comes of it before and since: `/place=value`
/// of `inspect` (and no warning), `~` with a warning, or `!` with an error's beginning.
const REQUESTS: &str = r#"
25 | {"HostConfig":{"AutoRemove":true}} | /HostConfig/AutoRemove=false | /HostConfig/AutoRemove=true
40 | {} | /HostConfig/IpcMode="shareable" | /HostConfig/IpcMode="private"
40 | BIND{"NonRecursive":true}}]}} | /HostConfig/Mounts/0/BindOptions/NonRecursive=null | /HostConfig/Mounts/0/BindOptions/NonRecursive=true
42 | {"HostConfig":{"ConsoleSize":[10,20]}} | /HostConfig/ConsoleSize=[0,0] | /HostConfig/ConsoleSize=[10,20]
42 | MOUNT"tmpfs","VolumeOptions":{}}]}} | /Mounts/0/Type="tmpfs" | !invalid mount config for type "tmpfs": field VolumeOptions must not be specified
42 | BIND{"CreateMountpoint":true}}]}} | /HostConfig/Mounts/0/BindOptions/CreateMountpoint=null | /HostConfig/Mounts/0/BindOptions/CreateMountpoint=true
43 | {"HostConfig":{"Annotations":{"a":"b"}}} | /HostConfig/Annotations/a=null | /HostConfig/Annotations/a="b"
44 | {"Healthcheck":{"Test":["CMD","true"],"StartInterval":1000000000}} | /Config/Healthcheck/StartInterval=null | /Config/Healthcheck/StartInterval=1000000000
44 | BIND{"ReadOnlyForceRecursive":true}}]}} | !BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer | /Mounts/0/RW=false
44 | BINDnull}]}} | /HostConfig/Mounts/0/BindOptions/ReadOnlyNonRecursive=true | /HostConfig/Mounts/0/BindOptions/ReadOnlyNonRecursive=null
44 | ENDPOINTS{"bridge":{},"own":{}}}} | !Container cannot be created with multiple network endpoints: bridge, own | /HostConfig/NetworkMode="bridge"
44 | {"MacAddress":ADDRESS} | /Config/MacAddress=ADDRESS | ~The container-wide MacAddress field is now deprecated.
44 | ENDPOINTS{"bridge":{"MacAddress":ADDRESS}}}} | /Config/MacAddress=null | /Config/MacAddress=ADDRESS
44 | {"MacAddress":ADDRESS,"NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":OTHER}}}} | /Config/MacAddress=ADDRESS | !the container-wide MAC address must match the endpoint-specific MAC address
44 | {"MacAddress":ADDRESS,"HostConfig":{"NetworkMode":"host"}} | !conflicting options: mac-address and the network mode | ~The container-wide MacAddress field is now deprecated.
45 | MOUNT"volume","Source":"vol","VolumeOptions":{"Subpath":"a"}}]}} | !VolumeOptions.Subpath needs API v1.45 or newer | /HostConfig/Mounts/0/VolumeOptions/Subpath="a"
48 | MOUNT"image","Source":"busybox"}]}} | !Mount type "Image" needs API v1.48 or newer | /Mounts/0/Type="image"
48 | ENDPOINTS{"bridge":{"GwPriority":7}}}} | /NetworkSettings/Networks/bridge/GwPriority=0 | /NetworkSettings/Networks/bridge/GwPriority=7
48 | {"HostConfig":{"VolumeDriver":"local","Mounts":[{"Type":"volume","Target":"/m"}]}} | /HostConfig/VolumeDriver="local" | ~WARNING: the container-wide volume-driver configuration is ignored
48 | {"HostConfig":{"Sysctls":{"net.ipv4.conf.eth1.forwarding":"1"}}} | !unable to determine network endpoint for sysctl net.ipv4.conf.eth1.forwarding | !interface specific sysctl setting
48 | {"HostConfig":{"NetworkMode":"other",PARAMETER},"NetworkingConfig":{"EndpointsConfig":{"own":{}}}} | !unable to find a network for sysctl net.ipv4.conf.eth0.forwarding: HostConfig.NetworkMode | !interface specific sysctl setting
48 | {"HostConfig":{PARAMETER}} | ~Migrated net.ipv4.conf.eth0.forwarding to DriverOpts{ | !interface specific sysctl setting "net.ipv4.conf.eth0.forwarding" must be supplied using driver option
"#;

/// Words of that table.
const WORDS: [(&str, &str); 6] = [
    (
        "PARAMETER",
        r#""Sysctls":{"net.ipv4.conf.eth0.forwarding":"1"}"#,
    ),
    ("ADDRESS", r#""02:42:0a:00:00:07""#),
    ("OTHER", r#""02:42:0a:00:00:08""#),
    (
        "BIND",
        r#"MOUNT"bind","Source":"/tmp","ReadOnly":true,"BindOptions":"#,
    ),
    (
        "MOUNT",
        r#"{"HostConfig":{"NetworkMode":"none","Mounts":[{"Target":"/m","Type":"#,
    ),
    ("ENDPOINTS", r#"{"NetworkingConfig":{"EndpointsConfig":"#),
];

fn check_outcome(engine: &Engine, minor: u32, body: &Value, expected: &str) {
    let (status, answer) = send(engine, "POST", minor, "/containers/create", body);
    let shown = format!("1.{minor} {body}: {answer}");
    if let Some(why) = expected.strip_prefix('!') {
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(status >= 400 && message.starts_with(why), "{shown}");
        return;
    }
    assert_eq!(status, 201, "{shown}");
    let warnings = answer["Warnings"].to_string();
    if let Some(warning) = expected.strip_prefix('~') {
        assert!(warnings.contains(warning), "{shown}");
        return;
    }
    assert_eq!(warnings, "[]", "{shown}");
    let path = format!("/containers/{}/json", answer["Id"].as_str().unwrap());
    let container = get(engine, 51, &path);
    let (place, value) = expected.split_once('=').unwrap();
    let found = container.pointer(place).unwrap_or(&Value::Null);
    assert_eq!(found.to_string(), value, "{shown} {place}");
}

#[test]
fn older_clients_mean_what_their_version_meant() {
    let engine = Engine::new();
    engine.words("network create own");
    let spelled = |table: String, (word, text): (&str, &str)| table.replace(word, text);
    let table = WORDS.into_iter().fold(REQUESTS.to_owned(), spelled);
    for row in rows(&table) {
        let [since, body, before, after] = row[..] else {
            panic!("{row:?}");
        };
        let since: u32 = since.parse().unwrap();
        let mut body: Value = serde_json::from_str(body).unwrap();
        body["Image"] = json!("busybox");
        check_outcome(&engine, since - 1, &body, before);
        check_outcome(&engine, since, &body, after);
    }
}

/// The version that brought a parameter, the call, and the status before and since.
const PARAMETERS: &str = "
30 | POST /containers/box/wait?condition=bogus | 200 | 400
41 | POST /containers/create?platform=linux/s390x | 201 | 404
48 | GET /images/busybox/history?platform=OTHER | 200 | 404
48 | GET /images/busybox/get?platform=OTHER | 200 | 404
48 | POST /build/prune?reserved-space=x | 200 | 400
49 | GET /images/busybox/json?platform=OTHER | 200 | 404
50 | DELETE /images/other?platforms=OTHER | 200 | 404
";

#[test]
fn parameters_count_since_their_version() {
    let engine = Engine::new();
    engine.words("run --name box --network none busybox true");
    let other = r#"{"os":"linux","architecture":"s390x"}"#;
    let body = json!({"Image": "busybox"});
    for row in rows(&PARAMETERS.replace("OTHER", other)) {
        let [since, call, before, after] = row[..] else {
            panic!("{row:?}");
        };
        let since: u32 = since.parse().unwrap();
        let (method, path) = call.split_once(' ').unwrap();
        for (minor, expected) in [(since - 1, before), (since, after)] {
            engine.words("tag busybox other");
            let (status, answer) = send(&engine, method, minor, &escaped(path), &body);
            assert_eq!(status.to_string(), expected, "1.{minor} {call}: {answer}");
        }
    }
    let (_, answer) = send(
        &engine,
        "POST",
        51,
        "/containers/create?platform=linux/s390x",
        &body,
    );
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("does not match the specified platform (linux/s390x)"),
        "{message}"
    );
}

#[test]
fn older_clients_prune_all_volumes_and_are_not_told_of_new_images() {
    let engine = Engine::new();
    let prune = |minor| send(&engine, "POST", minor, "/volumes/prune", &Value::Null).1;
    engine.words("volume create named");
    assert_eq!(prune(42)["VolumesDeleted"], json!([]));
    assert_eq!(prune(41)["VolumesDeleted"], json!(["named"]));
    engine.words("create --name box --network none busybox");
    engine.ok(&["commit", "box", "made:1"]);
    let told = |minor: u32| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let until = now.as_secs() + 1;
        let path = format!("/v1.{minor}/events?since=1&until={until}");
        let (_, body) = engine.ask("GET", &path, None);
        let lines = String::from_utf8(body).unwrap();
        let actions = lines.lines().map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            format!(
                "{} {}",
                event["Type"].as_str().unwrap(),
                event["Action"].as_str().unwrap()
            )
        });
        actions
            .filter(|action| action.starts_with("image"))
            .collect::<Vec<_>>()
    };
    let all = told(46);
    assert!(
        all.ends_with(&["image create".to_owned(), "image tag".to_owned()]),
        "{all:?}"
    );
    assert!(!told(45).contains(&"image create".to_owned()));
}
