//! The page at `/` of register in a real browser: the services, their probes, what etcd has
//! confirmed, and the drain.
//!
//! `PAGE_SCREENSHOTS=DIR` keeps a picture of it.

use tests::{Api, Behaviour, Browser, Signal};

use crate::page_states::Scene;
use crate::register_setup::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_follows_a_backend() {
    let setup = Setup::new(Api::V3).await;
    let Some(browser) = Browser::start(&setup.lab).await else { return };
    let mut page = Scene::new(browser);
    let status = setup.lab.free();
    // A load balancer that never answers, so that the drain can be seen.
    let lb = r#"{"host":"h","version":"1","boot":"b","resources":[{"name":"web","trees":["/services"]}]}"#;
    setup.etcd.ctl(Api::V3).put("/confsync/members/lb-1", lb).await;
    let sidekick = setup.sidekick().flag("--listen", status.to_string()).start();
    sidekick.ready().await;
    page.open(status).await;
    let state = |wanted: &str| {
        format!(
            "(document.querySelector('[data-key=\"{}\"]') || {{dataset: {{}}}}).dataset.state === '{wanted}'",
            setup.key()
        )
    };
    page.browser.shows(&state("registered")).await;
    page.browser.shows("document.querySelectorAll('.strip .P').length > 1").await;
    page.browser.shows("document.body.innerText.includes('key written at revision')").await;
    page.browser
        .shows(&format!("document.body.innerText.includes('http://{}/')", setup.value()))
        .await;
    setup.backend.behave(Behaviour::Status(500));
    page.browser.shows(&state("unhealthy")).await;
    page.browser.shows("document.querySelectorAll('.strip .F').length > 0").await;
    setup.backend.behave(Behaviour::Status(200));
    page.browser.shows(&state("registered")).await;
    page.looks_right("register").await;
    sidekick.signal(Signal::TERM);
    page.browser.shows("document.querySelector('#drain').innerText.includes('lb-1')").await;
    page.browser.shows(&state("draining")).await;
    let quiet: &[String] = &[];
    assert_eq!(page.browser.complaints(), quiet);
    sidekick.kill().await;
    page.browser.shows(&format!("document.title === 'register does not answer · {status}'")).await;
}
