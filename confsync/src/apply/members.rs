//! The members of one reload group in the running proxy: what its driver is to give it, and
//! whether it has.

use std::time::Duration;

use tokio::time::Instant;

use crate::install::{Wanted, write_pause};
use crate::proxy::driver::{
    Arrangement, DepartedMember, Driver, Pools, PublishError, ReadBack, RenderedFile,
};
use crate::proxy::pools::count_members;

/// How often it is looked what the running proxy really has.
const READ_BACK: Duration = Duration::from_secs(5);

/// The members of one reload group, and who changes them.
#[derive(Debug)]
pub(super) struct ActiveMembers {
    group: String,
    driver: Driver,
    /// What the driver is to give the proxy.
    pools: Pools,
    /// Why some pools, or all, are not among them.
    left_out: Option<String>,
    /// Why the last change was no change without a reload.
    needed_reload: Option<String>,
    is_published: bool,
    counting: Counting,
    /// When it is looked again what the running proxy has.
    read_back_at: Option<Instant>,
    /// The driver that the log has named.
    logged_driver: Option<&'static str>,
}

/// Whether the requests to members that left are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counting {
    Exact,
    /// Some were not: a reload proves what counts would have, and is on its way.
    Incomplete,
}

impl ActiveMembers {
    /// Changed by this driver; none is known yet.
    pub(super) fn new(group: String, driver: Driver) -> Self {
        Self {
            group,
            driver,
            pools: Pools::new(),
            left_out: None,
            needed_reload: None,
            is_published: true,
            counting: Counting::Exact,
            read_back_at: None,
            logged_driver: None,
        }
    }

    /// Another driver changes them from now on.
    pub(super) fn use_driver(&mut self, driver: Driver) {
        self.driver = driver;
    }

    /// Takes over the members of these files; the files in the form of the driver.
    pub(super) fn arrange(&mut self, rendered: &[RenderedFile]) -> Wanted {
        let Arrangement { wanted, pools } = self.driver.arrange(rendered);
        let left_out = self.driver.left_out().map(|(name, why)| match pools.is_empty() {
            true => why.to_owned(),
            false => format!("a change of {name} needs a reload: {why}"),
        });
        let has_plain = !pools.is_empty() && self.driver.has_plain_lines(rendered);
        let plain = "a change of what `servers` writes needs a reload".to_owned();
        self.left_out = left_out.or(has_plain.then_some(plain));
        if pools != self.pools {
            (self.pools, self.is_published) = (pools, false);
        }
        wanted
    }

    /// Whether there are none that the driver could change.
    pub(super) fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// The running proxy did not take a change, for this reason; `None`: it took one.
    pub(super) fn note_needed_reload(&mut self, why: Option<&str>) {
        self.needed_reload = why.map(|why| format!("the last change needed a reload: {why}"));
    }

    /// The driver in use, and why it is no better one, or does not change all.
    pub(super) fn driver(&self) -> (&'static str, Option<&str>) {
        let left_out = self.left_out.as_deref();
        let refused = self.needed_reload.as_deref();
        if self.driver.name() != "reload" && self.pools.is_empty() {
            return ("reload", left_out.or(Some(self.driver.why_unused())));
        }
        (self.driver.name(), self.driver.why().or(refused).or(left_out))
    }

    /// Logs once which driver is in use, when that is proven.
    pub(super) fn log_driver(&mut self, rendered: &[RenderedFile]) {
        let has_members = rendered.iter().any(|file| file.text.names_members());
        let (driver, why) = self.driver();
        if !has_members || self.logged_driver == Some(driver) {
            return;
        }
        match why.filter(|_| driver == "reload") {
            Some(why) => {
                tracing::info!(set = self.group, "every change of backends needs a reload: {why}");
            }
            // Whatever it cannot change is named when it is found.
            None => tracing::info!(set = self.group, driver, "backends change without a reload"),
        }
        self.logged_driver = Some(driver);
    }

    /// The proxy does not take the files; that may be the driver's part of it. `true`: a reload
    /// is the driver from now on, and the files are to be arranged anew.
    pub(super) fn give_up_driver(&mut self, why: &str) -> bool {
        !self.pools.is_empty() && self.driver.give_up(why)
    }

