//! The address and credentials of Redis.

use secrecy::{ExposeSecret, SecretString};

use crate::bus::redis::{Address, Endpoint};

/// The port of `redis://host` without one.
const DEFAULT_PORT: u16 = 6379;

/// Reads a Redis URL.
///
/// # Errors
/// What is wrong with it, without a word of the URL: any part of a broken one may be the password.
pub(super) fn parse(url: &SecretString) -> Result<Address, String> {
    const SCHEMES: &str = "redis://, rediss:// or unix://";
    let (scheme, rest) = url.expose_secret().trim().split_once("://").ok_or(format!("must start with {SCHEMES}"))?;
    let (tls, unix) = match scheme {
        "redis" | "valkey" => (false, false),
        "rediss" | "valkeys" => (true, false),
        "redis+unix" | "unix" => (false, true),
        _ => return Err(format!("must start with {SCHEMES}")),
    };
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let authority_ends = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(authority_ends).unwrap_or((rest, ""));
    let (credentials, host) =
        authority.rsplit_once('@').map_or((None, authority), |(credentials, host)| (Some(credentials), host));
    let (username, password) = match credentials.map(|text| text.split_once(':').unwrap_or((text, ""))) {
        Some((username, password)) => (decode(username)?, decode(password)?),
        None => (String::new(), String::new()),
    };
    let (endpoint, database) = if unix {
        if !host.is_empty() || path.len() < 2 {
            return Err("a socket needs an absolute path: unix:///path".into());
        }
        let database = match query {
            Some(query) => Some(query.strip_prefix("db=").ok_or("the only thing after `?` can be `db=NUMBER`")?),
            None => None,
        };
        (Endpoint::Unix(path.into()), database)
    } else {
        if query.is_some() {
            return Err("nothing may follow a `?` here; a password with one is written with %3F".into());
        }
        (tcp(host)?, path.strip_prefix('/').filter(|database| !database.is_empty()))
    };
    // Redis has 16 databases where nothing else is configured.
    let database = database.map(str::parse::<u8>).transpose();
    Ok(Address {
        endpoint,
        tls,
        username: Some(username).filter(|username| !username.is_empty()),
        password: Some(password).filter(|password| !password.is_empty()).map(SecretString::from),
        database: database.map_err(|_| "after the host comes the number of a database, 0 to 255")?.map(u16::from),
    })
}

fn tcp(authority: &str) -> Result<Endpoint, String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("the host has a `[` without its `]`")?;
            (host, port.strip_prefix(':').or(if port.is_empty() { None } else { Some(port) }))
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err("the host is missing".into());
    }
    let port = match port {
        None | Some("") => DEFAULT_PORT,
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or("the port is not a number from 1 to 65535")?,
    };
    Ok(Endpoint::Tcp(decode(host)?, port))
}

/// Replaces `%41` by `A`.
fn decode(text: &str) -> Result<String, String> {
    let wrong = || "a `%` is not followed by two hexadecimal digits, or they are not UTF-8; write %25".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or_else(wrong);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Address, String> {
        parse(&SecretString::from(url))
    }

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp(host.into(), port)
    }

    #[test]
    fn every_part_of_a_url_is_read() {
        let redis = read("rediss://me:p%40ss%2F@host:7000/3").unwrap();
        assert_eq!(redis.endpoint, tcp("host", 7000));
        assert!(redis.tls);
        assert_eq!(redis.username.as_deref(), Some("me"));
        assert_eq!(redis.password.as_ref().unwrap().expose_secret(), "p@ss/");
        assert_eq!(redis.database, Some(3));
    }

    #[test]
    fn what_a_url_leaves_out_has_its_default() {
        for url in
            ["redis://host", "redis://host:6379", "redis://host/", "valkey://host", "redis://:@host", "redis://host:"]
        {
            let redis = read(url).unwrap();
            assert_eq!((redis.endpoint, redis.tls), (tcp("host", 6379), false), "{url}");
            assert!(redis.username.is_none() && redis.password.is_none() && redis.database.is_none(), "{url}");
        }
        assert_eq!(read("redis://[::1]:1").unwrap().endpoint, tcp("::1", 1));
        assert_eq!(read("redis://[::1]").unwrap().endpoint, tcp("::1", 6379));
    }

    #[test]
    fn a_socket_is_read_with_its_database_and_credentials() {
        for url in ["unix:///run/r.sock?db=2", "redis+unix://me:x@/run/r.sock?db=2"] {
            let redis = read(url).unwrap();
            assert_eq!((redis.endpoint, redis.database), (Endpoint::Unix("/run/r.sock".into()), Some(2)), "{url}");
        }
        assert_eq!(read("unix:///run/r.sock").unwrap().database, None);
        assert_eq!(read("unix://me:x@/s").unwrap().password.unwrap().expose_secret(), "x");
    }

    #[test]
    fn a_password_may_have_an_at_sign_and_colons() {
        let redis = read("redis://:a@b:c@host").unwrap();
        assert_eq!(redis.password.unwrap().expose_secret(), "a@b:c");
    }

    #[test]
    fn a_broken_url_is_an_error_that_shows_nothing_of_it() {
        for url in [
            "",
            "s3cret",
            "http://s3cret",
            "redis://",
            "redis://:s3cret@",
            "redis://h:s3cret",
            "redis://h:0",
            "redis://h/s3cret",
            "redis://:%s3@h",
            "redis://[s3cret",
            "redis://h?s3cret",
            "redis+unix://s3cret",
            "redis+unix:///a?s3cret=1",
            "redis://h/256",
            "redis://[::1]x",
        ] {
            let error = read(url).unwrap_err();
            assert!(!error.contains("s3cret"), "{url}: {error}");
        }
    }

    #[test]
    fn no_form_of_it_shows_the_password() {
        let redis = read("redis://me:s3cret@host").unwrap();
        assert!(!format!("{redis:?}").contains("s3cret"));
    }

    proptest::proptest! {
        #[test]
        fn credentials_of_any_text_are_read_back(username in ".{0,20}", password in ".{0,20}") {
            let encoded = |text: &str| text.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02x}"));
            let redis = read(&format!("redis://{}:{}@host", encoded(&username), encoded(&password))).unwrap();
            proptest::prop_assert_eq!(redis.username.unwrap_or_default(), username);
            let read_back = redis.password.map(|password| password.expose_secret().to_owned());
            proptest::prop_assert_eq!(read_back.unwrap_or_default(), password);
        }

        #[test]
        fn any_text_is_a_url_or_an_error(url in "(redis|rediss|unix|.*)://.*") {
            let _ = read(&url);
        }
    }
}
