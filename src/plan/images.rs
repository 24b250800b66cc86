//! Which images are pulled.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::ImageInspect;

use super::{Call, Cause, Plan, PlanError};
use crate::clock::Timestamp;
use crate::compose::project::{Project, Service};
use crate::compose::value::Duration;
use crate::names::ServiceName;
use crate::request::PullImage;
use crate::spec::{image_name, platform};

/// Seconds of a day.
const DAY: f64 = 86_400.0;

/// A local image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageSeen {
    /// Id (`sha256:…`).
    pub id: String,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// When it was last pulled or tagged.
    pub tagged: Option<Timestamp>,
    /// Paths that it declares as `VOLUME`.
    pub volumes: Vec<String>,
}

impl From<&ImageInspect> for ImageSeen {
    fn from(image: &ImageInspect) -> Self {
        let parts = [&image.os, &image.architecture, &image.variant];
        let platform: Vec<&str> =
            parts.into_iter().filter_map(Option::as_deref).filter(|part| !part.is_empty()).collect();
        Self {
            id: image.id.clone().unwrap_or_default(),
            platform: platform.join("/"),
            tagged: image
                .metadata
                .as_ref()
                .and_then(|metadata| metadata.last_tag_time.as_ref())
                .and_then(|time| Timestamp::from_rfc3339(time)),
            volumes: image.config.as_ref().and_then(|config| config.volumes.clone()).unwrap_or_default(),
        }
    }
}

/// When a pull policy asks for a pull.
enum Policy {
    Always,
    /// `never`, and `build`, which the daemon does not do.
    Never,
    Missing,
    OlderThan {
        seconds: f64,
    },
}

/// Pulls what the services of the project need, each image once.
///
/// `images` holds the local images by reference; `now` is compared with their age. A missing image that is not pulled
/// is an error only where a build would make it: otherwise the creation's own error says it best.
///
/// # Errors
///
/// An image that has to be built, or a pull policy that is none.
pub fn ensure_images(
    project: &Project,
    images: &BTreeMap<String, ImageSeen>,
    now: Timestamp,
) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let mut planned = BTreeSet::new();
    for (name, service) in &project.services {
        let reference = image_name(project, name, service);
        // As Compose does: the default platform decides what is pulled, and not whether a local image will do.
        let local = images.get(&reference).filter(|image| fits(image, &service.platform));
        let policy = policy(name, service)?;
        if service.pull_policy == "build" && local.is_some() {
            plan.warnings.push(format!("service {name}: pull policy `build` is not followed, the local image is used"));
        }
        let cause = match (&policy, local) {
            (Policy::Never | Policy::Missing, Some(_)) => continue,
            (_, None) if service.build.is_some() && (service.image.is_empty() || matches!(policy, Policy::Never)) => {
                return Err(PlanError::ImageNotBuilt { service: name.clone(), image: reference });
            }
            // Built images have no place to be pulled from.
            (_, Some(_)) if service.image.is_empty() => continue,
            (Policy::Never, None) => continue,
            (Policy::Always, _) => Cause::PullAlways,
            (Policy::Missing | Policy::OlderThan { .. }, None) => {
                Cause::NoImage { buildable: service.build.is_some().then(|| name.clone()) }
            }
            (Policy::OlderThan { seconds }, Some(image)) => match image.tagged {
                Some(tagged) if now.seconds_since(tagged) <= *seconds => continue,
                Some(_) | None => Cause::ImageOld,
            },
        };
        if planned.insert(reference.clone()) {
            let platform = platform(project, service).map(str::to_owned);
            plan.push(Call::PullImage(PullImage { reference, platform }), cause);
        }
    }
    Ok(plan)
}

/// Whether the image is of that platform; a wanted variant counts only where the image names one.
fn fits(image: &ImageSeen, platform: &str) -> bool {
    if platform.is_empty() {
        return true;
    }
    let mut wanted = platform.split('/');
    let mut found = image.platform.split('/');
    let same = |wanted: Option<&str>, found: Option<&str>| wanted.is_none() || found.is_none() || wanted == found;
    same(wanted.next(), found.next()) && same(wanted.next(), found.next()) && same(wanted.next(), found.next())
}

