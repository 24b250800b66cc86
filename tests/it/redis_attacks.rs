//! A server in Redis' place that is broken or means harm.

use std::time::Duration;

use sense_orchestrator::bus::{Bus, BusError, Connection, Unreadable, Value};
use tokio::time::timeout;

use crate::support::bounds::bounds;
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
    let because =
        |connection: &Connection| matches!(connection, Connection::Down { reason, .. } if reason.contains(words));
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

#[tokio::test]
async fn a_value_of_10_mb_is_not_fetched_and_the_connection_goes_on() {
    let Some(server) = RedisServer::start().await else { return };
    let running = server.bus();
    up(&running).await;
    running.bus.set("config:schedule", &"x".repeat(10 << 20), None).await.unwrap();
    let found = running.bus.read(&["config:schedule".into()]).await.unwrap();
    assert_eq!(found, [Value::Unreadable(Unreadable::TooLong { bytes: 10 << 20, most: bounds().value })]);
    let mut client = server.client().await;
    let stats = client.call(&["INFO", "stats"]).await.text().unwrap();
    let sent = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:")).unwrap();
    assert!(sent.parse::<u64>().unwrap() < 1 << 20, "redis sent {sent} bytes");
    assert_eq!(*running.bus.connection().borrow(), Connection::Up { generation: 1 });
}

#[tokio::test]
async fn a_redis_that_refuses_writes_or_has_other_types_is_said_once_and_shown_while_it_lasts() {
    let Some(server) = RedisServer::start().await else { return };
    let (log, running) = (Log::capture(), server.bus());
    up(&running).await;
    let bus = &running.bus;
    let mut client = server.client().await;
    let refusals = bus.refusals();
    client.call(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for _ in 0..3 {
        assert!(matches!(bus.set("a", "1", None).await, Err(BusError::Refused { .. })));
        assert!(matches!(bus.push("b", "1", 5).await, Err(BusError::Refused { .. })));
    }
    assert_eq!(refusals.borrow().len(), 1, "{:?}", *refusals.borrow());
    assert!(refusals.borrow()[0].starts_with("redis refuses writes: OOM"), "{:?}", *refusals.borrow());
    assert_eq!(log.lines("redis refuses").len(), 1);
    client.call(&["CONFIG", "SET", "maxmemory", "0"]).await;
    bus.set("a", "1", None).await.unwrap();
    assert!(refusals.borrow().is_empty());
    assert_eq!(log.lines("redis refuses nothing any more").len(), 1);

    client.call(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert!(bus.set("a", "1", None).await.is_err());
    assert!(refusals.borrow()[0].contains("READONLY"), "{:?}", *refusals.borrow());
    client.call(&["REPLICAOF", "NO", "ONE"]).await;
    bus.set("a", "1", None).await.unwrap();

    client.call(&["RPUSH", "config:x", "1"]).await;
    let found = bus.read(&["config:x".into()]).await.unwrap();
    assert_eq!(found, [Value::Unreadable(Unreadable::NotText)]);
    assert_eq!(*refusals.borrow(), ["redis holds a value of another type at config:x"]);
}

#[tokio::test]
async fn who_listens_by_a_pattern_does_not_count_as_who_waits_for_a_reply() {
    let Some(server) = RedisServer::start().await else { return };
    let running = server.bus();
    up(&running).await;
    let mut client = server.client().await;
    client.call(&["PSUBSCRIBE", "*"]).await;
    assert_eq!(running.bus.publish("a", "1").await.unwrap(), 0);
    let mut other = server.client().await;
    other.call(&["SUBSCRIBE", "a"]).await;
    assert_eq!(running.bus.publish("a", "1").await.unwrap(), 1);
}

#[tokio::test]
async fn a_user_who_may_publish_and_not_count_publishes() {
    let acl = ["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-pubsub", "-multi"];
    let Some(server) = RedisServer::start_with(&acl).await else { return };
    let running = server.bus();
    up(&running).await;
    let mut other = server.client().await;
    other.call(&["SUBSCRIBE", "a"]).await;
    assert_eq!(running.bus.publish("a", "1").await.unwrap(), 1);
    assert!(running.bus.refusals().borrow().is_empty());
}

#[tokio::test]
async fn connections_that_are_cut_again_and_again_do_not_fill_the_log() {
    let log = Log::capture();
    // It closes each connection after the login of the second.
    let server = ScriptedRedis::start(|request| (request[0] == "STRLEN").then(|| b"!\r\n".to_vec()));
    let running = RunningBus::on(&server.address());
    for _ in 0..40 {
        up(&running).await;
        let _ = running.bus.get(&["a".into()]).await;
        within(5, running.bus.connection().wait_for(|connection| !connection.is_up())).await.unwrap();
    }
    let lines = log.lines("redis available").len() + log.lines("redis unavailable").len();
    assert!((10..=40).contains(&lines), "{lines} lines");
}
