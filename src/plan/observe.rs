//! What was observed of the Engine, as far as plans depend on it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bollard::models::{
    ContainerSummary, ContainerSummaryStateEnum as EngineState, MountPoint, Network, NetworkInspect, Volume,
};

use super::{Call, Step};
use crate::names::ServiceName;
use crate::spec::{CreateContainer, Peer, Peers, labels, own_name};

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Created, never started.
    Created,
    /// Running.
    Running,
    /// Ended, to be started again by the Engine.
    Restarting,
    /// Ended.
    Exited,
    /// Frozen.
    Paused,
    /// Being removed.
    Removing,
    /// Half removed, or in a state that the Engine did not name.
    Dead,
}

impl State {
    /// It has not ended: a program of it runs, is frozen or is about to be started again by the Engine.
    #[must_use]
    pub fn is_up(self) -> bool {
        match self {
            Self::Running | Self::Restarting | Self::Paused => true,
            Self::Created | Self::Exited | Self::Removing | Self::Dead => false,
        }
    }
}

impl From<EngineState> for State {
    fn from(state: EngineState) -> Self {
        match state {
            EngineState::CREATED => Self::Created,
            EngineState::RUNNING | EngineState::STOPPING => Self::Running,
            EngineState::RESTARTING => Self::Restarting,
            EngineState::EXITED => Self::Exited,
            EngineState::PAUSED => Self::Paused,
            EngineState::REMOVING => Self::Removing,
            EngineState::DEAD | EngineState::EMPTY => Self::Dead,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Paused => "paused",
            Self::Removing => "removing",
            Self::Dead => "dead",
        })
    }
}

/// A container of the project.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Full id.
    pub id: String,
    /// Name, without the Engine's leading slash.
    pub name: String,
    /// Key of its service.
    pub service: String,
    /// Its number, where the label holds one.
    pub number: Option<u32>,
    /// Made by `run`.
    pub one_off: bool,
    /// What it is doing.
    pub state: State,
    /// Hash of the configuration that it was made from; empty where it has none.
    pub config_hash: String,
    /// Id of the image that it was made from; empty where unknown.
    pub image: String,
    /// Slug of a one-off.
    pub slug: Option<String>,
    /// Ids of the networks that it is connected to.
    pub networks: Vec<String>,
    /// Its mounts.
    pub mounts: Vec<MountPoint>,
}

impl Container {
    /// The container of a list's entry; none where it is not of any service.
    #[must_use]
    pub fn of(summary: &ContainerSummary) -> Option<Self> {
        let networks = summary.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        let state = summary.state.map_or(State::Dead, State::from);
        Some(Self {
            networks: networks
                .iter()
                .flat_map(|networks| networks.values())
                .filter_map(|endpoint| endpoint.network_id.clone())
                .collect(),
            mounts: summary.mounts.clone().unwrap_or_default(),
            ..Self::labelled(summary.labels.as_ref()?, summary.id.as_ref()?, own_name(summary)?, state)?
        })
    }

    /// A container that a plan creates. Its id is not known yet: its name stands for it.
    fn planned(create: &CreateContainer) -> Option<Self> {
        Self::labelled(create.body.body.labels.as_ref()?, &create.name, &create.name, State::Created)
    }

    /// What the labels tell of a container; none where it is not of any service.
    fn labelled(labels: &HashMap<String, String>, id: &str, name: &str, state: State) -> Option<Self> {
        let label = |key: &str| labels.get(key).cloned();
        Some(Self {
            id: id.to_owned(),
            name: name.to_owned(),
            service: label(labels::SERVICE)?,
            number: label(labels::CONTAINER_NUMBER).and_then(|number| number.parse().ok()),
            one_off: label(labels::ONE_OFF).is_some_and(|value| value == "True"),
            state,
            config_hash: label(labels::CONFIG_HASH).unwrap_or_default(),
            image: label(labels::IMAGE).unwrap_or_default(),
            slug: label(labels::SLUG),
            networks: Vec::new(),
            mounts: Vec::new(),
        })
    }
}

/// The project's containers and the ids of its networks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stack {
    /// All containers that carry the project's label and a config hash: those without one do not exist for Compose.
    pub containers: Vec<Container>,
    /// Ids of the networks, by key.
    pub networks: BTreeMap<String, String>,
}

impl Stack {
    /// The containers of a list; [`Stack::networks`] is the caller's to fill.
    #[must_use]
    pub fn of(summaries: &[ContainerSummary]) -> Self {
        let containers = summaries.iter().filter_map(Container::of).collect();
        Self { containers, networks: BTreeMap::new() }
    }

