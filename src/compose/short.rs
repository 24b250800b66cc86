//! The short syntaxes of volumes, devices, ports and hosts, as their long forms.

use std::collections::BTreeMap;

use super::value::scalar_text;
use super::yaml::{Kind, Map, Node, Place};

fn text(place: &Place, text: &str) -> Node {
    Node::new(place.clone(), Kind::Str(text.to_owned()))
}

fn mapping(place: &Place, entries: Vec<(&str, Node)>) -> Node {
    let mut map = Map::new();
    for (key, value) in entries {
        map.insert(key.to_owned(), place.clone(), value);
    }
    Node::new(place.clone(), Kind::Map(map))
}

/// `[source:]target[:options]`.
pub(super) fn volume(spec: &str, place: &Place) -> Result<Node, String> {
    let node = |kind| Node::new(place.clone(), kind);
    let fields: Vec<&str> = spec.split(':').collect();
    if fields.iter().any(|field| field.is_empty()) {
        return Err(format!("invalid spec: {spec}: empty section between colons"));
    }
    let (source, target, options) = match *fields.as_slice() {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(format!("invalid spec: {spec}: too many colons")),
    };
    let mut entries = Vec::new();
    let bind = source.is_some_and(|source| source.starts_with(['.', '/', '~']));
    entries.push(("type", text(place, if bind { "bind" } else { "volume" })));
    entries.extend(source.map(|source| ("source", text(place, source))));
    entries.push(("target", text(place, &super::paths::clean(target))));
    let mut of_bind = vec![("create_host_path", node(Kind::Bool(true)))];
    let mut of_volume = Vec::new();
    for option in options.split(',') {
        match option {
            "ro" => entries.push(("read_only", node(Kind::Bool(true)))),
            "nocopy" => of_volume.push(("nocopy", node(Kind::Bool(true)))),
            "z" | "Z" => of_bind.push(("selinux", text(place, option))),
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                of_bind.push(("propagation", text(place, option)));
            }
            _ => {}
        }
    }
    if bind {
        entries.push(("bind", mapping(place, of_bind)));
    } else if spec.len() > 2 {
        entries.push(("volume", mapping(place, of_volume)));
    }
    Ok(mapping(place, entries))
}

/// `source[:target[:permissions]]`.
pub(super) fn device(spec: &str, place: &Place) -> Result<Node, String> {
    let fields: Vec<&str> = spec.split(':').collect();
    let (source, target, permissions) = match *fields.as_slice() {
        [source] => (source, source, "rwm"),
        [source, target] => (source, target, "rwm"),
        [source, target, permissions] => (source, target, permissions),
        _ => return Err(format!("confusing device mapping, please use long syntax: {spec}")),
    };
    let entries = vec![
        ("source", text(place, source)),
        ("target", text(place, target)),
        ("permissions", text(place, permissions)),
    ];
    Ok(mapping(place, entries))
}

/// `[ip:][host[-end]:]container[-end][/protocol]`, an item a port.
pub(super) fn ports(spec: &str, place: &Place) -> Result<Vec<Node>, String> {
    let (rest, protocol) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let mut fields = rest.rsplitn(3, ':');
    let container = fields.next().unwrap_or_default();
    let published = fields.next().unwrap_or_default();
    let address = fields.next().unwrap_or_default().trim_matches(['[', ']']);
    let range = |text: &str| -> Result<(u32, u32), String> {
        let (start, end) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse::<u16>().map_err(|_| format!("Invalid containerPort: {text}"));
        Ok((number(start)?.into(), number(end)?.into()))
    };
    let (first, last) = range(container)?;
    let hosts = if published.is_empty() { None } else { Some(range(published)?) };
    let mut items: Vec<(String, Node)> = Vec::new();
    for port in first..=last {
        let mut entries = vec![("mode", text(place, "ingress"))];
        if !address.is_empty() {
            entries.push(("host_ip", text(place, address)));
        }
        entries.push(("target", Node::new(place.clone(), Kind::Int(port.into()))));
        match hosts {
            None => {}
            Some((start, end)) if end - start == last - first => {
                entries.push(("published", text(place, &(start + port - first).to_string())));
            }
            Some(_) if first == last => entries.push(("published", text(place, published))),
            Some(_) => {
                return Err(format!(
                    "Invalid ranges specified for container and host Ports: {container} and {published}"
                ));
            }
        }
        entries.push(("protocol", text(place, &protocol.to_lowercase())));
        items.push((format!("{port}/{protocol}"), mapping(place, entries)));
    }
    items.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(items.into_iter().map(|(_, item)| item).collect())
}

/// A list of `host=ip` or `host:ip`, or a mapping, as addresses by host.
pub(super) fn extra_hosts(node: &Node) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    match &node.kind {
        Kind::Map(map) => {
            for entry in map {
                let addresses = match &entry.value.kind {
                    Kind::Seq(items) => items.iter().filter_map(|item| scalar_text(&item.kind)).collect(),
                    kind => vec![scalar_text(kind).unwrap_or_default()],
                };
                hosts.insert(entry.key.clone(), addresses);
            }
        }
        Kind::Seq(items) => {
            for item in items {
                let line = scalar_text(&item.kind).unwrap_or_default();
                let Some((host, addresses)) = line.split_once('=').or_else(|| line.split_once(':')) else {
                    return Err(format!("invalid additional host, missing IP: {line}"));
                };
                hosts.entry(host.to_owned()).or_default().extend(addresses.split(',').map(str::to_owned));
            }
        }
        _ => {}
    }
    Ok(hosts)
}
