//! Checkpoints read by the `safetensors` crate, for oracles: nothing of the code under test.

use std::collections::HashMap;
use std::path::Path;

use half::{bf16, f16};
use larql_compute::model::{Orientation, WeightKey, Weights};
use safetensors::{Dtype, SafeTensors};

/// A matrix or vector in f64.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Row-major numbers.
    pub values: Vec<f64>,
}

impl Tensor {
    /// One row of a matrix.
    pub fn row(&self, row: usize) -> &[f64] {
        let columns = self.shape[1];
        &self.values[row * columns..(row + 1) * columns]
    }

    /// The matrix with rows and columns swapped.
    pub fn transposed(&self) -> Self {
        let (rows, columns) = (self.shape[0], self.shape[1]);
        let values =
            (0..rows * columns).map(|at| self.values[at % rows * columns + at / rows]).collect();
        Self { shape: vec![columns, rows], values }
    }

    /// The tensor with every number rounded to f16, as a vindex stores it by default.
    pub fn rounded_to_f16(mut self) -> Self {
        self.values.iter_mut().for_each(|value| *value = f16::from_f64(*value).to_f64());
        self
    }
}

/// Every tensor of a checkpoint directory, by name.
pub fn read(directory: &Path) -> HashMap<String, Tensor> {
    let mut tensors = HashMap::new();
    for entry in std::fs::read_dir(directory).expect("a checkpoint directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a weight file");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        for (name, view) in file.tensors() {
            let values = match view.dtype() {
                Dtype::F32 => decode(view.data(), |b: [u8; 4]| f32::from_le_bytes(b).into()),
                Dtype::F16 => decode(view.data(), |b: [u8; 2]| f16::from_le_bytes(b).to_f64()),
                Dtype::BF16 => decode(view.data(), |b: [u8; 2]| bf16::from_le_bytes(b).to_f64()),
                other => panic!("{name} is {other:?}"),
            };
            tensors.insert(name, Tensor { shape: view.shape().to_vec(), values });
        }
    }
    tensors
}

fn decode<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.chunks_exact(N).map(|chunk| read(chunk.try_into().expect("N bytes"))).collect()
}

/// The dot product in f64.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Writes a copy of a checkpoint whose every tensor is rounded to f16.
pub fn write_rounded_to_f16(source: &Path, destination: &Path) {
    use safetensors::tensor::TensorView;
    std::fs::create_dir_all(destination).expect("a directory");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(source.join(name), destination.join(name)).expect("a copy");
    }
    let tensors = read(source);
    let bytes: HashMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, tensor)| {
            let halves = tensor.values.iter().flat_map(|&value| f16::from_f64(value).to_le_bytes());
            (name, halves.collect())
        })
        .collect();
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(Dtype::F16, tensor.shape.clone(), &bytes[name]).expect("a view");
        (name.clone(), view)
    });
    safetensors::serialize_to_file(views, None, &destination.join("model.safetensors"))
        .expect("a file");
}

/// Writes a copy of a checkpoint of bf16 tensors whose gate rows have their signs turned.
pub fn write_with_gates_negated(source: &Path, destination: &Path) {
    use safetensors::tensor::TensorView;
    std::fs::create_dir_all(destination).expect("a directory");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(source.join(name), destination.join(name)).expect("a copy");
    }
    let bytes = std::fs::read(source.join("model.safetensors")).expect("a weight file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut changed = HashMap::new();
    for (name, view) in file.tensors() {
        assert_eq!(view.dtype(), Dtype::BF16, "{name}");
        let mut data = view.data().to_vec();
        if name.contains("gate_proj") {
            data.iter_mut().skip(1).step_by(2).for_each(|high| *high ^= 0x80);
        }
        changed.insert(name, (view.shape().to_vec(), data));
    }
    let views = changed.iter().map(|(name, (shape, data))| {
        (name, TensorView::new(Dtype::BF16, shape.clone(), data).expect("a view"))
    });
    safetensors::serialize_to_file(views, None, &destination.join("model.safetensors"))
        .expect("a file");
}

/// Writes a copy of a checkpoint directory with another of its files as `config.json`.
pub fn with_config(source: &Path, destination: &Path, config: &str) {
    std::fs::create_dir_all(destination).expect("a directory");
    for entry in std::fs::read_dir(source).expect("a checkpoint directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        if path.extension().is_none_or(|extension| extension != "gguf") {
            std::fs::copy(&path, destination.join(name)).expect("a copy");
        }
    }
    std::fs::copy(source.join(config), destination.join("config.json")).expect("a copy");
}

/// The numbers of one of a model's weights: a matrix by outputs, or a vector.
pub fn numbers(weights: &dyn Weights, key: WeightKey) -> Vec<f32> {
    let Some(matrix) = weights.matrix(key) else {
        return weights.vector(key).unwrap_or_else(|| panic!("no {key}")).into_owned();
    };
    let (outputs, inputs) = (matrix.outputs(), matrix.inputs());
    let element = |at: usize| match matrix.orientation {
        Orientation::OutIn => matrix.view.element(at / inputs, at % inputs),
        Orientation::InOut => matrix.view.element(at % inputs, at / inputs),
    };
    (0..outputs * inputs).map(element).collect()
}

/// A tensor of a file as it is, to be changed.
#[derive(Debug, Clone)]
pub struct Raw {
    /// Its type.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Writes a copy of a checkpoint of one file with its tensors and its configuration changed.
pub fn write_changed(
    source: &Path,
    destination: &Path,
    change: impl FnOnce(&mut HashMap<String, Raw>, &mut serde_json::Value),
) {
    use safetensors::tensor::TensorView;
    with_config(source, destination, "config.json");
    let weights = destination.join("model.safetensors");
    let bytes = std::fs::read(&weights).expect("a weight file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let raw = |view: TensorView<'_>| Raw {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    let mut tensors = file.tensors().into_iter().map(|(name, view)| (name, raw(view))).collect();
    let path = destination.join("config.json");
    let config = std::fs::read_to_string(&path).expect("config.json");
    let mut config = serde_json::from_str(&config).expect("JSON");
    change(&mut tensors, &mut config);
    std::fs::write(&path, config.to_string()).expect("config.json");
    let views = tensors.iter().map(|(name, raw)| {
        let view = TensorView::new(raw.dtype, raw.shape.clone(), &raw.bytes).expect("a view");
        (name, view)
    });
    safetensors::serialize_to_file(views, None, &weights).expect("a file");
}
