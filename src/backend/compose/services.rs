//! Brings services up and down, as `docker compose up -d` and `stop` do.

use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::ComposeBackend;
use super::carry::Asker;
use super::decide::doing;
use super::turns::Object;
use crate::backend::{Failure, NotStarted, UpSpec};
use crate::clock::Timestamp;
use crate::compose::project::Project;
use crate::engine::Engine;
use crate::names::ServiceName;
use crate::plan::{self, Plan, Stack, State, Wanted};

impl<E: Engine> ComposeBackend<E> {
    pub(super) async fn bring_up(&self, spec: UpSpec<'_>, abort: &CancellationToken) -> Result<(), NotStarted> {
        let UpSpec { project, service, recreate_dependencies } = spec;
        debug_assert!(project.services.contains_key(service), "the project is selected for its service");
        let movable = project.services.keys().filter(|name| recreate_dependencies || *name == service);
        let wanted = Wanted::Up { movable: movable.cloned().collect() };
        let looked = async {
            let images = self.look_at_images(project).await?;
            let pulled = self.pull_images(project, &images).await?;
            let images = self.look_again(images, pulled).await?;
            let decided = self.decide(project, &wanted, &images, Plan::default()).await?;
            Ok::<_, Failure>((images, decided))
        };
        let (images, decided) = tokio::select! {
            biased;
            () = abort.cancelled() => return Err(NotStarted::Cancelled),
            looked = looked => looked?,
        };
        let asker = Asker { gone: abort.clone(), abort: abort.clone(), ..Asker::default() };
        self.bring_about(project, &wanted, &images, decided, &asker).await
    }

    pub(super) async fn bring_down(
        &self,
        project: &Project,
        service: &ServiceName,
        before: Option<Timestamp>,
    ) -> Result<bool, Failure> {
        // Others see that it is being stopped. Work that goes on is not waited for: a stop counts at once.
        let _turn = self.turns.try_take(&Object::Service(service.clone()), "stopped");
        let stack = self.observe(&project.name).await?;
        if let Some(moment) = before
            && self.started_since(service, &stack, moment).await?
        {
            return Ok(false);
        }
        for step in &plan::stop(project, service, &stack).steps {
            self.take(step).await?;
        }
        Ok(true)
    }

    pub(super) async fn restart_containers(&self, project: &Project, service: &ServiceName) -> Result<bool, Failure> {
        let (backend, project, service) = (self.clone(), project.clone(), service.clone());
        // What was stopped is started again also when nobody waits for it any more.
        let restart = async move {
            let _turn = backend.turns.try_take(&Object::Service(service.clone()), "restarted");
            let stack = backend.observe(&project.name).await?;
            if stack.of_service(&service).next().is_none() {
                return Ok(false);
            }
            let mut options = backend.spec_options(&project).await?;
            options.client_files = backend.projects.client_files(&project, &service)?;
            let mut steps = plan::stop(&project, &service, &stack).steps;
            let stopped = stack.after(&steps);
            steps.extend(plan::start(&project, &service, &stopped, &options).map_err(Failure::Plan)?.steps);
            for step in &steps {
                backend.take(step).await?;
            }
            Ok(true)
        };
        super::carry::joined(self.work.spawn(restart).await).unwrap_or(Ok(false))
    }

    /// Whether a container of the service was started after a moment.
    async fn started_since(&self, service: &ServiceName, stack: &Stack, moment: Timestamp) -> Result<bool, Failure> {
        for container in stack.of_service(service).filter(|container| container.state == State::Running) {
            let found = self.engine.container(&container.name).await;
            let found = found.map_err(doing(format!("inspect container {}", container.name)))?;
            let started = found.and_then(|found| Timestamp::from_rfc3339(&found.state?.started_at?));
            if started.is_some_and(|started| started > moment) {
                debug!(%service, container = container.name, "left running, started since");
                return Ok(true);
            }
        }
        Ok(false)
    }
}
