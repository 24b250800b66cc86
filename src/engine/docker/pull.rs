//! Pulling images: registry credentials from the client's `config.json`, and progress in the log.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptions;
use futures::TryStreamExt;
use serde::Deserialize;
use tokio::time::{Duration, Instant};
use tracing::{info, warn};

use crate::engine::PullImage;

/// Time between two progress lines.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// The registry of references without one, as `config.json` names it.
const DEFAULT_REGISTRY: &str = "https://index.docker.io/v1/";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClientConfig {
    auths: std::collections::HashMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: std::collections::HashMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// The registry that an image reference names.
fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DEFAULT_REGISTRY,
    }
}

/// Credentials for the registry of `reference`, from `config.json` in `folder`. None where it has none for it.
pub(super) async fn credentials(folder: Option<&Path>, reference: &str) -> Option<DockerCredentials> {
    let path = folder?.join("config.json");
    let text = match tokio::fs::read(&path).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            warn!(path = %path.display(), %error, "registry credentials not readable");
            return None;
        }
    };
    let config: ClientConfig = match serde_json::from_slice(&text) {
        Ok(config) => config,
        Err(error) => {
            // Its text may quote a credential: the place is enough.
            warn!(path = %path.display(), line = error.line(), "registry credentials are not valid JSON");
            return None;
        }
    };
    chosen(&config, registry(reference))
}

fn chosen(config: &ClientConfig, registry: &str) -> Option<DockerCredentials> {
    let helper = config.cred_helpers.get(registry).or(config.creds_store.as_ref());
    let entry = config
        .auths
        .get(registry)
        .or_else(|| config.auths.iter().find(|(name, _)| host(name) == registry).map(|(_, entry)| entry));
    let usable = entry.filter(|entry| entry.auth.is_some() || entry.identitytoken.is_some());
    if usable.is_none()
        && let Some(helper) = helper
    {
        warn!(registry, helper, "registry credentials are kept by a helper, which is not run: pulling without them");
    }
    let entry = usable?;
    // The Engine wants name and password apart: the file has `base64(name:password)`.
    let plain = entry.auth.as_ref().and_then(|auth| String::from_utf8(STANDARD.decode(auth).ok()?).ok());
    let (username, password) = plain.as_ref().and_then(|plain| plain.split_once(':')).unzip();
    Some(DockerCredentials {
        username: username.map(str::to_owned),
        password: password.map(|password| password.trim_end_matches('\0').to_owned()),
        identitytoken: entry.identitytoken.clone(),
        serveraddress: Some(registry.to_owned()),
        ..DockerCredentials::default()
    })
}

/// A key of `auths` without scheme and path.
fn host(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    key.split_once('/').map_or(key, |(host, _)| host)
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
    while let Some(step) = progress.try_next().await? {
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
    use super::*;

    #[test]
    fn a_reference_without_a_registry_is_the_default_ones() {
        assert_eq!(registry("redis:7"), DEFAULT_REGISTRY);
        assert_eq!(registry("library/redis"), DEFAULT_REGISTRY);
        assert_eq!(registry("localhost/x"), "localhost");
        assert_eq!(registry("registry.example:5000/a/b:1"), "registry.example:5000");
    }

    #[test]
    fn a_missing_tag_is_latest_and_a_port_is_no_tag() {
        assert_eq!(split("redis"), ("redis".into(), Some("latest".into())));
        assert_eq!(split("host:5000/redis"), ("host:5000/redis".into(), Some("latest".into())));
        assert_eq!(split("host:5000/redis:7"), ("host:5000/redis".into(), Some("7".into())));
        assert_eq!(split("redis@sha256:ab"), ("redis@sha256:ab".into(), None));
    }

    #[test]
    fn credentials_are_found_under_every_spelling_of_a_registry() {
        for key in ["registry.example", "https://registry.example", "https://registry.example/v2/"] {
            let config: ClientConfig =
                serde_json::from_value(serde_json::json!({ "auths": { key: { "auth": "dTpw" } } })).unwrap();
            let found = chosen(&config, "registry.example").unwrap();
            assert_eq!((found.username.as_deref(), found.password.as_deref()), (Some("u"), Some("p")), "{key}");
            assert_eq!(chosen(&config, "other.example"), None);
        }
    }

    #[test]
    fn an_entry_that_only_points_to_a_helper_gives_no_credentials() {
        let config: ClientConfig =
            serde_json::from_value(serde_json::json!({ "auths": { "r.example": {} }, "credsStore": "pass" })).unwrap();
        assert_eq!(chosen(&config, "r.example"), None);
    }
}
