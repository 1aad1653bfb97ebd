//! The weights' part of EXTRACT: which tensors go into which file, in which type and layout.

use std::io::{self, Write};

use larql_compute::cpu::Cancel;
use larql_compute::model::{Naming, Role, WeightKey};
use larql_compute::quant::{Dtype, MatrixView, from_f32, to_f32};
use larql_planner::physical::plan::Level;
use larql_storage::checkpoint::Tensor;
use larql_storage::vindex::{Layout, TensorKey, TensorRecord, VindexWriter};

use super::{Job, Planned, Progress};
use crate::failure::{Failure, code};

/// Features that are transposed at a time.
pub(super) const TRANSPOSE_FEATURES: usize = 64;
/// Numbers that are converted at a time.
const CONVERT_NUMBERS: usize = 1 << 16;

/// One file of weights: the roles in it, in order within a layer, and the level that brings it.
pub(super) struct WeightFile {
    pub(super) name: &'static str,
    pub(super) level: Level,
    pub(super) roles: &'static [Role],
}

/// Every file of weights, in the order in which they are written.
pub(super) const WEIGHT_FILES: &[WeightFile] = &[
    WeightFile { name: "gate_vectors.bin", level: Level::Browse, roles: &[Role::Gate] },
    WeightFile { name: "embeddings.bin", level: Level::Browse, roles: &[Role::Embedding] },
    WeightFile {
        name: "attn_weights.bin",
        level: Level::Attention,
        roles: &[
            Role::Query,
            Role::QueryBias,
            Role::Key,
            Role::KeyBias,
            Role::Value,
            Role::ValueBias,
            Role::Output,
            Role::OutputBias,
            Role::QueryNorm,
            Role::KeyNorm,
        ],
    },
    WeightFile {
        name: "norms.bin",
        level: Level::Attention,
        roles: &[
            Role::AttentionNorm,
            Role::PostAttentionNorm,
            Role::FfnNorm,
            Role::PostFfnNorm,
            Role::FinalNorm,
        ],
    },
    WeightFile {
        name: "up_weights.bin",
        level: Level::Inference,
        roles: &[Role::Up, Role::UpBias, Role::GateBias],
    },
    WeightFile {
        name: "down_features.bin",
        level: Level::Inference,
        roles: &[Role::Down, Role::DownBias],
    },
    WeightFile { name: "lm_head.bin", level: Level::Inference, roles: &[Role::Unembedding] },
];

/// The file for source tensors that no role reads.
const OTHER_WEIGHTS: &str = "other_weights.bin";

impl<'a> Job<'a> {
    pub(super) fn write_weights(
        &self,
        writer: &mut VindexWriter,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let others = self.other_tensors();
        let total: u64 =
            self.planned.iter().map(|planned| planned.tensor.bytes.len() as u64).sum::<u64>()
                + others.iter().map(|tensor| tensor.bytes.len() as u64).sum::<u64>();
        let mut done = 0;
        for planned in &self.planned {
            progress("weights", done, total, "bytes")?;
            self.cancel.check()?;
            self.write_tensor(writer, planned)?;
            done += planned.tensor.bytes.len() as u64;
        }
        for tensor in others {
            progress("weights", done, total, "bytes")?;
            self.cancel.check()?;
            let role = format!("source:{}", tensor.name);
            if !writer.has(OTHER_WEIGHTS, &TensorKey::model(role.clone())) {
                let record = TensorRecord {
                    name: tensor.name.to_owned(),
                    role,
                    layer: None,
                    expert: None,
                    dtype: tensor.format.to_lowercase(),
                    shape: tensor.shape.iter().map(|&size| size as u64).collect(),
                    columns_padded: None,
                    scales: None,
                    layout: Layout::RowMajor,
                    offset: 0,
                    bytes: tensor.bytes.len() as u64,
                };
                writer.tensor(OTHER_WEIGHTS, record, &mut |out| out.write_all(tensor.bytes))?;
            }
            done += tensor.bytes.len() as u64;
        }
        Ok(())
    }

