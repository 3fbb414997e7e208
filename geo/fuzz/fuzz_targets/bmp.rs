//! One BMP message.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| geo::feed::fuzz::bmp(bytes));
