//! A backend as a process of its own. It installs no signal handler, so SIGTERM ends it
//! at once, as it ends many real ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tests::backend::{State, serve};
use tokio::net::TcpListener;
use tokio::sync::watch;

#[derive(Parser)]
struct Args {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// The name to answer with.
    #[arg(long)]
    name: String,
    /// Milliseconds before each answer.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let listener = TcpListener::bind(args.listen).await?;
    let state = State::new(&args.name).with_delay(Duration::from_millis(args.delay_ms));
    let (_finish, finishing) = watch::channel(false);
    serve(listener, Arc::new(state), finishing).await;
    Ok(())
}