    /// What the level `all` adds: every tensor of the source that no role reads.
    fn other_tensors(&self) -> Vec<Tensor<'a>> {
        if self.options.level < Level::All || self.options.components.is_some() {
            return Vec::new();
        }
        let specs = self.architecture.tensors(Naming::Hub);
        let tied = self.architecture.tied_embeddings;
        let known = |name: &str| {
            specs.iter().any(|spec| {
                let copy = spec.key.role == Role::Unembedding && tied;
                !copy && spec.candidates.iter().any(|known| known.name == name)
            })
        };
        self.checkpoint.tensors().filter(|tensor| !known(tensor.name)).collect()
    }

    fn write_tensor(
        &self,
        writer: &mut VindexWriter,
        planned: &Planned<'_>,
    ) -> Result<(), Failure> {
        let Planned { spec, tensor, source, stored, file } = planned;
        let WeightKey { layer, expert, .. } = spec.key;
        let role = spec.key.role.as_str();
        let key = TensorKey { role: role.into(), layer, expert };
        if writer.has(file, &key) {
            return Ok(());
        }
        let mut shape: Vec<u64> = tensor.shape.iter().map(|&size| size as u64).collect();
        let transposed = spec.key.role == Role::Down;
        if transposed {
            shape.reverse();
        }
        let count = tensor.shape.iter().product();
        let too_large =
            || Failure::new(code::LIMIT, format!("the tensor {} is too large", tensor.name));
        let record = TensorRecord {
            name: tensor.name.to_owned(),
            role: role.to_owned(),
            layer,
            expert,
            dtype: tag(*stored),
            shape,
            columns_padded: None,
            scales: None,
            layout: if transposed { Layout::FeatureMajor } else { Layout::RowMajor },
            offset: 0,
            bytes: stored.bytes_for(count).ok_or_else(too_large)? as u64,
        };
        let cancel = self.cancel;
        let write = &mut |out: &mut dyn Write| {
            if transposed {
                write_transposed(out, tensor, *source, *stored, cancel)
            } else {
                write_converted(out, tensor.bytes, *source, *stored, cancel)
            }
        };
        let written = writer.tensor(file, record, write);
        // A cancelled write looks like a failed one; the reason is the cancel's.
        self.cancel.check()?;
        Ok(written?)
    }
}

/// What the numbers of a tensor are like.
#[derive(Default)]
pub(super) struct Survey {
    /// Some finite number turns infinite in f16.
    pub(super) overflow_f16: bool,
    /// How many are infinite or no number.
    pub(super) not_finite: u64,
}

pub(super) fn survey(source: Dtype, bytes: &[u8], cancel: &Cancel) -> Result<Survey, Failure> {
    let width = source.bytes_for(1).unwrap_or(1);
    let mut values = vec![0.0_f32; CONVERT_NUMBERS];
    let mut survey = Survey::default();
    for chunk in bytes.chunks(CONVERT_NUMBERS * width) {
        cancel.check()?;
        let values = &mut values[..chunk.len() / width];
        to_f32(source, chunk, values);
        for value in values {
            survey.not_finite += u64::from(!value.is_finite());
            // 65,520 is where rounding to nearest reaches infinity.
            survey.overflow_f16 |= value.is_finite() && value.abs() >= 65_520.0;
        }
    }
    Ok(survey)
}

fn write_converted(
    out: &mut dyn Write,
    bytes: &[u8],
    source: Dtype,
    stored: Dtype,
    cancel: &Cancel,
) -> io::Result<()> {
    let width = source.bytes_for(1).unwrap_or(1);
    let mut values = vec![0.0; CONVERT_NUMBERS];
    let mut converted = Vec::new();
    for chunk in bytes.chunks(CONVERT_NUMBERS * width) {
        cancel.check().map_err(io::Error::other)?;
        if source == stored {
            out.write_all(chunk)?;
            continue;
        }
        let values = &mut values[..chunk.len() / width];
        to_f32(source, chunk, values);
        converted.resize(stored.bytes_for(values.len()).unwrap_or(0), 0);
        from_f32(stored, values, &mut converted);
        out.write_all(&converted)?;
    }
    Ok(())
}

/// Writes a matrix `[outputs, inputs]` with its inputs as rows.
fn write_transposed(
    out: &mut dyn Write,
    tensor: &Tensor<'_>,
    source: Dtype,
    stored: Dtype,
    cancel: &Cancel,
) -> io::Result<()> {
    let [outputs, inputs] = tensor.shape[..] else {
        return write_converted(out, tensor.bytes, source, stored, cancel);
    };
    let view = MatrixView::new(source, outputs, inputs, tensor.bytes).map_err(io::Error::other)?;
    let mut block = vec![0.0; TRANSPOSE_FEATURES * outputs];
    let mut converted = Vec::new();
    for first in (0..inputs).step_by(TRANSPOSE_FEATURES) {
        cancel.check().map_err(io::Error::other)?;
        let columns = first..(first + TRANSPOSE_FEATURES).min(inputs);
        let block = &mut block[..columns.len() * outputs];
        transpose_columns(&view, columns, block);
        converted.resize(stored.bytes_for(block.len()).unwrap_or(0), 0);
        from_f32(stored, block, &mut converted);
        out.write_all(&converted)?;
    }
    Ok(())
}

/// Some columns of a matrix as rows: `block[column][row]`.
pub(super) fn transpose_columns(
    view: &MatrixView<'_>,
    columns: std::ops::Range<usize>,
    block: &mut [f32],
) {
    let mut part = vec![0.0; columns.len()];
    for row in 0..view.rows() {
        view.part_f32(row, columns.clone(), &mut part);
        for (column, &value) in part.iter().enumerate() {
            block[column * view.rows() + row] = value;
        }
    }
}

/// The tag of a type in manifests.
pub(super) fn tag(dtype: Dtype) -> String {
    dtype.tag().to_lowercase()
}
