//! The daemon's end of the control socket: what is asked of the daemon as a whole, and of its jobs.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::reload::Asker;
use crate::backend::Backend;
use crate::bus::Bus;
use crate::control::place::Bound;
use crate::control::{Answer, Greeting, Request, VERSION, server};
use crate::jobs::Jobs;
use crate::ledger::StoreStatus;
use crate::report::Chain;
use crate::runner::Runner;
use crate::schedule::{Interval, Intervals};
use crate::settings::Settings;

/// What is asked.
pub(super) struct Daemon<K, B> {
    pub(super) settings: Settings,
    pub(super) reload: Asker,
    pub(super) jobs: Jobs<K, B>,
    pub(super) runner: Runner<K, B>,
    pub(super) bus: Arc<B>,
    pub(super) intervals: watch::Receiver<Arc<Intervals>>,
    pub(super) ledger: watch::Receiver<StoreStatus>,
}

impl<K: Backend, B: Bus> Daemon<K, B> {
    /// Answers on the control socket until the intake closes.
    pub(super) async fn answer(self, intake: CancellationToken) {
        let greeting = Greeting {
            version: VERSION,
            project_name: self.runner.projects().name(),
            engine: self.settings.docker.host.to_string(),
            pid: std::process::id(),
        };
        if let Err(error) = self.serve(greeting, intake.clone()).await {
            error!(error = %Chain(&error), "no control socket, health cannot be asked for");
            intake.cancelled().await;
        }
    }

    async fn serve(self, greeting: Greeting, intake: CancellationToken) -> std::io::Result<()> {
        let own_uid = server::own_uid()?;
        let mut random = [0; 8];
        random.iter_mut().zip(crate::runner::random()).for_each(|(byte, from)| *byte = from);
        let places = &self.settings.control.places;
        let socket = Bound::new(places, greeting.project_name.as_str(), &greeting.engine, own_uid, random).await?;
        debug!(%socket, "control socket");
        let (daemon, asked) = (Arc::new(self), greeting.clone());
        let answer = move |request| lines(&daemon, request, asked.clone());
        server::run(socket, greeting, own_uid, answer, intake).await
    }

    /// Everything that is known of the daemon.
    async fn status(&self, asked: &Greeting) -> Map<String, Value> {
        let health = self.health(asked).await;
        let mut status = self.jobs.status();
        status.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
        if let Ok(Value::Object(health)) = serde_json::to_value(health) {
            status.extend(health);
        }
        status
    }
}

/// The lines of the answer to a request.
fn lines<K: Backend, B: Bus>(
    daemon: &Arc<Daemon<K, B>>,
    request: Request,
    asked: Greeting,
) -> BoxStream<'static, Answer> {
    let this = Arc::clone(daemon);
    match request {
        Request::Health => stream::once(async move { Answer::Health(this.health(&asked).await) }).boxed(),
        Request::Reload => stream::once(async move {
            match this.reload.ask().await {
                Ok(done) => Answer::Done(done),
                Err(faults) => Answer::Error(faults),
            }
        })
        .boxed(),
        Request::Intervals => {
            let seconds = |every: &Interval| every.as_duration().as_secs();
            let intervals = Arc::clone(&this.intervals.borrow());
            let all = intervals.iter().map(|(service, every)| (service.clone(), every.as_ref().map(seconds)));
            let answer = Answer::Intervals(all.collect());
            stream::once(async { answer }).boxed()
        }
        Request::Status => stream::once(async move { Answer::Status(this.status(&asked).await) }).boxed(),
        request => daemon.jobs.answer(request),
    }
}
