//! Looks at the Engine, and decides from what is there what is to be done.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use futures::future::{OptionFuture, try_join_all};
use tracing::{debug, warn};

use super::ComposeBackend;
use super::turns::Moment;
use crate::backend::{Failure, RunSpec};
use crate::clock::Timestamp;
use crate::compose::project::Project;
use crate::engine::{Engine, EngineError};
use crate::names::ProjectName;
use crate::plan::{self, Call, Graph, ImageSeen, NetworkSeen, Plan, Seen, Stack, VolumeSeen, Wanted};
use crate::spec::{self, SpecOptions, labels};

/// What is remembered of what was told: more than any project has objects that differ.
const MOST_WARNED: usize = 1000;

/// Local images by reference.
pub(super) type Images = BTreeMap<String, ImageSeen>;

/// What is to be done, and since when nothing else must have been done for it to hold.
pub(super) struct Decided {
    pub(super) graph: Graph,
    pub(super) seen_at: Moment,
}

/// Says what was being done when a call failed.
pub(super) fn doing(step: impl Into<String>) -> impl FnOnce(EngineError) -> Failure {
    let step = step.into();
    |source| Failure::Engine { step, source }
}

impl<E: Engine> ComposeBackend<E> {
    /// The steps of a run as they would be now. Nothing is changed.
    pub(super) async fn plan_run(&self, spec: RunSpec<'_>) -> Result<Graph, Failure> {
        let images = self.look_at_images(spec.project).await?;
        let pulls = plan::ensure_images(spec.project, &images, Timestamp::now()).map_err(Failure::Plan)?;
        Ok(self.decide(spec.project, &spec.wanted(), &images, pulls).await?.graph)
    }

    /// Looks at everything that counts, all at once, and decides.
    pub(super) async fn decide(
        &self,
        project: &Project,
        wanted: &Wanted,
        images: &Images,
        pulls: Plan,
    ) -> Result<Decided, Failure> {
        let seen_at = self.turns.now();
        let needs_containers = plan::needs_containers(project, wanted);
        let stack: OptionFuture<_> = needs_containers.then(|| self.observe(&project.name)).into();
        let networks = project
            .networks
            .iter()
            .map(async |(key, network)| Ok::<_, Failure>((key.clone(), self.look_at_network(&network.name).await?)));
        let volumes = project.volumes.iter().map(async |(key, volume)| {
            Ok::<_, Failure>(self.look_at_volume(&volume.name).await?.map(|seen| (key.clone(), seen)))
        });
        let (options, stack, networks, volumes) =
            futures::join!(self.spec_options(project), stack, try_join_all(networks), try_join_all(volumes));
        let mut seen = Seen {
            stack: stack.transpose()?.unwrap_or_default(),
            networks: networks?.into_iter().collect(),
            volumes: volumes?.into_iter().flatten().collect(),
            images: images.clone(),
            client_files: BTreeMap::new(),
        };
        for name in project.services.keys() {
            seen.client_files.insert(name.clone(), self.projects.client_files(project, name)?);
        }
        let options = options?;
        let mut graph = plan::arrange(project, wanted, &seen, pulls.clone(), &options).map_err(Failure::Plan)?;
        if !needs_containers && graph.changes_networks() {
            seen.stack = self.observe(&project.name).await?;
            graph = plan::arrange(project, wanted, &seen, pulls, &options).map_err(Failure::Plan)?;
        }
        Ok(Decided { graph, seen_at })
    }

    /// The project's containers that Compose knows of.
    pub(super) async fn observe(&self, project: &ProjectName) -> Result<Stack, Failure> {
        let wanted = [format!("{}={project}", labels::PROJECT), labels::CONFIG_HASH.to_owned()];
        let listed = self.engine.containers(&wanted).await.map_err(doing("list the project's containers"))?;
        Ok(Stack::of(&listed))
    }

    /// The local images that the project's services name.
    pub(super) async fn look_at_images(&self, project: &Project) -> Result<Images, Failure> {
        let services = project.services.iter();
        let references: std::collections::BTreeSet<String> =
            services.map(|(name, service)| spec::image_name(project, name, service)).collect();
        self.look_at(references).await
    }

    async fn look_at(&self, references: impl IntoIterator<Item = String>) -> Result<Images, Failure> {
        let looks = references.into_iter().map(async |reference| {
            let found = self.engine.image(&reference).await.map_err(doing(format!("inspect image {reference}")))?;
            Ok::<_, Failure>(found.map(|image| (reference, ImageSeen::from(&image))))
        });
        Ok(try_join_all(looks).await?.into_iter().flatten().collect())
    }

    /// Pulls the images that are to be pulled, given the local ones, and returns which those were.
    pub(super) async fn pull_images(&self, project: &Project, images: &Images) -> Result<Vec<String>, Failure> {
        let plan = plan::ensure_images(project, images, Timestamp::now()).map_err(Failure::Plan)?;
        self.warn_of(&plan.warnings);
        try_join_all(plan.steps.iter().map(|step| self.take(step))).await?;
        let pulled = plan.steps.into_iter().filter_map(|step| match step.call {
            Call::PullImage(image) => Some(image.reference),
            _ => None,
        });
        Ok(pulled.collect())
    }

    /// Looks again at images that were pulled: they may be others now.
    pub(super) async fn look_again(&self, mut images: Images, pulled: Vec<String>) -> Result<Images, Failure> {
        images.retain(|reference, _| !pulled.contains(reference));
        images.extend(self.look_at(pulled).await?);
        Ok(images)
    }

    async fn look_at_volume(&self, name: &str) -> Result<Option<VolumeSeen>, Failure> {
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

    /// What bodies depend on besides the project, for no service in particular.
    pub(super) async fn spec_options(&self, project: &Project) -> Result<SpecOptions, Failure> {
        let version = self.engine.version().await.map_err(doing("ask the engine's version"))?;
        debug!(project = %project.name, api = %version.api, "preparing");
        let mut options = SpecOptions::new(version.api, self.options.dialect);
        options.proxies.clone_from(&self.options.proxies);
        options.registry_config.clone_from(&self.options.registry_config);
        Ok(options)
    }

    /// Tells what differs from the files and stays so, and what Compose would warn of: each once, until it changes.
    pub(super) fn tell(&self, project: &Project, graph: &Graph) {
        self.warn_of(&graph.warnings);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        for difference in &graph.left {
            let (object, what) = (difference.object(), difference.what());
            if warned.get(&object) != Some(&what) {
                let remedy = difference.remedy();
                warn!(object, difference = what, remedy, "differs from its configuration, left as it is while it runs");
                warned.insert(object, what);
            }
        }
        // What is as it should be again is told anew when it differs another time.
        let left: Vec<String> = graph.left.iter().map(plan::Difference::object).collect();
        let services = project.services.keys().map(|name| format!("service {name}"));
        let networks = project.networks.values().map(|network| format!("network {}", network.name));
        for object in services.chain(networks).filter(|object| !left.contains(object)) {
            warned.remove(&object);
        }
    }

    fn warn_of(&self, warnings: &[String]) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in warnings {
            if warned.len() < MOST_WARNED && warned.insert(warning.clone(), String::new()).is_none() {
                warn!(warning, "project differs from what is there");
            }
        }
    }
}
