//! The sampler against definitions written out in `f64`, without shortcuts.

use proptest::prelude::*;
use rand::Rng as _;

use super::*;

fn sampler(options: SamplerOptions) -> Sampler {
    Sampler::new(SamplerOptions { seed: Some(7), ..options }, &[], 1000).unwrap()
}

fn tempered(temperature: f32) -> SamplerOptions {
    SamplerOptions { temperature, ..SamplerOptions::default() }
}

fn counts(options: SamplerOptions, logits: &[f32], draws: usize) -> Vec<usize> {
    let mut counts = vec![0; logits.len()];
    let mut sampler = sampler(options);
    for _ in 0..draws {
        counts[sampler.sample(logits, None).unwrap() as usize] += 1;
    }
    counts
}

/// The definition: the probability of each token, and how near a threshold anything came.
fn definition(
    options: &SamplerOptions,
    prompt: &[u32],
    made: &[u32],
    logits: &[f32],
    allowed: &[bool],
) -> (Vec<f64>, f64) {
    let mut scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    for &(token, bias) in &options.logit_bias {
        scores[token as usize] += f64::from(bias);
    }
    let context: Vec<(u32, bool)> = prompt
        .iter()
        .map(|&token| (token, false))
        .chain(made.iter().map(|&token| (token, true)))
        .collect();
    let window = options.penalty_window.unwrap_or(context.len()).min(context.len());
    let context = &context[context.len() - window..];
    for (token, score) in scores.iter_mut().enumerate() {
        let here = |entry: &&(u32, bool)| entry.0 as usize == token;
        if context.iter().any(|entry| here(&entry)) {
            let penalty = f64::from(options.repetition_penalty);
            *score = if *score > 0.0 { *score / penalty } else { *score * penalty };
        }
        let count = context.iter().filter(here).filter(|entry| entry.1).count() as f64;
        *score -= count * f64::from(options.frequency_penalty);
        *score -= count.min(1.0) * f64::from(options.presence_penalty);
    }
    let mut order: Vec<usize> = (0..scores.len()).filter(|&token| allowed[token]).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let mut margin = f64::INFINITY;
    let mut edge = |a: f64, b: f64| margin = margin.min((a - b).abs());
    order.truncate(options.top_k.unwrap_or(order.len()));
    let weight =
        |token: usize| ((scores[token] - scores[order[0]]) / f64::from(options.temperature)).exp();
    let total: f64 = order.iter().map(|&token| weight(token)).sum();
    let mut kept = Vec::new();
    let mut sum = 0.0;
    for &token in &order {
        let share = weight(token) / total;
        edge(sum, f64::from(options.top_p.unwrap_or(9.0)));
        if sum >= f64::from(options.top_p.unwrap_or(9.0)) {
            break;
        }
        sum += share;
        edge(weight(token), f64::from(options.min_p.unwrap_or(9.0)));
        if weight(token) >= f64::from(options.min_p.unwrap_or(0.0)) {
            kept.push(token);
        }
    }
    let left: f64 = kept.iter().map(|&token| weight(token)).sum();
    let mut probabilities = vec![0.0; logits.len()];
    for &token in &kept {
        probabilities[token] = weight(token) / left;
    }
    (probabilities, margin)
}

fn options() -> impl Strategy<Value = SamplerOptions> {
    let maybe = |range: std::ops::Range<f32>| prop::option::of(range);
    (
        0.2..3.0_f32,
        prop::option::of(1..12_usize),
        maybe(0.05..1.0),
        maybe(0.0..0.9),
        (prop_oneof![Just(1.0_f32), 0.5..2.0_f32], -2.0..2.0_f32, -2.0..2.0_f32),
        prop::option::of(0..9_usize),
        prop::collection::vec((0..20_u32, -3.0..3.0_f32), 0..3),
    )
        .prop_map(|(temperature, top_k, top_p, min_p, penalties, penalty_window, bias)| {
            let mut logit_bias = bias;
            logit_bias.dedup_by_key(|(token, _)| *token);
            SamplerOptions {
                temperature,
                // Drawn by its own rule.
                top_k: top_k.filter(|&k| k > 1),
                top_p,
                min_p,
                repetition_penalty: penalties.0,
                presence_penalty: penalties.1,
                frequency_penalty: penalties.2,
                penalty_window,
                logit_bias,
                seed: Some(1),
            }
        })
}