fn policy(name: &ServiceName, service: &Service) -> Result<Policy, PlanError> {
    Ok(match service.pull_policy.as_str() {
        "always" => Policy::Always,
        "never" | "build" => Policy::Never,
        "" | "missing" | "if_not_present" => Policy::Missing,
        "daily" => Policy::OlderThan { seconds: DAY },
        "weekly" => Policy::OlderThan { seconds: 7.0 * DAY },
        other => match other.strip_prefix("every_").and_then(every) {
            Some(seconds) => Policy::OlderThan { seconds },
            None => return Err(PlanError::PullPolicy { service: name.clone(), policy: other.to_owned() }),
        },
    })
}

#[expect(clippy::cast_precision_loss, reason = "an image's age is not measured in nanoseconds")]
fn every(text: &str) -> Option<f64> {
    text.parse::<Duration>().ok().map(|time| time.0 as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::project::Build;

    fn project(image: &str, policy: &str, build: bool) -> Project {
        let service = Service {
            image: image.to_owned(),
            pull_policy: policy.to_owned(),
            build: build.then(Build::default),
            ..Service::default()
        };
        super::super::testing::project([("web", service)])
    }

    fn plan(project: &Project, local: Option<&str>) -> String {
        let images = local
            .map(|tagged| {
                let seen = ImageSeen {
                    id: "sha256:1".to_owned(),
                    platform: "linux/arm64/v8".to_owned(),
                    tagged: Timestamp::from_rfc3339(tagged),
                    volumes: Vec::new(),
                };
                [("redis:7".to_owned(), seen.clone()), ("p-web".to_owned(), seen)].into()
            })
            .unwrap_or_default();
        let now = Timestamp::from_rfc3339("2026-01-09T00:00:00Z").unwrap();
        match ensure_images(project, &images, now) {
            Ok(plan) => plan.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_image_is_pulled_as_its_policy_says() {
        let (absent, fresh, old) = (None, Some("2026-01-08T23:00:00.5+01:00"), Some("2026-01-01T00:00:00Z"));
        for (policy, local, expected) in [
            ("", absent, "pull image redis:7 (no image)"),
            ("", fresh, "nothing to do"),
            ("missing", fresh, "nothing to do"),
            ("always", fresh, "pull image redis:7 (pull policy always)"),
            ("never", absent, "nothing to do"),
            ("daily", fresh, "nothing to do"),
            ("daily", old, "pull image redis:7 (image older than its pull policy allows)"),
            ("weekly", fresh, "nothing to do"),
            ("weekly", old, "pull image redis:7 (image older than its pull policy allows)"),
            ("every_1w2d", old, "nothing to do"),
            ("every_90m", fresh, "pull image redis:7 (image older than its pull policy allows)"),
            ("every_90m", absent, "pull image redis:7 (no image)"),
            ("every_5x", old, "service web: unsupported pull policy \"every_5x\""),
        ] {
            assert_eq!(plan(&project("redis:7", policy, false), local), expected, "{policy} {local:?}");
        }
    }

    #[test]
    fn an_image_that_only_a_build_makes_is_an_error_that_names_the_command() {
        let error = "image p-web of service web is missing: run `docker compose build web`";
        assert_eq!(plan(&project("", "", true), None), error);
        assert_eq!(plan(&project("", "", true), Some("2026-01-01T00:00:00Z")), "nothing to do");
        assert_eq!(
            plan(&project("redis:7", "", true), None),
            "pull image redis:7 (no image; `docker compose build web` makes it)"
        );
    }

    #[test]
    fn an_image_of_another_platform_counts_as_absent() {
        let mut project = project("redis:7", "", false);
        for (platform, expected) in [
            ("linux/arm64", "nothing to do"),
            ("linux/arm64/v8", "nothing to do"),
            ("linux/amd64", "pull image redis:7 (no image)"),
        ] {
            project.services.values_mut().next().unwrap().platform = platform.to_owned();
            assert_eq!(plan(&project, Some("2026-01-01T00:00:00Z")), expected);
        }
    }

    #[test]
    fn the_default_platform_is_pulled_but_does_not_make_a_local_image_absent() {
        let mut project = project("redis:7", "", false);
        project.environment.insert("DOCKER_DEFAULT_PLATFORM".to_owned(), "linux/amd64".to_owned());
        assert_eq!(plan(&project, Some("2026-01-01T00:00:00Z")), "nothing to do");
        let absent = ensure_images(&project, &BTreeMap::new(), Timestamp(0.0)).unwrap();
        let expected = PullImage { reference: "redis:7".to_owned(), platform: Some("linux/amd64".to_owned()) };
        assert_eq!(absent.steps.first().unwrap().call, Call::PullImage(expected));
    }
}
