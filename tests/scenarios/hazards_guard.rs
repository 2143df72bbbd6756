//! Losses that are not certain: what still answers is retained, what leaves on purpose or is
//! silent goes, and an empty set means what the resource says.

use tests::eventually::check;
use tests::{Api, Backend, Confdir, Daemon, Exit, Lab, eventually};

use crate::hazards_setup::{Setup, address, rendered};

in_both_apis!(
    an_operator_accepts_this_loss_and_no_other,
    two_that_read_everything_do_not_answer_each_other,
);

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
async fn a_sudden_loss_holds_who_answers_until_they_fall_silent() {
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
async fn who_says_that_it_leaves_is_let_go_though_it_answers() {
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

/// Settings in the same file: they change while the backends stay, and a file of settings
/// alone has no empty set.
#[tokio::test(flavor = "multi_thread")]
async fn settings_beside_backends_are_no_backends() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.confdir.template(
        "app.tmpl",
        "{{range gets \"/services/apache/*\"}}{{.Value}} {{end}}{{getv \"/settings/title\" \"-\"}}",
    );
    setup.resource("app", &(setup.reload() + "keys = [\"/services/apache\", \"/settings\"]\n"));
    setup.resource("only", "keys = [\"/settings\"]\n");
    setup.put(1).await;
    setup.ctl().put("/settings/title", "Hello").await;
    let _confsync = setup.confsync(&lab).start();
    let is = |file: &'static str, wanted: String| {
        let setup = &setup;
        eventually(format!("{file} is {wanted:?}"), move || {
            let (text, wanted) = (setup.text(file), wanted.clone());
            async move { check(text == wanted, || text.clone()) }
        })
    };
    let one = crate::hazards_setup::address(1);
    is("live", format!("{one} Hello")).await;
    is("only.conf", "Hello".into()).await;
    setup.ctl().put("/settings/title", "Bye").await;
    is("live", format!("{one} Bye")).await;
    setup.ctl().del("/settings/title").await;
    is("live", format!("{one} -")).await;
    is("only.conf", "-".into()).await;
    // Run once, the same.
    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, tests::Exit::Code(0), "{}", ended.log);
}

/// A setting may look like an endpoint: what is a backend is declared. confd's users delete
/// `/redis/master` and want it gone, be it answering or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_setting_is_removed_at_once_whatever_it_looks_like() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let answers = Backend::start(&lab, "one").await;
    let dead = crate::hazards_setup::address(7);
    let template = |name: &str, text: &str| setup.confdir.template(name, text);
    template(
        "redis.tmpl",
        "{{if exists \"/redis/master\"}}slaveof {{getv \"/redis/master\"}}{{end}}",
    );
    template("env.tmpl", "{{range gets \"/env/*\"}}{{base .Key}}={{.Value}} {{end}}");
    template("all.tmpl", "{{range gets \"/*/*\"}}{{.Value}} {{end}}{{getvs \"/services/*/*\"}}");
    let redis = |src: &str, keys: &str| {
        let file = setup.file(&format!("{src}.out"));
        let file = file.display();
        let text = format!("[template]\nsrc = \"{src}.tmpl\"\ndest = \"{file}\"\nkeys = {keys}\n");
        setup.confdir.toml(src, &text);
    };
    redis("redis", "[\"/redis\"]");
    redis("env", "[\"/env\", \"/services/apache\"]");
    redis("all", "[\"/\"]");
    for (key, value) in [
        ("/redis/master", answers.address().to_string()),
        ("/env/db", answers.address().to_string()),
        ("/env/cache", dead.clone()),
        ("/services/apache/1", answers.address().to_string()),
    ] {
        setup.ctl().put(key, &value).await;
    }
    let confsync = setup.confsync(&lab).start();
    let is = |file: &'static str, wanted: String| {
        let setup = &setup;
        eventually(format!("{file} is {wanted:?}"), move || {
            let (text, wanted) = (setup.text(file), wanted.clone());
            async move { check(text == wanted, || text.clone()) }
        })
    };
    let at = answers.address();
    is("redis.out", format!("slaveof {at}")).await;
    is("env.out", format!("cache={dead} db={at} ")).await;
    is("all.out", format!("{dead} {at} {at} [{at}]")).await;

    let _ = setup.ctl().run(&["del", "/redis/master"]).await.ok();
    is("redis.out", String::new()).await;
    let _ = setup.ctl().run(&["del", "--prefix", "/env/"]).await.ok();
    is("env.out", String::new()).await;
    is("all.out", format!("[{at}]")).await;
    assert!(!confsync.log().contains("retaining unregistered"), "{}", confsync.log());
    // Below the services' folder the guard holds, whatever else is read.
    setup.ctl().del("/services/apache/1").await;
    confsync.logged("retaining unregistered backends").await;
    assert_eq!(setup.text("all.out"), format!("[{at}]"));
}

