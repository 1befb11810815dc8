//! Gives arbitrary bytes to the decoder `policy`; what is checked is in `tests/src/decoders`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::policy(bytes);
});
