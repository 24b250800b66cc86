//! Which services the parameters of commands may name, and why not the others.

use std::collections::BTreeSet;
use std::fmt;

use crate::names::ServiceName;

/// What the settings permit commands to do with the services that their parameters name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Compose profiles whose services commands may run, start and stop.
    pub profiles: BTreeSet<String>,
    /// Services that commands may run, start and stop whatever their profiles.
    pub allow: BTreeSet<ServiceName>,
    /// Services that commands may not touch.
    pub deny: BTreeSet<ServiceName>,
    /// The daemon's own service, which no command may touch: it would not live to answer.
    pub own: Option<ServiceName>,
}

/// Why commands may not do something with a service. Its text names the setting that would allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAllowed {
    /// It is the daemon's own.
    Own,
    /// The settings deny it.
    Denied,
    /// It has none of the permitted profiles.
    Profile,
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "it is the orchestrator's own",
            Self::Denied => "it is in `commands.deny`",
            Self::Profile => "none of its profiles is in `commands.profiles`",
        })
    }
}

impl Permissions {
    /// Whether a step of the settings may name the service: any but our own.
    ///
    /// # Errors
    ///
    /// When it may not.
    pub fn by_settings(&self, service: &ServiceName) -> Result<(), NotAllowed> {
        if self.own.as_ref() == Some(service) { Err(NotAllowed::Own) } else { Ok(()) }
    }

    /// Whether a command may restart the containers that the service has.
    ///
    /// # Errors
    ///
    /// When it may not.
    pub fn restart(&self, service: &ServiceName) -> Result<(), NotAllowed> {
        self.by_settings(service)?;
        if self.deny.contains(service) { Err(NotAllowed::Denied) } else { Ok(()) }
    }

    /// Whether a command may run, start and stop a service with these profiles.
    ///
    /// # Errors
    ///
    /// When it may not.
    pub fn operate(&self, service: &ServiceName, profiles: &[String]) -> Result<(), NotAllowed> {
        self.restart(service)?;
        let allowed = self.allow.contains(service) || profiles.iter().any(|profile| self.profiles.contains(profile));
        if allowed { Ok(()) } else { Err(NotAllowed::Profile) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_service_is_allowed_nothing_whatever_the_settings_say() {
        let name = |name: &str| name.parse::<ServiceName>().unwrap();
        let permissions = Permissions {
            profiles: ["jobs".to_owned()].into(),
            allow: [name("hourly"), name("redis")].into(),
            deny: [name("redis")].into(),
            own: Some(name("orchestrator")),
        };
        let jobs = ["jobs".to_owned()];
        assert_eq!(permissions.operate(&name("orchestrator"), &jobs), Err(NotAllowed::Own));
        assert_eq!(permissions.restart(&name("orchestrator")), Err(NotAllowed::Own));
        assert_eq!(permissions.by_settings(&name("orchestrator")), Err(NotAllowed::Own));
        assert_eq!(permissions.operate(&name("redis"), &jobs), Err(NotAllowed::Denied));
        assert_eq!(permissions.restart(&name("redis")), Err(NotAllowed::Denied));
        assert_eq!(permissions.by_settings(&name("redis")), Ok(()));
        assert_eq!(permissions.operate(&name("web"), &[]), Err(NotAllowed::Profile));
        assert_eq!(permissions.restart(&name("web")), Ok(()));
        assert_eq!(permissions.operate(&name("job"), &jobs), Ok(()));
        assert_eq!(permissions.operate(&name("hourly"), &[]), Ok(()));
    }
}
