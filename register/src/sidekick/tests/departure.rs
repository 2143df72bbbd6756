//! Leaving: what a drain waits for, and how it ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn without_a_load_balancer_nothing_is_waited_for() {
    let mut rig = SidekickRig::start(&Memory::new(), "");
    rig.ready().await;
    let (store, began) = (rig.store.clone(), Instant::now());
    assert_eq!(rig.stopped().await, (Exit::Done, DrainResult::NoLoadBalancer));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(store.value(&key()), None);
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_confirms_assumes_or_is_silent() {
    for (assumed, wanted) in [
        (Some(false), (Exit::Done, DrainResult::Confirmed)),
        (Some(true), (Exit::Assumed, DrainResult::Assumed)),
        (None, (Exit::Unconfirmed, DrainResult::Unconfirmed)),
    ] {
        let mut rig = SidekickRig::start(&Memory::new(), "");
        rig.join("lb-1");
        rig.ready().await;
        let (store, bookkeeping) = (rig.store.clone(), rig.bookkeeping.clone());
        if let Some(assumed) = assumed {
            tokio::spawn(async move {
                while store.value(&key()).is_some() {
                    sleep(Duration::from_millis(10)).await;
                }
                let now = store.revision();
                let ack = Ack {
                    instance_id: "i1".into(),
                    applied: now,
                    quiesced: now,
                    retained: vec![],
                    assumed,
                    rejected: None,
                    trouble: None,
                    rejected_values: 0,
                    driver: None,
                };
                let name = bookkeeping.ack("web", "lb-1").unwrap();
                store.set(&name, serde_json::to_vec(&ack).unwrap());
            });
        }
        assert_eq!(rig.stopped().await, wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_backend_waits_for_another_one_within_a_bound() {
    let too_few = |ack: &mut Ack| {
        ack.rejected = Some(Rejection {
            revision: ack.applied,
            reason: "no backend is registered, and on_empty = \"keep\"".into(),
            too_few_backends: true,
        });
        (ack.applied, ack.quiesced) = (Revision(1), Revision(1));
    };
    for another_comes in [true, false] {
        let mut rig = SidekickRig::start(&Memory::new(), "");
        rig.join("lb-1");
        rig.ready().await;
        rig.signals.drain.cancel();
        rig.until(|status| matches!(status.drain, Some(DrainStatus::WaitingFor(_)))).await;
        let began = Instant::now();
        rig.acknowledge("lb-1", too_few);
        let waits = |status: &SidekickStatus| {
            matches!(&status.drain, Some(DrainStatus::WaitingFor(lbs))
                if lbs.iter().any(|lb| lb.contains("needs another backend first")))
        };
        rig.until(waits).await;
        if another_comes {
            rig.store.set(&"/services/apache/10.0.0.2".parse().unwrap(), "10.0.0.2:80");
            rig.acknowledge("lb-1", |_| {});
            assert_eq!(rig.stopped().await, (Exit::Done, DrainResult::Confirmed));
        } else {
            assert_eq!(rig.stopped().await, (Exit::Unconfirmed, DrainResult::Unconfirmed));
            let waited = began.elapsed().as_secs();
            assert!((9..=11).contains(&waited), "{waited}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_cannot_be_read_leaves_a_drain_unconfirmed() {
    let mut rig = SidekickRig::start(&Memory::new(), "");
    rig.store.set(&rig.bookkeeping.member("lb-1").unwrap(), "");
    rig.ready().await;
    assert_eq!(rig.stopped().await, (Exit::Unconfirmed, DrainResult::Unconfirmed));
}

#[tokio::test(start_paused = true)]
async fn a_drain_without_etcd_ends_with_the_lease() {
    let mut rig = SidekickRig::start(&Memory::new(), "--ttl 30s");
    rig.join("lb-1");
    rig.ready().await;
    rig.store.cut();
    let began = Instant::now();
    assert_eq!(rig.stopped().await, (Exit::Unconfirmed, DrainResult::Unconfirmed));
    assert!((15..=45).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_the_waiting() {
    let mut rig = SidekickRig::start(&Memory::new(), "--drain-applied 10m");
    rig.join("lb-1");
    rig.ready().await;
    rig.signals.drain.cancel();
    rig.until(|status| matches!(status.drain, Some(DrainStatus::WaitingFor(_)))).await;
    rig.signals.abort.cancel();
    assert_eq!(rig.stopped().await, (Exit::Unconfirmed, DrainResult::Unconfirmed));
}

#[tokio::test(start_paused = true)]
async fn keys_that_a_restored_store_has_again_are_removed_again() {
    let mut rig = SidekickRig::start(&Memory::new(), "");
    rig.join("lb-1");
    rig.ready().await;
    let saved = rig.store.save();
    rig.store.set(&"/elsewhere".parse().unwrap(), "x");
    rig.signals.drain.cancel();
    rig.until(|status| matches!(status.drain, Some(DrainStatus::WaitingFor(_)))).await;
    rig.store.restore(&saved);
    assert!(rig.registered());
    let store = rig.store.clone();
    assert_eq!(rig.stopped().await.0, Exit::Unconfirmed);
    assert_eq!(store.value(&key()), None);
}

/// Nothing is registered, so there is nothing to wait for: neither the load balancers nor the end
/// of a lease that no key is bound to.
#[tokio::test(start_paused = true)]
async fn without_the_right_to_write_there_is_nothing_to_wait_for() {
    for (rights, expected) in
        [(Rights::Read, DrainResult::Confirmed), (Rights::None, DrainResult::Unconfirmed)]
    {
        let store = Memory::new();
        store.grant_rights(rights);
        let mut rig = SidekickRig::start(&store, "");
        rig.join("lb-1");
        rig.until(|status| RequestCounts::sum(&status.registrar.requests).failures > 1).await;
        let (began, manager) = (Instant::now(), rig.manager.clone());
        let (_, result) = rig.stopped().await;
        assert_eq!(result, expected);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(manager.last_status().contains("permission denied"), "{}", manager.last_status());
    }
}

/// What an earlier instance has left, or this one registered, is routed to until its lease ends.
#[tokio::test(start_paused = true)]
async fn a_right_that_is_taken_away_takes_no_key_away() {
    let store = Memory::new();
    let mut rig = SidekickRig::start(&store, "");
    rig.ready().await;
    rig.join("lb-1");
    store.grant_rights(Rights::Read);
    let began = Instant::now();
    let (_, result) = rig.stopped().await;
    assert_eq!(result, DrainResult::Unconfirmed);
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
}
