//! An Engine in memory: it keeps state, obeys scripts, lives on tokio's clock and writes down what it was told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::models::{
    ContainerConfig, ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryNetworkSettings, ContainerSummaryStateEnum, EndpointSettings, EventActor, EventMessage, Health,
    HealthStatusEnum, ImageInspect, MountPoint, MountType, Network, NetworkInspect, NetworkSettings, Volume,
    VolumeCreateRequest,
};
use futures::{FutureExt, Stream, TryStreamExt};
use sense_orchestrator::clock::{self, Timestamp};
use sense_orchestrator::engine::{
    ApiVersion, Engine, EngineError, EngineVersion, ExecCommand, PullImage, RemoveContainer, Upload,
};
use sense_orchestrator::spec::{ContainerBody, CreateContainer, NetworkBody};
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use super::time::{now, sleep_until};

/// What a service's containers do once they are started.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// How long they run; for ever where absent.
    pub(crate) runs_for: Option<Duration>,
    /// What they exit with by themselves.
    pub(crate) exit_code: i64,
    /// They go on after the stop signal, until they are killed.
    pub(crate) ignores_stop: bool,
    /// What they write.
    pub(crate) output: String,
    /// Their health some time after the start.
    pub(crate) health: Option<(Duration, HealthStatusEnum)>,
    /// The exit code of commands that are executed in them.
    pub(crate) exec_code: i64,
    /// Commands that are executed in them never end.
    pub(crate) exec_hangs: bool,
    /// Their start is never answered, and never carried out.
    pub(crate) start_hangs: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            runs_for: Some(Duration::from_secs(1)),
            exit_code: 0,
            ignores_stop: false,
            output: String::new(),
            health: None,
            exec_code: 0,
            exec_hangs: false,
            start_hangs: false,
        }
    }
}

impl Script {
    /// Runs for so long and exits with that code.
    pub(crate) fn exits(code: i64, after: Duration) -> Self {
        Self { runs_for: Some(after), exit_code: code, ..Self::default() }
    }

    /// Runs until it is stopped.
    pub(crate) fn stays() -> Self {
        Self { runs_for: None, ..Self::default() }
    }
}

/// A call that goes wrong. Any call can: also those that only look, and those that stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The Engine refuses the call.
    Refused,
    /// The connection breaks before the call arrives.
    Lost,
    /// The connection breaks after the call was carried out.
    LostAnswer,
    /// The connection breaks, and the container that the call creates or starts is there, or runs, only after a while.
    Late(Duration),
    /// The call is never carried out, and never answered.
    Hung,
    /// The call is carried out and answered after that time.
    Slow(Duration),
    /// The call is carried out, and its answer begins but never ends.
    Unanswered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Created,
    /// The start is under way until then.
    Starting(Instant),
    Running {
        since: Instant,
        ends: Option<Instant>,
    },
    Exited {
        code: i64,
        since: Instant,
        at: Instant,
    },
}

impl Life {
    /// The same, ended now where it still ran.
    fn ended(self, code: i64) -> Self {
        match self {
            Self::Running { since, .. } => Self::Exited { code, since, at: now() },
            other => other,
        }
    }
}

#[derive(Debug, Clone)]
struct FakeContainer {
    id: String,
    name: String,
    body: ContainerBody,
    endpoints: BTreeMap<String, EndpointSettings>,
    /// Anonymous volumes, by the path that each is mounted at.
    anonymous: BTreeMap<String, String>,
    script: Script,
    life: Life,
}

impl FakeContainer {
    fn labels(&self) -> HashMap<String, String> {
        self.body.body.labels.clone().unwrap_or_default()
    }

    fn label(&self, key: &str) -> Option<&String> {
        self.body.body.labels.as_ref()?.get(key)
    }

    fn service(&self) -> String {
        self.label("com.docker.compose.service").unwrap_or(&self.name).clone()
    }

    /// One-offs by service, as their names are random; others by name.
    fn shown(&self) -> String {
        if self.label("com.docker.compose.oneoff").is_some_and(|oneoff| oneoff == "True") {
            self.service()
        } else {
            self.name.clone()
        }
    }

    fn has_labels(&self, wanted: &[String]) -> bool {
        wanted.iter().all(|label| match label.split_once('=') {
            Some((key, value)) => self.label(key).is_some_and(|found| found == value),
            None => self.label(label).is_some(),
        })
    }

    /// Brings the container's life up to now.
    fn settle(&mut self) {
        if let Life::Starting(since) = self.life
            && since <= now()
        {
            self.life = Life::Running { since, ends: self.script.runs_for.map(|span| since + span) };
        }
        if let Life::Running { since, ends: Some(at) } = self.life
            && at <= now()
        {
            self.life = Life::Exited { code: self.script.exit_code, since, at };
        }
    }

    fn health(&self) -> Option<HealthStatusEnum> {
        let Life::Running { since, .. } = self.life else { return None };
        let (after, status) = self.script.health?;
        Some(if since + after <= now() { status } else { HealthStatusEnum::STARTING })
    }
}

