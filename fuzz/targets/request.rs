//! `egress_oracle::target::request` on the fuzzer's bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| egress_oracle::target::request::run(data));
