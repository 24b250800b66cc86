//! Beside the real `docker compose` on the real Engine: what one makes, the other takes as its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sense_orchestrator::backend::compose::{ComposeBackend, ComposeOptions};
use sense_orchestrator::compose::Options;
use sense_orchestrator::engine::docker::Docker;
use sense_orchestrator::engine::{Engine, RemoveContainer};
use sense_orchestrator::projects::Projects;
use sense_orchestrator::report::Trigger;
use sense_orchestrator::runner::{RunRequest, Runner, RunnerOptions, RunnerStages, ServiceOptions};
use sense_orchestrator::spec::{Dialect, labels};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::bus::FakeBus;
use crate::support::docker::{self, IMAGE};
use crate::support::missing_server;
use crate::support::stack::{Folder, history, ledger, name};

/// A project that both work on.
pub(crate) struct Site {
    engine: Arc<Docker>,
    pub(crate) folder: Folder,
    project: String,
    dialect: Dialect,
}

/// A container as far as these tests look: name, then id.
pub(crate) type Containers = BTreeMap<String, String>;

impl Site {
    /// None where there is no Engine or no Compose, and none is promised.
    pub(crate) async fn new(compose: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let engine = docker::engine().await?;
        let project = format!("sense-interop-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut site = Self { engine, folder: Folder::new(), project, dialect: Dialect::default() };
        site.write(compose);
        let version = site.run_compose(&["version", "--short"]).await;
        let Ok(version) = version else { return missing_server("compose") };
        site.dialect = version.trim().parse().expect("a version of Compose");
        Some(site)
    }

    pub(crate) fn write(&self, compose: &str) {
        self.folder.write("compose.yaml", &compose.replace("IMAGE", IMAGE));
    }

    /// Standard output and error of `docker compose`, or both as the error.
    pub(crate) async fn run_compose(&self, words: &[&str]) -> Result<String, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/compose");
        let done = Command::new(script)
            .args(["--ansi", "never", "-p", &self.project])
            .args(words)
            .current_dir(&self.folder.0)
            .env("DOCKER_HOST", docker::host())
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        if done.status.success() { Ok(text) } else { Err(text) }
    }

    pub(crate) async fn compose(&self, words: &[&str]) -> String {
        self.run_compose(words).await.unwrap_or_else(|text| panic!("docker compose {words:?}: {text}"))
    }

    fn runner(&self) -> Runner<ComposeBackend<Docker>, FakeBus> {
        let default = ServiceOptions {
            limit: Duration::from_mins(2),
            proof: None,
            expects_readings: None,
            environment: BTreeMap::new(),
            profile: None,
            recreate_dependencies: false,
        };
        let options = RunnerOptions { default, services: BTreeMap::new(), tail: 1 << 10, tail_of_success: false };
        let stages = RunnerStages {
            intake: CancellationToken::new(),
            abort: CancellationToken::new(),
            work: TaskTracker::new(),
        };
        let projects = Projects::open(Options {
            working_dir: self.folder.0.clone(),
            project_name: Some(self.project.clone()),
            ..Options::default()
        });
        let projects = Arc::new(projects.unwrap());
        let compose = ComposeOptions { dialect: self.dialect, ..ComposeOptions::default() };
        let backend = ComposeBackend::new(Arc::clone(&self.engine), Arc::clone(&projects), compose);
        let bus = FakeBus::new();
        let history = history(ledger(), &bus);
        Runner::new(Arc::new(backend), bus, projects, options, stages, history)
    }

    pub(crate) async fn containers(&self) -> Containers {
        let listed = self.engine.containers(&[format!("{}={}", labels::PROJECT, self.project)]).await.unwrap();
        let entry = |container: bollard::models::ContainerSummary| {
            let name = container.names.unwrap().remove(0).trim_start_matches('/').to_owned();
            (name.replace(&self.project, "P"), container.id.unwrap())
        };
        listed.into_iter().map(entry).collect()
    }

    /// The containers' anonymous volumes. Once a container was made anew with its predecessor's, no removal takes them
    /// along: neither Compose's nor the Engine's.
    async fn anonymous_volumes(&self) -> Vec<String> {
        let mut names = Vec::new();
        for id in self.containers().await.values() {
            let mounts = self.engine.container(id).await.unwrap().and_then(|found| found.mounts).unwrap_or_default();
            let anonymous = mounts.into_iter().filter(|mount| mount.destination.as_deref() == Some("/anonymous"));
            names.extend(anonymous.filter_map(|mount| mount.name));
        }
        names
    }

