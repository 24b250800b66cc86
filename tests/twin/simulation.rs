//! Lives of the whole daemon on one Engine, one Redis and one disk, which outlive it.

use std::cell::Cell;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::channel::mpsc;
use sense_orchestrator::app::Daemon;
use sense_orchestrator::backend::compose::ComposeOptions;
use sense_orchestrator::bus::{Bus as _, Subscription};
use sense_orchestrator::clock::{Timestamp, set_wall_clock};
use sense_orchestrator::compose::Options;
use sense_orchestrator::ledger::{Ledger, Limits, Query, set_boot_clock};
use sense_orchestrator::projects::Projects;
use sense_orchestrator::random;
use sense_orchestrator::record::Record;
use sense_orchestrator::settings::{Settings, Sources};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cut_disk::{self, CutDisk};
use crate::dice::Dice;
use crate::scenario::{Act, Away, Deed, PROJECT, QUIET, Scenario, TROUBLE};
use crate::support::bounds::bounds;
use crate::support::bus::{BusFault, FakeBus, Written};
use crate::support::engine::{Fact, FakeEngine, Fault, Script};
use crate::support::time;

/// When the adapter gives up an answer.
const CALL_LIMIT: Duration = Duration::from_mins(2);

/// Seconds since 1970 when a simulation begins.
const BEGIN: f64 = 1_790_000_000.0;

/// Simulations of this process so far, for their folders.
static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Counts this thread's panics: one in a task that nobody waits for is seen by nobody else.
pub(crate) fn watch_for_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.set(PANICS.get() + 1);
        before(panic);
    }));
}

/// A command that was sent.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) at: Duration,
    pub(crate) id: u64,
    pub(crate) action: &'static str,
    pub(crate) service: &'static str,
    pub(crate) listens: bool,
    /// The daemon received it.
    pub(crate) received: bool,
}

/// A life of the daemon.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    /// It ended without a word.
    pub(crate) killed: bool,
}

/// All that is known of a simulation once it is over.
pub(crate) struct History {
    pub(crate) scenario: Scenario,
    pub(crate) origin: Instant,
    pub(crate) end: Duration,
    pub(crate) facts: Vec<Fact>,
    pub(crate) written: Vec<Written>,
    pub(crate) records: Vec<Record>,
    pub(crate) slots: (u64, u64),
    pub(crate) sent: Vec<Sent>,
    pub(crate) lives: Vec<Life>,
    /// When a call to the Engine went wrong, until when at most.
    pub(crate) engine_trouble: Vec<(Duration, Duration)>,
    pub(crate) redis_trouble: Vec<(Duration, Duration)>,
    pub(crate) power_cuts: usize,
    /// What the daemon or the simulation itself complains of.
    pub(crate) faults: Vec<String>,
    trace: Vec<(Duration, String)>,
}

impl History {
    /// Everything in the order in which it happened.
    pub(crate) fn trace(&self) -> String {
        let mut lines = self.trace.clone();
        let since = |at: Instant| at.saturating_duration_since(self.origin);
        for Fact { at, by, what, id, name, .. } in &self.facts {
            let id = id.trim_start_matches('0');
            lines.push((since(*at), format!("engine  {what:?} {name} ({id}) by {by:?}")));
        }
        for Written { at, call, to, text, received } in &self.written {
            lines.push((since(*at), format!("redis   {call} {to} {text} ({received})")));
        }
        lines.sort_by_key(|(at, _)| *at);
        let mut text = String::new();
        for (at, line) in lines {
            let _ = writeln!(text, "{:>10.3} {line}", at.as_secs_f64());
        }
        for record in self.records.iter().rev() {
            let _ = writeln!(text, "ledger  {}", serde_json::to_string(record).unwrap());
        }
        text
    }
}

/// What goes wrong in calls, drawn from the seed.
struct Chaos {
    dice: Dice,
    engine: Option<u64>,
    redis: Option<u64>,
    origin: Instant,
    quiet: bool,
    kill: Option<(u64, bool)>,
    killed: Arc<Notify>,
    engine_trouble: Vec<(Duration, Duration)>,
    redis_trouble: Vec<(Duration, Duration)>,
    trace: Vec<(Duration, String)>,
}

impl Chaos {
    fn now(&self) -> Duration {
        time::now() - self.origin
    }

