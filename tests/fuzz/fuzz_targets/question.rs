//! Gives arbitrary bytes to the decoder `question`; what is checked is in `tests/src/decoders`.
#![no_main]

// The file needs nothing of the client, and this way the target doesn't either.
#[allow(dead_code)]
#[path = "../../../client/src/local.rs"]
mod local;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::local_line::<local::Question>(bytes);
});
