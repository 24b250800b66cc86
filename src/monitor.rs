//! Watches the services' health, and tells the daemon's own in `status:orchestrator`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::bus::{Bus, BusError};
use crate::clock::Timestamp;
use crate::event::{Event, Peer};
use crate::message::{SourceMeta, SourceStatus, meta_key, status_key};
use crate::names::{ServiceName, SourceId};
use crate::report::{Chain, Problems};
use crate::runner::Runner;
use crate::schedule::{Interval, Intervals};

pub mod connection;
pub mod overdue;

use overdue::{Notice, Success, Watch};

/// How long the Engine may take to answer at a look.
const ENGINE_LIMIT: Duration = Duration::from_secs(5);

/// How health is watched.
#[derive(Debug, Clone)]
pub struct Options {
    /// Under which name the daemon reports.
    pub own: SourceId,
    /// Where each service reports; one that is not named is judged by its runs.
    pub sources: BTreeMap<ServiceName, SourceId>,
    /// Intervals without success after which a service is overdue.
    pub overdue_factor: u32,
    /// Time between two warnings of the same overdue service.
    pub remind: Duration,
    /// Life of the daemon's status in Redis; longer than the period.
    pub status_ttl: Duration,
}

/// What is watched.
pub struct Inputs {
    /// How; the overdue factor and the reminders stay as they are when it starts.
    pub options: watch::Receiver<Arc<Options>>,
    /// What is expected.
    pub intervals: watch::Receiver<Arc<Intervals>>,
    /// What is wrong besides.
    pub problems: watch::Receiver<Problems>,
}

struct Monitor<K, B> {
    bus: Arc<B>,
    runner: Runner<K, B>,
    options: Arc<Options>,
    intervals: watch::Receiver<Arc<Intervals>>,
    watch: Watch,
    /// What services without a place in the schedule last said of their intervals.
    refresh: BTreeMap<ServiceName, Interval>,
    /// The on-demand services that ran at the last look at which the Engine answered.
    up: BTreeSet<ServiceName>,
    /// Nothing could be read at the last look.
    blind: bool,
    /// Why the Engine did not answer at the last look.
    engine: Option<String>,
    last_poll: Option<Timestamp>,
    last_success: Option<Timestamp>,
    polls: u64,
    errors: u64,
}

/// Looks each `period` since `epoch`, and tells at once what changed, until intake closes.
pub async fn run<K: Backend, B: Bus>(
    bus: Arc<B>,
    runner: Runner<K, B>,
    inputs: Inputs,
    (epoch, period): (Instant, Duration),
    intake: CancellationToken,
) {
    let Inputs { mut options, intervals, mut problems } = inputs;
    let current = Arc::clone(&options.borrow_and_update());
    let mut connection = bus.connection();
    let watch = Watch::new(current.overdue_factor, current.remind, Instant::now());
    let mut monitor = Monitor {
        bus,
        runner,
        options: current,
        intervals,
        watch,
        refresh: BTreeMap::new(),
        up: BTreeSet::new(),
        blind: false,
        engine: None,
        last_poll: None,
        last_success: None,
        polls: 0,
        errors: 0,
    };
    let mut ticks = interval_at(epoch + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut problems_open, mut options_open) = (true, true);
    monitor.look(&latest(&mut problems)).await;
    loop {
        tokio::select! {
            biased;
            () = intake.cancelled() => return,
            _ = ticks.tick() => monitor.look(&latest(&mut problems)).await,
            changed = options.changed(), if options_open => {
                options_open = changed.is_ok();
                monitor.options = Arc::clone(&options.borrow_and_update());
            }
            changed = problems.changed(), if problems_open => {
                problems_open = changed.is_ok();
                monitor.tell(&latest(&mut problems)).await;
            }
            changed = connection.changed() => {
                // Nobody but the bus can end its own state.
                if changed.is_err() {
                    return;
                }
                if connection.borrow_and_update().is_up() {
                    monitor.tell(&latest(&mut problems)).await;
                }
            }
        }
    }
}

/// A copy, for no lock is held while others are waited for.
fn latest(problems: &mut watch::Receiver<Problems>) -> Problems {
    problems.borrow_and_update().clone()
}

