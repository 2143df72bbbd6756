//! The balancer's processes come and go: nothing is lost, no count stays behind, and no
//! count is too low.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tests::eventually::check;
use tests::process::Spec;
use tests::{Backend, Behaviour, Load, Signal, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::balancer_scene::{Conf, Scene};

/// A request that hangs until it is dropped.
async fn hanging(scene: &Scene) -> TcpStream {
    let mut stream = TcpStream::connect(scene.nginx.address()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    stream
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// Requests, good ones alone, while backends leave, die the moment nothing is in flight to
/// them, and others join.
#[tokio::test(flavor = "multi_thread")]
async fn backends_that_die_when_the_count_is_zero_lose_nothing() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let mut backends = Vec::new();
    for i in 0..3 {
        let backend = Backend::start(&scene.lab, &format!("b{i}")).await;
        backend.take(Duration::from_millis(fastrand::u64(0..5)));
        scene.join(&backend);
        backends.push(backend);
    }
    let on = || Load::on(scene.nginx.address()).clients(4).keep_alive().think(Duration::ZERO);
    let (gets, posts) = (on().start(), on().post("body").start());
    for i in 3..100 {
        let old = backends.remove(0);
        let slot = scene.leave(&old);
        scene.flying(slot, 0).await;
        old.die().await;
        scene.table().roster.release(slot);
        let new = Backend::start(&scene.lab, &format!("b{i}")).await;
        new.take(Duration::from_millis(fastrand::u64(0..5)));
        scene.join(&new);
        backends.push(new);
    }
    for summary in [gets.stop().await, posts.stop().await] {
        summary.assert_none_failed();
    }
}

#[tokio::test]
async fn a_worker_that_is_killed_leaves_no_count_behind() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let backend = Backend::start(&scene.lab, "app").await;
    backend.behave(Behaviour::Hang);
    scene.join(&backend);
    let slot = scene.slot(&backend);
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(hanging(&scene).await);
    }
    scene.flying(slot, 10).await;
    let workers = scene.nginx.workers();
    workers.iter().for_each(|worker| kill(worker.pid));
    scene.flying(slot, 0).await;
    // Those that nginx starts in their place count from nothing.
    eventually("new workers", || async {
        let now = scene.nginx.workers();
        check(now.len() == 2 && !now.contains(&workers[0]) && !now.contains(&workers[1]), || {
            format!("{now:?}")
        })
    })
    .await;
    let _one = hanging(&scene).await;
    scene.flying(slot, 1).await;
    assert!(scene.folder.workers.is_exact().unwrap());
}

#[tokio::test]
async fn what_an_old_generation_has_in_flight_is_counted_until_it_ends() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let backend = Backend::start(&scene.lab, "app").await;
    backend.behave(Behaviour::Hang);
    scene.join(&backend);
    let slot = scene.slot(&backend);
    let old = hanging(&scene).await;
    scene.flying(slot, 1).await;
    scene.nginx.signal(Signal::HUP);
    eventually("an old generation", || async {
        let workers = scene.nginx.workers();
        let retiring = workers.iter().filter(|worker| worker.shutting_down).count();
        check(retiring > 0 && workers.len() > retiring, || format!("{workers:?}"))
    })
    .await;
    let new = hanging(&scene).await;
    scene.flying(slot, 2).await;
    scene.leave(&backend);
    drop(new);
    scene.flying(slot, 1).await;
    drop(old);
    scene.flying(slot, 0).await;
}

/// As a crash of nginx while confsync is away: the table has the members, and the start
/// needs nobody but somebody to remove the stale sockets.
#[tokio::test]
async fn nginx_that_was_killed_starts_again_with_its_members() {
    let Some((scene, nginx)) = Scene::start(&Conf::default()).await else { return };
    let backend = Backend::start(&scene.lab, "app").await;
    scene.join(&backend);
    // One that is started only now would keep the port.
    eventually("both workers", || async {
        let workers = scene.nginx.workers();
        check(workers.len() == 2, || format!("{workers:?}"))
    })
    .await;
    let workers = scene.nginx.workers();
    nginx.kill().await;
    workers.iter().for_each(|worker| kill(worker.pid));
    for file in ["state.sock", "app.sock", ".empty.sock"] {
        fs::remove_file(scene.folder.path().join(file)).unwrap();
    }
    let _again = scene.nginx.start().await;
    let answer = scene.nginx.get("/").await.unwrap();
    assert_eq!(answer.body, "app\n");
    assert!(scene.folder.workers.is_exact().unwrap());
}

