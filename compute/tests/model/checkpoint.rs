//! Weights for tests: read from a checkpoint's files, or drawn from a seed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use larql_compute::model::{
    Architecture, Candidate, Matrix, Naming, Orientation, Part, Role, TensorSpec, WeightKey,
    Weights,
};
use larql_compute::quant::{Dtype, MatrixView, Scales, from_f32, to_f32};
use safetensors::SafeTensors;

/// Tensors by role, as bytes of their dtype.
pub struct Checkpoint {
    tensors: HashMap<WeightKey, (Dtype, Vec<usize>, Vec<u8>)>,
    orientations: HashMap<Role, Orientation>,
    /// What the files hold, by name.
    pub names: Vec<String>,
}

/// What files hold, by name: format, shape, bytes.
struct Stored(HashMap<String, (String, Vec<usize>, Vec<u8>)>);

impl Stored {
    /// The part of a stored tensor that a weight is: as it lies where it is the whole of one,
    /// otherwise as `f32`.
    fn part(
        &self,
        candidate: &Candidate,
        spec: &TensorSpec,
    ) -> Option<(Dtype, Vec<usize>, Vec<u8>)> {
        let (tag, shape, bytes) = self.0.get(&candidate.name)?;
        let part = candidate.part;
        let stored = part.stored_shape(&spec.shape);
        let dtype = match tag.as_str() {
            "U8" => Dtype::E2M1,
            tag => Dtype::from_tag(tag).unwrap(),
        };
        if part == Part::whole(spec.shape[0]) && dtype.is_plain() {
            assert_eq!(*shape, spec.shape, "{}", candidate.name);
            return Some((dtype, shape.clone(), bytes.clone()));
        }
        let numbers = stored.iter().product::<usize>();
        assert_eq!(shape.iter().product::<usize>() * if tag == "U8" { 2 } else { 1 }, numbers);
        // Rows of all that is stacked, one matrix.
        let columns = *stored.last().unwrap();
        let companion = |suffix: &str| self.0.get(suffix).map(|(_, _, bytes)| bytes.as_slice());
        let scales = match dtype {
            Dtype::E2M1 => Scales::Mx {
                bytes: companion(&candidate.name.replace("_blocks", "_scales")).unwrap(),
            },
            Dtype::F8E4M3 => Scales::Grid {
                bytes: companion(&format!("{}_scale_inv", candidate.name)).unwrap(),
                dtype: Dtype::F32,
                rows: 128,
                columns: 128,
            },
            _ => Scales::None,
        };
        let view = MatrixView::stored(dtype, numbers / columns, columns, bytes, scales).unwrap();
        let element = |output: usize, input: usize| match (&spec.shape[..], part.transposed) {
            (&[_, inputs], true) => {
                view.element(part.stack.map_or(0, |stack| stack.0) * inputs + input, output)
            }
            (&[_, _], false) => {
                view.element(part.stack.map_or(0, |stack| stack.0) * part.total + output, input)
            }
            _ => view.element(part.stack.map_or(0, |stack| stack.0), output),
        };
        let inputs = spec.shape.get(1).copied().unwrap_or(1);
        let values = (0..spec.shape[0]).flat_map(|output| {
            let stored = part.first + output * part.step;
            (0..inputs).map(move |input| (stored, input))
        });
        let bytes = values.flat_map(|(output, input)| element(output, input).to_le_bytes());
        Some((Dtype::F32, spec.shape.clone(), bytes.collect()))
    }
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
        let mut found = Stored(HashMap::new());
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                let bytes = fs::read(path).unwrap();
                for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                    let tag = format!("{:?}", tensor.dtype());
                    found.0.insert(name, (tag, tensor.shape().to_vec(), tensor.data().to_vec()));
                }
            }
        }
        let mut tensors = HashMap::new();
        for spec in architecture.tensors(Naming::Hub) {
            let tensor = spec.candidates.iter().find_map(|candidate| found.part(candidate, &spec));
            assert!(tensor.is_some() || !spec.required, "{} is missing", spec.name());
            tensors.extend(tensor.map(|tensor| (spec.key, tensor)));
        }
        let names = found.0.into_keys().collect();
        Checkpoint { tensors, orientations: HashMap::new(), names }
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
        Checkpoint { tensors, orientations: HashMap::new(), names: Vec::new() }
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

    /// Replaces one row of a projection `[outputs, inputs]`; nothing where there is no such tensor.
    pub fn set_row(&mut self, key: WeightKey, row: usize, numbers: &[f32]) {
        self.change(key, |shape, values| {
            values[row * shape[1]..(row + 1) * shape[1]].copy_from_slice(numbers);
        });
    }

    /// Replaces one column.
    pub fn set_column(&mut self, key: WeightKey, column: usize, numbers: &[f32]) {
        self.change(key, |shape, values| {
            for (row, number) in numbers.iter().enumerate() {
                values[row * shape[1] + column] = *number;
            }
        });
    }

    fn change(&mut self, key: WeightKey, change: impl FnOnce(&[usize], &mut [f32])) {
        let Some((dtype, shape, bytes)) = self.tensors.get_mut(&key) else { return };
        let mut values = vec![0.0; shape.iter().product()];
        to_f32(*dtype, bytes, &mut values);
        change(shape, &mut values);
        *bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        *dtype = Dtype::F32;
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