    fn engine_call(&mut self, call: &'static str) -> Option<Fault> {
        let now = self.now();
        if let Some((calls, carried_out)) = &mut self.kill {
            *calls -= 1;
            if *calls == 0 {
                let fault = if *carried_out { Fault::Unanswered } else { Fault::Hung };
                self.kill = None;
                self.trace.push((now, format!("killed in {call} ({fault:?})")));
                self.killed.notify_one();
                return Some(fault);
            }
        }
        let times = self.engine.filter(|_| !self.quiet)?;
        if !self.dice.once_in(times) {
            return None;
        }
        let second = Duration::from_secs(1);
        let (fault, lasts) = match self.dice.between(0, 13) {
            0..=2 => (Fault::Refused, 10 * second),
            3..=5 => (Fault::Lost, 10 * second),
            6 | 7 => (Fault::LostAnswer, 10 * second),
            8 | 9 if matches!(call, "create container" | "start container") => {
                let late = Duration::from_millis(self.dice.one_of(&[100, 2_000, 8_000, 30_000]));
                (Fault::Late(late), late + 10 * second)
            }
            10 | 11 => {
                let slow = Duration::from_millis(self.dice.one_of(&[30, 700, 6_000, 20_000]));
                (Fault::Slow(slow), slow + 10 * second)
            }
            12 => (Fault::Hung, CALL_LIMIT + 10 * second),
            13 => (Fault::Unanswered, CALL_LIMIT + 10 * second),
            _ => return None,
        };
        self.engine_trouble.push((now, now + lasts));
        self.trace.push((now, format!("fault   {call}: {fault:?}")));
        Some(fault)
    }

    fn redis_call(&mut self, call: &'static str) -> Option<BusFault> {
        let times = self.redis.filter(|_| !self.quiet)?;
        if !self.dice.once_in(times) {
            return None;
        }
        let fault = self.dice.one_of(&[BusFault::Refused, BusFault::Lost, BusFault::LostAnswer]);
        let now = self.now();
        self.redis_trouble.push((now, now + Duration::from_secs(10)));
        self.trace.push((now, format!("fault   {call}: {fault:?}")));
        Some(fault)
    }
}

/// How a life ends.
enum End {
    /// The simulation is over.
    Over,
    Killed {
        away: Duration,
    },
    PowerCut {
        away: Duration,
    },
    /// It was asked to.
    Ended {
        away: Duration,
        ended: Result<(), String>,
    },
}

struct World {
    scenario: Scenario,
    engine: Arc<FakeEngine>,
    bus: Arc<FakeBus>,
    disk: CutDisk,
    chaos: Arc<Mutex<Chaos>>,
    killed: Arc<Notify>,
    origin: Instant,
    folder: PathBuf,
    next: usize,
    away: Duration,
    sent: Vec<Sent>,
    listening: Vec<(u64, Subscription)>,
    trace: Vec<(Duration, String)>,
    outages: Vec<(Duration, Duration)>,
    redis_outages: Vec<(Duration, Duration)>,
}

