//! Which experts a position goes through, and with which weight.
//!
//! Everything that families do differently here is in the [`RouterDescription`]: what the scores
//! are, whether experts are chosen within groups, what is added for the choice alone, and what
//! happens to the weights of the chosen. Scores are always computed one position at a time, so
//! that prefill and decode choose alike in every precision.
//!
//! Promises: of equal scores the lower index is chosen; the chosen come in ascending order; where
//! a score is not a number, no weight of the position is one, so that damage is seen.
//!
//! [`RouterDescription`]: crate::model::RouterDescription

use super::FfnContext;
use crate::kernels::rms_norm::rms_norm;
use crate::kernels::softmax;
use crate::model::{DecodeError, ExpertsDescription, GroupRule, Role, RouterScoring, WeightKey};

/// What keeps the sum of sigmoid weights above 0 where they are normalised.
const SUM_MIN: f32 = 1e-20;

/// An expert that a position goes through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    /// Which one.
    pub expert: usize,
    /// Factor on its output.
    pub weight: f32,
}

/// Lists that are kept from call to call.
#[derive(Debug, Default)]
pub(super) struct RouterBuffers {
    input: Vec<f32>,
    scores: Vec<f32>,
    /// What experts are chosen by, and what groups of them are.
    merits: Vec<f32>,
    judged: Vec<f32>,
    chosen: Vec<usize>,
    weights: Vec<f32>,
}

/// Appends the experts of every position to `choices`, and returns the bytes of weights read.
///
/// # Shapes
/// `input` (normed) and the context's stream: `[positions, hidden]`; choices: `[positions, used]`,
/// each position's in ascending order.
/// # Errors
/// `MissingTensor`, `Cancelled`.
pub(super) fn route(
    layer: usize,
    experts: &ExpertsDescription,
    input: &[f32],
    context: &FfnContext<'_>,
    buffers: &mut RouterBuffers,
    choices: &mut Vec<Choice>,
) -> Result<u64, DecodeError> {
    let tensors = context.layer;
    let hidden = context.architecture.hidden_size;
    let mut rows = std::mem::take(&mut buffers.input);
    let input = match &tensors.router_scale {
        // As Gemma 4's router reads the stream: normed with a weight of its own.
        Some(weight) => {
            rows.resize(input.len(), 0.0);
            let stream = context.stream.chunks_exact(hidden);
            for (row, stream) in rows.chunks_exact_mut(hidden).zip(stream) {
                rms_norm(stream, weight, context.architecture.norm.epsilon, row);
            }
            &rows
        }
        None => input,
    };
    let mut scores = std::mem::take(&mut buffers.scores);
    scores.resize(input.len() / hidden * experts.count, 0.0);
    let key = WeightKey::layer(Role::Router, layer);
    let router = tensors.router.as_ref().ok_or(DecodeError::MissingTensor { key })?;
    let bytes = context.project_exactly(router, input, &mut scores)?;
    let (bias, scale) = (tensors.correction_bias.as_deref(), tensors.expert_scale.as_deref());
    for scores in scores.chunks_exact_mut(experts.count) {
        choose(experts, scores, (bias, scale), buffers, choices);
    }
    (buffers.input, buffers.scores) = (rows, scores);
    Ok(bytes)
}

