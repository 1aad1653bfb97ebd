//! What is wrong with a published checkpoint is said by name before anything is computed: the tensor,
//! what it is, what it should be.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{Role, WeightKey, Weights as _};
use larql_storage::file::{DiskFiles, Files};
use larql_storage::vindex::Checksum;
use larql_tests::checkpoint::{Raw, write_changed};
use larql_tests::goldens::CASES;
use larql_tests::repository;
use larqld::failure::{Failure, code};
use larqld::mounts::{Model, checkpoint_base_hash, checkpoint_hashes};
use larqld::source::SourceModel;

fn files() -> Arc<dyn Files> {
    Arc::new(DiskFiles)
}

/// Opens a copy of a golden folder that was changed.
fn open_changed(
    folder: &str,
    change: impl FnOnce(&mut HashMap<String, Raw>, &mut serde_json::Value),
) -> Result<Model, Failure> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_changed(&repository().join("tests/goldens").join(folder), directory.path(), change);
    Model::open_checkpoint(&files(), directory.path(), &Cancel::new())
}

fn refused(
    folder: &str,
    named: &[&str],
    change: impl FnOnce(&mut HashMap<String, Raw>, &mut serde_json::Value),
) {
    let failure = open_changed(folder, change).expect_err("the checkpoint is refused");
    assert_eq!(failure.code, code::UNSUPPORTED_FORMAT, "{failure}");
    assert!(!failure.hint.is_empty(), "{failure}");
    for name in named {
        assert!(failure.message.contains(name), "{name} is not named in: {}", failure.message);
    }
}

const DOWN: &str = "model.layers.1.mlp.down_proj.weight";

#[test]
fn a_tensor_that_is_missing_is_named() {
    refused("llama2", &[DOWN], |tensors, _| drop(tensors.remove(DOWN)));
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    refused("llama2", &[DOWN, "[88, 64]", "[64, 88]"], |tensors, _| {
        let tensor = tensors.get_mut(DOWN).expect("a tensor");
        assert_eq!(tensor.shape, [64, 88]);
        tensor.shape.reverse();
    });
}

#[test]
fn outer_axes_of_one_may_be_missing_as_in_files_that_ggml_wrote() {
    let gate = "model.layers.0.mlp.shared_expert_gate.weight";
    let opened = open_changed("qwen2_moe", |tensors, _| {
        let tensor = tensors.get_mut(gate).expect("a tensor");
        assert_eq!(tensor.shape.remove(0), 1);
    });
    assert!(opened.is_ok(), "{:?}", opened.err());
}

#[test]
fn a_tensor_of_a_type_that_holds_no_weights_is_named_with_it() {
    refused("llama2", &[DOWN, "I16"], |tensors, _| {
        tensors.get_mut(DOWN).expect("a tensor").dtype = safetensors::Dtype::I16;
    });
}

#[test]
fn fp8_weights_without_their_scales_are_refused() {
    let scales = "model.layers.0.self_attn.o_proj.weight_scale_inv";
    refused("deepseek_v3_fp8", &[scales, "missing"], |tensors, _| drop(tensors.remove(scales)));
    refused("deepseek_v3_fp8", &[scales, "[1, 2]", "[2, 1]"], |tensors, _| {
        tensors.get_mut(scales).expect("scales").shape.reverse();
    });
    refused("deepseek_v3_fp8", &["weight_block_size"], |_, config| {
        config["quantization_config"]["weight_block_size"] = serde_json::Value::Null;
    });
    refused("deepseek_v3_fp8", &["weight_scale_inv", "weight_block_size"], |_, config| {
        config.as_object_mut().expect("an object").remove("quantization_config");
    });
}

#[test]
fn another_tile_than_the_scales_were_made_for_is_refused() {
    refused("deepseek_v3_fp8", &["weight_scale_inv", "shape"], |_, config| {
        config["quantization_config"]["weight_block_size"] = serde_json::json!([64, 64]);
    });
}

#[test]
fn mxfp4_weights_without_their_exponents_are_refused() {
    let scales = "model.layers.1.mlp.experts.down_proj_scales";
    refused("gpt_oss_mxfp4", &[scales, "missing"], |tensors, _| drop(tensors.remove(scales)));
    refused("gpt_oss_mxfp4", &[scales, "F8_E4M3"], |tensors, _| {
        tensors.get_mut(scales).expect("exponents").dtype = safetensors::Dtype::F8_E4M3;
    });
}

