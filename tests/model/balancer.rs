//! One load balancer: its nginx, its confsync (or none, after a crash), its keys.
//!
//! Its steps depend on nothing but what the backends have written; other load
//! balancers and waits have no part in them.

use common::model::Revision;
use confsync::apply::quiescence::{Quiescence, RetiredUntil};
use confsync::proxy::nginx::ProcessId;
use tokio::time::Instant;

use crate::setup::{Etcd, JOINER, LEAVER, Role, Rule, Setup};

#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Balancer {
    confsync: Option<Confsync>,
    nginx: Nginx,
    /// A fault befell it once.
    faulted: bool,
    boot: u8,
    pub(crate) keys: Keys,
    /// The one who waits has seen it.
    known: bool,
    /// Its lease had run out before anybody looked: nobody can know of it.
    unknown: bool,
}

/// What it has in etcd.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Keys {
    pub(crate) member: Option<Member>,
    pub(crate) ack: Option<Ack>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    pub(crate) boot: u8,
    pub(crate) left: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ack {
    pub(crate) boot: u8,
    pub(crate) applied: u64,
    pub(crate) quiesced: u64,
    pub(crate) assumed: bool,
    /// At this revision there were too few backends.
    pub(crate) too_few: Option<u64>,
}

#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Confsync {
    joined: bool,
    /// The newest snapshot: up to which revision, and the backends that the file has.
    seen: Option<(u64, u8)>,
    /// There is no backend in it, and the file before is kept.
    keeps: bool,
    /// The file proven to be live; a load is pending while it differs from `seen`.
    live: Option<u8>,
    /// The revision at which it was loaded.
    loaded_at: u64,
    loading: bool,
    quiescence: Quiescence,
}

/// Generations of workers, each with the backends that it routes to.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Nginx {
    generation: i32,
    /// `None`: nginx does not run.
    serving: Option<u8>,
    /// The generation before: it still accepts.
    accepting: Option<(i32, u8)>,
    /// They finish what they have.
    finishing: Vec<(i32, u8)>,
}

impl Balancer {
    /// Everything is live, proven and acknowledged.
    pub(crate) fn steady() -> Self {
        let Etcd { revision, backends } = Etcd::FIRST;
        let mut quiescence = Quiescence::default();
        quiescence.note_active(Revision(revision));
        let confsync = Confsync {
            joined: true,
            seen: Some((revision, backends)),
            keeps: false,
            live: Some(backends),
            loaded_at: revision,
            loading: false,
            quiescence,
        };
        Self {
            confsync: Some(confsync),
            nginx: Nginx { generation: 1, serving: Some(backends), ..Nginx::default() },
            boot: 1,
            keys: Keys {
                member: Some(Member { boot: 1, left: false }),
                ack: Some(Ack {
                    boot: 1,
                    applied: revision,
                    quiesced: revision,
                    assumed: false,
                    too_few: None,
                }),
            },
            ..Self::default()
        }
    }

    /// It has done nothing yet.
    pub(crate) fn starting() -> Self {
        Self { confsync: Some(Confsync::default()), boot: 1, ..Self::default() }
    }

    /// Whether it routes as before the write of the one who waits: to the leaver, now or
    /// later, or new requests by a file without the joiner. Who cannot know of it is not
    /// to blame.
    pub(crate) fn routes_as_before(&self, setup: &Setup) -> bool {
        let routes = match setup.role {
            Role::Leaver => self.nginx.all().any(|(_, set)| set & LEAVER != 0),
            Role::Joiner => {
                let old = self.nginx.accepting.map(|(_, set)| set);
                let mut sets = self.nginx.serving.into_iter().chain(old);
                setup.used & JOINER != 0 && sets.any(|set| set & JOINER == 0)
            }
        };
        routes && !self.unknown
    }

    /// The one who waits has read the keys.
    pub(crate) fn looked_at(&self) -> Self {
        let mut next = self.clone();
        if next.keys.member.is_some() {
            (next.known, next.unknown) = (true, false);
        }
        next
    }

    /// Member and acknowledgement end together: they are under one lease.
    fn lose_keys(&mut self) {
        self.keys = Keys::default();
        self.unknown |= !self.known;
    }

    /// Everything that may happen to it next.
    pub(crate) fn steps(&self, setup: &Setup, etcd: Etcd) -> impl Iterator<Item = (Name, Self)> {
        let may = |name: &Name| !FAULTS.contains(name) || setup.faults.contains(name);
        STEPS.iter().filter(move |(name, _)| may(name)).filter_map(move |(name, step)| {
            let mut next = self.clone();
            step(&mut next, setup, etcd).then_some((*name, next))
        })
    }
}

