//! Commands over Redis: each gets exactly one reply, of the contract's form.

use std::time::Duration;

use sense_orchestrator::bus::{Bus, Event};
use sense_orchestrator::clock::Timestamp;
use sense_orchestrator::dispatcher::Scheduled;
use sense_orchestrator::engine::Engine as _;
use sense_orchestrator::ledger::{Entry, Request};
use sense_orchestrator::message::Command;
use sense_orchestrator::names::ServiceName;
use sense_orchestrator::record::{Record, State};
use sense_orchestrator::report::Trigger;
use sense_orchestrator::runner::RunRequest;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::bus::FakeBus;
use crate::support::engine::Script;
use crate::support::log::Log;
use crate::support::reference::{Stack, reply_channel};
use crate::support::stack::name;

const SECOND: Duration = Duration::from_secs(1);

/// `status`, `data` and `error` of a reply, once it is sure that it has these and `request_id`, and nothing else.
fn parts(reply: &Value) -> (&str, &Value, Option<&str>) {
    let fields: Vec<&str> = reply.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["data", "error", "request_id", "status"], "{reply}");
    assert!(reply["data"].is_object(), "{reply}");
    (reply["status"].as_str().unwrap(), &reply["data"], reply["error"].as_str())
}

fn error(reply: &Value) -> &str {
    let (status, _, error) = parts(reply);
    assert_eq!(status, "error", "{reply}");
    error.unwrap()
}

fn ok(reply: &Value) -> &Value {
    let (status, data, error) = parts(reply);
    assert_eq!((status, error), ("ok", None), "{reply}");
    data
}

/// Lets a run leave a result, as the container would.
fn leave(stack: &Stack, after: Duration, key: &'static str, value: Value) {
    let bus = std::sync::Arc::clone(&stack.bus);
    tokio::spawn(async move {
        sleep(after).await;
        bus.put(key, &value);
    });
}

#[tokio::test(start_paused = true)]
async fn start_camera_starts_the_service() {
    let stack = Stack::dispatching().await;
    stack.script("source-camera", Script::stays());
    assert_eq!(ok(&stack.call("start_camera", json!({})).await), &json!({}));
    assert_eq!(stack.engine.running_names(), ["sense-source-camera-1"]);
}

