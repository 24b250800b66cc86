//! Judges a simulation by what the Engine, Redis and the ledger saw: each rule holds whatever happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sense_orchestrator::clock::Timestamp;
use sense_orchestrator::record::{Reason, Record, State};
use sense_orchestrator::report::Trigger;
use sense_orchestrator::spec::Slug;

use crate::scenario::{Act, PROJECT, SECRET, TROUBLE};
use crate::simulation::{History, Sent, reply_channel};
use crate::support::engine::{By, What};

/// What stopping and removing a run may take past its limit and its grace period.
const SLACK: Duration = Duration::from_secs(15);

/// How long a container of ours that does not run may be there.
const DEAD: Duration = Duration::from_secs(75);

/// How long a command may take, its run and the wait for its turn included.
const ANSWER: Duration = Duration::from_mins(5);

/// When the daemon must be at work again after the trouble.
const RECOVERY: Duration = Duration::from_mins(4);

/// What became of a container.
#[derive(Debug, Clone)]
struct Container {
    name: String,
    service: String,
    run_id: String,
    /// A run of the daemon's.
    ours: bool,
    /// A container that belongs to a service of the project.
    of_service: bool,
    created: Duration,
    started: Option<Duration>,
    ended: Option<(Duration, i64, By)>,
    removed: Option<(Duration, By)>,
    /// An operator gave it another name.
    renamed: bool,
}

/// What the rules are held against.
struct Audit<'a> {
    history: &'a History,
    containers: BTreeMap<&'a str, Container>,
    /// By run.
    records: BTreeMap<String, &'a Record>,
    broken: Vec<String>,
}

/// All rules that a simulation breaks.
pub(crate) fn audit(history: &History) -> Vec<String> {
    let mut audit = Audit { history, containers: BTreeMap::new(), records: BTreeMap::new(), broken: Vec::new() };
    audit.broken.extend(history.faults.iter().cloned());
    audit.follow_containers();
    for record in &history.records {
        if let Some(run_id) = &record.run_id
            && audit.records.insert(run_id.to_string(), record).is_some()
        {
            audit.broken.push(format!("run {run_id} has two records"));
        }
    }
    audit.one_run_of_a_service_at_a_time();
    audit.no_run_past_its_limit();
    audit.nothing_dead_stays();
    audit.every_run_has_the_engines_verdict();
    audit.every_slot_is_accounted_once();
    audit.slots_are_on_their_grid();
    audit.commands_are_answered_once();
    audit.no_secret_leaves();
    audit.work_goes_on_after_trouble();
    audit.broken
}

