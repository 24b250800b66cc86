//! Any bytes as a project's files: loading must end, without a panic and within its memory.
//!
//! A NUL byte ends the Compose file; the bytes behind it are the override file, `.env` and an included file.
#![no_main]

use std::io;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sense_orchestrator::compose::print::config_json;
use sense_orchestrator::compose::{self, FileKind, Files, Options};

struct Bytes<'a>(Vec<&'a [u8]>);

impl Files for Bytes<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let index = match path.file_name().and_then(|name| name.to_str()) {
            Some("compose.yaml") => 0,
            Some("compose.override.yaml") => 1,
            Some(".env" | "e.env") => 2,
            Some("a.yaml") => 3,
            _ => usize::MAX,
        };
        self.0.get(index).map(|bytes| bytes.to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        self.read(path).map(|_| FileKind::File)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let files = Bytes(bytes.split(|byte| *byte == 0).collect());
    let options = Options { working_dir: "/project".into(), profiles: vec!["*".to_owned()], ..Options::default() };
    if let Ok(project) = compose::load(&files, &options).and_then(|model| model.select(&files, &[])) {
        let _ = config_json(&project);
    }
});
