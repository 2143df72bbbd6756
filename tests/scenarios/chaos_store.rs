//! etcd stopped, wiped, and restored to an old snapshot under a load, with sidekicks and
//! backends alive: no request fails, and the set is right again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tests::daemon::QUICK_TTL;
use tests::eventually::check;
use tests::{Api, Cluster, Exit, Lab, Load, within};

in_both_apis!(stopped_wiped_and_restored);

/// The snapshot is older than the third backend, and has one that has left since.
async fn stopped_wiped_and_restored(api: Api) {
    let lab = Lab::new();
    let mut cluster = Cluster::start(&lab, api, 2).await;
    let gone = cluster.join(&lab, "gone").await;
    gone.sidekick.ready().await;
    cluster.serves(gone.backend.address()).await;
    let load = cluster.load().clients(3).think(Duration::from_millis(3)).start();
    load.answered("gone").await;

    let saved = cluster.etcd.save().await;
    cluster.registered(&gone).await;
    assert_eq!(gone.sidekick.stop().await, Exit::Code(0), "{}", gone.sidekick.log());
    gone.backend.die().await;
    let third = cluster.join(&lab, "apache-3").await;
    third.sidekick.ready().await;
    cluster.instances.push(third);
    right_again(&cluster, &load).await;

    cluster.etcd.stop().await;
    let stopped = Instant::now();
    within(QUICK_TTL * 6, "two lifetimes without etcd", || async {
        check(stopped.elapsed() > QUICK_TTL * 2, || format!("{:?} so far", stopped.elapsed()))
    })
    .await;
    cluster.etcd.up().await;
    right_again(&cluster, &load).await;

    cluster.etcd.wipe().await;
    right_again(&cluster, &load).await;

    cluster.etcd.restore(&saved).await;
    right_again(&cluster, &load).await;

    // It follows what comes, by the revisions of the older history.
    let late = cluster.join(&lab, "late").await;
    late.sidekick.ready().await;
    cluster.instances.push(late);
    right_again(&cluster, &load).await;
    let summary = load.stop().await;
    println!("{summary}");
    summary.assert_none_failed();
}

/// All sidekicks hold their keys, and nginx answers from exactly their backends.
async fn right_again(cluster: &Cluster, load: &Load) {
    for instance in &cluster.instances {
        cluster.registered(instance).await;
    }
    let names = cluster.instances.iter().map(|instance| instance.backend.name().to_owned());
    let wanted: BTreeSet<String> = names.collect();
    within(Duration::from_secs(60), "nginx answers from exactly the registered", || {
        let wanted = &wanted;
        async move {
            load.forget_answers();
            load.more(60).await;
            let seen: BTreeSet<String> = load.so_far().answers.into_keys().collect();
            let file = cluster.nginx.rendered()?;
            let servers = file.matches("server 127.").count();
            let right = &seen == wanted && servers == wanted.len();
            check(right, || format!("{seen:?} instead of {wanted:?}:\n{file}"))
        }
    })
    .await;
}
