//! From the tensors that a family expects to those that a checkpoint holds: the one place where the
//! two are compared.
//!
//! For each [`TensorSpec`] the first candidate that is there and fits is taken. What it must be is
//! known before a byte is read: its type, its shape with the axes that stack experts or lie the other
//! way, and the scales that go with its type. What differs is an error that names the tensor, what was
//! expected and what was found.

use std::path::Path;
use std::sync::OnceLock;

use larql_compute::model::{Candidate, Part, SplitHeads, TensorSpec, WeightKey};
use larql_compute::quant::{Dtype, MatrixView, RowOrder, ViewError};
use larql_storage::checkpoint::{Checkpoint, Tensor};

use super::quantisation::{PackingKind, Quantisation};
use super::stored::{ScalesLayout, Stored, StoredBytes};
use super::unpack;
use crate::failure::{Failure, code};

/// Elements of a row of MXFP4 that share an exponent, and the bytes that hold them.
const MX_GROUP: usize = 32;
const MX_GROUP_BYTES: usize = 16;

/// Where the number of a tensor in a checkpoint's list is.
pub(super) type Position = usize;

/// A weight of the model, and where its checkpoint holds it.
#[derive(Debug)]
pub struct Resolved {
    /// Which weight.
    pub key: WeightKey,
    /// Its own shape: `[outputs, inputs]`, or `[n]` for a vector.
    pub shape: Vec<usize>,
    /// Which part of the stored tensor it is.
    pub part: Part,
    /// How one slice of the stored tensor (all of it, unless it stacks experts) is written.
    pub stored: Stored,
    pub(super) elements: Position,
    pub(super) scales: Option<Position>,
    pub(super) biases: Option<Position>,
    split: Option<Split>,
}

/// Keys and values of heads in two tensors, put together when the weight is first used.
#[derive(Debug)]
struct Split {
    heads: SplitHeads,
    keys: Half,
    values: Half,
    joined: OnceLock<Vec<u8>>,
}

/// The keys or the values of all heads, as they are stored.
#[derive(Debug, Clone, Copy)]
struct Half {
    stored: Stored,
    elements: Position,
    scales: Option<Position>,
    biases: Option<Position>,
}

impl Half {
    fn positions(&self) -> impl Iterator<Item = Position> + use<> {
        [Some(self.elements), self.scales, self.biases].into_iter().flatten()
    }

    fn view<'a>(&self, checkpoint: &'a Checkpoint) -> Result<MatrixView<'a>, ViewError> {
        let bytes = |position: Position| checkpoint.tensor_at(position).bytes;
        self.stored.view(StoredBytes {
            elements: bytes(self.elements),
            scales: self.scales.map_or(&[], bytes),
            biases: self.biases.map(bytes),
        })
    }
}

/// Everything that a comparison needs to know.
pub(super) struct Resolver<'a> {
    pub(super) path: &'a Path,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) quantisation: &'a Quantisation,
}

/// A candidate's tensor with the meaning of its type, not yet compared with the shape expected.
struct Found<'a> {
    tensor: Tensor<'a>,
    dtype: Dtype,
    /// Its shape in elements, however they are packed.
    shape: Vec<usize>,
    layout: ScalesLayout,
    scales: Option<Position>,
    biases: Option<Position>,
}

impl<'a> Resolver<'a> {
    /// The weight of a spec; `None` where it is optional and absent.
    ///
    /// # Errors
    /// `UNSUPPORTED_FORMAT` where it is required and absent, has another shape than the configuration
    /// makes it, has a type that is not read, or lacks its scales.
    pub(super) fn resolve(&self, spec: &TensorSpec) -> Result<Option<Resolved>, Failure> {
        let mut refused = None;
        for candidate in &spec.candidates {
            let Some(elements) = self.checkpoint.position(&candidate.name) else { continue };
            let fitted = match &candidate.heads {
                None => self.fit(spec, candidate, elements),
                Some(heads) => self.fit_heads(spec, candidate, heads, elements),
            };
            match fitted {
                Ok(resolved) => return Ok(Some(resolved)),
                // A later candidate of the same name may have the shape; else this is the reason.
                Err(failure) => refused = refused.or(Some(failure)),
            }
        }
        match (refused, spec.required) {
            (Some(failure), _) => Err(failure),
            (None, false) => Ok(None),
            (None, true) => Err(self.absent(spec)),
        }
    }

