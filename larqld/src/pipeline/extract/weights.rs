//! The weights' part of EXTRACT: tensor after tensor, in one order, converted on the pool.
//!
//! A window of rows is converted at a time and written before the next, so memory is a window and,
//! for each thread, a tile of rows, whatever the size of a matrix.

use std::io::{self, Write};

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{Orientation, Role, WeightKey};
use larql_compute::quant::{Dtype, from_f32};
use larql_planner::physical::plan::Level;
use larql_storage::checkpoint::Tensor;
use larql_storage::vindex::{Layout, ScalesRecord, TensorKey, TensorRecord, VindexWriter};

use super::formats::{Format, tag};
use super::placement::{OTHER_WEIGHTS, WEIGHT_FILES, components};
use super::{Job, Progress};
use crate::failure::{Failure, code};
use crate::pipeline::OTHER_ROLE;
use crate::pipeline::rows::Rows;
use crate::source::{Resolved, ScalesLayout, SourceModel};

/// Bytes that are converted before they are written.
pub const WINDOW_BYTES: usize = 16 << 20;
/// Bytes that are copied between two looks at the cancel token.
const COPY_BYTES: usize = 1 << 20;

/// A weight of the source with its place in the vindex.
pub(super) struct Planned<'a> {
    pub(super) weight: &'a Resolved,
    pub(super) file: &'static str,
    pub(super) format: Format,
}

impl<'a> Job<'a> {
    /// Finds every weight of the level and decides how it is written, before anything is.
    pub(super) fn plan(&mut self) -> Result<(), Failure> {
        let level = self.options.level;
        let architecture = self.model.architecture();
        for file in WEIGHT_FILES.iter().filter(|file| file.level <= level) {
            let place = |role: Role| file.roles.iter().position(|&found| found == role);
            let mut weights: Vec<_> = self
                .model
                .weights()
                .filter(|weight| self.wants(weight.key))
                .filter_map(|weight| Some((place(weight.key.role)?, weight)))
                .collect();
            // Layer by layer, what the model has once comes last; in a layer network by network.
            weights.sort_by_key(|&(place, Resolved { key, .. })| {
                (key.layer.is_none(), key.layer, key.expert, place)
            });
            for (_, weight) in weights {
                // A tied model's unembedding is its embedding, which is stored once.
                if weight.key.role == Role::Unembedding && architecture.tied_embeddings {
                    continue;
                }
                self.cancel.check()?;
                let format = self.format(weight)?;
                self.planned.push(Planned { weight, file: file.name, format });
            }
        }
        Ok(())
    }

    /// Whether layers and components asked for include a weight.
    pub(super) fn wants(&self, key: WeightKey) -> bool {
        if key.layer.is_some_and(|layer| !self.layers.contains(&layer)) {
            return false;
        }
        let part_of = components(key.role);
        let asked = self.options.components.as_ref();
        asked.is_none_or(|asked| {
            part_of.is_empty() || part_of.iter().any(|component| asked.contains(component))
        })
    }

    /// Writes every planned weight, and with the level `all` every other tensor of the source.
    pub(super) fn write_weights(
        &self,
        writer: &mut VindexWriter,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let others = self.other_tensors();
        let mut total = others.iter().map(|tensor| tensor.bytes.len() as u64).sum::<u64>();
        for planned in &self.planned {
            total += self.records(planned)?.iter().map(|(record, _)| record.bytes).sum::<u64>();
        }
        let mut done = 0;
        for planned in &self.planned {
            for (record, content) in self.records(planned)? {
                progress("weights", done, total, "bytes")?;
                self.cancel.check()?;
                done += record.bytes;
                if !writer.has(planned.file, &record.key()) {
                    self.write(writer, planned.file, record, &content)?;
                }
            }
        }
        for tensor in others {
            progress("weights", done, total, "bytes")?;
            done += tensor.bytes.len() as u64;
            let record = TensorRecord {
                name: tensor.name.to_owned(),
                role: format!("{OTHER_ROLE}{}", tensor.name),
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
            if !writer.has(OTHER_WEIGHTS, &record.key()) {
                self.write(writer, OTHER_WEIGHTS, record, &Content::Bytes(tensor.bytes))?;
            }
        }
        progress("weights", total, total, "bytes")
    }

    fn write(
        &self,
        writer: &mut VindexWriter,
        file: &str,
        record: TensorRecord,
        content: &Content<'_>,
    ) -> Result<(), Failure> {
        let written =
            writer.tensor(file, record, &mut |out| content.write(out, self.pool, self.cancel));
        // A cancelled write looks like a failed one; the reason is the cancel's.
        self.cancel.check()?;
        Ok(written?)
    }

    /// What the level `all` adds: every tensor of the source that no weight is made of.
    fn other_tensors(&self) -> Vec<Tensor<'a>> {
        if self.options.level < Level::All || self.options.components.is_some() {
            return Vec::new();
        }
        let mut others: Vec<_> = self.model.other_tensors().collect();
        if self.model.architecture().tied_embeddings
            && let Some(copy) = self.model.weight(WeightKey::model(Role::Unembedding))
        {
            others.extend(self.model.stored_tensors(copy));
        }
        others.sort_by_key(|tensor| tensor.name);
        others
    }

