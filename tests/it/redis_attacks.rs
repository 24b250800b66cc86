//! A server in Redis' place that is broken or means harm.

use std::time::Duration;

use sense_orchestrator::bus::{Bus, BusError, Connection};
use tokio::time::timeout;

use crate::support::log::Log;
use crate::support::redis::{RedisServer, RunningBus};
use crate::support::scripted_redis::ScriptedRedis;

async fn within<T>(seconds: u64, future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(seconds), future).await.expect("in time")
}

async fn up(running: &RunningBus) {
    within(5, running.bus.connection().wait_for(Connection::is_up)).await.unwrap();
}

/// Waits until the connection is down for a reason that has these words.
async fn down_because(running: &RunningBus, words: &str) {
    let mut connection = running.bus.connection();
    let because = |connection: &Connection| matches!(connection, Connection::Down { reason } if reason.contains(words));
    let said = timeout(Duration::from_secs(5), connection.wait_for(because)).await.is_ok();
    assert!(said, "{:?} does not say {words:?}", running.bus.connection().borrow());
}

#[tokio::test]
async fn a_password_of_any_text_logs_in_and_is_one_argument() {
    for password in ["two words", "quo\"te'd", "x\r\nCONFIG SET maxmemory 1\r\n", "back\\slash $ \t é", "default on"] {
        let Some(server) = RedisServer::start().await else { return };
        let mut client = server.client().await;
        client.call(&["CONFIG", "SET", "requirepass", password]).await;
        let mut address = server.address();
        address.password = Some(password.into());
        let running = RunningBus::on(&address);
        up(&running).await;
        running.bus.set("a", "1", None).await.unwrap();
    }
}

#[tokio::test]
async fn a_password_goes_to_a_server_as_one_word_of_a_list() {
    let server = ScriptedRedis::start(|_| None);
    let mut address = server.address();
    (address.username, address.password) = (Some("a b".into()), Some("c d\r\nFLUSHALL".into()));
    let running = RunningBus::on(&address);
    up(&running).await;
    let logins: Vec<_> = server.requests().into_iter().filter(|words| words.len() > 2).collect();
    assert!(logins.len() >= 2, "both connections log in");
    for login in logins {
        assert_eq!(login, ["AUTH", "a b", "c d\r\nFLUSHALL"]);
    }
}

#[tokio::test]
async fn nothing_that_a_server_says_of_a_login_is_shown() {
    for words in [
        "ERR unknown command 'AUTH', with args beginning with: 's3cret'",
        "ERR unknown command `HELLO`, with args beginning with: `3` `AUTH` `default` `s3cret`",
        "WRONGPASS s3cret",
        "s3cret",
        "NOAUTH\ts3cret",
    ] {
        let log = Log::capture();
        let server =
            ScriptedRedis::start(move |request| (request[0] == "AUTH").then(|| format!("-{words}\r\n").into_bytes()));
        let mut address = server.address();
        address.password = Some("s3cret".into());
        let running = RunningBus::on(&address);
        down_because(&running, "redis refused AUTH").await;
        let error = running.bus.set("a", "1", None).await.unwrap_err();
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        assert!(!format!("{:?}", running.bus.connection().borrow()).contains("s3cret"));
        assert_eq!(log.lines("redis unavailable").len(), 1, "{}", log.text());
        assert!(!log.text().contains("s3cret"), "{}", log.text());
    }
}

#[tokio::test]
async fn nested_answers_before_and_after_the_login_end_the_connection_and_nothing_else() {
    for piece in ["*1\r\n", ">1\r\n", "%1\r\n", "~1\r\n", "*2\r\n"] {
        for call in ["AUTH", "PING", "INFO", "CLIENT", "SUBSCRIBE", "MGET"] {
            let nested = piece.repeat(5000).into_bytes();
            let server = ScriptedRedis::start(move |request| (request[0] == call).then(|| nested.clone()));
            let mut address = server.address();
            address.password = Some("x".into());
            let running = RunningBus::on(&address);
            let _subscription = running.bus.subscribe(&["a".into()]);
            let reason = if piece.starts_with('*') && !["AUTH", "PING", "SUBSCRIBE"].contains(&call) {
                "nested"
            } else {
                "what answers is not redis"
            };
            let asking = async {
                if call == "MGET" {
                    up(&running).await;
                    let error = running.bus.get(&["a".into()]).await.unwrap_err();
                    assert!(matches!(error, BusError::Unavailable { .. }), "{error:?}");
                }
            };
            tokio::join!(down_because(&running, reason), asking);
        }
    }
}

#[tokio::test]
async fn an_answer_of_300_mb_is_refused_before_it_is_read() {
    const SIZE: usize = 300 << 20;
    let server = ScriptedRedis::start(|request| {
        (request[0] == "MGET").then(|| {
            let mut answer = format!("*1\r\n${SIZE}\r\n").into_bytes();
            answer.resize(SIZE, b'x');
            answer
        })
    });
    let running = RunningBus::on(&server.address());
    up(&running).await;
    let asking = async {
        let error = within(5, running.bus.get(&["a".into()])).await.unwrap_err();
        assert!(matches!(error, BusError::Unavailable { .. }), "{error:?}");
    };
    tokio::join!(down_because(&running, "more than"), asking);
    assert!(server.written() < 2 << 20, "{} bytes were taken", server.written());
    up(&running).await;
}

#[tokio::test]
async fn a_server_that_is_none_is_said_so_and_left_alone_for_a_while() {
    let log = Log::capture();
    let server = ScriptedRedis::start(|_| Some(b"HTTP/1.1 400 Bad Request\x1b[2J\r\n\r\n".to_vec()));
    let running = RunningBus::on(&server.address());
    down_because(&running, "what answers is not redis").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(server.requests().len() < 5, "{}", server.requests().len());
    assert_eq!(log.lines("redis unavailable").len(), 1);
    assert!(!log.text().contains("Bad Request"));
}
