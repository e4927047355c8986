//! `search`, and `import` of a URL: what is asked of servers that are no registries of images.

use crate::content::tar_of;
use crate::server::{Answer, Server};
use crate::support::Engine;

/// What Docker Hub answers, with something that is not for terminals.
const RESULTS: &str = r#"{"num_pages":1,"num_results":3,"page":1,"page_size":25,"query":"box","results":[
 {"name":"busybox","description":"Busybox\u001b[2J base image.","star_count":3400,"is_official":true,"is_automated":true},
 {"name":"someone/box","description":"A box of someone's, told of with so many words that a table has no place for them","star_count":7,"is_official":false},
 {"name":"other/box","star_count":0,"is_official":false}]}"#;

fn index() -> Server {
    Server::start(|request| match request.path.split_once('?') {
        Some(("/v1/search", query)) if query.starts_with("q=box&") => Answer::ok(RESULTS),
        Some(("/v1/search", _)) => Answer::ok(r#"{"num_results":0,"results":null}"#),
        _ => Answer::status(404),
    })
}

#[test]
fn a_registry_is_searched_for_its_repositories() {
    let (engine, server) = (Engine::empty(), index());
    let term = format!("{}/box", server.address);
    let table = engine.ok(&["search", &term]);
    let lines: Vec<&str> = table.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        [
            "NAME          DESCRIPTION                                     STARS     OFFICIAL",
            "busybox       Busybox[2J base image.                          3400      [OK]",
            "someone/box   A box of someone's, told of with so many wor…   7",
            "other/box                                                     0",
        ]
    );
    assert_eq!(engine.docker(&["search", &term]), table);
    let names = |line: &[&str]| {
        let line = [&["search", "--format", "{{.Name}}"], line, &[&term]].concat();
        let said = engine.ok(&line);
        assert_eq!(engine.docker(&line), said);
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&["-f", "is-official=true"]), ["busybox"]);
    assert_eq!(
        names(&["-f", "is-official=false", "-f", "stars=5"]),
        ["someone/box"]
    );
    assert_eq!(names(&["-f", "is-automated=true"]), [""; 0]);
    assert_eq!(names(&["--limit", "2"]), ["busybox", "someone/box"]);
    let whole = engine.ok(&["search", "--no-trunc", &term]);
    assert!(whole.contains("has no place for them"), "{whole}");
    let asked: Vec<String> = { server.requests().into_iter() }
        .map(|asked| asked.path)
        .collect();
    assert!(
        asked.contains(&"/v1/search?q=box&n=25".to_owned()),
        "{asked:?}"
    );
    assert!(
        asked.contains(&"/v1/search?q=box&n=2".to_owned()),
        "{asked:?}"
    );

    let none = engine.ok(&["search", &format!("{}/nothing", server.address)]);
    assert_eq!(none.lines().count(), 1, "{none}");
    for (line, words) in [
        (
            ["--limit", "101"],
            "limit 101 is outside the range of [1, 100]",
        ),
        (["-f", "stars=many"], "invalid filter 'stars=many'"),
        (
            ["-f", "is-official=perhaps"],
            "invalid filter 'is-official=perhaps'",
        ),
        (["-f", "colour=red"], "invalid filter 'colour"),
    ] {
        let said = engine.run(&["search", line[0], line[1], &term]);
        assert!(said.code == 1 && said.stderr.contains(words), "{said:?}");
    }
    let said = engine.run(&["search", "https://registry.example/box"]);
    assert!(said.stderr.contains("should not have a scheme"), "{said:?}");
}

#[test]
fn a_search_tells_what_the_registry_does_wrong() {
    let engine = Engine::empty();
    for (answer, words) in [
        ("<html>", "sends no results of a search"),
        (
            r#"{"results":[{"name":7}]}"#,
            "sends no results of a search",
        ),
    ] {
        let server = Server::start(move |_| Answer::ok(answer));
        let said = engine.run(&["search", &format!("{}/x", server.address)]);
        assert!(said.code == 1 && said.stderr.contains(words), "{said:?}");
    }
    let server = Server::start(|_| Answer::Endless { announced: false });
    let said = engine.run(&["search", &format!("{}/x", server.address)]);
    assert!(said.stderr.contains("sends more than"), "{said:?}");
    let server = Server::start(|_| Answer::status(404));
    let said = engine.run(&["search", &format!("{}/x", server.address)]);
    assert!(said.stderr.contains("404"), "{said:?}");
}

#[test]
fn an_import_fetches_a_url() {
    let engine = Engine::empty();
    let tar = tar_of("from afar");
    let served = tar.clone();
    let server = Server::start(move |request| match request.path.as_str() {
        "/there.tar?x=1" => Answer::redirect("/root.tar"),
        "/root.tar" => Answer::ok(&served),
        "/cut.tar" => Answer::ok(&served).cut(700),
        _ => Answer::status(404),
    });
    let url = |path: &str| format!("http://{}/{path}", server.address);
    for program in [env!("CARGO_BIN_EXE_hull"), "docker"] {
        let line = ["import", "--platform", "linux/arm64", "-c", "CMD [\"x\"]"];
        let source = url("there.tar?x=1");
        let line = [&line[..], &[&source, "afar:1"]].concat();
        let said = crate::support::said(engine.client(program, &line).output().unwrap());
        assert_eq!(said.code, 0, "{said:?}");
        let begun = format!("Downloading from {source}");
        assert!(said.stdout.contains(&begun), "{said:?}");
        let id = engine.ok(&["images", "-q", "--no-trunc", "afar:1"]);
        assert!(said.stdout.trim_end().ends_with(&id), "{said:?}");
        let told = engine.ok(&[
            "inspect",
            "-f",
            "{{.Architecture}} {{.Config.Cmd}}",
            "afar:1",
        ]);
        assert_eq!(told, "arm64 [x]");
        let comment = engine.ok(&[
            "history",
            "--format",
            "{{.Comment}}",
            "--no-trunc",
            "afar:1",
        ]);
        assert_eq!(comment, format!("Imported from {source}"));
        engine.ok(&["rmi", "afar:1"]);
    }
    for (source, words) in [
        (url("nothing"), "404"),
        (url("cut.tar"), "reading the archive failed"),
        ("http://127.0.0.1:1/x".to_owned(), "refused"),
    ] {
        let said = engine.run(&["import", &source, "afar:2"]);
        assert!(
            said.code == 1 && said.stderr.contains(words),
            "{source}: {said:?}"
        );
    }
    assert_eq!(engine.ok(&["images", "-q"]), "");
    assert_eq!(
        crate::hostile::stored(&engine),
        Vec::<std::path::PathBuf>::new()
    );
}

#[test]
fn an_import_that_is_stopped_leaves_nothing() {
    let engine = Engine::empty();
    let tar = tar_of("x");
    let (half, length) = (tar[..tar.len() / 2].to_vec(), tar.len());
    let server = Server::start(move |_| Answer::Stall {
        length,
        sent: half.clone(),
    });
    let url = format!("http://{}/x.tar", server.address);
    let client = engine.hull(&["import", &url, "x"]).spawn().unwrap();
    let stored = || crate::hostile::stored(&engine);
    engine.until("the import has begun", || !stored().is_empty());
    // `timeout`, which stands before the client, gives it on.
    let pid = client.id().to_string();
    let kill = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(kill.unwrap().success());
    assert!(!client.wait_with_output().unwrap().status.success());
    engine.until("what came is gone", || stored().is_empty());
    assert_eq!(engine.ok(&["images", "-q"]), "");
}