    /// The records of a weight, its own before those of its scales, with what is in them.
    fn records(&self, planned: &Planned<'a>) -> Result<Vec<(TensorRecord, Content<'a>)>, Failure> {
        let Planned { weight, format, .. } = planned;
        let name = self.model.name(weight);
        let too_large = || Failure::new(code::LIMIT, format!("the tensor {name} is too large"));
        let record = TensorRecord {
            name: name.to_owned(),
            role: weight.key.role.as_str().to_owned(),
            layer: weight.key.layer,
            expert: weight.key.expert,
            dtype: tag(format.dtype),
            shape: weight.shape.iter().map(|&size| size as u64).collect(),
            columns_padded: None,
            scales: None,
            layout: format.layout,
            offset: 0,
            bytes: 0,
        };
        if weight.is_vector() {
            let bytes = format.dtype.bytes_for(weight.shape[0]).ok_or_else(too_large)? as u64;
            let content = Content::Vector { weight, model: self.model, dtype: format.dtype };
            return Ok(vec![(TensorRecord { bytes, ..record }, content)]);
        }
        let orientation = match format.layout {
            Layout::FeatureMajor => Orientation::InOut,
            _ => Orientation::OutIn,
        };
        let rows = Rows::of(self.model, weight, orientation)?;
        let row_bytes = format.dtype.bytes_for(rows.columns()).ok_or_else(too_large)?;
        let bytes = row_bytes.checked_mul(rows.rows()).ok_or_else(too_large)? as u64;
        let block = format.dtype.block().0;
        let padded = rows.columns().next_multiple_of(block);
        let record = TensorRecord {
            shape: vec![rows.rows() as u64, rows.columns() as u64],
            columns_padded: (padded > rows.columns()).then_some(padded as u64),
            scales: if format.kept { scales_record(weight.stored.scales) } else { None },
            bytes,
            ..record
        };
        let same = rows.are_stored_rows() && format.dtype == weight.stored.dtype;
        let content = match format.kept || same {
            true => Content::StoredRows(rows),
            false => Content::Converted { rows, dtype: format.dtype },
        };
        let mut records = vec![(record, content)];
        if format.kept {
            let own = records[0].0.clone();
            records.extend(self.scales(weight, &rows, &own)?);
        }
        Ok(records)
    }

    /// The records of the scales that lie beside a weight whose rows are kept.
    fn scales(
        &self,
        weight: &Resolved,
        rows: &Rows<'a>,
        own: &TensorRecord,
    ) -> Result<Vec<(TensorRecord, Content<'a>)>, Failure> {
        let Some(scales) = &own.scales else { return Ok(Vec::new()) };
        let damaged =
            || Failure::new(code::DAMAGED, format!("the scales of {} are damaged", own.name));
        let shape = scales.shape(own.shape[0], own.shape[1]).ok_or_else(damaged)?;
        let (stored, stored_rows) = (self.model.stored_bytes(weight), weight.stored.rows.max(1));
        let tensors = self.model.stored_tensors(weight).skip(1);
        let bytes = [Some(stored.scales), stored.biases].into_iter().flatten();
        let mut records = Vec::new();
        for ((tensor, bytes), suffix) in tensors.zip(bytes).zip(scales.suffixes()) {
            let content = match scales {
                // Tiles cover more rows than one: all of them, as they are.
                ScalesRecord::Grid { .. } => Content::Bytes(bytes),
                _ => Content::RowsOf { order: *rows, piece: bytes.len() / stored_rows, bytes },
            };
            let length = match content {
                Content::RowsOf { piece, .. } => piece * rows.rows(),
                _ => bytes.len(),
            };
            let key: TensorKey = own.companion(suffix);
            let dtype = match weight.stored.scales {
                ScalesLayout::Mx => "e8m0".to_owned(),
                _ => tensor.format.to_lowercase(),
            };
            let record = TensorRecord {
                name: tensor.name.to_owned(),
                role: key.role.into_owned(),
                dtype,
                shape: shape.to_vec(),
                columns_padded: None,
                scales: None,
                bytes: length as u64,
                ..own.clone()
            };
            records.push((record, content));
        }
        Ok(records)
    }
}