#[derive(Debug, Default)]
struct State {
    images: BTreeMap<String, ImageInspect>,
    /// Images that can be pulled, and how long that takes.
    pullable: BTreeMap<String, (ImageInspect, Duration)>,
    networks: BTreeMap<String, NetworkInspect>,
    volumes: BTreeMap<String, Volume>,
    containers: BTreeMap<String, FakeContainer>,
    /// Containers that are still being created, and until when.
    late: Vec<(Instant, FakeContainer)>,
    scripts: BTreeMap<String, Script>,
    faults: BTreeMap<&'static str, VecDeque<Fault>>,
    down: bool,
    /// The Engine was killed: its containers are dead when it comes back.
    crashed: bool,
    ids: u64,
    transcript: Vec<String>,
    oracle: Oracle,
    seen: BTreeMap<String, Seen>,
    history: Vec<Fact>,
}

/// Who changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The daemon, by a call.
    Daemon,
    /// An operator or another program.
    Others,
    /// The container or the Engine.
    Itself,
}

/// What became of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Created,
    Started,
    Ended(i64),
    Renamed,
    Removed,
}

/// Something that became of a container, for those who judge it afterwards.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) at: Instant,
    pub(crate) by: By,
    pub(crate) what: What,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) labels: Arc<BTreeMap<String, String>>,
}

/// A container as it was seen last.
#[derive(Debug, Clone)]
struct Seen {
    name: String,
    labels: Arc<BTreeMap<String, String>>,
    started: Option<Instant>,
    ended: bool,
}

/// Decides for each call what goes wrong, and how long an unanswered one takes to be given up.
type Decide = Box<dyn FnMut(&'static str) -> Option<Fault> + Send>;

#[derive(Default)]
struct Oracle(Option<(Decide, Duration)>);

impl std::fmt::Debug for Oracle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Oracle")
    }
}

impl State {
    /// Writes down what changed since this was called last.
    fn watch(&mut self, by: By) {
        if self.oracle.0.is_none() {
            return;
        }
        let present = now();
        let fact = |at, what, id: &str, seen: &Seen| Fact {
            at,
            by,
            what,
            id: id.to_owned(),
            name: seen.name.clone(),
            labels: Arc::clone(&seen.labels),
        };
        for container in self.containers.values() {
            if !self.seen.contains_key(&container.id) {
                let fresh = Seen {
                    name: container.name.clone(),
                    labels: Arc::new(container.labels().into_iter().collect()),
                    started: None,
                    ended: false,
                };
                self.history.push(fact(present, What::Created, &container.id, &fresh));
                self.seen.insert(container.id.clone(), fresh);
            }
            let Some(seen) = self.seen.get_mut(&container.id) else { continue };
            if seen.name != container.name {
                seen.name.clone_from(&container.name);
                self.history.push(fact(present, What::Renamed, &container.id, seen));
            }
            let (since, end) = match container.life {
                Life::Created | Life::Starting(_) => continue,
                Life::Running { since, .. } => (since, None),
                Life::Exited { code, since, at } => (since, Some((code, at))),
            };
            if seen.started != Some(since) {
                (seen.started, seen.ended) = (Some(since), false);
                self.history.push(fact(since, What::Started, &container.id, seen));
            }
            if let (Some((code, at)), false) = (end, seen.ended) {
                seen.ended = true;
                self.history.push(fact(at, What::Ended(code), &container.id, seen));
            }
        }
        if self.seen.len() == self.containers.len() {
            return;
        }
        let there: Vec<&String> = self.containers.values().map(|container| &container.id).collect();
        let gone: Vec<String> = self.seen.keys().filter(|id| !there.contains(id)).cloned().collect();
        for id in gone {
            if let Some(seen) = self.seen.remove(&id) {
                self.history.push(fact(present, What::Removed, &id, &seen));
            }
        }
    }

    /// Brings everything up to now.
    fn settle(&mut self) {
        let (come, late): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= now());
        self.late = late;
        self.containers.extend(come.into_iter().map(|(_, container)| (container.name.clone(), container)));
        self.containers.values_mut().for_each(FakeContainer::settle);
    }
}

/// An Engine in memory.
pub(crate) struct FakeEngine {
    api: ApiVersion,
    origin: Instant,
    state: Mutex<State>,
    changed: Notify,
    events: broadcast::Sender<EventMessage>,
}

impl FakeEngine {
    /// An Engine with the image `busybox:test` and API 1.41.
    pub(crate) fn new() -> Arc<Self> {
        Self::speaking(ApiVersion::OLDEST)
    }

    /// The same with another API version.
    pub(crate) fn speaking(api: ApiVersion) -> Arc<Self> {
        follow_the_tests_clock();
        let engine = Self {
            api,
            origin: now(),
            state: Mutex::default(),
            changed: Notify::new(),
            events: broadcast::channel(256).0,
        };
        engine.add_image("busybox:test");
        Arc::new(engine)
    }

