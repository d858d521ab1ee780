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
        let weights = [self.input, self.hidden, self.input_bias, self.hidden_bias];
        let weights = weights.map(|index| flat.get(index).shallow_clone());
        let part =
            |memory: &Tensor, i: i64| memory.narrow(1, i * self.units, self.units).contiguous().unsqueeze(0);
        // Steps between two beginnings are one call of libtorch.
        let (steps, mut memory, mut outputs) = (x.size()[0], memory.shallow_clone(), Vec::new());
        let begins = start.map_or_else(Vec::new, rows_with);
        let mut cuts: Vec<i64> = begins.iter().copied().filter(|&t| t > 0).collect();
        cuts.push(steps);
        let mut from = 0;
        for to in cuts {
            if let Some(start) = start.filter(|_| begins.contains(&from)) {
                memory = &memory * start.get(from).logical_not().to_kind(Kind::Float).unsqueeze(1);
            }
            let x = x.narrow(0, from, to - from);
            let output;
            (output, memory) = match self.kind {
                CellKind::Lstm => {
                    let state = [part(&memory, 0), part(&memory, 1)];
                    let (output, h, c) = x.lstm(&state, &weights, true, 1, 0.0, false, false, false);
                    (output, Tensor::cat(&[h.get(0), c.get(0)], 1))
                }
                CellKind::Gru => {
                    let (output, h) = x.gru(&part(&memory, 0), &weights, true, 1, 0.0, false, false, false);
                    (output, h.get(0))
                }
            };
            outputs.push(output);
            from = to;
        }
        (Tensor::cat(&outputs, 0), memory)
    }
}

/// The rows `t` of a bool `[T, B]` in which any is true, ascending.
fn rows_with(flags: &Tensor) -> Vec<i64> {
    let any = flags.any_dim(1, false).nonzero().view(-1).contiguous();
    slice::<i64>(&any).to_vec()
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
            let weights = [cell.input, cell.hidden, cell.input_bias, cell.hidden_bias];
            let [input, hidden, input_bias, hidden_bias] = weights.map(|index| flat.get(index));
            for t in 0..7 {
                let (x, biases) =
                    (x.get(t), [input_bias, hidden_bias].map(|bias| Some(bias.shallow_clone())));
                let [input_bias, hidden_bias] = biases;
                memory = match kind {
                    CellKind::Lstm => {
                        let state = [memory.narrow(1, 0, 5), memory.narrow(1, 5, 5)];
                        let (h, c) = x.lstm_cell(&state, input, hidden, input_bias, hidden_bias);
                        Tensor::cat(&[h, c], 1)
                    }
                    CellKind::Gru => x.gru_cell(&memory, input, hidden, input_bias, hidden_bias),
                };
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