#[test]
fn packed_weights_are_refused_unless_config_json_says_how_they_are_packed() {
    let scales = "model.layers.0.self_attn.q_proj.scales";
    refused("llama3_mlx4", &[scales, "missing"], |tensors, _| drop(tensors.remove(scales)));
    refused("llama3_mlx4", &["quantization"], |_, config| {
        let config = config.as_object_mut().expect("an object");
        config.remove("quantization");
        config.remove("quantization_config");
    });
    // 8 bits make half as many columns of the same words.
    for key in ["quantization", "quantization_config"] {
        refused("llama3_mlx4", &["shape", "[512, 32]", "[512, 64]"], |_, config| {
            let config = config.as_object_mut().expect("an object");
            config.remove("quantization");
            config.remove("quantization_config");
            config.insert(key.to_owned(), serde_json::json!({"group_size": 32, "bits": 8}));
        });
    }
}

#[test]
fn a_quantisation_that_is_not_read_is_refused_by_its_name() {
    refused("llama2", &["quant_method", "awq"], |_, config| {
        config["quantization_config"] = serde_json::json!({"quant_method": "awq", "bits": 4});
    });
}

/// Extraction takes both hashes at once, and mounting the base hash alone.
#[test]
fn hashes_from_one_reading_are_those_of_tensors_and_files_by_themselves() {
    let (one, many) = (Pool::new(1), Pool::new(5));
    for case in CASES {
        let source = SourceModel::open(&files(), &case.path())
            .unwrap_or_else(|failure| panic!("{}: {failure}", case.name()));
        let alone = checkpoint_base_hash(&source, "f16", &mut |_| Ok(())).expect("readable");
        for pool in [&one, &many] {
            let mut read = 0;
            let (base_hash, checksums) = checkpoint_hashes(&source, "f16", pool, &mut |bytes| {
                assert!(bytes >= read, "{}: {bytes} after {read}", case.name());
                read = bytes;
                Ok(())
            })
            .expect("readable");
            assert_eq!(base_hash, alone, "{}", case.name());
            assert_eq!(read, source.checkpoint().bytes(), "{}", case.name());
            let weight_files: Vec<_> = source.checkpoint().weight_files().collect();
            assert_eq!(checksums.len(), weight_files.len(), "{}", case.name());
            for ((name, bytes), found) in weight_files.into_iter().zip(&checksums) {
                assert_eq!((&*found.name, found.sha256), (name, Checksum::of(bytes)));
            }
        }
    }
}

/// Every weight is given out in its own shape, wherever it lies, and every tensor that is no weight
/// is known: nothing of a checkpoint gets lost.
#[test]
fn every_weight_of_every_checkpoint_has_its_shape_and_no_tensor_is_lost() {
    for case in CASES {
        let source = SourceModel::open(&files(), &case.path())
            .unwrap_or_else(|failure| panic!("{}: {failure}", case.name()));
        let mut tensors: Vec<&str> = Vec::new();
        for weight in source.weights() {
            let name = format!("{}: {}", case.name(), weight.key);
            match weight.shape[..] {
                [count] => {
                    assert_eq!(source.vector(weight.key).expect(&name).len(), count, "{name}");
                    assert!(source.matrix(weight.key).is_none(), "{name}");
                }
                [outputs, inputs] => {
                    let matrix = source.matrix(weight.key).expect(&name);
                    assert_eq!((matrix.outputs(), matrix.inputs()), (outputs, inputs), "{name}");
                    let mut row = vec![0.0; matrix.view.columns()];
                    matrix.view.row_f32(matrix.view.rows() - 1, &mut row);
                    assert!(row.iter().all(|value| value.is_finite()), "{name}");
                }
                _ => panic!("{name} has the shape {:?}", weight.shape),
            }
            tensors.extend(source.stored_tensors(weight).map(|tensor| tensor.name));
        }
        tensors.extend(source.other_tensors().map(|tensor| tensor.name));
        tensors.sort_unstable();
        tensors.dedup();
        let all: Vec<&str> = source.checkpoint().tensors().map(|tensor| tensor.name).collect();
        assert_eq!(tensors, all, "{}", case.name());
    }
}

