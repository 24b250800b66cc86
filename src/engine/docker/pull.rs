//! Pulling images: registry credentials from the client's `config.json`, and progress in the log.

use std::path::Path;

use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptions;
use futures::TryStreamExt;
use tokio::time::{Duration, Instant, timeout};
use tracing::{info, warn};

use super::client_config::{ClientConfig, host};
use crate::engine::PullImage;
use crate::report::Chain;

/// Time between two progress lines.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Longest silence of a pull. The Engine tells of every step, down to the parts of a layer that is unpacked.
const SILENCE_LIMIT: Duration = Duration::from_mins(5);

/// The registry that an image reference names; `default` where it names none, or that one by its domain.
fn registry<'a>(reference: &'a str, default: &'a str) -> &'a str {
    let Some((first, _)) = reference.split_once('/') else { return default };
    let is_host = first == "localhost" || first.contains(['.', ':']);
    let is_default = host(default).strip_suffix(first).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if is_host && !is_default { first } else { default }
}

/// Credentials for the registry of `reference`, from `config.json` in `folder`. None where it has none for it.
#[expect(clippy::disallowed_types, reason = "this is the adapter")]
pub(super) async fn credentials(
    engine: &bollard::Docker,
    folder: Option<&Path>,
    reference: &str,
) -> Option<DockerCredentials> {
    let folder = folder?;
    let default = match engine.info().await {
        Ok(info) => info.index_server_address.unwrap_or_default(),
        Err(error) => {
            warn!(error = %Chain(&error), "default registry not known, pulling from it without credentials");
            String::new()
        }
    };
    ClientConfig::load(Some(folder)).credentials(registry(reference, &default))
}

/// Name and tag as the Engine takes them: a missing tag would pull them all.
fn split(reference: &str) -> (String, Option<String>) {
    if reference.contains('@') {
        return (reference.to_owned(), None);
    }
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), Some(tag.to_owned())),
        _ => (reference.to_owned(), Some("latest".to_owned())),
    }
}

/// Pulls an image and returns when the Engine has it.
#[expect(clippy::disallowed_types, reason = "this is the adapter")]
pub(super) async fn pull(
    engine: &bollard::Docker,
    image: &PullImage,
    credentials: Option<DockerCredentials>,
) -> Result<(), Error> {
    let (name, tag) = split(&image.reference);
    let options = CreateImageOptions {
        from_image: Some(name),
        tag,
        platform: image.platform.clone().unwrap_or_default(),
        ..CreateImageOptions::default()
    };
    info!(image = image.reference, "pulling image");
    let mut progress = Box::pin(engine.create_image(Some(options), None, credentials));
    let mut told = Instant::now();
    loop {
        let Ok(step) = timeout(SILENCE_LIMIT, progress.try_next()).await else {
            let error = format!("no progress for {}", humantime::format_duration(SILENCE_LIMIT));
            return Err(Error::DockerStreamError { error });
        };
        let Some(step) = step? else { break };
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            let (current, total) = step.progress_detail.map_or((None, None), |detail| (detail.current, detail.total));
            info!(image = image.reference, layer = step.id, status = step.status, current, total, "pulling image");
        }
    }
    info!(image = image.reference, "pulled image");
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_reference_without_a_registry_is_the_default_ones() {
        let default = "https://index.hub.example/v1/";
        for reference in ["redis:7", "library/redis", "hub.example/me/private:1", "index.hub.example/me/private"] {
            assert_eq!(registry(reference, default), default, "{reference}");
        }
        assert_eq!(registry("localhost/x", default), "localhost");
        assert_eq!(registry("b.example/x", default), "b.example");
        assert_eq!(registry("registry.example:5000/a/b:1", default), "registry.example:5000");
        assert_eq!(registry("registry.example/a", ""), "registry.example");
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_types, reason = "this is the adapter")]
    async fn a_pull_of_which_nothing_is_told_is_given_up() {
        let path = std::env::temp_dir().join(format!("sense-pull-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let silent = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            assert!(socket.read(&mut [0; 4096]).await.unwrap() > 0);
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            socket.write_all(head).await.unwrap();
            std::future::pending::<()>().await;
        };
        let engine =
            bollard::Docker::connect_with_unix(&path.to_string_lossy(), 60, bollard::API_DEFAULT_VERSION).unwrap();
        let image = PullImage { reference: "redis:7".into(), platform: None };
        let begun = Instant::now();
        let pulled = tokio::select! {
            pulled = pull(&engine, &image, None) => pulled,
            () = silent => unreachable!("it is silent for ever"),
        };
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(pulled, Err(Error::DockerStreamError { .. })), "{pulled:?}");
        assert!(begun.elapsed() >= SILENCE_LIMIT, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_missing_tag_is_latest_and_a_port_is_no_tag() {
        assert_eq!(split("redis"), ("redis".into(), Some("latest".into())));
        assert_eq!(split("host:5000/redis"), ("host:5000/redis".into(), Some("latest".into())));
        assert_eq!(split("host:5000/redis:7"), ("host:5000/redis".into(), Some("7".into())));
        assert_eq!(split("redis@sha256:ab"), ("redis@sha256:ab".into(), None));
    }
}
