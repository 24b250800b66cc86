//! Carries plans out: each step is one Engine call, and nothing is decided here.

use std::time::Duration;

use bollard::models::VolumeCreateRequest;
use tokio::time::timeout;
use tracing::debug;

use crate::backend::Failure;
use crate::clock::Timestamp;
use crate::engine::Engine;
use crate::plan::{Call, Cause, Step};

/// Longest that a hook may take. Compose itself waits for ever; here the preparation of other services would wait as well.
const HOOK_LIMIT: Duration = Duration::from_mins(5);

/// Carries a step out.
pub(super) async fn step<E: Engine>(engine: &E, step: &Step) -> Result<(), Failure> {
    debug!(%step, "engine call begins");
    let done = match &step.call {
        Call::PullImage(image) => engine.pull_image(image).await,
        Call::CreateNetwork(body) => engine.create_network(body).await,
        Call::RemoveNetwork { network } => engine.remove_network(network).await,
        Call::ConnectNetwork { network, container, endpoint } => {
            engine.connect_network(network, container, endpoint).await
        }
        Call::DisconnectNetwork { network, container } => engine.disconnect_network(network, container).await,
        Call::CreateVolume(body) => {
            let body: &VolumeCreateRequest = body;
            engine.create_volume(body).await
        }
        Call::CreateContainer(container) => engine.create_container(container).await.map(drop),
        Call::CopyFile { container, file } => {
            // Before 1970 a clock says nothing.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970")]
            let modified = Timestamp::now().0.max(0.0) as u64;
            engine.upload(container, &file.to_upload(modified)).await
        }
        Call::StartContainer { container } => engine.start_container(container).await,
        Call::Exec { container, command: hook } => {
            let (container, command) = (container.clone(), hook.command.join(" "));
            match timeout(HOOK_LIMIT, engine.exec(&container, hook)).await {
                Ok(Ok(0)) => Ok(()),
                Ok(Ok(code)) => return Err(Failure::Hook { container, command, code }),
                Ok(Err(error)) => Err(error),
                Err(_) => return Err(Failure::HookTooLong { container, command, limit: HOOK_LIMIT }),
            }
        }
        Call::StopContainer { container, grace } => engine.stop_container(container, *grace).await,
        Call::RemoveContainer { container, options } => engine.remove_container(container, *options).await,
        Call::RenameContainer { container, name } => engine.rename_container(container, name).await,
    };
    done.map_err(|source| match &step.cause {
        Cause::NoImage { buildable: Some(service) } => Failure::NotBuilt { service: service.clone(), source },
        _ => Failure::Engine { step: step.call.to_string(), source },
    })
}
