//! What a service needs before it starts: images, networks, volumes, and dependencies that are ready.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::MutexGuard;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::ComposeBackend;
use super::execute::step;
use crate::backend::Failure;
use crate::clock::Timestamp;
use crate::compose::project::Project;
use crate::engine::{Engine, EngineError};
use crate::names::{ProjectName, ServiceName};
use crate::plan::{self, Convergence, ImageSeen, NetworkSeen, Readiness, Stack, VolumeSeen, startup_order};
use crate::report::Chain;
use crate::spec::{self, SpecOptions, labels};

/// Longest time between two looks at dependencies that are not ready: an event may be missed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Local images by reference.
pub(super) type Images = BTreeMap<String, ImageSeen>;

/// Says what was being done when a call failed.
pub(super) fn doing(step: impl Into<String>) -> impl FnOnce(EngineError) -> Failure {
    let step = step.into();
    |source| Failure::Engine { step, source }
}

impl<E: Engine> ComposeBackend<E> {
    /// The project's containers that Compose knows of.
    pub(super) async fn observe(&self, project: &ProjectName) -> Result<Stack, Failure> {
        let wanted = [format!("{}={project}", labels::PROJECT), labels::CONFIG_HASH.to_owned()];
        let listed = self.engine.containers(&wanted).await.map_err(doing("list the project's containers"))?;
        Ok(Stack::of(&listed))
    }

    /// The local images that the project's services name.
    pub(super) async fn look_at_images(&self, project: &Project) -> Result<Images, Failure> {
        let mut images = Images::new();
        for (name, service) in &project.services {
            let reference = spec::image_name(project, name, service);
            self.look_at_image(reference, &mut images).await?;
        }
        Ok(images)
    }

    /// Pulls the images that are to be pulled, given the local ones, and returns those that are local then.
    pub(super) async fn pull_images(&self, project: &Project, mut images: Images) -> Result<Images, Failure> {
        let plan = plan::ensure_images(project, &images, Timestamp::now()).map_err(Failure::Plan)?;
        if plan.is_empty() {
            return Ok(images);
        }
        self.execute(&plan).await?;
        for step in &plan.steps {
            if let plan::Call::PullImage(image) = &step.call {
                images.remove(&image.reference);
                self.look_at_image(image.reference.clone(), &mut images).await?;
            }
        }
        Ok(images)
    }

    async fn look_at_image(&self, reference: String, images: &mut Images) -> Result<(), Failure> {
        if images.contains_key(&reference) {
            return Ok(());
        }
        let found = self.engine.image(&reference).await.map_err(doing(format!("inspect image {reference}")))?;
        images.extend(found.map(|image| (reference, ImageSeen::from(&image))));
        Ok(())
    }

