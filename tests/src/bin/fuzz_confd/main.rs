//! `make fuzz-confd CONFD=…`: random keys, resources and templates, rendered by confd and by
//! `confsync -onetime` in its place. Both must write the same file, with the same mode, or none.
//! Each difference is made as small as it can be, and printed; the run goes on to its end.
//!
//! Left out is what `docs/confd.md` says is different on purpose: keys that fall together,
//! `lsdir "/"`, `reverse` of pairs, a mode without its 0, a prefix with a `/` too many.

#![expect(clippy::print_stdout, reason = "what it finds is printed")]

mod case;
mod sides;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use fastrand::Rng;

use case::FuzzCase;
use sides::{Rendered, Sides};
use words::Author;

/// Resources in one run of each program, which takes longer to start than to render them.
const AT_ONCE: usize = 24;

#[derive(Parser)]
struct FuzzArgs {
    /// The confd to compare with
    #[arg(long, env = "CONFD")]
    confd: PathBuf,
    /// It is confd's fork: its command line, and its functions too
    #[arg(long)]
    fork: bool,
    /// How long to go on
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where chance begins; printed, so that a run can be repeated
    #[arg(long)]
    seed: Option<u64>,
}

fn show(case: &FuzzCase, [theirs, ours]: &[Rendered; 2]) {
    println!("keys {:?}\n{}\ntemplate {:?}", case.keys, case.lines.join("\n"), case.template);
    for (name, rendered) in [("confd", theirs), ("confsync", ours)] {
        match &rendered.written {
            Some((text, mode)) => {
                println!("{name}: {mode:o} {:?}", text.escape_ascii().to_string())
            }
            None => println!("{name}: refused"),
        }
    }
    println!();
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = FuzzArgs::parse();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let mut chance = Rng::with_seed(seed);
    let mut sides = Sides::new(args.confd, args.fork).await?;
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let (mut tried, mut written, mut differences) = (0, 0, 0);
    while Instant::now() < end {
        let keys = case::keys(&mut chance);
        let mut author = Author { chance: &mut chance, fork: args.fork };
        let cases: Vec<FuzzCase> = std::iter::repeat_with(|| FuzzCase::new(&keys, &mut author))
            .filter(|case| !case.is_documented(args.fork))
            .take(AT_ONCE)
            .collect();
        let rendered = match sides.render(&cases).await {
            Ok(rendered) => rendered,
            // Such as a template that confd renders without end; we have a bound.
            Err(error) => {
                println!("left out: {error:#}\n");
                continue;
            }
        };
        tried += cases.len();
        for (case, [theirs, ours]) in cases.into_iter().zip(rendered) {
            written += usize::from(theirs.written.is_some());
            if theirs == ours {
                continue;
            }
            differences += 1;
            println!("differs:");
            show(&case, &[theirs, ours]);
            println!("the smallest that does:");
            let case = sides.shrink(case).await?;
            if let Some(both) = sides.render(std::slice::from_ref(&case)).await?.first() {
                show(&case, both);
            }
        }
    }
    println!("{tried} cases, {written} rendered by confd, {differences} differences");
    Ok(if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
