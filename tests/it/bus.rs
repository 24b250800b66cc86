//! The Bus port's contract, on the fake and on a real Redis.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sense_orchestrator::bus::redis::{Address, RedisBus};
use sense_orchestrator::bus::{Bus, BusError, Event, Subscription, Unreadable, Value, has_readings_since};
use sense_orchestrator::clock::Timestamp;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::support::bounds::bounds;
use crate::support::bus::FakeBus;
use crate::support::redis::{Answer, RedisServer, RunningBus};

/// A bus whose server can be broken.
trait Server {
    type Bus: Bus;
    fn bus(&self) -> &Self::Bus;
    async fn go_down(&mut self);
    async fn come_back_empty(&mut self);
    /// The values of a list, the newest first.
    async fn list(&self, key: &str) -> Vec<String>;
}

impl Server for Arc<FakeBus> {
    type Bus = FakeBus;

    fn bus(&self) -> &FakeBus {
        self
    }

    async fn go_down(&mut self) {
        FakeBus::go_down(self);
    }

    async fn come_back_empty(&mut self) {
        self.forget();
        self.come_back();
    }

    async fn list(&self, key: &str) -> Vec<String> {
        self.values(key)
    }
}

struct Real {
    server: RedisServer,
    running: RunningBus,
}

impl Real {
    async fn start() -> Option<Self> {
        let server = RedisServer::start().await?;
        let running = server.bus();
        Some(Self { server, running })
    }
}

impl Server for Real {
    type Bus = RedisBus;

    fn bus(&self) -> &RedisBus {
        &self.running.bus
    }

    async fn go_down(&mut self) {
        self.server.kill();
        let mut connection = self.bus().connection();
        within(2, connection.wait_for(|connection| !connection.is_up())).await.unwrap();
    }

    async fn come_back_empty(&mut self) {
        self.server.restart().await;
    }

    async fn list(&self, key: &str) -> Vec<String> {
        match self.server.client().await.call(&["LRANGE", key, "0", "-1"]).await {
            Answer::List(values) => values.into_iter().filter_map(Answer::text).collect(),
            other => panic!("not a list: {other:?}"),
        }
    }
}

async fn within<T>(seconds: u64, future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(seconds), future).await.expect("in time")
}

async fn up(bus: &impl Bus) {
    let mut connection = bus.connection();
    within(5, connection.wait_for(sense_orchestrator::bus::Connection::is_up)).await.unwrap();
}

async fn live(subscription: &mut Subscription) {
    assert_eq!(within(5, subscription.next()).await, Some(Event::Gap { lost: None }));
}

async fn payload(subscription: &mut Subscription) -> (String, String) {
    match within(5, subscription.next()).await {
        Some(Event::Message(message)) => {
            (message.channel.to_string(), String::from_utf8(message.payload.to_vec()).unwrap())
        }
        other => panic!("no message but {other:?}"),
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Makes a test of each function on both servers.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod fake {
            use super::*;
            $(#[tokio::test] async fn $name() { super::$name(FakeBus::new()).await; })*
        }
        mod real {
            use super::*;
            $(#[tokio::test] async fn $name() {
                let Some(server) = Real::start().await else { return };
                up(server.bus()).await;
                super::$name(server).await;
            })*
        }
    };
}

on_both!(
    keys_are_set_read_and_deleted,
    a_key_is_set_once_when_absent,
    keys_expire,
    a_list_keeps_its_newest_values,
    messages_reach_who_subscribed,
    who_listens_by_exactly_this_channel_is_counted,
    a_value_that_is_too_large_or_no_text_is_said_to_be_so,
    a_subscription_outlives_the_connection,
    calls_fail_at_once_while_redis_is_away_and_work_again_after,
    a_source_reported_when_its_status_is_newer_than_the_run,
    a_reading_is_looked_for_on_all_pages_of_keys_and_below_exactly_its_prefix,
);

async fn keys_are_set_read_and_deleted(server: impl Server) {
    let bus = server.bus();
    bus.set("a", "1", None).await.unwrap();
    bus.set("ü\0", "{\"x\": \"ä\"}", None).await.unwrap();
    let keys = names(&["a", "none", "ü\0"]);
    assert_eq!(bus.get(&keys).await.unwrap(), [Some("1".into()), None, Some("{\"x\": \"ä\"}".into())]);
    assert_eq!(bus.get(&names(&["a"])).await.unwrap(), [Some("1".into())]);
    assert_eq!(bus.get(&names(&["none"])).await.unwrap(), [None]);
    assert_eq!(bus.get(&[]).await.unwrap(), Vec::<Option<String>>::new());
    bus.delete(&keys).await.unwrap();
    bus.delete(&[]).await.unwrap();
    assert_eq!(bus.get(&keys).await.unwrap(), [None, None, None]);
    bus.heartbeat().await.unwrap();
}