fn scales_record(layout: ScalesLayout) -> Option<ScalesRecord> {
    match layout {
        ScalesLayout::None => None,
        ScalesLayout::Grid { rows, columns, .. } => {
            Some(ScalesRecord::Grid { rows: rows as u64, columns: columns as u64 })
        }
        ScalesLayout::Groups { group, .. } => Some(ScalesRecord::Groups { group: group as u64 }),
        ScalesLayout::Mx => Some(ScalesRecord::Mx),
    }
}

/// What is in a record.
enum Content<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// A vector in that type.
    Vector { weight: &'a Resolved, model: &'a SourceModel, dtype: Dtype },
    /// Rows as they are stored.
    StoredRows(Rows<'a>),
    /// Pieces of `bytes`, one for each stored row of a matrix, in the order of its rows.
    RowsOf { order: Rows<'a>, piece: usize, bytes: &'a [u8] },
    /// Rows in another type or direction.
    Converted { rows: Rows<'a>, dtype: Dtype },
}

impl Content<'_> {
    fn write(&self, out: &mut dyn Write, pool: &Pool, cancel: &Cancel) -> io::Result<()> {
        match self {
            Content::Bytes(bytes) => copy(out, bytes, cancel),
            Content::Vector { weight, model, dtype } => {
                let values = model.read_vector(weight).map_err(io::Error::other)?;
                let mut bytes = vec![0; dtype.bytes_for(values.len()).unwrap_or(0)];
                from_f32(*dtype, &values, &mut bytes);
                out.write_all(&bytes)
            }
            Content::StoredRows(rows) => {
                if let Some(bytes) = rows.stored().contiguous_bytes() {
                    return copy(out, bytes, cancel);
                }
                let row_bytes = rows.stored().row_bytes();
                write_windows(
                    out,
                    pool,
                    cancel,
                    (rows.rows(), row_bytes, rows.tile()),
                    &|first, out| {
                        for (row, out) in (first..).zip(out.chunks_exact_mut(row_bytes)) {
                            out.copy_from_slice(rows.stored().row(row));
                        }
                    },
                )
            }
            Content::RowsOf { order, piece, bytes } => (0..order.rows()).try_for_each(|row| {
                let start = order.stored().stored_row(row) * piece;
                out.write_all(&bytes[start..start + piece])
            }),
            Content::Converted { rows, dtype } => {
                let row_bytes = dtype.bytes_for(rows.columns()).unwrap_or(0);
                write_windows(
                    out,
                    pool,
                    cancel,
                    (rows.rows(), row_bytes, rows.tile()),
                    &|first, out| {
                        let count = out.len() / row_bytes;
                        let mut values = vec![0.0; count * rows.columns()];
                        rows.read(first..first + count, &mut values);
                        let rows = values.chunks_exact(rows.columns());
                        for (values, out) in rows.zip(out.chunks_exact_mut(row_bytes)) {
                            from_f32(*dtype, values, out);
                        }
                    },
                )
            }
        }
    }
}

fn copy(out: &mut dyn Write, bytes: &[u8], cancel: &Cancel) -> io::Result<()> {
    bytes.chunks(COPY_BYTES).try_for_each(|chunk| {
        cancel.check().map_err(io::Error::other)?;
        out.write_all(chunk)
    })
}

/// Writes rows window by window; `fill` is called on the pool with the first of some rows, at most a
/// tile of them, and their bytes.
fn write_windows(
    out: &mut dyn Write,
    pool: &Pool,
    cancel: &Cancel,
    (rows, row_bytes, tile): (usize, usize, usize),
    fill: &(dyn Fn(usize, &mut [u8]) + Sync),
) -> io::Result<()> {
    if rows == 0 || row_bytes == 0 {
        return Ok(());
    }
    let window = (WINDOW_BYTES / row_bytes).max(1).next_multiple_of(tile).min(rows);
    let mut buffer = vec![0; window * row_bytes];
    for first in (0..rows).step_by(window) {
        let buffer = &mut buffer[..window.min(rows - first) * row_bytes];
        pool.run_chunks(buffer, tile * row_bytes, &|at, out| {
            if cancel.check().is_ok() {
                fill(first + at / row_bytes, out);
            }
        });
        cancel.check().map_err(io::Error::other)?;
        out.write_all(buffer)?;
    }
    Ok(())
}
