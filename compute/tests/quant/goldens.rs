//! Every entry of tests/goldens/quant_blocks.json, whose values are those of ggml's Python package
//! and of PyTorch.

use std::fs;
use std::path::Path;

use larql_compute::quant::{Dtype, MatrixView, Scales, from_f32, to_f32};
use serde_json::Value;

/// The formats of the file that larqld does not read: nobody was promised them.
const REFUSED: [&str; 8] =
    ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "TQ1_0", "TQ2_0"];

fn entries() -> Vec<(String, Value)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/quant_blocks.json");
    let file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let entries = file["types"].as_object().unwrap();
    entries.iter().map(|(name, entry)| (name.clone(), entry.clone())).collect()
}

fn entry(name: &str) -> Value {
    entries().into_iter().find(|(found, _)| found == name).unwrap().1
}

fn numbers(value: &Value) -> Vec<f32> {
    let number = |value: &Value| value.as_f64().map_or(f32::NAN, |number| number as f32);
    value.as_array().unwrap().iter().map(number).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn sizes(value: &Value) -> [usize; 2] {
    let sizes: Vec<usize> =
        value.as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect();
    sizes.try_into().unwrap()
}

/// The dtype of an entry that is a list of blocks.
fn dtype_of(name: &str) -> Option<Dtype> {
    Dtype::from_tag(if name == "mxfp4_ggml" { "MXFP4" } else { name })
}

/// Whether two numbers are equal, NaN being equal to itself.
fn assert_equal(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let equal = found == expected || found.is_nan() && expected.is_nan();
        assert!(equal, "{what}[{index}] is {found}, expected {expected}");
    }
}

#[test]
fn every_block_of_the_file_decodes_to_the_reference_values() {
    for (name, entry) in entries() {
        if REFUSED.contains(&name.as_str()) {
            assert_eq!(Dtype::from_tag(&name), None, "{name} is read: take it off the list");
            continue;
        }
        let Some(blocks) = entry["blocks"].as_array() else {
            let others = ["mxfp4_hf", "fp8_e4m3_block", "fp8_e4m3_all_codes", "fp8_e5m2_all_codes"];
            assert!(others.contains(&name.as_str()), "no test reads {name}");
            continue;
        };
        let dtype = dtype_of(&name).unwrap_or_else(|| panic!("{name} is not read"));
        for block in blocks {
            let (raw, expected) = (bytes(&block["raw"]), numbers(&block["values"]));
            let mut found = vec![f32::NAN; expected.len()];
            to_f32(dtype, &raw, &mut found);
            assert_equal(&found, &expected, &name);
        }
    }
}

#[test]
fn quantising_again_loses_less_than_quantising_did() {
    for (name, entry) in entries() {
        let (Some(dtype), Some(losses)) =
            (dtype_of(&name), entry["rms_error_of_gaussian_rows"].as_array())
        else {
            continue;
        };
        if !dtype.can_encode() {
            continue;
        }
        for (block, loss) in entry["blocks"].as_array().unwrap().iter().zip(losses) {
            let expected = numbers(&block["values"]);
            let mut raw = vec![0; bytes(&block["raw"]).len()];
            from_f32(dtype, &expected, &mut raw);
            let mut found = vec![f32::NAN; expected.len()];
            to_f32(dtype, &raw, &mut found);
            let squares = found.iter().zip(&expected).map(|(a, b)| f64::from(a - b).powi(2));
            let again = (squares.sum::<f64>() / expected.len() as f64).sqrt();
            assert!(again <= 0.2 * loss.as_f64().unwrap(), "{name}: {again} after {loss}");
        }
    }
}

#[test]
fn every_code_of_fp8_has_the_reference_value() {
    for (name, dtype) in
        [("fp8_e4m3_all_codes", Dtype::F8E4M3), ("fp8_e5m2_all_codes", Dtype::F8E5M2)]
    {
        let codes: Vec<u8> = (0..=255).collect();
        let expected = numbers(&entry(name)["values"]);
        let mut found = [0.0; 256];
        to_f32(dtype, &codes, &mut found);
        for (code, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // The file says null for whatever is not finite.
            let equal = found == expected || !found.is_finite() && expected.is_nan();
            assert!(equal, "{name} {code:#04x} is {found}, expected {expected}");
        }
    }
}

#[test]
fn fp8_in_blocks_takes_the_scale_of_its_tile() {
    let entry = entry("fp8_e4m3_block");
    let ([rows, columns], [tile_rows, tile_columns]) =
        (sizes(&entry["shape"]), sizes(&entry["block"]));
    let (raw, scales) = (bytes(&entry["raw"]), numbers(&entry["scale_inv"]));
    let grid = Scales::Grid {
        bytes: &scales.iter().flat_map(|scale| scale.to_le_bytes()).collect::<Vec<u8>>(),
        dtype: Dtype::F32,
        rows: tile_rows,
        columns: tile_columns,
    };
    let view = MatrixView::stored(Dtype::F8E4M3, rows, columns, &raw, grid).unwrap();
    let mut found = vec![0.0; rows * columns];
    for (row, found) in found.chunks_exact_mut(columns).enumerate() {
        view.row_f32(row, found);
    }
    assert_equal(&found, &numbers(&entry["values"]), "fp8_e4m3_block");
}

#[test]
fn gpt_oss_nibbles_take_the_exponents_beside_them() {
    let entry = entry("mxfp4_hf");
    let shape = numbers(&entry["shape_blocks"]);
    let (rows, columns) = (shape[0] as usize, (shape[1] * shape[2]) as usize * 2);
    let (raw, exponents) = (bytes(&entry["blocks"]), bytes(&entry["scales"]));
    let scales = Scales::Mx { bytes: &exponents };
    let view = MatrixView::stored(Dtype::E2M1, rows, columns, &raw, scales).unwrap();
    let mut found = vec![0.0; rows * columns];
    for (row, found) in found.chunks_exact_mut(columns).enumerate() {
        view.row_f32(row, found);
    }
    assert_equal(&found, &numbers(&entry["values"]), "mxfp4_hf");
}
