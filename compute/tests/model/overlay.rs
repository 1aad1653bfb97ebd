//! Edits above the weights are the same edits made in the weights, whatever the family; and they are
//! gone without a trace when they are taken away.

use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    Architecture, Decoder, DecoderOptions, DenseFfn, FeatureRows, Ffn, KvCache, KvPages, KvType,
    LogitsWanted, Overlay, OverlayBuilder, OverlayError, Precision, Role, Segment, WalkFfn,
    WeightKey, feature_row,
};

use crate::checkpoint::{Checkpoint, goldens};
use crate::goldens::{FAMILIES, Golden, golden, tokens};

fn prompt(golden: &Golden) -> Vec<u32> {
    tokens(&golden.expected["prompts"][1]["input_ids"])
}

/// Logits of the last token, read in two calls: the second continues what was cached.
fn logits(
    (architecture, weights): (&Architecture, &Checkpoint),
    overlay: Option<&Arc<Overlay>>,
    ids: &[u32],
    precision: Precision,
    ffn: &dyn Ffn,
) -> Vec<f32> {
    let pool = Pool::new(2);
    let options = DecoderOptions { precision, ffn };
    let mut decoder = Decoder::new(architecture, weights, &pool, options).unwrap();
    let mut cache = KvCache::new(architecture, ids.len()).with_overlay(overlay.cloned());
    let (first, rest) = ids.split_at(ids.len() / 2);
    for part in [first, rest] {
        decoder.prefill(part, &mut cache, None, &Cancel::new()).unwrap();
    }
    decoder.logits().to_vec()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A number that depends on its place alone.
fn number(index: usize) -> f32 {
    ((index * 29 % 31) as f32 - 15.0) / 60.0
}

/// Layer, feature, and its vectors; none of a feature that is hidden.
type Edit = (usize, usize, Option<[Vec<f32>; 3]>);

/// Edits of every kind: three features of the base replaced by others, spread over its networks, and
/// one hidden; written into the weights or said by an overlay.
fn edits(architecture: &Architecture) -> Vec<Edit> {
    let hidden = architecture.hidden_size;
    let row = |seed: usize| (0..hidden).map(|index| number(seed * 7 + index)).collect();
    let mut edits = Vec::new();
    for layer in 0..architecture.layers() {
        let features = architecture.features(layer);
        for place in [0, features / 2, features - 1] {
            edits.push((layer, place, Some([row(place + 1), row(place + 2), row(place + 3)])));
        }
        edits.push((layer, features / 3, None));
    }
    edits
}

fn place(architecture: &Architecture, layer: usize, feature: usize) -> (Option<u32>, usize) {
    let networks = architecture.networks(layer);
    let of = networks.iter().find(|of| (of.first..of.first + of.features).contains(&feature));
    let of = of.unwrap();
    (of.expert, feature - of.first)
}

#[test]
fn an_overlay_equals_the_same_edit_made_in_the_weights_of_every_family() {
    for name in FAMILIES {
        let golden = golden(name);
        let architecture = &golden.architecture;
        let mut builder = OverlayBuilder::new(architecture, &golden.weights);
        let mut edited = Checkpoint::open(&goldens(name), architecture);
        for (layer, feature, rows) in edits(architecture) {
            let (expert, within) = place(architecture, layer, feature);
            let key = |role| WeightKey { role, layer: Some(layer as u32), expert };
            match &rows {
                Some([gate, up, down]) => {
                    let given = FeatureRows { gate: Some(gate), up: Some(up), down: Some(down) };
                    builder.set_feature(layer, feature, given).unwrap();
                    edited.set_row(key(Role::Gate), within, gate);
                    edited.set_row(key(Role::Up), within, up);
                    edited.set_column(key(Role::Down), within, down);
                }
                None => {
                    builder.hide_feature(layer, feature).unwrap();
                    edited.set_column(
                        key(Role::Down),
                        within,
                        &vec![0.0; architecture.hidden_size],
                    );
                }
            }
        }
        let overlay = Arc::new(builder.build().unwrap());
        let ids = prompt(&golden);
        let base = (architecture, &golden.weights);
        let plain = logits(base, None, &ids, Precision::Exact, &DenseFfn);
        let expected = logits((architecture, &edited), None, &ids, Precision::Exact, &DenseFfn);
        let walk = WalkFfn { k: None };
        let networks: [&dyn Ffn; 2] = [&DenseFfn, &walk];
        for ffn in networks {
            let found = logits(base, Some(&overlay), &ids, Precision::Exact, ffn);
            let difference = largest_difference(&found, &expected);
            assert!(difference < 2e-3, "{name}: {difference}");
            assert!(largest_difference(&found, &plain) > 5.0 * difference, "{name} is edited");
        }
    }
}

#[test]
fn a_feature_that_moves_from_the_base_into_the_overlay_changes_nothing() {
    for name in FAMILIES {
        let golden = golden(name);
        let architecture = &golden.architecture;
        // What stands beside experts has no weight of theirs, and no clamp.
        let dense = |layer: usize| architecture.layer(layer).ffn.dense;
        let mut builder = OverlayBuilder::new(architecture, &golden.weights);
        for layer in (0..architecture.layers()).filter(|&layer| dense(layer).is_some()) {
            if dense(layer).unwrap().bias {
                continue;
            }
            let row = |role| feature_row(architecture, &golden.weights, role, layer, 1).unwrap();
            let (gate, down) = (row(Role::Gate), row(Role::Down));
            let up = if dense(layer).unwrap().gated { row(Role::Up) } else { Vec::new() };
            let rows = FeatureRows { gate: Some(&gate), up: Some(&up), down: Some(&down) };
            let end = architecture.features(layer);
            builder.set_feature(layer, end, rows).unwrap();
            builder.hide_feature(layer, 1).unwrap();
        }
        let overlay = Arc::new(builder.build().unwrap());
        let ids = prompt(&golden);
        let base = (architecture, &golden.weights);
        let expected = logits(base, None, &ids, Precision::Exact, &DenseFfn);
        let found = logits(base, Some(&overlay), &ids, Precision::Exact, &DenseFfn);
        let difference = largest_difference(&found, &expected);
        assert!(difference < 1e-3, "{name}: {difference}");
    }
}

#[test]
fn a_low_rank_update_equals_the_same_change_of_the_down_projection() {
    for name in ["llama3", "gemma3", "gpt2", "mixtral", "qwen2_moe"] {
        let golden = golden(name);
        let architecture = &golden.architecture;
        let (layer, hidden) = (architecture.layers() - 1, architecture.hidden_size);
        let features = architecture.features(layer);
        let left: Vec<f32> = (0..2 * hidden).map(number).collect();
        let right: Vec<f32> = (0..2 * features).map(|index| number(index + 5)).collect();
        let mut builder = OverlayBuilder::new(architecture, &golden.weights);
        builder.low_rank(layer, 2, &left, &right).unwrap();
        let overlay = Arc::new(builder.build().unwrap());
        let mut edited = Checkpoint::open(&goldens(name), architecture);
        for feature in 0..features {
            let (expert, within) = place(architecture, layer, feature);
            let mut column =
                feature_row(architecture, &golden.weights, Role::Down, layer, feature).unwrap();
            for (index, number) in column.iter_mut().enumerate() {
                for rank in 0..2 {
                    *number += left[rank * hidden + index] * right[rank * features + feature];
                }
            }
            let key = WeightKey { role: Role::Down, layer: Some(layer as u32), expert };
            edited.set_column(key, within, &column);
        }
        let ids = prompt(&golden);
        let found = logits(
            (architecture, &golden.weights),
            Some(&overlay),
            &ids,
            Precision::Exact,
            &DenseFfn,
        );
        let expected = logits((architecture, &edited), None, &ids, Precision::Exact, &DenseFfn);
        let difference = largest_difference(&found, &expected);
        assert!(difference < 2e-3, "{name}: {difference}");
    }
}

#[test]
fn sequences_with_different_edits_share_a_pass_and_get_the_bits_that_they_get_alone() {
    for name in ["gemma3", "gpt2", "mixtral", "llama3"] {
        let golden = golden(name);
        let architecture = &golden.architecture;
        let overlay = |layers: usize| {
            let mut builder = OverlayBuilder::new(architecture, &golden.weights);
            for (layer, feature, rows) in edits(architecture) {
                if layer < layers {
                    let [gate, up, down] = rows.unwrap_or_else(|| {
                        [0, 1, 2].map(|seed| {
                            (0..architecture.hidden_size).map(|i| number(i + seed)).collect()
                        })
                    });
                    let given = FeatureRows { gate: Some(&gate), up: Some(&up), down: Some(&down) };
                    builder.set_feature(layer, feature, given).unwrap();
                }
            }
            Arc::new(builder.build().unwrap())
        };
        let overlays = [None, Some(overlay(1)), None, Some(overlay(architecture.layers()))];
        let ids = prompt(&golden);
        let pool = Pool::new(2);
        for precision in [Precision::Exact, Precision::Serving] {
            let options = DecoderOptions { precision, ffn: &DenseFfn };
            let mut decoder = Decoder::new(architecture, &golden.weights, &pool, options).unwrap();
            let run = |decoder: &mut Decoder<'_>, which: &[usize]| -> Vec<Vec<f32>> {
                let pages = KvPages::new(architecture, KvType::default(), 64 << 20);
                let mut caches: Vec<KvCache> = which
                    .iter()
                    .map(|&at| pages.cache(ids.len()).with_overlay(overlays[at].clone()))
                    .collect();
                let mut segments: Vec<Segment<'_>> = caches
                    .iter_mut()
                    .map(|cache| Segment { tokens: &ids, cache, logits: LogitsWanted::Last })
                    .collect();
                decoder.forward(&mut segments, None, &Cancel::new()).unwrap();
                (0..which.len()).map(|row| decoder.segment_logits(row).to_vec()).collect()
            };
            let together = run(&mut decoder, &[0, 1, 2, 3]);
            for (at, together) in together.iter().enumerate() {
                let alone = run(&mut decoder, &[at]);
                assert_eq!(*together, alone[0], "{name} {precision:?} {at}");
            }
            assert_eq!(together[0], together[2], "{name}: no edit, no difference");
            assert_ne!(together[0], together[1], "{name}: an edit shows");
            // A cache that was forked is read under the same edits.
            let pages = KvPages::new(architecture, KvType::default(), 64 << 20);
            let cache = pages.cache(ids.len()).with_overlay(overlays[3].clone());
            assert_eq!(cache.fork().overlay(), overlays[3].as_ref());
        }
    }
}

