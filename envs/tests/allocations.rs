//! Stepping native environments allocates nothing, ends included.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::{EnvSpec, Leaf, Registry, Space};
use single::game::Game;
use single::{Rows, seeds, spec};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local!(static COUNT: Cell<usize> = const { Cell::new(0) });

struct Counting;

// SAFETY: everything goes to the system's allocator; counting in a `const` thread local allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn steps_of_native_groups_allocate_nothing() {
    const N: usize = 8;
    let registry = Registry::builtin();
    for (id, _) in registry.ids().filter(|(id, _)| registry.extra(id).is_none()) {
        let mut group = registry.make_group(&spec(id, "", None), N).unwrap();
        let mut rows = Rows::new(group.as_ref());
        group.reset(&seeds, rows.observation.leaf_mut()).unwrap();
        // As many ends as one row can have.
        for i in 0..N {
            rows.finals.push(i, group.observation_space());
        }
        let before = COUNT.get();
        let mut ends = 0;
        for t in 0..5000 {
            let choice = std::array::from_fn(|i| ((t + i) / 3 % 2) as i64);
            let torque: [f32; N] = std::array::from_fn(|i| ((t + i) % 5) as f32 - 2.0);
            let action = match group.action_space() {
                Space::Box { .. } => Leaf::F32(&torque),
                _ => Leaf::I64(&choice as &[i64; N]),
            };
            rows.step(group.as_mut(), action).unwrap();
            ends += rows.finals.len();
        }
        assert_eq!(COUNT.get() - before, 0, "{id}");
        assert!(ends >= 5000 / 999 * N, "{id}: {ends} ends");
    }
    let before = COUNT.get();
    drop(vec![0u8; 10]);
    assert!(COUNT.get() > before, "the counter counts");
}

#[test]
fn steps_in_every_wrapper_allocate_nothing() {
    const N: usize = 4;
    let mut registry = Registry::default();
    registry.register("Game", "", None, |_| Ok(Game::new()));
    for (grayscale, resize_method) in [(true, "area"), (false, "bilinear")] {
        let keys = format!(
            "id = \"Game\"\nactions = [0, 2, 3]\nnoop_max = 3\nsticky_actions = 0.3\naction_repeat = 2\nrepeat_max = \
             true\nlife_as_episode = true\ncrop = [1, 0, 0, 2]\ngrayscale = {grayscale}\nresize = [3, \
             4]\nresize_method = \"{resize_method}\"\nframe_stack = 2\ntime_limit = 5"
        );
        let spec: EnvSpec = toml::from_str(&keys).unwrap();
        let mut group = registry.make_group(&spec, N).unwrap();
        let mut rows = Rows::new(group.as_ref());
        group.reset(&seeds, rows.observation.leaf_mut()).unwrap();
        for i in 0..N {
            rows.finals.push(i, group.observation_space());
        }
        let mut mask = [true; 3 * N];
        let before = COUNT.get();
        let mut ends = 0;
        for t in 0..2000 {
            group.action_mask(&mut mask).unwrap();
            let action: [i64; N] = std::array::from_fn(|i| ((t + i) % 3) as i64);
            rows.step(group.as_mut(), Leaf::I64(&action)).unwrap();
            ends += rows.finals.len();
        }
        assert_eq!(COUNT.get() - before, 0);
        assert!(ends >= 2000 / 5 * N, "{ends} ends");
    }
}
