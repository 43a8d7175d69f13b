#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringmail_proxy::fuzzing::h2_blocks(bytes));
