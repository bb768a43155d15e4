//! All that a peer may send. `cargo +nightly fuzz run peer`, in the folder above `fuzz/`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| a3s_box_spdy::fuzzing::peer(input));
