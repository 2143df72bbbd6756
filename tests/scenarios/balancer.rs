//! nginx's balancer in Lua on its own: choosing, ejecting, retrying, empty sets.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use confsync::proxy::membership::nginx_text::{BalancerSettings, Balancing};
use tests::eventually::check;
use tests::{Backend, Behaviour, Load, eventually};

use crate::balancer_scene::{Conf, SITE, Scene};

/// Who answered, how often.
async fn answers(scene: &Scene, requests: usize) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for _ in 0..requests {
        let answer = scene.nginx.get("/").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        *names.entry(answer.body.trim().to_owned()).or_default() += 1;
    }
    names
}

#[tokio::test]
async fn a_backend_serves_from_the_next_request_after_it_joined_until_it_left() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let [a, b] = [Backend::start(&scene.lab, "a").await, Backend::start(&scene.lab, "b").await];
    let workers = scene.nginx.workers();
    scene.join(&a);
    assert_eq!(answers(&scene, 10).await, [("a".to_owned(), 10)].into());
    scene.join(&b);
    assert_eq!(answers(&scene, 40).await.len(), 2);
    scene.leave(&a);
    assert_eq!(answers(&scene, 20).await, [("b".to_owned(), 20)].into());
    assert_eq!(scene.nginx.workers(), workers);
}

#[tokio::test]
async fn without_a_table_nginx_uses_its_own_lines() {
    let Some(scene) = Scene::prepare(&Conf::default()) else { return };
    let a = Backend::start(&scene.lab, "a").await;
    let servers = format!("server {};", a.address());
    scene.write_conf(&Conf { servers: &servers, ..Conf::default() }).unwrap();
    for file in ["app.members", "app.counts", "workers"] {
        std::fs::remove_file(scene.folder.path().join(file)).unwrap();
    }
    let _nginx = scene.nginx.start().await;
    assert_eq!(answers(&scene, 3).await, [("a".to_owned(), 3)].into());
    // A table that comes is used from the next request on.
    let folder =
        confsync::proxy::membership::folder::TableFolder::open(scene.folder.path(), None, 1024, 64);
    let _table = folder.unwrap().table("app", 0).unwrap();
    assert_eq!(scene.nginx.get("/").await.unwrap().status, 503);
}

