//! One graph for all that a run or a start needs.

use std::collections::{BTreeMap, BTreeSet};

use super::resources::attached;
use super::{
    Cause, Convergence, Graph, ImageSeen, NetworkSeen, Node, Plan, PlanError, Stack, VolumeSeen, awaited, converge,
    ensure_network, ensure_volume, lifecycle, network_id, run_one_off, startup_order, surplus_networks,
};
use crate::compose::project::{Project, Service};
use crate::names::ServiceName;
use crate::spec::{OneOff, SpecOptions, image_name};

/// What was observed of the Engine.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The project's containers.
    pub stack: Stack,
    /// What the Engine has under the name or id of each network, by its key.
    pub networks: BTreeMap<String, Vec<NetworkSeen>>,
    /// The volumes that are there, by their keys.
    pub volumes: BTreeMap<String, VolumeSeen>,
    /// The local images, by reference.
    pub images: BTreeMap<String, ImageSeen>,
    /// The files that services' bodies quote, by the path that the service gives.
    pub client_files: BTreeMap<ServiceName, BTreeMap<String, String>>,
}

/// What is to be brought about.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// A run of a service, and all that it depends on. Nothing that runs is touched, and the service's own containers are
    /// left alone.
    Run {
        /// The service.
        service: ServiceName,
        /// The run.
        run: OneOff,
    },
    /// All services of the project, started.
    Up {
        /// Those whose containers may be stopped and recreated while they run.
        movable: BTreeSet<ServiceName>,
    },
}

/// Whether what the project's containers are counts for the plan; not so for a run that depends on nothing.
#[must_use]
pub fn needs_containers(project: &Project, wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Up { .. } => true,
        Wanted::Run { service, .. } => {
            project.services.len() > 1 || project.services.get(service).is_some_and(|own| !named(own).is_empty())
        }
    }
}

/// The graph that brings about what is wanted. `pulls` are the images that are pulled before.
///
/// # Errors
///
/// A service cannot be run as its file says, or what is there does not go together with it.
pub fn arrange(
    project: &Project,
    wanted: &Wanted,
    seen: &Seen,
    pulls: Plan,
    options: &SpecOptions,
) -> Result<Graph, PlanError> {
    let none = BTreeSet::new();
    let (movable, inherit, target) = match wanted {
        Wanted::Run { service, .. } => (&none, false, Some(service)),
        Wanted::Up { movable } => (movable, true, None),
    };
    let mut site = Site { project, seen, options, stack: seen.stack.clone(), graph: Graph::default() };
    site.pulls(pulls);
    site.networks(movable)?;
    site.volumes()?;
    let order: Vec<ServiceName> =
        startup_order(project).into_iter().flatten().filter(|name| Some(name) != target).collect();
    for name in &order {
        site.created(name, movable, inherit)?;
    }
    for name in &order {
        site.started(name)?;
    }
    if let Wanted::Run { service, run } = wanted {
        site.run(service, run)?;
    }
    let Site { stack, mut graph, .. } = site;
    graph.outcome = stack;
    Ok(graph)
}

/// The graph while it grows, and the containers as they will be by then.
struct Site<'a> {
    project: &'a Project,
    seen: &'a Seen,
    options: &'a SpecOptions,
    stack: Stack,
    graph: Graph,
}

