//! Whether choices that a file holds are choices of their space.

use crate::memory::{field_of, slice};
use imago_envs::{Field, Space};
use tch::Tensor;

/// The first row of `[B, …]` with a choice that `space` does not have (as a one-hot row it would be an error of
/// libtorch), or with a switch that is neither on nor off. Values of boxes may be any: environments leave their
/// bounds, and actions are clipped.
pub fn first_row_outside(space: &Space, rows: &Tensor) -> Option<usize> {
    let count = rows.size()[0] as usize;
    let rows = rows.contiguous();
    let outside = |choice: &i64, n: i64| !(0..n).contains(choice);
    let value = match space {
        Space::Box { .. } => None,
        Space::Discrete { n, .. } => slice::<i64>(&rows).iter().position(|choice| outside(choice, *n)),
        Space::MultiDiscrete { n, .. } => {
            slice::<i64>(&rows).iter().zip(n.iter().cycle()).position(|(choice, &n)| outside(choice, n))
        }
        Space::MultiBinary { .. } => slice::<u8>(&rows).iter().position(|&switch| switch > 1),
        Space::Fields(fields) => {
            let first = |field: &Field| first_row_outside(&field.space, &field_of(&rows, field));
            return fields.iter().filter_map(first).min();
        }
    };
    value.map(|i| i / (rows.numel() / count))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago_envs::LeafBuf;

    #[test]
    fn the_first_bad_row_of_every_kind() {
        let long = |values: &[i64]| Tensor::from_slice(values);
        assert_eq!(first_row_outside(&Space::discrete(3), &long(&[0, 2, 3, -1])), Some(2));
        assert_eq!(first_row_outside(&Space::discrete(4), &long(&[0, 2, 3])), None);
        let two = Space::multi_discrete(&[2, 5]);
        assert_eq!(first_row_outside(&two, &long(&[1, 4, 0, 0, 4, 1]).view([3, 2])), Some(2));
        assert_eq!(first_row_outside(&two, &long(&[1, 4]).view([1, 2])), None);
        let switches = Space::multi_binary(&[2]);
        assert_eq!(first_row_outside(&switches, &Tensor::from_slice(&[0u8, 1, 2, 1]).view([2, 2])), Some(1));
        assert_eq!(first_row_outside(&Space::floats(&[1], 0.0, 1.0), &Tensor::from_slice(&[9f32])), None);
        assert_eq!(
            first_row_outside(&switches, &Tensor::zeros([0, 2], (tch::Kind::Uint8, tch::Device::Cpu))),
            None
        );

        let fields =
            Space::fields([("on", Space::multi_binary(&[1])), ("which", Space::discrete(2))]).unwrap();
        let mut records = LeafBuf::zeros(&fields, 3);
        records.leaf_mut().part(2, fields.len()).field(&fields, "on").u8()[0] = 7;
        let tensor = |records: &LeafBuf| crate::rollout::leaf_tensor(records, &fields);
        assert_eq!(first_row_outside(&fields, &tensor(&records)), Some(2));
        records.leaf_mut().part(1, fields.len()).field(&fields, "which").i64()[0] = 2;
        assert_eq!(first_row_outside(&fields, &tensor(&records)), Some(1));
    }
}
