//! `egress_oracle::target::answer` on the fuzzer's bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| egress_oracle::target::answer::run(data));
