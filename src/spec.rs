//! Project and service to Engine create bodies.

use bollard::models::{ContainerCreateBody, EndpointSettings, NetworkCreateRequest};
use serde::Serialize;

/// A container to create, with the networks to join afterwards where the API version asks for that.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CreateContainer {
    /// Container name.
    pub name: String,
    /// `os/arch[/variant]` for the query, when the service or the environment names one.
    pub platform: Option<String>,
    /// The request's body.
    pub body: ContainerBody,
    /// Networks to connect between create and start, in order. Empty from API 1.44 on.
    pub connect: Vec<ConnectNetwork>,
}

/// The create body with the one field that the client library's type lacks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ContainerBody {
    /// All other fields.
    #[serde(flatten)]
    pub body: ContainerCreateBody,
    /// `MacAddress` of the container, for API versions before 1.44.
    #[serde(rename = "MacAddress", skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
}

/// A network to connect a created container to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConnectNetwork {
    /// Engine name of the network.
    pub network: String,
    /// How the container joins it.
    pub endpoint: EndpointSettings,
}

/// The network create body with the one field that the client library's type lacks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NetworkBody {
    /// All other fields.
    #[serde(flatten)]
    pub body: NetworkCreateRequest,
    /// Refuse a second network of the same name; needed before API 1.44.
    #[serde(rename = "CheckDuplicate", skip_serializing_if = "Option::is_none")]
    pub check_duplicate: Option<bool>,
}
