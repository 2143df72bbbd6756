//! A gate between two tasks: closed at first, opened once, and open from then on.

use std::sync::Arc;

use tokio::sync::watch;

/// Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    /// Opens it. Opening an open gate does nothing.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        let mut state = self.0.subscribe();
        // The sender lives as long as this gate, so this ends only when the gate is open.
        let _ = state.wait_for(|open| *open).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_open_gate_stays_open() {
        let gate = Gate::default();
        let other = gate.clone();
        assert!(!gate.is_open());
        let waiting = tokio::spawn(async move { other.opened().await });
        gate.open();
        waiting.await.unwrap();
        gate.opened().await;
        assert!(gate.is_open());
    }
}
