//! The lists against the definition, on rows that are kind, unkind and real.

use super::*;
use crate::kernels::top_k::rank;
use crate::quant::{Dtype, from_f32};

/// Every pair in `f64`, sorted: the definition.
fn definition(e: &[f32], v: &[f32], width: usize, k: usize) -> Vec<TokenList> {
    let list = |vector: &[f32]| {
        let rows = e.chunks(width).enumerate();
        let scores = rows.map(|(token, row)| (token, dot_f64(row, vector) as f32));
        let mut scores: Vec<_> = scores.filter(|(_, score)| !score.is_nan()).collect();
        scores.sort_by(|a, b| rank(*a, *b));
        scores.truncate(k);
        scores.into_iter().map(|(token, score)| (token as u32, score)).collect()
    };
    v.chunks(width).map(list).collect()
}

/// Compares lists with the definition for several `k` and numbers of threads.
fn check(what: &str, e: &[f32], v: &[f32], width: usize) {
    let unembedding = MatrixView::from_f32(e.len() / width, width, e).unwrap();
    let vectors = MatrixView::from_f32(v.len() / width, width, v).unwrap();
    for k in [1, 10] {
        let expected = definition(e, v, width, k);
        for threads in [1, 3] {
            let found =
                top_tokens(&Pool::new(threads), &unembedding, &vectors, k, &Cancel::new()).unwrap();
            for (feature, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_eq!(found, expected, "{what}: feature {feature}, k {k}, {threads} threads");
            }
        }
    }
}

/// About normal: the sum of twelve uniform numbers less six.
fn gaussian(count: usize, mut seed: u64) -> Vec<f32> {
    let mut uniform = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}

#[test]
fn lists_are_exact_on_normal_rows_of_any_width() {
    for (tokens, features, width) in [(3000, 100, 256), (777, 61, 131), (40, 64, 5), (1500, 50, 1)]
    {
        let (e, v) = (gaussian(tokens * width, 1), gaussian(features * width, 2));
        check(&format!("{tokens} x {width}"), &e, &v, width);
    }
}

#[test]
fn lists_are_exact_where_a_few_columns_are_a_thousand_times_larger() {
    let width = 192;
    let mut e = gaussian(1200 * width, 3);
    let mut v = gaussian(70 * width, 4);
    for row in e.chunks_mut(width) {
        row[5] *= 1000.0;
        row[77] *= 300.0;
    }
    check("outlier columns", &e, &v, width);
    // Features blind to these columns are decided by what rounding loses; some point at a token.
    for (feature, row) in v.chunks_mut(width).enumerate() {
        if feature % 2 == 0 {
            row.copy_from_slice(&e[feature * 9 * width..][..width]);
        }
        row[5] = 0.0;
        row[77] = 0.0;
    }
    check("features blind to outliers", &e, &v, width);
}

#[test]
fn lists_are_exact_on_heavy_tails_and_lengths_far_apart() {
    let width = 96;
    let heavy = |rows: usize, seed| -> Vec<f32> {
        gaussian(rows * width, seed).iter().map(|x| x.powi(7)).collect()
    };
    check("heavy tails", &heavy(900, 5), &heavy(60, 6), width);
    let mut e = gaussian(900 * width, 7);
    let mut v = gaussian(60 * width, 8);
    for (token, row) in e.chunks_mut(width).enumerate() {
        let scale = 10_f32.powi(token as i32 % 37 - 18);
        row.iter_mut().for_each(|x| *x *= scale);
    }
    for (feature, row) in v.chunks_mut(width).enumerate() {
        let scale = 10_f32.powi(feature as i32 % 9 * 4 - 16);
        row.iter_mut().for_each(|x| *x *= scale);
    }
    check("lengths far apart", &e, &v, width);
}

#[test]
fn lists_are_exact_where_everything_ties() {
    let width = 33;
    // Small whole numbers tie often and add without rounding in any order.
    let e: Vec<f32> = (0..700 * width).map(|i| ((i * i + i / 7) % 5) as f32 - 2.0).collect();
    let v: Vec<f32> = (0..150 * width).map(|i| ((i * 13 + i / 11) % 7) as f32 - 3.0).collect();
    check("whole numbers", &e, &v, width);
    check("equal rows", &gaussian(width, 9).repeat(500), &v, width);
    check("zero tokens", &vec![0.0; 500 * width], &v, width);
    check("zero features", &e, &vec![0.0; 60 * width], width);
    check("ones", &vec![1.0; 500 * width], &vec![1.0; 60 * width], width);
}