impl<K: Backend, B: Bus> Monitor<K, B> {
    /// Looks at everything, warns of what changed, and tells.
    async fn look(&mut self, problems: &Problems) {
        if let Err(error) = self.bus.heartbeat().await {
            tracing::debug!(error = %Chain(&error), "no heartbeat");
        }
        let answered = tokio::time::timeout(ENGINE_LIMIT, self.runner.ping()).await;
        let engine = match answered {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(Chain(&failure).to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        match (&self.engine, &engine) {
            (None, Some(reason)) => {
                self.runner.events().emit(&Event::ConnectionLost { peer: Peer::Engine, reason: reason.clone() });
            }
            (Some(_), None) => self.runner.events().emit(&Event::ConnectionBack { peer: Peer::Engine }),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.engine = engine;
        if self.engine.is_none() {
            match tokio::time::timeout(ENGINE_LIMIT, self.runner.look_round()).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => tracing::debug!(error = %Chain(&failure), "runs not looked for"),
                Err(_) => tracing::debug!("runs not looked for in time"),
            }
        }
        let now = Instant::now();
        match self.observe().await {
            Ok((expected, seen)) => {
                if std::mem::take(&mut self.blind) {
                    self.watch.excuse(now);
                }
                for notice in self.watch.observe(now, Timestamp::now(), &expected, &seen) {
                    self.emit(notice);
                }
            }
            Err(error) => {
                self.blind = true;
                tracing::debug!(error = %Chain(&error), "status of the sources not read");
            }
        }
        self.polls = self.polls.saturating_add(1);
        self.last_poll = Some(Timestamp::now());
        if self.last_error(problems).is_none() {
            self.last_success = self.last_poll;
        } else {
            self.errors = self.errors.saturating_add(1);
        }
        self.tell(problems).await;
    }

    /// Who is expected to succeed how often, and when each last did.
    ///
    /// Scheduled services are expected on their intervals. Others that report are expected as often as they say at
    /// `meta:{source}`; what they said last counts while Redis has lost it.
    async fn observe(&mut self) -> Result<(Intervals, BTreeMap<ServiceName, Success>), BusError> {
        let mut expected = Intervals::clone(&self.intervals.borrow_and_update());
        for paused in self.runner.history().ledger.all_paused() {
            if let Some(every) = expected.get_mut(&paused) {
                *every = None;
            }
        }
        let others = self.unscheduled(&expected).await;
        let reports = |service: &ServiceName| Some((service.clone(), self.options.sources.get(service)?.clone()));
        let reporting: Vec<(ServiceName, SourceId)> = expected.keys().chain(&others).filter_map(reports).collect();
        let metas = others.iter().filter_map(|service| Some(meta_key(self.options.sources.get(service)?)));
        let keys: Vec<String> = reporting.iter().map(|(_, source)| status_key(source)).chain(metas).collect();
        let mut values = self.bus.get(&keys).await?;
        let metas = values.split_off(reporting.len().min(values.len()));
        for (service, meta) in others.iter().zip(metas) {
            self.note_interval(service, meta.as_deref().and_then(SourceMeta::parse));
            if let Some(interval) = self.refresh.get(service) {
                expected.insert(service.clone(), Some(*interval));
            }
        }
        let records = self.runner.records();
        let mut seen: BTreeMap<ServiceName, Success> = expected
            .keys()
            .map(|service| {
                let ended = records.get(service).and_then(|record| record.last_success);
                (service.clone(), ended.map_or(Success::Unseen, Success::Ended))
            })
            .collect();
        seen.extend(reporting.into_iter().zip(values).map(|((service, _), value)| {
            let stamp = value.and_then(|text| SourceStatus::parse(&text)).and_then(|status| status.last_success);
            (service, stamp.map_or(Success::Unseen, Success::Stamped))
        }));
        Ok((expected, seen))
    }

    /// The services that report without having a place in the schedule, and should: those of the project that run all the
    /// time, and those with profiles, which run on demand, while they run.
    async fn unscheduled(&mut self, scheduled: &Intervals) -> Vec<ServiceName> {
        let profiles = self.runner.profiles();
        let mut expected = Vec::new();
        for service in self.options.sources.keys().filter(|service| !scheduled.contains_key(*service)) {
            let Some(profiles) = profiles.get(service) else { continue };
            if !profiles.is_empty() {
                // Where the Engine does not answer, what it said last counts.
                match tokio::time::timeout(ENGINE_LIMIT, self.runner.is_up(service)).await {
                    Ok(Ok(true)) => drop(self.up.insert(service.clone())),
                    Ok(Ok(false)) => drop(self.up.remove(service)),
                    Ok(Err(_)) | Err(_) => {}
                }
                if !self.up.contains(service) {
                    continue;
                }
            }
            expected.push(service.clone());
        }
        expected
    }

    fn note_interval(&mut self, service: &ServiceName, meta: Option<SourceMeta>) {
        let Some(meta) = meta else { return };
        let said = meta.refresh_interval.map(Duration::from_secs).and_then(|span| Interval::try_from(span).ok());
        match said {
            Some(interval) if meta.enabled => drop(self.refresh.insert(service.clone(), interval)),
            Some(_) | None => drop(self.refresh.remove(service)),
        }
    }

    fn emit(&self, notice: Notice) {
        let event = match notice {
            Notice::Overdue { service, silent, every } => {
                let source = self.options.sources.get(&service).cloned();
                Event::ServiceOverdue { service, source, silent, every }
            }
            Notice::Recovered { service } => Event::ServiceRecovered { service },
        };
        self.runner.events().emit(&event);
    }

    /// What is wrong, in one line.
    fn last_error(&self, problems: &Problems) -> Option<String> {
        let overdue = self.watch.overdue(Instant::now()).into_iter().map(|(service, silent)| {
            let silent = humantime::format_duration(Duration::from_secs(silent.as_secs()));
            format!("{service} overdue, no success for {silent}")
        });
        let broken = self.runner.broken_project().map(|fault| format!("compose files not usable: {fault}"));
        let engine = self.engine.as_ref().map(|fault| format!("engine unreachable: {fault}"));
        let refused = self.bus.refusals().borrow().clone();
        let all: Vec<String> =
            overdue.chain(engine).chain(broken).chain(refused).chain(problems.values().flatten().cloned()).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Writes the daemon's status.
    async fn tell(&self, problems: &Problems) {
        let status = SourceStatus {
            source_id: self.options.own.clone(),
            last_poll: self.last_poll,
            last_success: self.last_success,
            last_error: self.last_error(problems),
            poll_count: self.polls,
            error_count: self.errors,
        };
        let Ok(json) = serde_json::to_string(&status) else { return };
        let key = self.bus.names().status(&self.options.own);
        if let Err(error) = self.bus.set(&key, &json, Some(self.options.status_ttl)).await {
            tracing::debug!(error = %Chain(&error), "own status not written");
        }
    }
}
