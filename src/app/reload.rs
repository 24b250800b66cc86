//! Reads the settings again, when asked and when their file changed, and puts in force what can change while we run.
//!
//! The environment and the command line are those that we were started with. Settings that cannot be used change nothing:
//! the last good ones stay in use, which is said once and shown by `health` and in the daemon's status.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use super::deployed::Chosen;
use super::live::{Live, is_live};
use super::project::Place;
use crate::backend::compose::ComposeBackend;
use crate::bus::Bus;
use crate::engine::Engine;
use crate::event::Event;
use crate::file::Stamp;
use crate::observer::Events;
use crate::settings::{Origins, Settings, Sources};

/// Requests that wait at the same time.
const MOST_WAITING: usize = 16;

/// How long a file stays as it is before it is taken to be whole.
const SETTLED: Duration = Duration::from_secs(1);

/// What a reload came to, in words, or all that is wrong.
type Said = Result<String, String>;

/// Asks for a reload.
#[derive(Clone)]
pub(super) struct Asker {
    requests: mpsc::Sender<oneshot::Sender<Said>>,
    broken: watch::Receiver<Option<String>>,
}

impl Asker {
    /// Has everything read again, and says what changed or all that is wrong.
    pub(super) async fn ask(&self) -> Said {
        let (reply, said) = oneshot::channel();
        let ending = || "the daemon ends".to_owned();
        self.requests.send(reply).await.map_err(|_| ending())?;
        said.await.map_err(|_| ending())?
    }

    /// What is wrong with the settings as they are now.
    pub(super) fn broken(&self) -> Option<String> {
        self.broken.borrow().clone()
    }
}

/// Why there is something to read.
enum Cause {
    Signal(&'static str),
    Asked(oneshot::Sender<Said>),
    /// It is time to look.
    Look,
}

/// Reads the settings again.
pub(super) struct Reload<E, B> {
    sources: Sources,
    /// Where the project is.
    place: Place,
    engine: Arc<E>,
    /// What was read at the start.
    started: Origins,
    /// What was read last; none since the start.
    last: Option<Origins>,
    /// What was said to need a restart.
    waiting: Vec<String>,
    file: Option<PathBuf>,
    /// How the file was when it was read.
    stamp: Option<Stamp>,
    live: Arc<Live<ComposeBackend<E>, B>>,
    events: Events,
    requests: mpsc::Receiver<oneshot::Sender<Said>>,
    broken: watch::Sender<Option<String>>,
}

/// Who reloads and who asks for it; `origins` are of the settings that are in force.
pub(super) fn reload<E: Engine, B: Bus>(
    sources: Sources,
    origins: Origins,
    (place, engine): (Place, Arc<E>),
    live: Arc<Live<ComposeBackend<E>, B>>,
    events: Events,
) -> (Asker, Reload<E, B>) {
    let (sender, requests) = mpsc::channel(MOST_WAITING);
    let broken = watch::Sender::default();
    let asker = Asker { requests: sender, broken: broken.subscribe() };
    let file = sources.file();
    let (started, last, waiting) = (origins, None, Vec::new());
    // Without a stamp the first look reads: the file may have changed since it was read at the start.
    let stamp = None;
    (asker, Reload { sources, place, engine, started, last, waiting, file, stamp, live, events, requests, broken })
}

impl<E: Engine, B: Bus> Reload<E, B> {
    /// Reloads when a hang-up or a request arrives and when the file changed, until the intake closes.
    pub(super) async fn run(mut self, hangups: impl Stream<Item = &'static str>, intake: CancellationToken) {
        let mut hangups = std::pin::pin!(hangups);
        let (epoch, period) = self.live.looks;
        let mut looks = interval_at(epoch + period, period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let cause = tokio::select! {
                biased;
                () = intake.cancelled() => return,
                Some(signal) = hangups.next() => Cause::Signal(signal),
                Some(reply) = self.requests.recv() => Cause::Asked(reply),
                _ = looks.tick() => Cause::Look,
            };
            tokio::select! {
                biased;
                () = intake.cancelled() => return,
                () = self.follow(cause) => {}
            }
        }
    }

