//! A test that cannot run here is skipped, and says so.
//!
//! The line goes to standard error, where a runner may hide it for a test that passes, and
//! to the end of the file `TEST_SKIPPED` names; `make test` prints that at its end.

use std::fs::OpenOptions;
use std::io::Write;

/// Says that this test tries nothing, and why. The test returns after it.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let test = std::env::var("NEXTEST_TEST_NAME").ok();
    let line =
        format!("skipped {}: {why}\n", test.as_deref().or(thread.name()).unwrap_or("a test"));
    eprint!("{line}");
    if let Some(file) = std::env::var_os("TEST_SKIPPED") {
        let file = OpenOptions::new().append(true).create(true).open(file);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file TEST_SKIPPED");
    }
}
