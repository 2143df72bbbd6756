//! The world of the model: what etcd holds, what each nginx routes by, how far each
//! confsync is, and the wait of the backend that leaves.

use common::handshake::{Ack, Bookkeeping, Consumes, Member};
use common::model::{Entry, Revision, Snapshot};
use confsync::nginx::ProcessId;
use confsync::quiescence::{Quiescence, Until};
use register::drain::{Bounds, Goal, Progress, Verdict, Wait};
use tokio::time::Instant;

const KEY: &str = "/services/apache/leaver";
/// Sets of backends.
const LEAVER: u8 = 1;
const JOINER: u8 = 2;

/// A rule of the protocol, to be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// The member key is written after the first load.
    ReadBeforeJoin,
    /// Acknowledged when the signal is sent, while old workers accept.
    AckAtSignal,
    /// The backend stops when all have applied.
    StopAtApplied,
    /// A lease that ran out counts as a clean leave.
    LostIsGone,
    /// After a load everything but its own revision counts as quiesced.
    QuiescedButOne,
    /// A restarted confsync acknowledges what is on disk, without a load of its own.
    AckBeforeProof,
}

#[derive(Clone, Hash)]
pub(crate) struct World {
    rule: Option<Rule>,
    start: Instant,
    now: Instant,
    revision: u64,
    /// The backends in etcd.
    backends: u8,
    joiner_may: u8,
    lbs: [Lb; 2],
    leaver: Leaver,
}

#[derive(Clone, Hash)]
enum Leaver {
    Serving,
    Waiting(Box<Wait>),
    Stopped(Verdict),
}

#[derive(Clone, Default, Hash)]
struct Lb {
    confsync: Option<Confsync>,
    nginx: Nginx,
    crashes: u8,
    boot: u8,
    member: Option<(u8, bool)>,
    ack: Option<(u8, u64, u64)>,
    /// The leaver has seen it.
    known: bool,
    /// Its lease had run out before the leaver looked: nobody can know of it.
    unknown: bool,
}

#[derive(Clone, Default, Hash)]
struct Confsync {
    joined: bool,
    /// The newest picture: up to which revision, and the set.
    seen: Option<(u64, u8)>,
    /// The set proven to be live; a load is under way while it differs from `seen`.
    live: Option<u8>,
    loading: bool,
    quiescence: Quiescence,
}

#[derive(Clone, Default, Hash)]
struct Nginx {
    generation: i32,
    serving: u8,
    /// The generation before: it still accepts.
    accepting: Option<(i32, u8)>,
    /// They finish what they have.
    finishing: Vec<(i32, u8)>,
}

impl World {
    pub(crate) fn new(rule: Option<Rule>, crashes: [u8; 2]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let start = runtime.block_on(async { Instant::now() });
        let mut quiescence = Quiescence::default();
        quiescence.live(Revision(5));
        let steady = Confsync {
            joined: true,
            seen: Some((5, LEAVER)),
            live: Some(LEAVER),
            loading: false,
            quiescence,
        };
        let first = Lb {
            confsync: Some(steady),
            nginx: Nginx { generation: 1, serving: LEAVER, ..Nginx::default() },
            crashes: crashes[0],
            boot: 1,
            member: Some((1, false)),
            ack: Some((1, 5, 5)),
            known: false,
            unknown: false,
        };
        let second = Lb {
            confsync: Some(Confsync::default()),
            crashes: crashes[1],
            boot: 1,
            ..Lb::default()
        };
        Self {
            rule,
            start,
            now: start,
            revision: 5,
            backends: LEAVER,
            joiner_may: u8::from(rule == Some(Rule::QuiescedButOne)),
            lbs: [first, second],
            leaver: Leaver::Serving,
        }
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        matches!(&self.leaver, Leaver::Stopped(verdict) if verdict.confirmed)
    }

    /// Everything that may happen next.
    pub(crate) fn steps(&self) -> Vec<(String, Self)> {
        let mut steps = Vec::new();
        for which in 0..self.lbs.len() {
            for (step, change) in LB_STEPS {
                let mut next = self.clone();
                if change(&mut next, which) {
                    steps.push((format!("lb-{which} {step}"), next));
                }
            }
        }
        for (step, change) in STEPS {
            let mut next = self.clone();
            if change(&mut next) {
                steps.push(((*step).to_owned(), next));
            }
        }
        steps
    }

    /// What must hold in every state.
    pub(crate) fn judge(&self) -> Result<(), String> {
        match &self.leaver {
            Leaver::Serving => Ok(()),
            Leaver::Waiting(wait) => match wait.progress(self.now) {
                Progress::Waiting { until } if until <= self.now || until > wait.deadline() => {
                    Err("a wait without bound".to_owned())
                }
                _ => Ok(()),
            },
            Leaver::Stopped(verdict) => self.judge_stop(verdict),
        }
    }

