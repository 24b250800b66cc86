//! The Engine port's contract, on the fake and on the real Engine.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, ContainerStateStatusEnum, EndpointSettings, HostConfig, NetworkingConfig};
use futures::{FutureExt, StreamExt};
use sense_orchestrator::engine::{ApiVersion, Engine, EngineError, ExecCommand, PullImage, RemoveContainer};
use sense_orchestrator::spec::{ContainerBody, CreateContainer, NetworkBody};
use tokio::time::Instant;

use crate::support::bounds::bounds;
use crate::support::docker;
use crate::support::engine::{FakeEngine, Fault, Script};
use crate::support::stack::Stack;

/// Removes what a test made, whatever became of the test.
struct Scratch<'a, E: Engine> {
    engine: &'a E,
    image: &'static str,
    tag: String,
    real: bool,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl<'a, E: Engine> Scratch<'a, E> {
    fn new(engine: &'a E, image: &'static str, real: bool) -> Self {
        let tag = format!("sense-contract-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { engine, image, tag, real }
    }

    fn container(&self, script: &str) -> CreateContainer {
        let labels = HashMap::from([
            ("sense-contract".to_owned(), self.tag.clone()),
            ("com.docker.compose.service".to_owned(), script.to_owned()),
        ]);
        let body = ContainerCreateBody {
            image: Some(self.image.into()),
            cmd: Some(vec!["sh".into(), "-c".into(), script.into()]),
            labels: Some(labels),
            host_config: Some(HostConfig { network_mode: Some("none".into()), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        CreateContainer {
            name: format!("{}-{}", self.tag, COUNT.fetch_add(1, Ordering::Relaxed)),
            platform: None,
            body: ContainerBody { body, mac_address: None },
            connect: Vec::new(),
        }
    }

    fn label(&self) -> Vec<String> {
        vec![format!("sense-contract={}", self.tag)]
    }

    async fn status(&self, name: &str) -> Option<ContainerStateStatusEnum> {
        self.engine.container(name).await.unwrap().and_then(|found| found.state?.status)
    }

    /// Runs a test and cleans up after it, also when it panics.
    async fn hold(&self, test: impl Future<Output = ()>) {
        let ended = std::panic::AssertUnwindSafe(test).catch_unwind().await;
        self.clean().await;
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    }

    async fn clean(&self) {
        for container in self.engine.containers(&self.label()).await.unwrap() {
            let options = RemoveContainer { force: true, volumes: true };
            self.engine.remove_container(&container.id.unwrap(), options).await.unwrap();
        }
    }
}

const EXIT_7: &str = "echo out; echo err >&2; exit 7";
const STAYS: &str = "trap 'exit 143' TERM; while true; do sleep 0.1; done";
const DEAF: &str = "trap '' TERM; while true; do sleep 0.1; done";

async fn a_container_lives_and_its_exit_code_is_no_error<E: Engine>(scratch: &Scratch<'_, E>) {
    let engine = scratch.engine;
    let container = scratch.container(EXIT_7);
    let id = engine.create_container(&container).await.unwrap();
    assert_eq!(scratch.status(&id).await, Some(ContainerStateStatusEnum::CREATED));
    engine.start_container(&container.name).await.unwrap();
    assert_eq!(engine.wait_container(&container.name).await.unwrap(), 7);
    assert_eq!(engine.wait_container(&container.name).await.unwrap(), 7, "waiting again answers at once");
    assert_eq!(scratch.status(&container.name).await, Some(ContainerStateStatusEnum::EXITED));
    let tail = engine.logs_tail(&container.name, 1_000).await.unwrap();
    assert!(tail.contains("out") && tail.contains("err"), "{tail:?}");
    assert!(engine.logs_tail(&container.name, 3).await.unwrap().len() <= 3);
    let listed = engine.containers(&scratch.label()).await.unwrap();
    assert_eq!(listed.iter().filter(|found| found.id.as_ref() == Some(&id)).count(), 1);
    engine.remove_container(&container.name, RemoveContainer::default()).await.unwrap();
    assert_eq!(engine.container(&container.name).await.unwrap(), None);
    engine.remove_container(&container.name, RemoveContainer::default()).await.unwrap();
}

async fn a_running_container_is_stopped_and_is_stopped_then<E: Engine>(scratch: &Scratch<'_, E>) {
    let engine = scratch.engine;
    let container = scratch.container(STAYS);
    engine.create_container(&container).await.unwrap();
    engine.start_container(&container.name).await.unwrap();
    engine.start_container(&container.name).await.unwrap();
    let refused = engine.remove_container(&container.name, RemoveContainer::default()).await;
    assert!(matches!(refused, Err(EngineError::Conflict { .. })), "{refused:?}");
    engine.stop_container(&container.name, Duration::from_secs(10)).await.unwrap();
    assert_eq!(scratch.status(&container.name).await, Some(ContainerStateStatusEnum::EXITED));
    engine.stop_container(&container.name, Duration::from_secs(10)).await.unwrap();
    engine.kill_container(&container.name).await.unwrap();
}

async fn a_container_that_ignores_its_stop_signal_is_killed_after_its_grace_period<E: Engine>(
    scratch: &Scratch<'_, E>,
) {
    let engine = scratch.engine;
    let mut container = scratch.container(DEAF);
    container.body.body.stop_timeout = Some(1);
    engine.create_container(&container).await.unwrap();
    engine.start_container(&container.name).await.unwrap();
    // The shell needs a moment to set its trap.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    engine.stop_container(&container.name, Duration::from_secs(1)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(engine.wait_container(&container.name).await.unwrap(), 137);
}

async fn a_running_container_is_removed_by_force<E: Engine>(scratch: &Scratch<'_, E>) {
    let engine = scratch.engine;
    let container = scratch.container(STAYS);
    engine.create_container(&container).await.unwrap();
    engine.start_container(&container.name).await.unwrap();
    let command = ExecCommand { command: vec!["true".into()], ..ExecCommand::default() };
    assert_eq!(engine.exec(&container.name, &command).await.unwrap(), 0);
    engine.remove_container(&container.name, RemoveContainer { force: true, volumes: true }).await.unwrap();
    assert_eq!(engine.container(&container.name).await.unwrap(), None);
}

async fn anonymous_volumes_go_with_their_container_only_where_that_is_asked_for<E: Engine>(scratch: &Scratch<'_, E>) {
    let engine = scratch.engine;
    for volumes in [false, true] {
        let mut container = scratch.container(EXIT_7);
        container.body.body.volumes = Some(vec!["/anonymous".into()]);
        engine.create_container(&container).await.unwrap();
        let mounts = engine.container(&container.name).await.unwrap().unwrap().mounts.unwrap();
        assert_eq!(mounts[0].destination.as_deref(), Some("/anonymous"));
        let volume = mounts[0].name.clone().unwrap();
        assert!(engine.volume(&volume).await.unwrap().is_some());
        engine.remove_container(&container.name, RemoveContainer { force: false, volumes }).await.unwrap();
        assert_eq!(engine.volume(&volume).await.unwrap().is_some(), !volumes);
        engine.remove_volume(&volume).await.unwrap();
    }
}

async fn what_is_missing_or_taken_is_told_apart<E: Engine>(scratch: &Scratch<'_, E>) {
    let engine = scratch.engine;
    let mut unknown = scratch.container(EXIT_7);
    unknown.body.body.image = Some("sense-no-such-image:0".into());
    let missing = engine.create_container(&unknown).await;
    assert!(matches!(missing, Err(EngineError::NotFound { .. })), "{missing:?}");
    assert_eq!(engine.image("sense-no-such-image:0").await.unwrap(), None);
    assert!(engine.image(scratch.image).await.unwrap().is_some_and(|image| image.id.is_some()));

    let container = scratch.container(EXIT_7);
    engine.create_container(&container).await.unwrap();
    let taken = engine.create_container(&container).await;
    assert!(matches!(taken, Err(EngineError::Conflict { .. })), "{taken:?}");
    let gone = engine.start_container("sense-no-such-container").await;
    assert!(matches!(gone, Err(EngineError::NotFound { .. })), "{gone:?}");
    let gone = engine.wait_container("sense-no-such-container").await;
    assert!(matches!(gone, Err(EngineError::NotFound { .. })), "{gone:?}");

    let renamed = format!("{}-renamed", scratch.tag);
    engine.rename_container(&container.name, &renamed).await.unwrap();
    assert!(engine.container(&renamed).await.unwrap().is_some());
    let pull = PullImage { reference: "127.0.0.1:1/nothing:0".into(), platform: None };
    assert!(engine.pull_image(&pull).await.is_err());
}

async fn networks_and_volumes_come_and_go<E: Engine>(scratch: &Scratch<'_, E>) {
    let engine = scratch.engine;
    let name = format!("{}-net", scratch.tag);
    let mut body = NetworkBody::default();
    body.body.name.clone_from(&name);
    body.body.labels = Some(HashMap::from([("a".into(), "b".into())]));
    body.check_duplicate = Some(true);
    assert_eq!(engine.network(&name).await.unwrap(), None);
    engine.create_network(&body).await.unwrap();
    let taken = engine.create_network(&body).await;
    assert!(matches!(taken, Err(EngineError::Conflict { .. })), "{taken:?}");
    let found = engine.network(&name).await.unwrap().unwrap();
    assert_eq!(found.labels.unwrap()["a"], "b");
    assert!(engine.networks(&scratch.tag).await.unwrap().iter().any(|network| network.name.as_ref() == Some(&name)));

    let mut container = scratch.container(STAYS);
    container.body.body.host_config = Some(HostConfig { network_mode: Some(name.clone()), ..HostConfig::default() });
    container.body.body.networking_config =
        Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(name.clone(), EndpointSettings::default())])) });
    engine.create_container(&container).await.unwrap();
    engine.disconnect_network(&name, &container.name).await.unwrap();
    engine.disconnect_network(&name, &container.name).await.unwrap();
    engine.connect_network(&name, &container.name, &EndpointSettings::default()).await.unwrap();
    engine.disconnect_network(&name, &container.name).await.unwrap();
    engine.remove_network(&name).await.unwrap();
    engine.remove_network(&name).await.unwrap();
    // Of a container that does not run yet, a missing network is noticed at its start.
    engine.connect_network(&name, &container.name, &EndpointSettings::default()).await.unwrap();
    let lost = engine.start_container(&container.name).await;
    assert!(matches!(lost, Err(EngineError::NotFound { .. })), "{lost:?}");

    let volume = format!("{}-vol", scratch.tag);
    assert_eq!(engine.volume(&volume).await.unwrap(), None);
    let body = bollard::models::VolumeCreateRequest { name: Some(volume.clone()), ..Default::default() };
    engine.create_volume(&body).await.unwrap();
    engine.create_volume(&body).await.unwrap();
    assert!(engine.volume(&volume).await.unwrap().is_some());
    engine.remove_volume(&volume).await.unwrap();
    engine.remove_volume(&volume).await.unwrap();
}