impl Audit<'_> {
    fn breaks(&mut self, at: Duration, what: impl std::fmt::Display) {
        self.broken.push(format!("{:.3}: {what}", at.as_secs_f64()));
    }

    /// Reads the Engine's history; what was done to others' containers is broken at once.
    fn follow_containers(&mut self) {
        let (history, project) = (self.history, PROJECT.parse().unwrap());
        let mut facts: Vec<_> = history.facts.iter().collect();
        facts.sort_by_key(|fact| fact.at);
        for fact in facts {
            let at = fact.at.saturating_duration_since(history.origin);
            let label =
                |name: &str| fact.labels.get(&format!("com.docker.compose.{name}")).cloned().unwrap_or_default();
            let (service, slug) = (label("service"), label("slug"));
            let one_off = label("oneoff") == "True";
            let in_project = label("project") == PROJECT;
            let ours =
                one_off && in_project && service.parse().is_ok_and(|service| Slug::is_ours(&slug, &project, &service));
            let container = self.containers.entry(&fact.id).or_insert_with(|| Container {
                name: fact.name.clone(),
                service,
                run_id: slug.get(..12).unwrap_or_default().to_owned(),
                ours,
                of_service: in_project && !one_off,
                created: at,
                started: None,
                ended: None,
                removed: None,
                renamed: false,
            });
            let runs = container.started.is_some() && container.ended.is_none();
            match fact.what {
                What::Created => {}
                What::Renamed => container.renamed |= fact.by == By::Others,
                What::Started => (container.started, container.ended) = (Some(at), None),
                What::Ended(code) => container.ended = Some((at, code, fact.by)),
                What::Removed => container.removed = Some((at, fact.by)),
            }
            if fact.by != By::Daemon || container.ours {
                continue;
            }
            let (name, service) = (container.name.clone(), container.service.clone());
            if !container.of_service {
                self.breaks(at, format!("the daemon did {:?} to {name}, which is not its own", fact.what));
            } else if runs && matches!(fact.what, What::Ended(_) | What::Removed) {
                let commanded = history
                    .sent
                    .iter()
                    .any(|sent| sent.at <= at && sent.received && sent.service == service && sent.action != "trigger");
                if !commanded {
                    self.breaks(at, format!("{name} ran, and was stopped though nobody asked for it"));
                }
            }
        }
    }

    /// The part of a span in which the daemon was there, and the Engine did what it was asked.
    fn accountable(&self, from: Duration, to: Duration) -> Duration {
        let history = self.history;
        let mut longest = Duration::ZERO;
        for life in &history.lives {
            let (from, to) = (from.max(life.from), to.min(life.to));
            let mut rest = to.saturating_sub(from);
            let mut spans: Vec<_> = history
                .engine_trouble
                .iter()
                .map(|(a, b)| ((*a).max(from), (*b).min(to)))
                .filter(|(a, b)| a < b)
                .collect();
            spans.sort_unstable();
            let mut until = Duration::ZERO;
            for (a, b) in spans {
                rest = rest.saturating_sub(b.saturating_sub(a.max(until)));
                until = until.max(b);
            }
            longest = longest.max(rest);
        }
        longest
    }

    fn ours(&self) -> Vec<Container> {
        self.containers.values().filter(|container| container.ours).cloned().collect()
    }

    fn one_run_of_a_service_at_a_time(&mut self) {
        let mut runs: Vec<Container> = self.ours();
        runs.retain(|run| run.started.is_some());
        runs.sort_by(|a, b| (&a.service, a.started).cmp(&(&b.service, b.started)));
        for pair in runs.windows(2) {
            let [first, second] = pair else { continue };
            let end = first.ended.map(|(at, _, _)| at).or(first.removed.map(|(at, _)| at)).unwrap_or(self.history.end);
            let begin = second.started.unwrap_or_default();
            if first.service == second.service && begin < end {
                self.breaks(begin, format!("{} was started while {} ran", second.name, first.name));
            }
        }
    }

    fn no_run_past_its_limit(&mut self) {
        for run in self.ours() {
            let (Some(job), Some(from)) = (self.history.scenario.job(&run.service), run.started) else { continue };
            let to = run.ended.map(|(at, _, _)| at).or(run.removed.map(|(at, _)| at)).unwrap_or(self.history.end);
            let (ran, most) = (self.accountable(from, to), job.limit + job.grace + SLACK);
            if ran > most {
                self.breaks(to, format!("{} ran for {ran:?}, {most:?} at most", run.name));
            }
        }
    }

    fn nothing_dead_stays(&mut self) {
        for run in self.ours() {
            let gone = run.removed.map_or(self.history.end, |(at, _)| at);
            let dead = match (run.started, run.ended) {
                (None, _) => Some((run.created, gone)),
                (Some(_), Some((at, _, _))) => Some((at, gone)),
                (Some(_), None) => None,
            };
            let Some((from, to)) = dead else { continue };
            // Labels can come with an image: without its name and its record nothing shows that it is ours.
            if run.renamed && self.forgotten(run.created) {
                continue;
            }
            let stayed = self.accountable(from, to);
            if stayed > DEAD {
                self.breaks(to, format!("{} did not run and stayed for {stayed:?}", run.name));
            }
        }
    }

    /// Whether the power failed so soon after a moment that it may be forgotten.
    fn forgotten(&self, at: Duration) -> bool {
        let cuts = self.history.scenario.acts.iter().filter(|(_, act)| matches!(act, Act::PowerCut { .. }));
        self.history.power_cuts > 0
            && cuts
                .map(|(cut, _)| *cut)
                .any(|cut| cut + Duration::from_mins(1) > at && at + Duration::from_secs(2) > cut)
    }

    fn every_run_has_the_engines_verdict(&mut self) {
        for run in self.ours() {
            let Some(record) = self.records.get(&run.run_id).copied() else {
                if !self.forgotten(run.created) {
                    self.breaks(run.created, format!("{} has no record", run.name));
                }
                continue;
            };
            let Some((ended, code, by)) = run.ended else {
                if record.state == State::Succeeded {
                    self.breaks(run.created, format!("{} did not end and has succeeded", run.name));
                }
                continue;
            };
            let seen_by = self.accountable(ended, self.history.end);
            if !record.state.is_over() {
                if seen_by > DEAD {
                    self.breaks(ended, format!("{} ended, its record is still {}", run.name, record.state));
                }
                continue;
            }
            if record.exit_code.is_some_and(|said| said != code) {
                self.breaks(ended, format!("{} exited {code}, its record says {:?}", run.name, record.exit_code));
            }
            if record.state == State::Succeeded && code != 0 {
                self.breaks(ended, format!("{} exited {code} and has succeeded", run.name));
            }
            let removed_by_others = run.removed.is_some_and(|(_, by)| by == By::Others);
            let told = record.exit_code.is_some() || matches!(record.state, State::TimedOut | State::Cancelled);
            let troubled =
                self.history.engine_trouble.iter().any(|(from, to)| *from <= ended + DEAD && *to >= run.created);
            let forgotten = self.forgotten(ended) || run.removed.is_some_and(|(at, _)| self.forgotten(at));
            if by == By::Itself && code != 255 && !told && !removed_by_others && !troubled && !forgotten {
                let (state, reason) = (record.state, record.reason);
                self.breaks(ended, format!("{} exited {code}, its record says {state} {reason:?}", run.name));
            }
        }
    }

    fn every_slot_is_accounted_once(&mut self) {
        let (due, accounted) = self.history.slots;
        if due != accounted {
            self.breaks(self.history.end, format!("{due} slots fell due, {accounted} have a record"));
        }
        let mut seen = BTreeMap::new();
        let mut iterations = BTreeSet::new();
        for record in &self.history.records {
            let slot = record.slot.filter(|_| record.state != State::Missed).map(Timestamp::to_rfc3339);
            // Newest first. A run that was cut off before its container was started is tried again, for the same slot.
            if let Some(slot) = slot
                && let Some(other) = seen.insert((record.job.clone(), slot.clone()), record.state)
                && !(record.reason == Some(Reason::Interrupted) && record.started_at.is_none())
            {
                let (job, state) = (&record.job, record.state);
                self.broken.push(format!("slot {slot} of {job} has two records: {state} and {other}"));
            }
            if let Some(iteration) = record.iteration
                && !iterations.insert((record.job.clone(), iteration))
                && self.history.power_cuts == 0
            {
                self.broken.push(format!("iteration {iteration} of {} was used twice", record.job));
            }
        }
    }

    fn slots_are_on_their_grid(&mut self) {
        let acts = &self.history.scenario.acts;
        let changed = acts.iter().any(|(_, act)| matches!(act, Act::Interval { .. }));
        if changed || self.history.lives.len() > 1 {
            return;
        }
        let mut first = BTreeMap::new();
        for record in self.history.records.iter().rev() {
            let every = self.history.scenario.job(record.job.as_str()).and_then(|job| job.every);
            let (Some(slot), Some(every)) = (record.slot, every) else { continue };
            let begin = *first.entry(record.job.clone()).or_insert(slot);
            let off = (slot.0 - begin.0).rem_euclid(every.as_secs_f64());
            if off > 0.005 && off < every.as_secs_f64() - 0.005 {
                self.broken.push(format!("slot {} of {} is off its grid by {off:.3} s", slot.to_rfc3339(), record.job));
            }
        }
    }

    fn commands_are_answered_once(&mut self) {
        let history = self.history;
        let mut by_id: BTreeMap<u64, Vec<&Sent>> = BTreeMap::new();
        for sent in history.sent.iter().filter(|sent| sent.received) {
            by_id.entry(sent.id).or_default().push(sent);
        }
        for (id, sent) in by_id {
            let Some(first) = sent.first() else { continue };
            let channel = reply_channel(id);
            let published = history.written.iter().filter(|written| written.call == "PUBLISH" && written.to == channel);
            let answers = published.filter(|written| written.received > 0).count();
            let last = sent.last().map_or(first.at, |sent| sent.at);
            let lives = history.lives.iter().filter(|life| life.from <= first.at && life.to > first.at);
            let life_goes_on = lives.clone().any(|life| life.to > last + ANSWER);
            let troubled = |spans: &[(Duration, Duration)]| {
                spans.iter().any(|(from, to)| *from <= last + ANSWER && *to >= first.at)
            };
            let redis_troubled = troubled(&history.redis_trouble);
            if first.listens
                && life_goes_on
                && !redis_troubled
                && !troubled(&history.engine_trouble)
                && answers != sent.len()
            {
                let text = format!("req-{id} was sent {} times and answered {answers} times", sent.len());
                self.breaks(first.at, text);
            }
            let runs = history.records.iter().filter(|record| {
                record.trigger == Trigger::Command
                    && record.request_id.as_ref().is_some_and(|request| request.as_str() == format!("req-{id}"))
            });
            let runs = runs.count();
            if runs > 1 && !self.forgotten(first.at) {
                self.breaks(first.at, format!("req-{id} was carried out {runs} times"));
            }
        }
    }

    fn no_secret_leaves(&mut self) {
        let written = self.history.written.iter().filter(|written| written.text.contains(SECRET));
        let texts: Vec<String> =
            written.map(|written| format!("{} {} holds a secret", written.call, written.to)).collect();
        self.broken.extend(texts);
        for record in &self.history.records {
            if serde_json::to_string(record).is_ok_and(|json| json.contains(SECRET)) {
                self.broken.push(format!("the record of {:?} holds a secret", record.run_id));
            }
        }
    }

    /// After the last trouble each service that has an interval runs again, whatever was before.
    fn work_goes_on_after_trouble(&mut self) {
        let acts = &self.history.scenario.acts;
        if acts.iter().any(|(_, act)| matches!(act, Act::Interval { .. })) {
            return;
        }
        for job in self.history.scenario.jobs.iter().filter(|job| job.every.is_some()) {
            let runs = self.ours().into_iter().filter(|run| run.service == job.name);
            if runs.filter(|run| run.started.is_some_and(|at| at > TROUBLE + RECOVERY)).count() == 0 {
                self.breaks(self.history.end, format!("{} was not run again after the trouble", job.name));
            }
        }
    }
}
