//! Signals as values: the first SIGTERM or SIGINT starts an orderly shutdown, the second ends
//! it at once, SIGHUP asks to read the configuration again.

use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The process's signals, listened to from the moment this exists.
#[derive(Debug, Clone)]
pub struct Signals {
    /// The first SIGTERM or SIGINT: drain, then exit.
    pub drain: CancellationToken,
    /// The second: exit now.
    pub abort: CancellationToken,
    /// Counts SIGHUPs.
    pub hangups: Hangups,
}

/// A counter of SIGHUPs; `changed()` waits for the next.
pub type Hangups = watch::Receiver<u64>;

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the system does not take the handlers.
    pub fn listen() -> io::Result<Self> {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (count, hangups) = watch::channel(0);
        let signals =
            Self { drain: CancellationToken::new(), abort: CancellationToken::new(), hangups };
        let listener = signals.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = term.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                    _ = hangup.recv() => {
                        count.send_modify(|n| *n += 1);
                        continue;
                    }
                };
                listener.end(name);
            }
        });
        Ok(signals)
    }

    /// Signals that never come, for tests and one-shot commands.
    pub fn none() -> Self {
        let (count, hangups) = watch::channel(0);
        let signals =
            Self { drain: CancellationToken::new(), abort: CancellationToken::new(), hangups };
        // Keep the sender, or `changed()` would return at once, in a busy loop.
        let abort = signals.abort.clone();
        tokio::spawn(async move {
            abort.cancelled().await;
            drop(count);
        });
        signals
    }

    fn end(&self, name: &str) {
        // Acted on before it is logged: stderr may block.
        if self.drain.is_cancelled() {
            self.abort.cancel();
            tracing::warn!(signal = name, "second signal: exiting now");
        } else {
            self.drain.cancel();
            tracing::info!("received {name}, shutting down");
        }
    }
}

/// Signals that mean nothing to us, but something to a supervised child.
#[derive(Debug)]
pub struct Forwarded(Vec<(tokio::signal::unix::Signal, Signal)>);

impl Forwarded {
    /// Listens to SIGQUIT, SIGUSR1 (many servers: reopen the logs), SIGUSR2 and SIGWINCH. What
    /// SIGTERM, SIGINT and SIGHUP mean is decided by the caller.
    ///
    /// # Errors
    /// When the system does not take the handlers.
    pub fn listen() -> io::Result<Self> {
        let kinds = [Signal::QUIT, Signal::USR1, Signal::USR2, Signal::WINCH];
        let listen = |s: Signal| Ok((signal(SignalKind::from_raw(s.as_raw()))?, s));
        kinds.into_iter().map(listen).collect::<io::Result<_>>().map(Self)
    }

    /// The next signal to pass on. May be dropped and called again.
    pub async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            let ready = |(stream, signal): &mut (tokio::signal::unix::Signal, Signal)| {
                stream.poll_recv(context).is_ready().then_some(*signal)
            };
            self.0.iter_mut().find_map(ready).map_or(Poll::Pending, Into::into)
        })
        .await
    }
}
