//! A request to the JSON door, from libFuzzer. What is done with it and what must hold is in `target/door.rs` of the library.

#![no_main]

use qm2_fuzz::mutate::{self, Reseal};
use qm2_fuzz::target::door;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    door::run(data);
});

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::mutate(data, size, max_size, seed, Reseal::No)
});

libfuzzer_sys::fuzz_crossover!(|data1: &[u8], data2: &[u8], out: &mut [u8], seed: u32| {
    mutate::cross(data1, data2, out, seed, Reseal::No)
});