    fn fit(
        &self,
        spec: &TensorSpec,
        candidate: &Candidate,
        elements: Position,
    ) -> Result<Resolved, Failure> {
        let found = self.meaning(elements)?;
        let part = &candidate.part;
        let expected = part.stored_shape(&spec.shape);
        // Scalars are stored as `[]` and as `[1]`; ggml forgets outer axes of one altogether.
        if without_outer_ones(&found.shape) != without_outer_ones(&expected) {
            let reason =
                format!("has the shape {:?}; the configuration makes it {expected:?}", found.shape);
            return Err(self.wrong(found.tensor.name, reason));
        }
        let slice = &expected[usize::from(part.stack.is_some())..];
        let (rows, columns) = match *slice {
            [rows, columns] => (rows, columns),
            [columns] => (1, columns),
            _ => {
                let message = format!("{} is neither a vector nor a matrix", spec.key);
                return Err(Failure::new(code::INTERNAL, message));
            }
        };
        let resolved = Resolved {
            key: spec.key,
            shape: spec.shape.clone(),
            part: *part,
            stored: Stored { dtype: found.dtype, rows, columns, scales: found.layout },
            elements,
            scales: found.scales,
            biases: found.biases,
            split: None,
        };
        // Whether all lengths are right is the view's to say, once and for all.
        let bytes = resolved.bytes(self.checkpoint);
        resolved
            .stored
            .view(bytes)
            .map_err(|error| self.wrong(found.tensor.name, error.to_string()))?;
        // Whether the part is within the stored outputs, whatever an output is here.
        let outputs = MatrixView::new(Dtype::F32, part.total, 0, &[]);
        let taken = outputs.and_then(|outputs| outputs.select(spec.shape[0], resolved.order()));
        if taken.is_err() || (part.transposed && part.heads.is_some()) {
            let message = format!("{} is no part of {}: {part:?}", spec.key, found.tensor.name);
            return Err(Failure::new(code::INTERNAL, message));
        }
        Ok(resolved)
    }

    /// A weight whose heads' keys and values lie in two tensors.
    fn fit_heads(
        &self,
        spec: &TensorSpec,
        candidate: &Candidate,
        heads: &SplitHeads,
        elements: Position,
    ) -> Result<Resolved, Failure> {
        let &[outputs, inputs] = &spec.shape[..] else {
            return Err(Failure::new(code::INTERNAL, format!("{} is no matrix", spec.key)));
        };
        let name = &heads.values_name;
        let values_position = self.checkpoint.position(name).ok_or_else(|| {
            self.wrong(&candidate.name, format!("holds keys whose values are missing: {name}"))
        })?;
        let half = |elements: Position, expected: [usize; 3]| {
            let found = self.meaning(elements)?;
            let name = found.tensor.name;
            if found.shape != expected {
                let shape = &found.shape;
                let reason =
                    format!("has the shape {shape:?}; the configuration makes it {expected:?}");
                return Err(self.wrong(name, reason));
            }
            // Tiles would cover rows of two heads.
            if matches!(found.layout, ScalesLayout::Grid { .. }) {
                return Err(self.wrong(name, "has a factor for each tile".to_owned()));
            }
            let [count, rows, columns] = expected;
            let (dtype, scales) = (found.dtype, found.layout);
            let stored = Stored { dtype, rows: count * rows, columns, scales };
            let half = Half { stored, elements, scales: found.scales, biases: found.biases };
            half.view(self.checkpoint).map_err(|error| self.wrong(name, error.to_string()))?;
            Ok(half)
        };
        let keys = half(elements, [heads.heads, inputs, heads.keys])?;
        let values = half(values_position, [heads.heads, heads.values, inputs])?;
        let dtype = unpack::joined_dtype(keys.stored.dtype, values.stored.dtype);
        let heads = heads.clone();
        Ok(Resolved {
            key: spec.key,
            shape: spec.shape.clone(),
            part: candidate.part,
            stored: Stored { dtype, rows: outputs, columns: inputs, scales: ScalesLayout::None },
            elements,
            scales: None,
            biases: None,
            split: Some(Split { heads, keys, values, joined: OnceLock::new() }),
        })
    }

