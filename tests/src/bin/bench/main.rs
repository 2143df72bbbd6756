//! `make bench`: how fast nginx follows etcd, what a sidekick costs and how soon it notices,
//! measured on this machine with real etcd and real nginx. One subcommand a question.

use clap::{Parser, Subcommand};

mod balancers;
mod bash_loop;
mod beside;
mod change_cost;
mod changes;
mod chart;
mod cost;
mod detection;
mod drain;
mod fleet;
mod memory;
mod put_to_served;
mod register_many;
mod register_one;
mod reload_as_check;
mod render;
mod rolling;
mod sockets;
mod storm;
mod throughput;
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
    /// What does `nginx -t` before each reload cost, and what is left without it?
    ReloadAsCheck(reload_as_check::Args),
    /// Many changes at once: how many reloads, and when is the last one live?
    Storm(storm::Args),
    /// How much memory does confsync take?
    Memory(memory::Args),
    /// One service: memory and processor time, beside the tutorial's loop
    RegisterOne(register_one::Args),
    /// A thousand services in one process: memory, processor time, requests to etcd
    RegisterMany(register_many::Args),
    /// A backend dies or hangs: how long until its key is gone?
    Detection(detection::Args),
    /// A whole single run with many backends: how long, how much memory?
    Render(render::Args),
    /// A backend gets SIGTERM: how long until every load balancer has drained it?
    Drain(drain::Args),
    /// Many changes under load: what is lost, cut and reloaded, with and without a driver?
    Changes(changes::Args),
    /// What does one change cost in processor time?
    ChangeCost(change_cost::Args),
    /// What does one change cost, beside confd and its fork with the same confdir?
    Beside(beside::Args),
    /// A rolling deploy without a pause: what is lost, and how long does it take?
    Rolling(rolling::Args),
    /// How many requests a second pass an upstream that changes without a reload?
    Throughput(throughput::Args),
    /// A whole fleet against three members of etcd: what does it ask, how soon is a change seen?
    Fleet(fleet::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Args::parse().question {
        Question::PutToServed(args) => put_to_served::run(&args).await,
        Question::ReloadAsCheck(args) => reload_as_check::run(&args).await,
        Question::Storm(args) => storm::run(&args).await,
        Question::Memory(args) => memory::run(&args).await,
        Question::RegisterOne(args) => register_one::run(&args).await,
        Question::RegisterMany(args) => register_many::run(&args).await,
        Question::Detection(args) => detection::run(&args).await,
        Question::Render(args) => render::run(&args).await,
        Question::Drain(args) => drain::run(&args).await,
        Question::Changes(args) => changes::run(&args).await,
        Question::ChangeCost(args) => change_cost::run(&args).await,
        Question::Beside(args) => beside::run(&args).await,
        Question::Rolling(args) => rolling::run(&args).await,
        Question::Throughput(args) => throughput::run(&args).await,
        Question::Fleet(args) => fleet::run(&args).await,
    }
}
