//! Which keys are backends, which are settings, and which are our own: a setting that goes is
//! removed at once, and no load balancer acknowledges an acknowledgement.

use tests::etcd::Watcher;
use tests::eventually::check;
use tests::{Api, Backend, Confdir, Daemon, Exit, Lab, eventually};

use crate::hazards_setup::{Setup, address};

in_both_apis!(two_that_read_everything_do_not_answer_each_other);

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
    let one = address(1);
    setup.is("live", &format!("{one} Hello")).await;
    setup.is("only.conf", "Hello").await;
    setup.ctl().put("/settings/title", "Bye").await;
    setup.is("live", &format!("{one} Bye")).await;
    setup.ctl().del("/settings/title").await;
    setup.is("live", &format!("{one} -")).await;
    setup.is("only.conf", "-").await;
    // Run once, the same.
    let ended = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, Exit::Code(0), "{}", ended.log);
}

/// A setting may look like an endpoint: what is a backend is declared. confd's users delete
/// `/redis/master` and want it gone, be it answering or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_setting_is_removed_at_once_whatever_it_looks_like() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let answers = Backend::start(&lab, "one").await;
    let dead = address(7);
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
    let at = answers.address();
    setup.is("redis.out", &format!("slaveof {at}")).await;
    setup.is("env.out", &format!("cache={dead} db={at} ")).await;
    setup.is("all.out", &format!("{dead} {at} {at} [{at}]")).await;

    let _ = setup.ctl().run(&["del", "/redis/master"]).await.ok();
    setup.is("redis.out", "").await;
    let _ = setup.ctl().run(&["del", "--prefix", "/env/"]).await.ok();
    setup.is("env.out", "").await;
    setup.is("all.out", &format!("[{at}]")).await;
    assert!(!confsync.log().contains("retaining unregistered"), "{}", confsync.log());
    // Below the services' folder the guard holds, whatever else is read.
    setup.ctl().del("/services/apache/1").await;
    confsync.logged("retaining unregistered backends").await;
    assert_eq!(setup.text("all.out"), format!("[{at}]"));
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
    let one = address(1);
    setup.is("live", &format!("{one} 127.0.0.9:9")).await;
    setup.ctl().del("/services/apache/1").await;
    confsync.logged("on_empty = \"keep\"").await;
    let _ = setup.ctl().run(&["del", "/redis/master"]).await.ok();
    setup.is("live", &format!("{one} -")).await;
}

/// Values below the services' folder in a form that only the template knows: each change of theirs
/// is rendered, by a single run too. That no backend can be read from them is no loss of backends.
#[tokio::test(flavor = "multi_thread")]
async fn values_that_only_the_template_knows_are_rendered_at_each_change() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let template = "{{range gets \"/services/apache/*\"}}{{(json .Value).at}} {{end}}";
    setup.confdir.template("app.tmpl", template);
    setup.resource("app", &(setup.reload() + "keys = [\"/services/apache\"]\n"));
    setup.ctl().put("/services/apache/1", "{\"at\":\"a\"}").await;
    let confsync = setup.confsync(&lab).start();
    setup.is("live", "a ").await;
    setup.ctl().put("/services/apache/2", "{\"at\":\"b\"}").await;
    setup.is("live", "a b ").await;
    confsync.stop().await;
    setup.ctl().put("/services/apache/2", "{\"at\":\"c\"}").await;
    let once = setup.confsync(&lab).arg("--once").run().await;
    assert_eq!(once.exit, Exit::Code(0), "{}", once.log);
    setup.is("live", "a c ").await;
}

/// One such value beside backends does not make up for the loss of all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_no_backend_does_not_stand_for_the_last_one() {
    let lab = Lab::new();
    let setup = Setup::start(&lab).await;
    let template = "{{range gets \"/services/apache/*\"}}{{.Value}} {{end}}";
    setup.confdir.template("app.tmpl", template);
    setup.resource("app", &(setup.reload() + "keys = [\"/services/apache\"]\n"));
    setup.put(1).await;
    setup.ctl().put("/services/apache/readme", "hello").await;
    let confsync = setup.confsync(&lab).start();
    let both = format!("{} hello ", address(1));
    setup.is("live", &both).await;
    setup.ctl().del("/services/apache/1").await;
    confsync.logged("on_empty = \"keep\"").await;
    setup.is("live", &both).await;
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
    setup.is("live", "services -").await;
    setup.ctl().put("/other/x", "hello").await;
    setup.is("live", "other services hello").await;
    nothing_more(&acks).await;
}

/// There was an event, and then none for a second.
async fn nothing_more(acks: &Watcher) {
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