async fn a_key_is_set_once_when_absent(server: impl Server) {
    let bus = server.bus();
    assert!(bus.set_absent("a", "first", None).await.unwrap());
    assert!(!bus.set_absent("a", "second", None).await.unwrap());
    assert!(bus.set_absent("lease", "mine", Some(Duration::from_mins(1))).await.unwrap());
    assert!(!bus.set_absent("lease", "yours", Some(Duration::from_mins(1))).await.unwrap());
    assert_eq!(bus.renew("lease", Duration::from_mins(1)).await.unwrap().as_deref(), Some("mine"));
    assert_eq!(bus.renew("none", Duration::from_mins(1)).await.unwrap(), None);
    assert_eq!((bus.increment("token").await.unwrap(), bus.increment("token").await.unwrap()), (1, 2));
    assert_eq!(bus.get(&names(&["a"])).await.unwrap(), [Some("first".into())]);
}

async fn keys_expire(server: impl Server) {
    let bus = server.bus();
    bus.set("a", "1", Some(Duration::from_millis(80))).await.unwrap();
    assert_eq!(bus.get(&names(&["a"])).await.unwrap(), [Some("1".into())]);
    tokio::time::sleep(Duration::from_millis(160)).await;
    assert_eq!(bus.get(&names(&["a"])).await.unwrap(), [None]);
}

async fn a_list_keeps_its_newest_values(server: impl Server) {
    let bus = server.bus();
    for value in ["1", "2", "3"] {
        bus.push("list", value, 2).await.unwrap();
    }
    assert_eq!(server.list("list").await, ["3", "2"]);
    assert_eq!(bus.get(&names(&["list"])).await.unwrap(), [None], "a list is no text");
    bus.set("text", "x", None).await.unwrap();
    assert!(matches!(bus.push("text", "1", 2).await, Err(BusError::Refused { call: "LPUSH", .. })));
}

async fn messages_reach_who_subscribed(server: impl Server) {
    let bus = server.bus();
    assert_eq!(bus.publish("a", "nobody").await.unwrap(), 0);
    let mut one = bus.subscribe(&names(&["a", "b"]));
    live(&mut one).await;
    let mut other = bus.subscribe(&names(&["b"]));
    live(&mut other).await;
    assert_eq!(bus.publish("a", "1").await.unwrap(), 1);
    assert!(bus.publish("b", "2").await.unwrap() >= 1);
    assert_eq!(payload(&mut one).await, ("a".into(), "1".into()));
    assert_eq!(payload(&mut one).await, ("b".into(), "2".into()));
    assert_eq!(payload(&mut other).await, ("b".into(), "2".into()));
}

async fn who_listens_by_exactly_this_channel_is_counted(server: impl Server) {
    let bus = server.bus();
    assert_eq!(bus.subscribers("a").await.unwrap(), 0);
    let mut subscription = bus.subscribe(&names(&["a"]));
    live(&mut subscription).await;
    assert_eq!((bus.subscribers("a").await.unwrap(), bus.subscribers("b").await.unwrap()), (1, 0));
    drop(subscription);
}

async fn a_value_that_is_too_large_or_no_text_is_said_to_be_so(server: impl Server) {
    let bus = server.bus();
    let fits = "x".repeat(bounds().value);
    for n in 0..5 {
        bus.set(&format!("fits{n}"), &fits, None).await.unwrap();
    }
    bus.set("large", &"x".repeat(10 << 20), None).await.unwrap();
    bus.push("list", "1", 2).await.unwrap();
    let keys = names(&["fits0", "large", "fits1", "none", "fits2", "list", "fits3", "fits4"]);
    let [large, list] =
        [Unreadable::TooLong { bytes: 10 << 20, most: bounds().value }, Unreadable::NotText].map(Value::Unreadable);
    let fits = || Value::Text(fits.clone());
    let expected = [fits(), large, fits(), Value::Absent, fits(), list, fits(), fits()];
    assert!(bus.read(&keys).await.unwrap() == expected, "what was read differs");
    assert_eq!(*bus.refusals().borrow(), ["redis holds a value of another type at list"]);
    bus.delete(&names(&["list"])).await.unwrap();
    assert!(bus.refusals().borrow().is_empty());
    assert_eq!(bus.read(&names(&["list"])).await.unwrap(), [Value::Absent]);
    assert!(bus.connection().borrow().is_up());
}