    fn judge_stop(&self, verdict: &Verdict) -> Result<(), String> {
        for (which, lb) in self.lbs.iter().enumerate() {
            // Without a look at etcd nobody is known, and that is said.
            let said = |name: &str| name == name_of(which) || name == "etcd";
            let named = verdict.not_by.iter().any(|(name, _)| said(name));
            if lb.nginx.has(LEAVER) && !named && !lb.unknown {
                return Err(format!(
                    "stopped with `{verdict}`, and lb-{which} has requests for it"
                ));
            }
            let waited = self.now - self.start;
            if named && waited < Bounds::default().lost {
                return Err(format!("stopped after {waited:?} without lb-{which}"));
            }
        }
        Ok(())
    }

    /// Only what backends do counts here: other writes only make revisions larger, by
    /// which fewer states would be the same.
    fn register(&mut self, backends: u8) {
        self.revision += 1;
        self.backends = backends;
    }

    fn picture(&self) -> Snapshot {
        let mut picture =
            Snapshot { revision: Revision(self.revision), cluster: 1, ..Snapshot::default() };
        for (which, lb) in self.lbs.iter().enumerate() {
            if let Some((boot, left)) = lb.member {
                let trees = vec!["/services/apache".to_owned()];
                let member = Member {
                    host: "host".into(),
                    version: "1".into(),
                    boot: boot.to_string(),
                    advertise: None,
                    resources: vec![Consumes { name: "web".into(), trees }],
                    left,
                };
                add(&mut picture, format!("/confsync/members/{}", name_of(which)), &member);
            }
            if let Some((boot, applied, quiesced)) = lb.ack {
                let ack = Ack {
                    boot: boot.to_string(),
                    applied: Revision(applied),
                    quiesced: Revision(quiesced),
                    held: vec![],
                    refused: None,
                };
                add(&mut picture, format!("/confsync/acks/web/{}", name_of(which)), &ack);
            }
        }
        picture
    }
}

fn add(picture: &mut Snapshot, key: String, value: &impl serde::Serialize) {
    let entry = Entry {
        key: key.clone(),
        value: serde_json::to_vec(value).unwrap(),
        created: Revision(1),
        modified: Revision(1),
        lease: 1,
        ttl: None,
    };
    picture.entries.insert(key, entry);
}

fn name_of(which: usize) -> String {
    format!("lb-{which}")
}

impl Nginx {
    /// Whether a request may reach one of `backends` from here, now or later.
    fn has(&self, backends: u8) -> bool {
        let old = self.accepting.iter().chain(&self.finishing);
        old.map(|(_, set)| set).chain([&self.serving]).any(|set| set & backends != 0)
    }

    fn load(&mut self, set: u8) {
        self.accepting = Some((self.generation, self.serving));
        self.generation += 1;
        self.serving = set;
    }
}

type Step = fn(&mut World) -> bool;
type LbStep = fn(&mut World, usize) -> bool;

const STEPS: &[(&str, Step)] = &[
    ("the leaver removes its key", |world| {
        let Leaver::Serving = world.leaver else { return false };
        world.register(world.backends & !LEAVER);
        let goal = if world.rule == Some(Rule::StopAtApplied) { Goal::Joined } else { Goal::Left };
        let (key, at) = (KEY.parse().unwrap(), Revision(world.revision));
        let wait = Wait::new(key, at, goal, Bounds::default(), world.now);
        world.leaver = Leaver::Waiting(Box::new(wait));
        true
    }),
    ("the leaver looks at members and acks", |world| {
        let (picture, now) = (world.picture(), world.now);
        let Leaver::Waiting(wait) = &mut world.leaver else { return false };
        let book = Bookkeeping::below(&"/confsync".parse().unwrap()).unwrap();
        wait.observe(&picture, &book, now);
        world.lbs.iter_mut().for_each(|lb| lb.known |= lb.member.is_some());
        if let Progress::Over(verdict) = wait.progress(now) {
            world.leaver = Leaver::Stopped(verdict);
        }
        true
    }),
    ("time passes to the next bound", |world| {
        let Leaver::Waiting(wait) = &world.leaver else { return false };
        let Progress::Waiting { until } = wait.progress(world.now) else { return false };
        world.now = until;
        if let Progress::Over(verdict) = wait.progress(until) {
            world.leaver = Leaver::Stopped(verdict);
        }
        true
    }),
    ("the joiner registers", |world| {
        if world.joiner_may == 0 {
            return false;
        }
        world.joiner_may -= 1;
        world.register(world.backends ^ JOINER);
        true
    }),
];

