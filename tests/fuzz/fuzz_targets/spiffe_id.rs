#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringmail_proto::fuzzing::spiffe_id(bytes));
