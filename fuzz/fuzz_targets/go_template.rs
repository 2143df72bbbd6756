#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| confsync::fuzz::go_template(data));