    /// A service's containers, one-offs left out.
    pub fn of_service(&self, service: &ServiceName) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(move |container| !container.one_off && container.service == service.as_str())
    }

    /// The containers as they will be once the steps are taken.
    #[must_use]
    pub fn after(mut self, steps: &[Step]) -> Self {
        for step in steps {
            match &step.call {
                Call::CreateContainer(create) => self.containers.extend(Container::planned(create)),
                Call::RemoveContainer { container, .. } => self.containers.retain(|other| other.name != *container),
                Call::RenameContainer { container, name } => {
                    if let Some(found) = self.named(container) {
                        found.name.clone_from(name);
                    }
                }
                Call::StartContainer { container } => {
                    if let Some(found) = self.named(container) {
                        found.state = State::Running;
                    }
                }
                Call::StopContainer { container, .. } => {
                    if let Some(found) = self.named(container) {
                        found.state = State::Exited;
                    }
                }
                Call::PullImage(_)
                | Call::CreateNetwork(_)
                | Call::RemoveNetwork { .. }
                | Call::ConnectNetwork { .. }
                | Call::DisconnectNetwork { .. }
                | Call::CreateVolume(_)
                | Call::CopyFile { .. }
                | Call::Exec { .. } => {}
            }
        }
        self
    }

    fn named(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|container| container.name == name)
    }

    /// The containers as others refer to them.
    #[must_use]
    pub fn peers(&self) -> Peers {
        let mut peers = Peers::default();
        for container in self.containers.iter().filter(|container| !container.one_off) {
            peers.add(&container.service, Peer { name: container.name.clone(), id: container.id.clone() });
        }
        peers
    }
}

/// A network that could be one of the project's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSeen {
    /// Id.
    pub id: String,
    /// Engine name.
    pub name: String,
    /// Value of the project label.
    pub project: Option<String>,
    /// Value of the network label.
    pub key: Option<String>,
    /// Value of the config hash label.
    pub config_hash: Option<String>,
    /// When it was made, as the Engine writes it: RFC 3339 in UTC.
    pub created: Option<String>,
    /// Ids of the running containers that are connected to it, whoever made them; empty in a list's entry.
    pub users: Vec<String>,
}

impl NetworkSeen {
    fn new(
        id: Option<&String>,
        name: Option<&String>,
        created: Option<&String>,
        labels: Option<&HashMap<String, String>>,
    ) -> Self {
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).cloned();
        Self {
            id: id.cloned().unwrap_or_default(),
            name: name.cloned().unwrap_or_default(),
            project: label(labels::PROJECT),
            key: label(labels::NETWORK),
            config_hash: label(labels::CONFIG_HASH).filter(|hash| !hash.is_empty()),
            created: created.cloned(),
            users: Vec::new(),
        }
    }
}

impl From<&NetworkInspect> for NetworkSeen {
    fn from(network: &NetworkInspect) -> Self {
        let seen =
            Self::new(network.id.as_ref(), network.name.as_ref(), network.created.as_ref(), network.labels.as_ref());
        let mut users: Vec<String> = network.containers.iter().flat_map(HashMap::keys).cloned().collect();
        users.sort_unstable();
        Self { users, ..seen }
    }
}

impl From<&Network> for NetworkSeen {
    fn from(network: &Network) -> Self {
        Self::new(network.id.as_ref(), network.name.as_ref(), network.created.as_ref(), network.labels.as_ref())
    }
}

/// A volume that could be one of the project's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeSeen {
    /// Value of the project label.
    pub project: Option<String>,
    /// Value of the config hash label.
    pub config_hash: Option<String>,
}

impl From<&Volume> for VolumeSeen {
    fn from(volume: &Volume) -> Self {
        Self {
            project: volume.labels.get(labels::PROJECT).cloned(),
            config_hash: volume.labels.get(labels::CONFIG_HASH).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_known_by_its_labels() {
        let labels = [(labels::PROJECT, "p"), (labels::CONFIG_HASH, "h"), ("other", "x")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let seen = VolumeSeen::from(&Volume { labels, ..Volume::default() });
        assert_eq!(seen, VolumeSeen { project: Some("p".to_owned()), config_hash: Some("h".to_owned()) });
    }

    #[test]
    fn a_container_that_others_link_to_is_known_by_its_own_name() {
        let names = ["/p-api-1/database", "/p-db-1"].map(str::to_owned);
        let summary = ContainerSummary {
            id: Some("1".to_owned()),
            names: Some(names.into()),
            labels: Some([(labels::SERVICE.to_owned(), "db".to_owned())].into()),
            ..ContainerSummary::default()
        };
        assert_eq!(Container::of(&summary).unwrap().name, "p-db-1");
        assert_eq!(Stack::of(&[summary]).peers(), {
            let mut peers = Peers::default();
            peers.add("db", Peer { name: "p-db-1".to_owned(), id: "1".to_owned() });
            peers
        });
    }
}
