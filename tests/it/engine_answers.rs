//! The adapter to the Engine, before an Engine that stalls, floods, restarts and changes its version.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use sense_orchestrator::engine::{Engine, EngineError, PullImage, RemoveContainer};
use tokio::time::Instant;

use crate::support::http_engine::{CHUNKED, HttpEngine, Reply, json, with_version};

const VERSION: &str = r#"{"Version": "20.10.24", "ApiVersion": "1.41"}"#;

/// An Engine of version 1.41 that answers everything else as told.
fn engine(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> HttpEngine {
    HttpEngine::start(move |request| if request == "GET /version" { json(200, VERSION) } else { answer(request) })
}

fn is_unavailable<T>(result: &Result<T, EngineError>) -> bool {
    matches!(result, Err(EngineError::Unavailable { .. }))
}

#[tokio::test(start_paused = true)]
async fn a_calls_limit_lasts_to_the_end_of_its_body() {
    let stalled: [&[u8]; 3] = [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"Name\":",
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 100\r\n\r\n{\"message\":",
    ];
    for bytes in stalled {
        let server = engine(move |_| Reply::Stall(bytes.to_vec()));
        let client = server.client();
        let begun = Instant::now();
        assert!(is_unavailable(&client.network("x").await), "{bytes:?}");
        assert!(is_unavailable(&client.logs_tail("x", 100).await), "{bytes:?}");
        assert!(is_unavailable(&client.start_container("x").await), "{bytes:?}");
        assert_eq!(begun.elapsed().as_secs(), 3 * 120, "{bytes:?}");
    }
    let server = HttpEngine::start(|_| Reply::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"Vers".to_vec()));
    let begun = Instant::now();
    assert!(is_unavailable(&server.client().version().await));
    assert_eq!(begun.elapsed().as_secs(), 120);
}

#[tokio::test(start_paused = true)]
async fn a_pull_of_which_nothing_is_told_is_given_up() {
    let server = engine(|_| Reply::Stall(CHUNKED.to_vec()));
    let begun = Instant::now();
    let pulled = server.client().pull_image(&PullImage { reference: "redis:7".into(), platform: None }).await;
    assert!(pulled.unwrap_err().to_string().contains("no progress for 5m"));
    assert_eq!(begun.elapsed().as_secs(), 300);
}

#[tokio::test]
async fn an_answer_of_300_megabytes_is_an_error_that_says_so() {
    let flood =
        |head: &[u8], piece: &[u8]| Reply::Endless { head: head.to_vec(), piece: piece.to_vec(), total: 300 << 20 };
    let label = format!("[{{\"Id\": \"1\", \"Labels\": {{\"a\": \"{}", "x".repeat(60_000));
    let server = engine(move |_| flood(CHUNKED, label.as_bytes()));
    let client = server.client();
    let limit = "the answer is longer than 4194304 bytes";
    for error in [
        client.containers(&[]).await.unwrap_err(),
        client.network("x").await.unwrap_err(),
        client.wait_container("x").await.unwrap_err(),
    ] {
        assert!(error.to_string().contains(limit), "{error}");
    }
    let line = "the answer is longer than 1048576 bytes";
    let event = std::pin::pin!(client.events(&[])).next().await.unwrap();
    assert!(event.unwrap_err().to_string().contains(line));
    let pulled = client.pull_image(&PullImage { reference: "x".into(), platform: None }).await;
    assert!(pulled.unwrap_err().to_string().contains(line));

    let long = b"HTTP/1.1 200 OK\r\nContent-Length: 300000000\r\n\r\n[";
    let server = engine(move |_| Reply::Stall(long.to_vec()));
    let error = server.client().containers(&[]).await.unwrap_err();
    assert!(error.to_string().contains(limit), "{error}: before anything was read");

    let refusal = b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n";
    let server = engine(move |_| flood(refusal, "x".repeat(60_000).as_bytes()));
    let error = server.client().start_container("x").await.unwrap_err().to_string();
    assert!(error.len() < 3_000, "{} bytes", error.len());
}

#[tokio::test]
async fn a_connection_is_kept_and_the_version_asked_once() {
    let server = engine(|request| match request {
        _ if request.starts_with("POST /v1.41/containers/create") => json(201, r#"{"Id": "1", "Warnings": []}"#),
        _ if request.contains("/wait") => json(200, r#"{"StatusCode": 7}"#),
        _ if request.contains("/logs") => json(404, r#"{"message": "gone"}"#),
        _ if request.starts_with("GET") => json(200, "[]"),
        _ => Reply::Bytes(b"HTTP/1.1 204 No Content\r\nApi-Version: 1.41\r\n\r\n".to_vec()),
    });
    let client = server.client();
    for _ in 0..5 {
        client.version().await.unwrap();
        client.containers(&[]).await.unwrap();
        client.start_container("x").await.unwrap();
        assert_eq!(client.wait_container("x").await.unwrap(), 7);
        assert!(matches!(client.logs_tail("x", 100).await, Err(EngineError::NotFound { .. })));
        client.remove_container("x", RemoveContainer { force: false, volumes: true }).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    let requests = server.requests();
    assert_eq!(requests.iter().filter(|request| *request == "GET /version").count(), 1);
    assert_eq!(requests.len(), 26, "{requests:?}");
    assert!(requests.contains(&"DELETE /v1.41/containers/x?v=true&force=false".to_owned()), "{requests:?}");
}

#[tokio::test]
async fn a_call_on_a_connection_that_was_closed_is_repeated_only_where_it_may_arrive_twice() {
    // The server reads the second request of each connection, and answers none of it.
    let count = Arc::new(AtomicUsize::new(0));
    let server = engine(move |request| match count.fetch_add(1, Ordering::Relaxed) {
        _ if request.contains("first") => json(200, "[]"),
        1 => Reply::Close(Vec::new()),
        _ if request.starts_with("GET") => json(200, "[]"),
        _ => Reply::Close(Vec::new()),
    });
    let client = server.client();
    client.networks("first").await.unwrap();
    client.networks("second").await.unwrap();
    assert!(is_unavailable(&client.start_container("x").await), "it may have been started");
    let starts = server.requests().iter().filter(|request| request.starts_with("POST")).count();
    assert_eq!(starts, 1);
}

#[tokio::test]
async fn connections_that_the_engine_closed_meanwhile_fail_no_call() {
    let server = engine(|request| {
        let body: &[u8] = b"HTTP/1.1 204 No Content\r\nApi-Version: 1.41\r\n\r\n";
        if request.contains("start") { Reply::Close(body.to_vec()) } else { Reply::Bytes(body.to_vec()) }
    });
    let client = server.client();
    for _ in 0..3 {
        client.start_container("x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.rename_container("x", "y").await.unwrap();
    }
}

#[tokio::test]
async fn an_engine_that_was_replaced_is_asked_for_its_version_and_the_call_repeated() {
    let upgraded = Arc::new(AtomicUsize::new(0));
    let newer = Arc::clone(&upgraded);
    let server = HttpEngine::start(move |request| {
        let new = newer.load(Ordering::Relaxed) == 1;
        let api = if new { "1.52" } else { "1.41" };
        match request {
            "GET /version" => with_version(
                api,
                200,
                &format!(r#"{{"Version": "x", "ApiVersion": "{api}", "MinAPIVersion": "1.44"}}"#),
            ),
            _ if new && request.contains("/v1.41/") => {
                let message = "client version 1.41 is too old. Minimum supported API version is 1.44";
                with_version(api, 400, &format!(r#"{{"message": "{message}"}}"#))
            }
            _ => with_version(api, 200, "[]"),
        }
    });
    let client = server.client();
    client.containers(&[]).await.unwrap();
    upgraded.store(1, Ordering::Relaxed);
    client.containers(&[]).await.unwrap();
    assert_eq!(client.version().await.unwrap().api.to_string(), "1.52");
    client.networks("x").await.unwrap();
    assert_eq!(server.requests().iter().filter(|request| *request == "GET /version").count(), 2);
}

#[tokio::test]
async fn the_version_in_an_answer_tells_of_another_engine() {
    let answered = AtomicUsize::new(0);
    let server = HttpEngine::start(move |request| {
        let api = if answered.fetch_add(1, Ordering::Relaxed) < 2 { "1.41" } else { "1.47" };
        if request == "GET /version" {
            with_version(api, 200, &format!(r#"{{"Version": "x", "ApiVersion": "{api}"}}"#))
        } else {
            with_version(api, 200, "[]")
        }
    });
    let client = server.client();
    for api in ["1.41", "1.47"] {
        client.containers(&[]).await.unwrap();
        assert_eq!(client.version().await.unwrap().api.to_string(), api);
    }
}

#[tokio::test]
async fn events_are_read_in_todays_form_however_they_are_cut() {
    let event =
        r#"{"Type":"container","Action":"start","Actor":{"ID":"1","Attributes":{"name":"p-web-1"}},"scope":"local"}"#;
    let server = engine(move |_| {
        let (first, second) = event.split_at(20);
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        let bytes = [CHUNKED, chunk(first).as_bytes(), chunk(&format!("{second}\r\n\n{event}\n")).as_bytes()].concat();
        Reply::Stall(bytes)
    });
    let client = server.client();
    let labels = ["a=b".to_owned()];
    let mut events = std::pin::pin!(client.events(&labels));
    for _ in 0..2 {
        let event = events.next().await.unwrap().unwrap();
        assert_eq!(event.action.as_deref(), Some("start"));
        assert_eq!(event.actor.unwrap().id.as_deref(), Some("1"));
    }
    let asked = server.requests().pop().unwrap();
    assert_eq!(
        asked,
        "GET /v1.41/events?filters=%7b%22label%22:%5b%22a%3db%22%5d%2c%22type%22:%5b%22container%22%5d%7d"
    );
}

#[tokio::test]
async fn names_are_no_part_of_the_path() {
    let server = engine(|_| json(404, r#"{"message": "no"}"#));
    let client = server.client();
    assert_eq!(client.network("a/../b?c").await.unwrap(), None);
    assert_eq!(client.image("r.example:5000/a/b@sha256:0").await.unwrap(), None);
    let requests = server.requests();
    assert_eq!(
        requests[1..],
        ["GET /v1.41/networks/a%2f..%2fb%3fc", "GET /v1.41/images/r.example:5000/a/b@sha256:0/json"]
    );
}
