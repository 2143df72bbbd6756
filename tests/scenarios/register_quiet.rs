//! `register --drain-quiet`: where load balancers are not confsync, the backend's own connections
//! decide when it may be stopped.

use std::time::Duration;

use tests::{Api, Exit, Load, Signal};
use tokio::net::TcpStream;

use crate::register_setup::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_stopped_when_its_last_connection_has_ended() {
    let setup = Setup::new(Api::V3).await;
    let sidekick = setup.sidekick().flag("--drain-quiet", "300ms").start();
    sidekick.ready().await;
    let kept = TcpStream::connect(setup.backend.address()).await.unwrap();
    sidekick.signal(Signal::TERM);
    sidekick.logged("draining: waiting for 1 connection to end").await;
    assert_eq!(setup.now().await, None, "the key goes first");
    drop(kept);
    assert_eq!(sidekick.wait_exit().await, Exit::Code(0), "{}", sidekick.log());
    let log = sidekick.log();
    assert!(log.contains("no connection to the backend is open"), "{log}");
    assert!(!log.contains("--min-lbs"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_still_gets_connections_is_unconfirmed() {
    let setup = Setup::new(Api::V3).await;
    let sidekick = setup.sidekick().flag("--drain-quiet", "1s").flag("--drain-quiesced", "3s");
    let sidekick = sidekick.start();
    sidekick.ready().await;
    let load = Load::on(setup.backend.address()).deadline(Duration::from_secs(5)).start();
    load.more(5).await;
    assert_eq!(sidekick.stop().await, Exit::Code(2), "{}", sidekick.log());
    assert!(sidekick.log().contains("drain unconfirmed: waited 3s for"), "{}", sidekick.log());
    load.stop().await.assert_none_failed();
}
