//! Losses that are doubted: what still answers is held, what leaves on purpose or is
//! silent goes, and an empty set means what the resource says.

use tests::eventually::check;
use tests::{Backend, Lab, eventually};

use crate::hazards_scene::{Scene, rendered};

/// A scene with living backends, all of them live.
async fn with_backends(lab: &Lab, more: &str, count: usize) -> (Scene, Vec<Backend>) {
    let scene = Scene::start(lab).await;
    scene.resource("app", &(scene.reload() + more));
    let mut backends = Vec::new();
    for n in 1..=count {
        let backend = Backend::start(lab, &n.to_string()).await;
        let value = backend.address().to_string();
        scene.ctl().put(&key(&backend), &value).await;
        backends.push(backend);
    }
    (scene, backends)
}

fn key(backend: &Backend) -> String {
    format!("/services/apache/{}", backend.name())
}

fn file_of(backends: &[&Backend]) -> String {
    let lines = backends.iter().map(|b| format!("server {};\n", b.address()));
    "# backends\n".to_owned() + &lines.collect::<String>()
}

#[track_caller]
fn live(scene: &Scene, backends: &[&Backend]) -> impl Future<Output = ()> {
    let wanted = file_of(backends);
    eventually("the service runs these", move || {
        let (live, wanted) = (scene.text("live"), wanted.clone());
        async move { check(live == wanted, || format!("it runs {live:?}, not {wanted:?}")) }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sudden_loss_holds_who_answers_until_they_fall_silent() {
    let lab = Lab::new();
    let (scene, backends) = with_backends(&lab, "", 3).await;
    let confsync = scene.confsync(&lab).start();
    let [one, two, three] = &backends[..] else { unreachable!() };
    live(&scene, &[one, two, three]).await;

    three.die().await;
    let _ = scene.ctl().run(&["del", "--prefix", "/services/apache/"]).await.ok();
    live(&scene, &[one, two]).await;
    assert!(confsync.log().contains("who still answers is held"), "{}", confsync.log());
    one.die().await;
    live(&scene, &[two]).await;
    // The last one stays in the file: an empty set is kept.
    two.die().await;
    confsync.logged("on_empty = \"keep\"").await;
    assert_eq!(scene.text("live"), file_of(&[two]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_that_it_leaves_is_let_go_though_it_answers() {
    let lab = Lab::new();
    let (scene, backends) = with_backends(&lab, "", 3).await;
    let _confsync = scene.confsync(&lab).start();
    let [one, two, three] = &backends[..] else { unreachable!() };
    live(&scene, &[one, two, three]).await;

    // Marks as `register` leaves them when it goes.
    for backend in [one, two] {
        let mark = serde_json::json!({ "key": key(backend) }).to_string();
        let place = format!("/confsync/leaving/apache/{}", backend.name());
        scene.ctl().put(&place, &mark).await;
    }
    // Both in one revision: all from the first up to the third.
    let _ = scene.ctl().run(&["del", &key(one), &key(three)]).await.ok();
    live(&scene, &[three]).await;
}

/// A share that may vanish at once, and none that may.
#[tokio::test(flavor = "multi_thread")]
async fn max_loss_says_how_much_may_vanish_unasked() {
    let lab = Lab::new();
    let (scene, backends) = with_backends(&lab, "max_loss = 0.0\n", 3).await;
    let confsync = scene.confsync(&lab).start();
    let [one, two, three] = &backends[..] else { unreachable!() };
    live(&scene, &[one, two, three]).await;
    scene.ctl().del(&key(one)).await;
    confsync.logged("1 of 3 vanished at once").await;
    assert_eq!(scene.text("live"), file_of(&[one, two, three]));

    scene.resource("app", &(scene.reload() + "max_loss = 1.0\n"));
    confsync.signal(tests::Signal::HUP);
    confsync.logged("confdir read again").await;
    one.die().await;
    live(&scene, &[two, three]).await;
    scene.ctl().del(&key(two)).await;
    live(&scene, &[three]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_than_min_backends_are_not_rendered() {
    let lab = Lab::new();
    let scene = Scene::start(&lab).await;
    scene.resource("app", &(scene.reload() + "min_backends = 2\n"));
    for n in 1..=3 {
        scene.put(n).await;
    }
    let confsync = scene.confsync(&lab).start();
    scene.live(&[1, 2, 3]).await;
    scene.ctl().del("/services/apache/1").await;
    scene.live(&[2, 3]).await;
    scene.ctl().del("/services/apache/2").await;
    confsync.logged("fewer than min_backends = 2").await;
    assert_eq!(scene.text("live"), rendered(&[2, 3]));
    scene.put(4).await;
    scene.live(&[3, 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_empty_render_renders_an_empty_set() {
    let lab = Lab::new();
    let scene = Scene::start(&lab).await;
    scene.resource("app", &(scene.reload() + "on_empty = \"render\"\n"));
    scene.put(1).await;
    let _confsync = scene.confsync(&lab).start();
    scene.live(&[1]).await;
    scene.ctl().del("/services/apache/1").await;
    scene.live(&[]).await;
}

/// Settings in the same file: they change while the backends stay, and a file of settings
/// alone has no empty set.
#[tokio::test(flavor = "multi_thread")]
async fn settings_beside_backends_are_no_backends() {
    let lab = Lab::new();
    let scene = Scene::start(&lab).await;
    scene.confdir.template(
        "app.tmpl",
        "{{range gets \"/services/apache/*\"}}{{.Value}} {{end}}{{getv \"/settings/title\" \"-\"}}",
    );
    scene.resource("app", &(scene.reload() + "keys = [\"/services/apache\", \"/settings\"]\n"));
    scene.resource("only", "keys = [\"/settings\"]\n");
    scene.put(1).await;
    scene.ctl().put("/settings/title", "Hello").await;
    let _confsync = scene.confsync(&lab).start();
    let is = |file: &'static str, wanted: String| {
        let scene = &scene;
        eventually(format!("{file} is {wanted:?}"), move || {
            let (text, wanted) = (scene.text(file), wanted.clone());
            async move { check(text == wanted, || text.clone()) }
        })
    };
    let one = crate::hazards_scene::address(1);
    is("live", format!("{one} Hello")).await;
    is("only.conf", "Hello".into()).await;
    scene.ctl().put("/settings/title", "Bye").await;
    is("live", format!("{one} Bye")).await;
    scene.ctl().del("/settings/title").await;
    is("live", format!("{one} -")).await;
    is("only.conf", "-".into()).await;
    // Run once, the same.
    let ended = scene.confsync(&lab).arg("--once").run().await;
    assert_eq!(ended.exit, tests::Exit::Code(0), "{}", ended.log);
}