impl Nginx {
    /// Every worker there is.
    fn all(&self) -> impl Iterator<Item = (i32, u8)> {
        let serving = self.serving.map(|set| (self.generation, set));
        self.finishing.iter().copied().chain(self.accepting).chain(serving)
    }

    fn old(&self) -> Vec<ProcessId> {
        let old = self.all().filter(|(generation, _)| *generation != self.generation);
        old.map(|(pid, _)| ProcessId { pid, start: 0 }).collect()
    }

    fn load(&mut self, set: u8) {
        self.accepting = self.serving.map(|serving| (self.generation, serving));
        self.generation += 1;
        self.serving = Some(set);
    }
}

impl Confsync {
    /// The load is proven; all older generations that are left are waited for.
    fn prove(&mut self, old: Vec<ProcessId>, at: u64, set: u8) {
        self.quiescence.retire(RetiredUntil::Gone(old));
        self.quiescence.note_active(Revision(at));
        (self.live, self.loaded_at, self.loading) = (Some(set), at, false);
    }

    /// What any look at the workers does first, whenever it comes.
    fn forget_the_dead(&mut self, nginx: &Nginx) -> Revision {
        self.look(None, nginx)
    }

    fn look(&mut self, applied: Option<Revision>, nginx: &Nginx) -> Revision {
        // No wait of a model's confsync is for a time, so any instant will do.
        let any = Instant::now();
        self.quiescence.look(applied, any, |id| nginx.all().any(|(pid, _)| pid == id.pid))
    }
}

/// A step in words.
pub(crate) type Name = &'static str;

type Step = fn(&mut Balancer, &Setup, Etcd) -> bool;

/// A step that cannot be made now is `false`.
const STEPS: &[(Name, Step)] = &[
    ("joins", joins),
    ("reads the backends", reads),
    ("signals its nginx", signals),
    ("sees that its old workers shut down", observes),
    ("has old workers that stop accepting", old_workers_shut_down),
    ("has an oldest worker that ends", oldest_ends),
    ("acknowledges", acknowledges),
    (FAULTS[0], crashes),
    (FAULTS[1], dies_with_its_machine),
    (FAULTS[2], is_stopped_with_its_nginx),
    (FAULTS[3], is_cut_off),
    ("is started again", starts_again),
    ("has its lease run out", lease_ends),
];

/// What need never happen.
pub(crate) const FAULTS: [Name; 4] = [
    "crashes, and its nginx goes on",
    "dies with its machine",
    "is stopped with its nginx",
    "is cut off from etcd until its lease has run out",
];

fn joins(lb: &mut Balancer, setup: &Setup, etcd: Etcd) -> bool {
    let late = setup.breaks(Rule::ReadBeforeJoin);
    let Some(confsync) = &mut lb.confsync else { return false };
    // Again, if its key went with a lease.
    let missing = !confsync.joined || lb.keys.member.is_none();
    if !missing || late && confsync.live.is_none() {
        return false;
    }
    confsync.joined = true;
    lb.keys.member = Some(Member { boot: lb.boot, left: false });
    lb.unknown &= etcd.has(setup.role);
    true
}

fn reads(lb: &mut Balancer, setup: &Setup, etcd: Etcd) -> bool {
    let early = setup.breaks(Rule::ReadBeforeJoin);
    let unproven = setup.breaks(Rule::AckBeforeProof) && lb.boot > 1;
    let Some(confsync) = &mut lb.confsync else { return false };
    let news = confsync.seen.is_none_or(|(seen, _)| seen < etcd.revision);
    if !(confsync.joined || early) || confsync.loading || !news {
        return false;
    }
    let set = etcd.backends & setup.used;
    confsync.seen = Some((etcd.revision, set));
    confsync.keeps = setup.keeps_last && set == 0;
    if confsync.keeps {
        return true;
    }
    if unproven && confsync.live.is_none() {
        confsync.live = Some(set);
    }
    if confsync.live == Some(set) {
        confsync.quiescence.note_active(Revision(etcd.revision));
    }
    true
}

fn signals(lb: &mut Balancer, setup: &Setup, _: Etcd) -> bool {
    let Some(confsync) = &mut lb.confsync else { return false };
    let Some((at, set)) = confsync.seen else { return false };
    let pending = confsync.live != Some(set) && !confsync.loading && !confsync.keeps;
    if !pending || lb.nginx.accepting.is_some() {
        return false;
    }
    lb.nginx.load(set);
    confsync.loading = true;
    if setup.breaks(Rule::AckAtSignal) || setup.by_commands {
        confsync.prove(vec![], at, set);
    }
    true
}

