//! Reads the settings again, when asked and when their file changed, and puts in force what can change while we run.
//!
//! The environment and the command line are those that we were started with. Settings that cannot be used change nothing:
//! the last good ones stay in use, which is said once and shown by `health` and in the daemon's status.

use std::path::PathBuf;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use super::components::{Live, is_live};
use crate::backend::Backend;
use crate::bus::Bus;
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

/// Reads the settings again.
pub(super) struct Reload<K, B> {
    sources: Sources,
    /// What was read last.
    origins: Origins,
    file: Option<PathBuf>,
    /// How the file was when it was read.
    stamp: Option<Stamp>,
    live: Live<K, B>,
    events: Events,
    requests: mpsc::Receiver<oneshot::Sender<Said>>,
    broken: watch::Sender<Option<String>>,
}

/// Who reloads and who asks for it; `origins` are of the settings that are in force.
pub(super) fn reload<K: Backend, B: Bus>(
    sources: Sources,
    origins: Origins,
    live: Live<K, B>,
    events: Events,
) -> (Asker, Reload<K, B>) {
    let (sender, requests) = mpsc::channel(MOST_WAITING);
    let broken = watch::Sender::default();
    let asker = Asker { requests: sender, broken: broken.subscribe() };
    let file = sources.file();
    // Without a stamp the first look reads: the file may have changed since it was read at the start.
    (asker, Reload { sources, origins, file, stamp: None, live, events, requests, broken })
}

impl<K: Backend, B: Bus> Reload<K, B> {
    /// Reloads when a hang-up or a request arrives and when the file changed, until the intake closes.
    pub(super) async fn run(mut self, hangups: impl Stream<Item = &'static str>, intake: CancellationToken) {
        let mut hangups = std::pin::pin!(hangups);
        let (epoch, period) = self.live.looks;
        let mut looks = interval_at(epoch + period, period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = intake.cancelled() => return,
                Some(signal) = hangups.next() => {
                    tracing::info!(signal, "reloading");
                    let _ = self.reload();
                }
                Some(reply) = self.requests.recv() => {
                    let _ = reply.send(self.reload());
                }
                _ = looks.tick() => {
                    if self.is_changed().await {
                        let _ = self.reload_settings();
                    }
                    self.live.look_at_project();
                }
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
    fn reload(&mut self) -> Said {
        let settings = self.reload_settings();
        let project = self.live.look_at_project().map(|fault| format!("compose files not usable: {fault}"));
        match (settings, project) {
            (Ok(said), None) => Ok(said),
            (Ok(_), Some(fault)) | (Err(fault), None) => Err(fault),
            (Err(one), Some(other)) => Err(format!("{one}\n{other}")),
        }
    }

    fn reload_settings(&mut self) -> Said {
        self.stamp = self.file.as_deref().and_then(Stamp::of);
        let (settings, origins) = match Settings::read(&self.sources).into_sound() {
            Ok(read) => read,
            Err(errors) => return Err(self.refuse(errors.to_string())),
        };
        if self.broken.send_replace(None).is_some() {
            self.live.complain(None);
        }
        let differing = origins.changed_since(&self.origins);
        self.origins = origins;
        let (changed, keys): (Vec<String>, Vec<String>) = differing.into_iter().partition(|path| is_live(path));
        let mut said = Vec::new();
        if !changed.is_empty() {
            self.live.apply(&settings);
            said.push(format!("settings in force now: {}", changed.join(", ")));
            self.events.emit(&Event::SettingsReloaded { changed });
        }
        if !keys.is_empty() {
            said.push(format!("these need a restart of the daemon: {}", keys.join(", ")));
            self.events.emit(&Event::SettingsNeedRestart { keys });
        }
        Ok(if said.is_empty() { "no setting changed".to_owned() } else { said.join("\n") })
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