#[test]
fn damaged_rows_are_scored_like_all_others() {
    let width = 40;
    let mut e = gaussian(600 * width, 10);
    let mut v = gaussian(80 * width, 11);
    for (token, row) in e.chunks_mut(width).enumerate() {
        match token % 50 {
            3 => row[7] = f32::NAN,
            9 => row[1] = f32::INFINITY,
            12 => row.fill(0.0),
            17 => row.iter_mut().for_each(|x| *x *= 1e-42),
            23 => row.iter_mut().for_each(|x| *x = -x.abs()),
            _ => {}
        }
    }
    v[..width].fill(0.0);
    v[width] = f32::NAN;
    v[2 * width] = f32::NEG_INFINITY;
    v[3 * width..4 * width].iter_mut().for_each(|x| *x *= 1e-41);
    v[4 * width..5 * width].iter_mut().for_each(|x| *x *= 1e37);
    check("damaged rows", &e, &v, width);
}

#[test]
fn lists_longer_than_the_vocabulary_hold_all_of_it() {
    let width = 24;
    let (e, v) = (gaussian(150 * width, 12), gaussian(60 * width, 13));
    let unembedding = MatrixView::from_f32(150, width, &e).unwrap();
    let vectors = MatrixView::from_f32(60, width, &v).unwrap();
    for k in [0, 149, 5000] {
        let found = top_tokens(&Pool::new(2), &unembedding, &vectors, k, &Cancel::new()).unwrap();
        assert_eq!(found, definition(&e, &v, width, k));
    }
}

#[test]
fn a_vocabulary_serves_packed_rows_of_many_matrices() {
    let width = 257;
    let pack = |count: usize, seed, dtype: Dtype| {
        let mut bytes = vec![0; dtype.bytes_for(count * width).unwrap()];
        from_f32(dtype, &gaussian(count * width, seed), &mut bytes);
        let mut values = vec![0.0; count * width];
        crate::quant::to_f32(dtype, &bytes, &mut values);
        (bytes, values)
    };
    let (bytes, e) = pack(900, 14, Dtype::BF16);
    let unembedding = MatrixView::new(Dtype::BF16, 900, width, &bytes).unwrap();
    let (pool, cancel) = (Pool::new(2), Cancel::new());
    let vocabulary = Vocabulary::new(&pool, unembedding, &cancel).unwrap();
    for (k, count, dtype) in [(10, 70, Dtype::F16), (1, 50, Dtype::BF16), (3, 7, Dtype::F32)] {
        let (bytes, v) = pack(count, 15, dtype);
        let vectors = MatrixView::new(dtype, count, width, &bytes).unwrap();
        let found = vocabulary.top_tokens(&pool, &vectors, k, &cancel).unwrap();
        assert_eq!(found, definition(&e, &v, width, k), "{dtype}");
    }
}

#[test]
fn lists_are_exact_on_a_trained_model() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../larqld/assets/atlas/model.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: &str| -> (usize, usize, Vec<f32>) {
        let tensor = file.tensor(name).unwrap();
        let [rows, columns] = tensor.shape()[..] else { panic!("{name} is no matrix") };
        let dtype = match tensor.dtype() {
            safetensors::Dtype::BF16 => Dtype::BF16,
            safetensors::Dtype::F16 => Dtype::F16,
            _ => Dtype::F32,
        };
        let mut values = vec![0.0; rows * columns];
        crate::quant::to_f32(dtype, tensor.data(), &mut values);
        (rows, columns, values)
    };
    let (_, width, e) = numbers("model.embed_tokens.weight");
    let (_, _, gate) = numbers("model.layers.3.mlp.gate_proj.weight");
    let (_, features, down) = numbers("model.layers.3.mlp.down_proj.weight");
    // Every fourth feature's column: the definition is slow.
    let column = |feature: usize| (0..width).map(move |row| row * features + feature);
    let columns: Vec<f32> =
        (0..features).step_by(4).flat_map(column).map(|index| down[index]).collect();
    check("atlas, down", &e, &columns, width);
    check("atlas, gate", &e, &gate[..256 * width], width);
}

#[test]
fn a_cancelled_scan_gives_no_lists() {
    let cancel = Cancel::new();
    let (e, v) = (gaussian(100 * 4, 17), gaussian(60 * 4, 18));
    let unembedding = MatrixView::from_f32(100, 4, &e).unwrap();
    let vectors = MatrixView::from_f32(60, 4, &v).unwrap();
    let pool = Pool::new(1);
    let vocabulary = Vocabulary::new(&pool, unembedding, &cancel).unwrap();
    cancel.cancel();
    assert!(vocabulary.top_tokens(&pool, &vectors, 1, &cancel).is_err());
    assert!(Vocabulary::new(&pool, unembedding, &cancel).is_err());
}
