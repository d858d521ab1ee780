#![no_main]

#[path = "../targets/command_lines.rs"]
mod command_lines;
#[path = "../targets/small_run.rs"]
mod small_run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    command_lines::check(data);
});
