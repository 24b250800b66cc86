//! The short syntaxes of ports, volumes, devices and extra hosts, read into their long forms.
//!
//! Errors are Compose's own sentences; the caller knows the place.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::paths;
use super::value::scalar_text;
use super::yaml::{Kind, Map, Node, Place};

/// Ports that one text may stand for: all that there are.
const MAX_PORT: u64 = u16::MAX as u64;

/// Reads `[ip:][host[-end]:]container[-end][/protocol]`: one long port for each container port, in the order of their
/// texts (`10/tcp` before `8/tcp`).
///
/// # Errors
///
/// In Compose's words.
pub fn ports(text: &str, place: &Place) -> Result<Vec<Node>, String> {
    let (address, host, container) = split_port(text);
    let mut parts = container.split('/');
    let (container, protocol) = match (parts.next().unwrap_or_default(), parts.next()) {
        ("", _) => return Err(format!("no port specified: {text}<empty>")),
        (container, None | Some("")) => (container, "tcp".to_owned()),
        (container, Some(protocol)) => (container, protocol.to_lowercase()),
    };
    let address = match address.strip_prefix('[') {
        Some(bracketed) => bracketed
            .strip_suffix(']')
            .ok_or_else(|| format!("invalid IP address {address}: missing ']' in address"))?,
        None if address.contains(':') => {
            return Err(format!("invalid IP address {address}: too many colons in address, an IPv6 one stands in []"));
        }
        None => address.as_str(),
    };
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    let (start, end) = port_range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    let host_range = match host {
        "" => None,
        host => Some(port_range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?),
    };
    if let Some((host_start, host_end)) = host_range
        && end - start != host_end - host_start
        && start != end
    {
        return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
    }
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    let mut targets: Vec<(String, u64)> = (start..=end).map(|port| (format!("{port}/{protocol}"), port)).collect();
    targets.sort_unstable();
    let port = |(_, target): (String, u64)| {
        let published = host_range.map(|(host_start, host_end)| {
            let port = host_start + (target - start);
            if start == end && host_start != host_end { format!("{port}-{host_end}") } else { port.to_string() }
        });
        let mut long = Long::new(place);
        long.text("mode", "ingress");
        long.text("host_ip", address);
        long.set("target", Kind::Int(target.into()));
        long.text("published", &published.unwrap_or_default());
        long.text("protocol", &protocol);
        long.finish()
    };
    Ok(targets.into_iter().map(port).collect())
}

/// How many long ports [`ports`] makes of a text, before it makes them; 1 where it makes none.
pub(super) fn port_count(text: &str) -> usize {
    let (_, _, container) = split_port(text);
    let range = container.split('/').next().and_then(port_range);
    range.and_then(|(start, end)| usize::try_from(end - start + 1).ok()).unwrap_or(1)
}

fn split_port(text: &str) -> (String, &str, &str) {
    let (rest, container) = text.rsplit_once(':').unwrap_or(("", text));
    let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    (address.to_owned(), host, container)
}

/// `80` or `80-90`; what follows a second `-` is not looked at.
fn port_range(text: &str) -> Option<(u64, u64)> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|port| digits && *port <= MAX_PORT)
    };
    let mut parts = text.split('-');
    let start = port(parts.next()?)?;
    let end = parts.next().map_or(Some(start), port)?;
    (start <= end).then_some((start, end))
}

/// Reads `[source:]target[:options]`.
///
/// A colon behind a single letter belongs to a Windows drive, wherever the file is read: `v:/x` is one field.
///
/// # Errors
///
/// In Compose's words.
pub fn volume(text: &str, place: &Place) -> Result<Node, String> {
    let mut long = Long::new(place);
    match text.len() {
        0 => return Err("invalid empty volume spec".to_owned()),
        1 | 2 => {
            long.text("type", "volume");
            long.text("target", &clean(text));
            return Ok(long.finish());
        }
        _ => {}
    }
    let fields = volume_fields(text);
    let invalid = |reason: &str| format!("invalid spec: {text}: {reason}");
    if fields.iter().any(String::is_empty) {
        return Err(invalid("empty section between colons"));
    }
    let (source, target, options) = match fields.as_slice() {
        [target] => ("", target, ""),
        [source, target] => (source.as_str(), target, ""),
        [source, target, options] => (source.as_str(), target, options.as_str()),
        _ => return Err(invalid("too many colons")),
    };
    let (mut read_only, mut no_copy, mut selinux, mut propagation) = (false, false, "", "");
    for option in options.split(',') {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "nocopy" => no_copy = true,
            "z" | "Z" => selinux = option,
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" => propagation = option,
            _ => {}
        }
    }
    let bind = is_path(source);
    long.text("type", if bind { "bind" } else { "volume" });
    long.text("source", source);
    long.text("target", &clean(target));
    if read_only {
        long.set("read_only", Kind::Bool(true));
    }
    if bind || !selinux.is_empty() || !propagation.is_empty() {
        let mut options = Long::new(place);
        options.text("selinux", selinux);
        options.text("propagation", propagation);
        if bind {
            options.set("create_host_path", Kind::Bool(true));
        }
        long.set("bind", options.finish().kind);
    }
    if !bind || no_copy {
        let mut options = Long::new(place);
        if no_copy {
            options.set("nocopy", Kind::Bool(true));
        }
        long.set("volume", options.finish().kind);
    }
    Ok(long.finish())
}

