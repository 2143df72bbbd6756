//! Losses that are not certain: what still answers is retained, what leaves on purpose or is
//! silent goes, and an empty set means what the resource says.

use tests::eventually::check;
use tests::{Api, Backend, Daemon, Exit, Lab, eventually};

use crate::hazards_setup::{Setup, rendered};

in_both_apis!(an_operator_accepts_this_loss_and_no_other);

/// A setup with living backends, all of them live.
async fn with_backends(lab: &Lab, more: &str, count: usize) -> (Setup, Vec<Backend>) {
    let setup = Setup::start(lab).await;
    setup.resource("app", &(setup.reload() + more));
    let mut backends = Vec::new();
    for n in 1..=count {
        let backend = Backend::start(lab, &n.to_string()).await;
        let value = backend.address().to_string();
        setup.ctl().put(&key(&backend), &value).await;
        backends.push(backend);
    }
    (setup, backends)
}

fn key(backend: &Backend) -> String {
    format!("/services/apache/{}", backend.name())
}

fn file_of(backends: &[&Backend]) -> String {
    let lines = backends.iter().map(|b| format!("server {};\n", b.address()));
    "# backends\n".to_owned() + &lines.collect::<String>()
}

#[track_caller]
fn live(setup: &Setup, backends: &[&Backend]) -> impl Future<Output = ()> {
    let wanted = file_of(backends);
    eventually("the service runs these", move || {
        let (live, wanted) = (setup.text("live"), wanted.clone());
        async move { check(live == wanted, || format!("it runs {live:?}, not {wanted:?}")) }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sudden_loss_retains_backends_until_they_stop_answering() {
    let lab = Lab::new();
    let (setup, backends) = with_backends(&lab, "", 3).await;
    let confsync = setup.confsync(&lab).start();
    let [one, two, three] = &backends[..] else { unreachable!() };
    live(&setup, &[one, two, three]).await;

    three.die().await;
    let _ = setup.ctl().run(&["del", "--prefix", "/services/apache/"]).await.ok();
    live(&setup, &[one, two]).await;
    assert!(confsync.log().contains("retaining unregistered backends"), "{}", confsync.log());
    one.die().await;
    live(&setup, &[two]).await;
    // The last one stays in the file: an empty set is kept.
    two.die().await;
    confsync.logged("on_empty = \"keep\"").await;
    assert_eq!(setup.text("live"), file_of(&[two]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_with_a_leave_marker_goes_though_it_answers() {
    let lab = Lab::new();
    let (setup, backends) = with_backends(&lab, "", 3).await;
    let _confsync = setup.confsync(&lab).start();
    let [one, two, three] = &backends[..] else { unreachable!() };
    live(&setup, &[one, two, three]).await;

    // Marks as `register` leaves them when it goes.
    for backend in [one, two] {
        let mark = serde_json::json!({ "key": key(backend) }).to_string();
        let place = format!("/confsync/leaving/apache/{}", backend.name());
        setup.ctl().put(&place, &mark).await;
    }
    // Both in one revision: all from the first up to the third.
    let _ = setup.ctl().run(&["del", &key(one), &key(three)]).await.ok();
    live(&setup, &[three]).await;
}

/// A share that may vanish at once, and none that may.
#[tokio::test(flavor = "multi_thread")]
async fn max_loss_says_how_much_may_vanish_unasked() {
    let lab = Lab::new();
    let (setup, backends) = with_backends(&lab, "max_loss = 0.0\n", 3).await;
    let confsync = setup.confsync(&lab).start();
    let [one, two, three] = &backends[..] else { unreachable!() };
    live(&setup, &[one, two, three]).await;
    setup.ctl().del(&key(one)).await;
    confsync.logged("1 of 3 vanished at once").await;
    assert_eq!(setup.text("live"), file_of(&[one, two, three]));

    setup.resource("app", &(setup.reload() + "max_loss = 1.0\n"));
    confsync.signal(tests::Signal::HUP);
    confsync.logged("confdir read again").await;
    one.die().await;
    live(&setup, &[two, three]).await;
    setup.ctl().del(&key(two)).await;
    live(&setup, &[three]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_than_min_backends_are_not_rendered() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.resource("app", &(setup.reload() + "min_backends = 2\n"));
    for n in 1..=3 {
        setup.put(n).await;
    }
    let confsync = setup.confsync(&lab).start();
    setup.live(&[1, 2, 3]).await;
    setup.ctl().del("/services/apache/1").await;
    setup.live(&[2, 3]).await;
    setup.ctl().del("/services/apache/2").await;
    confsync.logged("fewer than min_backends = 2").await;
    assert_eq!(setup.text("live"), rendered(&[2, 3]));
    setup.put(4).await;
    setup.live(&[3, 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_empty_render_renders_an_empty_set() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.resource("app", &(setup.reload() + "on_empty = \"render\"\n"));
    setup.put(1).await;
    let _confsync = setup.confsync(&lab).start();
    setup.live(&[1]).await;
    setup.ctl().del("/services/apache/1").await;
    setup.live(&[]).await;
}

/// An operator accepts a loss: this one, and no later one.
async fn an_operator_accepts_this_loss_and_no_other(api: Api) {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let backend = Backend::start(&lab, "1").await;
    let (ctl, key) = (setup.etcd.ctl(api), key(&backend));
    ctl.put(&key, &backend.address().to_string()).await;
    let _confsync = setup.confsync_in(&lab, api).flag("--name", "lb-1").start();
    live(&setup, &[&backend]).await;
    let accept = async |resource: &str| {
        let command = Daemon::new(&lab, "accept", tests::bins::confsync());
        command.arg("accept").arg(resource).etcd(&setup.etcd, api).run().await
    };
    let ended = accept("app").await;
    assert!(ended.log.contains("nothing to accept"), "{}", ended.log);
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    let ended = accept("other").await;
    assert!(ended.log.contains("they render: app"), "{}", ended.log);
    assert_eq!(ended.exit, Exit::Code(1), "{}", ended.log);

    let retained = async |wanted: bool| {
        eventually(format!("retained: {wanted}"), || async {
            let ack = ctl.get("/confsync/acks/app/lb-1").await.unwrap_or_default();
            check(ack.contains(&key) == wanted, || ack.clone())
        })
        .await;
    };
    ctl.del(&key).await;
    retained(true).await;
    let ended = accept("app").await;
    assert!(ended.log.contains("lb-1: accepted\n"), "{}", ended.log);
    assert!(!ended.log.contains("INFO"), "an answer, and no log: {}", ended.log);
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
    assert_eq!(setup.text("live"), file_of(&[]));
    retained(false).await;

    // The next loss is another one.
    ctl.put(&key, &backend.address().to_string()).await;
    live(&setup, &[&backend]).await;
    ctl.del(&key).await;
    retained(true).await;
    assert_eq!(setup.text("live"), file_of(&[&backend]));
}

/// The last backend leaves on purpose and comes back under another key, as with another
/// `--id`: the old key is not retained, though its address answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_deregistered_backend_is_not_retained_when_another_key_comes() {
    let lab = Lab::new();
    let (setup, backends) = with_backends(&lab, "", 2).await;
    let [one, two] = &backends[..] else { unreachable!() };
    setup.ctl().del(&key(two)).await;
    let confsync = setup.confsync(&lab).flag("--name", "lb-1").start();
    live(&setup, &[one]).await;

    let place = "/confsync/leaving/apache/1";
    let mark = serde_json::json!({ "key": key(one) }).to_string();
    setup.ctl().put(place, &mark).await;
    setup.ctl().del(&key(one)).await;
    confsync.logged("on_empty = \"keep\"").await;
    // The word goes with the process that gave it.
    setup.ctl().del(place).await;
    setup.ctl().put(&key(two), &two.address().to_string()).await;
    live(&setup, &[two]).await;
    // And under the old address.
    setup.ctl().put("/services/apache/again", &one.address().to_string()).await;
    live(&setup, &[two, one]).await;
    assert!(!confsync.log().contains("retaining unregistered"), "{}", confsync.log());
}

/// While etcd is away the backends are asked, where the resource says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_refuses_while_etcd_is_away_is_left_out_and_put_back() {
    let lab = Lab::new();
    let (setup, backends) = with_backends(&lab, "[guard]\nprobe_when_stale = \"200ms\"\n", 2).await;
    let confsync = setup.confsync(&lab).start();
    let [one, two] = &backends[..] else { unreachable!() };
    live(&setup, &[one, two]).await;
    setup.etcd.stop().await;
    one.die().await;
    live(&setup, &[two]).await;
    one.come_up().await;
    live(&setup, &[one, two]).await;
    // Not the last one of a service.
    one.die().await;
    live(&setup, &[two]).await;
    two.die().await;
    live(&setup, &[one, two]).await;
    two.come_up().await;
    live(&setup, &[two]).await;
    // etcd is right about everybody.
    setup.etcd.up().await;
    live(&setup, &[one, two]).await;
    assert!(confsync.log().contains("leaving out backends that refuse connections"));
}
