#![no_main]

#[path = "../targets/checkpoints.rs"]
mod checkpoints;
#[path = "../targets/container.rs"]
mod container;
#[path = "../targets/small_run.rs"]
mod small_run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    checkpoints::check(data);
});
