//! `make bench`: how fast nginx follows etcd, measured on this machine with real etcd and
//! real nginx. One subcommand a question.

use clap::{Parser, Subcommand};

mod put_to_served;
mod render;
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
    /// A whole single run with many backends: how long, how much memory?
    Render(render::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Args::parse().question {
        Question::PutToServed(args) => put_to_served::run(&args).await,
        Question::Render(args) => render::run(&args).await,
    }
}
