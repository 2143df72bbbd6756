#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| register::fuzz::services_file(data));
