//! Slugs of one-offs, from which the daemon tells its own after a crash.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::hash::hex;
use crate::clock::Timestamp;
use crate::names::{ProjectName, RunId, ServiceName};

/// Bytes before the mark, which is the other 8 of the 32.
const RANDOM: usize = 24;
const MARK: usize = 8;

/// Bytes that are random in the slug of a daemon's run; after them its birth is hidden.
const FREE: usize = 16;

/// When a daemon was started. Of two daemons on one project the younger one yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Birth([u8; 8]);

impl Birth {
    /// Of a daemon that was started at that moment, to the millisecond; `random` tells it from others of that millisecond.
    #[must_use]
    pub fn new(at: Timestamp, random: [u8; 2]) -> Self {
        let milliseconds = Duration::try_from_secs_f64(at.0).unwrap_or_default().as_millis();
        let milliseconds = u64::try_from(milliseconds).unwrap_or_default();
        Self((milliseconds << 16 | u64::from(u16::from_be_bytes(random))).to_be_bytes())
    }
}

/// The value of a one-off's slug label: 64 hexadecimal digits that anyone takes for random.
///
/// The last 16 digits are a mark computed from the others, the project and the service. So a one-off of ours is known
/// again without a label that `docker compose run` would not write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slug {
    text: Box<str>,
    run_id: RunId,
}

impl Slug {
    /// The slug of a run of that service, from fresh random bytes.
    #[must_use]
    pub fn new(random: [u8; RANDOM], project: &ProjectName, service: &ServiceName) -> Self {
        let run_id = RunId::from_bytes(*random.first_chunk().unwrap_or(&[0; 6]));
        let text = format!("{}{}", hex(&random), hex(&mark(&random, project.as_str(), service.as_str())));
        Self { text: text.into(), run_id }
    }

    /// The slug of a run that a daemon of that birth begins. Nothing but [`Slug::birth`] sees that it is not random.
    #[must_use]
    pub fn of_daemon(birth: Birth, random: [u8; RANDOM], project: &ProjectName, service: &ServiceName) -> Self {
        let mut bytes = random;
        let (free, stamp) = bytes.split_at_mut(FREE);
        stamp.copy_from_slice(&masked(birth.0, free));
        Self::new(bytes, project, service)
    }

    /// The birth of the daemon that began the run with that slug label, where it is one of ours.
    #[must_use]
    pub fn birth(text: &str) -> Option<Birth> {
        let bytes = unhex(text)?;
        let (free, rest) = bytes.split_at(FREE);
        Some(Birth(masked(*rest.first_chunk()?, free)))
    }

    /// Whether that slug label was written by this daemon for that project and service.
    #[must_use]
    pub fn is_ours(text: &str, project: &ProjectName, service: &ServiceName) -> bool {
        let Some(bytes) = unhex(text) else { return false };
        let (random, found) = bytes.split_at(RANDOM);
        found == mark(random, project.as_str(), service.as_str())
    }

    /// The run's id: the first twelve digits, which also end the container's name.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        self.run_id.clone()
    }

    /// The label's value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Hides eight bytes behind random ones, and finds them again.
fn masked(bytes: [u8; 8], free: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(free);
    let mut mask = digest.iter();
    bytes.map(|byte| byte ^ mask.next().copied().unwrap_or_default())
}

/// Lengths go in as well, so that no other split of the same text has the same mark.
fn mark(random: &[u8], project: &str, service: &str) -> [u8; MARK] {
    let digest = Sha256::new()
        .chain_update("sense-orchestrator")
        .chain_update(project.len().to_be_bytes())
        .chain_update(project)
        .chain_update(service.len().to_be_bytes())
        .chain_update(service)
        .chain_update(random)
        .finalize();
    *digest.first_chunk().unwrap_or(&[0; MARK])
}

fn unhex(text: &str) -> Option<[u8; RANDOM + MARK]> {
    let mut bytes = [0; RANDOM + MARK];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    let mut digits = text.chars().map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok()));
    for byte in &mut bytes {
        *byte = digits.next()?? << 4 | digits.next()??;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (ProjectName, ServiceName) {
        ("stack".parse().unwrap(), "source-weather".parse().unwrap())
    }

    #[test]
    fn a_slug_is_known_again_for_its_own_project_and_service_only() {
        let (project, service) = names();
        let slug = Slug::new([7; 24], &project, &service);
        assert_eq!(slug.as_str().len(), 64);
        assert!(Slug::is_ours(slug.as_str(), &project, &service));
        assert!(!Slug::is_ours(slug.as_str(), &"stack2".parse().unwrap(), &service));
        assert!(!Slug::is_ours(slug.as_str(), &project, &"weather".parse().unwrap()));
    }

    #[test]
    fn a_slug_of_compose_itself_is_not_ours() {
        let (project, service) = names();
        for text in ["", "é", &"0".repeat(64), &"z".repeat(64), &"ab".repeat(33)] {
            assert!(!Slug::is_ours(text, &project, &service), "{text:?}");
        }
    }

    #[test]
    fn a_slug_tells_which_of_two_daemons_is_the_younger_and_looks_random_all_the_same() {
        let (project, service) = names();
        let births = [(1.8e9, [9, 9]), (1.8e9 + 0.001, [0, 0]), (1.8e9 + 0.001, [0, 1])];
        let births = births.map(|(at, random)| Birth::new(Timestamp(at), random));
        assert!(births.is_sorted());
        let slug = |birth, random| Slug::of_daemon(birth, [random; 24], &project, &service);
        for birth in births {
            let (first, second) = (slug(birth, 1), slug(birth, 2));
            assert!(Slug::is_ours(first.as_str(), &project, &service));
            assert_eq!([&first, &second].map(|slug| Slug::birth(slug.as_str())), [Some(birth); 2]);
            assert_ne!(first.as_str().get(32..48), second.as_str().get(32..48));
        }
    }

    #[test]
    fn the_run_id_is_the_start_of_the_slug() {
        let (project, service) = names();
        let mut random = [0; 24];
        random[..7].copy_from_slice(&[0xaf, 0x06, 0xae, 0x06, 0xef, 0x61, 0xff]);
        let slug = Slug::new(random, &project, &service);
        assert_eq!(slug.run_id().as_str(), "af06ae06ef61");
        assert!(slug.as_str().starts_with("af06ae06ef61ff"));
    }
}
