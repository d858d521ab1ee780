//! What the tests of whole agents have in common.

#![allow(clippy::unwrap_used)]

use imago::run::{Log, State, Train};
use imago_agents::Agent;
use std::collections::BTreeMap;
use tch::Tensor;

/// What an agent would save, as bytes of its own.
pub fn saved(agent: &mut Agent) -> (BTreeMap<String, Tensor>, serde_json::Value) {
    let mut state = State::saving();
    agent.state(&mut state).unwrap();
    let (tensors, values) = state.finish().unwrap();
    let tensors = tensors.into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
    (tensors, serde_json::to_value(values).unwrap())
}

/// So many rollouts, learnt from.
pub fn iterate(agent: &mut Agent, times: usize) {
    (0..times).for_each(|_| agent.iterate(&mut Log::in_memory()).unwrap());
}

/// `agent` where another one has been saved.
pub fn loaded(mut agent: Agent, (tensors, values): (BTreeMap<String, Tensor>, serde_json::Value)) -> Agent {
    let serde_json::Value::Object(values) = values else { unreachable!() };
    let mut state = State::loading(tensors, values.into_iter().collect());
    agent.state(&mut state).unwrap();
    state.finish().unwrap();
    agent
}

/// Both would save the same, bit for bit.
pub fn assert_same(one: &mut Agent, other: &mut Agent, what: &str) {
    let (wanted, found) = (saved(one), saved(other));
    assert_eq!(wanted.1, found.1, "{what}");
    assert_eq!(wanted.0.len(), found.0.len(), "{what}");
    for ((name, wanted), found) in wanted.0.iter().zip(found.0.values()) {
        assert_eq!(wanted, found, "{what}: {name}");
    }
}