#[test]
fn an_edit_that_is_taken_back_leaves_the_bits_of_the_edits_that_remain() {
    let golden = golden("gemma3");
    let architecture = &golden.architecture;
    let row: Vec<f32> = (0..architecture.hidden_size).map(number).collect();
    let rows = FeatureRows { gate: Some(&row), up: Some(&row), down: Some(&row) };
    let build = |also: bool| {
        let mut builder = OverlayBuilder::new(architecture, &golden.weights);
        builder.set_feature(0, 3, rows).unwrap();
        if also {
            builder.set_feature(1, 4, rows).unwrap();
            builder.hide_feature(1, 4).unwrap();
        }
        Arc::new(builder.build().unwrap())
    };
    let ids = prompt(&golden);
    let base = (architecture, &golden.weights);
    let run =
        |overlay: Option<&Arc<Overlay>>| logits(base, overlay, &ids, Precision::Serving, &DenseFfn);
    assert_eq!(run(Some(&build(false))), run(Some(&build(false))));
    assert_ne!(run(Some(&build(false))), run(Some(&build(true))));
    let nothing = Arc::new(OverlayBuilder::new(architecture, &golden.weights).build().unwrap());
    assert_eq!(run(Some(&nothing)), run(None));
}

#[test]
fn a_key_is_found_at_the_inputs_that_are_close_to_it_and_nowhere_else() {
    let golden = golden("llama3");
    let architecture = &golden.architecture;
    let ids = prompt(&golden);
    let pool = Pool::new(1);
    let cancel = Cancel::new();
    let layer = architecture.layers() - 1;
    let mut editor =
        larql_compute::edit::Editor::new(architecture, &golden.weights, &pool, None, &cancel)
            .unwrap();
    let captured = editor.capture(&[&ids], &[layer], true, false).unwrap();
    let key = captured[0].last().unwrap().inputs[0].clone();
    let mut builder = OverlayBuilder::new(architecture, &golden.weights);
    builder.key(layer, 5, &key, 0.999).unwrap();
    builder.key(layer, 6, &key.iter().map(|x| -x).collect::<Vec<_>>(), 0.5).unwrap();
    let overlay = Arc::new(builder.build().unwrap());
    let options = DecoderOptions { precision: Precision::Serving, ffn: &DenseFfn };
    let mut decoder = Decoder::new(architecture, &golden.weights, &pool, options).unwrap();
    let pages = KvPages::new(architecture, KvType::default(), 64 << 20);
    let mut edited = pages.cache(ids.len()).with_overlay(Some(overlay));
    let mut plain = pages.cache(ids.len());
    let mut segments = [
        Segment { tokens: &ids, cache: &mut plain, logits: LogitsWanted::Last },
        Segment { tokens: &ids, cache: &mut edited, logits: LogitsWanted::All },
    ];
    decoder.forward(&mut segments, None, &cancel).unwrap();
    assert!(decoder.segment_matches(0).iter().all(Vec::is_empty));
    let found: Vec<Vec<u32>> = decoder
        .segment_matches(1)
        .iter()
        .map(|found| found.iter().map(|one| one.entry).collect())
        .collect();
    assert_eq!(found.len(), ids.len());
    assert_eq!(found.last().unwrap(), &[5]);
    assert_eq!(decoder.segment_logits(1).len(), ids.len() * architecture.vocabulary_size);
    assert_eq!(
        decoder.segment_logits(0),
        &decoder.segment_logits(1)[(ids.len() - 1) * architecture.vocabulary_size..],
        "keys change no logit by themselves"
    );
}

#[test]
fn edits_that_do_not_fit_are_refused() {
    let golden = golden("llama3");
    let architecture = &golden.architecture;
    let row = vec![0.5; architecture.hidden_size];
    let mut builder = OverlayBuilder::new(architecture, &golden.weights);
    let whole = FeatureRows { gate: Some(&row), up: Some(&row), down: Some(&row) };
    assert!(matches!(builder.set_feature(99, 0, whole), Err(OverlayError::Layer { .. })));
    let short = FeatureRows { gate: Some(&row[1..]), ..whole };
    assert!(matches!(builder.set_feature(0, 0, short), Err(OverlayError::Length { .. })));
    let partial = FeatureRows { up: None, ..whole };
    let beyond = architecture.features(0);
    assert!(matches!(
        builder.set_feature(0, beyond, partial),
        Err(OverlayError::Incomplete { what: "up", .. })
    ));
    assert!(matches!(builder.low_rank(0, 2, &row, &row), Err(OverlayError::Length { .. })));
    assert!(matches!(builder.key(0, 0, &row[1..], 0.1), Err(OverlayError::Length { .. })));
}
