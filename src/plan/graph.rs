//! All that a run or a start needs, as a graph: stages of steps, and which stages each waits for.

use std::collections::BTreeSet;
use std::fmt;

use super::{Call, Cause, Difference, Plan, Stack, Step};
use crate::compose::project::Condition;
use crate::names::ServiceName;

/// What a stage is about, in the state that it leaves it in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// An image, by its reference.
    Image(String),
    /// A service's containers, stopped because a network under them is made anew.
    Stopped(ServiceName),
    /// A network, by its key.
    Network(String),
    /// A volume, by its key.
    Volume(String),
    /// A service's containers, as many and as configured as they have to be.
    Created(ServiceName),
    /// A service's containers, started.
    Started(ServiceName),
    /// A run of a service.
    Run(ServiceName),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(reference) => write!(f, "image {reference}"),
            Self::Stopped(service) => write!(f, "{service} stopped"),
            Self::Network(key) => write!(f, "network {key}"),
            Self::Volume(key) => write!(f, "volume {key}"),
            Self::Created(service) => write!(f, "{service} created"),
            Self::Started(service) => write!(f, "{service} started"),
            Self::Run(service) => write!(f, "run of {service}"),
        }
    }
}

/// Steps on one object, to take in order once the stages that they wait for are done.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// What it is about.
    pub node: Node,
    /// The stages of the same graph that it waits for.
    pub after: BTreeSet<Node>,
    /// The services that have to be healthy or complete before it.
    pub conditions: Vec<(ServiceName, Condition)>,
    /// Services whose containers its bodies name by ids, which are known only once those containers are there.
    pub names: BTreeSet<ServiceName>,
    /// The steps; none where everything is there.
    pub steps: Vec<Step>,
}

impl Stage {
    /// A stage without steps, which waits for nothing.
    #[must_use]
    pub fn nothing(node: Node) -> Self {
        Self { node, after: BTreeSet::new(), conditions: Vec::new(), names: BTreeSet::new(), steps: Vec::new() }
    }

    /// What happens to the object, for those who wait for it.
    #[must_use]
    pub fn doing(&self) -> &'static str {
        let any = |wanted: fn(&Call) -> bool| self.steps.iter().any(|step| wanted(&step.call));
        if any(|call| matches!(call, Call::RenameContainer { .. } | Call::DisconnectNetwork { .. })) {
            return "recreated";
        }
        if any(|call| matches!(call, Call::CreateContainer(_) | Call::CreateNetwork(_) | Call::CreateVolume(_))) {
            return "created";
        }
        match self.node {
            Node::Image(_) => "pulled",
            Node::Stopped(_) => "recreated",
            Node::Network(_) | Node::Volume(_) | Node::Created(_) | Node::Started(_) | Node::Run(_) => "started",
        }
    }
}

/// The stages, each behind those that it waits for, and what is only to be told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    /// The stages.
    pub stages: Vec<Stage>,
    /// What Compose would warn of: nothing is done about it.
    pub warnings: Vec<String>,
    /// What differs and was left as it is, because it runs.
    pub left: Vec<Difference>,
    /// The project's containers once all is done; those that are created have their name for an id.
    pub outcome: Stack,
}

impl Graph {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stages.iter().all(|stage| stage.steps.is_empty())
    }

    /// Whether a network is to be made anew.
    #[must_use]
    pub fn changes_networks(&self) -> bool {
        let mut steps = self.stages.iter().flat_map(|stage| &stage.steps);
        steps.any(|step| matches!(step.cause, Cause::NetworkChanged { .. }))
    }

    /// The services of which it creates containers, runs left out.
    #[must_use]
    pub fn creates(&self) -> BTreeSet<ServiceName> {
        let creates = |stage: &&Stage| stage.steps.iter().any(|step| matches!(step.call, Call::CreateContainer(_)));
        let services = self.stages.iter().filter(creates).filter_map(|stage| match &stage.node {
            Node::Created(service) => Some(service.clone()),
            _ => None,
        });
        services.collect()
    }

    /// The stage of a node.
    #[must_use]
    pub fn stage(&self, node: &Node) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.node == *node)
    }

    /// Takes a stage out.
    pub fn take(&mut self, node: &Node) -> Option<Stage> {
        let at = self.stages.iter().position(|stage| stage.node == *node)?;
        Some(self.stages.remove(at))
    }

    /// What a stage waits for, as text: stages that have steps, also behind those that have none, and conditions.
    fn waits(&self, stage: &Stage, found: &mut BTreeSet<String>) {
        found.extend(stage.conditions.iter().map(|(service, condition)| match condition {
            Condition::ServiceStarted => format!("{service} started"),
            Condition::ServiceHealthy => format!("{service} healthy"),
            Condition::ServiceCompletedSuccessfully => format!("{service} completed"),
        }));
        let is_awaited = |node: &Node| stage.conditions.iter().any(|(name, _)| *node == Node::Started(name.clone()));
        for before in stage.after.iter().filter_map(|node| self.stage(node)) {
            if before.steps.is_empty() {
                self.waits(before, found);
            } else if !is_awaited(&before.node) {
                found.insert(before.node.to_string());
            }
        }
    }

    /// Takes a plan over as a stage, which waits for those of `after` that the graph has.
    pub(super) fn add(&mut self, node: Node, plan: Plan, after: impl IntoIterator<Item = Node>) -> &mut Stage {
        self.warnings.extend(plan.warnings);
        self.left.extend(plan.left);
        let after = after.into_iter().filter(|node| self.stage(node).is_some()).collect();
        self.stages.push(Stage { after, steps: plan.steps, ..Stage::nothing(node) });
        let last = self.stages.len().saturating_sub(1);
        #[expect(clippy::indexing_slicing, reason = "one was pushed just now")]
        &mut self.stages[last]
    }
}

impl fmt::Display for Graph {
    /// One step a line, the first of each stage with what it waits for: `step <- stage, stage`; `nothing to do` for no
    /// step.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing to do");
        }
        let mut lines = Vec::new();
        for stage in &self.stages {
            let mut waits = BTreeSet::new();
            self.waits(stage, &mut waits);
            let waits: Vec<String> = waits.into_iter().collect();
            for (index, step) in stage.steps.iter().enumerate() {
                if index == 0 && !waits.is_empty() {
                    lines.push(format!("{step} <- {}", waits.join(", ")));
                } else {
                    lines.push(step.to_string());
                }
            }
        }
        f.write_str(&lines.join("\n"))
    }
}