/// Appends the experts that one position's scores choose.
///
/// `scores` are the router's products, and are used up.
///
/// # Shapes
/// `scores`, `correction_bias` and `expert_scale`: `[experts]`; `used` entries are appended.
/// # Source
/// Jiang et al. 2024 (arXiv:2401.04088) for the softmax of the chosen; DeepSeek-V2
/// (arXiv:2405.04434) for groups judged by their best expert; DeepSeek-V3 (arXiv:2412.19437) for
/// sigmoid scores, and the bias that balances the choice.
fn choose(
    experts: &ExpertsDescription,
    scores: &mut [f32],
    (correction_bias, expert_scale): (Option<&[f32]>, Option<&[f32]>),
    RouterBuffers { merits, judged, chosen, weights, .. }: &mut RouterBuffers,
    choices: &mut Vec<Choice>,
) {
    let router = &experts.router;
    match router.scoring {
        RouterScoring::Softmax if router.softmax_after => {}
        // The kernel gives what is not a number no weight; here it must not pass unseen.
        RouterScoring::Softmax if scores.iter().any(|score| score.is_nan()) => {
            scores.fill(f32::NAN);
        }
        RouterScoring::Softmax => softmax(scores),
        RouterScoring::Sigmoid => {
            scores.iter_mut().for_each(|score| *score = 1.0 / (1.0 + (-*score).exp()));
        }
    }
    merits.clear();
    merits.extend_from_slice(scores);
    if let Some(bias) = correction_bias {
        merits.iter_mut().zip(bias).for_each(|(merit, bias)| *merit += bias);
    }
    if merits.iter().any(|merit| merit.is_nan()) {
        let damaged = |expert| Choice { expert, weight: f32::NAN };
        choices.extend((0..experts.used).map(damaged));
        return;
    }
    if let Some(groups) = router.groups {
        let size = experts.count / groups.count;
        judged.clear();
        for group in merits.chunks_exact(size) {
            judged.push(match groups.rule {
                GroupRule::Max => group.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                GroupRule::SumOfTwo => sum_of_two(group),
            });
        }
        best(judged, groups.used, chosen);
        for (index, group) in merits.chunks_exact_mut(size).enumerate() {
            if !chosen.contains(&index) {
                group.fill(f32::NEG_INFINITY);
            }
        }
    }
    best(merits, experts.used, chosen);
    weights.clear();
    weights.extend(chosen.iter().map(|&expert| scores[expert]));
    if router.scoring == RouterScoring::Softmax && router.softmax_after {
        softmax(weights);
    }
    if router.normalise {
        let floor = if router.scoring == RouterScoring::Sigmoid { SUM_MIN } else { 0.0 };
        let sum = weights.iter().sum::<f32>() + floor;
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    choices.extend(chosen.iter().zip(&*weights).map(|(&expert, weight)| {
        let factor = expert_scale.map_or(1.0, |scale| scale[expert]);
        Choice { expert, weight: weight * router.scale * factor }
    }));
}

/// The sum of the two largest merits, or the only one.
fn sum_of_two(merits: &[f32]) -> f32 {
    let mut two = [f32::NEG_INFINITY; 2];
    for &merit in merits {
        if merit > two[0] {
            two = [merit, two[0]];
        } else if merit > two[1] {
            two[1] = merit;
        }
    }
    if merits.len() == 1 { two[0] } else { two[0] + two[1] }
}

/// The indices of the `count` largest merits, ascending; of equal ones the lower counts as larger.
/// The merits are used up.
fn best(merits: &mut [f32], count: usize, chosen: &mut Vec<usize>) {
    chosen.clear();
    for _ in 0..count {
        let mut best: Option<usize> = None;
        for (index, merit) in merits.iter().enumerate().filter(|(_, merit)| !merit.is_nan()) {
            if best.is_none_or(|best| *merit > merits[best]) {
                best = Some(index);
            }
        }
        if let Some(best) = best {
            chosen.push(best);
            merits[best] = f32::NAN;
        }
    }
    chosen.sort_unstable();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ExpertGroups, RouterDescription, RouterInput};

    /// Numbers that look random, the same each time.
    fn numbers(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 * 4.0 - 4.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn described(count: usize, used: usize, router: RouterDescription) -> ExpertsDescription {
        ExpertsDescription {
            count,
            used,
            features: 1,
            bias: false,
            clamp: None,
            router,
            shared_gate: false,
            own_norms: false,
        }
    }

    const PLAIN: RouterDescription = RouterDescription {
        bias: false,
        correction_bias: false,
        scoring: RouterScoring::Softmax,
        softmax_after: false,
        groups: None,
        normalise: false,
        scale: 1.0,
        input: RouterInput::Normed,
        expert_scale: false,
    };

    /// The definition in `f64`, by sorting.
    fn oracle(
        experts: &ExpertsDescription,
        products: &[f32],
        correction_bias: &[f32],
        expert_scale: &[f32],
    ) -> Vec<(usize, f64)> {
        let router = &experts.router;
        let softmax = |scores: &[f64]| {
            let sum: f64 = scores.iter().map(|score| score.exp()).sum();
            scores.iter().map(|score| score.exp() / sum).collect::<Vec<_>>()
        };
        let products: Vec<f64> = products.iter().copied().map(f64::from).collect();
        let scores = match router.scoring {
            RouterScoring::Sigmoid => products.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            RouterScoring::Softmax if router.softmax_after => products,
            RouterScoring::Softmax => softmax(&products),
        };
        let merit = |expert: usize| scores[expert] + f64::from(correction_bias[expert]);
        let best = |among: Vec<usize>, count: usize, merit: &dyn Fn(usize) -> f64| {
            let mut among = among;
            among.sort_by(|&a, &b| merit(b).total_cmp(&merit(a)).then(a.cmp(&b)));
            among.truncate(count);
            among
        };
        let among = match router.groups {
            None => (0..experts.count).collect(),
            Some(groups) => {
                let size = experts.count / groups.count;
                let members = |group: usize| (group * size..(group + 1) * size).collect();
                let judged = if groups.rule == GroupRule::Max { 1 } else { 2 };
                let judge =
                    |group| best(members(group), judged, &merit).into_iter().map(&merit).sum();
                let kept = best((0..groups.count).collect(), groups.used, &judge);
                kept.into_iter().flat_map(members).collect()
            }
        };
        let mut chosen = best(among, experts.used, &merit);
        chosen.sort_unstable();
        let mut weights: Vec<f64> = chosen.iter().map(|&expert| scores[expert]).collect();
        if router.softmax_after {
            weights = softmax(&weights);
        }
        if router.normalise {
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        let factor = |expert: usize| f64::from(router.scale) * f64::from(expert_scale[expert]);
        chosen
            .iter()
            .zip(weights)
            .map(|(&expert, weight)| (expert, weight * factor(expert)))
            .collect()
    }

    #[test]
    fn every_kind_of_router_is_its_definition() {
        let groups = |count, used, rule| Some(ExpertGroups { count, used, rule });
        let (max, two) = (GroupRule::Max, GroupRule::SumOfTwo);
        let routers = [
            (7, 3, PLAIN),
            (1, 1, PLAIN),
            (5, 5, RouterDescription { normalise: true, ..PLAIN }),
            (4, 2, RouterDescription { softmax_after: true, ..PLAIN }),
            (8, 3, RouterDescription { groups: groups(4, 2, max), scale: 1.5, ..PLAIN }),
            (12, 4, RouterDescription { groups: groups(3, 1, max), ..PLAIN }),
            (9, 2, RouterDescription { normalise: true, expert_scale: true, ..PLAIN }),
            (
                16,
                4,
                RouterDescription {
                    scoring: RouterScoring::Sigmoid,
                    correction_bias: true,
                    groups: groups(4, 2, two),
                    normalise: true,
                    scale: 2.5,
                    ..PLAIN
                },
            ),
            (
                6,
                6,
                RouterDescription {
                    scoring: RouterScoring::Sigmoid,
                    groups: groups(3, 3, two),
                    ..PLAIN
                },
            ),
        ];
        for (count, used, router) in routers {
            let experts = described(count, used, router);
            for seed in 1..200 {
                let products = numbers(seed, count);
                let bias = match router.correction_bias {
                    true => numbers(seed + 1000, count),
                    false => vec![0.0; count],
                };
                let scale = match router.expert_scale {
                    true => numbers(seed + 2000, count),
                    false => vec![1.0; count],
                };
                let mut choices = Vec::new();
                let mut scores = products.clone();
                choose(
                    &experts,
                    &mut scores,
                    (
                        router.correction_bias.then_some(&*bias),
                        router.expert_scale.then_some(&*scale),
                    ),
                    &mut RouterBuffers::default(),
                    &mut choices,
                );
                let expected = oracle(&experts, &products, &bias, &scale);
                assert_eq!(choices.len(), used);
                for (choice, (expert, weight)) in choices.iter().zip(expected) {
                    assert_eq!(choice.expert, expert, "seed {seed}, {router:?}");
                    let error = (f64::from(choice.weight) - weight).abs();
                    assert!(error < 1e-5, "seed {seed}, {router:?}: off by {error:e}");
                }
            }
        }
    }

    #[test]
    fn of_equal_scores_the_lower_expert_is_chosen() {
        let mut choices = Vec::new();
        choose(
            &described(6, 2, PLAIN),
            &mut [0.5; 6],
            (None, None),
            &mut RouterBuffers::default(),
            &mut choices,
        );
        assert_eq!(choices.iter().map(|choice| choice.expert).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_score_that_is_no_number_makes_all_weights_none() {
        let sigmoid = RouterDescription { scoring: RouterScoring::Sigmoid, ..PLAIN };
        let after = RouterDescription { softmax_after: true, ..PLAIN };
        for router in [PLAIN, sigmoid, after] {
            let mut choices = Vec::new();
            let mut scores = [1.0, f32::NAN, 3.0];
            choose(
                &described(3, 2, router),
                &mut scores,
                (None, None),
                &mut RouterBuffers::default(),
                &mut choices,
            );
            assert_eq!(choices.len(), 2);
            assert!(choices.iter().all(|choice| choice.weight.is_nan()), "{router:?}");
        }
        // Infinite scores choose without a panic.
        for infinite in [f32::INFINITY, f32::NEG_INFINITY] {
            let mut choices = Vec::new();
            choose(
                &described(3, 2, after),
                &mut [infinite; 3],
                (None, None),
                &mut RouterBuffers::default(),
                &mut choices,
            );
            assert_eq!(choices.len(), 2);
        }
    }
}
