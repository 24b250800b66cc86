//! The contract as a client sees it: the stack's components on a real Redis, and a client that speaks the protocol over a
//! socket. It publishes its command first and subscribes to the reply afterwards, as the web gateway does.

use std::sync::Arc;
use std::time::Duration;

use sense_orchestrator::bus::redis::RedisBus;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::support::engine::Script;
use crate::support::redis::{Answer, RawClient, RedisServer, RunningBus};
use crate::support::reference::{Stack, reply_channel};

struct Daemon {
    stack: Stack<RedisBus>,
    server: RedisServer,
    _bus: RunningBus,
}

impl Daemon {
    async fn start() -> Option<Self> {
        let server = RedisServer::start().await?;
        let bus = server.bus();
        let stack = Stack::on(Arc::clone(&bus.bus), &[("WEATHER_LOCATION", "Berlin")]);
        stack.start_seeder();
        stack.start_dispatcher();
        stack.start_monitor();
        let daemon = Self { stack, server, _bus: bus };
        daemon.listening().await;
        Some(daemon)
    }

    /// Waits until the daemon has subscribed.
    async fn listening(&self) {
        let mut client = self.server.client().await;
        eventually("the daemon listens", async || {
            let Answer::List(counts) = client.call(&["PUBSUB", "NUMSUB", "cmd:orchestrator", "config:changed"]).await
            else {
                return false;
            };
            counts[1] != Answer::Number(0) && counts[3] != Answer::Number(0)
        })
        .await;
    }

    async fn call(&self, action: &str, params: Value) -> Value {
        let mut client = self.server.client().await;
        call(&mut client, "fresh-1", action, params).await
    }
}

async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !check().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Publishes a command, then subscribes to its reply and waits for it as long as the gateway does.
async fn call(client: &mut RawClient, id: &str, action: &str, params: Value) -> Value {
    let command = json!({"action": action, "request_id": id, "params": params, "timestamp": 1.5}).to_string();
    assert_eq!(client.call(&["PUBLISH", "cmd:orchestrator", &command]).await.number(), 1, "nobody listens");
    sleep(Duration::from_millis(20)).await;
    client.call(&["SUBSCRIBE", &reply_channel(id)]).await;
    let message =
        timeout(Duration::from_secs(5), client.answer()).await.unwrap_or_else(|_| panic!("no reply to {action}"));
    let Answer::List(parts) = message else { panic!("no message: {message:?}") };
    client.call(&["UNSUBSCRIBE"]).await;
    serde_json::from_str(&parts[2].clone().text().unwrap()).unwrap()
}

