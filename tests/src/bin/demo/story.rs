//! The steps of the demo, each printed as it happens.

use std::time::{Duration, Instant};

use tests::Signal;

use crate::tally::{Times, text};
use crate::world::{Mark, PROBES, World};

const CALM: Duration = Duration::from_millis(1500);

/// A world, and the times that were measured in it.
pub(crate) struct Story<'a> {
    world: World<'a>,
    joins: Times,
    deaths: Times,
    leaves: Times,
}

impl<'a> Story<'a> {
    pub(crate) fn of(world: World<'a>) -> Self {
        Self { world, joins: Times::default(), deaths: Times::default(), leaves: Times::default() }
    }

    /// Never ends by itself.
    pub(crate) async fn tell(&mut self) {
        loop {
            let mark = self.world.mark();
            if !self.world.add_web().await {
                break;
            }
            self.follow_join(self.world.webs.len() - 1, mark).await;
        }
        for index in (0..self.world.webs.len()).cycle() {
            tokio::time::sleep(CALM).await;
            self.dies(index).await;
            self.comes_back(index).await;
            tokio::time::sleep(CALM).await;
            self.stops_in_order(index).await;
            self.comes_back(index).await;
            self.world.say(format!("so far: {}", self.world.counted()));
        }
    }

    /// From the key in etcd to the first answer through nginx.
    async fn follow_join(&mut self, index: usize, mark: Mark) {
        let web = self.world.web(index);
        let registered = self.world.event(mark, "PUT", &web.key()).await;
        let answered = self.world.first_answer(&web.name).await;
        let time = answered.saturating_duration_since(registered);
        self.world.say(format!("{} registered → served after {}", web.name, text(time)));
        self.joins.add(time);
    }

    async fn dies(&mut self, index: usize) {
        let (world, web) = (&self.world, self.world.web(index));
        let (mark, workers, failed) =
            (world.mark(), world.nginx.workers(), world.counted().failed());
        let (interval, fall) = PROBES;
        let killed = Instant::now();
        web.server.kill().await;
        world.say(format!(
            "{} killed; its sidekick probes every {interval} and believes {fall} failures in a row",
            web.name
        ));
        let gone = world.event(mark, "DELETE", &web.key()).await;
        world.retired(&workers, web.address).await;
        let out = killed.elapsed();
        world.say(format!(
            "{} killed → out of etcd after {}, out of nginx after {}; failed requests: {}",
            web.name,
            text(gone.saturating_duration_since(killed)),
            text(out),
            world.counted().failed() - failed,
        ));
        self.deaths.add(out);
    }

    /// The order in which systemd stops the two units: the sidekick, then the web server.
    async fn stops_in_order(&mut self, index: usize) {
        let (world, web) = (&self.world, self.world.web(index));
        let (workers, failed) = (world.nginx.workers(), world.counted().failed());
        let asked = Instant::now();
        web.sidekick.signal(Signal::TERM);
        let exit = web.sidekick.wait_exit().await;
        let drained = asked.elapsed();
        web.server.signal(Signal::TERM);
        world.retired(&workers, web.address).await;
        world.say(format!(
            "{} stopped in order → drained after {} ({exit}); failed requests: {}",
            web.name,
            text(drained),
            world.counted().failed() - failed,
        ));
        self.leaves.add(drained);
    }

    async fn comes_back(&mut self, index: usize) {
        tokio::time::sleep(CALM).await;
        let mark = self.world.mark();
        self.world.revive(index).await;
        self.world.say(format!("{} is back", self.world.web(index).name));
        self.follow_join(index, mark).await;
    }

    /// Stops the clients; the last line.
    pub(crate) async fn sum_up(self) -> String {
        let sum = self.world.end().await;
        format!(
            "{sum}; time to join: {}; time to leave: {} when killed, {} when stopped in order",
            self.joins, self.deaths, self.leaves
        )
    }
}