async fn a_subscription_outlives_the_connection(mut server: impl Server) {
    let mut subscription = server.bus().subscribe(&names(&["a"]));
    live(&mut subscription).await;
    for round in 0..3 {
        server.go_down().await;
        server.come_back_empty().await;
        live(&mut subscription).await;
        assert_eq!(server.bus().publish("a", &round.to_string()).await.unwrap(), 1);
        assert_eq!(payload(&mut subscription).await.1, round.to_string());
    }
}

async fn calls_fail_at_once_while_redis_is_away_and_work_again_after(mut server: impl Server) {
    server.bus().set("a", "1", None).await.unwrap();
    server.go_down().await;
    let started = Instant::now();
    assert!(matches!(server.bus().set("ghost", "1", None).await, Err(BusError::Unavailable { .. })));
    assert!(matches!(server.bus().get(&names(&["a"])).await, Err(BusError::Unavailable { .. })));
    assert!(matches!(server.bus().publish("a", "1").await, Err(BusError::Unavailable { .. })));
    assert!(matches!(server.bus().heartbeat().await, Err(BusError::Unavailable { .. })));
    assert!(server.bus().get(&[]).await.is_ok() && server.bus().delete(&[]).await.is_ok(), "nothing is asked of Redis");
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    server.come_back_empty().await;
    up(server.bus()).await;
    assert_eq!(server.bus().get(&names(&["a", "ghost"])).await.unwrap(), [None, None], "it came back empty");
}

async fn a_source_reported_when_its_status_is_newer_than_the_run(server: impl Server) {
    let bus = server.bus();
    let (source, started) = ("x".parse().unwrap(), Timestamp(1000.0));
    let reported = async || {
        let status = sense_orchestrator::bus::source_status(bus, &source).await.unwrap();
        status.is_some_and(|status| status.succeeded_since(started))
    };
    assert!(!reported().await, "there is no status");
    for (last_success, expected) in
        [(json!(999.9), false), (json!(null), false), (json!("1001"), false), (json!(1000.5), true)]
    {
        let status = json!({"source_id": "x", "last_success": last_success});
        bus.set("status:x", &status.to_string(), None).await.unwrap();
        assert_eq!(reported().await, expected, "{status}");
    }
}

