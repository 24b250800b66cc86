//! What a seed means: a stack, its settings, and what happens to it when.

use std::fmt::Write as _;
use std::time::Duration;

use crate::dice::Dice;
use crate::support::engine::Script;

/// The project that is simulated.
pub(crate) const PROJECT: &str = "p";

/// What must not be in any text that leaves the daemon.
pub(crate) const SECRET: &str = "tr0ub4dor";

/// How long the environment makes trouble, and how long it keeps quiet afterwards.
pub(crate) const TROUBLE: Duration = Duration::from_mins(10);
pub(crate) const QUIET: Duration = Duration::from_mins(8);

/// A service that is run on an interval, or by command only.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) every: Option<Duration>,
    pub(crate) limit: Duration,
    pub(crate) grace: Duration,
    pub(crate) needs_db: bool,
    pub(crate) script: Script,
}

/// What somebody or something does.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// A command over Redis.
    Command {
        id: u64,
        action: &'static str,
        service: &'static str,
        listens: bool,
    },
    /// Bytes on the command channel that are no command.
    Nonsense(&'static str),
    /// Another interval in Redis; none pauses.
    Interval {
        service: &'static str,
        seconds: u64,
    },
    /// The Engine is away for a while.
    EngineAway {
        how: Away,
        time: Duration,
    },
    /// Redis is away for a while, and may come back empty.
    RedisAway {
        time: Duration,
        forgets: bool,
    },
    EngineBack,
    RedisBack,
    /// An operator does something to one of the project's containers.
    Operator {
        what: Deed,
        which: u64,
    },
    /// Somebody else's container.
    Foreign {
        service: &'static str,
        time: Duration,
        own_project: bool,
    },
    /// The daemon is told to end, and started again.
    Restart {
        away: Duration,
    },
    /// The daemon is killed now, and started again.
    Kill {
        away: Duration,
    },
    /// The daemon is killed in a call, before or after it was carried out, and started again.
    KillInCall {
        calls: u64,
        carried_out: bool,
        away: Duration,
    },
    /// The power fails, and comes back.
    PowerCut {
        away: Duration,
    },
    /// From now on the start of a service's containers is never answered.
    Stuck {
        service: &'static str,
    },
    Unstuck {
        service: &'static str,
    },
    /// The wall clock is set by so many seconds.
    ClockSet {
        by: f64,
    },
    /// The daemon's process is suspended; all else goes on.
    Suspended {
        time: Duration,
    },
    /// The disk takes nothing for a while.
    DiskFull {
        time: Duration,
    },
    DiskBack,
    /// The Compose file's `db` has another configuration.
    Edit {
        version: u64,
    },
}

/// How the Engine goes away.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Away {
    Connection,
    Shutdown,
    Crash,
}

/// What an operator does to a container.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
    Stop,
    Remove,
    Rename,
}

/// All that a seed decides.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) jobs: Vec<Job>,
    pub(crate) max_parallel: u64,
    pub(crate) first_run: &'static str,
    /// One Engine call in so many goes wrong; none where all go well.
    pub(crate) engine_faults: Option<u64>,
    /// The same of Redis.
    pub(crate) redis_faults: Option<u64>,
    /// In the order in which they happen.
    pub(crate) acts: Vec<(Duration, Act)>,
    /// For the faults.
    pub(crate) dice: Dice,
}

const POLLED: [&str; 4] = ["air", "bed", "car", "dog"];

impl Scenario {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let count = usize::try_from(dice.between(1, 4)).unwrap();
        let mut jobs: Vec<Job> = POLLED.into_iter().take(count).map(|name| job(name, &mut dice)).collect();
        jobs.push(Job { every: None, ..job("hand", &mut dice) });
        let max_parallel = dice.between(1, 4);
        let first_run = dice.one_of(&["immediate", "due", "next_slot"]);
        let (engine_faults, redis_faults) = (rate(&mut dice), rate(&mut dice));
        let mut acts = Vec::new();
        for id in 0..dice.between(0, 32) {
            let at = Duration::from_millis(dice.between(0, 600_000));
            act(id, at, &jobs, &mut dice, &mut acts);
        }
        acts.sort_by_key(|(at, _)| *at);
        Self { jobs, max_parallel, first_run, engine_faults, redis_faults, acts, dice }
    }

    pub(crate) fn job(&self, name: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.name == name)
    }

    /// The Compose file.
    pub(crate) fn compose(&self, version: u64) -> String {
        let mut text = format!(
            "name: {PROJECT}\nservices:\n  db: {{image: 'busybox:test', environment: {{VERSION: '{version}'}}}}\n"
        );
        text.push_str("  web: {image: 'busybox:test', profiles: [hand]}\n");
        for job in &self.jobs {
            let (name, grace) = (job.name, job.grace.as_secs());
            let needs = if job.needs_db { "depends_on: [db], " } else { "" };
            let _ = writeln!(
                text,
                "  {name}: {{image: 'busybox:test', profiles: [poll], stop_grace_period: {grace}s, {needs}\
                 environment: {{PASSWORD: {SECRET}}}}}"
            );
        }
        text
    }

    /// The settings.
    pub(crate) fn settings(&self) -> String {
        let (parallel, first_run) = (self.max_parallel, self.first_run);
        let mut text = format!(
            "preset: none\nredis: {{url: 'redis://fake'}}\nscheduler: {{max_parallel: {parallel}, first_run: {first_run}}}\n\
             runs: {{keep: 100000}}\nshutdown: {{grace: 5s}}\ncommands: {{profiles: [poll, hand]}}\nactions:\n\
             \x20 trigger: [{{run: '{{params.service}}'}}]\n\
             \x20 start_service: [{{start: '{{params.service}}'}}]\n\
             \x20 stop_service: [{{stop: '{{params.service}}'}}]\n\
             \x20 restart_service: [{{restart: '{{params.service}}'}}]\n\
             \x20 status: [{{report: services}}]\nservices:\n"
        );
        for job in &self.jobs {
            let (name, limit) = (job.name, job.limit.as_secs());
            let every = job.every.map(|every| format!("every: {}s, ", every.as_secs())).unwrap_or_default();
            let _ = writeln!(text, "  {name}: {{{every}timeout: {limit}s}}");
        }
        text
    }
}