fn limits() -> Limits {
    Limits { records: 1_000_000, age: Duration::from_hours(24 * 365), bytes: 1 << 30 }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Lets this thread's clocks go on from a moment of the simulation.
fn set_clocks(origin: Instant, elapsed: Duration) {
    time::go_on_from(origin + elapsed);
    set_wall_clock(move || Timestamp(BEGIN + (time::now() - origin).as_secs_f64()));
    set_boot_clock(move || Some(("boot".into(), Duration::from_hours(1) + (time::now() - origin))));
}

/// Simulates what a seed means.
pub(crate) fn run(seed: u64) -> History {
    PANICS.set(0);
    let mut scenario = Scenario::new(seed);
    let mut bytes = scenario.dice.fork();
    random::set_source(move |buffer| buffer.iter_mut().for_each(|byte| *byte = bytes.next().to_le_bytes()[0]));
    let origin = Instant::now();
    let begun = runtime();
    let (engine, bus) = begun.block_on(async {
        set_clocks(origin, Duration::ZERO);
        let engine = FakeEngine::new();
        set_clocks(origin, Duration::ZERO);
        (engine, FakeBus::new())
    });
    drop(begun);
    for job in &scenario.jobs {
        engine.script(job.name, job.script.clone());
    }
    engine.script("db", Script::stays());
    engine.script("web", Script::stays());
    let killed = Arc::new(Notify::new());
    let chaos = Arc::new(Mutex::new(Chaos {
        dice: scenario.dice.fork(),
        engine: scenario.engine_faults,
        redis: scenario.redis_faults,
        origin,
        quiet: false,
        kill: None,
        killed: Arc::clone(&killed),
        engine_trouble: Vec::new(),
        redis_trouble: Vec::new(),
        trace: Vec::new(),
    }));
    let asked = Arc::clone(&chaos);
    engine.ask(CALL_LIMIT, move |call| lock(&asked).engine_call(call));
    let asked = Arc::clone(&chaos);
    bus.ask(move |call| lock(&asked).redis_call(call));

    let name = format!("sense-twin-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("compose.yaml"), scenario.compose()).unwrap();
    std::fs::write(folder.join("settings.yaml"), scenario.settings()).unwrap();
    let settings = Settings::load(&Sources { file: Some(folder.join("settings.yaml")), ..Sources::default() })
        .unwrap_or_else(|errors| panic!("{errors}"));

    let world = World {
        scenario,
        engine,
        bus,
        disk: CutDisk::default(),
        chaos,
        killed,
        origin,
        folder,
        next: 0,
        away: Duration::ZERO,
        sent: Vec::new(),
        listening: Vec::new(),
        trace: Vec::new(),
        outages: Vec::new(),
        redis_outages: Vec::new(),
    };
    world.lives(&settings)
}

impl World {
    fn now(&self) -> Duration {
        time::now() - self.origin
    }

    fn note(&mut self, text: String) {
        self.trace.push((self.now(), text));
    }

    fn lives(mut self, settings: &Settings) -> History {
        let (mut elapsed, mut lives, mut faults, mut power_cuts) = (Duration::ZERO, Vec::new(), Vec::new(), 0);
        loop {
            let runtime = runtime();
            let (end, to) = runtime.block_on(async {
                set_clocks(self.origin, elapsed);
                let end = self.life(settings).await;
                (end, self.now())
            });
            drop(runtime);
            let mut life = Life { from: elapsed, to, killed: true };
            let away = match end {
                End::Over => {
                    lives.push(life);
                    elapsed = to;
                    break;
                }
                End::Killed { away } => away,
                End::PowerCut { away } => {
                    power_cuts += 1;
                    let mut dice = cut_disk::Dice(self.scenario.dice.next());
                    self.disk = self.disk.after_power_cut(&mut dice);
                    away
                }
                End::Ended { away, ended } => {
                    life.killed = false;
                    faults.extend(ended.err().map(|error| format!("the daemon ended by itself: {error}")));
                    away
                }
            };
            lives.push(life);
            self.trace.push((to, format!("life    ends, {away:?} away")));
            elapsed = to + away;
        }
        if PANICS.get() > 0 {
            faults.push(format!("{} panics", PANICS.get()));
        }
        let runtime = runtime();
        let (records, slots, facts) = runtime.block_on(async {
            set_clocks(self.origin, elapsed);
            let ledger = Ledger::on_disk(self.disk.reopened(), limits());
            let page = ledger.page(Query { limit: usize::MAX, ..Query::default() }).await;
            let slots = ledger.slots();
            (page.records, (slots.due, slots.accounted), self.engine.history())
        });
        let _ = std::fs::remove_dir_all(&self.folder);
        let mut chaos = lock(&self.chaos);
        self.trace.append(&mut chaos.trace);
        self.outages.append(&mut chaos.engine_trouble);
        self.redis_outages.append(&mut chaos.redis_trouble);
        drop(chaos);
        History {
            written: self.bus.written(),
            scenario: self.scenario,
            origin: self.origin,
            end: elapsed,
            facts,
            records,
            slots,
            sent: self.sent,
            lives,
            engine_trouble: self.outages,
            redis_trouble: self.redis_outages,
            power_cuts,
            faults,
            trace: self.trace,
        }
    }

    /// One life, from its start to its end.
    async fn life(&mut self, settings: &Settings) -> End {
        let options = Options { working_dir: self.folder.clone(), ..Options::default() };
        let ledger = Ledger::on_disk(self.disk.reopened(), limits());
        let daemon = Daemon {
            settings: settings.clone(),
            engine: Arc::clone(&self.engine),
            bus: Arc::clone(&self.bus),
            projects: Arc::new(Projects::open(options).unwrap_or_else(|errors| panic!("{errors}"))),
            compose: ComposeOptions::default(),
            own_service: None,
            bounds: bounds(),
            ledger: ledger.clone(),
            redis_by: Instant::now() + Duration::from_secs(3),
        };
        let (mut signals, arriving) = mpsc::unbounded();
        let closing = CancellationToken::new();
        let mut running = std::pin::pin!(daemon.start().unwrap().run(arriving, &closing));
        let killed = Arc::clone(&self.killed);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut asked_to_end = None;
        loop {
            let (now, next) = (self.now(), self.due());
            if now >= TROUBLE {
                self.keep_quiet();
            }
            if now >= TROUBLE + QUIET && asked_to_end.is_none() {
                return End::Over;
            }
            tokio::select! {
                biased;
                () = killed.notified() => return End::Killed { away: self.away },
                ended = &mut running => {
                    let ended = ended.map_err(|error| error.to_string());
                    let ended = if asked_to_end.is_none() && ended.is_ok() { Err("for no reason".into()) } else { ended };
                    ledger.sync().await;
                    return End::Ended { away: asked_to_end.unwrap_or_default(), ended };
                }
                () = time::sleep_until(next) => {
                    match self.act() {
                        Some(End::Ended { away, .. }) => {
                            asked_to_end.get_or_insert(away);
                            let _ = signals.start_send("SIGTERM");
                        }
                        Some(end) => return end,
                        None => {}
                    }
                }
                _ = tick.tick() => drop(ledger.tick()),
            }
        }
    }

    /// When the next thing happens.
    fn due(&self) -> Instant {
        let next = self.scenario.acts.get(self.next).map(|(at, _)| *at);
        self.origin + next.unwrap_or(TROUBLE + QUIET).min(TROUBLE + QUIET)
    }

    /// From now on everything goes well.
    fn keep_quiet(&mut self) {
        let mut chaos = lock(&self.chaos);
        chaos.kill = None;
        if std::mem::replace(&mut chaos.quiet, true) {
            return;
        }
        drop(chaos);
        self.note("quiet from now on".into());
        self.engine.come_back();
        self.bus.come_back();
    }

    /// Does what is due.
    fn act(&mut self) -> Option<End> {
        let (_, act) = self.scenario.acts.get(self.next)?.clone();
        self.next += 1;
        let now = self.now();
        if now >= TROUBLE {
            return None;
        }
        self.note(format!("act     {act:?}"));
        match act {
            Act::Command { id, action, service, listens } => self.command(id, action, service, listens),
            Act::Nonsense(text) => drop(self.bus.send("cmd:orchestrator", text)),
            Act::Interval { service, seconds } => {
                self.bus.put("config:schedule", &json!({service: seconds}));
                self.bus.send("config:changed", json!({"section": "schedule"}).to_string());
            }
            Act::EngineAway { how, time } => {
                let second = Duration::from_secs(1);
                self.outages.push((now, now + time + 10 * second));
                match how {
                    Away::Connection => self.engine.lose_connection(),
                    Away::Shutdown => self.engine.shut_down(),
                    Away::Crash => self.engine.crash(),
                }
            }
            Act::EngineBack => self.engine.come_back(),
            Act::RedisAway { time, forgets } => {
                self.redis_outages.push((now, now + time + Duration::from_secs(10)));
                self.bus.go_down();
                if forgets {
                    self.bus.forget();
                }
            }
            Act::RedisBack => self.bus.come_back(),
            Act::Operator { what, which } => self.operate(what, which),
            Act::Foreign { service, time, own_project } => self.foreign(service, time, own_project),
            Act::Restart { away } => return Some(End::Ended { away, ended: Ok(()) }),
            Act::Kill { away } => return Some(End::Killed { away }),
            Act::KillInCall { calls, carried_out, away } => {
                self.away = away;
                lock(&self.chaos).kill = Some((calls, carried_out));
            }
            Act::PowerCut { away } => {
                self.engine.crash();
                self.engine.come_back();
                return Some(End::PowerCut { away });
            }
        }
        None
    }

    fn command(&mut self, id: u64, action: &'static str, service: &'static str, listens: bool) {
        let name = format!("req-{id}");
        if listens && !self.listening.iter().any(|(other, _)| *other == id) {
            self.listening.push((id, self.bus.subscribe(&[reply_channel(id)])));
        }
        let command = json!({"action": action, "request_id": name, "params": {"service": service}, "timestamp": 1.5});
        // What is published while the connection is away arrives nowhere.
        let up = self.bus.connection().borrow().is_up();
        let received = up && self.bus.send("cmd:orchestrator", command.to_string()) > 0;
        self.sent.push(Sent { at: self.now(), id, action, service, listens, received });
    }

    fn operate(&mut self, what: Deed, which: u64) {
        let names = self.engine.container_names();
        let names: Vec<&String> = names.iter().filter(|name| name.starts_with("p-")).collect();
        if names.is_empty() {
            return;
        }
        let name = names[usize::try_from(which % names.len() as u64).unwrap()];
        self.trace.push((self.now(), format!("act     {what:?} {name}")));
        match what {
            Deed::Stop => self.engine.stop_by_hand(name),
            Deed::Remove => self.engine.remove_by_hand(name),
            Deed::Rename => self.engine.rename_by_hand(name, &format!("renamed-{which}")),
        }
    }

    fn foreign(&mut self, service: &'static str, time: Duration, own_project: bool) {
        let slug = "f".repeat(64);
        let project = if own_project { PROJECT } else { "q" };
        let labels = [
            ("com.docker.compose.project", project),
            ("com.docker.compose.service", service),
            ("com.docker.compose.oneoff", "True"),
            ("com.docker.compose.config-hash", "0"),
            ("com.docker.compose.slug", &slug),
        ];
        let script = Script { runs_for: Some(time), ..Script::default() };
        let name = format!("{project}-{service}-run-ffffffffffff-{}", self.now().as_millis());
        self.engine.put_by_hand(&name, &labels, script);
    }
}

/// Where the reply to a command arrives.
pub(crate) fn reply_channel(id: u64) -> String {
    format!("cmd:orchestrator:response:req-{id}")
}