    /// Asks for each call what goes wrong; an answer that never comes is given up after `limit`, as the adapter does.
    pub(crate) fn ask(&self, limit: Duration, decide: impl FnMut(&'static str) -> Option<Fault> + Send + 'static) {
        self.state.lock().unwrap().oracle = Oracle(Some((Box::new(decide), limit)));
    }

    /// What became of containers so far.
    pub(crate) fn history(&self) -> Vec<Fact> {
        let mut state = self.state.lock().unwrap();
        state.settle();
        state.watch(By::Itself);
        state.history.clone()
    }

    /// Changes something behind the daemon's back.
    fn by_hand<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        state.settle();
        state.watch(By::Itself);
        let done = act(&mut state);
        state.watch(By::Others);
        drop(state);
        self.changed.notify_waiters();
        done
    }

    /// Stops a container as an operator does.
    pub(crate) fn stop_by_hand(&self, name: &str) {
        self.by_hand(|state| {
            if let Some(found) = state.containers.get_mut(name) {
                found.life = found.life.ended(143);
            }
        });
    }

    /// Removes a container as an operator does, by force.
    pub(crate) fn remove_by_hand(&self, name: &str) {
        self.by_hand(|state| drop(state.containers.remove(name)));
    }

    /// Renames a container as an operator does.
    pub(crate) fn rename_by_hand(&self, name: &str, new: &str) {
        self.by_hand(|state| {
            if state.containers.contains_key(new) {
                return;
            }
            if let Some(mut found) = state.containers.remove(name) {
                found.name = new.into();
                state.containers.insert(new.into(), found);
            }
        });
    }

    /// Starts a container that somebody else made.
    pub(crate) fn put_by_hand(&self, name: &str, labels: &[(&str, &str)], script: Script) {
        self.by_hand(|state| {
            if state.containers.contains_key(name) {
                return;
            }
            state.ids += 1;
            let mut body = ContainerBody::default();
            body.body.image = Some("busybox:test".into());
            body.body.labels = Some(labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect());
            let since = now();
            let life = Life::Running { since, ends: script.runs_for.map(|span| since + span) };
            let (id, name) = (format!("{:064x}", state.ids), name.to_owned());
            let (endpoints, anonymous) = (BTreeMap::new(), BTreeMap::new());
            let made = FakeContainer { id, name: name.clone(), body, endpoints, anonymous, script, life };
            state.containers.insert(name, made);
        });
    }

    /// Puts an image into the Engine.
    pub(crate) fn add_image(&self, reference: &str) {
        let image = image(reference);
        self.state.lock().unwrap().images.insert(reference.into(), image);
    }

    /// Lets an image be pulled at once.
    pub(crate) fn offer_image(&self, reference: &str) {
        self.offer_slow_image(reference, Duration::ZERO);
    }

    /// Lets an image be pulled in that time.
    pub(crate) fn offer_slow_image(&self, reference: &str, takes: Duration) {
        let image = image(reference);
        self.state.lock().unwrap().pullable.insert(reference.into(), (image, takes));
    }

    /// Names of all volumes.
    pub(crate) fn volume_names(&self) -> Vec<String> {
        self.state.lock().unwrap().volumes.keys().cloned().collect()
    }

    /// Says what a service's containers do.
    pub(crate) fn script(&self, service: &str, script: Script) {
        self.state.lock().unwrap().scripts.insert(service.into(), script);
    }

    /// Makes the next such call go wrong; several wait in line.
    pub(crate) fn fail(&self, call: &'static str, fault: Fault) {
        self.state.lock().unwrap().faults.entry(call).or_default().push_back(fault);
    }

