#![no_main]

#[path = "../targets/container.rs"]
mod container;
#[path = "../targets/demonstrations.rs"]
mod demonstrations;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    demonstrations::check(data);
});
