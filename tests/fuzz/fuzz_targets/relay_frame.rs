//! Gives arbitrary bytes to the decoder `relay frame`; what is checked is in `tests/src/decoders`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decoders::relay_frame(bytes);
});