/// Splits at colons, but not inside `${…}` and not behind a drive letter.
fn volume_fields(text: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut open = 0usize;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '$' if characters.peek() == Some(&'{') => open += 1,
            '}' if open > 0 => open -= 1,
            ':' if open == 0 && !is_letter(&field) => {
                fields.push(std::mem::take(&mut field));
                continue;
            }
            _ => {}
        }
        field.push(character);
    }
    fields.push(field);
    fields
}

fn is_letter(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(char::is_alphabetic) && characters.next().is_none()
}

/// Whether a volume's source is a path of the host rather than the name of a volume.
fn is_path(source: &str) -> bool {
    source.starts_with(['.', '/', '~'])
        || source.starts_with(r"\\")
        || source.split_once(':').is_some_and(|(drive, _)| is_letter(drive))
}

/// Reads `source[:target[:permissions]]`.
///
/// # Errors
///
/// In Compose's words.
pub fn device(text: &str, place: &Place) -> Result<Node, String> {
    let fields: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match fields.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] => (*source, *target, *permissions),
        _ => return Err(format!("confusing device mapping, please use long syntax: {text}")),
    };
    let mut long = Long::new(place);
    for (key, value) in
        [("source", source), ("target", if target.is_empty() { source } else { target }), ("permissions", permissions)]
    {
        long.set(key, Kind::Str(value.to_owned()));
    }
    Ok(long.finish())
}

/// Reads `extra_hosts` in either form: addresses by host name.
///
/// # Errors
///
/// In Compose's words.
pub fn extra_hosts(node: &Node) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    match &node.kind {
        Kind::Map(map) => {
            for entry in map {
                if entry.key.starts_with("x-") {
                    return Err(format!("unexpected extension {} among the hosts", entry.key));
                }
                let addresses = match &entry.value.kind {
                    Kind::Seq(items) => items.iter().filter_map(|item| scalar_text(&item.kind)).collect(),
                    kind => vec![scalar_text(kind).unwrap_or_default()],
                };
                hosts.insert(entry.key.clone(), addresses);
            }
        }
        Kind::Seq(items) => {
            for line in items.iter().filter_map(|item| scalar_text(&item.kind)) {
                let (host, addresses) = line
                    .split_once('=')
                    .or_else(|| line.split_once(':'))
                    .ok_or_else(|| format!("invalid additional host, missing IP: {line}"))?;
                hosts.entry(host.to_owned()).or_default().extend(addresses.split(',').map(str::to_owned));
            }
        }
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Str(_) | Kind::Timestamp(_) => {}
    }
    for (host, addresses) in &mut hosts {
        if host.is_empty() || host.contains([':', '=']) {
            return Err(format!("bad host name '{host}'"));
        }
        for address in addresses {
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            if let Some(bare) = bare.filter(|bare| !bare.is_empty()) {
                *address = bare.to_owned();
            }
        }
    }
    Ok(hosts)
}

/// The shortest path with the same meaning; of no text it is no text.
fn clean(path: &str) -> String {
    if path.is_empty() { String::new() } else { paths::clean(path) }
}

/// A long form in the making; all of it stands where the short form does.
struct Long<'a> {
    place: &'a Place,
    map: Map,
}

impl<'a> Long<'a> {
    fn new(place: &'a Place) -> Self {
        Self { place, map: Map::new() }
    }

    fn set(&mut self, key: &str, kind: Kind) {
        self.map.insert(key.to_owned(), self.place.clone(), Node::new(self.place.clone(), kind));
    }

    fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.set(key, Kind::Str(text.to_owned()));
        }
    }

    fn finish(self) -> Node {
        Node::new(self.place.clone(), Kind::Map(self.map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compose::yaml::{Limits, parse};

    fn place() -> Place {
        Place { file: "f".into(), line: 1, column: 1 }
    }

    fn yaml(text: &str) -> Node {
        parse("f".into(), text, &Limits::default()).unwrap().remove(0)
    }

    fn published(text: &str) -> Vec<String> {
        let field = |port: &Node, key: &str| {
            port.as_map().unwrap().get(key).map(|node| scalar_text(&node.kind).unwrap()).unwrap_or_default()
        };
        ports(text, &place())
            .unwrap()
            .iter()
            .map(|port| {
                ["host_ip", "published", "target", "protocol"].map(|key| field(port, key)).join(" ").trim().to_owned()
            })
            .collect()
    }

    #[test]
    fn ports_are_read_one_for_each_container_port() {
        for (text, expected) in [
            ("80", &["80 tcp"][..]),
            ("8080:80", &["8080 80 tcp"]),
            ("127.0.0.1:8080:80/UDP", &["127.0.0.1 8080 80 udp"]),
            ("127.0.0.1::80", &["127.0.0.1  80 tcp"]),
            ("[::1]:8080:80", &["::1 8080 80 tcp"]),
            ("::80", &["80 tcp"]),
            ("91-93:94", &["91-93 94 tcp"]),
            ("8-11:8-11", &["10 10 tcp", "11 11 tcp", "8 8 tcp", "9 9 tcp"]),
            ("9-10", &["10 tcp", "9 tcp"]),
            ("80/", &["80 tcp"]),
        ] {
            let read: Vec<String> = published(text)
                .iter()
                .map(|port| port.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" "))
                .collect();
            let expected: Vec<String> = expected
                .iter()
                .map(|port| port.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" "))
                .collect();
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn bad_ports_are_told_in_composes_words() {
        for (text, error) in [
            ("b", "invalid containerPort: b"),
            ("b:80", "invalid hostPort: b"),
            ("1-2:1-4", "invalid ranges specified for container and host Ports: 1-4 and 1-2"),
            ("80/foo", "invalid proto: foo"),
            ("x:80:80", "invalid IP address: x"),
            ("::1:80:80", "invalid IP address ::1: too many colons in address, an IPv6 one stands in []"),
            ("80:", "no port specified: 80:<empty>"),
            ("", "no port specified: <empty>"),
            ("65536", "invalid containerPort: 65536"),
            ("+80", "invalid containerPort: +80"),
            ("9-8", "invalid containerPort: 9-8"),
        ] {
            assert_eq!(ports(text, &place()), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn volumes_are_read_with_their_quirks() {
        for (text, long) in [
            ("/v", "{type: volume, target: /v}"),
            ("/vv", "{type: volume, target: /vv, volume: {}}"),
            ("v:/x", "{type: volume, target: 'v:/x', volume: {}}"),
            ("vv:/x:nocopy", "{type: volume, source: vv, target: /x, volume: {nocopy: true}}"),
            ("vv:/x:z", "{type: volume, source: vv, target: /x, bind: {selinux: z}, volume: {}}"),
            ("./a:/b/../c/:foo", "{type: bind, source: ./a, target: /c, bind: {create_host_path: true}}"),
            (
                "~/a:/b:ro,z,Z,rslave",
                "{type: bind, source: ~/a, target: /b, read_only: true,
                  bind: {selinux: Z, propagation: rslave, create_host_path: true}}",
            ),
            (r"C:\x:D:\y:rw", r"{type: bind, source: 'C:\x', target: 'D:\y', bind: {create_host_path: true}}"),
            ("vv${A:-b}:/x", "{type: volume, source: 'vv${A:-b}', target: /x, volume: {}}"),
        ] {
            assert_eq!(volume(text, &place()), Ok(yaml(long)), "{text}");
        }
    }

    #[test]
    fn bad_volumes_are_told_in_composes_words() {
        for (text, error) in [
            ("", "invalid empty volume spec"),
            ("/a:/b:", "invalid spec: /a:/b:: empty section between colons"),
            ("/a:/b:ro:x", "invalid spec: /a:/b:ro:x: too many colons"),
        ] {
            assert_eq!(volume(text, &place()), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn devices_default_to_the_same_path_and_all_permissions() {
        assert_eq!(device("/a", &place()), Ok(yaml("{source: /a, target: /a, permissions: rwm}")));
        assert_eq!(device("/a:/b:r", &place()), Ok(yaml("{source: /a, target: /b, permissions: r}")));
        assert_eq!(
            device("a:b:c:d", &place()),
            Err("confusing device mapping, please use long syntax: a:b:c:d".to_owned())
        );
    }

    #[test]
    fn hosts_are_read_from_both_forms() {
        let hosts = |text: &str| extra_hosts(&yaml(text));
        let read = hosts("['a=1', 'a:::1', 'b:[::1],2', 'c=d=e']").unwrap();
        let shown: Vec<String> =
            read.iter().map(|(host, addresses)| format!("{host} {}", addresses.join(" "))).collect();
        assert_eq!(shown, ["a 1 ::1", "b ::1 2", "c d=e"]);
        assert_eq!(hosts("{a: '1,2', b: ['[::1]', 3], c: }").unwrap()["a"], ["1,2"]);
        assert_eq!(hosts("[a]"), Err("invalid additional host, missing IP: a".to_owned()));
        assert_eq!(hosts("['a:b=c']"), Err("bad host name 'a:b'".to_owned()));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text in "[0-9a:./\\[\\]~${}é,=-]{0,16}") {
            let _ = (ports(&text, &place()), volume(&text, &place()), device(&text, &place()));
            let _ = extra_hosts(&Node::new(place(), Kind::Seq(vec![Node::new(place(), Kind::Str(text))])));
        }

        #[test]
        fn a_cleaned_path_is_clean(path in "[a./]{1,12}") {
            prop_assert_eq!(clean(&clean(&path)), clean(&path));
        }
    }
}
