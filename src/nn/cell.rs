//! Memory: recurrent cells between observations and decisions.

use super::flat::{Flat, Init, Layout};
use crate::memory::slice;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Which cell, as recipes name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CellKind {
    /// Long short-term memory (Hochreiter & Schmidhuber 1997; with the forget gate of Gers et al. 2000).
    Lstm,
    /// Gated recurrent unit (Cho et al. 2014).
    Gru,
}

impl CellKind {
    /// Blocks of rows in its weights, one for each gate and one for the candidate.
    fn blocks(self) -> i64 {
        match self {
            CellKind::Lstm => 4,
            CellKind::Gru => 3,
        }
    }

    /// S, floats of memory that `units` units have.
    pub fn size(self, units: i64) -> i64 {
        match self {
            CellKind::Lstm => units.saturating_mul(2),
            CellKind::Gru => units,
        }
    }
}

/// A recurrent cell of H units; its memory is a row `[S]` for each environment. With σ the logistic function and ⊙ the
/// product of elements:
///
/// LSTM, S = 2H, memory (h, c), rows of the weights in the order i, f, g, o:
/// - i, f, o = σ(Wᵢₓ x + bᵢₓ + Wᵢₕ h + bᵢₕ), … ; g = tanh(W_gx x + b_gx + W_gh h + b_gh)
/// - c′ = f ⊙ c + i ⊙ g; h′ = o ⊙ tanh c′
///
/// GRU, S = H, memory h, rows in the order r, z, n:
/// - r, z = σ(W_rx x + b_rx + W_rh h + b_rh), … ; n = tanh(W_nx x + b_nx + r ⊙ (W_nh h + b_nh))
/// - h′ = (1 − z) ⊙ n + z ⊙ h
///
/// What others read is h′. Weights lie as libtorch's own cells have them.
#[derive(Clone, Debug)]
pub struct Cell {
    kind: CellKind,
    /// H.
    pub units: i64,
    /// Indices of `[blocks · H, in]` and `[blocks · H, H]`, and of their biases.
    input: usize,
    hidden: usize,
    input_bias: usize,
    hidden_bias: usize,
}

impl Cell {
    /// Reserves the weights of `units` units on `features` inputs: orthogonal with gain 1, biases 0 but for those of the
    /// gate that keeps what there is, which are 1 (f of an LSTM, z of a GRU): at first most is kept (Jozefowicz et al.
    /// 2015).
    pub fn new(layout: &mut Layout, name: &str, kind: CellKind, features: i64, units: i64) -> Self {
        // Whatever a checkpoint says: the parameters it holds decide.
        let rows = kind.blocks().saturating_mul(units);
        let mut add = |part: &str, shape: &[i64], init| layout.add(&format!("{name}/{part}"), shape, init);
        Self {
            kind,
            units,
            input: add("input/weight", &[rows, features], Init::Orthogonal(1.0)),
            hidden: add("hidden/weight", &[rows, units], Init::Orthogonal(1.0)),
            input_bias: add("input/bias", &[rows], Init::Constant(0.0)),
            hidden_bias: add("hidden/bias", &[rows], Init::SecondOf(kind.blocks() as usize)),
        }
    }

    /// S, floats of memory of one environment.
    pub fn memory(&self) -> i64 {
        self.kind.size(self.units)
    }

    /// h′ of each step, `[T, B, H]`, and the last memory, for inputs `[T, B, in]` from `memory`, `[B, S]`. Where `start`,
    /// bool `[T, B]`, says that an episode begins, the memory before that step is 0; no gradient crosses there. Without
    /// it none begins.
    pub fn unroll(
        &self,
        flat: &Flat,
        x: &Tensor,
        memory: &Tensor,
        start: Option<&Tensor>,
    ) -> (Tensor, Tensor) {
        let (steps, envs) = (x.size()[0], x.size()[1]);
        if (steps, start.is_none()) == (1, true) {
            let memory = self.step(flat, &x.get(0), memory);
            return (memory.narrow(1, 0, self.units).unsqueeze(0), memory);
        }
        let parts = Parts::of(start, steps as usize, envs as usize);
        let known = Tensor::from_slice(&parts.known).to_kind(Kind::Float).unsqueeze(1);
        let memory = memory.index_select(0, &Tensor::from_slice(&parts.env)) * known;
        let rows = Tensor::from_slice(&parts.rows);
        let packed = x.reshape([steps * envs, -1]).index_select(0, &rows);
        let (packed, last) = self.packed(flat, &packed, &Tensor::from_slice(&parts.sizes), &memory);
        let outputs = packed.zeros_like().index_copy(0, &rows, &packed);
        let last = last.index_select(0, &Tensor::from_slice(&parts.last));
        (outputs.view([steps, envs, self.units]), last)
    }