impl Site<'_> {
    fn pulls(&mut self, pulls: Plan) {
        self.graph.warnings.extend(pulls.warnings);
        for step in pulls.steps {
            if let super::Call::PullImage(image) = &step.call {
                let node = Node::Image(image.reference.clone());
                self.graph.add(node, Plan { steps: vec![step], ..Plan::default() }, []);
            }
        }
    }

    fn networks(&mut self, movable: &BTreeSet<ServiceName>) -> Result<(), PlanError> {
        let mut plans = Vec::new();
        for key in self.project.networks.keys() {
            let seen = self.seen.networks.get(key).map_or(&[][..], Vec::as_slice);
            if let Some(id) = network_id(self.project, key, seen)? {
                self.stack.networks.insert(key.clone(), id);
            }
            let plan = ensure_network(self.project, key, seen, &self.stack, movable, self.options)?;
            let mut surplus = surplus_networks(self.project, key, seen);
            surplus.warnings.extend(plan.warnings);
            surplus.left.extend(plan.left);
            surplus.steps.extend(plan.steps);
            plans.push((key, surplus));
        }
        self.stopped(&plans);
        for (key, plan) in plans {
            let stops = attached(self.project, key, &self.seen.stack)
                .filter_map(|container| container.service.parse().ok().map(Node::Stopped));
            let stops: Vec<Node> = stops.filter(|_| remakes(&plan)).collect();
            self.graph.add(Node::Network(key.clone()), plan, stops);
        }
        Ok(())
    }

    /// Stops what is on the networks that are made anew: what depends on others before them, one service after the other.
    fn stopped(&mut self, networks: &[(&String, Plan)]) {
        let mut before = None;
        for name in startup_order(self.project).into_iter().rev().flatten() {
            let on_it = |key: &str| self.project.services.get(&name).is_some_and(|own| own.networks.contains_key(key));
            let mut changed = networks.iter().filter(|(key, plan)| remakes(plan) && on_it(key));
            let Some((_, remade)) = changed.next() else { continue };
            let cause = remade.steps.iter().map(|step| &step.cause).find(|cause| is_change(cause));
            let mut plan = Plan::default();
            for container in self.stack.of_service(&name) {
                lifecycle::stop_steps(self.project, &name, container, cause.unwrap_or(&Cause::Asked), &mut plan);
            }
            if plan.is_empty() {
                continue;
            }
            self.stack = std::mem::take(&mut self.stack).after(&plan.steps);
            let node = Node::Stopped(name);
            self.graph.add(node.clone(), plan, before.take());
            before = Some(node);
        }
    }

    fn volumes(&mut self) -> Result<(), PlanError> {
        for key in self.project.volumes.keys() {
            let plan = ensure_volume(self.project, key, self.seen.volumes.get(key), self.options)?;
            self.graph.add(Node::Volume(key.clone()), plan, []);
        }
        Ok(())
    }

    fn created(&mut self, name: &ServiceName, movable: &BTreeSet<ServiceName>, inherit: bool) -> Result<(), PlanError> {
        let Some(service) = self.project.services.get(name) else { return Ok(()) };
        let image = self.seen.images.get(&image_name(self.project, name, service));
        let image_volumes = image.map(|image| image.volumes.clone()).unwrap_or_default();
        let how = Convergence { movable: movable.clone(), inherit, image_volumes };
        let plan = converge(self.project, name, &self.stack, &how, &self.options_for(name))?;
        self.stack = std::mem::take(&mut self.stack).after(&plan.steps);
        let before = self.surroundings(name, service, Node::Created);
        let before = before.chain([Node::Stopped(name.clone())]).collect::<Vec<_>>();
        self.graph.add(Node::Created(name.clone()), plan, before).names = named(service);
        Ok(())
    }

    fn started(&mut self, name: &ServiceName) -> Result<(), PlanError> {
        let Some(service) = self.project.services.get(name) else { return Ok(()) };
        let plan = lifecycle::start(self.project, name, &self.stack, &self.options_for(name))?;
        self.stack = std::mem::take(&mut self.stack).after(&plan.steps);
        let before = service.depends_on.keys().cloned().map(Node::Started).chain([Node::Created(name.clone())]);
        self.graph.add(Node::Started(name.clone()), plan, before).conditions = conditions(self.project, name);
        Ok(())
    }

    fn run(&mut self, name: &ServiceName, run: &OneOff) -> Result<(), PlanError> {
        let plan = run_one_off(self.project, name, run, &self.options_for(name))?;
        let Some(service) = self.project.services.get(name) else { return Ok(()) };
        let before = self.surroundings(name, service, Node::Started).collect::<Vec<_>>();
        let stage = self.graph.add(Node::Run(name.clone()), plan, before);
        stage.conditions = conditions(self.project, name);
        stage.names = named(service);
        Ok(())
    }

    /// What a container of the service needs to be there, and its dependencies in that state.
    fn surroundings<'s>(
        &self,
        name: &ServiceName,
        service: &'s Service,
        state: fn(ServiceName) -> Node,
    ) -> impl Iterator<Item = Node> + use<'s> {
        let volumes = service.volumes.iter().filter(|volume| volume.kind == "volume");
        let image = Node::Image(image_name(self.project, name, service));
        std::iter::once(image)
            .chain(service.networks.keys().cloned().map(Node::Network))
            .chain(volumes.map(|volume| Node::Volume(volume.source.clone())))
            .chain(service.depends_on.keys().cloned().map(state))
    }

    /// What the bodies of the service's containers depend on besides the project.
    fn options_for(&self, name: &ServiceName) -> SpecOptions {
        let mut options = self.options.clone();
        let Some(service) = self.project.services.get(name) else { return options };
        let image = self.seen.images.get(&image_name(self.project, name, service));
        options.image_id = image.map(|image| image.id.clone());
        options.peers = self.stack.peers();
        options.client_files = self.seen.client_files.get(name).cloned().unwrap_or_default();
        options
    }
}