    /// The files were rejected for something else: a driver that was given up is tried again.
    pub(super) fn reconsider_driver(&mut self) {
        self.driver.reconsider();
    }

    /// The files were proven with this driver.
    pub(super) fn settle_driver(&mut self) {
        self.driver.settle();
    }

    /// The proxy is about to load the files.
    ///
    /// # Errors
    /// When the members have to be published before, and cannot be.
    pub(super) async fn prepare_load(&mut self) -> Result<(), PublishError> {
        if self.driver.expect_from_files(&self.pools) {
            self.is_published = true;
            return Ok(());
        }
        self.publish().await
    }

    /// The proxy is not running: what could keep it from starting is removed.
    pub(super) fn before_start(&self) {
        self.driver.before_start();
    }

    /// Gives the proxy the members that are wanted, unless it has them.
    pub(super) async fn publish(&mut self) -> Result<(), PublishError> {
        if !self.is_published {
            self.driver.publish(&self.pools).await?;
            self.is_published = true;
        }
        Ok(())
    }

    /// Has the proxy, which has loaded its files, confirm the members that it was given.
    pub(super) async fn confirm_after_load(&mut self) -> Result<(), PublishError> {
        self.driver.note_loaded();
        self.driver.confirm().await
    }

    /// Gives the proxy the members that are wanted, and has it confirm them.
    pub(super) async fn publish_and_confirm(&mut self) -> Result<(), PublishError> {
        self.publish().await?;
        self.driver.confirm().await
    }

    /// The proxy is not known to have them any more.
    pub(super) fn publish_again(&mut self) {
        self.is_published = false;
        self.driver.confirm_again();
    }

    /// Looks what the running proxy really has, unless that was done a moment ago.
    pub(super) async fn read_back(&mut self) -> ReadBack {
        let began = Instant::now();
        if self.read_back_at.is_some_and(|at| began < at) {
            return ReadBack::Same;
        }
        let found = self.driver.read_back().await;
        // A look at thousands of members takes its time.
        self.read_back_at = Some(Instant::now() + READ_BACK.max(began.elapsed() * 50));
        found
    }

    /// Looks whether the proxy was reloaded before the files that it reads were written.
    pub(super) async fn look_for_reload(&mut self) -> ReadBack {
        self.driver.look_for_reload().await
    }

    /// Whether what was published outlives a reload of the proxy.
    pub(super) fn outlive_reload(&self) -> bool {
        self.driver.outlives_reload()
    }

    /// How long the files may stay behind what is active.
    pub(super) fn write_pause(&self) -> Duration {
        write_pause(count_members(&self.pools))
    }

    /// Whether they are counted in nginx's log phase.
    pub(super) fn need_log_phase(&self) -> bool {
        self.driver.needs_log_phase() && !self.pools.is_empty()
    }

    /// Requests cannot be counted any more: a reload is the driver from now on. `false`: the
    /// operator wants no other.
    pub(super) fn demote_driver(&mut self, why: &str) -> bool {
        self.driver.demote(why)
    }

    /// The members that left; `None` where requests to one of them cannot be counted: then only
    /// the end of the workers proves that none is left.
    pub(super) async fn departed(&mut self) -> Option<Vec<DepartedMember>> {
        let departed = self.driver.departed();
        for member in &departed {
            if self.driver.in_flight(member).await.is_none() {
                self.counting = Counting::Incomplete;
                return None;
            }
        }
        Some(departed)
    }

    /// What is in flight to a member that left; `None` where that is not known.
    pub(super) async fn in_flight(&mut self, member: &DepartedMember) -> Option<u64> {
        self.driver.in_flight(member).await
    }

    /// Requests to a member that left were not counted. `false`: that is known already.
    pub(super) fn note_uncounted(&mut self) -> bool {
        std::mem::replace(&mut self.counting, Counting::Incomplete) == Counting::Exact
    }

    /// The workers that did not count have ended.
    pub(super) fn count_again(&mut self) {
        if self.counting == Counting::Incomplete {
            self.counting = Counting::Exact;
            self.driver.count_again();
        }
    }
}