proptest! {
    #[test]
    fn what_may_be_drawn_is_what_the_definitions_say(
        options in options(),
        // Quarters make equal logits likely.
        logits in prop::collection::vec((-24..24_i8).prop_map(|x| f32::from(x) / 4.0), 20..40),
        prompt in prop::collection::vec(0..20_u32, 0..6),
        made in prop::collection::vec(0..20_u32, 0..6),
        allowed in prop::collection::vec(prop::bool::weighted(0.8), 40),
    ) {
        prop_assume!(allowed[..logits.len()].contains(&true));
        let (expected, margin) = definition(&options, &prompt, &made, &logits, &allowed);
        // Where a sum meets its threshold rounding decides.
        prop_assume!(margin > 1e-4);
        let mut sampler = Sampler::new(options.clone(), &prompt, logits.len()).unwrap();
        for &token in &made {
            sampler.penalties.push(token, true);
        }
        let mut bits = vec![0_u32; logits.len().div_ceil(32)];
        for token in (0..logits.len()).filter(|&token| allowed[token]) {
            bits[token / 32] |= 1 << (token % 32);
        }
        let token = sampler.sample(&logits, Some(&bits)).unwrap();
        prop_assert!(expected[token as usize] > 0.0, "{} was drawn", token);
        let total: f32 = sampler.weights.iter().sum();
        let mut found = vec![0.0; logits.len()];
        for (&(token, _), &weight) in sampler.candidates.iter().zip(&sampler.weights) {
            found[token] = f64::from(weight / total);
        }
        for (token, (found, expected)) in found.iter().zip(&expected).enumerate() {
            prop_assert!((found - expected).abs() < 1e-4, "{}: {} is not {}", token, found, expected);
        }
    }

    #[test]
    fn greedy_takes_the_best_after_bias_and_penalties(
        options in options(),
        logits in prop::collection::vec((-24..24_i8).prop_map(|x| f32::from(x) / 4.0), 20..40),
        made in prop::collection::vec(0..20_u32, 0..6),
    ) {
        let plain = SamplerOptions { top_k: None, top_p: None, min_p: None, ..options.clone() };
        let (expected, _) = definition(&plain, &[], &made, &logits, &vec![true; logits.len()]);
        let mut ordered: Vec<f64> = expected.clone();
        ordered.sort_by(|a, b| b.total_cmp(a));
        prop_assume!(ordered[0] - ordered[1] > 1e-4);
        for cold in [
            SamplerOptions { temperature: 0.0, ..options.clone() },
            SamplerOptions { top_k: Some(1), ..options.clone() },
        ] {
            let mut sampler = Sampler::new(cold, &[], logits.len()).unwrap();
            for &token in &made {
                sampler.penalties.push(token, true);
            }
            let token = sampler.sample(&logits, None).unwrap();
            prop_assert_eq!(expected[token as usize], ordered[0]);
        }
    }

    #[test]
    fn a_nucleus_of_any_size_is_that_of_a_full_sort(
        seed in any::<u64>(), top_p in 0.05..0.999_f32, flat in 0.01..4.0_f32,
    ) {
        let mut random = StdRng::seed_from_u64(seed);
        let logits: Vec<f32> = (0..5000).map(|_| random.random::<f32>() * flat).collect();
        let options = SamplerOptions { top_p: Some(top_p), ..tempered(1.0) };
        let (expected, margin) = definition(&options, &[], &[], &logits, &[true; 5000]);
        prop_assume!(margin > 1e-7);
        let mut sampler = Sampler::new(options, &[], 5000).unwrap();
        sampler.sample(&logits, None).unwrap();
        let count = expected.iter().filter(|&&p| p > 0.0).count();
        prop_assert!(sampler.candidates.len().abs_diff(count) <= 1, "{} is not {}", sampler.candidates.len(), count);
    }

    #[test]
    fn log_probabilities_are_those_of_the_logits(
        logits in prop::collection::vec(-30.0..30.0_f32, 1..50), at in any::<prop::sample::Index>(),
    ) {
        let token = at.index(logits.len());
        let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        let expected = |token: u32| (f64::from(logits[token as usize]).exp() / total).ln();
        let (own, best) = log_probabilities(&logits, token as u32, 5);
        prop_assert_eq!(own.token as usize, token);
        prop_assert_eq!(best.len(), logits.len().min(5));
        for found in std::iter::once(&own).chain(&best) {
            prop_assert!((f64::from(found.value) - expected(found.token)).abs() < 1e-4);
        }
        prop_assert!(best.windows(2).all(|pair| pair[0].value >= pair[1].value));
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        prop_assert_eq!(logits[best[0].token as usize], most);
    }
}

