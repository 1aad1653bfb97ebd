//! What quantising loses, against what ggml's reference quantisers lose on the same numbers.

use std::fs;
use std::path::Path;

use larql_compute::quant::{Dtype, from_f32, to_f32};
use safetensors::SafeTensors;

/// The formats that both write.
const FORMATS: [&str; 11] =
    ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "MXFP4"];

/// ggml's root mean square of the errors by that of the numbers, in the order of `FORMATS`.
///
/// Measured with `quantize_row_*_ref` and `dequantize_row_*` of ggml-quants.c as of llama-cpp-python
/// 0.3.36, rounded at the sixth place.
const GGML: [(&str, [f64; 11]); 5] = [
    (
        "gaussian",
        [
            0.084424, 0.077291, 0.042067, 0.037428, 0.005265, 0.292213, 0.148981, 0.070494,
            0.035663, 0.017497, 0.113047,
        ],
    ),
    (
        "heavy-tailed",
        [
            0.110168, 0.113419, 0.059906, 0.054488, 0.008512, 0.400186, 0.153926, 0.090093,
            0.049586, 0.024228, 0.140055,
        ],
    ),
    (
        "model.layers.0.mlp.down_proj.weight",
        [
            0.093891, 0.083349, 0.046755, 0.040348, 0.005867, 0.314579, 0.161069, 0.076456,
            0.038631, 0.019210, 0.118856,
        ],
    ),
    (
        "model.layers.0.self_attn.q_proj.weight",
        [
            0.086008, 0.078314, 0.042742, 0.037919, 0.005371, 0.296904, 0.150804, 0.071341,
            0.036236, 0.017790, 0.117396,
        ],
    ),
    (
        "model.embed_tokens.weight",
        [
            0.087907, 0.081451, 0.043850, 0.039416, 0.005507, 0.315123, 0.154383, 0.074436,
            0.037722, 0.018193, 0.117742,
        ],
    ),
];

/// The FNV-1a digests of the bytes that ggml writes for the gaussian and the heavy-tailed numbers,
/// for the formats that it quantises without a search.
const GGML_BYTES: [(&str, [u64; 2]); 5] = [
    ("Q4_0", [0x6233_c7b2_2157_873e, 0x7224_b86d_27a8_e099]),
    ("Q4_1", [0x25eb_4555_4cdd_75b6, 0xa205_6071_06a1_fd12]),
    ("Q5_0", [0xf320_9fed_1a0c_85ec, 0xe239_78c9_fb29_f060]),
    ("Q5_1", [0x18a8_d29b_ed92_bc3f, 0xef39_112d_9edd_7a5a]),
    ("Q8_0", [0xeb18_0293_e244_ce8c, 0xee84_bc8e_ca4a_c9e5]),
];

/// 65,536 numbers: about gaussian (twelve even numbers added), or their cubes.
fn numbers(cubed: bool) -> Vec<f32> {
    let mut state = 7_u64;
    let mut even = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / 16_777_216.0
    };
    let mut gaussian = || (0..12).map(|_| even()).sum::<f64>() - 6.0;
    let number = |g: f64| if cubed { 0.02 * g * g * g } else { 0.02 * g };
    (0..65_536).map(|_| number(gaussian()) as f32).collect()
}

/// A tensor of the model that larqld carries.
fn atlas(name: &str) -> Vec<f32> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../larqld/assets/atlas/model.safetensors");
    let file = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let dtype = Dtype::from_tag(&format!("{:?}", tensor.dtype())).unwrap();
    let mut values = vec![0.0; tensor.shape().iter().product()];
    to_f32(dtype, tensor.data(), &mut values);
    values
}

fn values(name: &str) -> Vec<f32> {
    match name {
        "gaussian" => numbers(false),
        "heavy-tailed" => numbers(true),
        name => atlas(name),
    }
}

fn encoded(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; dtype.bytes_for(values.len()).unwrap()];
    from_f32(dtype, values, &mut bytes);
    bytes
}

/// The root mean square of the errors by that of the numbers.
fn loss(dtype: Dtype, values: &[f32]) -> f64 {
    let mut found = vec![0.0; values.len()];
    to_f32(dtype, &encoded(dtype, values), &mut found);
    let squares = |numbers: &mut dyn Iterator<Item = f32>| -> f64 {
        numbers.map(|number| f64::from(number).powi(2)).sum()
    };
    let errors = squares(&mut values.iter().zip(&found).map(|(a, b)| a - b));
    (errors / squares(&mut values.iter().copied())).sqrt()
}

#[test]
fn no_format_loses_more_than_ggml_loses_on_the_same_numbers() {
    for (name, expected) in GGML {
        let values = values(name);
        for (tag, expected) in FORMATS.into_iter().zip(expected) {
            let found = loss(Dtype::from_tag(tag).unwrap(), &values);
            assert!(found <= expected + 1e-6, "{name} in {tag}: {found:.6}, ggml {expected:.6}");
        }
    }
}

#[test]
fn the_simple_formats_are_written_as_ggml_writes_them_to_the_byte() {
    for (tag, expected) in GGML_BYTES {
        let found = [false, true].map(|cubed| {
            let bytes = encoded(Dtype::from_tag(tag).unwrap(), &numbers(cubed));
            bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |digest, &byte| {
                (digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            })
        });
        assert_eq!(found, expected, "{tag}");
    }
}

#[test]
fn our_own_formats_lose_less_than_the_bound_of_their_elements() {
    for (name, fp4, fp8) in [("gaussian", 0.092, 0.0265), ("heavy-tailed", 0.105, 0.0265)] {
        let values = values(name);
        assert!(loss(Dtype::Fp4, &values) < fp4, "{name}: {}", loss(Dtype::Fp4, &values));
        assert!(loss(Dtype::Fp8, &values) < fp8, "{name}: {}", loss(Dtype::Fp8, &values));
        // Neither small numbers nor large ones are flushed or saturate.
        for factor in [1e-4, 1e5] {
            let scaled: Vec<f32> = values.iter().map(|value| value * factor).collect();
            let found = (loss(Dtype::Fp4, &scaled), loss(Dtype::Fp8, &scaled));
            assert!(found.0 < 1.05 * fp4 && found.1 < 1.2 * fp8, "{name} * {factor}: {found:?}");
        }
    }
}

#[test]
fn constant_zero_and_damaged_rows_are_written_in_every_format() {
    for dtype in Dtype::ALL.into_iter().filter(|dtype| dtype.can_encode()) {
        let bound = if dtype == Dtype::F8E5M2 { 0.13 } else { 0.07 };
        for value in [0.0, 1.0, -1.0, 0.37, -0.03, 200.0] {
            for length in [1, 33, 300] {
                let row = vec![value; length];
                let mut found = vec![f32::NAN; length];
                to_f32(dtype, &encoded(dtype, &row), &mut found);
                for found in found {
                    let error = (found - value).abs();
                    assert!(error <= bound * value.abs(), "{dtype}: {value} becomes {found}");
                }
            }
        }
        for value in [f32::NAN, f32::INFINITY, f32::MIN, 1e-40] {
            let mut row = vec![0.5; 257];
            (row[3], row[256]) = (value, value);
            encoded(dtype, &row);
        }
    }
}
