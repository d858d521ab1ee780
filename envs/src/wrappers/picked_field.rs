//! One field of an observation that has several.

use super::refuse;
use crate::env::{Env, Step};
use crate::error::Result;
use crate::fields::Field;
use crate::frame::Frame;
use crate::space::{Leaf, LeafBuf, LeafMut, Space};

/// Shows one field of [`Space::Fields`] and drops the others: the `screen` of VizDoom, the `image` of MiniGrid.
pub struct PickedField<E> {
    /// The environment itself.
    pub env: E,
    field: Field,
    record: LeafBuf,
}

impl<E: Env> PickedField<E> {
    /// Shows the field `name`.
    ///
    /// # Errors
    /// There are no fields, or none of that name.
    pub fn new(env: E, name: &str) -> Result<Self> {
        let space = env.observation_space();
        let Space::Fields(fields) = space else {
            return refuse(&env, "observation", format!("its observations have no fields, they are {space}"));
        };
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            let names: Vec<String> = fields.iter().map(|field| format!("`{}`", field.name)).collect();
            return refuse(
                &env,
                "observation",
                format!("there is no field `{name}`; there are {}", names.join(", ")),
            );
        };
        Ok(Self { field: field.clone(), record: LeafBuf::zeros(space, 1), env })
    }

    fn show(&self, mut observation: LeafMut) {
        observation.copy_from(self.field.read(self.record.leaf().u8()));
    }
}

impl<E: Env> Env for PickedField<E> {
    fn id(&self) -> &str {
        self.env.id()
    }

    fn observation_space(&self) -> &Space {
        &self.field.space
    }

    fn action_space(&self) -> &Space {
        self.env.action_space()
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        self.env.reset(seed, self.record.leaf_mut())?;
        self.show(observation);
        Ok(())
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        let step = self.env.step(action, self.record.leaf_mut())?;
        self.show(observation);
        Ok(step)
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        self.env.action_mask(mask)
    }

    fn render(&mut self) -> Result<Option<Frame>> {
        self.env.render()
    }

    fn info(&self, name: &str) -> Option<f64> {
        self.env.info(name)
    }

    fn save(&self) -> Option<Vec<u8>> {
        self.env.save()
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        self.env.load(state)
    }
}
