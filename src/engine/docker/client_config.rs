//! The Docker client's `config.json`: registry credentials, and the proxies that it gives every container.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::file::{FileError, FileReader};

/// Reads the file.
const CONFIG: FileReader = FileReader::new(1 << 20);

/// The entry of `proxies` for hosts that have none of their own.
const ANY_HOST: &str = "default";

/// What an entry of `proxies` may hold, and the variable that each becomes.
const PROXY_VARIABLES: [(&str, &str); 5] = [
    ("httpProxy", "HTTP_PROXY"),
    ("httpsProxy", "HTTPS_PROXY"),
    ("noProxy", "NO_PROXY"),
    ("ftpProxy", "FTP_PROXY"),
    ("allProxy", "ALL_PROXY"),
];

/// The parts of the file that we follow. What it does not say is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConfig {
    auths: BTreeMap<String, Credentials>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
    /// By host, then by the file's own word for the variable.
    proxies: BTreeMap<String, BTreeMap<String, String>>,
}

/// What the Engine is given to pull from a registry.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub(super) struct RegistryAuth {
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identitytoken: Option<String>,
    serveraddress: String,
}

impl std::fmt::Debug for RegistryAuth {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("serveraddress", &self.serveraddress).finish_non_exhaustive()
    }
}

impl RegistryAuth {
    /// As the header `X-Registry-Auth` holds it.
    pub(super) fn header(&self) -> Option<String> {
        Some(URL_SAFE.encode(serde_json::to_vec(self).ok()?))
    }
}

/// One registry's credentials. The order of the fields is that in which Docker writes them.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct Credentials {
    #[serde(skip_serializing)]
    username: String,
    #[serde(skip_serializing)]
    password: String,
    /// `base64(username:password)`.
    #[serde(skip_serializing_if = "String::is_empty")]
    auth: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    email: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    identitytoken: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    registrytoken: String,
}

impl Credentials {
    /// Name and password, where there are any.
    fn plain(&self) -> Option<(String, String)> {
        if self.auth.is_empty() {
            return (!self.username.is_empty()).then(|| (self.username.clone(), self.password.clone()));
        }
        let text = String::from_utf8(STANDARD.decode(&self.auth).ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
    }

    /// As Docker saves it: name and password only as `auth`.
    fn saved(&self) -> Self {
        let auth = match self.plain() {
            Some((username, password)) => STANDARD.encode(format!("{username}:{password}")),
            None => self.auth.clone(),
        };
        Self { auth, ..self.clone() }
    }
}

impl std::fmt::Debug for Credentials {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl ClientConfig {
    /// Reads `config.json` in `folder`. One that cannot be read or is no JSON is warned of and counts as empty.
    #[must_use]
    pub fn load(folder: Option<&Path>) -> Self {
        let Some(path) = folder.map(|folder| folder.join("config.json")) else { return Self::default() };
        let text = match CONFIG.bytes(&path) {
            Ok(text) => text,
            Err(FileError { fault, .. }) if fault.is_not_found() => return Self::default(),
            Err(FileError { fault, .. }) => {
                warn!(path = %path.display(), error = %fault, "client configuration not readable");
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            // Its text may quote a credential: the place is enough.
            warn!(path = %path.display(), line = error.line(), "client configuration is not valid JSON");
            Self::default()
        })
    }

    /// Credentials for a registry, as the file names it; none where it has none.
    pub(super) fn credentials(&self, registry: &str) -> Option<RegistryAuth> {
        let entry = self
            .auths
            .get(registry)
            .or_else(|| self.auths.iter().find(|(name, _)| host(name) == registry).map(|(_, entry)| entry));
        let plain = entry.and_then(Credentials::plain);
        let token = entry.map(|entry| entry.identitytoken.clone()).filter(|token| !token.is_empty());
        if plain.is_none() && token.is_none() {
            if let Some(helper) = self.cred_helpers.get(registry).or(self.creds_store.as_ref()) {
                warn!(
                    registry,
                    helper, "registry credentials are kept by a helper, which is not run: pulling without them"
                );
            }
            return None;
        }
        let (username, password) = plain.unzip();
        Some(RegistryAuth { username, password, identitytoken: token, serveraddress: registry.to_owned() })
    }

