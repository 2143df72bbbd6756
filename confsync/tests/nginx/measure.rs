//! What a check and a reload cost. Not part of the usual run:
//! `cargo test -p confsync --test nginx -- --ignored --nocapture measure`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use confsync::proxy::command::Command;

use crate::bench::{Bench, DEADLINE, version};

fn servers(n: usize, round: usize) -> Vec<u8> {
    let mut text = String::from_utf8(version(u32::try_from(round).unwrap())).unwrap();
    text.push_str("upstream app {\n");
    for i in 0..n {
        let (a, b) = (i / 250, i % 250);
        writeln!(text, "    server 10.{round}.{a}.{b}:8080 weight=2 max_fails=1;").unwrap();
    }
    text.push_str("}\n");
    text.into_bytes()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

#[tokio::test]
#[ignore = "a measurement, for a quiet machine"]
async fn measure() {
    println!(
        "servers | nginx -t | shadow check | stage | swap | HUP to applied | bad: check | bad: HUP"
    );
    for n in [10, 1_000, 10_000] {
        let bench = Bench::serving().await;
        let dest = "sites/version.conf";
        let [mut plain, mut check, mut stage, mut swap, mut hup] = [const { Vec::new() }; 5];
        let [mut bad_check, mut bad_hup] = [const { Vec::new() }; 2];
        for round in 1..=9 {
            let begun = Instant::now();
            let staged = bench.stage(&[(dest, &servers(n, round))]);
            stage.push(begun.elapsed());
            let begun = Instant::now();
            let proof = bench.nginx.check(&staged).await.unwrap().proof;
            check.push(begun.elapsed());
            let begun = Instant::now();
            let set = staged.accept(proof).unwrap().install().unwrap();
            swap.push(begun.elapsed());
            let begun = Instant::now();
            bench.reload().await.unwrap();
            hup.push(begun.elapsed());
            set.commit().unwrap();
            let conf = bench.path("nginx.conf");
            let args =
                ["-t", "-p", bench.dir.path().to_str().unwrap(), "-c", conf.to_str().unwrap()];
            plain.push(Command::argv("nginx", args, DEADLINE).run().await.unwrap().took);
            // A refusal at the end of the file, found by a check and by a reload.
            let mut bad = servers(n, round);
            bad.extend_from_slice(b"oops;\n");
            let staged = bench.stage(&[(dest, &bad)]);
            let begun = Instant::now();
            bench.nginx.check(&staged).await.unwrap_err();
            bad_check.push(begun.elapsed());
            let good = std::fs::read(bench.path(dest)).unwrap();
            std::fs::write(bench.path(dest), &bad).unwrap();
            let begun = Instant::now();
            bench.reload().await.unwrap_err();
            bad_hup.push(begun.elapsed());
            std::fs::write(bench.path(dest), &good).unwrap();
        }
        let times = [plain, check, stage, swap, hup, bad_check, bad_hup].map(median);
        println!("{n} | {}", times.map(|t| format!("{t:.1} ms")).join(" | "));
    }
}