fn is_change(cause: &Cause) -> bool {
    matches!(cause, Cause::NetworkChanged { .. })
}

fn remakes(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| is_change(&step.cause))
}

fn conditions(project: &Project, name: &ServiceName) -> Vec<(ServiceName, crate::compose::project::Condition)> {
    awaited(project, name).into_iter().map(|awaited| (awaited.name.clone(), awaited.dependency.condition)).collect()
}

/// The services whose containers a service's own name by their ids: those whose namespaces or volumes it shares.
fn named(service: &Service) -> BTreeSet<ServiceName> {
    let modes = [&service.network_mode, &service.ipc, &service.pid];
    let shared = modes.into_iter().filter_map(|mode| mode.strip_prefix("service:"));
    let listed = service.volumes_from.iter().filter_map(|entry| entry.split(':').next());
    shared.chain(listed).filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{busybox, dependent, name, network, options, project, stack, up_to_date, volume_mount};
    use super::super::{Container, State};
    use super::*;
    use crate::compose::project::Condition::{ServiceHealthy, ServiceStarted};
    use crate::compose::project::{Mount, Volume};
    use crate::spec::Slug;

    fn graph(project: &Project, wanted: &Wanted, stack: Stack, network_hash: Option<&str>) -> Graph {
        let seen = NetworkSeen {
            id: "id-default".to_owned(),
            name: "p_default".to_owned(),
            project: Some("p".to_owned()),
            key: Some("default".to_owned()),
            config_hash: network_hash.map(str::to_owned),
            ..NetworkSeen::default()
        };
        let options = options(&stack);
        let networks = if stack.networks.is_empty() { Vec::new() } else { vec![seen] };
        let image = ImageSeen { id: "sha256:1".to_owned(), ..ImageSeen::default() };
        let seen = Seen {
            stack,
            networks: [("default".to_owned(), networks)].into(),
            images: [("busybox".to_owned(), image)].into(),
            ..Seen::default()
        };
        arrange(project, wanted, &seen, Plan::default(), &options).unwrap()
    }

    fn run(service: &str) -> Wanted {
        let slug = Slug::new([0xab; 24], &"p".parse().unwrap(), &name(service));
        Wanted::Run { service: name(service), run: OneOff { slug, environment: <_>::default() } }
    }

    fn up(movable: &[&str]) -> Wanted {
        Wanted::Up { movable: movable.iter().map(|service| name(service)).collect() }
    }

    /// A job on an API on a database and a cache; the database has a volume.
    fn chain() -> Project {
        let mut project = project([
            ("job", dependent([("api", ServiceStarted)])),
            ("api", dependent([("db", ServiceHealthy), ("cache", ServiceStarted)])),
            ("db", busybox()),
            ("cache", busybox()),
        ]);
        project.volumes.insert("data".to_owned(), Volume { name: "p_data".to_owned(), ..Volume::default() });
        project.services.get_mut("db").unwrap().volumes.push(Mount {
            kind: "volume".to_owned(),
            source: "data".to_owned(),
            target: "/data".to_owned(),
            ..Mount::default()
        });
        project
    }

    #[test]
    fn each_step_waits_for_what_it_needs_and_for_nothing_else() {
        insta::assert_snapshot!(graph(&chain(), &run("job"), Stack::default(), None), @r"
        create network p_default (no network)
        create volume p_data (no volume)
        create container p-cache-1 (no container) <- network default
        create container p-db-1 (no container) <- network default, volume data
        create container p-api-1 (no container) <- cache created, db created, network default
        start container p-cache-1 (created) <- cache created
        start container p-db-1 (created) <- db created
        start container p-api-1 (created) <- api created, cache started, db healthy
        create container p-job-run-abababababab (run) <- api started, network default
        start container p-job-run-abababababab (run)
        ");
    }

    #[test]
    fn what_is_there_is_not_waited_for() {
        let project = chain();
        let db = Container { mounts: vec![volume_mount("p_data", "/data")], ..up_to_date(&project, "db", 1) };
        let stopped = Container { state: State::Exited, ..up_to_date(&project, "cache", 1) };
        let stack = stack([db, stopped, up_to_date(&project, "api", 1)]);
        insta::assert_snapshot!(graph(&project, &run("job"), stack, None), @r"
        create volume p_data (no volume)
        start container p-cache-1 (exited)
        create container p-job-run-abababababab (run) <- cache started, db healthy, volume data
        start container p-job-run-abababababab (run)
        ");
    }

    #[test]
    fn a_run_leaves_what_runs_and_a_start_its_dependencies() {
        let project = project([("web", dependent([("db", ServiceStarted)])), ("db", busybox())]);
        let old = |service| Container { config_hash: "0".to_owned(), ..up_to_date(&project, service, 1) };
        let stack = || stack([old("db"), old("web")]);
        let text = |wanted: &Wanted| {
            let graph = graph(&project, wanted, stack(), None);
            graph.left.iter().fold(graph.to_string(), |text, left| format!("{text}\nleft: {left}"))
        };
        insta::assert_snapshot!(text(&run("web")), @r"
        create container p-web-run-abababababab (run)
        start container p-web-run-abababababab (run)
        left: service db, configuration changed
        ");
        insta::assert_snapshot!(text(&up(&["web"])), @r"
        create container 000000000001_p-web-1 (configuration changed)
        stop container p-web-1 (replaces p-web-1)
        remove container p-web-1 (replaces p-web-1)
        rename container 000000000001_p-web-1 to p-web-1 (replaces p-web-1)
        start container p-web-1 (created) <- web created
        left: service db, configuration changed
        ");
        insta::assert_snapshot!(text(&up(&["web", "db"])), @r"
        create container 000000000001_p-db-1 (configuration changed)
        stop container p-db-1 (replaces p-db-1)
        remove container p-db-1 (replaces p-db-1)
        rename container 000000000001_p-db-1 to p-db-1 (replaces p-db-1)
        create container 000000000001_p-web-1 (configuration changed) <- db created
        stop container p-web-1 (replaces p-web-1)
        remove container p-web-1 (replaces p-web-1)
        rename container 000000000001_p-web-1 to p-web-1 (replaces p-web-1)
        start container p-db-1 (created) <- db created
        start container p-web-1 (created) <- db started, web created
        ");
    }

    #[test]
    fn a_network_is_made_anew_after_its_containers_were_stopped_and_before_they_start() {
        let project = project([("web", dependent([("db", ServiceStarted)])), ("db", busybox())]);
        let stack = stack([up_to_date(&project, "db", 1), up_to_date(&project, "web", 1)]);
        insta::assert_snapshot!(graph(&project, &up(&["web", "db"]), stack, Some("0")), @r"
        stop container p-web-1 (configuration of network p_default changed)
        stop container p-db-1 (configuration of network p_default changed) <- web stopped
        disconnect container p-db-1 from network p_default (configuration of network p_default changed) <- db stopped, web stopped
        disconnect container p-web-1 from network p_default (configuration of network p_default changed)
        remove network p_default (configuration of network p_default changed)
        create network p_default (configuration of network p_default changed)
        connect container p-db-1 to network p_default (configuration of network p_default changed)
        connect container p-web-1 to network p_default (configuration of network p_default changed)
        start container p-db-1 (exited) <- db stopped, network default
        start container p-web-1 (exited) <- db started, db stopped, network default, web stopped
        ");
    }

    #[test]
    fn what_names_a_container_by_its_id_says_so() {
        let mut project = project([("web", busybox()), ("log", dependent([("web", ServiceStarted)]))]);
        let log = project.services.get_mut("log").unwrap();
        (log.network_mode, log.networks) = ("service:web".to_owned(), <_>::default());
        let graph = graph(&project, &up(&["log"]), Stack::default(), None);
        assert_eq!(graph.stage(&Node::Created(name("log"))).unwrap().names, [name("web")].into());
        assert_eq!(graph.creates(), ["log", "web"].map(name).into());
    }

    #[test]
    fn only_a_run_without_dependencies_needs_no_list_of_containers() {
        let project = project([("web", busybox())]);
        assert!(!needs_containers(&project, &run("web")) && needs_containers(&project, &up(&["web"])));
        assert!(needs_containers(&chain(), &run("job")));
    }

    #[test]
    fn services_on_different_networks_wait_for_their_own() {
        let mut project = project([("a", busybox()), ("b", busybox())]);
        project.networks.insert("back".to_owned(), network("p_back"));
        project.services.get_mut("b").unwrap().networks = [("back".to_owned(), None)].into();
        insta::assert_snapshot!(graph(&project, &up(&[]), Stack::default(), None), @r"
        create network p_back (no network)
        create network p_default (no network)
        create container p-a-1 (no container) <- network default
        create container p-b-1 (no container) <- network back
        start container p-a-1 (created) <- a created
        start container p-b-1 (created) <- b created
        ");
    }
}
