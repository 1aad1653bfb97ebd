//! Weights that a publisher joined to one tensor and quantised as one: FP8 with tiles that cover rows
//! of two of them.

use std::collections::HashMap;

use larql_compute::cpu::Cancel;
use larql_compute::model::{Role, WeightKey};
use larql_compute::quant::{Dtype, to_f32};
use larql_storage::file::DiskFiles;
use larql_tests::checkpoint::{Raw, numbers, write_changed};
use larql_tests::daemon::Daemon;
use larql_tests::random_checkpoint::Random;
use larql_tests::repository;
use larqld::mounts::Model;
use larqld::source::SourceModel;
use serde_json::json;

/// Rows and columns of a tile; neither divides what it lies on.
const TILE: (usize, usize) = (40, 24);

/// Makes a matrix FP8 by chance, and returns its tiles' factors with the numbers meant.
fn quantise(raw: &mut Raw, random: &mut Random) -> (Raw, Vec<f32>) {
    let &[rows, columns] = &raw.shape[..] else { panic!("no matrix") };
    let grid = [rows.div_ceil(TILE.0), columns.div_ceil(TILE.1)];
    let factors: Vec<f32> =
        (0..grid[0] * grid[1]).map(|_| (1 + random.below(40)) as f32 / 4096.0).collect();
    // All but the two that are no numbers.
    let code = |_| [0x00, 0x80][random.below(2)] | random.below(0x7f) as u8;
    raw.bytes = (0..rows * columns).map(code).collect();
    raw.dtype = safetensors::Dtype::F8_E4M3;
    let mut meant = vec![0.0; rows * columns];
    to_f32(Dtype::F8E4M3, &raw.bytes, &mut meant);
    for (at, number) in meant.iter_mut().enumerate() {
        let (row, column) = (at / columns, at % columns);
        *number *= factors[row / TILE.0 * grid[1] + column / TILE.1];
    }
    let bytes = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
    (Raw { dtype: safetensors::Dtype::F32, shape: grid.to_vec(), bytes }, meant)
}

#[tokio::test]
async fn parts_of_a_fused_fp8_tensor_have_the_factors_of_their_own_rows() {
    let daemon = Daemon::start();
    let golden = repository().join("tests/goldens/phi3");
    let path = daemon.data_dir().join("fused");
    let (mut random, mut meant) = (Random(77), HashMap::new());
    write_changed(&golden, &path, |tensors, config| {
        let mut names: Vec<String> = tensors.keys().cloned().collect();
        names.sort_unstable();
        for name in names {
            if name.contains("qkv_proj") || name.contains("gate_up_proj") {
                let raw = tensors.get_mut(&name).expect("a tensor");
                let (factors, numbers) = quantise(raw, &mut random);
                tensors.insert(format!("{name}_scale_inv"), factors);
                meant.insert(name, numbers);
            }
        }
        config["quantization_config"] =
            json!({"quant_method": "fp8", "weight_block_size": [TILE.0, TILE.1]});
    });
    let vindex = daemon.data_dir().join("fused.vindex");
    daemon.extract(&path, &vindex, "WITH ALL DTYPE SOURCE").await;
    let source = SourceModel::open(&DiskFiles::shared(), &path).expect("a checkpoint");
    let extracted = Model::open(&DiskFiles::shared(), &vindex, &Cancel::new()).expect("a vindex");
    for layer in 0..source.architecture().layers() {
        for (name, roles) in [
            ("self_attn.qkv_proj", &[Role::Query, Role::Key, Role::Value][..]),
            ("mlp.gate_up_proj", &[Role::Gate, Role::Up]),
        ] {
            let mut expected = &meant[&format!("model.layers.{layer}.{name}.weight")][..];
            for role in roles {
                let key = WeightKey::layer(*role, layer);
                let found = numbers(&source, key);
                let (own, rest) = expected.split_at(found.len());
                assert!(found == own, "{key} of the checkpoint");
                assert!(numbers(&extracted, key) == own, "{key} of the vindex");
                expected = rest;
            }
            assert!(expected.is_empty(), "{name}");
        }
    }
}