    async fn follow(&mut self, cause: Cause) {
        match cause {
            Cause::Signal(signal) => {
                tracing::info!(signal, "reloading");
                let _ = self.reload().await;
            }
            Cause::Asked(reply) => {
                let _ = reply.send(self.reload().await);
            }
            Cause::Look => {
                if self.is_changed().await {
                    let _ = self.reload_settings();
                }
                let _ = self.look_at_project().await;
            }
        }
    }

    /// Whether the file changed and is not being written to right now: half of it may be sound and say something else.
    async fn is_changed(&self) -> bool {
        let Some(file) = self.file.as_deref() else { return false };
        let stamp = Stamp::of(file);
        if stamp == self.stamp {
            return false;
        }
        sleep(SETTLED).await;
        Stamp::of(file) == stamp
    }

    /// Reads settings and Compose files again.
    async fn reload(&mut self) -> Said {
        match (self.reload_settings(), self.look_at_project().await) {
            (Ok(mut said), Ok(project)) => {
                said.extend(project);
                Ok(if said.is_empty() { "nothing changed".to_owned() } else { said.join("\n") })
            }
            (Err(fault), Ok(_)) => Err(fault),
            (Ok(_), Err(fault)) => Err(format!("the Compose files cannot be used: {fault}")),
            (Err(fault), Err(other)) => Err(format!("{fault}\nthe Compose files cannot be used: {other}")),
        }
    }

    /// Reads the Compose files again where they changed, and others where those count now; what that came to.
    async fn look_at_project(&mut self) -> Result<Option<String>, String> {
        let chosen = self.place.look(self.engine.as_ref()).await;
        let Some(Chosen { files, container }) = chosen else {
            let changed = self.live.look_at_project()?;
            return Ok(changed.then(|| "the Compose files changed, and count as they are now".to_owned()));
        };
        let files: Vec<String> = files.config_files.iter().map(|file| file.display().to_string()).collect();
        let said = format!("{container} was made from other Compose files, which count now: {}", files.join(", "));
        self.events.emit(&Event::ProjectFilesChanged { files, container });
        self.live.follow(self.place.located().options)?;
        Ok(Some(said))
    }

    /// Reads the settings again; what that came to, a line each.
    fn reload_settings(&mut self) -> Result<Vec<String>, String> {
        self.stamp = self.file.as_deref().and_then(Stamp::of);
        let (settings, origins) = match Settings::read(&self.sources).into_sound() {
            Ok(read) => read,
            Err(errors) => return Err(self.refuse(errors.to_string())),
        };
        if self.broken.send_replace(None).is_some() {
            self.live.complain(None);
        }
        let mut changed = origins.changed_since(self.last.as_ref().unwrap_or(&self.started));
        changed.retain(|path| is_live(path));
        let mut waiting = origins.changed_since(&self.started);
        waiting.retain(|path| !is_live(path));
        self.last = Some(origins);
        let mut said = Vec::new();
        if !changed.is_empty() {
            self.live.apply(&settings);
            said.push(format!("settings in force now: {}", changed.join(", ")));
            self.events.emit(&Event::SettingsReloaded { changed });
        }
        if !waiting.is_empty() {
            said.push(format!("these need a restart of the daemon: {}", waiting.join(", ")));
            if waiting != self.waiting {
                self.events.emit(&Event::SettingsNeedRestart { keys: waiting.clone() });
            }
        }
        self.waiting = waiting;
        Ok(said)
    }

    /// Keeps what is in force. The same faults are said once.
    fn refuse(&self, error: String) -> String {
        if self.broken.borrow().as_ref() != Some(&error) {
            self.live.complain(Some(&error));
            self.events.emit(&Event::SettingsRefused { error: error.clone() });
            self.broken.send_replace(Some(error.clone()));
        }
        error
    }
}
