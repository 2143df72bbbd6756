//! `ETCD_BIN=/path/to/etcd`: everything once, on that etcd, however old. docs/compatibility.md
//! says which were tried.

use std::time::Instant;

use common::model::{Key, Ttl};
use common::store::{Connection, Guard, Store, connect, default_deadline};
use tests::daemon::{QUICK_TTL, Running};
use tests::eventually::check;
use tests::given_etcd::GivenEtcd;
use tests::skip::skip;
use tests::{Backend, Confdir, Daemon, Exit, Lab, Load, Nginx, eventually, within};

/// More than an etcd of v2 remembers.
const EVENTS: usize = 1200;

struct Walk {
    lab: Lab,
    etcd: GivenEtcd,
    nginx: Nginx,
    confdir: Confdir,
}

impl Walk {
    fn confsync(&self) -> Running {
        let confsync = Daemon::confsync(&self.lab).confdir(&self.confdir);
        confsync
            .flag("--etcd", self.etcd.url())
            .flag("--ttl", "2s")
            .supervising(&self.nginx)
            .start()
    }

    async fn join(&self, name: &str) -> (Backend, Running) {
        let backend = Backend::start_at((self.lab.another_ip(), 8080).into(), name).await;
        let sidekick = Daemon::register(&self.lab).named(&format!("sidekick of {name}"));
        let sidekick = sidekick.backend("apache", backend.address()).quick();
        let sidekick = sidekick.flag("--etcd", self.etcd.url()).start();
        sidekick.ready().await;
        self.routes(&backend, true).await;
        (backend, sidekick)
    }

    async fn routes(&self, backend: &Backend, wanted: bool) {
        let line = format!("server {};", backend.address());
        eventually(format!("`{line}` is in nginx's file: {wanted}"), || async {
            let text = self.nginx.rendered()?;
            check(text.contains(&line) == wanted, || text)
        })
        .await;
    }

    /// What a command says; it ends well.
    async fn says(&self, program: std::path::PathBuf, words: &[&str]) -> String {
        let command = Daemon::new(&self.lab, "command", program);
        let command = words.iter().fold(command, |command, word| command.arg(*word));
        let ended = command.flag("--etcd", self.etcd.url()).run().await;
        assert_eq!(ended.exit, Exit::Code(0), "{words:?}: {}", ended.log);
        ended.log
    }

    async fn many_events(&self) {
        let connection = Connection { endpoints: vec![self.etcd.url()], ..Connection::default() };
        let store = connect(&connection).await.unwrap();
        let lease = store.grant(Ttl::DEFAULT, default_deadline()).await.unwrap();
        for n in 0..EVENTS {
            let key: Key = format!("/elsewhere/{n}").parse().unwrap();
            store.put(&key, b"x", lease, &Guard::Absent, default_deadline()).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_etcd_that_is_given_is_walked_through() {
    let Some(program) = GivenEtcd::program() else {
        return skip("ETCD_BIN names no etcd to walk through");
    };
    let lab = Lab::new();
    let etcd = GivenEtcd::start(&lab, program).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let walk = Walk { lab, etcd, nginx, confdir };
    let confsync = walk.confsync();
    let (one, sidekick) = walk.join("one").await;
    confsync.ready().await;
    let (two, _sidekick_of_two) = walk.join("two").await;
    let (three, sidekick_of_three) = walk.join("three").await;
    let load = Load::on(walk.nginx.address()).clients(2).start();

    // Refreshes keep what is registered.
    let since = Instant::now();
    within(QUICK_TTL * 10, "five lifetimes", || async {
        check(since.elapsed() > QUICK_TTL * 5, || format!("{:?} so far", since.elapsed()))
    })
    .await;
    // One that lost its key on a busy machine has it again; one that was emptied stays so.
    eventually("all are listed with their addresses", || async {
        let list = walk.says(tests::bins::register(), &["list"]).await;
        let is_there = |backend: &&Backend| list.contains(&backend.address().to_string());
        check([&one, &two, &three].iter().all(is_there), || list.clone())
    })
    .await;
    let status = walk.says(tests::bins::confsync(), &["status"]).await;
    assert!(status.contains("nginx"), "{status}");

    // A backend dies and comes back; another is drained.
    two.die().await;
    walk.routes(&two, false).await;
    two.come_up().await;
    walk.routes(&two, true).await;
    assert_eq!(sidekick_of_three.stop().await, Exit::Code(0), "{}", sidekick_of_three.log());
    let drained = sidekick_of_three.log();
    assert!(drained.contains("drain confirmed by"), "{drained}");
    walk.routes(&three, false).await;
    three.die().await;

    // A sidekick is killed: its key ends with its lifetime.
    sidekick.kill().await;
    one.die().await;
    walk.routes(&one, false).await;

    // etcd is killed and comes back; more happens than it remembers while nobody follows.
    walk.etcd.kill().await;
    load.more(50).await;
    walk.etcd.up().await;
    let (_four, sidekick_of_four) = walk.join("four").await;
    confsync.kill().await;
    walk.many_events().await;
    let confsync = walk.confsync();
    confsync.ready().await;
    let (_five, _sidekick_of_five) = walk.join("five").await;

    // A new, empty store.
    walk.etcd.wipe().await;
    let (_six, _sidekick_of_six) = walk.join("six").await;
    eventually("the others register again", || async {
        let list = walk.says(tests::bins::register(), &["list"]).await;
        check(list.matches(":8080").count() >= 4, || list)
    })
    .await;
    load.stop().await.assert_none_failed();
    for (who, log) in [("confsync", confsync.log()), ("register", sidekick_of_four.log())] {
        let again = ["watch failed", "reading the keys again", "emptied", "panicked"];
        let count: usize = again.iter().map(|words| log.matches(words).count()).sum();
        assert!(count < 10, "{who} on {}:\n{log}", walk.etcd.version);
    }
}
