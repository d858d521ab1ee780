#![no_main]

#[path = "../targets/recipes.rs"]
mod recipes;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    recipes::check(data);
});
