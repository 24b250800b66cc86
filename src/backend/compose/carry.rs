//! Carries a graph out: what does not wait for each other is done at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ComposeBackend;
use super::decide::{Decided, Images};
use super::execute;
use super::turns::{Moment, Object, Turn, Waits};
use crate::backend::{Failure, NotStarted};
use crate::compose::project::Project;
use crate::engine::{Engine, EngineError};
use crate::names::ServiceName;
use crate::plan::{self, Call, Cause, Graph, Node, Plan, Stack, Stage, Step, Wanted};
use crate::report::Chain;

/// Longest that work may wait for dependencies to become ready, and for other work. Compose itself waits for ever.
const PATIENCE: Duration = Duration::from_mins(5);

/// How long after the daemon was told to end it says what still goes on: before it gives up waiting.
const TELL_UNFINISHED: Duration = Duration::from_secs(10);

/// Who waits for work, and until when it is wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Asker {
    /// Nobody wants it any more: what was not begun is not done.
    pub(super) gone: CancellationToken,
    /// The daemon ends, or the work is called off: nothing is waited for.
    pub(super) abort: CancellationToken,
    /// What is waited for.
    pub(super) waits: Arc<Waits>,
}

impl<E: Engine> ComposeBackend<E> {
    /// Takes a step.
    pub(super) async fn take(&self, step: &Step) -> Result<(), Failure> {
        info!(%step, "engine call");
        execute::step(self.engine.as_ref(), step).await
    }

    /// Carries out what was decided. What was begun is finished also when the caller is gone.
    pub(super) async fn bring_about(
        &self,
        project: &Project,
        wanted: &Wanted,
        images: &Images,
        Decided { graph, seen_at }: Decided,
        asker: &Asker,
    ) -> Result<(), NotStarted> {
        self.tell(project, &graph);
        let objects = graph.stages.iter().filter_map(|stage| object(project, &stage.node));
        let settled = graph.is_empty() && !objects.into_iter().any(|object| self.turns.is_stale(&object, seen_at));
        let Graph { stages, outcome, .. } = graph;
        if settled {
            return Work::new(self, (project, wanted, images), asker, seen_at, outcome).carry_out(stages).await;
        }
        let (backend, asker) = (self.clone(), asker.clone());
        let (project, wanted, images) = (project.clone(), wanted.clone(), images.clone());
        let task = self.work.spawn(async move {
            let work = Work::new(&backend, (&project, &wanted, &images), &asker, seen_at, outcome);
            let work = work.carry_out(stages);
            let at_the_end = async {
                asker.abort.cancelled().await;
                sleep(TELL_UNFINISHED).await;
                let unfinished = backend.turns.unfinished().join(", ");
                warn!(unfinished, "work on services still goes on");
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                done = work => done,
                () = at_the_end => Err(NotStarted::Cancelled),
            }
        });
        joined(task.await).unwrap_or(Err(NotStarted::Cancelled))
    }
}

/// What a task came to, its panic included; none where the runtime ended first.
pub(super) fn joined<T>(ended: Result<T, tokio::task::JoinError>) -> Option<T> {
    match ended.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => Some(done),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => None,
    }
}

/// The object that a stage works on; none for what belongs to one run alone.
fn object(project: &Project, node: &Node) -> Option<Object> {
    match node {
        Node::Network(key) => Some(Object::Network(project.networks.get(key)?.name.clone())),
        Node::Volume(key) => Some(Object::Volume(project.volumes.get(key)?.name.clone())),
        Node::Stopped(name) | Node::Created(name) | Node::Started(name) => Some(Object::Service(name.clone())),
        Node::Image(_) | Node::Run(_) => None,
    }
}

/// A service whose turn is held.
struct Held {
    turn: Turn,
    /// Its containers were stopped, recreated or created: they have to be started, whoever is gone.
    begun: bool,
    /// How it is to be started, where that was decided again.
    start: Option<Stage>,
}

/// One graph being carried out.
struct Work<'a, E> {
    backend: &'a ComposeBackend<E>,
    project: &'a Project,
    wanted: &'a Wanted,
    images: &'a Images,
    asker: &'a Asker,
    seen_at: Moment,
    outcome: Stack,
    until: Instant,
    held: Mutex<BTreeMap<ServiceName, Held>>,
    /// Services of which containers were created.
    made: Mutex<BTreeSet<ServiceName>>,
}

