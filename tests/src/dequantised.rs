//! A vindex turned back into a checkpoint of plain `f32` tensors: what a trip through a vindex must
//! compute, whatever types and layouts it stores.
//!
//! The vindex is read here from its manifest, tensor by tensor, and not by the code that serves it;
//! only what the block formats mean is `larql_compute::quant`'s, which has tests of its own.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use larql_compute::model::{Architecture, Candidate, Naming, TensorSpec, WeightKey};
use larql_compute::quant::{Dtype, MatrixView, Scales};
use safetensors::tensor::TensorView;
use serde_json::Value as Json;

/// A tensor as the manifest tells of it, with its bytes.
pub struct Record {
    /// Its entry in the manifest.
    pub entry: Json,
    /// The file that holds it.
    pub file: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Record {
    fn text(&self, field: &str) -> &str {
        self.entry[field].as_str().unwrap_or_else(|| panic!("no {field} in {}", self.entry))
    }

    /// Role, layer and expert.
    pub fn key(&self) -> (String, Option<u64>, Option<u64>) {
        let number = |field: &str| self.entry[field].as_u64();
        (self.text("role").to_owned(), number("layer"), number("expert"))
    }

    /// Its type.
    pub fn dtype(&self) -> &str {
        self.text("dtype")
    }

    /// Its name in the source.
    pub fn name(&self) -> &str {
        self.text("name")
    }

    /// Its dimensions as they lie in the bytes.
    pub fn shape(&self) -> Vec<usize> {
        let sizes = self.entry["shape"].as_array().expect("a shape").iter();
        sizes.map(|size| size.as_u64().expect("a size") as usize).collect()
    }
}

/// Every tensor of a vindex, by role, layer and expert.
pub fn records(vindex: &Path) -> BTreeMap<(String, Option<u64>, Option<u64>), Record> {
    let text = fs::read(vindex.join("index.json")).expect("index.json");
    let manifest: Json = serde_json::from_slice(&text).expect("JSON");
    let mut records = BTreeMap::new();
    for file in manifest["files"].as_array().expect("files") {
        let Some(tensors) = file["tensors"].as_array() else { continue };
        let name = file["name"].as_str().expect("a name");
        let content = fs::read(vindex.join(name)).expect("a file");
        for entry in tensors {
            let number = |field: &str| entry[field].as_u64().expect("a number") as usize;
            let bytes = content[number("offset")..][..number("bytes")].to_vec();
            let record = Record { entry: entry.clone(), file: name.to_owned(), bytes };
            assert!(records.insert(record.key(), record).is_none(), "{entry} is there twice");
        }
    }
    records
}

/// The numbers of a record, `[outputs, inputs]` or `[n]`, scales applied.
fn numbers(
    record: &Record,
    records: &BTreeMap<(String, Option<u64>, Option<u64>), Record>,
) -> (Vec<usize>, Vec<f32>) {
    let dtype = Dtype::from_tag(record.dtype()).unwrap_or_else(|| panic!("{}", record.entry));
    let shape = record.shape();
    let (rows, columns) = match shape[..] {
        [columns] => (1, columns),
        [rows, columns] => (rows, columns),
        _ => panic!("{}", record.entry),
    };
    let (role, layer, expert) = record.key();
    let companion = |suffix: &str| records.get(&(format!("{role}{suffix}"), layer, expert));
    let scales = &record.entry["scales"];
    let size = |field: &str| scales[field].as_u64().expect("a size") as usize;
    let dtype_of = |record: &Record| Dtype::from_tag(record.dtype()).expect("a plain type");
    let scales = match scales["kind"].as_str() {
        None => Scales::None,
        Some("grid") => {
            let grid = companion(".grid").expect("a grid");
            Scales::Grid {
                bytes: &grid.bytes,
                dtype: dtype_of(grid),
                rows: size("rows"),
                columns: size("columns"),
            }
        }
        Some("groups") => {
            let factors = companion(".scales").expect("scales");
            Scales::Groups {
                scales: &factors.bytes,
                biases: companion(".biases").map(|biases| &*biases.bytes),
                dtype: dtype_of(factors),
                group: size("group"),
            }
        }
        Some("mx") => Scales::Mx { bytes: &companion(".scales").expect("exponents").bytes },
        Some(other) => panic!("scales of the kind {other}"),
    };
    let view = MatrixView::stored(dtype, rows, columns, &record.bytes, scales)
        .unwrap_or_else(|error| panic!("{error}: {}", record.entry));
    let mut values = vec![0.0; rows * columns];
    for (row, out) in values.chunks_exact_mut(columns.max(1)).enumerate() {
        view.row_f32(row, out);
    }
    if record.text("layout") == "feature_major" {
        let turned = (0..rows * columns).map(|at| values[at % rows * columns + at / rows]);
        return (vec![columns, rows], turned.collect());
    }
    (shape, values)
}

/// Puts a weight where a checkpoint keeps it.
fn place(
    spec: &TensorSpec,
    candidate: &Candidate,
    values: &[f32],
    stored: &mut HashMap<String, (Vec<usize>, Vec<f32>)>,
) {
    let part = &candidate.part;
    let shape = part.stored_shape(&spec.shape);
    let count = shape.iter().product();
    let (known, numbers) = stored
        .entry(candidate.name.clone())
        .or_insert_with(|| (shape.clone(), vec![f32::NAN; count]));
    assert_eq!(*known, shape, "{}", candidate.name);
    let inputs = spec.shape.get(1).copied().unwrap_or(1);
    let slice = part.total * inputs;
    let numbers = &mut numbers[part.stack.map_or(0, |(index, _)| index * slice)..][..slice];
    for (at, &value) in values.iter().enumerate() {
        let (output, input) = (part.first + part.step * (at / inputs), at % inputs);
        let to =
            if part.transposed { input * part.total + output } else { output * inputs + input };
        numbers[to] = value;
    }
}

/// Writes the checkpoint whose weights are, number for number, those of a vindex.
pub fn write_checkpoint_of(vindex: &Path, destination: &Path) {
    fs::create_dir_all(destination).expect("a directory");
    let config = fs::read_to_string(vindex.join("config.json")).expect("config.json");
    let mut plain: Json = serde_json::from_str(&config).expect("JSON");
    for key in ["quantization_config", "quantization"] {
        plain.as_object_mut().expect("an object").remove(key);
    }
    fs::write(destination.join("config.json"), plain.to_string()).expect("config.json");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        if vindex.join(name).exists() {
            fs::copy(vindex.join(name), destination.join(name)).expect("a copy");
        }
    }
    let records = records(vindex);
    let architecture = Architecture::from_config(&config).expect("a configuration");
    let mut stored = HashMap::new();
    for spec in architecture.tensors(Naming::Hub) {
        let WeightKey { role, layer, expert } = spec.key;
        let key = (role.as_str().to_owned(), layer.map(u64::from), expert.map(u64::from));
        let Some(record) = records.get(&key) else {
            assert!(!spec.required, "{} is not in {}", spec.key, vindex.display());
            continue;
        };
        let (shape, values) = numbers(record, &records);
        assert_eq!(shape, spec.shape, "{}", spec.key);
        // The form of plain numbers, where a family has one for blocks as well.
        let plain = spec.candidates.iter().find(|candidate| !candidate.name.ends_with("_blocks"));
        place(&spec, plain.expect("a name"), &values, &mut stored);
    }
    let bytes: HashMap<&String, Vec<u8>> = stored
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = stored.iter().map(|(name, (shape, _))| {
        let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), &bytes[name]);
        (name.clone(), view.expect("a view"))
    });
    safetensors::serialize_to_file(views, None, &destination.join("model.safetensors"))
        .expect("a file");
}