fn observes(lb: &mut Balancer, _: &Setup, _: Etcd) -> bool {
    let Some(confsync) = &mut lb.confsync else { return false };
    let Some((at, set)) = confsync.seen.filter(|_| confsync.loading) else { return false };
    if lb.nginx.accepting.is_some() {
        return false;
    }
    confsync.prove(lb.nginx.old(), at, set);
    true
}

fn old_workers_shut_down(lb: &mut Balancer, _: &Setup, _: Etcd) -> bool {
    let Some(old) = lb.nginx.accepting.take() else { return false };
    lb.nginx.finishing.push(old);
    true
}

fn oldest_ends(lb: &mut Balancer, _: &Setup, _: Etcd) -> bool {
    if lb.nginx.finishing.is_empty() {
        return false;
    }
    lb.nginx.finishing.remove(0);
    if let Some(confsync) = &mut lb.confsync {
        confsync.forget_the_dead(&lb.nginx);
    }
    true
}

fn acknowledges(lb: &mut Balancer, setup: &Setup, _: Etcd) -> bool {
    let Some(confsync) = lb.confsync.as_mut().filter(|c| c.joined) else { return false };
    let Some((mut at, set)) = confsync.seen else { return false };
    if setup.breaks(Rule::NoopsAreSilent) {
        at = confsync.loaded_at;
    }
    let kept = confsync.keeps && !setup.breaks(Rule::KeptIsApplied);
    let in_sync = !kept && (confsync.live == Some(set) || confsync.keeps);
    let applied = in_sync.then_some(Revision(at));
    let mut quiesced = confsync.look(applied, &lb.nginx);
    if setup.breaks(Rule::QuiescedButOne) && in_sync {
        quiesced = Revision(if lb.nginx.finishing.is_empty() { at } else { at - 1 });
    }
    let before = lb.keys.ack.filter(|ack| ack.boot == lb.boot);
    let none = Ack { boot: lb.boot, applied: 0, quiesced: 0, assumed: false, too_few: None };
    let before = before.unwrap_or(none);
    let ack = Ack {
        assumed: setup.by_commands && !setup.breaks(Rule::AssumedIsConfirmed),
        too_few: kept.then_some(at),
        boot: lb.boot,
        applied: applied.unwrap_or_default().0.max(before.applied),
        quiesced: quiesced.0.max(before.quiesced),
    };
    let news = lb.keys.ack != Some(ack);
    lb.keys.ack = Some(ack);
    news
}

fn crashes(lb: &mut Balancer, _: &Setup, _: Etcd) -> bool {
    if lb.faulted || lb.confsync.take().is_none() {
        return false;
    }
    lb.faulted = true;
    true
}

fn dies_with_its_machine(lb: &mut Balancer, setup: &Setup, etcd: Etcd) -> bool {
    let died = crashes(lb, setup, etcd);
    if died {
        lb.nginx = Nginx { generation: lb.nginx.generation, ..Nginx::default() };
    }
    died
}

/// Its nginx ends, then its member key is marked as left, then confsync ends.
fn is_stopped_with_its_nginx(lb: &mut Balancer, setup: &Setup, etcd: Etcd) -> bool {
    let Some(confsync) = &lb.confsync else { return false };
    let joined = confsync.joined;
    let mut workers: Vec<_> = lb.nginx.all().collect();
    if !dies_with_its_machine(lb, setup, etcd) {
        return false;
    }
    if setup.breaks(Rule::LeftTooSoon) {
        lb.nginx.finishing.append(&mut workers);
    }
    if joined {
        lb.keys.member = Some(Member { boot: lb.boot, left: true });
    }
    true
}

fn is_cut_off(lb: &mut Balancer, _: &Setup, _: Etcd) -> bool {
    let joined = lb.confsync.as_ref().is_some_and(|confsync| confsync.joined);
    if lb.faulted || !joined || lb.keys.member.is_none() {
        return false;
    }
    lb.faulted = true;
    lb.lose_keys();
    true
}

fn starts_again(lb: &mut Balancer, _: &Setup, _: Etcd) -> bool {
    if lb.confsync.is_some() {
        return false;
    }
    lb.boot += 1;
    lb.confsync = Some(Confsync::default());
    true
}

fn lease_ends(lb: &mut Balancer, setup: &Setup, _: Etcd) -> bool {
    // Who is started again has a new lease when it has joined.
    let ours = lb.confsync.as_ref().is_some_and(|confsync| confsync.joined);
    let Some(member) = lb.keys.member.filter(|_| !ours) else { return false };
    let gone = setup.breaks(Rule::LostIsGone) && !member.left;
    lb.lose_keys();
    lb.keys.member = gone.then_some(Member { left: true, ..member });
    true
}