/// The three parts of GPT-2's joined projection, which lies the other way around, are its columns.
#[test]
fn parts_of_a_joined_transposed_projection_are_its_columns() {
    let path = repository().join("tests/goldens/gpt2");
    let source = SourceModel::open(&files(), &path).expect("GPT-2 opens");
    let tensors = larql_tests::checkpoint::read(Path::new(&path));
    let joined = &tensors["h.1.attn.c_attn.weight"];
    let width = joined.shape[0];
    for (index, role) in [Role::Query, Role::Key, Role::Value].into_iter().enumerate() {
        let matrix = source.matrix(WeightKey::layer(role, 1)).expect("a projection");
        assert_eq!((matrix.outputs(), matrix.inputs()), (width, width));
        for output in 0..width {
            for input in 0..width {
                let (row, column) = match matrix.orientation {
                    larql_compute::model::Orientation::OutIn => (output, input),
                    larql_compute::model::Orientation::InOut => (input, output),
                };
                let expected = joined.row(input)[index * width + output];
                assert_eq!(f64::from(matrix.view.element(row, column)), expected, "{role}");
            }
        }
    }
}

/// Where a checkpoint keeps embedding and unembedding.
fn ends(tensors: &HashMap<String, Raw>) -> (String, Option<String>) {
    let find = |ends: &[&str]| {
        let mut names = tensors.keys().filter(|name| ends.iter().any(|end| name.ends_with(end)));
        names.next().cloned()
    };
    let embedding = find(&["embed_tokens.weight", "wte.weight"]).expect("an embedding");
    (embedding, find(&["lm_head.weight"]))
}

/// Says that the embedding is the unembedding too, wherever the family reads it.
fn tie(config: &mut serde_json::Value) {
    config["tie_word_embeddings"] = true.into();
}

/// The checkpoints of one safetensors file whose matrices are plain numbers.
fn plain_checkpoints() -> Vec<String> {
    let folders = CASES.iter().filter(|case| {
        let path = case.path();
        let config = std::fs::read_to_string(path.join("config.json")).unwrap_or_default();
        path.join("model.safetensors").exists() && !config.contains("\"quantization")
    });
    let name =
        |path: std::path::PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    let mut names: Vec<String> = folders.map(|case| name(case.path())).collect();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() > 15, "{names:?}");
    names
}

#[test]
fn two_different_matrices_are_two_weights_whatever_config_json_says() {
    for folder in plain_checkpoints() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let golden = repository().join("tests/goldens").join(&folder);
        write_changed(&golden, directory.path(), |tensors, config| {
            let (embedding, unembedding) = ends(tensors);
            if unembedding.is_none() {
                let mut turned = tensors[&embedding].clone();
                turned.bytes.reverse();
                tensors.insert("lm_head.weight".to_owned(), turned);
            }
            tie(config);
        });
        let source = SourceModel::open(&files(), directory.path())
            .unwrap_or_else(|failure| panic!("{folder}: {failure}"));
        assert!(!source.architecture().tied_embeddings, "{folder}");
        let found = source.weight(WeightKey::model(Role::Unembedding)).expect("an unembedding");
        assert_eq!(source.name(found), "lm_head.weight", "{folder}");
        assert!(source.notes().iter().any(|note| note.contains("different matrices")), "{folder}");
    }
}

#[test]
fn one_matrix_under_two_names_is_one_weight_where_config_json_says_so() {
    for folder in plain_checkpoints() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let golden = repository().join("tests/goldens").join(&folder);
        write_changed(&golden, directory.path(), |tensors, config| {
            let (embedding, _) = ends(tensors);
            tensors.insert("lm_head.weight".to_owned(), tensors[&embedding].clone());
            tie(config);
        });
        let source = SourceModel::open(&files(), directory.path())
            .unwrap_or_else(|failure| panic!("{folder}: {failure}"));
        assert!(source.architecture().tied_embeddings, "{folder}");
        assert!(source.notes().is_empty(), "{folder}: {:?}", source.notes());
    }
}

#[test]
fn a_tied_model_may_hold_its_matrix_under_the_name_of_the_unembedding_alone() {
    for folder in plain_checkpoints() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let golden = repository().join("tests/goldens").join(&folder);
        write_changed(&golden, directory.path(), |tensors, config| {
            let (embedding, _) = ends(tensors);
            let matrix = tensors.remove(&embedding).expect("an embedding");
            tensors.insert("lm_head.weight".to_owned(), matrix);
            tie(config);
        });
        let source = SourceModel::open(&files(), directory.path())
            .unwrap_or_else(|failure| panic!("{folder}: {failure}"));
        assert!(source.architecture().tied_embeddings, "{folder}");
        let found = source.weight(WeightKey::model(Role::Embedding)).expect("an embedding");
        assert_eq!(source.name(found), "lm_head.weight", "{folder}");
        assert!(source.weight(WeightKey::model(Role::Unembedding)).is_none(), "{folder}");
    }
}