    /// Memory `[B, S]` after inputs `[B, in]`.
    fn step(&self, flat: &Flat, x: &Tensor, memory: &Tensor) -> Tensor {
        let [input, hidden] = [self.input, self.hidden].map(|index| flat.get(index));
        let [input_bias, hidden_bias] =
            [self.input_bias, self.hidden_bias].map(|index| Some(flat.get(index).shallow_clone()));
        let part = |i: i64| memory.narrow(1, i * self.units, self.units);
        match self.kind {
            CellKind::Lstm => {
                let (h, c) = x.lstm_cell(&[part(0), part(1)], input, hidden, input_bias, hidden_bias);
                Tensor::cat(&[h, c], 1)
            }
            CellKind::Gru => x.gru_cell(memory, input, hidden, input_bias, hidden_bias),
        }
    }

    /// The same of sequences of different lengths, the longest first: step by step as many rows of `x` as are still going
    /// on, `sizes` int64 `[T]` on the whole. Outputs in the order of `x`, and the last memory of each sequence.
    fn packed(&self, flat: &Flat, x: &Tensor, sizes: &Tensor, memory: &Tensor) -> (Tensor, Tensor) {
        let weights = [self.input, self.hidden, self.input_bias, self.hidden_bias];
        let weights = weights.map(|index| flat.get(index).shallow_clone());
        let part = |i: i64| memory.narrow(1, i * self.units, self.units).contiguous().unsqueeze(0);
        match self.kind {
            CellKind::Lstm => {
                let state = [part(0), part(1)];
                let (outputs, h, c) =
                    Tensor::lstm_data(x, sizes, &state, &weights, true, 1, 0.0, false, false);
                (outputs, Tensor::cat(&[h.get(0), c.get(0)], 1))
            }
            CellKind::Gru => {
                let (outputs, h) = Tensor::gru_data(x, sizes, &part(0), &weights, true, 1, 0.0, false, false);
                (outputs, h.get(0))
            }
        }
    }
}

/// What T steps of B environments fall into where episodes begin: parts of episodes, the longest first. Many short ones
/// are then computed side by side, and not after each other.
struct Parts {
    /// Environment of each part.
    env: Vec<i64>,
    /// Whether it goes on from what was remembered before the first step.
    known: Vec<bool>,
    /// The last part of each environment.
    last: Vec<i64>,
    /// For each step of a part, so many parts have it.
    sizes: Vec<i64>,
    /// Rows `t · B + b`: the first steps of all parts, then their second steps …
    rows: Vec<i64>,
}