#[tokio::test(start_paused = true)]
async fn stop_camera_tells_the_camera_and_leaves_its_container_alone() {
    let stack = Stack::dispatching().await;
    stack.script("source-camera", Script::stays());
    stack.call("start_camera", json!({})).await;
    assert_eq!(ok(&stack.call("stop_camera", json!({})).await), &json!({}));
    let told = stack.bus.published("cmd:network_camera");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["action"], "stop");
    assert!(
        told[0]["request_id"].is_string() && told[0]["timestamp"].is_f64() && told[0]["params"] == json!({}),
        "{told:?}"
    );
    assert_eq!(stack.engine.running_names().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn trigger_runs_the_service_and_tells_how_it_ended() {
    let stack = Stack::dispatching().await;
    stack.script("source-weather", Script::exits(0, 2 * SECOND));
    let reply = stack.call("trigger", json!({"service": "source-weather"})).await;
    let data = ok(&reply);
    assert_eq!(data["exit_code"], 0);
    assert!(data["duration_ms"].as_u64().unwrap() >= 2000, "{data}");
    assert_eq!(data["run_id"].as_str().unwrap().len(), 12);
    assert_eq!(data.as_object().unwrap().len(), 3, "{data}");
    assert!(stack.engine.container_names().is_empty(), "the one-off is removed");
}

#[tokio::test(start_paused = true)]
async fn a_failed_trigger_tells_its_exit_code_and_its_last_lines() {
    let stack = Stack::dispatching().await;
    let output = (0..100).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n");
    stack.script("source-weather", Script { exit_code: 3, output, ..Script::default() });
    let reply = stack.call("trigger", json!({"service": "source-weather"})).await;
    assert_eq!(error(&reply), "run of source-weather: exited 3");
    let data = &reply["data"];
    assert_eq!(data["exit_code"], 3);
    assert_eq!(data["outcome"], "failed");
    assert!(data["run_id"].is_string() && data["duration_ms"].is_u64(), "{data}");
    let tail = data["tail"].as_str().unwrap();
    assert!(tail.starts_with("line 80") && tail.ends_with("line 99"), "{tail}");
}

#[tokio::test(start_paused = true)]
async fn a_run_leaves_a_record_in_redis() {
    let stack = Stack::dispatching().await;
    let reply = stack.call("trigger", json!({"service": "source-weather"})).await;
    sleep(SECOND).await;
    let records = stack.bus.values("runs:source-weather");
    assert_eq!(records.len(), 1);
    let record: Value = serde_json::from_str(&records[0]).unwrap();
    assert_eq!((&record["run_id"], &record["state"]), (&reply["data"]["run_id"], &json!("succeeded")));
}

#[tokio::test(start_paused = true)]
async fn a_triggered_run_past_its_limit_is_an_error() {
    let stack = Stack::dispatching().await;
    stack.script("source-weather", Script::stays());
    let reply = stack.call("trigger", json!({"service": "source-weather"})).await;
    assert!(error(&reply).starts_with("run of source-weather: "), "{reply}");
    assert_eq!(reply["data"]["outcome"], "timed_out");
}

#[tokio::test(start_paused = true)]
async fn a_scan_yields_the_devices_that_this_run_found() {
    let stack = Stack::dispatching().await;
    stack.script("source-aranet4", Script::exits(0, 15 * SECOND));
    stack.bus.put("scan:co2", &json!([{"name": "old"}]));
    let devices = json!([{"name": "Aranet4 1", "mac": "AA:BB:CC:DD:EE:FF", "rssi": -60}]);
    leave(&stack, 14 * SECOND, "scan:co2", devices.clone());
    let reply = stack.call("scan_aranet4", json!({})).await;
    assert_eq!(ok(&reply), &json!({"devices": devices}));
}

#[tokio::test(start_paused = true)]
async fn a_scan_gives_its_mode_to_the_container() {
    let stack = Stack::dispatching().await;
    stack.script("source-camera", Script::exits(0, 5 * SECOND));
    leave(&stack, SECOND, "scan:network_camera", json!([]));
    let (reply, env) = tokio::join!(stack.call("discover_cameras", json!({})), async {
        sleep(2 * SECOND).await;
        let names = stack.engine.container_names();
        stack.engine.body(&names[0]).body.env.unwrap()
    });
    assert_eq!(ok(&reply), &json!({"cameras": []}));
    assert!(env.contains(&"MODE=discover".to_owned()), "{env:?}");
}

#[tokio::test(start_paused = true)]
async fn a_result_of_an_earlier_scan_does_not_count() {
    let stack = Stack::dispatching().await;
    stack.bus.put("scan:co2", &json!([{"name": "old"}]));
    let reply = stack.call("scan_aranet4", json!({})).await;
    assert_eq!(error(&reply), "the run left no result at scan:co2");
}

#[tokio::test(start_paused = true)]
async fn two_scans_come_one_after_the_other_and_each_yields_what_it_found() {
    let stack = Stack::dispatching().await;
    stack.script("source-aranet4", Script::exits(0, 15 * SECOND));
    leave(&stack, 10 * SECOND, "scan:co2", json!([]));
    leave(&stack, 25 * SECOND, "scan:co2", json!([{"name": "late"}]));
    let (first, second) = tokio::join!(stack.call("scan_aranet4", json!({})), async {
        sleep(12 * SECOND).await;
        stack.call("scan_aranet4", json!({})).await
    });
    assert_eq!(ok(&first), &json!({"devices": []}));
    assert_eq!(ok(&second), &json!({"devices": [{"name": "late"}]}));
}

#[tokio::test(start_paused = true)]
async fn a_scan_waits_for_the_poll_in_its_way_and_then_has_its_own_limit() {
    let stack = Stack::dispatching().await;
    stack.script("source-aranet4", Script::exits(0, 25 * SECOND));
    let (poll, scan) = tokio::join!(stack.call("trigger", json!({"service": "source-aranet4"})), async {
        sleep(SECOND).await;
        // Its limit of 60 s would be over before its end, if the wait counted.
        stack.script("source-aranet4", Script::exits(0, 45 * SECOND));
        leave(&stack, 50 * SECOND, "scan:co2", json!([]));
        stack.bus.send("cmd:orchestrator", r#"{"action": "scan_aranet4", "request_id": "scan"}"#);
        sleep(70 * SECOND).await;
        stack.bus.json(&reply_channel("scan")).unwrap()
    });
    ok(&poll);
    assert_eq!(ok(&scan), &json!({"devices": []}));
}

#[tokio::test(start_paused = true)]
async fn a_scan_waits_for_a_run_that_somebody_else_made() {
    let stack = Stack::dispatching().await;
    stack.script("source-aranet4", Script::exits(0, 10 * SECOND));
    leave(&stack, 20 * SECOND, "scan:co2", json!([]));
    // A second daemon, or a person: our claims know nothing of it.
    let other = stack.other_runner();
    let service = "source-aranet4".parse().unwrap();
    let request = RunRequest::new(service, Trigger::Schedule);
    let (_, scan) = tokio::join!(other.run(request), async {
        sleep(5 * SECOND).await;
        stack.call("scan_aranet4", json!({})).await
    });
    assert_eq!(ok(&scan), &json!({"devices": []}));
}

#[tokio::test(start_paused = true)]
async fn a_scan_gives_up_after_thirty_seconds_and_names_the_run_in_its_way() {
    let stack = Stack::dispatching().await;
    stack.script("source-aranet4", Script::exits(0, 50 * SECOND));
    let (poll, (scan, waited)) = tokio::join!(stack.call("trigger", json!({"service": "source-aranet4"})), async {
        sleep(SECOND).await;
        let begun = Instant::now();
        (stack.call("scan_aranet4", json!({})).await, begun.elapsed())
    });
    assert_eq!(scan["data"]["run_id"], ok(&poll)["run_id"]);
    assert!(error(&scan).contains("already running"), "{scan}");
    assert!((30 * SECOND..32 * SECOND).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_its_turn_is_refused_at_the_end() {
    let stack = Stack::dispatching().await;
    stack.script("source-aranet4", Script::exits(0, 10 * SECOND));
    let (poll, scan) = tokio::join!(stack.call("trigger", json!({"service": "source-aranet4"})), async {
        sleep(SECOND).await;
        stack.bus.send("cmd:orchestrator", r#"{"action": "scan_aranet4", "request_id": "scan"}"#);
        sleep(SECOND).await;
        stack.intake.cancel();
        stack.reply("scan").await
    });
    ok(&poll);
    assert_eq!(error(&scan), "shutting down");
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_no_list_is_an_error() {
    let stack = Stack::dispatching().await;
    leave(&stack, SECOND / 2, "scan:co2", json!({"devices": []}));
    assert_eq!(error(&stack.call("scan_aranet4", json!({})).await), "the result at scan:co2 is not a JSON list");
}

#[tokio::test(start_paused = true)]
async fn services_are_started_stopped_and_restarted_by_name() {
    let stack = Stack::dispatching().await;
    stack.script("source-weather", Script::stays()).script("web-gateway", Script::stays());
    ok(&stack.call("start_service", json!({"service": "source-weather"})).await);
    assert_eq!(stack.engine.running_names(), ["sense-source-weather-1"]);
    stack.runner.start(&"web-gateway".parse().unwrap()).await.unwrap();
    ok(&stack.call("restart_service", json!({"service": "web-gateway"})).await);
    assert_eq!(stack.engine.running_names(), ["sense-source-weather-1", "sense-web-gateway-1"]);
    ok(&stack.call("stop_service", json!({"service": "source-weather"})).await);
    assert_eq!(stack.engine.running_names(), ["sense-web-gateway-1"]);
}

#[tokio::test(start_paused = true)]
async fn operations_on_one_service_come_one_after_the_other() {
    let stack = Stack::dispatching().await;
    stack.script("web-gateway", Script { ignores_stop: true, ..Script::stays() });
    let restart = || stack.call("restart_service", json!({"service": "web-gateway"}));
    stack.runner.start(&"web-gateway".parse().unwrap()).await.unwrap();
    stack.engine.transcript();
    let (first, second, third) = tokio::join!(restart(), restart(), restart());
    for reply in [&first, &second, &third] {
        ok(reply);
    }
    let transcript = stack.engine.transcript();
    let calls = transcript.split_whitespace().filter(|word| ["stop", "start"].contains(word)).collect::<Vec<_>>();
    assert_eq!(calls, ["stop", "start"].repeat(3), "{transcript}");
}

#[tokio::test(start_paused = true)]
async fn status_tells_of_every_service() {
    let stack = Stack::dispatching().await;
    stack.call("trigger", json!({"service": "source-weather"})).await;
    let reply = stack.call("status", json!({})).await;
    let services = &ok(&reply)["services"];
    assert_eq!(services.as_object().unwrap().len(), 9, "{services}");
    let weather = &services["source-weather"];
    assert_eq!((&weather["every"], &weather["runs"], &weather["failures"]), (&json!(300.0), &json!(1), &json!(0)));
    assert_eq!(weather["last_run"]["outcome"], "succeeded");
    assert_eq!(weather["running"], Value::Null);
    assert_eq!(services["redis"]["every"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_allowed_or_wrong_is_an_error() {
    let stack = Stack::dispatching().await;
    for (action, params, expected) in [
        ("explode", json!({}), "unknown action \"explode\""),
        ("trigger", json!({}), "parameter `service` is missing"),
        ("trigger", json!({"service": null}), "parameter `service` is missing"),
        ("trigger", json!({"service": 5}), "parameter `service` is not a text"),
        (
            "trigger",
            json!({"service": "a/b"}),
            "parameter `service`: \"a/b\" is not a service name: 1 to 128 ASCII letters, digits, '.', '_' or '-'",
        ),
        ("trigger", json!({"service": "nothing"}), "no such service: nothing"),
        ("trigger", json!({"service": "redis"}), "service redis is not allowed: it is in `commands.deny`"),
        (
            "start_service",
            json!({"service": "web-gateway"}),
            "service web-gateway is not allowed: none of its profiles is in `commands.profiles`",
        ),
        (
            "restart_service",
            json!({"service": "web-gateway"}),
            "service web-gateway has no container to restart, and may not be started: none of its profiles is in \
             `commands.profiles`",
        ),
        ("restart_service", json!({"service": "redis"}), "service redis is not allowed: it is in `commands.deny`"),
    ] {
        assert_eq!(error(&stack.call(action, params).await), expected, "{action}");
    }
    assert_eq!(stack.engine.transcript(), "");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_already_running_is_told_with_its_run_id() {
    let stack = Stack::dispatching().await;
    stack.script("source-weather", Script::exits(0, 20 * SECOND));
    let service = json!({"service": "source-weather"});
    let (first, second) = tokio::join!(stack.call("trigger", service.clone()), async {
        sleep(SECOND).await;
        stack.call("trigger", service.clone()).await
    });
    assert!(error(&second).contains("already running"), "{second}");
    assert_eq!(second["data"]["run_id"], ok(&first)["run_id"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_scan_delays_no_other_command() {
    let stack = Stack::dispatching().await;
    stack.script("source-aranet4", Script::exits(0, 20 * SECOND));
    leave(&stack, 10 * SECOND, "scan:co2", json!([]));
    let (scan, ()) = tokio::join!(stack.call("scan_aranet4", json!({})), async {
        sleep(SECOND).await;
        let started = Instant::now();
        ok(&stack.call("stop_camera", json!({})).await);
        assert!(started.elapsed() <= Duration::from_millis(50), "{:?}", started.elapsed());
    });
    ok(&scan);
}

#[tokio::test(start_paused = true)]
async fn a_reply_reaches_who_subscribes_after_four_seconds_and_who_reads_the_key_after_that() {
    let stack = Stack::dispatching().await;
    let command = |id: &str| json!({"action": "stop_camera", "request_id": id}).to_string();
    stack.bus.send("cmd:orchestrator", command("late"));
    sleep(4 * SECOND).await;
    let listening = Instant::now();
    ok(&stack.reply("late").await);
    assert!(listening.elapsed() < SECOND, "{:?}", listening.elapsed());

    stack.bus.send("cmd:orchestrator", command("later"));
    sleep(30 * SECOND).await;
    let kept = stack.bus.json(&reply_channel("later")).unwrap();
    assert_eq!(ok(&kept), &json!({}));
    let remaining = stack.bus.expires_in(&reply_channel("later")).unwrap();
    assert!((29 * SECOND..=30 * SECOND).contains(&remaining), "{remaining:?}");
    let published = stack.bus.published(&reply_channel("later")).len();
    sleep(10 * SECOND).await;
    assert_eq!(stack.bus.published(&reply_channel("later")).len(), published, "nobody is told for ever");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_was_received_is_not_published_again() {
    let stack = Stack::dispatching().await;
    let _listening = stack.bus.subscribe(&[reply_channel("once")]);
    stack.bus.send("cmd:orchestrator", json!({"action": "stop_camera", "request_id": "once"}).to_string());
    sleep(10 * SECOND).await;
    assert_eq!(stack.bus.published(&reply_channel("once")).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_request_is_answered_with_the_first_reply_and_not_run_again() {
    let stack = Stack::dispatching().await;
    let service = json!({"service": "source-weather"});
    let first = stack.call_as("same", "trigger", service.clone()).await;
    let again = stack.call_as("same", "trigger", service.clone()).await;
    assert_eq!(again, first);
    assert_eq!(stack.runner.records()["source-weather"].runs, 1);
    sleep(61 * SECOND).await;
    let later = stack.call_as("same", "trigger", service).await;
    assert_ne!(later["data"]["run_id"], first["data"]["run_id"]);
}

#[tokio::test(start_paused = true)]
async fn another_command_under_the_same_id_is_an_error_that_leaves_the_first_reply_at_its_key() {
    let stack = Stack::dispatching().await;
    let command = |params: Value| json!({"action": "trigger", "request_id": "same", "params": params}).to_string();
    let weather = json!({"service": "source-weather"});
    stack.bus.send("cmd:orchestrator", command(weather.clone()));
    let first = loop {
        sleep(Duration::from_millis(10)).await;
        if let Some(reply) = stack.bus.json(&reply_channel("same")) {
            break reply;
        }
    };
    ok(&first);
    stack.bus.send("cmd:orchestrator", command(json!({"service": "source-system"})));
    sleep(Duration::from_millis(1)).await;
    let before = stack.bus.published(&reply_channel("same")).len();
    sleep(3 * SECOND).await;
    let published = stack.bus.published(&reply_channel("same"));
    assert!(published.len() > before, "nobody listened yet");
    for reply in &published[before..] {
        assert!(error(reply).contains("another command"), "{reply}");
    }
    assert!(error(&stack.reply("same").await).contains("another command"));
    assert_eq!(stack.bus.json(&reply_channel("same")).unwrap(), first);
    assert!(!stack.runner.records().contains_key("source-system"), "it was not carried out");
    sleep(10 * SECOND).await;
    assert_eq!(stack.call_as("same", "trigger", weather).await, first, "the first one is still known");
}

#[tokio::test(start_paused = true)]
async fn a_reply_whose_publishing_was_cut_off_comes_once_or_again_when_nobody_had_it() {
    let stack = Stack::dispatching().await;
    let listening = stack.bus.subscribe(&[reply_channel("cut")]);
    stack.bus.lose_the_next_answer();
    stack.bus.send("cmd:orchestrator", json!({"action": "status", "request_id": "cut"}).to_string());
    sleep(SECOND).await;
    stack.bus.come_back();
    sleep(10 * SECOND).await;
    assert_eq!(stack.bus.published(&reply_channel("cut")).len(), 1, "who listened heard it");
    drop(listening);

    stack.bus.lose_the_next_answer();
    stack.bus.send("cmd:orchestrator", json!({"action": "status", "request_id": "late"}).to_string());
    sleep(SECOND).await;
    stack.bus.come_back();
    sleep(SECOND).await;
    stack.reply("late").await;

    let _listening = stack.bus.subscribe(&[reply_channel("emptied")]);
    stack.bus.lose_the_next_answer();
    stack.bus.send("cmd:orchestrator", json!({"action": "status", "request_id": "emptied"}).to_string());
    sleep(SECOND).await;
    stack.bus.forget();
    stack.bus.come_back();
    sleep(SECOND).await;
    assert_eq!(
        stack.bus.published(&reply_channel("emptied")).len(),
        2,
        "Redis was started anew, and the listener with it"
    );
    assert!(stack.bus.json(&reply_channel("emptied")).is_some(), "it is at its key again");
}

#[tokio::test(start_paused = true)]
async fn the_whole_daemon_denies_its_own_service() {
    let stack = Stack::new();
    let daemon = stack.start_daemon("web-gateway");
    sleep(SECOND).await;
    let denied = stack.call("restart_service", json!({"service": "web-gateway"})).await;
    assert_eq!(error(&denied), "service web-gateway is not allowed: it is the orchestrator's own");
    daemon.abort();
}

#[tokio::test(start_paused = true)]
async fn a_thousand_commands_a_second_that_nobody_listens_to_are_kept_and_do_not_pile_up() {
    const COMMANDS: u32 = 20_000;
    let (log, stack) = (Log::capture(), Stack::dispatching().await);
    for n in 0..COMMANDS {
        stack.bus.send("cmd:orchestrator", json!({"action": "status", "request_id": format!("s{n}")}).to_string());
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_millis(100)).await;
    let mut bytes = 0;
    for n in 0..COMMANDS {
        let channel = reply_channel(&format!("s{n}"));
        let reply = stack.bus.json(&channel).unwrap_or_else(|| panic!("{channel} is not kept"));
        bytes = reply.to_string().len();
    }
    // Those that wait are published once in 640 ms.
    let before = stack.bus.count_published();
    sleep(Duration::from_millis(700)).await;
    let waiting = stack.bus.count_published() - before;
    assert!(waiting > 0 && waiting * bytes < 2 * 1024 * 1024, "{waiting} replies of {bytes} bytes wait");
    assert!(log.lines("command done").len() <= 300);
    ok(&stack.call("status", json!({})).await);
}

#[tokio::test(start_paused = true)]
async fn daemons_with_different_prefixes_do_not_answer_each_others_commands() {
    let bus = FakeBus::with_prefix("attic:");
    let stack = Stack::on(bus, &[]);
    stack.start_dispatcher();
    sleep(Duration::from_millis(1)).await;
    let command = |id: &str| json!({"action": "trigger", "request_id": id, "params": {"service": "source-weather"}});
    assert_eq!(stack.bus.send("cmd:orchestrator", command("theirs").to_string()), 0);
    assert_eq!(stack.bus.send("attic:cmd:orchestrator", command("ours").to_string()), 1);
    sleep(10 * SECOND).await;
    let reply = stack.bus.json("attic:cmd:orchestrator:response:ours").unwrap();
    ok(&reply);
    assert_eq!(stack.bus.json(&reply_channel("ours")), None);
    assert_eq!(stack.bus.values("attic:runs:source-weather").len(), 1);
    assert!(stack.bus.values("runs:source-weather").is_empty());
    assert!(stack.bus.reads().iter().all(|key| !key.starts_with("attic:status:") && !key.starts_with("attic:config:")));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_repeated_while_it_goes_on_is_answered_as_often_and_run_once() {
    let stack = Stack::dispatching().await;
    stack.script("source-weather", Script::exits(0, 5 * SECOND));
    let _listening = stack.bus.subscribe(&[reply_channel("same")]);
    for _ in 0..3 {
        let command = json!({"action": "trigger", "request_id": "same", "params": {"service": "source-weather"}});
        stack.bus.send("cmd:orchestrator", command.to_string());
        sleep(SECOND).await;
    }
    sleep(10 * SECOND).await;
    let replies = stack.bus.published(&reply_channel("same"));
    assert_eq!(replies.len(), 3);
    assert!(replies.iter().all(|reply| reply == &replies[0]));
    assert_eq!(stack.runner.records()["source-weather"].runs, 1);
}

#[tokio::test(start_paused = true)]
async fn more_commands_than_may_be_in_flight_are_answered_with_an_error() {
    let stack = Stack::new();
    stack.start_dispatcher_with(|options| options.max_in_flight = 2);
    sleep(Duration::from_millis(1)).await;
    for service in ["source-weather", "source-system", "source-pihole"] {
        stack.script(service, Script::exits(0, 5 * SECOND));
    }
    let (one, two, three) = tokio::join!(
        stack.call("trigger", json!({"service": "source-weather"})),
        stack.call("trigger", json!({"service": "source-system"})),
        stack.call("trigger", json!({"service": "source-pihole"})),
    );
    ok(&one);
    ok(&two);
    assert_eq!(error(&three), "too many commands at the same time, 2 at most");
    ok(&stack.call("trigger", json!({"service": "source-pihole"})).await);
}

#[tokio::test(start_paused = true)]
async fn a_command_without_a_request_id_is_carried_out_without_a_reply() {
    let stack = Stack::dispatching().await;
    stack.bus.send("cmd:orchestrator", r#"{"action": "trigger", "params": {"service": "source-weather"}}"#);
    sleep(5 * SECOND).await;
    assert_eq!(stack.runner.records()["source-weather"].runs, 1);
}

#[tokio::test(start_paused = true)]
async fn malformed_commands_are_answered_where_their_request_id_can_be_read() {
    let stack = Stack::dispatching().await;
    for (id, text) in [
        ("m1", r#"{"request_id": "m1", "action": "#.to_owned()),
        ("m2", r#"{"request_id": "m2"}"#.to_owned()),
        ("m3", r#"{"request_id": "m3", "action": ["x"]}"#.to_owned()),
        ("m4", r#"{"request_id": "m4", "action": "trigger", "params": "source-weather"}"#.to_owned()),
        ("m5", format!(r#"{{"request_id": "m5", "action": "trigger", "params": {}"#, "[".repeat(5000))),
        ("m6", format!(r#"{{"action": "{}", "request_id": "m6"}}"#, "x".repeat(1 << 20))),
    ] {
        stack.bus.send("cmd:orchestrator", text);
        error(&stack.reply(id).await);
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_hostile_messages_are_each_answered_and_leave_the_dispatcher_well() {
    let stack = Stack::dispatching().await;
    let names = ["../../etc", "a*", "a\u{0}b", &"x".repeat(10_000), "-rf", ""];
    let mut ids = Vec::new();
    for n in 0..10_000 {
        let id = format!("hostile-{n}");
        let text = match n % 5 {
            0 => format!(r#"{{"request_id": "{id}", "action": "trigger", "params": {}"#, "[".repeat(500)),
            1 => json!({"request_id": id, "action": "trigger", "params": {"service": names[n % names.len()]}})
                .to_string(),
            2 => json!({"request_id": id, "action": names[n % names.len()]}).to_string(),
            3 => json!({"request_id": id, "action": "trigger", "params": {"service": {"a": [1, 2]}}}).to_string(),
            _ => format!(r#"not JSON "request_id": "{id}" \"#),
        };
        for channel in ["cmd:orchestrator", "stream:ended", "config:changed"] {
            stack.bus.send(channel, &text);
        }
        ids.push(id);
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    sleep(20 * SECOND).await;
    for id in ids {
        error(&stack.bus.json(&reply_channel(&id)).unwrap_or_else(|| panic!("no reply to {id}")));
    }
    assert_eq!(stack.engine.transcript(), "");
    ok(&stack.call("trigger", json!({"service": "source-weather"})).await);
}

#[tokio::test(start_paused = true)]
async fn a_reply_waits_for_a_redis_that_is_away() {
    let stack = Stack::dispatching().await;
    stack.script("source-weather", Script::exits(0, 5 * SECOND));
    let command = json!({"action": "trigger", "request_id": "away", "params": {"service": "source-weather"}});
    stack.bus.send("cmd:orchestrator", command.to_string());
    sleep(SECOND).await;
    stack.bus.go_down();
    sleep(20 * SECOND).await;
    stack.bus.forget();
    stack.bus.come_back();
    ok(&stack.reply("away").await);
    assert_eq!(stack.runner.records()["source-weather"].runs, 1);
}

#[tokio::test(start_paused = true)]
async fn a_reply_whose_key_redis_refuses_is_published_all_the_same() {
    let stack = Stack::dispatching().await;
    stack.bus.refuse(Some("SET"));
    ok(&stack.call("stop_camera", json!({})).await);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_new_commands_are_refused_and_old_ones_answered() {
    let stack = Stack::new();
    let dispatcher = stack.start_dispatcher();
    sleep(Duration::from_millis(1)).await;
    stack.script("source-weather", Script::exits(0, 10 * SECOND));
    let (running, refused) = tokio::join!(stack.call("trigger", json!({"service": "source-weather"})), async {
        sleep(SECOND).await;
        stack.intake.cancel();
        stack.work.close();
        sleep(SECOND).await;
        stack.call("stop_camera", json!({})).await
    });
    ok(&running);
    assert_eq!(error(&refused), "shutting down");
    tokio::time::timeout(2 * SECOND, dispatcher).await.expect("the dispatcher ends with the work").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_service_may_be_named_as_the_schedule_names_it() {
    let stack = Stack::dispatching().await;
    let reply = stack.call("trigger", json!({"service": "weather"})).await;
    assert_eq!(reply["status"], "ok", "{reply}");
    assert!(stack.engine.transcript().contains("start source-weather"));
}

#[tokio::test(start_paused = true)]
async fn no_command_touches_our_own_service_by_any_name() {
    let stack = Stack::new();
    stack.start_dispatcher_with(|options| {
        // Whatever the settings say of it.
        let own: ServiceName = "orchestrator".parse().unwrap();
        options.services.permissions.deny.clear();
        options.services.permissions.profiles.insert("core".into());
        options.services.scheduled.insert(own, Scheduled { key: "me".into(), default: None, by_settings: true });
        let action = serde_yaml::from_str("[ { restart: orchestrator } ]").unwrap();
        options.actions.insert("restart_all".into(), action);
    });
    sleep(Duration::from_millis(1)).await;
    stack.runner.start(&"orchestrator".parse().unwrap()).await.unwrap();
    stack.engine.transcript();
    for action in ["trigger", "start_service", "stop_service", "restart_service", "restart_all"] {
        for name in ["orchestrator", "me"] {
            let reply = stack.call(action, json!({"service": name})).await;
            assert_eq!(error(&reply), "service orchestrator is not allowed: it is the orchestrator's own", "{action}");
        }
    }
    assert_eq!(stack.engine.transcript(), "");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_may_not_be_started_is_restarted_as_it_is() {
    let stack = Stack::dispatching().await;
    stack.script("web-gateway", Script::stays());
    let service = json!({"service": "web-gateway"});
    stack.runner.start(&"web-gateway".parse().unwrap()).await.unwrap();
    stack.engine.transcript();
    ok(&stack.call("restart_service", service.clone()).await);
    stack.runner.stop(&"web-gateway".parse().unwrap()).await.unwrap();
    ok(&stack.call("restart_service", service).await);
    let transcript = stack.engine.transcript();
    let calls: Vec<&str> = transcript.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(calls, ["stop", "start", "stop", "start"], "{transcript}");
}

/// Ends the camera when it is told to, as the camera does.
fn obedient_camera(stack: &Stack) {
    let (engine, mut told) =
        (std::sync::Arc::clone(&stack.engine), stack.bus.subscribe(&["cmd:network_camera".to_owned()]));
    tokio::spawn(async move {
        while let Some(event) = told.next().await {
            if matches!(event, Event::Message(_)) {
                let _ = engine.stop_container("sense-source-camera-1", SECOND).await;
            }
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_discovery_does_not_hold_up_the_camera() {
    let stack = Stack::dispatching().await;
    obedient_camera(&stack);
    stack.script("source-camera", Script::exits(0, 40 * SECOND));
    leave(&stack, 30 * SECOND, "scan:network_camera", json!([]));
    let (found, ()) = tokio::join!(stack.call("discover_cameras", json!({})), async {
        sleep(3 * SECOND).await;
        stack.script("source-camera", Script::stays());
        let begun = Instant::now();
        ok(&stack.call("start_camera", json!({})).await);
        assert!(stack.engine.running_names().contains(&"sense-source-camera-1".to_owned()));
        ok(&stack.call("stop_camera", json!({})).await);
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
        for _ in 0..60 {
            sleep(SECOND).await;
            assert!(!stack.engine.running_names().contains(&"sense-source-camera-1".to_owned()));
        }
    });
    assert_eq!(ok(&found), &json!({"cameras": []}));
}

#[tokio::test(start_paused = true)]
async fn a_later_stop_cancels_a_start_that_waits() {
    for stop in ["stop_camera", "stop_service"] {
        let stack = Stack::dispatching().await;
        let service = json!({"service": "source-camera"});
        stack.script("source-camera", Script { ignores_stop: true, ..Script::stays() });
        ok(&stack.call("start_camera", json!({})).await);
        stack.engine.transcript();
        let (stopped, started, ()) = tokio::join!(
            stack.call("stop_service", service.clone()),
            async {
                sleep(SECOND).await;
                stack.call("start_camera", json!({})).await
            },
            async {
                sleep(2 * SECOND).await;
                ok(&stack.call(stop, service.clone()).await);
            }
        );
        ok(&stopped);
        assert_eq!(error(&started), "start of service source-camera was cancelled by a later stop", "{stop}");
        sleep(60 * SECOND).await;
        assert_eq!(stack.engine.running_names(), [""; 0], "{stop}");
        ok(&stack.call("start_camera", json!({})).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_does_not_wait_for_the_operations_of_its_service() {
    let stack = Stack::dispatching().await;
    stack.script("source-camera", Script { ignores_stop: true, ..Script::stays() });
    ok(&stack.call("start_camera", json!({})).await);
    let (stopped, ran) = tokio::join!(stack.call("stop_service", json!({"service": "source-camera"})), async {
        sleep(SECOND).await;
        stack.script("source-camera", Script::exits(0, SECOND));
        let begun = Instant::now();
        ok(&stack.call("trigger", json!({"service": "source-camera"})).await);
        begun.elapsed()
    });
    ok(&stopped);
    assert!(ran < 3 * SECOND, "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn a_command_of_an_earlier_life_is_answered_once_its_run_is_over_and_not_done_again() {
    let stack = Stack::new();
    let ledger = &stack.runner.history().ledger;
    let (id, run_id) = ("r1", "0123456789ab");
    let params = json!({"service": "source-weather"});
    let message = json!({"action": "trigger", "request_id": id, "params": params}).to_string();
    let fingerprint = Command::parse(message.as_bytes()).unwrap().fingerprint();
    let record = Record {
        request_id: id.parse().ok(),
        ..Record::pending(name("source-weather"), 1, run_id.parse().unwrap(), Trigger::Command, Timestamp::now())
    };
    let request = |run_id: Option<&str>, id: &str| Request {
        id: id.parse().unwrap(),
        at: Timestamp::now(),
        fingerprint: fingerprint.clone(),
        run_id: run_id.map(|run_id| run_id.parse().unwrap()),
        reply: None,
    };
    drop(ledger.write(&Entry::Request(request(Some(run_id), id))));
    drop(ledger.write(&Entry::Request(request(None, "r2"))));
    drop(ledger.record(record.clone()));
    stack.start_dispatcher();
    sleep(5 * SECOND).await;
    assert_eq!(stack.bus.json(&reply_channel(id)), None, "its run goes on");
    let interrupted = stack.bus.json(&reply_channel("r2")).unwrap();
    assert!(error(&interrupted).starts_with("interrupted: "), "{interrupted}");
    drop(ledger.record(Record { state: State::Succeeded, exit_code: Some(0), duration_ms: Some(7), ..record }));
    sleep(5 * SECOND).await;
    let reply = stack.bus.json(&reply_channel(id)).unwrap();
    assert_eq!(ok(&reply), &json!({"run_id": run_id, "exit_code": 0, "duration_ms": 7}));
    let again = stack.call_as(id, "trigger", params).await;
    assert_eq!(again, reply);
    assert_eq!(stack.engine.transcript(), "", "nothing was run");
}