    /// Takes everything away, and says what Compose itself would have left.
    pub(crate) async fn down(&self) {
        let volumes = self.anonymous_volumes().await;
        self.compose(&["--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "0"]).await;
        let left = self.containers().await;
        for container in left.values() {
            let all = RemoveContainer { force: true, volumes: true };
            self.engine.remove_container(container, all).await.unwrap();
        }
        for volume in volumes {
            self.engine.remove_volume(&volume).await.unwrap();
        }
        assert!(left.is_empty(), "down left {left:?}");
        assert!(self.engine.networks(&self.project).await.unwrap().is_empty(), "down left a network");
    }
}

const STACK: &str = "
services:
  web:
    image: IMAGE
    command: [sleep, '600']
    init: true
    environment: {VERSION: '1'}
    depends_on: {db: {condition: service_healthy}, once: {condition: service_completed_successfully}}
    volumes: [/anonymous, data:/data]
    networks: {front: {aliases: [www]}, back: }
  db:
    image: IMAGE
    command: [sleep, '600']
    init: true
    healthcheck: {test: 'true', interval: 200ms}
    networks: [back]
    deploy: {replicas: 2}
  once: {image: IMAGE, command: ['true'], networks: [back]}
  sidecar: {image: IMAGE, command: [sleep, '600'], init: true, network_mode: 'service:web', profiles: [extra]}
  job: {image: IMAGE, command: [sh, -c, 'exit 7'], depends_on: [db], networks: [back], profiles: [poll]}
networks: {front: {}, back: {}}
volumes: {data: {}}
";

#[tokio::test]
async fn what_we_started_is_up_to_date_for_docker_compose() {
    let Some(site) = Site::new(STACK).await else { return };
    let runner = site.runner();
    runner.start(&name("sidecar")).await.unwrap();
    let ours = site.containers().await;
    assert_eq!(
        ours.keys().map(String::as_str).collect::<Vec<_>>(),
        ["P-db-1", "P-db-2", "P-once-1", "P-sidecar-1", "P-web-1"]
    );

    let said = site.compose(&["--profile", "extra", "up", "-d"]).await;
    assert_eq!(site.containers().await, ours, "{said}");
    for word in ["Creat", "Recreat"] {
        assert!(!said.contains(word), "{said}");
    }
    let shown = site.compose(&["--profile", "extra", "ps", "--all", "--format", "{{.Service}}"]).await;
    let mut shown: Vec<&str> = shown.lines().collect();
    shown.sort_unstable();
    assert_eq!(shown, ["db", "db", "once", "sidecar", "web"]);
    site.down().await;
}

#[tokio::test]
async fn what_docker_compose_started_is_up_to_date_for_us() {
    let Some(site) = Site::new(STACK).await else { return };
    site.compose(&["--profile", "extra", "up", "-d"]).await;
    let theirs = site.containers().await;
    let runner = site.runner();
    runner.start(&name("sidecar")).await.unwrap();
    assert_eq!(site.containers().await, theirs);
    site.down().await;
}

#[tokio::test]
async fn a_changed_service_is_recreated_by_either_with_its_anonymous_volume() {
    let Some(site) = Site::new(STACK).await else { return };
    let volume = async || {
        let web = format!("{}-web-1", site.project);
        let mounts = site.engine.container(&web).await.unwrap().unwrap().mounts.unwrap();
        let anonymous = mounts.into_iter().find(|mount| mount.destination.as_deref() == Some("/anonymous"));
        anonymous.unwrap().name.unwrap()
    };
    site.runner().start(&name("web")).await.unwrap();
    let (first, kept) = (site.containers().await, volume().await);

    site.write(&STACK.replace("VERSION: '1'", "VERSION: '2'"));
    site.runner().start(&name("web")).await.unwrap();
    let second = site.containers().await;
    assert_ne!(first["P-web-1"], second["P-web-1"]);
    assert_eq!(first["P-db-1"], second["P-db-1"]);
    assert_eq!(volume().await, kept);
    let said = site.compose(&["up", "-d"]).await;
    assert_eq!(site.containers().await, second, "{said}");

    site.write(&STACK.replace("VERSION: '1'", "VERSION: '3'"));
    site.compose(&["up", "-d"]).await;
    let third = site.containers().await;
    assert_ne!(second["P-web-1"], third["P-web-1"]);
    assert_eq!(volume().await, kept);
    site.runner().start(&name("web")).await.unwrap();
    assert_eq!(site.containers().await, third);
    site.down().await;
}

#[tokio::test]
async fn a_changed_network_is_made_anew_by_us_and_then_up_to_date_for_docker_compose() {
    let Some(site) = Site::new(STACK).await else { return };
    site.compose(&["up", "-d"]).await;
    site.write(&STACK.replace("front: {}", "front: {labels: {changed: 'yes'}}"));
    site.runner().start(&name("web")).await.unwrap();
    let ours = site.containers().await;
    let front = site.engine.network(&format!("{}_front", site.project)).await.unwrap().unwrap();
    assert_eq!(front.labels.unwrap()["changed"], "yes");
    let said = site.compose(&["up", "-d"]).await;
    assert_eq!(site.containers().await, ours, "{said}");
    site.down().await;
}

#[tokio::test]
async fn a_run_of_ours_and_one_of_docker_compose_share_their_dependencies() {
    let Some(site) = Site::new(STACK).await else { return };
    let run = async || {
        let request = RunRequest::new(name("job"), Trigger::Schedule);
        let runner = site.runner();
        let report = runner.run(request).await.unwrap();
        while !runner.occupied().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        report
    };
    let report = run().await;
    assert_eq!(report.exit_code, Some(7), "{report:?}");
    let after_ours = site.containers().await;
    assert_eq!(after_ours.keys().map(String::as_str).collect::<Vec<_>>(), ["P-db-1", "P-db-2"]);
    let said = site.run_compose(&["run", "--rm", "-T", "job"]).await.unwrap_err();
    assert_eq!(site.containers().await, after_ours, "{said}");
    assert_eq!(run().await.exit_code, Some(7));
    assert_eq!(site.containers().await, after_ours);
    site.down().await;
}

#[tokio::test]
async fn a_stop_of_ours_is_what_docker_compose_would_have_done() {
    let Some(site) = Site::new(STACK).await else { return };
    site.compose(&["up", "-d"]).await;
    site.runner().stop(&name("db")).await.unwrap();
    let running = site.compose(&["ps", "--format", "{{.Service}}"]).await;
    assert_eq!(running.trim(), "web", "dependents and others keep running");
    site.runner().start(&name("db")).await.unwrap();
    let said = site.compose(&["up", "-d"]).await;
    assert!(!said.contains("Recreat"), "{said}");
    site.down().await;
}

/// What inspect shows of a container that does not differ from one time to the next, in an order of our own.
async fn shown(site: &Site, container: &str) -> serde_json::Value {
    let inspected = site.engine.container(&format!("{}-{container}", site.project)).await.unwrap().unwrap();
    let (mut config, mut host) = (inspected.config.unwrap(), inspected.host_config.unwrap());
    config.hostname = None;
    let depends_on = config.labels.as_mut().unwrap().get_mut(labels::DEPENDS_ON).unwrap();
    let mut entries: Vec<&str> = depends_on.split(',').collect();
    entries.sort_unstable();
    *depends_on = entries.join(",");
    for list in [&mut config.env, &mut host.binds].into_iter().flatten() {
        list.sort_unstable();
    }
    for mount in host.mounts.iter_mut().flatten().filter(|mount| mount.target.as_deref() == Some("/anonymous")) {
        assert!(mount.source.take().is_some(), "the old container's volume");
    }
    let networks = inspected.network_settings.unwrap().networks.unwrap();
    let mut joined: Vec<String> = networks
        .into_iter()
        .map(|(network, endpoint)| {
            let aliases = endpoint.aliases.unwrap_or_default();
            // The Engine adds the container's own short id.
            let aliases: Vec<&String> =
                aliases.iter().filter(|alias| !inspected.id.as_ref().unwrap().starts_with(*alias)).collect();
            // Of replicas that were created at the same time, either may come first.
            let mut links = endpoint.links.unwrap_or_default();
            links.sort_unstable();
            format!("{network}: {aliases:?} {:?} {links:?}", endpoint.ipam_config)
        })
        .collect();
    joined.sort_unstable();
    serde_json::json!({"config": config, "host": host, "joined": joined})
}

#[tokio::test]
async fn a_container_that_we_recreated_looks_as_if_docker_compose_had() {
    let stack = STACK.replace("depends_on: {db", "links: [db]\n    depends_on: {db");
    let Some(site) = Site::new(&stack).await else { return };
    let mut seen = Vec::new();
    for by_us in [false, true] {
        site.write(&stack);
        site.compose(&["up", "-d"]).await;
        site.write(&stack.replace("VERSION: '1'", "VERSION: '2'"));
        if by_us {
            site.runner().start(&name("web")).await.unwrap();
        } else {
            site.compose(&["up", "-d", "web"]).await;
        }
        seen.push(shown(&site, "web-1").await);
        site.down().await;
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0]["config"]["Labels"][labels::REPLACE].is_string());
}