impl Parts {
    fn of(start: Option<&Tensor>, steps: usize, envs: usize) -> Self {
        let start = start.map(Tensor::contiguous);
        let begins =
            |t: usize, env: usize| start.as_ref().is_some_and(|start| slice::<bool>(start)[t * envs + env]);
        // First step, length, environment.
        let mut parts: Vec<(usize, usize, usize)> = Vec::new();
        for env in 0..envs {
            let firsts: Vec<usize> = (0..steps).filter(|&t| t == 0 || begins(t, env)).collect();
            let ends = firsts.iter().skip(1).copied().chain([steps]);
            parts.extend(firsts.iter().zip(ends).map(|(&first, end)| (first, end - first, env)));
        }
        parts.sort_by_key(|&(first, length, env)| (std::cmp::Reverse(length), env, first));
        let mut last = vec![0; envs];
        for (i, &(first, length, env)) in parts.iter().enumerate() {
            if first + length == steps {
                last[env] = i as i64;
            }
        }
        let longest = parts.first().map_or(0, |part| part.1);
        let going = |k: usize| parts.iter().take_while(move |part| part.1 > k);
        Self {
            env: parts.iter().map(|part| part.2 as i64).collect(),
            known: parts.iter().map(|&(first, _, env)| first == 0 && !begins(0, env)).collect(),
            last,
            sizes: (0..longest).map(|k| going(k).count() as i64).collect(),
            rows: (0..longest)
                .flat_map(|k| going(k).map(move |&(first, _, env)| ((first + k) * envs + env) as i64))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Stream;
    use tch::Device;

    const KINDS: [CellKind; 2] = [CellKind::Lstm, CellKind::Gru];

    fn cell(kind: CellKind, features: i64, units: i64) -> (Cell, Flat) {
        let mut layout = Layout::default();
        let cell = Cell::new(&mut layout, "memory", kind, features, units);
        let mut flat = Flat::new(layout, &mut Stream::new(3, "init", 0, 0));
        // Biases of 0 would hide where they are added.
        let count = flat.weights.numel() as i64;
        let weights = Stream::new(4, "init", 0, 0).normals(&[count]) * 0.5;
        flat.copy_from(crate::memory::slice(&weights)).unwrap();
        (cell, flat)
    }

    fn never(steps: i64, rows: i64) -> Tensor {
        Tensor::zeros([steps, rows], (Kind::Bool, Device::Cpu))
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn unrolled_it_is_step_after_step() {
        for kind in KINDS {
            let (cell, flat) = cell(kind, 3, 5);
            let mut rng = Stream::new(0, "test", 0, 0);
            let (x, mut memory) = (rng.normals(&[7, 2, 3]), rng.normals(&[2, cell.memory()]));
            let (outputs, last) = cell.unroll(&flat, &x, &memory, Some(&never(7, 2)));
            for t in 0..7 {
                memory = cell.step(&flat, &x.get(t), &memory);
                assert!(difference(&outputs.get(t), &memory.narrow(1, 0, 5)) < 1e-6, "{kind:?} {t}");
            }
            assert!(difference(&last, &memory) < 1e-6, "{kind:?}");
        }
    }

    #[test]
    fn one_unit_by_hand() {
        fn sigma(x: f32) -> f32 {
            1.0 / (1.0 + (-x).exp())
        }
        for kind in KINDS {
            let (cell, flat) = cell(kind, 1, 1);
            let floats = |index: usize| Vec::<f32>::try_from(flat.get(index).detach().view(-1)).unwrap();
            let [w, u, b, d] = [cell.input, cell.hidden, cell.input_bias, cell.hidden_bias].map(floats);
            let (x, h, c) = (0.7, -0.4, 1.3);
            let of_x = |i: usize| w[i] * x + b[i];
            let of_h = |i: usize| u[i] * h + d[i];
            let sum = |i: usize| of_x(i) + of_h(i);
            let (wanted, memory) = match kind {
                CellKind::Lstm => {
                    let c_next = sigma(sum(1)) * c + sigma(sum(0)) * sum(2).tanh();
                    (vec![sigma(sum(3)) * c_next.tanh(), c_next], vec![h, c])
                }
                CellKind::Gru => {
                    let (r, z) = (sigma(sum(0)), sigma(sum(1)));
                    let n = (of_x(2) + r * of_h(2)).tanh();
                    (vec![(1.0 - z) * n + z * h], vec![h])
                }
            };
            let row = |values: &[f32]| Tensor::from_slice(values).unsqueeze(0);
            assert!(
                difference(
                    &cell.unroll(&flat, &row(&[x]).unsqueeze(0), &row(&memory), None).1,
                    &row(&wanted)
                ) < 1e-6,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn parts_lie_side_by_side_the_longest_first() {
        // Two environments, five steps; episodes begin before steps 0 and 3 of the second one.
        let start = never(5, 2);
        let _ = start.get(0).get(1).fill_(1);
        let _ = start.get(3).get(1).fill_(1);
        let parts = Parts::of(Some(&start), 5, 2);
        assert_eq!(parts.env, [0, 1, 1]);
        assert_eq!(parts.known, [true, false, false]);
        assert_eq!(parts.last, [0, 2]);
        assert_eq!(parts.sizes, [3, 3, 2, 1, 1]);
        assert_eq!(parts.rows, [0, 1, 7, 2, 3, 9, 4, 5, 6, 8]);
    }

    #[test]
    fn at_first_most_is_kept() {
        for (kind, wanted) in [
            (CellKind::Lstm, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0].as_slice()),
            (CellKind::Gru, &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]),
        ] {
            let mut layout = Layout::default();
            let cell = Cell::new(&mut layout, "memory", kind, 3, 2);
            let flat = Flat::new(layout, &mut Stream::new(3, "init", 0, 0));
            assert_eq!(Vec::<f32>::try_from(flat.get(cell.hidden_bias).detach()).unwrap(), wanted);
            assert_eq!(flat.get(cell.input_bias).abs().max().double_value(&[]), 0.0);
        }
    }

    #[test]
    fn an_episode_knows_nothing_of_the_one_before() {
        for kind in KINDS {
            let (cell, flat) = cell(kind, 3, 4);
            let mut rng = Stream::new(1, "test", 0, 0);
            let (x, memory) = (rng.normals(&[6, 2, 3]), rng.normals(&[2, cell.memory()]));
            // An episode begins in the second environment before step 2, in the first one nowhere.
            let begins =
                Tensor::from_slice(&[2i64]).eq_tensor(&Tensor::arange(6, (Kind::Int64, Device::Cpu)));
            let start = Tensor::stack(&[never(6, 1).select(1, 0), begins], 1);
            let (outputs, _) = cell.unroll(&flat, &x, &memory, Some(&start));
            let (through, _) = cell.unroll(&flat, &x, &memory, None);
            let (fresh, _) = cell.unroll(&flat, &x.narrow(0, 2, 4), &memory.zeros_like(), None);
            // It begins in both before the first step.
            let (begun, _) = cell.unroll(
                &flat,
                &x,
                &memory,
                Some(&Tensor::cat(&[never(1, 2).logical_not(), never(5, 2)], 0)),
            );
            let (zero, _) = cell.unroll(&flat, &x, &memory.zeros_like(), None);
            assert!(difference(&begun, &zero) < 1e-6);
            let of = |outputs: &Tensor, env: i64| outputs.select(1, env);
            assert!(difference(&of(&outputs, 0), &of(&through, 0)) < 1e-6);
            assert!(difference(&of(&outputs, 1).narrow(0, 2, 4), &of(&fresh, 1)) < 1e-6);
            assert!(difference(&of(&outputs, 1), &of(&through, 1)) > 1e-3, "else the start changed nothing");
        }
    }
}
