#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| a3s_box_image::fuzz::answer(data));