fn rate(dice: &mut Dice) -> Option<u64> {
    dice.one_of(&[None, Some(400), Some(100), Some(25)])
}

fn job(name: &'static str, dice: &mut Dice) -> Job {
    let mut runs_for = Some(Duration::from_millis(dice.one_of(&[0, 200, 900, 2_500, 8_000, 25_000, 70_000])));
    if dice.once_in(8) {
        runs_for = None;
    }
    Job {
        name,
        every: Some(Duration::from_secs(dice.one_of(&[5, 10, 15, 30, 60, 120]))),
        limit: Duration::from_secs(dice.one_of(&[5, 10, 20, 60])),
        grace: Duration::from_secs(dice.one_of(&[1, 3, 10])),
        needs_db: dice.once_in(3),
        script: Script {
            runs_for,
            exit_code: dice.one_of(&[0, 0, 0, 1, 3, 137]),
            ignores_stop: dice.once_in(5),
            output: "a line\n".into(),
            ..Script::default()
        },
    }
}

fn act(id: u64, at: Duration, jobs: &[Job], dice: &mut Dice, acts: &mut Vec<(Duration, Act)>) {
    let service = dice.one_of(jobs).name;
    let away = Duration::from_millis(dice.one_of(&[20, 300, 1_000, 5_000, 40_000, 200_000]));
    let time = Duration::from_millis(dice.one_of(&[50, 3_000, 12_000, 45_000, 150_000]));
    let act = match dice.between(0, 24) {
        0..=4 => Act::Command { id, action: "trigger", service, listens: !dice.once_in(6) },
        5 => Act::Command { id, action: "start_service", service: "web", listens: true },
        6 => Act::Command {
            id,
            action: dice.one_of(&["stop_service", "restart_service", "start_service"]),
            service: dice.one_of(&["web", "web", "web", "db", "nosuch"]),
            listens: true,
        },
        7 => Act::Nonsense(dice.one_of(&[
            "",
            "{",
            "[]",
            "{\"action\": 1}",
            "{\"action\": \"trigger\", \"request_id\": []}",
        ])),
        8 => Act::Interval { service, seconds: dice.one_of(&[0, 7, 20, 45, 90]) },
        9 | 10 => {
            acts.push((at + time, Act::EngineBack));
            Act::EngineAway { how: dice.one_of(&[Away::Connection, Away::Shutdown, Away::Crash]), time }
        }
        11 | 12 => {
            acts.push((at + time, Act::RedisBack));
            Act::RedisAway { time, forgets: dice.once_in(3) }
        }
        13 | 14 => Act::Operator { what: dice.one_of(&[Deed::Stop, Deed::Remove, Deed::Rename]), which: dice.next() },
        15 => Act::Foreign { service, time, own_project: !dice.once_in(3) },
        16 => Act::Restart { away },
        17 => Act::Kill { away },
        18 => Act::KillInCall { calls: dice.between(1, 40), carried_out: dice.once_in(2), away },
        19 => Act::PowerCut { away },
        20 => {
            acts.push((at + 2 * time, Act::Unstuck { service }));
            Act::Stuck { service }
        }
        21 => Act::ClockSet { by: dice.one_of(&[-3_600.0, -40.0, -0.5, 0.5, 40.0, 3_600.0]) },
        22 => Act::Suspended { time },
        23 => {
            acts.push((at + time, Act::DiskBack));
            Act::DiskFull { time }
        }
        _ => Act::Edit { version: id },
    };
    // A command may be sent twice.
    if matches!(act, Act::Command { .. }) && dice.once_in(4) {
        let later = dice.one_of(&[5_000, 60_000]);
        acts.push((at + Duration::from_millis(dice.between(0, later)), act.clone()));
    }
    acts.push((at, act));
}
