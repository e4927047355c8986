//! The client against sockets that answer by script.

#![allow(
    clippy::unwrap_used,
    reason = "clippy takes only test functions for tests"
)]

use api_types::IdResponse;
use client::{ApiVersion, Client, Error, Host, Output, Request};
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves every connection with `serve`, which is told how many came before.
async fn engine<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(usize, TcpStream) -> F + Send + 'static,
) -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = Host::parse(&format!("tcp://{}/base", listener.local_addr().unwrap())).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let connections = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(connections.fetch_add(1, Ordering::SeqCst), stream));
        }
    });
    (Client::new(host, None), count)
}

/// Reads the head of a request, and returns its first line.
async fn request_line(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    head.lines().next().map(str::to_owned)
}

async fn answer(stream: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    // A client that has gone away is not the server's concern.
    let _ = stream
        .write_all(&[head.as_bytes(), body.as_bytes()].concat())
        .await;
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let (client, connections) = engine(async |_, mut stream: TcpStream| {
        while let Some(line) = request_line(&mut stream).await {
            assert_eq!(line, "GET /base/v1.51/x HTTP/1.1");
            answer(&mut stream, "200 OK", JSON, r#"{"Id":"a"}"#).await;
        }
    })
    .await;
    for _ in 0..5 {
        let answer: IdResponse = client.json(&Request::get(&["x"])).await.unwrap();
        assert_eq!(answer.id, "a");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced() {
    let (client, connections) = engine(async |_, mut stream: TcpStream| {
        request_line(&mut stream).await;
        answer(&mut stream, "204 No Content", "", "").await;
    })
    .await;
    for _ in 0..3 {
        client.call(&Request::post(&["x"])).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn refusals_carry_the_engines_words() {
    for (status, headers, body, expected) in [
        ("404 Not Found", JSON, r#"{"message":" no x\n"}"#, "no x"),
        ("500 Oops", JSON, "{", "{"),
        ("502 Bad Gateway", "", "<html>", "<html>"),
        ("409 Conflict", JSON, "{}", "409 Conflict without a message"),
        (
            "301 Moved",
            "Location: /y\r\n",
            "",
            "301 Moved Permanently without a message",
        ),
    ] {
        let (client, _) = engine(move |_, mut stream: TcpStream| async move {
            request_line(&mut stream).await;
            answer(&mut stream, status, headers, body).await;
        })
        .await;
        let error = client.call(&Request::get(&["x"])).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Error response from daemon: {expected}")
        );
        assert_eq!(error.status().unwrap().to_string(), status[..3]);
    }
}

#[tokio::test]
async fn a_refusal_that_is_not_about_the_version_stays_itself() {
    let (client, _) = engine(async |_, mut stream: TcpStream| {
        while let Some(line) = request_line(&mut stream).await {
            match line.contains("_ping") {
                true => answer(&mut stream, "200 OK", "Api-Version: 1.60\r\n", "").await,
                false => answer(&mut stream, "400 Bad", JSON, r#"{"message":"bad filter"}"#).await,
            }
        }
    })
    .await;
    let error = client.call(&Request::get(&["x"])).await.unwrap_err();
    assert_eq!(error.to_string(), "Error response from daemon: bad filter");
    assert_eq!(client.version(), ApiVersion::NEWEST);
}

#[tokio::test]
async fn requests_at_once_learn_the_version_together() {
    let (client, _) = engine(async |_, mut stream: TcpStream| {
        while let Some(line) = request_line(&mut stream).await {
            if line.contains("_ping") {
                answer(&mut stream, "200 OK", "Api-Version: 1.41\r\n", "").await;
            } else if line.contains("/v1.41/") {
                answer(&mut stream, "204 No Content", "", "").await;
            } else {
                answer(&mut stream, "400 Bad", JSON, r#"{"message":"too new"}"#).await;
            }
        }
    })
    .await;
    let request = Request::post(&["x"]);
    let (a, b, c) = tokio::join!(
        client.call(&request),
        client.call(&request),
        client.call(&request)
    );
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(client.version(), ApiVersion::new(1, 41));
}

#[tokio::test]
async fn an_engine_from_before_is_named_too_old() {
    let (client, _) = engine(async |_, mut stream: TcpStream| {
        request_line(&mut stream).await;
        answer(&mut stream, "200 OK", "Api-Version: 1.18\r\n", "").await;
    })
    .await;
    let error = client.settle_version().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the engine's API version 1.18 is too old: at least 1.24 is needed"
    );
}

#[tokio::test]
async fn answers_that_are_not_http_or_not_json_are_errors() {
    let (client, _) = engine(async |_, mut stream: TcpStream| {
        request_line(&mut stream).await;
        stream.write_all(b"SSH-2.0-OpenSSH\r\n").await.unwrap();
    })
    .await;
    assert!(matches!(
        client.call(&Request::get(&["x"])).await,
        Err(Error::Http { .. })
    ));
    let (client, _) = engine(async |_, mut stream: TcpStream| {
        request_line(&mut stream).await;
        answer(&mut stream, "200 OK", "", "not json").await;
    })
    .await;
    let result = client.json::<IdResponse>(&Request::get(&["x"])).await;
    assert!(matches!(result, Err(Error::Decode { .. })));
}

#[tokio::test]
async fn lines_arrive_one_by_one_and_the_last_needs_no_end() {
    let (client, _) = engine(async |_, mut stream: TcpStream| {
        request_line(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"Id\":\"a\"}\r\n\r\n{\"I")
            .await
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        stream
            .write_all(b"d\":\"b\"}\n{\"Id\":\"c\"}")
            .await
            .unwrap();
    })
    .await;
    let mut lines = client
        .send(&Request::get(&["x"]))
        .await
        .unwrap()
        .lines::<IdResponse>();
    let mut ids = Vec::new();
    while let Some(line) = lines.next().await.unwrap() {
        ids.push(line.id);
    }
    assert_eq!(ids, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_hijacked_connection_goes_both_ways_and_halves_close() {
    let (client, _) = engine(async |_, mut stream: TcpStream| {
        request_line(&mut stream).await;
        // The first frame comes with the head.
        stream.write_all(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n\x01\0\0\0\0\0\0\x02hi").await.unwrap();
        let mut input = String::new();
        stream.read_to_string(&mut input).await.unwrap();
        stream.write_all(&[b"\x02\0\0\0\0\0\0\x05", input.as_bytes()].concat()).await.unwrap();
    })
    .await;
    let mut connection = client.hijack(&Request::post(&["x"])).await.unwrap();
    connection.writer.write_all(b"input").await.unwrap();
    connection.writer.shutdown().await.unwrap();
    let mut frames = client::Frames::new(connection.reader);
    let mut buffer = [0; 16];
    assert_eq!(
        frames.read(&mut buffer).await.unwrap(),
        Some((Output::Stdout, 2))
    );
    assert_eq!(
        frames.read(&mut buffer).await.unwrap(),
        Some((Output::Stderr, 5))
    );
    assert_eq!(&buffer[..5], b"input");
    assert_eq!(frames.read(&mut buffer).await.unwrap(), None);
}

#[tokio::test]
async fn a_connection_that_is_not_handed_over_is_an_error() {
    let (client, _) = engine(async |_, mut stream: TcpStream| {
        request_line(&mut stream).await;
        answer(&mut stream, "200 OK", "", "").await;
    })
    .await;
    assert!(matches!(
        client.hijack(&Request::post(&["x"])).await,
        Err(Error::NotUpgraded { .. })
    ));
}

#[tokio::test]
async fn uploads_are_streamed_and_may_be_refused_half_way() {
    let (client, _) = engine(async |_, mut stream: TcpStream| {
        while let Some(line) = request_line(&mut stream).await {
            if line.contains("_ping") {
                answer(&mut stream, "200 OK", "Api-Version: 1.41\r\n", "").await;
            } else {
                assert_eq!(line, "PUT /base/v1.41/x HTTP/1.1");
                stream.read_exact(&mut [0; 1000]).await.unwrap();
                answer(
                    &mut stream,
                    "413 Too Large",
                    JSON,
                    r#"{"message":"too much"}"#,
                )
                .await;
                // The client goes on sending for a while.
                let mut rest = vec![0; 1 << 20];
                while matches!(stream.read(&mut rest).await, Ok(1..)) {}
                return;
            }
        }
    })
    .await;
    let body = Cursor::new(vec![7; 8 << 20]);
    let error = client
        .upload(&Request::put(&["x"]), "application/x-tar", body)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "Error response from daemon: too much");
    assert_eq!(client.version(), ApiVersion::new(1, 41));
}

#[tokio::test]
async fn a_socket_without_an_engine_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(Host::Unix(directory.path().join("x.sock")), None);
    let error = client.connect().await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
}
