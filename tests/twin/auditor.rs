//! Judges a simulation by what the Engine, Redis and the ledger saw: each rule holds whatever happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sense_orchestrator::clock::Timestamp;
use sense_orchestrator::record::{Reason, Record, State};
use sense_orchestrator::report::Trigger;
use sense_orchestrator::spec::Slug;

use crate::scenario::{Act, PROJECT, SECRET, TROUBLE};
use crate::simulation::{BEGIN, History, Life, Sent, reply_channel};
use crate::support::bus::Written;
use crate::support::engine::{By, What};

/// What stopping and removing a run may take past its limit and its grace period.
const SLACK: Duration = Duration::from_secs(15);

/// How long a container of ours that does not run may be there.
const DEAD: Duration = Duration::from_secs(75);

/// How long a command may take, its run and the wait for its turn included.
const ANSWER: Duration = Duration::from_mins(5);

/// What was written for so long is on the disk.
const SYNCED: Duration = Duration::from_secs(2);

/// How long a command is known again by its id, `commands.reply_ttl`.
const REMEMBERED: Duration = Duration::from_mins(1);

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
    /// A run of a service of the project, whoever made it.
    one_off: bool,
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
    audit.no_slot_is_left_out();
    audit.not_more_runs_than_may_go_on();
    audit.trouble_of_one_service_delays_no_other();
    audit.runs_find_what_they_depend_on();
    audit.commands_are_answered_once();
    audit.services_are_as_last_commanded();
    audit.redis_has_every_record();
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
                one_off: in_project && one_off,
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
                let commanded = history.sent.iter().any(|sent| {
                    let asked = sent.received && sent.service == service && sent.action != "trigger";
                    asked && sent.at <= at && sent.at + ANSWER > at
                });
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

    /// When a container that was started stopped running.
    fn end_of(&self, run: &Container) -> Duration {
        run.ended.map(|(at, _, _)| at).or(run.removed.map(|(at, _)| at)).unwrap_or(self.history.end)
    }

    fn one_run_of_a_service_at_a_time(&mut self) {
        let runs: Vec<Container> =
            self.containers.values().filter(|run| run.one_off && run.started.is_some()).cloned().collect();
        for second in runs.iter().filter(|run| run.ours) {
            let begin = second.started.unwrap_or_default();
            // Somebody else may start a run at any moment: ours looks before it is created.
            let in_the_way = runs.iter().find(|first| {
                let since = first.started.unwrap_or_default();
                let before =
                    if first.ours { (since, first.created) < (begin, second.created) } else { since < second.created };
                first.name != second.name && first.service == second.service && before && begin < self.end_of(first)
            });
            if let Some(first) = in_the_way {
                self.breaks(begin, format!("{} was started while {} ran", second.name, first.name));
            }
        }
    }

    fn no_run_past_its_limit(&mut self) {
        for run in self.ours() {
            let (Some(job), Some(from)) = (self.history.scenario.job(&run.service), run.started) else { continue };
            let to = self.end_of(&run);
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
            let unknown = self.history.disk_trouble.iter().any(|(begin, end)| *begin < to && *end > from);
            if run.renamed && (unknown || self.forgotten(run.created)) {
                continue;
            }
            let stayed = self.accountable(from, to);
            if stayed > DEAD {
                self.breaks(to, format!("{} did not run and stayed for {stayed:?}", run.name));
            }
        }
    }

    /// Whether what happened at a moment may be forgotten: the power failed soon after it, or a life ended while the disk
    /// took nothing.
    fn forgotten(&self, at: Duration) -> bool {
        let History { power_cuts, disk_trouble, suspended, lives, end, .. } = self.history;
        let waits = suspended.iter().find(|(from, to)| at + SYNCED > *from && at <= *to);
        let safe = waits.map_or(at, |(_, to)| *to) + SYNCED;
        let cut = power_cuts.iter().any(|cut| *cut + Duration::from_mins(1) > at && safe > *cut);
        let ends = |from: Duration, to: Duration| lives.iter().any(|life| life.to > from && life.to < to.min(*end));
        cut || disk_trouble.iter().any(|(from, to)| *from <= safe && at < *to && ends(*from, *to))
    }

    /// Whether anything may be forgotten.
    fn forgets(&self) -> bool {
        let History { power_cuts, disk_trouble, lives, .. } = self.history;
        !power_cuts.is_empty() || !disk_trouble.is_empty() && lives.len() > 1
    }

    /// Whether a life began while the disk took nothing: it never learns of the runs that only the disk knows.
    fn opened_without_store(&self) -> bool {
        let History { disk_trouble, lives, .. } = self.history;
        lives.iter().any(|life| disk_trouble.iter().any(|(from, to)| *from <= life.from && life.from <= *to))
    }

    fn clock_is_set(&self) -> bool {
        self.history.scenario.acts.iter().any(|(_, act)| matches!(act, Act::ClockSet { .. }))
    }

    fn intervals_change(&self) -> bool {
        self.history.scenario.acts.iter().any(|(_, act)| matches!(act, Act::Interval { .. }))
    }

    /// Whether a call to the Engine went wrong within a span, or the daemon was suspended.
    fn troubled(&self, from: Duration, to: Duration) -> bool {
        self.history.engine_trouble.iter().any(|(begin, end)| *begin <= to && *end >= from)
    }

    /// The life in which a moment is.
    fn life_of(&self, at: Duration) -> Option<Life> {
        self.history.lives.iter().rev().find(|life| life.from <= at && at <= life.to).copied()
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
                if let (Some(started), Some((removed, By::Daemon))) = (run.started, run.removed)
                    && !self.troubled(started, removed)
                {
                    self.breaks(removed, format!("{} was removed while it ran, and not stopped", run.name));
                }
                continue;
            };
            let seen_by = self.accountable(ended, self.history.end);
            if !record.state.is_over() {
                let removed = run.removed.map_or(ended, |(at, _)| at);
                if seen_by > DEAD && !self.forgotten(ended) && !self.forgotten(removed) && !self.opened_without_store()
                {
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
            self.verdict_is_what_happened(&run, record, (ended, by));
            let removed_by_others = run.removed.is_some_and(|(_, by)| by == By::Others);
            let told = record.exit_code.is_some() || matches!(record.state, State::TimedOut | State::Cancelled);
            let troubled = self.troubled(run.created, ended + DEAD);
            let forgotten = self.forgotten(ended) || run.removed.is_some_and(|(at, _)| self.forgotten(at));
            if by == By::Itself && code != 255 && !told && !removed_by_others && !troubled && !forgotten {
                let (state, reason) = (record.state, record.reason);
                self.breaks(ended, format!("{} exited {code}, its record says {state} {reason:?}", run.name));
            }
        }
    }

    /// A run that the daemon stopped was past its limit, or the daemon ended.
    fn verdict_is_what_happened(&mut self, run: &Container, record: &Record, (ended, by): (Duration, By)) {
        let (Some(job), Some(started)) = (self.history.scenario.job(&run.service), run.started) else { return };
        let (state, reason, ran) = (record.state, record.reason, ended.saturating_sub(started));
        let stopped = by == By::Daemon;
        if reason == Some(Reason::EngineLost) && stopped {
            self.breaks(ended, format!("{} was stopped, its record says that the engine was lost", run.name));
        }
        if reason == Some(Reason::Requested) {
            self.breaks(ended, format!("{} was cancelled, and nobody asked for it", run.name));
        }
        if reason == Some(Reason::Shutdown) && self.history.lives.iter().all(|life| life.killed) {
            self.breaks(ended, format!("{} was cancelled by a shutdown that was not", run.name));
        }
        if self.troubled(run.created, ended) || self.forgotten(ended) {
            return;
        }
        // A life that ends over the removal leaves its verdict to the next one, which sees an exit code.
        let removed = run.removed.map_or(self.history.end, |(at, _)| at);
        let cut_off = self.history.lives.iter().any(|life| (ended..=removed).contains(&life.to));
        if stopped && !cut_off && !matches!(state, State::TimedOut | State::Cancelled) {
            self.breaks(ended, format!("{} was stopped, its record says {state} {reason:?}", run.name));
        }
        if state == State::TimedOut && ran + Duration::from_secs(1) < job.limit && !self.clock_is_set() {
            self.breaks(ended, format!("{} was stopped after {ran:?}, before its limit of {:?}", run.name, job.limit));
        }
    }

    fn every_slot_is_accounted_once(&mut self) {
        let (due, accounted) = self.history.slots;
        if due != accounted {
            self.breaks(self.history.end, format!("{due} slots fell due, {accounted} have a record"));
        }
        let there: BTreeSet<String> = self.ours().into_iter().map(|run| run.run_id).collect();
        let latest = self.history.end.saturating_sub(DEAD);
        // Where not all may run at once, one may wait for its turn.
        let waits = self.history.scenario.max_parallel < self.history.scenario.jobs.len() as u64;
        let known = !waits && !self.opened_without_store();
        let open = self.history.records.iter().filter(|record| known && !record.state.is_over());
        let open: Vec<String> = open
            .filter(|record| record.run_id.as_ref().is_some_and(|run_id| !there.contains(run_id.as_str())))
            .filter(|record| self.moment(record.created_at).is_some_and(|at| at < latest && !self.forgotten(at)))
            .map(|record| {
                format!("the record of {:?}, which has no container, is still {}", record.run_id, record.state)
            })
            .collect();
        self.broken.extend(open);
        let mut seen = BTreeMap::new();
        let mut iterations = BTreeSet::new();
        for record in &self.history.records {
            let slot = record.slot.filter(|_| record.state != State::Missed).map(Timestamp::to_rfc3339);
            // Newest first. A run that was cut off before its container was started is tried again, for the same slot.
            if let Some(slot) = slot
                && !self.clock_is_set()
                && let Some(other) = seen.insert((record.job.clone(), slot.clone()), record.state)
                && !(record.reason == Some(Reason::Interrupted) && record.started_at.is_none())
            {
                let (job, state) = (&record.job, record.state);
                self.broken.push(format!("slot {slot} of {job} has two records: {state} and {other}"));
            }
            if let Some(iteration) = record.iteration
                && !iterations.insert((record.job.clone(), iteration))
                && !self.forgets()
            {
                self.broken.push(format!("iteration {iteration} of {} was used twice", record.job));
            }
        }
    }

    /// A moment of the wall clock, where that is never set.
    fn moment(&self, at: Timestamp) -> Option<Duration> {
        Duration::try_from_secs_f64(at.0 - BEGIN).ok().filter(|_| !self.clock_is_set())
    }

    /// The slots of services whose interval stays, oldest first: service, interval, life and record.
    fn slots(&self) -> Vec<(String, Duration, Life, &Record)> {
        if self.intervals_change() || self.clock_is_set() {
            return Vec::new();
        }
        let records = self.history.records.iter().rev();
        let slots = records.filter_map(|record| {
            let every = self.history.scenario.job(record.job.as_str())?.every?;
            record.slot?;
            Some((record.job.to_string(), every, self.life_of(self.moment(record.created_at)?)?, record))
        });
        slots.collect()
    }

    fn slots_are_on_their_grid(&mut self) {
        // What is due at once at the start begins a grid of its own.
        let one_grid = self.history.scenario.first_run != "immediate" && !self.forgets();
        let mut first = BTreeMap::new();
        let mut broken = Vec::new();
        for (job, every, life, record) in self.slots() {
            let (Some(slot), false) = (record.slot, record.state == State::Missed) else { continue };
            let life = if one_grid { Duration::ZERO } else { life.from };
            let begin = *first.entry((job.clone(), life)).or_insert(slot);
            let off = (slot.0 - begin.0).rem_euclid(every.as_secs_f64());
            if off > 0.02 && off < every.as_secs_f64() - 0.02 {
                broken.push(format!("slot {} of {job} is off its grid by {off:.3} s", slot.to_rfc3339()));
            }
        }
        self.broken.extend(broken);
    }

    /// Between two slots of a life there is no other that has no record.
    fn no_slot_is_left_out(&mut self) {
        let mut spans = BTreeMap::<_, Vec<(f64, f64, bool)>>::new();
        let slots = self.slots();
        let every: BTreeMap<String, Duration> = slots.iter().map(|(job, every, _, _)| (job.clone(), *every)).collect();
        for (job, _, life, record) in slots {
            let Some(slot) = record.slot else { continue };
            let last = record.missed_slots().map_or(slot, |missed| missed.last);
            spans.entry((job, life.from)).or_default().push((slot.0, last.0, record.state == State::Missed));
        }
        for ((job, _), mut spans) in spans {
            spans.sort_by(|a, b| a.0.total_cmp(&b.0));
            let every = every[&job];
            for pair in spans.windows(2) {
                let [(_, last, missed), (slot, _, _)] = pair else { continue };
                let Some(at) = self.moment(Timestamp(*last)) else { continue };
                // The newest of the missed slots is made up for at the start.
                let most = every.as_secs_f64() * if *missed { 2.5 } else { 1.5 };
                if slot - last > most && !self.forgotten(at + every) {
                    self.breaks(at, format!("{job} has no slot for {:.0} s", slot - last));
                }
            }
        }
    }

    /// At most so many scheduled runs of one life go on at once.
    fn not_more_runs_than_may_go_on(&mut self) {
        let scheduled = |run: &Container| {
            let record = self.records.get(&run.run_id);
            run.started.is_some() && record.is_some_and(|record| record.trigger == Trigger::Schedule)
        };
        let runs: Vec<Container> = self.ours().into_iter().filter(scheduled).collect();
        for run in &runs {
            let begin = run.started.unwrap_or_default();
            let Some(life) = self.life_of(run.created) else { continue };
            let others = runs.iter().filter(|other| {
                let since = other.started.unwrap_or_default();
                since <= begin && begin < self.end_of(other) && other.created >= life.from
            });
            let count = others.count() as u64;
            if count > self.history.scenario.max_parallel && !self.troubled(begin.saturating_sub(DEAD), begin) {
                self.breaks(begin, format!("{count} scheduled runs went on with {}", run.name));
            }
        }
    }

    /// A service whose start hangs, or whose run takes all of its time, is no reason for another one's to wait for longer
    /// than a slot.
    fn trouble_of_one_service_delays_no_other(&mut self) {
        let scenario = &self.history.scenario;
        if scenario.max_parallel < scenario.jobs.len() as u64 {
            return;
        }
        let stuck = |job: &str, at: Duration| {
            let own = scenario.acts.iter().rev().filter(|(when, _)| *when <= at + SLACK);
            let mut own = own.filter_map(|(when, act)| match act {
                Act::Stuck { service } if *service == job => Some((*when, true)),
                Act::Unstuck { service } if *service == job => Some((*when, false)),
                _ => None,
            });
            own.next().is_some_and(|(when, stuck)| stuck || when + DEAD * 2 > at)
        };
        let mut broken = Vec::new();
        for (job, every, life, record) in self.slots() {
            let Some(at) = record.slot.and_then(|slot| self.moment(slot)) else { continue };
            let Some(run_id) = &record.run_id else { continue };
            let until = at + every.max(SLACK);
            let away = at < life.from || until > life.to || self.troubled(at.saturating_sub(DEAD), until);
            if away || stuck(&job, at) || scenario.job(&job).is_some_and(|job| job.needs_db) {
                continue;
            }
            let run = self.containers.values().find(|run| run.ours && run.run_id == run_id.as_str());
            if run.and_then(|run| run.started).is_none_or(|started| started > until)
                && !matches!(record.reason, Some(Reason::Busy | Reason::Shutdown))
            {
                broken.push(format!(
                    "{:.3}: the run of {job} was not started within {:?}",
                    at.as_secs_f64(),
                    every.max(SLACK)
                ));
            }
        }
        self.broken.extend(broken);
    }

    /// Where a run starts, what it depends on runs.
    fn runs_find_what_they_depend_on(&mut self) {
        let db: Vec<Container> =
            self.containers.values().filter(|other| other.of_service && other.service == "db").cloned().collect();
        for run in self.ours() {
            let (Some(at), Some(job)) = (run.started, self.history.scenario.job(&run.service)) else { continue };
            if !job.needs_db || self.troubled(run.created.saturating_sub(SLACK), at) {
                continue;
            }
            let runs = |db: &Container| db.created <= at && db.removed.is_none_or(|(removed, _)| removed >= at);
            let asked = |sent: &Sent| sent.service == "db" && sent.at <= at && sent.at + ANSWER > at;
            if !db.iter().any(runs) && !self.history.sent.iter().any(asked) {
                self.breaks(at, format!("{} was started without db", run.name));
            }
        }
    }

    /// In the quiet at the end each verdict is in Redis once.
    fn redis_has_every_record(&mut self) {
        let history = self.history;
        let mut broken = Vec::new();
        for run in self.ours() {
            let Some((ended, _, _)) = run.ended else { continue };
            let quiet = run.created > TROUBLE + RECOVERY && ended + SLACK < history.end;
            if !quiet {
                continue;
            }
            let pushed = history.written.iter().filter(|written| written.call == "LPUSH");
            let pushed = pushed.filter(|written| written.text.contains(&run.run_id)).count();
            if pushed != 1 {
                broken.push(format!("the record of {} was written to Redis {pushed} times", run.name));
            }
        }
        self.broken.extend(broken);
    }

    /// What was commanded last holds, where nothing else happened to the service.
    fn services_are_as_last_commanded(&mut self) {
        let history = self.history;
        let mut known = BTreeSet::new();
        let taken: Vec<&Sent> = history.sent.iter().filter(|sent| sent.received && known.insert(sent.id)).collect();
        let of_web = |sent: &&&Sent| sent.service == "web" && sent.action != "trigger";
        let Some(last) = taken.iter().rfind(of_web) else {
            return;
        };
        let from = last.at.saturating_sub(ANSWER);
        let ended = history.lives.iter().any(|life| life.to > from && life.to < history.end);
        let by_hand = history.facts.iter().any(|fact| {
            let at = fact.at.saturating_duration_since(history.origin);
            fact.by == By::Others && at >= from && fact.name.contains("web")
        });
        let renamed = self.containers.values().any(|web| web.service == "web" && web.renamed);
        if ended || by_hand || renamed || self.troubled(from, history.end) {
            return;
        }
        let runs = |web: &Container| web.started.is_some() && web.ended.is_none() && web.removed.is_none();
        let web = self.containers.values().filter(|web| web.of_service && web.service == "web");
        let running = web.filter(|web| runs(web)).count();
        let wanted = usize::from(last.action != "stop_service");
        if running != wanted {
            let text = format!("web was told {}, and {running} containers of it run at the end", last.action);
            self.breaks(last.at, text);
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
            let answers = published.clone().filter(|written| written.received > 0).count();
            let last = sent.last().map_or(first.at, |sent| sent.at);
            let lives = history.lives.iter().filter(|life| life.from <= first.at && life.to > first.at);
            let life_goes_on = lives.clone().any(|life| life.to > last + ANSWER);
            let troubled = |spans: &[(Duration, Duration)]| {
                spans.iter().any(|(from, to)| *from <= last + ANSWER && *to >= first.at)
            };
            let redis_troubled = troubled(&history.redis_trouble);
            let forgotten = |written: &&Written| self.forgotten(written.at.saturating_duration_since(history.origin));
            if !redis_troubled && answers > sent.len() && !published.clone().any(|written| forgotten(&written)) {
                self.breaks(first.at, format!("req-{id} was sent {} times and answered {answers} times", sent.len()));
            }
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
            if runs > 1 && !self.forgotten(first.at) && last < first.at + REMEMBERED {
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
        if self.intervals_change() {
            return;
        }
        // A recreation of `db` that was cut off and whose container was renamed meanwhile is not put right.
        let db_renamed = self.containers.values().any(|db| db.service == "db" && db.renamed);
        for job in self.history.scenario.jobs.iter().filter(|job| job.every.is_some()) {
            if job.needs_db && db_renamed {
                continue;
            }
            let runs = self.ours().into_iter().filter(|run| run.service == job.name);
            if runs.filter(|run| run.started.is_some_and(|at| at > TROUBLE + RECOVERY)).count() == 0 {
                self.breaks(self.history.end, format!("{} was not run again after the trouble", job.name));
            }
        }
    }
}