async fn events_tell_of_a_start<E: Engine>(scratch: &Scratch<'_, E>) {
    let engine = scratch.engine;
    let labels = scratch.label();
    let container = scratch.container(STAYS);
    engine.create_container(&container).await.unwrap();
    let mut events = std::pin::pin!(engine.events(&labels));
    let starting = async {
        // The stream asks for events only once it is polled.
        tokio::time::sleep(Duration::from_millis(300)).await;
        engine.start_container(&container.name).await.unwrap();
        std::future::pending::<()>().await;
    };
    let seen = async {
        loop {
            let event = events.next().await.expect("the stream goes on").unwrap();
            if event.action.as_deref() == Some("start") {
                return event.actor.and_then(|actor| actor.attributes).and_then(|found| found.get("name").cloned());
            }
        }
    };
    let name = tokio::select! {
        () = starting => None,
        name = tokio::time::timeout(Duration::from_secs(20), seen) => name.expect("an event in time"),
    };
    assert_eq!(name.as_ref(), Some(&container.name));
}

async fn an_archive_is_unpacked_in_a_created_container<E: Engine>(scratch: &Scratch<'_, E>) {
    let engine = scratch.engine;
    let container = scratch.container("cat /run-secret; exit 0");
    engine.create_container(&container).await.unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(7);
    header.set_mode(0o444);
    header.set_cksum();
    archive.append_data(&mut header, "run-secret", &b"content"[..]).unwrap();
    let upload = sense_orchestrator::engine::Upload { archive: archive.into_inner().unwrap(), copy_uid_gid: false };
    engine.upload(&container.name, &upload).await.unwrap();
    engine.start_container(&container.name).await.unwrap();
    engine.wait_container(&container.name).await.unwrap();
    if scratch.real {
        assert_eq!(engine.logs_tail(&container.name, 100).await.unwrap(), "content");
    }
}

macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        mod on_the_fake {
            use super::*;
            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                let engine = FakeEngine::new();
                engine.script(EXIT_7, Script { output: "out\nerr\n".into(), ..Script::exits(7, Duration::from_millis(10)) });
                engine.script(STAYS, Script::stays());
                engine.script(DEAF, Script { ignores_stop: true, ..Script::stays() });
                let scratch = Scratch::new(engine.as_ref(), "busybox:test", false);
                scratch.hold(super::$test(&scratch)).await;
            })+
        }

        mod on_the_real_engine {
            use super::*;
            $(#[tokio::test]
            async fn $test() {
                let Some(engine) = docker::engine().await else { return };
                let scratch = Scratch::new(engine.as_ref(), docker::IMAGE, true);
                scratch.hold(super::$test(&scratch)).await;
            })+
        }
    };
}

contract!(
    a_container_lives_and_its_exit_code_is_no_error,
    a_running_container_is_stopped_and_is_stopped_then,
    a_container_that_ignores_its_stop_signal_is_killed_after_its_grace_period,
    a_running_container_is_removed_by_force,
    anonymous_volumes_go_with_their_container_only_where_that_is_asked_for,
    what_is_missing_or_taken_is_told_apart,
    networks_and_volumes_come_and_go,
    events_tell_of_a_start,
    an_archive_is_unpacked_in_a_created_container,
);

