//! Everything that the Engine would be sent for one container, as one JSON object.

use bollard::models::VolumeCreateRequest;
use serde::Serialize;

use super::{CreateContainer, NetworkBody, SpecError, SpecOptions, network_body, volume_body};
use crate::compose::project::Project;

/// A container's create body, with those of the networks and volumes that have to be there before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rendered {
    /// Name, platform, body, and the networks to connect.
    #[serde(flatten)]
    pub container: CreateContainer,
    /// Bodies of the selected project's networks, external ones left out.
    pub networks: Vec<NetworkBody>,
    /// Bodies of the selected project's volumes, external ones left out.
    pub volumes: Vec<VolumeCreateRequest>,
}

impl Rendered {
    /// Puts the project's networks and volumes beside the container.
    ///
    /// # Errors
    ///
    /// None that a loaded project can cause.
    pub fn new(project: &Project, container: CreateContainer, options: &SpecOptions) -> Result<Self, SpecError> {
        let networks = project.networks.keys().map(|key| network_body(project, key, options.api, options.dialect));
        let volumes = project.volumes.keys().map(|key| volume_body(project, key, options.dialect));
        Ok(Self {
            container,
            networks: networks.filter_map(Result::transpose).collect::<Result<_, _>>()?,
            volumes: volumes.filter_map(Result::transpose).collect::<Result<_, _>>()?,
        })
    }

    /// The object with its keys in order: the bodies' own maps are not ordered.
    ///
    /// # Errors
    ///
    /// A number that is not finite, which no loaded project has.
    pub fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }
}
