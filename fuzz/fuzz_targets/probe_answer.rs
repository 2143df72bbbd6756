#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| register::fuzz::probe_answer(data));