#[tokio::test]
async fn the_real_engine_speaks_at_least_the_oldest_version() {
    let Some(engine) = docker::engine().await else { return };
    let version = engine.version().await.unwrap();
    assert!(version.api >= ApiVersion::OLDEST, "{version:?}");
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_unavailable_and_is_found_once_it_is() {
    let folder = std::env::temp_dir().join(format!("sense-engine-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let socket = folder.join("docker.sock");
    let host = sense_orchestrator::engine::docker::Host::Unix(socket.clone());
    let engine = sense_orchestrator::engine::docker::Docker::new(host, None, bounds());
    let error = engine.image("x").await.unwrap_err();
    assert!(matches!(error, EngineError::Unavailable { .. }), "{error:?}");
    let found = docker::engine().await;
    if let (Some(_), Some(path)) = (found, docker::host().strip_prefix("unix://")) {
        std::os::unix::fs::symlink(path, &socket).unwrap();
        assert_eq!(engine.image("sense-no-such-image:0").await.unwrap(), None);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Every call of the port on the fake, by its name.
async fn every_call(engine: &FakeEngine, call: &str) -> Result<(), EngineError> {
    let container = Scratch::new(engine, "busybox:test", false).container(STAYS);
    let pull = PullImage { reference: "x".into(), platform: None };
    let mut network = NetworkBody::default();
    network.body.name = call.into();
    let (second, endpoint) = (Duration::from_secs(1), EndpointSettings::default());
    let upload = sense_orchestrator::engine::Upload { archive: Vec::new(), copy_uid_gid: false };
    let command = ExecCommand { command: vec!["true".into()], ..ExecCommand::default() };
    let volume = bollard::models::VolumeCreateRequest { name: Some(call.into()), ..Default::default() };
    match call {
        "connect" => engine.version().await.map(drop),
        "inspect image" => engine.image("x").await.map(drop),
        "pull image" => engine.pull_image(&pull).await,
        "inspect network" => engine.network("x").await.map(drop),
        "list networks" => engine.networks("x").await.map(drop),
        "create network" => engine.create_network(&network).await,
        "remove network" => engine.remove_network("x").await,
        "connect network" => engine.connect_network("x", "x", &endpoint).await,
        "disconnect network" => engine.disconnect_network("x", "x").await,
        "inspect volume" => engine.volume("x").await.map(drop),
        "create volume" => engine.create_volume(&volume).await,
        "remove volume" => engine.remove_volume("x").await,
        "list containers" => engine.containers(&[]).await.map(drop),
        "inspect container" => engine.container("x").await.map(drop),
        "create container" => engine.create_container(&container).await.map(drop),
        "start container" => engine.start_container("x").await,
        "wait for container" => engine.wait_container("x").await.map(drop),
        "stop container" => engine.stop_container("x", second).await,
        "kill container" => engine.kill_container("x").await,
        "remove container" => engine.remove_container("x", RemoveContainer::default()).await,
        "rename container" => engine.rename_container("x", "y").await,
        "read logs" => engine.logs_tail("x", 1).await.map(drop),
        "copy into container" => engine.upload("x", &upload).await,
        "exec in container" => engine.exec("x", &command).await.map(drop),
        "watch events" => std::pin::pin!(engine.events(&[])).next().await.unwrap().map(drop),
        other => panic!("no call {other}"),
    }
}

const CALLS: [&str; 25] = [
    "connect",
    "inspect image",
    "pull image",
    "inspect network",
    "list networks",
    "create network",
    "remove network",
    "connect network",
    "disconnect network",
    "inspect volume",
    "create volume",
    "remove volume",
    "list containers",
    "inspect container",
    "create container",
    "start container",
    "wait for container",
    "stop container",
    "kill container",
    "remove container",
    "rename container",
    "read logs",
    "copy into container",
    "exec in container",
    "watch events",
];

#[tokio::test(start_paused = true)]
async fn every_call_of_the_fake_can_hang_be_slow_be_refused_and_be_lost() {
    let limit = Duration::from_mins(1);
    for call in CALLS {
        let engine = FakeEngine::new();
        for fault in [Fault::Hung, Fault::Unanswered] {
            engine.fail(call, fault);
            assert!(tokio::time::timeout(limit, every_call(&engine, call)).await.is_err(), "{call} {fault:?}");
        }
        for fault in [Fault::Refused, Fault::Lost] {
            engine.fail(call, fault);
            assert!(every_call(&engine, call).await.is_err(), "{call} {fault:?}");
        }
        let begun = Instant::now();
        engine.fail(call, Fault::Slow(Duration::from_secs(5)));
        let _ = tokio::time::timeout(limit, every_call(&engine, call)).await;
        assert!(begun.elapsed() >= Duration::from_secs(5), "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pull_of_the_fake_takes_its_time() {
    let engine = FakeEngine::new();
    engine.offer_slow_image("x", Duration::from_secs(90));
    let begun = Instant::now();
    engine.pull_image(&PullImage { reference: "x".into(), platform: None }).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 90);
    assert!(engine.image("x").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_anonymous_volumes_of_a_run_go_with_it() {
    let stack = Stack::new("{name: p, services: {weather: {image: 'busybox:test', volumes: [/anonymous]}}}");
    let (during, report) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            stack.engine.volume_names().len()
        },
        stack.run("weather"),
    );
    assert!(report.unwrap().outcome.is_success());
    assert_eq!((during, stack.engine.volume_names().len()), (1, 0));
}