#[test]
fn draws_follow_the_tempered_distribution() {
    let logits = [0.0, 2.0 * 2.0_f32.ln(), 2.0 * 3.0_f32.ln()];
    let counts = counts(tempered(2.0), &logits, 60_000);
    for (count, share) in counts.iter().zip([1.0, 2.0, 3.0]) {
        assert!((*count as f64 / 10_000.0 - share).abs() < 0.05, "{counts:?}");
    }
}

#[test]
fn top_k_top_p_and_min_p_leave_the_rest_undrawn() {
    let logits = [1.0, 3.0, f32::NEG_INFINITY, 2.0, 2.0];
    let drawn = counts(SamplerOptions { top_k: Some(2), ..tempered(1.0) }, &logits, 2000);
    assert!(drawn[1] > 0 && drawn[3] > 0, "{drawn:?}");
    assert_eq!((drawn[0], drawn[2], drawn[4]), (0, 0, 0));
    // exp(3) is 52 % of the whole, so that two tokens reach 60 %.
    let drawn = counts(SamplerOptions { top_p: Some(0.6), ..tempered(1.0) }, &logits, 2000);
    assert!(drawn[1] > 0 && drawn[3] > 0, "{drawn:?}");
    assert_eq!((drawn[0], drawn[4]), (0, 0));
    let drawn = counts(SamplerOptions { top_p: Some(0.01), ..tempered(1.0) }, &logits, 100);
    assert_eq!(drawn[1], 100);
    // exp(2) is 37 % of exp(3), exp(1) is 14 %.
    let drawn = counts(SamplerOptions { min_p: Some(0.3), ..tempered(1.0) }, &logits, 2000);
    assert!(drawn[1] > 0 && drawn[3] > 0 && drawn[4] > 0 && drawn[0] == 0, "{drawn:?}");
}