/// Debian's packages upgrade nginx so. Both masters serve for a while, by one table, and
/// what both have in flight is counted.
#[tokio::test]
async fn an_upgrade_of_the_binary_keeps_members_and_counts() {
    let Some(scene) = Scene::prepare(&Conf::default()) else { return };
    // nginx ignores USR2 while the process that started it is its parent.
    let conf = scene.nginx.conf().display().to_string();
    let spec = Spec::new("nginx", "/usr/sbin/nginx", scene.nginx.folder()).args(["-c", &conf]);
    let started = scene.lab.spawn(spec).ended(Duration::from_secs(30)).await.unwrap();
    assert!(started.success(), "{started}");
    scene.state().await;
    let backend = Backend::start(&scene.lab, "app").await;
    backend.behave(Behaviour::Hang);
    scene.join(&backend);
    let slot = scene.slot(&backend);
    let old = hanging(&scene).await;
    scene.flying(slot, 1).await;
    let old_master = scene.nginx.master().unwrap();
    scene.nginx.signal(Signal::USR2);
    eventually("a second master", || async {
        let master = scene.nginx.master();
        check(
            master.is_some_and(|pid| pid != old_master) && scene.nginx.workers().len() == 2,
            || format!("{master:?} {:?}", scene.nginx.workers()),
        )
    })
    .await;
    kill_process(Pid::from_raw(old_master).unwrap(), Signal::WINCH).unwrap();
    let pid = eventually("a worker of the new master answers", || async {
        let state = scene.state().await;
        let new = scene.nginx.workers();
        check(new.iter().any(|worker| worker.pid == state.pid), || format!("{state:?} {new:?}"))?;
        Ok::<_, String>(state.pid)
    })
    .await;
    assert_ne!(pid, old_master);
    let new = hanging(&scene).await;
    scene.flying(slot, 2).await;
    drop(old);
    scene.flying(slot, 1).await;
    kill_process(Pid::from_raw(old_master).unwrap(), Signal::QUIT).unwrap();
    eventually("one master", || async {
        let gone = !std::path::Path::new(&format!("/proc/{old_master}")).exists()
            || fs::read_to_string(format!("/proc/{old_master}/stat"))
                .is_ok_and(|s| s.contains(") Z"));
        check(gone, || "the old master is still there".to_owned())
    })
    .await;
    drop(new);
    scene.flying(slot, 0).await;
    backend.behave(Behaviour::Healthy);
    assert_eq!(scene.nginx.get("/").await.unwrap().body, "app\n");
}

#[tokio::test]
async fn a_run_of_confsync_takes_over_the_table_of_the_one_before() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let [stays, leaves] =
        [Backend::start(&scene.lab, "stays").await, Backend::start(&scene.lab, "leaves").await];
    leaves.behave(Behaviour::Hang);
    scene.join(&leaves);
    let client = hanging(&scene).await;
    let slot = scene.slot(&leaves);
    scene.flying(slot, 1).await;
    scene.join(&stays);
    scene.leave(&leaves);
    let again = scene.folder.table("app", 0).unwrap();
    assert_eq!(again.instance(), scene.table().instance());
    assert_eq!(again.roster.members().count(), 1);
    assert_eq!(again.roster.leaving().map(|(_, slot)| slot).collect::<Vec<_>>(), [slot]);
    *scene.table() = again;
    scene.folder.commit(&mut scene.table()).unwrap();
    assert_eq!(scene.nginx.get("/").await.unwrap().body, "stays\n");
    assert_eq!(scene.in_flight(slot), 1);
    drop(client);
    scene.flying(slot, 0).await;
}

#[tokio::test]
async fn more_workers_than_columns_are_noticed() {
    let conf = Conf { main: "", ..Conf::default() };
    let Some(scene) = Scene::prepare(&conf) else { return };
    fs::remove_dir_all(scene.folder.path()).unwrap();
    let folder =
        confsync::proxy::membership::folder::TableFolder::open(scene.folder.path(), None, 1024, 1);
    let folder = folder.unwrap();
    let _table = folder.table("app", 0).unwrap();
    let _nginx = scene.nginx.start().await;
    eventually("a request that is not counted", || async {
        let answer = scene.nginx.get("/").await?;
        check(answer.status == 503, || answer.body)?;
        check(!folder.workers.is_exact().unwrap(), || "all have a column".to_owned())
    })
    .await;
}
