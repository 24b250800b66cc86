//! Begins runs as one-off containers, and finds those that are there.

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use futures::FutureExt;
use tokio::time::{Instant, sleep_until};

use super::ComposeBackend;
use super::one_off::{self, OneOffRun};
use crate::backend::{Bounds, Failure, FoundRun, NotStarted, RunSpec, RunState};
use crate::engine::Engine;
use crate::names::{ProjectName, RunId, ServiceName};
use crate::plan::{self, Convergence, startup_order};
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
}

impl<E: Engine> ComposeBackend<E> {
    pub(super) async fn begin_run(&self, spec: RunSpec<'_>, bounds: &mut Bounds) -> Result<OneOffRun, NotStarted> {
        let RunSpec { project, service, .. } = spec;
        let images = bounds.keep(self.look_at_images(project)).await?;
        // A pull takes what the line gives. Cut off at the limit it would begin anew each time, and never end.
        let pulling = Instant::now();
        bounds.due.suspend();
        let images = tokio::select! {
            () = bounds.cancelled() => return Err(NotStarted::Cancelled),
            images = self.pull_images(project, images) => images?,
        };
        bounds.deadline += pulling.elapsed();
        bounds.due.move_to(bounds.deadline);
        let how = Convergence::default();
        let turn = bounds.keep(self.preparation().map(Ok::<_, Failure>)).await?;
        // The service's own containers are none of a run's business, neither stopped nor recreated.
        self.ensure_surroundings(&project.without(service), &images, &how, turn).await?;
        for name in startup_order(project).iter().flatten() {
            bounds.keep(self.await_dependencies(project, name, (bounds.deadline, bounds.limit))).await?;
            if name != service {
                let turn = bounds.keep(self.preparation().map(Ok::<_, Failure>)).await?;
                self.start_containers(project, name, &images, turn).await?;
            }
        }
        let options = bounds.keep(self.service_options(project, service, &images)).await?;
        let plan = plan::run_one_off(project, service, &spec.one_off(), &options).map_err(Failure::Plan)?;
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
    /// The run as a one-off container of its service.
    pub(super) fn one_off(&self) -> OneOff {
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
    let run_id = labels.get(labels::SLUG).and_then(|slug| own_run(slug, &name, project, &service));
    let state = match container.state {
        Some(ContainerSummaryStateEnum::CREATED) => RunState::Created,
        Some(
            ContainerSummaryStateEnum::RUNNING
            | ContainerSummaryStateEnum::PAUSED
            | ContainerSummaryStateEnum::RESTARTING,
        ) => RunState::Alive,
        _ => RunState::Ended,
    };
    Some(FoundRun { own: run_id.map(|run_id| (run_id, OneOffRun::found(id))), container: name, service, state })
}

/// The run that a one-off is, where both its slug and its name are as we write them: labels alone can come with an image.
fn own_run(slug: &str, name: &str, project: &ProjectName, service: &ServiceName) -> Option<RunId> {
    let run_id: RunId = slug.get(..12).filter(|_| Slug::is_ours(slug, project, service))?.parse().ok()?;
    (name == one_off_name(project, service, &run_id)).then_some(run_id)
}
