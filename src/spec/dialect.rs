//! Compose versions, as far as their differences show on the Engine.

use std::fmt;
use std::str::FromStr;

/// The Compose version whose objects are written: its label and its differences.
///
/// Versions before 2.24 are written as 2.26, the oldest that is reproduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dialect {
    major: u16,
    minor: u16,
    patch: u16,
}

impl Default for Dialect {
    fn default() -> Self {
        Self::new(2, 40, 3)
    }
}

/// Why a text is not a Compose version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a Compose version such as 2.40.3")]
pub struct DialectError(String);

impl FromStr for Dialect {
    type Err = DialectError;

    /// Reads `2.40.3`, with an optional `v` before and anything after the third number.
    fn from_str(text: &str) -> Result<Self, DialectError> {
        let wrong = || DialectError(text.chars().take(80).collect());
        let core = text.strip_prefix('v').unwrap_or(text);
        let core = core.split(['-', '+', '~']).next().unwrap_or(core);
        let mut numbers = core.split('.').map(|part| part.parse::<u16>().map_err(|_| wrong()));
        let major = numbers.next().ok_or_else(wrong)??;
        let minor = numbers.next().ok_or_else(wrong)??;
        let patch = numbers.next().transpose()?.unwrap_or(0);
        if major < 2 { Err(wrong()) } else { Ok(Self { major, minor, patch }) }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Dialect {
    /// The dialect of a version.
    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    fn since(self, major: u16, minor: u16, patch: u16) -> bool {
        self >= Self::new(major, minor, patch)
    }

    /// `depends_on` is part of a service's hash.
    pub(super) fn hashes_depends_on(self) -> bool {
        !self.since(2, 29, 3)
    }

    /// `profiles` are part of a service's hash.
    pub(super) fn hashes_profiles(self) -> bool {
        !self.since(2, 30, 2)
    }

    /// compose-go 2.4.8 and older: networks' fields in another order and without `gw_priority`, file modes as numbers, no
    /// `label_file`.
    pub(super) fn hashes_as_compose_go_2_4(self) -> bool {
        !self.since(2, 34, 0)
    }

    /// compose-go 2.10: `create_host_path` is left out when true and written when false.
    pub(super) fn hashes_create_host_path_inverted(self) -> bool {
        self.since(5, 0, 0)
    }

    /// Networks carry a config hash.
    pub(super) fn labels_network_hash(self) -> bool {
        self.since(2, 31, 0)
    }

    /// Volumes carry a config hash.
    pub(super) fn labels_volume_hash(self) -> bool {
        self.since(2, 32, 0)
    }

    /// One-offs carry `container-number: 1`.
    pub(super) fn numbers_one_offs(self) -> bool {
        !self.since(2, 30, 0)
    }

    /// Named volumes and plain long binds go to `Binds`, binds with propagation to `Mounts`.
    pub(super) fn binds_volumes(self) -> bool {
        self.since(2, 35, 1)
    }

    /// What came at some version after 2.26 and before 2.40 that is not known more exactly: capabilities upper-cased,
    /// prefixed and sorted; `recursive` binds; options of reserved devices; `enable_ipv4`; a `start_interval` only with a
    /// `start_period`; a service's MAC address on a network without settings; bind options of file secrets.
    pub(super) fn is_recent(self) -> bool {
        self.since(2, 35, 0)
    }

    /// Endpoints carry driver options.
    pub(super) fn endpoint_driver_options(self) -> bool {
        self.since(2, 27, 1)
    }

    /// Endpoints carry a gateway priority and an interface name.
    pub(super) fn endpoint_gateway_priority(self) -> bool {
        self.since(2, 33, 1)
    }

    /// Devices with a CDI name become a device request, and `gpus` are known.
    pub(super) fn requests_cdi_devices(self) -> bool {
        self.since(2, 30, 0)
    }

    /// `expose` is parsed: `80` becomes `80/tcp`, ranges are expanded.
    pub(super) fn parses_expose(self) -> bool {
        self.since(5, 0, 0)
    }

    /// Containers of services that depend on a recreated one with `restart: true` are stopped first.
    pub(crate) fn stops_dependents_before_recreate(self) -> bool {
        self.since(2, 29, 4)
    }

    /// Content of secrets and configs is copied into one-offs.
    pub fn copies_files_into_one_offs(self) -> bool {
        self.since(2, 27, 0)
    }

    /// Hooks run after the start of a one-off.
    pub fn runs_hooks_in_one_offs(self) -> bool {
        self.since(5, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_with_and_without_its_trimmings() {
        for (text, shown) in [
            ("2.40.3", "2.40.3"),
            ("v2.26.1", "2.26.1"),
            ("2.26.1-4", "2.26.1"),
            ("2.40.3+ds1", "2.40.3"),
            ("5.0", "5.0.0"),
        ] {
            assert_eq!(text.parse::<Dialect>().unwrap().to_string(), shown);
        }
        for text in ["", "2", "1.29.2", "x.y.z", "2.x"] {
            assert!(text.parse::<Dialect>().is_err(), "{text:?}");
        }
    }
}
