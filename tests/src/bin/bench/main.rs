//! `make bench`: how fast nginx follows etcd, measured on this machine with real etcd and
//! real nginx. One subcommand a question.

use clap::{Parser, Subcommand};

mod drain;
mod put_to_served;
mod times;

#[derive(Parser)]
#[command(about)]
struct Args {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// A key is put: how long until nginx passes requests to the new backend?
    PutToServed(put_to_served::Args),
    /// A backend is told to stop: how long until every load balancer has let go?
    Drain(drain::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Args::parse().question {
        Question::PutToServed(args) => put_to_served::run(&args).await,
        Question::Drain(args) => drain::run(&args).await,
    }
}
