//! Pulling images: registry credentials from the client's `config.json`, and progress in the log.

use std::path::Path;

use serde::Deserialize;
use tokio::time::{Duration, Instant, timeout};
use tracing::{info, warn};

use super::answer::{parsed, shortened};
use super::client_config::{ClientConfig, host};
use super::http::Request;
use super::stream::Lines;
use super::{CALL_LIMIT, Docker};
use crate::engine::{EngineError, PullImage};
use crate::report::Chain;

const CALL: &str = "pull image";

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

/// What the Engine knows of itself, as far as a pull needs it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Info {
    index_server_address: String,
}

/// A line of a pull's progress.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Step {
    id: Option<String>,
    status: Option<String>,
    progress_detail: Option<Detail>,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    current: Option<i64>,
    total: Option<i64>,
}

impl Docker {
    /// The header with the credentials for the registry of `reference`; none where the client has none for it.
    async fn registry_auth(&self, folder: Option<&Path>, reference: &str) -> Option<String> {
        let folder = folder?;
        let info = self.ask("ask the engine's settings", Request::get("/info"), CALL_LIMIT).await;
        let Info { index_server_address: default } = info.unwrap_or_else(|error| {
            warn!(error = %Chain(&error), "default registry not known, pulling from it without credentials");
            Info::default()
        });
        ClientConfig::load(Some(folder)).credentials(registry(reference, &default))?.header()
    }

    /// Pulls an image and returns when the Engine has it.
    pub(super) async fn pull(&self, image: &PullImage) -> Result<(), EngineError> {
        let (name, tag) = split(&image.reference);
        let mut request = Request::post("/images/create").query("fromImage", &name);
        if let Some(tag) = tag {
            request = request.query("tag", &tag);
        }
        if let Some(platform) = &image.platform {
            request = request.query("platform", platform);
        }
        let request = request.registry_auth(self.registry_auth(self.client_config.as_deref(), &image.reference).await);
        info!(image = image.reference, "pulling image");
        let silent = |_| {
            let message = format!("no progress for {}", humantime::format_duration(SILENCE_LIMIT));
            EngineError::Call { call: CALL, status: 0, message }
        };
        let answer = timeout(SILENCE_LIMIT, self.send(CALL, &request)).await.map_err(silent)??;
        let mut progress = Lines::new(answer);
        let mut told = Instant::now();
        loop {
            let line = timeout(SILENCE_LIMIT, progress.next()).await.map_err(silent)?;
            let Some(line) = line.map_err(|failure| self.failed(CALL, failure))? else { break };
            let step: Step = parsed(CALL, &line)?;
            if let Some(message) = step.error {
                return Err(EngineError::Call { call: CALL, status: 0, message: shortened(&message) });
            }
            if told.elapsed() >= PROGRESS_EVERY {
                told = Instant::now();
                let Detail { current, total } = step.progress_detail.unwrap_or_default();
                info!(image = image.reference, layer = step.id, status = step.status, current, total, "pulling image");
            }
        }
        progress.finish().await;
        info!(image = image.reference, "pulled image");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_missing_tag_is_latest_and_a_port_is_no_tag() {
        assert_eq!(split("redis"), ("redis".into(), Some("latest".into())));
        assert_eq!(split("host:5000/redis"), ("host:5000/redis".into(), Some("latest".into())));
        assert_eq!(split("host:5000/redis:7"), ("host:5000/redis".into(), Some("7".into())));
        assert_eq!(split("redis@sha256:ab"), ("redis@sha256:ab".into(), None));
    }
}