    /// What a tensor's type says about its elements, with the tensors that belong to it.
    fn meaning(&self, elements: Position) -> Result<Found<'a>, Failure> {
        let tensor = self.checkpoint.tensor_at(elements);
        let shape = tensor.shape.to_vec();
        let plain = |dtype| Found {
            tensor,
            dtype,
            shape: shape.clone(),
            layout: ScalesLayout::None,
            scales: None,
            biases: None,
        };
        match (tensor.format, tensor.name.strip_suffix("_blocks")) {
            ("U8", Some(stem)) => self.mx(plain(Dtype::E2M1), stem),
            ("U32", _) => self.groups(plain(Dtype::U4)),
            ("F8_E4M3", _) => self.grid(plain(Dtype::F8E4M3)),
            ("F8_E5M2", _) => self.grid(plain(Dtype::F8E5M2)),
            (tag, _) => match Dtype::from_tag(tag) {
                Some(dtype) => Ok(plain(dtype)),
                None => {
                    let reason = format!("has the type {tag}, which this build cannot read");
                    Err(self.wrong(tensor.name, reason))
                }
            },
        }
    }

    /// MXFP4: `[.., groups, 16]` bytes, two elements each, and `[.., groups]` exponents.
    fn mx(&self, found: Found<'a>, stem: &str) -> Result<Found<'a>, Failure> {
        let name = found.tensor.name;
        let [rest @ .., groups, MX_GROUP_BYTES] = &found.shape[..] else {
            let reason = format!("has the shape {:?}, not one of 16 bytes a group", found.shape);
            return Err(self.wrong(name, reason));
        };
        let scales = self.companion(name, &format!("{stem}_scales"))?;
        let expected: Vec<usize> = rest.iter().copied().chain([*groups]).collect();
        self.expect(scales, &["U8"], &expected)?;
        let columns = groups.checked_mul(MX_GROUP).ok_or_else(|| self.too_large(name))?;
        let shape = rest.iter().copied().chain([columns]).collect();
        Ok(Found { shape, layout: ScalesLayout::Mx, scales: Some(scales), ..found })
    }

    /// MLX: words of 32 bits that hold 4 or 8 elements, with a scale and a bias for each group, or with
    /// the exponents of MXFP4.
    fn groups(&self, found: Found<'a>) -> Result<Found<'a>, Failure> {
        let name = found.tensor.name;
        let (Some(module), [rest @ .., words]) = (name.strip_suffix(".weight"), &found.shape[..])
        else {
            return Err(self.wrong(name, "has the type U32, and is no weight".to_owned()));
        };
        let packing = self.quantisation.groups.as_ref().and_then(|groups| groups.of(module));
        let Some(packing) = packing else {
            let reason = "is packed, and config.json has no \"quantization\" that says how";
            return Err(self.wrong(name, reason.to_owned()));
        };
        let columns = words.checked_mul(32 / packing.bits).ok_or_else(|| self.too_large(name))?;
        if !columns.is_multiple_of(packing.group) {
            let reason = format!("has {columns} columns, no multiple of {}", packing.group);
            return Err(self.wrong(name, reason));
        }
        let scales = self.companion(name, &format!("{module}.scales"))?;
        let expected: Vec<usize> = rest.iter().copied().chain([columns / packing.group]).collect();
        let dtype = match packing.kind {
            PackingKind::Mx => {
                self.expect(scales, &["U8"], &expected)?;
                let shape = rest.iter().copied().chain([columns]).collect();
                let (layout, scales) = (ScalesLayout::Mx, Some(scales));
                return Ok(Found { dtype: Dtype::E2M1, shape, layout, scales, ..found });
            }
            PackingKind::Affine if packing.bits == 4 => Dtype::U4,
            PackingKind::Affine => Dtype::U8,
        };
        let scales_dtype = self.expect(scales, &["F16", "BF16", "F32"], &expected)?;
        let biases = self.companion(name, &format!("{module}.biases"))?;
        let tag = scales_dtype.tag();
        self.expect(biases, &[tag], &expected)?;
        Ok(Found {
            dtype,
            shape: rest.iter().copied().chain([columns]).collect(),
            layout: ScalesLayout::Groups { dtype: scales_dtype, group: packing.group },
            scales: Some(scales),
            biases: Some(biases),
            ..found
        })
    }

    /// FP8: a factor for each tile, where the configuration says that there are tiles.
    fn grid(&self, found: Found<'a>) -> Result<Found<'a>, Failure> {
        let name = found.tensor.name;
        let companion = format!("{name}_scale_inv");
        let Some((tile_rows, tile_columns)) = self.quantisation.tile else {
            let stem = name.strip_suffix(".weight").unwrap_or(name);
            let others = [companion, format!("{name}_scale"), format!("{stem}.scale_weight")];
            return match others.iter().find(|name| self.checkpoint.position(name).is_some()) {
                None => Ok(found),
                Some(scale) => {
                    let reason = format!(
                        "has scales in {scale}, and config.json has no \
                         quantization_config.weight_block_size that says how they lie"
                    );
                    Err(self.wrong(name, reason))
                }
            };
        };
        let [rest @ .., rows, columns] = &found.shape[..] else {
            return Err(self.wrong(name, "is FP8 and no matrix".to_owned()));
        };
        let scales = self.companion(name, &companion)?;
        let grid = [rows.div_ceil(tile_rows), columns.div_ceil(tile_columns)];
        let expected: Vec<usize> = rest.iter().copied().chain(grid).collect();
        let dtype = self.expect(scales, &["F32", "BF16", "F16"], &expected)?;
        let layout = ScalesLayout::Grid { dtype, rows: tile_rows, columns: tile_columns };
        Ok(Found { layout, scales: Some(scales), ..found })
    }

    fn companion(&self, name: &str, companion: &str) -> Result<Position, Failure> {
        self.checkpoint
            .position(companion)
            .ok_or_else(|| self.wrong(name, format!("has no scales: {companion} is missing")))
    }

    /// The dtype of a companion, whose type and shape must be these.
    fn expect(
        &self,
        position: Position,
        types: &[&str],
        shape: &[usize],
    ) -> Result<Dtype, Failure> {
        let tensor = self.checkpoint.tensor_at(position);
        if tensor.shape != shape {
            let reason = format!(
                "has the shape {:?}; the weight it scales makes it {shape:?}",
                tensor.shape
            );
            return Err(self.wrong(tensor.name, reason));
        }
        if !types.contains(&tensor.format) {
            let reason = format!("has the type {}, not {}", tensor.format, types.join(" or "));
            return Err(self.wrong(tensor.name, reason));
        }
        // Exponents are bytes, which no dtype names; their layout says it all.
        Ok(Dtype::from_tag(tensor.format).unwrap_or(Dtype::F32))
    }

    fn absent(&self, spec: &TensorSpec) -> Failure {
        let names: Vec<&str> =
            spec.candidates.iter().map(|candidate| candidate.name.as_str()).take(2).collect();
        let message = format!("{} has no tensor {}", self.path.display(), names.join(" or "));
        Failure::new(code::UNSUPPORTED_FORMAT, message)
            .hint("download config.json and the weights again, both of one model")
    }

    fn too_large(&self, name: &str) -> Failure {
        self.wrong(name, "is too large for this machine".to_owned())
    }

    fn wrong(&self, name: &str, reason: String) -> Failure {
        let message = format!("{}: the tensor {name} {reason}", self.path.display());
        Failure::new(code::UNSUPPORTED_FORMAT, message)
            .hint("download config.json and the weights again, both of one model")
    }
}

/// A shape without the axes of one before all others.
fn without_outer_ones(shape: &[usize]) -> &[usize] {
    let ones = shape.iter().take_while(|&&size| size == 1).count();
    &shape[ones..]
}

impl Resolved {
    /// Whether it is a vector.
    pub fn is_vector(&self) -> bool {
        self.shape.len() == 1
    }

    /// Which rows (or numbers, or columns where it is transposed) of the stored slice it takes.
    pub fn order(&self) -> RowOrder {
        let Part { first, step, heads, .. } = self.part;
        match heads {
            Some(head_dim) => RowOrder::InterleavedHeads { first, head_dim },
            None => RowOrder::Linear { first, step },
        }
    }

    /// Whether the stored slice is the weight, number for number.
    pub fn is_whole(&self) -> bool {
        let Part { first, step, total, heads, minus, .. } = self.part;
        let all = self.shape.first() == Some(&total) && first == 0 && step == 1;
        all && heads.is_none() && minus == 0.0
    }

    /// The bytes that reading the weight takes, its share of the scales included.
    pub(super) fn bytes_touched(&self, checkpoint: &Checkpoint) -> u64 {
        if self.split.is_some() {
            let outputs = self.stored.rows as u64;
            return outputs * self.stored.dtype.bytes_for(self.stored.columns).unwrap_or(0) as u64;
        }
        let Ok(slice) = self.stored.view(self.bytes(checkpoint)) else { return 0 };
        let rows =
            if self.is_vector() || self.part.transposed { None } else { Some(self.shape[0]) };
        match rows.and_then(|rows| slice.select(rows, self.order()).ok()) {
            Some(view) => view.bytes_touched(),
            None => {
                let share = u128::from(slice.bytes_touched()) * self.shape[0] as u128;
                (share / self.part.total.max(1) as u128) as u64
            }
        }
    }

    /// The places of its tensors in the checkpoint, the elements first.
    pub(super) fn positions(&self) -> impl Iterator<Item = Position> + use<> {
        let split = self.split.as_ref();
        let halves = split.map(|split| split.keys.positions().chain(split.values.positions()));
        let own = [Some(self.elements), self.scales, self.biases].into_iter().flatten();
        let own = own.filter(|_| halves.is_none()).collect::<Vec<_>>();
        own.into_iter().chain(halves.into_iter().flatten())
    }

    /// The bytes of the slice that holds the weight, with its scales.
    pub(super) fn bytes<'a>(&'a self, checkpoint: &'a Checkpoint) -> StoredBytes<'a> {
        if let Some(split) = &self.split {
            let elements = split.joined(checkpoint);
            return StoredBytes { elements, ..StoredBytes::default() };
        }
        let slice = |position: Position| {
            let bytes = checkpoint.tensor_at(position).bytes;
            match self.part.stack {
                // A stack that does not divide is refused by the shapes of elements and scales.
                Some((index, count)) => {
                    let each = bytes.len() / count.max(1);
                    &bytes[index.min(count) * each..(index + 1).min(count) * each]
                }
                None => bytes,
            }
        };
        StoredBytes {
            elements: slice(self.elements),
            scales: self.scales.map_or(&[], slice),
            biases: self.biases.map(slice),
        }
    }
}

impl Split {
    /// The bytes of the weight; none if the files are no longer what they were.
    fn joined(&self, checkpoint: &Checkpoint) -> &[u8] {
        self.joined.get_or_init(|| {
            let (keys, values) = (self.keys.view(checkpoint), self.values.view(checkpoint));
            let joined = keys.and_then(|keys| unpack::joined_heads(&self.heads, &keys, &values?));
            joined.map(|unpacked| unpacked.bytes).unwrap_or_default()
        })
    }
}
