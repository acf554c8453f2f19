//! `egress_oracle::target::event` on the fuzzer's bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| egress_oracle::target::event::run(data));
