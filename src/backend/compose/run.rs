//! Begins runs as one-off containers, and finds those that are there.

use std::pin::pin;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::ComposeBackend;
use super::carry::Asker;
use super::one_off::{self, OneOffRun};
use super::turns::Waits;
use crate::backend::{Bounds, Failure, FoundRun, NotStarted, RunSpec, RunState};
use crate::engine::Engine;
use crate::names::{ProjectName, RunId, ServiceName};
use crate::plan::{self, Node, Plan, Wanted};
use crate::spec::{OneOff, Slug, labels, one_off_name, own_name};

impl Bounds {
    /// Gives work up at the deadline or at the shutdown. For work that may be left half-way: looks, and waits.
    async fn keep<T, F: Into<NotStarted>>(&self, work: impl Future<Output = Result<T, F>>) -> Result<T, NotStarted> {
        tokio::select! {
            biased;
            done = work => done.map_err(Into::into),
            () = self.cancelled() => Err(NotStarted::Cancelled),
            () = sleep_until(self.deadline) => Err(NotStarted::TimedOut(Failure::TooLate(self.limit))),
        }
    }

    /// As [`Bounds::keep`], with what was waited for in the error.
    async fn keep_waiting<T>(
        &self,
        waits: &Waits,
        work: impl Future<Output = Result<T, NotStarted>>,
    ) -> Result<T, NotStarted> {
        let mut work = pin!(work);
        match self.keep(work.as_mut()).await {
            Err(NotStarted::TimedOut(Failure::TooLate(limit))) => {
                let failure = waits.first().map_or(Failure::TooLate(limit), |what| Failure::Waiting { limit, what });
                Err(NotStarted::TimedOut(failure))
            }
            done => done,
        }
    }
}

impl<E: Engine> ComposeBackend<E> {
    pub(super) async fn begin_run(&self, spec: RunSpec<'_>, bounds: &mut Bounds) -> Result<OneOffRun, NotStarted> {
        let RunSpec { project, service, .. } = spec;
        let (wanted, node) = (spec.wanted(), Node::Run(service.clone()));
        let images = bounds.keep(self.look_at_images(project)).await?;
        // A pull takes what the line gives. Cut off at the limit it would begin anew each time, and never end.
        let pulling = Instant::now();
        bounds.due.suspend();
        let pulled = tokio::select! {
            biased;
            () = bounds.cancelled() => return Err(NotStarted::Cancelled),
            pulled = self.pull_images(project, &images) => pulled?,
        };
        bounds.deadline += pulling.elapsed();
        bounds.due.move_to(bounds.deadline);
        let images = bounds.keep(self.look_again(images, pulled)).await?;

        let gone = CancellationToken::new();
        let _gone_with_us = gone.clone().drop_guard();
        let asker = Asker { gone, abort: bounds.abort.clone(), ..Asker::default() };
        let mut decided = bounds.keep(self.decide(project, &wanted, &images, Plan::default())).await?;
        let mut run = decided.graph.take(&node);
        let made = decided.graph.creates();
        let stack = decided.graph.outcome.clone();
        bounds.keep_waiting(&asker.waits, self.bring_about(project, &wanted, &images, decided, &asker)).await?;
        let patience = (bounds.deadline, bounds.limit);
        bounds.keep(self.await_ready(project, service, &stack, &asker.waits, patience)).await?;
        if run.as_ref().is_some_and(|run| !run.names.is_disjoint(&made)) {
            run = bounds.keep(self.decide(project, &wanted, &images, Plan::default())).await?.graph.take(&node);
        }
        let plan = Plan { steps: run.map(|run| run.steps).unwrap_or_default(), ..Plan::default() };
        Ok(one_off::begin(self.engine.as_ref(), &plan, plan::grace(project.services.get(service)), bounds).await)
    }

    /// The project's one-off containers, of one service or of all.
    pub(super) async fn found_runs(
        &self,
        project: &ProjectName,
        service: Option<&ServiceName>,
    ) -> Result<Vec<FoundRun<OneOffRun>>, Failure> {
        let mut wanted = vec![format!("{}={project}", labels::PROJECT), format!("{}=True", labels::ONE_OFF)];
        wanted.extend(service.map(|service| format!("{}={service}", labels::SERVICE)));
        let listed = self
            .engine
            .containers(&wanted)
            .await
            .map_err(|source| Failure::Engine { step: "look for earlier runs".into(), source })?;
        Ok(listed.into_iter().filter_map(|container| found(container, project)).collect())
    }
}

impl RunSpec<'_> {
    /// The run as what a plan is made for.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted::Run { service: self.service.clone(), run: self.one_off() }
    }

    fn one_off(&self) -> OneOff {
        let environment = self.environment.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        OneOff { slug: self.slug.clone(), environment: environment.collect() }
    }
}

fn found(container: ContainerSummary, project: &ProjectName) -> Option<FoundRun<OneOffRun>> {
    let name = own_name(&container).map(str::to_owned);
    let labels = container.labels.unwrap_or_default();
    let service: ServiceName = labels.get(labels::SERVICE)?.parse().ok()?;
    let id = container.id?;
    let name = name.unwrap_or_else(|| id.clone());
    let slug = labels.get(labels::SLUG).map(String::as_str);
    let run_id = slug.and_then(|slug| own_run(slug, project, &service));
    let begun_by = slug.filter(|_| run_id.is_some()).and_then(Slug::birth);
    let renamed = run_id.as_ref().is_some_and(|run_id| name != one_off_name(project, &service, run_id));
    let state = match container.state {
        Some(ContainerSummaryStateEnum::CREATED) => RunState::Created,
        Some(
            ContainerSummaryStateEnum::RUNNING
            | ContainerSummaryStateEnum::PAUSED
            | ContainerSummaryStateEnum::RESTARTING,
        ) => RunState::Alive,
        _ => RunState::Ended,
    };
    let own = run_id.map(|run_id| (run_id, OneOffRun::found(id)));
    Some(FoundRun { own, begun_by, renamed, container: name, service, state })
}

/// The run that a one-off is, where its slug is as we write them.
fn own_run(slug: &str, project: &ProjectName, service: &ServiceName) -> Option<RunId> {
    slug.get(..12).filter(|_| Slug::is_ours(slug, project, service))?.parse().ok()
}
