//! Weights for tests: read from a checkpoint's files, or drawn from a seed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use larql_compute::model::{Architecture, Matrix, Naming, Orientation, Role, WeightKey, Weights};
use larql_compute::quant::{Dtype, MatrixView, from_f32, to_f32};
use safetensors::SafeTensors;

/// Tensors by role, as bytes of their dtype.
pub struct Checkpoint {
    tensors: HashMap<WeightKey, (Dtype, Vec<usize>, Vec<u8>)>,
    orientations: HashMap<Role, Orientation>,
}

pub fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens").join(name)
}

pub fn architecture(folder: &Path) -> Architecture {
    Architecture::from_config(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
}

impl Checkpoint {
    /// Reads every safetensors file of a folder.
    pub fn open(folder: &Path, architecture: &Architecture) -> Checkpoint {
        let mut found = HashMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                let bytes = fs::read(path).unwrap();
                for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                    let dtype = Dtype::from_tag(&format!("{:?}", tensor.dtype())).unwrap();
                    found.insert(name, (dtype, tensor.shape().to_vec(), tensor.data().to_vec()));
                }
            }
        }
        let mut tensors = HashMap::new();
        for spec in architecture.tensors(Naming::Hub) {
            let tensor = spec.whole().find_map(|name| found.remove(name));
            assert!(tensor.is_some() || !spec.required, "{} is missing", spec.name());
            if let Some(tensor) = tensor {
                assert_eq!(tensor.1, spec.shape, "{}", spec.name());
                tensors.insert(spec.key, tensor);
            }
        }
        Checkpoint { tensors, orientations: HashMap::new() }
    }

    /// Draws every tensor from a seed, norms near 1 (or 0, where an offset of 1 is added).
    pub fn random(architecture: &Architecture, dtype: Dtype, seed: u64) -> Checkpoint {
        let mut state = seed;
        let mut number = || {
            // SplitMix64, mapped to -1 .. 1.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut tensors = HashMap::new();
        for spec in architecture.tensors(Naming::Hub).into_iter().filter(|spec| spec.required) {
            let count = spec.shape.iter().product();
            let scale = match spec.shape[..] {
                [_, inputs] => 1.7 / (inputs as f32).sqrt(),
                _ => 0.3,
            };
            let norm = spec.key.role.is_norm_weight();
            let centre = if norm { 1.0 - architecture.norm.offset } else { 0.0 };
            let values: Vec<f32> = (0..count).map(|_| centre + number() * scale).collect();
            let mut bytes = vec![0; dtype.bytes_for(count).unwrap()];
            from_f32(dtype, &values, &mut bytes);
            tensors.insert(spec.key, (dtype, spec.shape, bytes));
        }
        Checkpoint { tensors, orientations: HashMap::new() }
    }

    /// The same numbers with the rows of a role's projections as inputs.
    pub fn transposed(mut self, role: Role) -> Checkpoint {
        for (_, (dtype, shape, bytes)) in
            self.tensors.iter_mut().filter(|(key, _)| key.role == role)
        {
            let element = dtype.bytes_for(1).unwrap();
            let mut transposed = Vec::with_capacity(bytes.len());
            for input in 0..shape[1] {
                for output in 0..shape[0] {
                    let at = (output * shape[1] + input) * element;
                    transposed.extend_from_slice(&bytes[at..at + element]);
                }
            }
            *bytes = transposed;
        }
        self.orientations.insert(role, Orientation::InOut);
        self
    }

    pub fn without(mut self, key: WeightKey) -> Checkpoint {
        self.tensors.remove(&key).expect("a tensor to remove");
        self
    }

    /// A tensor's numbers as checkpoints store them (`[outputs, inputs]`).
    pub fn numbers(&self, key: WeightKey) -> Option<Vec<f64>> {
        let (dtype, shape, bytes) = self.tensors.get(&key)?;
        let mut values = vec![0.0; shape.iter().product()];
        to_f32(*dtype, bytes, &mut values);
        let mut numbers: Vec<f64> = values.into_iter().map(f64::from).collect();
        if self.orientations.contains_key(&key.role) {
            let (outputs, inputs) = (shape[0], shape[1]);
            let stored = numbers.clone();
            for (index, number) in numbers.iter_mut().enumerate() {
                *number = stored[index % inputs * outputs + index / inputs];
            }
        }
        Some(numbers)
    }
}

impl Weights for Checkpoint {
    fn matrix(&self, key: WeightKey) -> Option<Matrix<'_>> {
        let (dtype, shape, bytes) = self.tensors.get(&key)?;
        let orientation = self.orientations.get(&key.role).copied().unwrap_or(Orientation::OutIn);
        let (rows, columns) = match orientation {
            Orientation::OutIn => (shape[0], shape[1]),
            Orientation::InOut => (shape[1], shape[0]),
        };
        let view = MatrixView::new(*dtype, rows, columns, bytes).unwrap();
        Some(Matrix { view, orientation })
    }

    fn vector(&self, key: WeightKey) -> Option<Cow<'_, [f32]>> {
        let (dtype, shape, bytes) = self.tensors.get(&key)?;
        let mut values = vec![0.0; shape[0]];
        to_f32(*dtype, bytes, &mut values);
        Some(Cow::Owned(values))
    }
}