async fn a_reading_is_looked_for_on_all_pages_of_keys_and_below_exactly_its_prefix(server: impl Server) {
    let bus = server.bus();
    let source = "x".parse().unwrap();
    let fresh = async |moment| has_readings_since(bus, &source, Timestamp(moment)).await.unwrap();
    assert_eq!(fresh(0.0).await, Some(false), "there is none");
    for n in 0..500 {
        bus.set(&format!("other:{n}"), r#"{"timestamp": 2000}"#, None).await.unwrap();
    }
    for (key, value) in [
        ("source:xy:a", r#"{"timestamp": 2000}"#),
        ("source:x", r#"{"timestamp": 2000}"#),
        ("source:x:text", "no JSON"),
        ("source:x:none", r#"{"value": 1}"#),
        ("source:x:old", r#"{"value": 1, "timestamp": 999.5}"#),
    ] {
        bus.set(key, value, None).await.unwrap();
    }
    bus.push("source:x:list", r#"{"timestamp": 2000}"#, 5).await.unwrap();
    assert_eq!(fresh(1000.0).await, Some(false));
    assert_eq!(fresh(999.0).await, Some(true));
    bus.set("source:x:new", r#"{"value": 1, "timestamp": 1000}"#, None).await.unwrap();
    assert_eq!(fresh(1000.0).await, Some(true));
    // A prefix is a text, also where it has a pattern's characters.
    for key in ["p[a]*:1", "pa:1", "p[a]b:1"] {
        bus.set(key, "1", None).await.unwrap();
    }
    let (mut found, mut cursor) = (BTreeSet::new(), Some(0));
    while let Some(at) = cursor {
        let page = bus.keys("p[a]*", at).await.unwrap();
        found.extend(page.keys);
        cursor = page.next;
    }
    assert_eq!(found, BTreeSet::from(["p[a]*:1".to_owned()]));
}

#[tokio::test]
async fn a_killed_subscriber_connection_is_replaced() {
    let Some(server) = Real::start().await else { return };
    let mut subscription = server.bus().subscribe(&names(&["a"]));
    live(&mut subscription).await;
    let mut client = server.server.client().await;
    assert!(client.call(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.number() >= 1);
    live(&mut subscription).await;
    assert_eq!(client.call(&["PUBLISH", "a", "1"]).await.number(), 1);
    assert_eq!(payload(&mut subscription).await.1, "1");
}

#[tokio::test]
async fn a_frozen_redis_is_noticed_and_a_call_that_failed_is_not_sent_on_the_next_connection() {
    let Some(server) = Real::start().await else { return };
    up(server.bus()).await;
    let mut subscription = server.bus().subscribe(&names(&["a"]));
    live(&mut subscription).await;
    server.server.freeze(true);
    let started = Instant::now();
    assert!(matches!(server.bus().heartbeat().await, Err(BusError::Unavailable { .. })));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let mut connection = server.bus().connection();
    within(5, connection.wait_for(|connection| !connection.is_up())).await.unwrap();
    assert!(server.bus().set("ghost", "1", None).await.is_err());
    server.server.freeze(false);
    live(&mut subscription).await;
    assert_eq!(server.bus().get(&names(&["ghost"])).await.unwrap(), [None]);
}

#[tokio::test]
async fn redis_may_come_later_than_we_do() {
    let Some(mut server) = RedisServer::start().await else { return };
    server.kill();
    let running = server.bus();
    let mut real = Real { server, running };
    let mut subscription = real.bus().subscribe(&names(&["a"]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    real.server.restart().await;
    within(2, live(&mut subscription)).await;
    assert_eq!(real.bus().publish("a", "1").await.unwrap(), 1);
}

#[tokio::test]
async fn a_server_without_resp3_is_spoken_to_in_resp2() {
    let Some(server) = RedisServer::start_with(&["--rename-command", "HELLO", ""]).await else { return };
    let running = server.bus();
    let mut real = Real { server, running };
    up(real.bus()).await;
    let mut subscription = real.bus().subscribe(&names(&["a"]));
    live(&mut subscription).await;
    real.bus().heartbeat().await.unwrap();
    assert_eq!(real.bus().publish("a", "1").await.unwrap(), 1);
    assert_eq!(payload(&mut subscription).await.1, "1");
    real.go_down().await;
    real.come_back_empty().await;
    live(&mut subscription).await;
}

#[tokio::test]
async fn user_password_and_database_of_the_url_are_used() {
    let Some(server) =
        RedisServer::start_with(&["--user", "sense", "on", ">p@ss/w:1", "~*", "&*", "+@all", "--requirepass", "other"])
            .await
    else {
        return;
    };
    let address = Address {
        username: Some("sense".into()),
        password: Some("p@ss/w:1".into()),
        database: Some(3),
        ..server.address()
    };
    let real = Real { running: RunningBus::on(&address), server };
    up(real.bus()).await;
    real.bus().set("a", "1", None).await.unwrap();
    let mut client = real.server.client().await;
    client.call(&["AUTH", "other"]).await;
    client.call(&["SELECT", "3"]).await;
    assert_eq!(client.call(&["GET", "a"]).await.text().as_deref(), Some("1"));
}

#[tokio::test]
async fn a_wrong_password_is_told_and_tried_again() {
    let Some(server) = RedisServer::start_with(&["--requirepass", "right"]).await else { return };
    let address = Address { password: Some("wrong".into()), ..server.address() };
    let real = Real { running: RunningBus::on(&address), server };
    let mut connection = real.bus().connection();
    let told = |connection: &sense_orchestrator::bus::Connection| format!("{connection:?}").contains("WRONGPASS");
    within(5, connection.wait_for(told)).await.unwrap();
    let mut client = real.server.client().await;
    client.call(&["AUTH", "right"]).await;
    client.call(&["CONFIG", "SET", "requirepass", "wrong"]).await;
    up(real.bus()).await;
}

#[tokio::test]
async fn ten_thousand_messages_at_once_all_arrive() {
    let Some(server) = Real::start().await else { return };
    let mut subscription = server.bus().subscribe(&names(&["a"]));
    live(&mut subscription).await;
    let mut client = server.server.client().await;
    let body = "x".repeat(200);
    for n in 0..10_000 {
        client.write(&[b"PUBLISH", b"a", format!("{n} {body}").as_bytes()]).await;
    }
    let publisher = tokio::spawn(async move {
        for _ in 0..10_000 {
            client.answer().await;
        }
    });
    for n in 0..10_000 {
        assert_eq!(payload(&mut subscription).await.1, format!("{n} {body}"));
    }
    publisher.await.unwrap();
}

#[tokio::test]
async fn a_closed_bus_ends_its_subscriptions() {
    let Some(mut server) = Real::start().await else { return };
    let mut subscription = server.bus().subscribe(&names(&["a"]));
    live(&mut subscription).await;
    within(5, server.running.close()).await;
    assert_eq!(within(5, subscription.next()).await, None);
}
