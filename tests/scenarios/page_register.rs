//! The page at `/` of register in a real browser: the services, their probes, what etcd has
//! confirmed, and the drain.
//!
//! `PAGE_SCREENSHOTS=DIR` keeps a picture of it.

use std::path::PathBuf;

use tests::{Api, Behaviour, Browser, Signal};

use crate::register_setup::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_follows_a_backend() {
    let setup = Setup::new(Api::V3).await;
    let Some(mut browser) = Browser::start(&setup.lab).await else { return };
    let status = setup.lab.free();
    // A load balancer that never answers, so that the drain can be seen.
    let lb = r#"{"host":"h","version":"1","boot":"b","resources":[{"name":"web","trees":["/services"]}]}"#;
    setup.etcd.ctl(Api::V3).put("/confsync/members/lb-1", lb).await;
    let sidekick = setup.sidekick().flag("--listen", status.to_string()).start();
    sidekick.ready().await;
    browser.look(1100, 900, false).await;
    browser.open(&format!("http://{status}/")).await;
    let state = |wanted: &str| {
        format!(
            "(document.querySelector('[data-key=\"{}\"]') || {{dataset: {{}}}}).dataset.state === '{wanted}'",
            setup.key()
        )
    };
    browser.shows(&state("registered")).await;
    browser.shows("document.querySelectorAll('.strip .P').length > 1").await;
    browser.shows("document.body.innerText.includes('key written at revision')").await;
    browser.shows(&format!("document.body.innerText.includes('http://{}/')", setup.value())).await;
    setup.backend.behave(Behaviour::Status(500));
    browser.shows(&state("unhealthy")).await;
    browser.shows("document.querySelectorAll('.strip .F').length > 0").await;
    setup.backend.behave(Behaviour::Status(200));
    browser.shows(&state("registered")).await;
    for (name, width) in [("register", 1100), ("register-phone", 375)] {
        browser.look(width, 900, false).await;
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.eval(fits).await, true, "wider than {width}");
        if let Some(folder) = std::env::var_os("PAGE_SCREENSHOTS") {
            browser.screenshot(&PathBuf::from(folder).join(format!("{name}.png"))).await;
        }
    }
    sidekick.signal(Signal::TERM);
    browser.shows("document.querySelector('#drain').innerText.includes('lb-1')").await;
    browser.shows(&state("draining")).await;
    let quiet: &[String] = &[];
    assert_eq!(browser.complaints(), quiet);
    sidekick.kill().await;
    browser.shows("document.title === 'register does not answer'").await;
}