/// `keys = ["/"]` reads everything but what we write ourselves: an acknowledgement of an
/// acknowledgement would never end.
#[tokio::test(flavor = "multi_thread")]
async fn our_own_keys_are_no_part_of_what_is_read() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup
        .confdir
        .template("app.tmpl", "{{range lsdir \"/\"}}{{.}} {{end}}{{getv \"/other/x\" \"-\"}}");
    setup.resource("app", &(setup.reload() + "keys = [\"/\"]\n"));
    setup.put(1).await;
    let acks = setup.etcd.watch(Api::V3, "/confsync/acks").await;
    let _confsync = setup.confsync(&lab).start();
    let is = |wanted: &'static str| {
        let setup = &setup;
        eventually(format!("live is {wanted:?}"), move || {
            let text = setup.text("live");
            async move { check(text == wanted, || text) }
        })
    };
    is("services -").await;
    setup.ctl().put("/other/x", "hello").await;
    is("other services hello").await;
    nothing_more(&acks).await;
}

/// There was an event, and then none for a second.
async fn nothing_more(acks: &tests::etcd::Watcher) {
    let quiet = std::cell::Cell::new((0, std::time::Instant::now()));
    eventually("nothing is acknowledged any more", || {
        let (events, (before, since)) = (acks.events().len(), quiet.get());
        if events != before || events == 0 {
            quiet.set((events, std::time::Instant::now()));
        }
        let calm = since.elapsed() > std::time::Duration::from_secs(1) && events == before;
        async move { check(calm, || format!("{events} acknowledgements so far")) }
    })
    .await;
}

/// Two load balancers that read everything, each with its bookkeeping at a place of its own: an
/// acknowledgement of the one is none that the other acknowledges.
async fn two_that_read_everything_do_not_answer_each_other(api: Api) {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    setup.resource("app", &(setup.reload() + "keys = [\"/\"]\n"));
    let another = Confdir::empty(&lab);
    another.template("app.tmpl", "{{range lsdir \"/\"}}{{.}} {{end}}{{getv \"/app/x\" \"-\"}}");
    let dest = setup.file("another.conf").display().to_string();
    another.toml(
        "app",
        &format!("[template]\nsrc = \"app.tmpl\"\ndest = \"{dest}\"\nkeys = [\"/\"]\n"),
    );
    let ctl = setup.etcd.ctl(api);
    ctl.put("/services/apache/1", &address(1)).await;
    let acks = [
        setup.etcd.watch(api, "/confsync/acks").await,
        setup.etcd.watch(api, "/elsewhere/acks").await,
    ];
    let _one = setup.confsync_in(&lab, api).flag("--name", "one").start();
    let other = Daemon::confsync(&lab).named("other").etcd(&setup.etcd, api).confdir(&another);
    let other = other.flag("--name", "other").flag("--bookkeeping", "/elsewhere").start();
    other.ready().await;
    ctl.put("/app/x", "1").await;
    eventually("the change is seen, and no bookkeeping", || async {
        let text = setup.text("another.conf");
        check(text == "app services 1", || text)
    })
    .await;
    for acks in &acks {
        nothing_more(acks).await;
    }
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
async fn who_left_on_purpose_is_not_retained_when_another_key_comes() {
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

/// Settings beside backends that are all gone: the backends stay, the settings change.
#[tokio::test(flavor = "multi_thread")]
async fn settings_change_while_the_last_backends_are_kept() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let template =
        "{{range gets \"/services/apache/*\"}}{{.Value}} {{end}}{{getv \"/redis/master\" \"-\"}}";
    setup.confdir.template("app.tmpl", template);
    setup.resource("app", &(setup.reload() + "keys = [\"/services/apache\", \"/redis\"]\n"));
    setup.put(1).await;
    setup.ctl().put("/redis/master", "127.0.0.9:9").await;
    let confsync = setup.confsync(&lab).start();
    let is = |wanted: String| {
        let setup = &setup;
        eventually(format!("live is {wanted:?}"), move || {
            let (text, wanted) = (setup.text("live"), wanted.clone());
            async move { check(text == wanted, || text) }
        })
    };
    let one = crate::hazards_setup::address(1);
    is(format!("{one} 127.0.0.9:9")).await;
    setup.ctl().del("/services/apache/1").await;
    confsync.logged("on_empty = \"keep\"").await;
    let _ = setup.ctl().run(&["del", "/redis/master"]).await.ok();
    is(format!("{one} -")).await;
}

/// While etcd is away the backends are asked, where the resource says so.
#[tokio::test(flavor = "multi_thread")]
async fn who_refuses_while_etcd_is_away_is_left_out_and_put_back() {
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
    assert!(confsync.log().contains("backends that refuse connections are left out"));
}
