//! The real Docker Engine of this machine, with an image to run.

use std::path::Path;
use std::sync::Arc;

use bollard_client::query_parameters::CreateImageOptions;
use futures::TryStreamExt;
use sense_orchestrator::engine::docker::{Docker, Host};

use super::bounds::bounds;
use super::{missing_server, uses_engine};

/// An image whose only content is a static busybox with its applets.
pub(crate) const IMAGE: &str = "sense-test-busybox:1";

/// Where Debian's busybox-static puts the binary.
const BUSYBOX: &str = "/bin/busybox";

/// `DOCKER_HOST` of the engine under test.
pub(crate) fn host() -> String {
    std::env::var("SENSE_TEST_DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into())
}

/// The Engine of this machine with [`IMAGE`] in it; none, after saying so, where there is none and none is promised.
pub(crate) async fn engine() -> Option<Arc<Docker>> {
    let host: Host = host().parse().expect("SENSE_TEST_DOCKER_HOST is an engine address");
    let client = client(&host);
    match client {
        Ok(client) if client.ping().await.is_ok() => {
            uses_engine();
            ensure_image(&client).await;
            Some(Arc::new(Docker::new(host, None, bounds())))
        }
        _ => missing_server("docker"),
    }
}

/// A client of its own, to look at the Engine past the code under test.
pub(crate) fn client(host: &Host) -> Result<bollard_client::Docker, bollard_client::errors::Error> {
    match host {
        Host::Unix(path) => {
            bollard_client::Docker::connect_with_unix(&path.to_string_lossy(), 60, bollard_client::API_DEFAULT_VERSION)
        }
        Host::Tcp { address, .. } => {
            bollard_client::Docker::connect_with_http(address, 60, bollard_client::API_DEFAULT_VERSION)
        }
    }
}

async fn ensure_image(client: &bollard_client::Docker) {
    if client.inspect_image(IMAGE).await.is_ok() {
        return;
    }
    let busybox = std::fs::read(Path::new(BUSYBOX)).expect("busybox-static is installed");
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        archive.append_data(&mut header, path, content).unwrap();
    };
    for folder in ["bin/", "tmp/", "etc/"] {
        add(folder, tar::EntryType::Directory, 0o777, &[], None);
    }
    add("bin/busybox", tar::EntryType::Regular, 0o755, &busybox, None);
    for applet in [
        "sh", "sleep", "true", "false", "echo", "cat", "trap", "env", "nc", "date", "kill", "id", "ls", "wc", "yes",
        "head",
    ] {
        add(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, &[], Some("busybox"));
    }
    let archive = archive.into_inner().unwrap();
    let (repo, tag) = IMAGE.split_once(':').unwrap();
    let options = CreateImageOptions {
        from_src: Some("-".into()),
        repo: Some(repo.into()),
        tag: Some(tag.into()),
        ..CreateImageOptions::default()
    };
    client
        .create_image(Some(options), Some(bollard_client::body_full(archive.into())), None)
        .try_collect::<Vec<_>>()
        .await
        .expect("the engine imports an image");
}