async fn config(client: &mut RawClient, section: &str) -> Option<Value> {
    let text = client.call(&["GET", &format!("config:{section}")]).await.text()?;
    Some(serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn every_action_is_answered_though_the_client_subscribes_late() {
    let Some(daemon) = Daemon::start().await else { return };
    let stack = &daemon.stack;
    for service in ["source-aranet4", "source-camera", "source-weather"] {
        stack.script(service, Script::exits(0, Duration::from_millis(300)));
    }
    let mut client = daemon.server.client().await;
    let mut sources = daemon.server.client().await;
    let devices = json!([{"name": "Aranet4", "mac": "AA:BB:CC:DD:EE:FF", "rssi": -60}]);
    let cameras = json!([{"name": "Front", "host": "10.0.0.5", "port": 554}]);
    let source = tokio::spawn({
        let (devices, cameras) = (devices.to_string(), cameras.to_string());
        async move {
            // The containers' part: write results, again and again, so that each run finds its own.
            loop {
                sources.call(&["SET", "scan:co2", &devices, "EX", "60"]).await;
                sources.call(&["SET", "scan:network_camera", &cameras, "EX", "60"]).await;
                sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let mut listener = daemon.server.client().await;
    listener.call(&["SUBSCRIBE", "cmd:network_camera"]).await;
    // What is there may be restarted, also where commands may not start it.
    stack.runner.start(&"web-gateway".parse().unwrap()).await.unwrap();

    for (id, action, params, expected) in [
        ("a1", "start_camera", json!({}), Some(json!({}))),
        ("a2", "stop_camera", json!({}), Some(json!({}))),
        ("a3", "scan_aranet4", json!({}), Some(json!({"devices": devices}))),
        ("a4", "discover_cameras", json!({}), Some(json!({"cameras": cameras}))),
        ("a5", "restart_service", json!({"service": "web-gateway"}), Some(json!({}))),
        ("a6", "start_service", json!({"service": "source-weather"}), Some(json!({}))),
        ("a7", "stop_service", json!({"service": "source-weather"}), Some(json!({}))),
        ("a8", "trigger", json!({"service": "source-weather"}), None),
        ("a9", "status", json!({}), None),
    ] {
        let reply = call(&mut client, id, action, params).await;
        assert_eq!(reply.as_object().unwrap().len(), 4, "{reply}");
        assert_eq!(
            (&reply["request_id"], &reply["status"], &reply["error"]),
            (&json!(id), &json!("ok"), &Value::Null),
            "{reply}"
        );
        if let Some(expected) = expected {
            assert_eq!(reply["data"], expected, "{action}");
        }
        let key = client.call(&["GET", &reply_channel(id)]).await.text().expect("the reply is kept");
        assert_eq!(serde_json::from_str::<Value>(&key).unwrap(), reply);
        let expires = client.call(&["TTL", &reply_channel(id)]).await.number();
        assert!((50..=60).contains(&expires), "{expires}");
    }
    let Answer::List(told) = listener.answer().await else { panic!("no message to the camera") };
    let told: Value = serde_json::from_str(&told[2].clone().text().unwrap()).unwrap();
    assert_eq!(told["action"], "stop");
    source.abort();
}

#[tokio::test]
async fn a_redis_that_was_killed_and_comes_back_empty_is_as_it_was_within_two_seconds() {
    let Some(mut daemon) = Daemon::start().await else { return };
    let mut client = daemon.server.client().await;
    eventually("the first seed", async || config(&mut client, "schedule").await.is_some()).await;
    let (weather, schedule) = (json!({"location": "Oslo"}), json!({"weather": 900, "pihole": 15}));
    client.call(&["SET", "config:weather", &weather.to_string()]).await;
    client.call(&["PUBLISH", "config:changed", r#"{"section": "weather"}"#]).await;
    client.call(&["SET", "config:schedule", &schedule.to_string()]).await;
    client.call(&["PUBLISH", "config:changed", r#"{"section": "schedule"}"#]).await;
    eventually("the schedule is applied", async || daemon.stack.every("source-weather") == Some(900)).await;

    daemon.server.kill();
    sleep(Duration::from_millis(1500)).await;
    daemon.server.restart().await;
    let back = Instant::now();
    let mut client = daemon.server.client().await;
    eventually("the sections are back", async || {
        config(&mut client, "weather").await == Some(weather.clone())
            && config(&mut client, "schedule").await == Some(schedule.clone())
    })
    .await;
    daemon.listening().await;
    let reply = daemon.call("stop_camera", json!({})).await;
    assert_eq!(reply["status"], "ok");
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    assert_eq!(daemon.stack.every("source-weather"), Some(900), "the schedule went on");
    eventually("the own status is back", async || client.call(&["EXISTS", "status:orchestrator"]).await.number() == 1)
        .await;
}

#[tokio::test]
async fn a_command_is_answered_within_50_ms_while_a_scan_goes_on() {
    let Some(daemon) = Daemon::start().await else { return };
    daemon.stack.script("source-aranet4", Script::exits(0, Duration::from_secs(20)));
    let mut client = daemon.server.client().await;
    let scan = json!({"action": "scan_aranet4", "request_id": "scan"}).to_string();
    client.call(&["PUBLISH", "cmd:orchestrator", &scan]).await;
    sleep(Duration::from_millis(200)).await;
    client.send(&["SUBSCRIBE", &reply_channel("stop")]).await;
    client.answer().await;
    let mut publisher = daemon.server.client().await;
    let asked = Instant::now();
    let stop = json!({"action": "stop_camera", "request_id": "stop"}).to_string();
    publisher.call(&["PUBLISH", "cmd:orchestrator", &stop]).await;
    client.answer().await;
    assert!(asked.elapsed() < Duration::from_millis(50), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn hostile_messages_on_every_channel_are_survived_and_answered() {
    let Some(daemon) = Daemon::start().await else { return };
    let mut client = daemon.server.client().await;
    let large = "x".repeat(1 << 20);
    let mut ids = Vec::new();
    for n in 0..10_000 {
        let id = format!("h{n}");
        let text = match n % 5 {
            _ if n % 500 == 0 => {
                format!(r#"{{"action": "trigger", "params": {{"service": "{large}"}}, "request_id": "{id}"}}"#)
            }
            0 => format!(r#"{{"request_id": "{id}", "action": "trigger", "params": {}"#, "[".repeat(2000)),
            1 => json!({"request_id": id, "action": "trigger", "params": {"service": "../*\u{0}"}}).to_string(),
            2 => json!({"request_id": id, "action": "x".repeat(10_000)}).to_string(),
            3 => json!({"request_id": id, "action": ["trigger"], "params": 5}).to_string(),
            _ => format!(r#"not JSON "request_id": "{id}" \"#),
        };
        for channel in ["cmd:orchestrator", "stream:ended", "config:changed"] {
            client.write(&[b"PUBLISH", channel.as_bytes(), text.as_bytes()]).await;
        }
        ids.push(id);
        if n % 50 == 49 {
            for _ in 0..150 {
                client.answer().await;
            }
        }
        // Now and then, for a reply is kept for 60 s only.
        if n % 1_000 == 999 {
            for id in ids.drain(..) {
                eventually(&id, async || client.call(&["EXISTS", &reply_channel(&id)]).await.number() == 1).await;
                let reply = client.call(&["GET", &reply_channel(&id)]).await.text().unwrap();
                let reply: Value = serde_json::from_str(&reply).unwrap();
                assert_eq!((&reply["request_id"], &reply["status"]), (&json!(id), &json!("error")));
            }
        }
    }
    assert!(ids.is_empty());
    assert_eq!(daemon.stack.engine.transcript(), "");
    assert_eq!(daemon.call("stop_camera", json!({})).await["status"], "ok");
}