    /// Waits for a turn to make what the project's services share: two runs must not make the same network.
    pub(super) async fn preparation(&self) -> MutexGuard<'_, ()> {
        self.preparation.lock().await
    }

    /// Makes sure of networks, volumes and containers of the project; for a run, that is the project without its target.
    pub(super) async fn ensure_surroundings(
        &self,
        project: &Project,
        images: &Images,
        how: &Convergence,
        _turn: MutexGuard<'_, ()>,
    ) -> Result<(), Failure> {
        let options = self.options(project).await?;
        let mut stack = self.observe(&project.name).await?;
        for key in project.networks.keys() {
            self.ensure_network(project, key, &mut stack, &options).await?;
        }
        for (key, volume) in &project.volumes {
            let seen = self.look_at_volume(&volume.name).await?;
            let plan = plan::ensure_volume(project, key, seen.as_ref(), &options).map_err(Failure::Plan)?;
            self.execute(&plan).await?;
        }
        for name in startup_order(project).iter().flatten() {
            let options = self.options_for(project, name, images, &stack, options.clone())?;
            let image = project.services.get(name).map(|service| spec::image_name(project, name, service));
            let image_volumes = image.and_then(|image| Some(images.get(&image)?.volumes.clone())).unwrap_or_default();
            let how = Convergence { image_volumes, ..how.clone() };
            let plan = plan::converge(project, name, &stack, &how, &options).map_err(Failure::Plan)?;
            if !plan.is_empty() {
                self.execute(&plan).await?;
                let networks = std::mem::take(&mut stack.networks);
                stack = self.observe(&project.name).await?;
                stack.networks = networks;
            }
        }
        Ok(())
    }

    /// Finds or makes a network, and notes its id.
    async fn ensure_network(
        &self,
        project: &Project,
        key: &str,
        stack: &mut Stack,
        options: &SpecOptions,
    ) -> Result<(), Failure> {
        let Some(name) = project.networks.get(key).map(|network| network.name.as_str()) else { return Ok(()) };
        let mut retried = false;
        loop {
            let seen = self.settle_network(project, key, name).await?;
            if let Some(id) = plan::network_id(project, key, &seen).map_err(Failure::Plan)? {
                stack.networks.insert(key.to_owned(), id);
            }
            let plan = plan::ensure_network(project, key, &seen, stack, options).map_err(Failure::Plan)?;
            if plan.is_empty() {
                super::execute::warn_of(&plan);
                return Ok(());
            }
            match self.execute(&plan).await {
                // Somebody else was faster: look again, once.
                Err(Failure::Engine { source: EngineError::Conflict { .. }, .. }) if !retried => retried = true,
                Err(failure) => return Err(failure),
                Ok(()) => {
                    let seen = self.settle_network(project, key, name).await?;
                    if let Some(id) = plan::network_id(project, key, &seen).map_err(Failure::Plan)? {
                        stack.networks.insert(key.to_owned(), id);
                    }
                    let networks = std::mem::take(&mut stack.networks);
                    *stack = self.observe(&project.name).await?;
                    stack.networks = networks;
                    return Ok(());
                }
            }
        }
    }

    /// Looks at a network, and removes those that were made beside it at the same time.
    async fn settle_network(&self, project: &Project, key: &str, name: &str) -> Result<Vec<NetworkSeen>, Failure> {
        let seen = self.look_at_network(name).await?;
        let surplus = plan::surplus_networks(project, key, &seen);
        for next in &surplus.steps {
            // Where it is in use already, the next run tries again.
            match step(self.engine.as_ref(), next).await {
                Ok(()) => info!(step = %next, "engine call"),
                Err(failure) => warn!(error = %Chain(&failure), "network made twice"),
            }
        }
        if surplus.is_empty() { Ok(seen) } else { self.look_at_network(name).await }
    }

    pub(super) async fn look_at_volume(&self, name: &str) -> Result<Option<VolumeSeen>, Failure> {
        let found = self.engine.volume(name).await.map_err(doing(format!("inspect volume {name}")))?;
        Ok(found.as_ref().map(VolumeSeen::from))
    }

    /// The network of a name or id, else those whose names contain it.
    pub(super) async fn look_at_network(&self, name: &str) -> Result<Vec<NetworkSeen>, Failure> {
        let engine = self.engine.as_ref();
        match engine.network(name).await {
            Ok(Some(found)) => return Ok(vec![NetworkSeen::from(&found)]),
            // The name may be that of several networks.
            Ok(None) | Err(EngineError::Call { .. }) => {}
            Err(error) => return Err(doing(format!("inspect network {name}"))(error)),
        }
        let listed = engine.networks(name).await.map_err(doing(format!("look for network {name}")))?;
        Ok(listed.iter().map(NetworkSeen::from).collect())
    }

    /// Starts the service's containers that do not run.
    pub(super) async fn start_containers(
        &self,
        project: &Project,
        name: &ServiceName,
        images: &Images,
        _turn: MutexGuard<'_, ()>,
    ) -> Result<(), Failure> {
        let stack = self.observe(&project.name).await?;
        let options = self.options_for(project, name, images, &stack, self.options(project).await?)?;
        let plan = plan::start(project, name, &stack, &options).map_err(Failure::Plan)?;
        self.execute(&plan).await
    }

    /// Waits until the service's dependencies are as it asks, at most until a deadline, which was so long after its begin.
    pub(super) async fn await_dependencies(
        &self,
        project: &Project,
        name: &ServiceName,
        (deadline, limit): (Instant, Duration),
    ) -> Result<(), Failure> {
        let awaited = plan::awaited(project, name);
        if awaited.is_empty() {
            return Ok(());
        }
        let labels = [format!("{}={}", labels::PROJECT, project.name)];
        let mut events = std::pin::pin!(self.engine.events(&labels).fuse());
        loop {
            let stack = self.observe(&project.name).await?;
            let mut inspected = BTreeMap::new();
            for dependency in &awaited {
                let mut containers = Vec::new();
                for container in stack.of_service(dependency.name) {
                    let found = self.engine.container(&container.name).await;
                    containers.extend(found.map_err(doing(format!("inspect container {}", container.name)))?);
                }
                inspected.insert(dependency.name.clone(), containers);
            }
            let dependency = match plan::readiness(name, &awaited, &inspected).map_err(Failure::Plan)? {
                Readiness::Ready { warnings } => {
                    for warning in warnings {
                        warn!(warning, "dependency not as wanted");
                    }
                    return Ok(());
                }
                Readiness::NotYet { dependency } => dependency,
            };
            debug!(service = %name, %dependency, "waiting for a dependency");
            tokio::select! {
                Some(_) = events.next() => {}
                () = sleep(LOOK_AGAIN) => {}
                () = sleep_until(deadline) => return Err(Failure::NotReady { dependency, limit }),
            }
        }
    }

    /// What bodies depend on besides the project, for no service in particular.
    pub(super) async fn options(&self, project: &Project) -> Result<SpecOptions, Failure> {
        let version = self.engine.version().await.map_err(doing("ask the engine's version"))?;
        debug!(project = %project.name, api = %version.api, "preparing");
        let mut options = SpecOptions::new(version.api, self.options.dialect);
        options.proxies.clone_from(&self.options.proxies);
        options.registry_config.clone_from(&self.options.registry_config);
        Ok(options)
    }

    /// What a service's bodies depend on besides the project.
    pub(super) async fn service_options(
        &self,
        project: &Project,
        name: &ServiceName,
        images: &Images,
    ) -> Result<SpecOptions, Failure> {
        let stack = self.observe(&project.name).await?;
        self.options_for(project, name, images, &stack, self.options(project).await?)
    }

    pub(super) fn options_for(
        &self,
        project: &Project,
        name: &ServiceName,
        images: &Images,
        stack: &Stack,
        mut options: SpecOptions,
    ) -> Result<SpecOptions, Failure> {
        let Some(service) = project.services.get(name) else { return Ok(options) };
        let image = images.get(&spec::image_name(project, name, service));
        options.image_id = image.map(|image| image.id.clone());
        options.peers = stack.peers();
        options.client_files = self.projects.client_files(project, name)?;
        Ok(options)
    }
}
