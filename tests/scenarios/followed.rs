//! One change, followed: from the sidekick's log through etcd into the log and the status of the load
//! balancer, and back to how long each load balancer was waited for.

use serde_json::Value;
use tests::eventually::check;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Exit, Lab, Nginx, eventually, http};

/// The events of a log in JSON with this message.
fn events(log: &str, message: &str) -> Vec<Value> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["message"] == message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_has_one_name_in_every_log_and_status() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let (one, two) = (Backend::start(&lab, "one").await, Backend::start(&lab, "two").await);
    etcd.ctl(Api::V3).put("/services/apache/other", &two.address().to_string()).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let status = lab.free();
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--name", "lb-1").flag("--log-format", "json");
    let confsync = confsync.flag("--listen", status.to_string()).supervising(&nginx).start();
    confsync.ready().await;
    let sidekick = Daemon::register(&lab).backend("apache", one.address()).etcd(&etcd, Api::V3);
    let sidekick = sidekick.flag("--log-format", "json").arg("--wait-applied").start();
    sidekick.ready().await;

    let registered = events(&sidekick.log(), "registered").remove(0);
    let change = registered["change"].as_str().unwrap().to_owned();
    let revision = registered["revision"].as_u64().unwrap();
    assert!(change.ends_with(&format!("@{revision}")), "{change}");
    assert_eq!(sidekick.stop().await, Exit::Code(0), "{}", sidekick.log());

    let named = format!("{} ({change}, lease ", one.address());
    for field in ["added", "removed"] {
        let has = |value: &Value| value[field].as_str().is_some_and(|text| text.contains(&named));
        eventually(format!("the load balancer's log and status name what is {field}"), || async {
            let answer = http::get(status, "/status").await?.body;
            let body: Value = serde_json::from_str(&answer).unwrap();
            let loads = body["sets"][0]["loads"].as_array().unwrap();
            check(loads.iter().any(has), || answer.clone())?;
            check(events(&confsync.log(), "applied").iter().any(has), || confsync.log())
        })
        .await;
    }
    let gone = events(&sidekick.log(), "deregistered").remove(0)["revision"].as_u64().unwrap();
    let applied = events(&confsync.log(), "applied");
    let last = applied.last().unwrap()["revision"].as_u64().unwrap();
    assert!(last >= gone && gone > revision, "{last}, {gone}, {revision}");
    let waited = events(&sidekick.log(), "waited for lb-1");
    assert!(waited.len() == 1 && waited[0]["after"].is_string(), "{}", sidekick.log());
    confsync.stop().await;
}
