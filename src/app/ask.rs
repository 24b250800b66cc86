//! Finds the running daemon that is meant, and asks it.

use anyhow::Context;

use super::{engine, own_container, project};
use crate::control::client::{AskError, Connection, Meant};
use crate::control::{Answer, Request, server};
use crate::names::ProjectName;
use crate::projects::Projects;
use crate::settings::Settings;

/// Sends a request to the daemon that is meant; the lines of the answer follow.
pub(super) async fn open(settings: &Settings, request: Request) -> anyhow::Result<Connection> {
    let named = settings.compose.project_name.clone();
    let implied = if own_container::id().is_some() || named.is_some() { None } else { implied(settings).await };
    let mut daemon = connect(settings, named, implied).await?;
    daemon.ask(request).await?;
    Ok(daemon)
}

/// Connects to the daemon that is meant.
pub(super) async fn connect(
    settings: &Settings,
    named: Option<ProjectName>,
    implied: Option<ProjectName>,
) -> anyhow::Result<Connection> {
    let in_container = own_container::id().is_some();
    let meant = Meant { named, implied, engine: settings.docker.host.to_string(), in_container };
    let own_uid = server::own_uid().context("cannot find out who we are")?;
    Ok(Connection::open(&settings.control.places, &meant, own_uid).await?)
}

/// The first line of the answer.
pub(super) async fn first_line(settings: &Settings, request: Request) -> anyhow::Result<Answer> {
    Ok(open(settings, request).await?.next().await?.ok_or(AskError::Ended)?)
}

/// The project that we stand in, where there is one that can be read.
async fn implied(settings: &Settings) -> Option<ProjectName> {
    let located = project::locate_now(&settings.compose, &engine(&settings.docker)).await;
    Projects::open(located.options).ok().map(|projects| projects.name())
}