const LB_STEPS: &[(&str, LbStep)] = &[
    ("joins", |world, which| {
        let early = world.rule == Some(Rule::ReadBeforeJoin);
        let serving = matches!(world.leaver, Leaver::Serving);
        let lb = &mut world.lbs[which];
        let Some(confsync) = lb.confsync.as_mut().filter(|c| !c.joined) else { return false };
        if early && confsync.live.is_none() {
            return false;
        }
        confsync.joined = true;
        lb.member = Some((lb.boot, false));
        lb.unknown &= !serving;
        true
    }),
    ("reads the backends", |world, which| {
        let early = world.rule == Some(Rule::ReadBeforeJoin);
        let unproven = world.rule == Some(Rule::AckBeforeProof);
        let (at, backends) = (world.revision, world.backends);
        let lb = &mut world.lbs[which];
        let Some(confsync) = &mut lb.confsync else { return false };
        let news = confsync.seen.is_none_or(|(seen, _)| seen < at);
        if !(confsync.joined || early) || confsync.loading || !news {
            return false;
        }
        confsync.seen = Some((at, backends));
        if unproven && confsync.live.is_none() && lb.boot > 1 {
            confsync.live = Some(backends);
        }
        if confsync.live == Some(backends) {
            confsync.quiescence.live(Revision(at));
        }
        true
    }),
    ("signals its nginx", |world, which| {
        let early = world.rule == Some(Rule::AckAtSignal);
        let lb = &mut world.lbs[which];
        let Some(confsync) = &mut lb.confsync else { return false };
        let Some((at, set)) = confsync.seen else { return false };
        let owed = confsync.live != Some(set) && !confsync.loading;
        if !owed || lb.nginx.accepting.is_some() {
            return false;
        }
        lb.nginx.load(set);
        confsync.loading = true;
        if early {
            // As if nobody of before were left to look for.
            let new = Nginx { accepting: None, ..lb.nginx.clone() };
            confsync.prove(&new, at, set);
        }
        true
    }),
    ("sees that its old workers shut down", |world, which| {
        let lb = &mut world.lbs[which];
        let Some(confsync) = &mut lb.confsync else { return false };
        let Some((at, set)) = confsync.seen.filter(|_| confsync.loading) else { return false };
        if lb.nginx.accepting.is_some() {
            return false;
        }
        confsync.prove(&lb.nginx, at, set);
        true
    }),
    ("'s old workers stop accepting", |world, which| {
        let nginx = &mut world.lbs[which].nginx;
        let Some(old) = nginx.accepting.take() else { return false };
        nginx.finishing.push(old);
        true
    }),
    ("'s oldest old worker ends", |world, which| {
        let now = world.now;
        let lb = &mut world.lbs[which];
        if lb.nginx.finishing.is_empty() {
            return false;
        }
        lb.nginx.finishing.remove(0);
        if let Some(confsync) = &mut lb.confsync {
            // What any later look would do first.
            let nginx = lb.nginx.clone();
            confsync.quiescence.look(None, now, |id| nginx.is_alive(id.pid));
        }
        true
    }),
    ("acknowledges", |world, which| {
        let butone = world.rule == Some(Rule::QuiescedButOne);
        let (now, lb) = (world.now, &mut world.lbs[which]);
        let Some(confsync) = lb.confsync.as_mut().filter(|c| c.joined) else { return false };
        let Some((at, set)) = confsync.seen else { return false };
        let in_sync = confsync.live == Some(set);
        let nginx = lb.nginx.clone();
        let alive = |id: ProcessId| nginx.is_alive(id.pid);
        let applied = in_sync.then_some(Revision(at));
        let mut quiesced = confsync.quiescence.look(applied, now, alive);
        if butone && in_sync {
            quiesced = if nginx.finishing.is_empty() { Revision(at) } else { Revision(at - 1) };
        }
        let before = lb.ack.filter(|(boot, ..)| *boot == lb.boot).unwrap_or((lb.boot, 0, 0));
        let applied = applied.unwrap_or_default().0.max(before.1);
        let ack = (lb.boot, applied, quiesced.0.max(before.2));
        if lb.ack == Some(ack) {
            return false;
        }
        lb.ack = Some(ack);
        true
    }),
    ("crashes, and its nginx goes on", |world, which| {
        let lb = &mut world.lbs[which];
        if lb.crashes == 0 || lb.confsync.take().is_none() {
            return false;
        }
        lb.crashes -= 1;
        true
    }),
    ("is started again", |world, which| {
        let lb = &mut world.lbs[which];
        if lb.confsync.is_some() {
            return false;
        }
        lb.boot += 1;
        lb.confsync = Some(Confsync::default());
        true
    }),
    ("'s lease runs out", |world, which| {
        let gone = world.rule == Some(Rule::LostIsGone);
        let lb = &mut world.lbs[which];
        if lb.confsync.is_some() || lb.member.is_none_or(|(_, left)| left) {
            return false;
        }
        lb.member = lb.member.filter(|_| gone).map(|(boot, _)| (boot, true));
        lb.ack = None;
        lb.unknown |= !lb.known;
        true
    }),
];

impl Nginx {
    fn is_alive(&self, generation: i32) -> bool {
        let old = self.accepting.iter().chain(&self.finishing);
        old.map(|(pid, _)| *pid).chain([self.generation]).any(|pid| pid == generation)
    }
}

impl Confsync {
    /// The load is proven; all older generations that are left are waited for.
    fn prove(&mut self, nginx: &Nginx, at: u64, set: u8) {
        let old = nginx.accepting.iter().chain(&nginx.finishing);
        let old = old.map(|(pid, _)| ProcessId { pid: *pid, start: 0 }).collect();
        self.quiescence.retire(Until::Gone(old));
        self.quiescence.live(Revision(at));
        (self.live, self.loading) = (Some(set), false);
    }
}