    /// Stops the Engine, and with it all containers, as without live-restore.
    pub(crate) fn shut_down(&self) {
        let mut state = self.state.lock().unwrap();
        state.down = true;
        for container in state.containers.values_mut() {
            container.settle();
            container.life = container.life.ended(137);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Kills the Engine: what ran is found dead when it comes back.
    pub(crate) fn crash(&self) {
        let mut state = self.state.lock().unwrap();
        (state.down, state.crashed) = (true, true);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Cuts the connection: the containers go on.
    pub(crate) fn lose_connection(&self) {
        self.state.lock().unwrap().down = true;
        self.changed.notify_waiters();
    }

    /// Brings the Engine back.
    pub(crate) fn come_back(&self) {
        let mut state = self.state.lock().unwrap();
        state.down = false;
        if std::mem::take(&mut state.crashed) {
            state.settle();
            state.containers.values_mut().for_each(|container| container.life = container.life.ended(255));
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Puts a one-off there that somebody else made, with that slug; it runs where it `stays`, else it ended.
    pub(crate) async fn put_one_off(&self, container: &str, service: &str, slug: &str, one_off: &str, stays: bool) {
        self.script(service, if stays { Script::stays() } else { Script::exits(0, Duration::ZERO) });
        let labels = [
            ("com.docker.compose.project", "p"),
            ("com.docker.compose.service", service),
            ("com.docker.compose.oneoff", one_off),
            ("com.docker.compose.config-hash", "0"),
            ("com.docker.compose.slug", slug),
        ];
        let mut body = ContainerBody::default();
        body.body.image = Some("busybox:test".into());
        body.body.labels = Some(labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect());
        let create = CreateContainer { name: container.into(), platform: None, body, connect: Vec::new() };
        self.create_container(&create).await.unwrap();
        self.start_container(container).await.unwrap();
        self.transcript();
    }

    /// Removes a container behind everybody's back.
    pub(crate) fn lose_container(&self, service: &str) {
        self.state.lock().unwrap().containers.retain(|_, container| container.service() != service);
        self.changed.notify_waiters();
    }

    /// Names of all containers in any state.
    pub(crate) fn container_names(&self) -> Vec<String> {
        let mut state = self.state.lock().unwrap();
        state.settle();
        state.containers.keys().chain(state.late.iter().map(|(_, container)| &container.name)).cloned().collect()
    }

    /// Names of the containers that run.
    pub(crate) fn running_names(&self) -> Vec<String> {
        let mut state = self.state.lock().unwrap();
        state.settle();
        let running = |container: &&FakeContainer| matches!(container.life, Life::Running { .. });
        state.containers.values().filter(running).map(|container| container.name.clone()).collect()
    }

    /// The create body of a container.
    pub(crate) fn body(&self, name: &str) -> ContainerBody {
        self.state.lock().unwrap().containers[name].body.clone()
    }

    /// What the Engine was told to change, one call a line behind the seconds since its start; then forgets it.
    pub(crate) fn transcript(&self) -> String {
        let lines = std::mem::take(&mut self.state.lock().unwrap().transcript);
        lines.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        })
    }

    /// Writes down a change, and wakes those who wait for one.
    fn say(&self, state: &mut State, line: &str) {
        self.changed.notify_waiters();
        let at = (now() - self.origin).as_secs();
        state.transcript.push(format!("{at:>3}s {line}"));
    }

    /// Carries out a call, or the fault that waits for it. Every call of the port passes here.
    async fn call<T>(
        &self,
        call: &'static str,
        act: impl FnOnce(&mut State) -> Result<T, EngineError> + Send,
    ) -> Result<T, EngineError> {
        let fault = {
            let mut state = self.state.lock().unwrap();
            if state.down {
                return Err(lost(call));
            }
            let decided = state.oracle.0.as_mut().and_then(|(decide, _)| decide(call));
            decided.or_else(|| state.faults.get_mut(call).and_then(VecDeque::pop_front))
        };
        match fault {
            Some(Fault::Refused) => Err(EngineError::Call { call, status: 500, message: "refused by the test".into() }),
            Some(Fault::Lost) => Err(lost(call)),
            Some(Fault::LostAnswer) => {
                self.carry_out(act)?;
                Err(lost(call))
            }
            Some(Fault::Late(after)) if call == "start container" => {
                let before: BTreeMap<String, Life> = {
                    let mut state = self.state.lock().unwrap();
                    state.settle();
                    state.containers.iter().map(|(name, container)| (name.clone(), container.life)).collect()
                };
                self.carry_out_then(act, |state| {
                    for (name, container) in &mut state.containers {
                        let ran = matches!(before.get(name), Some(Life::Running { .. }));
                        if !ran && matches!(container.life, Life::Running { since, .. } if since == now()) {
                            container.life = Life::Starting(now() + after);
                        }
                    }
                })?;
                Err(lost(call))
            }
            Some(Fault::Late(after)) => {
                let before: Vec<String> = self.state.lock().unwrap().containers.keys().cloned().collect();
                self.carry_out_then(act, |state| {
                    let (old, new) = std::mem::take(&mut state.containers)
                        .into_iter()
                        .partition(|(name, _): &(String, FakeContainer)| before.contains(name));
                    state.containers = old;
                    let new: BTreeMap<String, FakeContainer> = new;
                    state.late.extend(new.into_values().map(|container| (now() + after, container)));
                })?;
                Err(lost(call))
            }
            Some(Fault::Hung) => self.given_up(call).await,
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                if self.state.lock().unwrap().down {
                    return Err(lost(call));
                }
                self.carry_out(act)
            }
            Some(Fault::Unanswered) => {
                // Who waits for the end of a container hears of it.
                let _ = self.carry_out(act);
                self.given_up(call).await
            }
            None => self.carry_out(act),
        }
    }

    fn carry_out<T>(&self, act: impl FnOnce(&mut State) -> Result<T, EngineError>) -> Result<T, EngineError> {
        self.carry_out_then(act, |_| ())
    }

    fn carry_out_then<T>(
        &self,
        act: impl FnOnce(&mut State) -> Result<T, EngineError>,
        then: impl FnOnce(&mut State),
    ) -> Result<T, EngineError> {
        let mut state = self.state.lock().unwrap();
        state.settle();
        state.watch(By::Itself);
        let done = act(&mut state);
        if done.is_ok() {
            then(&mut state);
        }
        state.watch(By::Daemon);
        done
    }

    /// Waits for an answer that never comes.
    async fn given_up<T>(&self, call: &'static str) -> Result<T, EngineError> {
        let limit = self.state.lock().unwrap().oracle.0.as_ref().map(|(_, limit)| *limit);
        match limit {
            Some(limit)
                if !matches!(call, "wait for container" | "pull image" | "exec in container" | "watch events") =>
            {
                tokio::time::sleep(limit).await;
                Err(lost(call))
            }
            _ => std::future::pending().await,
        }
    }

    /// Waits until a container's health changes, later than `told`, and moves that.
    async fn next_health(&self, told: &mut Instant) -> EventMessage {
        let next = {
            let state = self.state.lock().unwrap();
            let running = state.containers.values().filter_map(|container| {
                let Life::Running { since, .. } = container.life else { return None };
                Some((since + container.script.health?.0, container.clone()))
            });
            running.filter(|(at, _)| at > told).min_by_key(|(at, _)| *at)
        };
        let Some((at, container)) = next else { return std::future::pending().await };
        sleep_until(at).await;
        *told = at;
        event(&container, "health_status")
    }

    fn emit(&self, container: &FakeContainer, action: &str) {
        let _ = self.events.send(event(container, action));
    }
}

fn event(container: &FakeContainer, action: &str) -> EventMessage {
    let mut attributes = container.labels();
    attributes.insert("name".into(), container.name.clone());
    let actor = EventActor { id: Some(container.id.clone()), attributes: Some(attributes) };
    EventMessage { action: Some(action.into()), actor: Some(actor), ..EventMessage::default() }
}

fn image(reference: &str) -> ImageInspect {
    let id = format!(
        "sha256:{:0>64}",
        reference.bytes().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    );
    ImageInspect { id: Some(id), repo_tags: Some(vec![reference.into()]), ..ImageInspect::default() }
}

fn lost(call: &'static str) -> EngineError {
    EngineError::Unavailable { call, source: "connection lost by the test".into() }
}

fn missing(call: &'static str, what: &str) -> EngineError {
    EngineError::NotFound { call, message: format!("no such object: {what}") }
}

fn find<'a>(state: &'a mut State, call: &'static str, container: &str) -> Result<&'a mut FakeContainer, EngineError> {
    state
        .containers
        .values_mut()
        .find(|found| found.name == container || found.id == container)
        .ok_or_else(|| missing(call, container))
}

impl Engine for FakeEngine {
    async fn version(&self) -> Result<EngineVersion, EngineError> {
        self.call("connect", |_| Ok(EngineVersion { engine: "fake".into(), api: self.api })).await
    }

    async fn id(&self) -> Result<String, EngineError> {
        self.call("ask the engine's id", |_| Ok("FAKE".to_owned())).await
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageInspect>, EngineError> {
        self.call("inspect image", |state| {
            let by_id = || state.images.values().find(|image| image.id.as_deref() == Some(reference));
            Ok(state.images.get(reference).or_else(by_id).cloned())
        })
        .await
    }

    async fn pull_image(&self, image: &PullImage) -> Result<(), EngineError> {
        let call = "pull image";
        let (found, takes) = self
            .call(call, |state| {
                self.say(state, &format!("pull {}", image.reference));
                state.pullable.get(&image.reference).cloned().ok_or_else(|| missing(call, &image.reference))
            })
            .await?;
        tokio::time::sleep(takes).await;
        self.carry_out(|state| {
            if state.down {
                return Err(lost(call));
            }
            state.images.insert(image.reference.clone(), found);
            Ok(())
        })
    }

    async fn network(&self, name: &str) -> Result<Option<NetworkInspect>, EngineError> {
        self.call("inspect network", |state| {
            let by_id = || state.networks.values().find(|network| network.id.as_deref() == Some(name));
            Ok(state.networks.get(name).or_else(by_id).cloned())
        })
        .await
    }

    async fn networks(&self, name: &str) -> Result<Vec<Network>, EngineError> {
        self.call("list networks", |state| {
            let matching = state.networks.iter().filter(|(found, _)| found.contains(name));
            Ok(matching
                .map(|(_, network)| Network {
                    name: network.name.clone(),
                    id: network.id.clone(),
                    labels: network.labels.clone(),
                    ..Network::default()
                })
                .collect())
        })
        .await
    }

    async fn create_network(&self, body: &NetworkBody) -> Result<(), EngineError> {
        self.call("create network", |state| {
            let name = body.body.name.clone();
            if state.networks.contains_key(&name) {
                let message = format!("network with name {name} already exists");
                return Err(EngineError::Conflict { call: "create network", message });
            }
            self.say(state, &format!("create network {name}"));
            state.ids += 1;
            let id = Some(format!("net{:061x}", state.ids));
            let network = NetworkInspect {
                name: Some(name.clone()),
                id,
                labels: body.body.labels.clone(),
                ..NetworkInspect::default()
            };
            state.networks.insert(name, network);
            Ok(())
        })
        .await
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        self.call("remove network", |state| {
            self.say(state, &format!("remove network {name}"));
            state.networks.retain(|found, network| found != name && network.id.as_deref() != Some(name));
            Ok(())
        })
        .await
    }

    async fn connect_network(
        &self,
        network: &str,
        container: &str,
        endpoint: &EndpointSettings,
    ) -> Result<(), EngineError> {
        let call = "connect network";
        self.call(call, |state| {
            let known = state.networks.contains_key(network);
            let found = find(state, call, container)?;
            if !known && matches!(found.life, Life::Running { .. }) {
                return Err(missing(call, network));
            }
            found.endpoints.insert(network.into(), endpoint.clone());
            let line = format!("connect {} to {network}", found.shown());
            self.say(state, &line);
            Ok(())
        })
        .await
    }

    async fn disconnect_network(&self, network: &str, container: &str) -> Result<(), EngineError> {
        self.call("disconnect network", |state| {
            if let Ok(found) = find(state, "disconnect network", container) {
                found.endpoints.remove(network);
                let line = format!("disconnect {} from {network}", found.shown());
                self.say(state, &line);
            }
            Ok(())
        })
        .await
    }

    async fn volume(&self, name: &str) -> Result<Option<Volume>, EngineError> {
        self.call("inspect volume", |state| Ok(state.volumes.get(name).cloned())).await
    }

    async fn create_volume(&self, body: &VolumeCreateRequest) -> Result<(), EngineError> {
        self.call("create volume", |state| {
            let name = body.name.clone().unwrap_or_default();
            self.say(state, &format!("create volume {name}"));
            let volume =
                Volume { name: name.clone(), labels: body.labels.clone().unwrap_or_default(), ..Volume::default() };
            state.volumes.entry(name).or_insert(volume);
            Ok(())
        })
        .await
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        self.call("remove volume", |state| {
            self.say(state, &format!("remove volume {name}"));
            state.volumes.remove(name);
            Ok(())
        })
        .await
    }

    async fn containers(&self, labels: &[String]) -> Result<Vec<ContainerSummary>, EngineError> {
        self.call("list containers", |state| {
            let matching = state.containers.values().filter(|container| container.has_labels(labels));
            Ok(matching.map(|container| summary(container, &state.networks)).collect())
        })
        .await
    }

    async fn container(&self, container: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        self.call("inspect container", |state| {
            Ok(find(state, "inspect container", container).ok().map(|found| inspection(found)))
        })
        .await
    }

    async fn create_container(&self, container: &CreateContainer) -> Result<String, EngineError> {
        let call = "create container";
        self.call(call, |state| {
            let image = container.body.body.image.clone().unwrap_or_default();
            let by_id = |wanted: &str| state.images.values().any(|image| image.id.as_deref() == Some(wanted));
            if !state.images.contains_key(&image) && !by_id(&image) {
                return Err(EngineError::NotFound { call, message: format!("No such image: {image}") });
            }
            if state.containers.contains_key(&container.name) {
                let message = format!("the container name {:?} is already in use", container.name);
                return Err(EngineError::Conflict { call, message });
            }
            state.ids += 1;
            let endpoints = container
                .body
                .body
                .networking_config
                .as_ref()
                .and_then(|config| config.endpoints_config.clone())
                .unwrap_or_default();
            let mut made = FakeContainer {
                id: format!("{:064x}", state.ids),
                name: container.name.clone(),
                body: container.body.clone(),
                endpoints: endpoints.into_iter().collect(),
                anonymous: BTreeMap::new(),
                script: Script::default(),
                life: Life::Created,
            };
            made.script = state.scripts.get(&made.service()).cloned().unwrap_or_default();
            let mounts = container.body.body.host_config.iter().flat_map(|host| host.mounts.iter().flatten());
            let unnamed = mounts.filter(|mount| mount.typ == Some(MountType::VOLUME) && mount.source.is_none());
            let unnamed = unnamed.filter_map(|mount| mount.target.as_ref());
            for path in container.body.body.volumes.iter().flatten().chain(unnamed) {
                let name = format!("{:064x}", (u128::from(state.ids) << 64) + made.anonymous.len() as u128);
                state.volumes.insert(name.clone(), Volume { name: name.clone(), ..Volume::default() });
                made.anonymous.insert(path.clone(), name);
            }
            self.say(state, &format!("create {}", made.shown()));
            let id = made.id.clone();
            state.containers.insert(container.name.clone(), made);
            Ok(id)
        })
        .await
    }

    async fn start_container(&self, container: &str) -> Result<(), EngineError> {
        let call = "start container";
        let stuck = find(&mut self.state.lock().unwrap(), call, container).is_ok_and(|found| found.script.start_hangs);
        if stuck {
            return self.given_up(call).await;
        }
        self.call(call, |state| {
            let networks: Vec<String> = state.networks.keys().cloned().collect();
            let found = find(state, call, container)?;
            if matches!(found.life, Life::Running { .. }) {
                return Ok(());
            }
            if let Some(gone) = found.endpoints.keys().find(|name| !networks.contains(name)) {
                return Err(missing(call, gone));
            }
            let since = now();
            found.life = Life::Running { since, ends: found.script.runs_for.map(|span| since + span) };
            let (line, copy) = (format!("start {}", found.shown()), found.clone());
            self.emit(&copy, "start");
            self.say(state, &line);
            Ok(())
        })
        .await
    }

    async fn wait_container(&self, container: &str) -> Result<i64, EngineError> {
        let call = "wait for container";
        loop {
            let changed = self.changed.notified();
            let life = self.call(call, |state| Ok(find(state, call, container)?.life)).await?;
            match life {
                Life::Created => return Ok(0),
                Life::Exited { code, .. } => return Ok(code),
                Life::Starting(until) => sleep_until(until).await,
                Life::Running { ends: Some(ends), .. } => {
                    tokio::select! {
                        biased;
                        () = sleep_until(ends) => {}
                        () = changed => {}
                    }
                }
                Life::Running { ends: None, .. } => changed.await,
            }
        }
    }

    async fn stop_container(&self, container: &str, grace: Duration) -> Result<(), EngineError> {
        let call = "stop container";
        let ignores = self
            .call(call, |state| {
                let found = find(state, call, container)?;
                let (line, ignores) = (format!("stop {}", found.shown()), found.script.ignores_stop);
                if !matches!(found.life, Life::Running { .. }) {
                    return Ok(false);
                }
                if !ignores {
                    found.life = found.life.ended(143);
                }
                self.say(state, &line);
                Ok(ignores)
            })
            .await?;
        if ignores {
            tokio::time::sleep(grace).await;
            self.call(call, |state| {
                let found = find(state, call, container)?;
                if matches!(found.life, Life::Running { .. }) {
                    found.life = found.life.ended(137);
                    self.changed.notify_waiters();
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn kill_container(&self, container: &str) -> Result<(), EngineError> {
        let call = "kill container";
        self.call(call, |state| {
            let found = find(state, call, container)?;
            let line = format!("kill {}", found.shown());
            if matches!(found.life, Life::Running { .. }) {
                found.life = found.life.ended(137);
                self.say(state, &line);
            }
            Ok(())
        })
        .await
    }

    async fn remove_container(&self, container: &str, options: RemoveContainer) -> Result<(), EngineError> {
        let call = "remove container";
        self.call(call, |state| {
            let Ok(found) = find(state, call, container) else { return Ok(()) };
            if matches!(found.life, Life::Running { .. }) && !options.force {
                let message = format!("container {container} is running");
                return Err(EngineError::Conflict { call, message });
            }
            let (name, line) = (found.name.clone(), format!("remove {}", found.shown()));
            let gone = state.containers.remove(&name);
            if options.volumes {
                let anonymous = gone.into_iter().flat_map(|gone| gone.anonymous.into_values());
                anonymous.for_each(|volume| drop(state.volumes.remove(&volume)));
            }
            self.say(state, &line);
            Ok(())
        })
        .await
    }

    async fn rename_container(&self, container: &str, name: &str) -> Result<(), EngineError> {
        let call = "rename container";
        self.call(call, |state| {
            if state.containers.contains_key(name) {
                let message = format!("the container name {name:?} is already in use");
                return Err(EngineError::Conflict { call, message });
            }
            let old = find(state, call, container)?.name.clone();
            if let Some(mut found) = state.containers.remove(&old) {
                found.name = name.into();
                state.containers.insert(name.into(), found);
            }
            self.say(state, &format!("rename {old} to {name}"));
            Ok(())
        })
        .await
    }

    async fn logs_tail(&self, container: &str, limit: usize) -> Result<String, EngineError> {
        self.call("read logs", |state| {
            let output = find(state, "read logs", container)?.script.output.clone();
            let from = output.len().saturating_sub(limit);
            Ok(String::from_utf8_lossy(&output.as_bytes()[from..]).into_owned())
        })
        .await
    }

    async fn upload(&self, container: &str, upload: &Upload) -> Result<(), EngineError> {
        let call = "copy into container";
        self.call(call, |state| {
            let shown = find(state, call, container)?.shown();
            self.say(state, &format!("upload {} bytes to {shown}", upload.archive.len()));
            Ok(())
        })
        .await
    }

    async fn exec(&self, container: &str, command: &ExecCommand) -> Result<i64, EngineError> {
        let call = "exec in container";
        let (code, hangs) = self
            .call(call, |state| {
                let found = find(state, call, container)?;
                if !matches!(found.life, Life::Running { .. }) {
                    let message = format!("container {container} is not running");
                    return Err(EngineError::Conflict { call, message });
                }
                let line = format!("exec {} in {}", command.command.join(" "), found.shown());
                let ends = (found.script.exec_code, found.script.exec_hangs);
                self.say(state, &line);
                Ok(ends)
            })
            .await?;
        if hangs {
            std::future::pending::<()>().await;
        }
        Ok(code)
    }

    fn events(&self, labels: &[String]) -> impl Stream<Item = Result<EventMessage, EngineError>> + Send {
        let labels = labels.to_vec();
        let receiver = self.events.subscribe();
        async move {
            self.call("watch events", |_| Ok(())).await?;
            let state = (receiver, labels, now());
            Ok::<_, EngineError>(futures::stream::unfold(state, async |(mut receiver, labels, mut told)| {
                loop {
                    let event = tokio::select! {
                        biased;
                        event = receiver.recv() => event.ok()?,
                        event = self.next_health(&mut told) => event,
                    };
                    let attributes = event.actor.as_ref()?.attributes.clone().unwrap_or_default();
                    let matches = labels.iter().all(|label| match label.split_once('=') {
                        Some((key, value)) => attributes.get(key).is_some_and(|found| found == value),
                        None => attributes.contains_key(label),
                    });
                    if matches {
                        return Some((Ok(event), (receiver, labels, told)));
                    }
                }
            }))
        }
        .into_stream()
        .try_flatten()
    }
}

/// A moment of the test's clock as the Engine writes it.
fn stamp(moment: Instant) -> String {
    let seconds = Timestamp::now().0 - (now() - moment).as_secs_f64();
    humantime::format_rfc3339_nanos(std::time::UNIX_EPOCH + Duration::from_secs_f64(seconds)).to_string()
}

/// Lets the wall clock of this thread go on with the test's clock, which may stand still and leap.
fn follow_the_tests_clock() {
    let (origin, began) = (now(), Timestamp::now());
    clock::set_wall_clock(move || Timestamp(began.0 + (now() - origin).as_secs_f64()));
}

fn mounts(container: &FakeContainer) -> Vec<MountPoint> {
    let mount = |(path, volume): (&String, &String)| MountPoint {
        typ: Some("volume".into()),
        name: Some(volume.clone()),
        destination: Some(path.clone()),
        ..MountPoint::default()
    };
    container.anonymous.iter().map(mount).collect()
}

fn summary(container: &FakeContainer, networks: &BTreeMap<String, NetworkInspect>) -> ContainerSummary {
    let endpoint = |name: &String| {
        let network_id = networks.get(name).and_then(|network| network.id.clone());
        (name.clone(), EndpointSettings { network_id, ..EndpointSettings::default() })
    };
    let networks = container.endpoints.keys().map(endpoint).collect();
    let state = match container.life {
        Life::Created | Life::Starting(_) => ContainerSummaryStateEnum::CREATED,
        Life::Running { .. } => ContainerSummaryStateEnum::RUNNING,
        Life::Exited { .. } => ContainerSummaryStateEnum::EXITED,
    };
    ContainerSummary {
        id: Some(container.id.clone()),
        names: Some(vec![format!("/{}", container.name)]),
        image: container.body.body.image.clone(),
        labels: Some(container.labels()),
        state: Some(state),
        mounts: Some(mounts(container)),
        network_settings: Some(ContainerSummaryNetworkSettings { networks: Some(networks) }),
        ..ContainerSummary::default()
    }
}

fn inspection(container: &FakeContainer) -> ContainerInspectResponse {
    let never = || "0001-01-01T00:00:00Z".to_owned();
    let (status, code, started, finished) = match container.life {
        Life::Created | Life::Starting(_) => (ContainerStateStatusEnum::CREATED, 0, never(), never()),
        Life::Running { since, .. } => (ContainerStateStatusEnum::RUNNING, 0, stamp(since), never()),
        Life::Exited { code, since, at } => (ContainerStateStatusEnum::EXITED, code, stamp(since), stamp(at)),
    };
    let state = ContainerState {
        status: Some(status),
        running: Some(matches!(container.life, Life::Running { .. })),
        exit_code: Some(code),
        health: container.health().map(|status| Health { status: Some(status), ..Health::default() }),
        started_at: Some(started),
        finished_at: Some(finished),
        ..ContainerState::default()
    };
    ContainerInspectResponse {
        id: Some(container.id.clone()),
        name: Some(format!("/{}", container.name)),
        state: Some(state),
        mounts: Some(mounts(container)),
        config: Some(ContainerConfig { labels: Some(container.labels()), ..ContainerConfig::default() }),
        network_settings: Some(NetworkSettings {
            networks: Some(container.endpoints.clone().into_iter().collect()),
            ..NetworkSettings::default()
        }),
        ..ContainerInspectResponse::default()
    }
}
