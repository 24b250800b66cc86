//! How long a large project takes to load: 500 services are to stay under 50 ms; to select one of them takes the same
//! time however many there are.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use sense_orchestrator::compose::{self, FileKind, Files, Options};

struct OneFile(Vec<u8>);

impl Files for OneFile {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path.ends_with("compose.yaml") { Ok(self.0.clone()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        self.read(path).map(|_| FileKind::File)
    }
}

/// A project in which each service has some twenty values, an anchor among them.
fn project(services: usize) -> String {
    let mut text =
        "name: bench\nx-common: &common\n  restart: unless-stopped\n  logging: {driver: json-file}\nservices:\n"
            .to_owned();
    for number in 0..services {
        write!(
            text,
            "  service-{number}:
    <<: *common
    image: ${{REGISTRY:-registry.example}}/app-{number}:1.0
    command: sh -c 'exec app --number {number}'
    environment: {{NUMBER: {number}, LEVEL: \"${{LEVEL:-info}}\", HOST: redis}}
    ports: [\"{port}:80\", \"127.0.0.1::9000\"]
    volumes: [\"./data/{number}:/data:ro\", \"cache:/cache\"]
    networks: [front, back]
    healthcheck: {{test: curl -f localhost, interval: 1m30s, retries: 3}}
    deploy: {{resources: {{limits: {{cpus: \"0.5\", memory: 64m}}}}}}
    labels: [a=1, b=2]
",
            port = 10_000 + number,
        )
        .unwrap();
    }
    text + "networks: {front: , back: }\nvolumes: {cache: }\n"
}

fn load(criterion: &mut Criterion) {
    let files = OneFile(project(500).into_bytes());
    let options = Options { working_dir: "/project".into(), ..Options::default() };
    criterion.bench_function("load 500 services", |bencher| {
        bencher.iter(|| compose::load(black_box(&files), black_box(&options)).unwrap());
    });
    let model = compose::load(&files, &options).unwrap();
    criterion.bench_function("select 500 services", |bencher| {
        bencher.iter(|| black_box(&model).select(&files, &[]).unwrap());
    });
    let one = ["service-0".parse().unwrap()];
    for services in [10, 500, 5_000] {
        let files = OneFile(project(services).into_bytes());
        let model = compose::load(&files, &options).unwrap();
        criterion.bench_function(&format!("select one of {services} services"), |bencher| {
            bencher.iter(|| black_box(&model).select(&files, &one).unwrap());
        });
    }
}

criterion_group!(benches, load);
criterion_main!(benches);