#[test]
fn one_seed_draws_one_sequence() {
    let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32).collect();
    let draw = |seed| {
        let options = SamplerOptions { seed: Some(seed), ..tempered(1.0) };
        let mut sampler = Sampler::new(options, &[], 100).unwrap();
        (0..20).map(|_| sampler.sample(&logits, None).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn a_token_that_was_made_is_penalised_and_one_that_left_the_window_is_not() {
    let options =
        SamplerOptions { frequency_penalty: 1.0, penalty_window: Some(2), ..tempered(0.0) };
    let mut sampler = sampler(options);
    // 0 is best until it was made twice in the last two; then it must leave the window again.
    let made: Vec<u32> = (0..6).map(|_| sampler.sample(&[1.5, 0.0], None).unwrap()).collect();
    assert_eq!(made, [0, 0, 1, 0, 0, 1]);
}

#[test]
fn options_that_make_no_choice_are_refused() {
    let new = |options: SamplerOptions| Sampler::new(options, &[], 10).err();
    for value in [-1.0, f32::NAN, f32::INFINITY] {
        let error = new(tempered(value));
        assert!(matches!(error, Some(SampleError::Temperature { .. })), "{value}");
    }
    for value in [0.0, -0.5, 1.5, f32::NAN, f32::INFINITY] {
        let error = new(SamplerOptions { top_p: Some(value), ..tempered(1.0) });
        assert!(matches!(error, Some(SampleError::TopP { .. })), "{value}");
    }
    for value in [-0.5, 1.5, f32::NAN, f32::INFINITY] {
        let error = new(SamplerOptions { min_p: Some(value), ..tempered(1.0) });
        assert!(matches!(error, Some(SampleError::MinP { .. })), "{value}");
    }
    for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = new(SamplerOptions { repetition_penalty: value, ..tempered(1.0) });
        assert!(matches!(error, Some(SampleError::RepetitionPenalty { .. })), "{value}");
    }
    for value in [-2.5, 2.5, f32::NAN, f32::INFINITY] {
        let presence = new(SamplerOptions { presence_penalty: value, ..tempered(1.0) });
        let frequency = new(SamplerOptions { frequency_penalty: value, ..tempered(1.0) });
        for (error, expected) in [(presence, "presence_penalty"), (frequency, "frequency_penalty")]
        {
            let Some(SampleError::Penalty { name, .. }) = error else { panic!("{value}") };
            assert_eq!(name, expected);
        }
        let error = new(SamplerOptions { logit_bias: vec![(1, value * 50.0)], ..tempered(1.0) });
        assert!(matches!(error, Some(SampleError::Bias { .. })), "{value}");
    }
    let error = new(SamplerOptions { logit_bias: vec![(10, 1.0)], ..tempered(1.0) });
    assert_eq!(error, Some(SampleError::BiasToken { token: 10, vocabulary: 10 }));
    assert_eq!(new(SamplerOptions { top_k: Some(0), ..tempered(1.0) }), Some(SampleError::TopK));
    let edge =
        SamplerOptions { top_k: Some(1), top_p: Some(1.0), min_p: Some(1.0), ..tempered(1.0) };
    assert_eq!(new(edge), None);
}

#[test]
fn logits_that_are_no_numbers_are_refused_wherever_they_stand() {
    for broken in [f32::NAN, f32::INFINITY] {
        for at in [0, 5, 16, 39] {
            let mut logits = vec![1.0; 40];
            logits[at] = broken;
            let mut warm = sampler(tempered(1.0));
            for error in [greedy(&logits).unwrap_err(), warm.sample(&logits, None).unwrap_err()] {
                assert!(matches!(error, SampleError::NotFinite { token, .. } if token == at));
            }
        }
    }
    for none in [&[][..], &[f32::NEG_INFINITY; 3]] {
        let count = none.len();
        assert_eq!(greedy(none), Err(SampleError::NoToken { count }));
        let error = sampler(tempered(1.0)).sample(none, None);
        assert_eq!(error, Err(SampleError::NoToken { count }));
    }
    let error = sampler(tempered(1.0)).sample(&[1.0, 2.0], Some(&[0]));
    assert_eq!(error, Err(SampleError::NoToken { count: 2 }));
}

#[test]
fn extreme_logits_temperatures_and_penalties_choose_the_best() {
    assert_eq!(greedy(&[0.0, 1.0, 1.0]), Ok(1));
    assert_eq!(sampler(tempered(1e-30)).sample(&[1e30, 2e30, 0.0], None), Ok(1));
    assert_eq!(sampler(tempered(0.0)).sample(&[f32::NEG_INFINITY, 1.0], None), Ok(1));
    let huge = SamplerOptions { repetition_penalty: 1e-30, ..tempered(1.0) };
    let mut huge = Sampler::new(huge, &[0], 2).unwrap();
    assert_eq!(huge.sample(&[1e30, 1e30], None), Ok(0));
    let biased = SamplerOptions { logit_bias: vec![(0, 100.0)], ..tempered(1.0) };
    assert_eq!(sampler(biased).sample(&[f32::MAX, f32::MIN], None), Ok(0));
}

#[test]
fn the_best_come_with_their_share_of_the_whole() {
    let best = softmax_top_k(&[0.0, 2.0_f32.ln(), f32::NAN, 2.0_f32.ln()], 2);
    assert_eq!((best[0].0, best[1].0), (1, 3));
    assert!((best[0].2 - 0.4).abs() < 1e-6 && (best[1].2 - 0.4).abs() < 1e-6);
}