#[tokio::test]
async fn a_table_that_cannot_be_used_fails_the_request_and_no_worker() {
    let Some(scene) = Scene::prepare(&Conf::default()) else { return };
    let members = scene.folder.path().join("app.members");
    std::fs::write(&members, "CFSYNCM2 and too short").unwrap();
    let _nginx = scene.nginx.start().await;
    for _ in 0..5 {
        assert_eq!(scene.nginx.get("/").await.unwrap().status, 502);
    }
    let log = scene.nginx.error_log();
    assert!(log.iter().any(|line| line.contains("app.members is too short")), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("exited on signal")), "{log:?}");
    std::fs::write(&members, vec![b'x'; 100_000]).unwrap();
    assert_eq!(scene.nginx.get("/").await.unwrap().status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_shares() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let names = ["one", "two", "five", "hundred"];
    let mut backends = Vec::new();
    for (name, weight) in names.into_iter().zip([1, 2, 5, 100]) {
        let backend = Backend::start(&scene.lab, name).await;
        scene.join_with(&backend, weight, 0.0);
        backends.push(backend);
    }
    let load =
        Load::on(scene.nginx.address()).clients(4).keep_alive().think(Duration::ZERO).start();
    load.more(5_000).await;
    load.stop().await.assert_none_failed();
    let counts: Vec<f64> = backends.iter().map(|b| b.requests() as f64).collect();
    let all: f64 = counts.iter().sum();
    for (count, weight) in counts.iter().zip([1.0, 2.0, 5.0, 100.0]) {
        let expected = all * weight / 108.0;
        // Far more than chance allows, far less than any mistake in the weights makes.
        let spread = 6.0 * expected.sqrt() + 0.25 * expected;
        assert!((count - expected).abs() < spread, "{counts:?}: {count} for {expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_less_loaded_of_two_is_chosen_across_workers() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let slow = Backend::start(&scene.lab, "slow").await;
    let fast = Backend::start(&scene.lab, "fast").await;
    slow.take(Duration::from_millis(200));
    scene.join(&slow);
    scene.join(&fast);
    let load = Load::on(scene.nginx.address()).clients(8).keep_alive().start();
    load.more(500).await;
    load.stop().await.assert_none_failed();
    assert!(fast.requests() > 10 * slow.requests(), "{} and {}", fast.requests(), slow.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_backend_starts_slowly() {
    let settings = BalancerSettings::with(Balancing {
        slow_start: Duration::from_secs(3600),
        ..Balancing::default()
    });
    let Some((scene, _nginx)) = Scene::start(&Conf { settings, ..Conf::default() }).await else {
        return;
    };
    let old = Backend::start(&scene.lab, "old").await;
    let new = Backend::start(&scene.lab, "new").await;
    scene.join(&old);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    scene.join_with(&new, 1, now - 180.0);
    let load =
        Load::on(scene.nginx.address()).clients(4).keep_alive().think(Duration::ZERO).start();
    load.more(2_000).await;
    load.stop().await.assert_none_failed();
    // A twentieth of its weight.
    let share = new.requests() as f64 / (new.requests() + old.requests()) as f64;
    assert!((0.005..0.2).contains(&share), "{share}");
}

#[tokio::test]
async fn a_dead_backend_is_left_out_for_fail_timeout() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let alive = Backend::start(&scene.lab, "alive").await;
    let dead = Backend::prepare_at(scene.lab.free(), "dead");
    scene.join(&alive);
    scene.join(&dead);
    assert_eq!(answers(&scene, 60).await, [("alive".to_owned(), 60)].into());
    let traffic = scene.traffic(scene.slot(&dead));
    // Each worker may meet it at the same moment, once.
    assert!((1..=2).contains(&traffic.failures), "{traffic:?}");
    assert_eq!(traffic.requests, traffic.failures as f64);
}

#[tokio::test]
async fn it_is_let_in_again_and_forgiven_when_it_answers() {
    let settings = BalancerSettings::with(Balancing {
        fail_timeout: Duration::from_millis(200),
        ..Balancing::default()
    });
    let Some((scene, _nginx)) = Scene::start(&Conf { settings, ..Conf::default() }).await else {
        return;
    };
    let alive = Backend::start(&scene.lab, "alive").await;
    let back = Backend::prepare_at(scene.lab.free(), "back");
    scene.join(&alive);
    scene.join(&back);
    answers(&scene, 20).await;
    back.come_up().await;
    eventually("it answers again", || async {
        let answer = scene.nginx.get("/").await?;
        check(answer.body.trim() == "back", || answer.body)
    })
    .await;
    let failures = scene.traffic(scene.slot(&back)).failures;
    answers(&scene, 50).await;
    assert_eq!(scene.traffic(scene.slot(&back)).failures, failures);
}

#[tokio::test]
async fn when_all_have_failed_they_are_tried_all_the_same() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let backends = [0, 1, 2].map(|i| Backend::prepare_at(scene.lab.free(), &format!("b{i}")));
    backends.iter().for_each(|backend| scene.join(backend));
    assert_eq!(scene.nginx.get("/").await.unwrap().status, 502);
    for backend in &backends {
        // The last failure is known when the request is logged, after its answer.
        eventually("each was tried once", || async {
            let failures = scene.traffic(scene.slot(backend)).failures;
            check(failures == 1, || format!("{failures} times"))
        })
        .await;
        backend.come_up().await;
    }
    assert_eq!(scene.nginx.get("/").await.unwrap().status, 200);
}

#[tokio::test]
async fn statuses_are_retried_as_proxy_next_upstream_says() {
    let site = "location / { proxy_pass http://app; proxy_next_upstream error http_503; } \
                location /tries { proxy_pass http://app; proxy_next_upstream_tries 1; }";
    let Some((scene, _nginx)) = Scene::start(&Conf { site, ..Conf::default() }).await else {
        return;
    };
    let [a, b] = [Backend::start(&scene.lab, "a").await, Backend::start(&scene.lab, "b").await];
    a.behave(Behaviour::Status(503));
    scene.join(&a);
    scene.join(&b);
    answers(&scene, 20).await;
    // One tried, one failure: from then on it is left out.
    assert_eq!(scene.traffic(scene.slot(&a)).failures, 1);
    // The last try is not retried, and its status is the backend's own.
    b.behave(Behaviour::Status(500));
    assert_eq!(scene.nginx.get("/").await.unwrap().status, 500);
    let requests = |scene: &Scene| scene.traffic(scene.slot(&b)).requests;
    let before = requests(&scene);
    b.die().await;
    assert_eq!(scene.nginx.get("/tries").await.unwrap().status, 502);
    assert_eq!(requests(&scene), before + 1.0);
}

#[tokio::test]
async fn a_post_that_was_sent_is_not_sent_again() {
    let Some((scene, _nginx)) = Scene::start(&Conf {
        site: "location / { proxy_pass http://app; proxy_read_timeout 100ms; }",
        ..Conf::default()
    })
    .await
    else {
        return;
    };
    let [a, b] = [Backend::start(&scene.lab, "a").await, Backend::start(&scene.lab, "b").await];
    for backend in [&a, &b] {
        backend.behave(Behaviour::Hang);
        scene.join(backend);
    }
    let answer = tests::http::post(scene.nginx.address(), "/", "body").await.unwrap();
    assert_eq!(answer.status, 504);
    assert_eq!(a.requests() + b.requests(), 1);
}

#[tokio::test]
async fn an_empty_set_answers_503_and_when_to_come_back() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let answer = scene.nginx.get("/").await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("5"));
    let log = scene.nginx.error_log();
    assert!(!log.iter().any(|line| line.contains("[warn]")), "{log:#?}");
    let a = Backend::start(&scene.lab, "a").await;
    scene.join(&a);
    assert_eq!(scene.nginx.get("/").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_hold_requests_wait_for_the_only_backend_to_come_back() {
    let settings =
        BalancerSettings::with(Balancing { hold: Duration::from_secs(30), ..Balancing::default() });
    // No kept connections: it comes back at once, which its upstream would not let it do
    // (`a_backend_that_restarts_on_its_port_loses_nothing`), and one of them may be dead.
    let conf = Conf { settings, site: SITE, upstream: "", ..Conf::default() };
    let Some((scene, _nginx)) = Scene::start(&conf).await else { return };
    let only = Backend::start(&scene.lab, "only").await;
    let to = scene.nginx.address();
    let waiting = |posted: bool| {
        tokio::spawn(async move {
            if posted {
                tests::http::post(to, "/path?a=b", "0123456789").await
            } else {
                tests::http::get(to, "/").await
            }
        })
    };
    let (get, post) = (waiting(false), waiting(true));
    scene.join(&only);
    assert_eq!(get.await.unwrap().unwrap().body, "only\n");
    assert_eq!(post.await.unwrap().unwrap().body, "only got 10\n");
    // Under a load, while it goes and comes.
    let load = Load::on(to).clients(8).keep_alive().start();
    for _ in 0..5 {
        load.more(50).await;
        let slot = scene.leave(&only);
        scene.flying(slot, 0).await;
        only.die().await;
        only.come_up().await;
        scene.join(&only);
    }
    load.more(50).await;
    load.stop().await.assert_none_failed();
}

#[tokio::test]
async fn a_hold_that_ends_answers_503() {
    let settings = BalancerSettings::with(Balancing {
        hold: Duration::from_millis(50),
        ..Balancing::default()
    });
    let Some((scene, _nginx)) = Scene::start(&Conf { settings, ..Conf::default() }).await else {
        return;
    };
    let answer = scene.nginx.get("/").await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
}
