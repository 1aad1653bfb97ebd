//! Checkpoints as mlx-lm writes them hold the numbers of those that they were converted from.

use std::path::Path;

use larql_compute::model::{Role, WeightKey};
use larql_storage::file::DiskFiles;
use larql_tests::checkpoint::{numbers, write_changed};
use larql_tests::{mlx, repository};
use larqld::source::SourceModel;
use serde_json::json;

fn open(path: &Path) -> SourceModel {
    let opened = SourceModel::open(&DiskFiles::shared(), path);
    opened.unwrap_or_else(|failure| panic!("{}: {failure}", path.display()))
}

/// Heads, and keys and values of one, of the golden DeepSeek V3.
fn latent(config: &serde_json::Value) -> Option<(usize, usize, usize)> {
    let size = |key: &str| config[key].as_u64().map(|size| size as usize);
    let is_split = config["model_type"] == "deepseek_v3";
    let sizes =
        || Some((size("num_attention_heads")?, size("qk_nope_head_dim")?, size("v_head_dim")?));
    sizes().filter(|_| is_split)
}

const CONVERTED: &[&str] = &[
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "deepseek_v2",
    "deepseek_v3",
    "gemma4_moe",
    "gpt_oss_mxfp4",
    "gpt2",
];

#[test]
fn a_converted_checkpoint_holds_the_same_weights() {
    for name in CONVERTED {
        let golden = repository().join("tests/goldens").join(name);
        let directory = tempfile::tempdir().expect("a temporary directory");
        write_changed(&golden, directory.path(), |tensors, config| {
            mlx::convert(tensors, latent(config));
            if *name == "gpt_oss_mxfp4" {
                // mlx-lm writes its own object in both places.
                let own = json!({"group_size": 32, "bits": 4, "mode": "mxfp4"});
                config["quantization"] = own.clone();
                config["quantization_config"] = own;
            }
        });
        let (published, converted) = (open(&golden), open(directory.path()));
        let keys = |source: &SourceModel| -> Vec<WeightKey> {
            source.weights().map(|weight| weight.key).collect()
        };
        assert_eq!(keys(&published), keys(&converted), "{name}");
        for key in keys(&published) {
            assert!(numbers(&published, key) == numbers(&converted, key), "{name}: {key}");
        }
        let unused: Vec<&str> = converted.other_tensors().map(|tensor| tensor.name).collect();
        assert!(unused.iter().all(|name| !name.contains("experts")), "{name}: {unused:?}");
    }
}

#[test]
fn packed_experts_are_the_numbers_of_their_groups() {
    for (name, bits) in [("qwen3_moe", 4), ("mixtral", 8), ("deepseek_v3", 4), ("gemma4_moe", 8)] {
        let golden = repository().join("tests/goldens").join(name);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (mut meant, mut sizes) = (Default::default(), None);
        write_changed(&golden, directory.path(), |tensors, config| {
            sizes = latent(config);
            mlx::convert(tensors, sizes);
            meant = mlx::pack(tensors, bits, 11);
            config["quantization"] = json!({"group_size": mlx::GROUP, "bits": bits});
        });
        let source = open(directory.path());
        let mut experts = 0;
        for weight in source.weights().filter(|weight| weight.key.expert.is_some()) {
            let stack = &meant[source.name(weight)];
            let found = numbers(&source, weight.key);
            let first = weight.key.expert.expect("an expert") as usize * found.len();
            for (found, expected) in found.iter().zip(&stack[first..]) {
                assert_eq!(found, expected, "{name}: {}", weight.key);
            }
            experts += 1;
        }
        assert!(experts > 20, "{name}: {experts}");
        let Some((heads, keys, values)) = sizes else { continue };
        let found = numbers(&source, WeightKey::layer(Role::KvUp, 1));
        let [of_keys, of_values] = ["embed_q", "unembed_out"]
            .map(|part| &meant[&format!("model.layers.1.self_attn.{part}.weight")]);
        let inputs = found.len() / heads / (keys + values);
        for (row, found) in found.chunks(inputs).enumerate() {
            let (head, at) = (row / (keys + values), row % (keys + values));
            for (input, found) in found.iter().enumerate() {
                let expected = match at.checked_sub(keys) {
                    None => of_keys[(head * inputs + input) * keys + at],
                    Some(value) => of_values[(head * values + value) * inputs + input],
                };
                assert_eq!(*found, expected, "head {head}, row {at}");
            }
        }
    }
}