    /// The variables that containers on the Engine at `host`, written as in `DOCKER_HOST`, get: each in upper and in
    /// lower case.
    ///
    /// Source: Docker CLI, "Configure the Docker client", `proxies`.
    #[must_use]
    pub fn proxies(&self, host: &str) -> BTreeMap<String, String> {
        let Some(proxies) = self.proxies.get(host).or_else(|| self.proxies.get(ANY_HOST)) else {
            return BTreeMap::new();
        };
        PROXY_VARIABLES
            .into_iter()
            .filter_map(|(word, variable)| Some((variable, proxies.get(word).filter(|value| !value.is_empty())?)))
            .flat_map(|(name, value)| [(name.to_owned(), value.clone()), (name.to_lowercase(), value.clone())])
            .collect()
    }

    /// The credentials alone as a `config.json`, byte for byte as Compose copies it into services with
    /// `use_api_socket`; none where there are none. Credentials that a helper keeps are not in it.
    #[must_use]
    pub fn registry_config(&self) -> Option<String> {
        if self.creds_store.is_some() || !self.cred_helpers.is_empty() {
            warn!("registry credentials that a helper keeps are not given to services with use_api_socket");
        }
        if self.auths.is_empty() {
            return None;
        }
        let auths: BTreeMap<_, _> = self.auths.iter().map(|(registry, auth)| (registry, auth.saved())).collect();
        let mut json = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut writer = serde_json::Serializer::with_formatter(&mut json, indent);
        BTreeMap::from([("auths", auths)]).serialize(&mut writer).ok()?;
        String::from_utf8(json).ok()
    }
}

/// A key of `auths` without scheme and path.
pub(super) fn host(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    key.split_once('/').map_or(key, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: serde_json::Value) -> ClientConfig {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn credentials_are_found_under_every_spelling_of_a_registry() {
        for key in ["registry.example", "https://registry.example", "https://registry.example/v2/"] {
            let config = config(serde_json::json!({ "auths": { key: { "auth": "dTpw" } } }));
            let found = config.credentials("registry.example").unwrap();
            assert_eq!((found.username.as_deref(), found.password.as_deref()), (Some("u"), Some("p")), "{key}");
            assert_eq!(config.credentials("other.example"), None);
        }
    }

    #[test]
    fn credentials_are_sent_in_the_alphabet_of_urls() {
        let config = config(serde_json::json!({ "auths": { "r.example": { "username": "u", "password": "~?>~?>" } } }));
        let header = config.credentials("r.example").unwrap().header().unwrap();
        assert!(!header.contains(['+', '/']), "{header}");
        let sent: serde_json::Value = serde_json::from_slice(&URL_SAFE.decode(header).unwrap()).unwrap();
        assert_eq!(sent["password"], "~?>~?>");
    }

    #[test]
    fn an_entry_that_only_points_to_a_helper_gives_no_credentials() {
        let config = config(serde_json::json!({ "auths": { "r.example": {} }, "credsStore": "pass" }));
        assert_eq!(config.credentials("r.example"), None);
    }

    #[test]
    fn proxies_are_the_hosts_own_or_the_default_ones_in_both_cases() {
        let config = config(serde_json::json!({ "proxies": {
            "default": { "httpProxy": "http://p:1", "noProxy": "" },
            "tcp://other:2375": { "noProxy": "n" },
        }}));
        let names = |host: &str| config.proxies(host).into_iter().map(|(key, value)| format!("{key}={value}"));
        let unix = names("unix:///var/run/docker.sock").collect::<Vec<_>>();
        assert_eq!(unix, ["HTTP_PROXY=http://p:1", "http_proxy=http://p:1"]);
        assert_eq!(names("tcp://other:2375").collect::<Vec<_>>(), ["NO_PROXY=n", "no_proxy=n"]);
    }

    #[test]
    fn the_registry_config_holds_the_credentials_and_nothing_else() {
        let config = config(serde_json::json!({
            "auths": { "b.example": { "auth": "dTpw", "email": "x" }, "e.example": {}, "u.example": { "username": "u", "password": "p" } },
            "proxies": { "default": {} },
        }));
        let expected = r#"{
	"auths": {
		"b.example": {
			"auth": "dTpw",
			"email": "x"
		},
		"e.example": {},
		"u.example": {
			"auth": "dTpw"
		}
	}
}"#;
        assert_eq!(config.registry_config().unwrap(), expected);
    }
}