impl<'a, E: Engine> Work<'a, E> {
    fn new(
        backend: &'a ComposeBackend<E>,
        (project, wanted, images): (&'a Project, &'a Wanted, &'a Images),
        asker: &'a Asker,
        seen_at: Moment,
        outcome: Stack,
    ) -> Self {
        let (until, held, made) = (Instant::now() + PATIENCE, Mutex::default(), Mutex::default());
        Self { backend, project, wanted, images, asker, seen_at, outcome, until, held, made }
    }

    /// Each stage once those that it waits for are done. After a failure nothing new is begun, and what was stopped is
    /// started again.
    async fn carry_out(&self, stages: Vec<Stage>) -> Result<(), NotStarted> {
        let steps = |stage: &&Stage| !stage.steps.is_empty();
        let busy: BTreeSet<Node> = stages.iter().filter(steps).map(|stage| stage.node.clone()).collect();
        let (mut waiting, mut done, mut failed) = (stages, BTreeSet::new(), None);
        let mut running = FuturesUnordered::new();
        loop {
            if failed.is_none() {
                let (ready, later) = waiting.into_iter().partition(|stage: &Stage| stage.after.is_subset(&done));
                waiting = later;
                let ready: Vec<Stage> = ready;
                running
                    .extend(ready.into_iter().map(async |stage| (stage.node.clone(), self.stage(stage, &busy).await)));
            }
            match running.next().await {
                None => break,
                Some((node, Ok(()))) => drop(done.insert(node)),
                Some((_, Err(why))) => failed = failed.or(Some(why)),
            }
        }
        let Some(why) = failed else { return Ok(()) };
        for stage in waiting {
            if let Node::Started(name) = &stage.node
                && let Some(held) = self.release(name).filter(|held| held.begun)
                && let Err(failure) = self.take_all(held.start.as_ref().unwrap_or(&stage)).await
            {
                let error = self.backend.projects.redact(&Chain(&failure).to_string());
                warn!(service = %name, error, "service not started again");
            }
        }
        Err(why)
    }

    async fn stage(&self, stage: Stage, busy: &BTreeSet<Node>) -> Result<(), NotStarted> {
        match &stage.node {
            // Images are pulled before, and the run is its asker's.
            Node::Image(_) | Node::Run(_) => Ok(()),
            Node::Network(_) | Node::Volume(_) => self.resource(stage).await,
            Node::Stopped(name) | Node::Created(name) => {
                let name = name.clone();
                let is_busy = busy.contains(&stage.node) || busy.contains(&Node::Started(name.clone()));
                self.containers(&name, stage, is_busy).await
            }
            Node::Started(name) => {
                let name = name.clone();
                self.start(&name, stage).await
            }
        }
    }

    /// Makes sure of a network or volume.
    async fn resource(&self, stage: Stage) -> Result<(), NotStarted> {
        let Some(object) = object(self.project, &stage.node) else { return Ok(()) };
        if stage.steps.is_empty() && !self.backend.turns.is_stale(&object, self.seen_at) {
            return Ok(());
        }
        let _turn = self.turn(&object, stage.doing()).await?;
        let stage = if self.backend.turns.changed_since(&object, self.seen_at) {
            self.decided_again(&stage.node).await?.0
        } else {
            stage
        };
        match self.take_all(&stage).await {
            // Somebody else was faster: look again, once.
            Err(Failure::Engine { source: EngineError::Conflict { .. }, .. }) => {
                let again = self.decided_again(&stage.node).await?.0;
                self.take_all(&again).await?;
            }
            done => done?,
        }
        if let (Node::Network(key), false) = (&stage.node, stage.steps.is_empty()) {
            self.settle_network(key).await?;
        }
        Ok(())
    }

    /// Removes the networks that others made beside a new one at the same time.
    async fn settle_network(&self, key: &str) -> Result<(), Failure> {
        let Some(network) = self.project.networks.get(key) else { return Ok(()) };
        let seen = self.backend.look_at_network(&network.name).await?;
        let Plan { steps, .. } = plan::surplus_networks(self.project, key, &seen);
        self.take_steps(&Node::Network(key.to_owned()), &steps).await
    }

    /// Stops, creates or recreates a service's containers. The turn is held until they are started.
    async fn containers(&self, name: &ServiceName, mut stage: Stage, is_busy: bool) -> Result<(), NotStarted> {
        let object = Object::Service(name.clone());
        let mut start = None;
        if !self.held().contains_key(name) {
            if !is_busy && !self.backend.turns.is_stale(&object, self.seen_at) {
                return Ok(());
            }
            let turn = self.turn(&object, stage.doing()).await?;
            let names_new = || !self.made.lock().unwrap_or_else(PoisonError::into_inner).is_disjoint(&stage.names);
            if self.backend.turns.changed_since(&object, self.seen_at) || names_new() {
                (stage, start) = self.decided_again(&stage.node).await?;
            }
            self.held().insert(name.clone(), Held { turn, begun: false, start });
        }
        if let Some(held) = self.held().get_mut(name) {
            held.begun |= !stage.steps.is_empty();
        }
        if stage.steps.iter().any(|step| matches!(step.call, Call::CreateContainer(_))) {
            self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        }
        Ok(self.take_all(&stage).await?)
    }

    /// Starts a service's containers once its dependencies are ready.
    async fn start(&self, name: &ServiceName, mut stage: Stage) -> Result<(), NotStarted> {
        let held = self.release(name);
        let begun = held.as_ref().is_some_and(|held| held.begun);
        let turn = held.map(|held| {
            if let Some(start) = held.start {
                stage = start;
            }
            held.turn
        });
        let wanted = if begun { &self.asker.abort } else { &self.asker.gone };
        let patience = (self.until, PATIENCE);
        tokio::select! {
            biased;
            ready = self.backend.await_ready(self.project, name, &self.outcome, &self.asker.waits, patience) => ready?,
            // What was begun is not left stopped.
            () = wanted.cancelled(), if !begun => return Err(NotStarted::Cancelled),
            () = wanted.cancelled(), if begun => {}
        }
        let done = self.take_all(&stage).await;
        drop(turn);
        Ok(done?)
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, name: &ServiceName) -> Option<Held> {
        self.held().remove(name)
    }

    /// Waits for a turn, and says for whom.
    async fn turn(&self, object: &Object, doing: &'static str) -> Result<Turn, NotStarted> {
        if self.asker.gone.is_cancelled() {
            return Err(NotStarted::Cancelled);
        }
        if let Some(turn) = self.backend.turns.try_take(object, doing) {
            return Ok(turn);
        }
        let what = format!("{object}, which is being {}", self.backend.turns.doing(object).unwrap_or("looked at"));
        info!(waits_for = what, "waiting for work in the way");
        let _waiting = self.asker.waits.note(object, what.clone());
        tokio::select! {
            biased;
            () = self.asker.gone.cancelled() => Err(NotStarted::Cancelled),
            turn = self.backend.turns.take(object, doing) => Ok(turn),
            () = sleep_until(self.until) => Err(Failure::Waiting { limit: PATIENCE, what }.into()),
        }
    }

    /// The stage as it has to be after what others did meanwhile, and for a service the one that starts it.
    async fn decided_again(&self, node: &Node) -> Result<(Stage, Option<Stage>), NotStarted> {
        let deciding = self.backend.decide(self.project, self.wanted, self.images, Plan::default());
        let mut graph = tokio::select! {
            biased;
            () = self.asker.gone.cancelled() => return Err(NotStarted::Cancelled),
            decided = deciding => decided?.graph,
        };
        self.backend.tell(self.project, &graph);
        let start = match node {
            Node::Created(name) | Node::Stopped(name) => graph.take(&Node::Started(name.clone())),
            Node::Image(_) | Node::Network(_) | Node::Volume(_) | Node::Started(_) | Node::Run(_) => None,
        };
        Ok((graph.take(node).unwrap_or_else(|| Stage::nothing(node.clone())), start))
    }

    async fn take_all(&self, stage: &Stage) -> Result<(), Failure> {
        self.take_steps(&stage.node, &stage.steps).await
    }

    async fn take_steps(&self, node: &Node, steps: &[Step]) -> Result<(), Failure> {
        for step in steps {
            let _waiting = self.asker.waits.note(node, format!("the engine's answer to `{}`", step.call));
            match self.backend.take(step).await {
                // Where it is in use already, the next run tries again.
                Err(failure) if step.cause == Cause::NetworkTwice => {
                    warn!(error = %Chain(&failure), "network made twice");
                }
                done => done?,
            }
        }
        Ok(())
    }
}
