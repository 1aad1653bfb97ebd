//! Quantised tensors as their publisher stored them: elements, and the scales beside them.
//!
//! A vindex at source precision keeps the bytes of quantised weights and of their scales, taken apart
//! row by row where several weights share a stored tensor. Here the rows go back to their places, so
//! that FP8 with tiles, MXFP4 and MLX's groups come out bit for bit, under the names they had.
//!
//! Elsewhere: how such bytes are read (`source::resolve`), numbers in other types (`assembly`).

use std::io::{self, Write};

use larql_compute::cpu::Cancel;
use larql_compute::quant::Dtype;
use larql_storage::checkpoint::TensorDescription;
use larql_storage::vindex::{ScalesRecord, TensorSlice, Vindex};

use super::assembly::Piece;
use super::naming::PACKED_BLOCKS;
use super::{CHUNK_BYTES, Content, Planned};

/// Elements of a row of MXFP4 that share an exponent, and the bytes that hold them.
const MX_GROUP: usize = 32;
const MX_GROUP_BYTES: usize = 16;

/// A quantised weight: its elements first, then what lies beside them.
#[derive(Debug, Clone)]
pub struct Packed<'a> {
    /// Whether its scales are those of tiles, which cover rows that need not be of one weight.
    pub in_tiles: bool,
    records: Vec<Record<'a>>,
}

/// The bytes that one stored tensor holds of a weight.
#[derive(Debug, Clone)]
struct Record<'a> {
    name: &'a str,
    format: String,
    /// What becomes of the weight's own last dimensions, rows and columns, in this tensor.
    shape: Shape,
    bytes: &'a [u8],
}

/// The last dimensions of a stored tensor of a matrix.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// Rows of so many columns to an element.
    Columns(usize),
    /// Rows of groups of 16 bytes.
    MxBlocks,
    /// Tiles of rows and columns.
    Tiles(usize, usize),
}

impl<'a> Packed<'a> {
    /// The bytes of a matrix of a vindex and of its scales; `None` where its type is none of a
    /// quantised safetensors checkpoint.
    pub fn of(vindex: &'a Vindex, tensor: &TensorSlice<'a>) -> Option<Self> {
        let record = tensor.record;
        let dtype = Dtype::from_tag(&record.dtype)?;
        let (format, shape) = match dtype {
            Dtype::F8E4M3 | Dtype::F8E5M2 => (record.dtype.to_uppercase(), Shape::Columns(1)),
            Dtype::E2M1 if record.name.ends_with(PACKED_BLOCKS) => {
                ("U8".to_owned(), Shape::MxBlocks)
            }
            Dtype::E2M1 => ("U32".to_owned(), Shape::Columns(8)),
            Dtype::U4 => ("U32".to_owned(), Shape::Columns(8)),
            Dtype::U8 => ("U32".to_owned(), Shape::Columns(4)),
            _ => return None,
        };
        let mut records = vec![Record { name: &record.name, format, shape, bytes: tensor.bytes }];
        let narrow = |size: u64| usize::try_from(size).ok().filter(|&size| size > 0);
        if let Some(scales) = &record.scales {
            let shape = match *scales {
                ScalesRecord::Grid { rows, columns } => {
                    Shape::Tiles(narrow(rows)?, narrow(columns)?)
                }
                ScalesRecord::Groups { group } => Shape::Columns(narrow(group)?),
                ScalesRecord::Mx => Shape::Columns(MX_GROUP),
            };
            for suffix in scales.suffixes() {
                let Some(found) = vindex.tensor(&record.companion(suffix)) else { continue };
                let format = match &*found.record.dtype {
                    "e8m0" => "U8".to_owned(),
                    other => other.to_uppercase(),
                };
                let name = &*found.record.name;
                records.push(Record { name, format, shape, bytes: found.bytes });
            }
        }
        let in_tiles = matches!(record.scales, Some(ScalesRecord::Grid { .. }));
        Some(Self { in_tiles, records })
    }
}

/// The stored tensors that some quantised weights are parts of; `None` where they do not belong
/// together.
///
/// `shape`: that of the elements, were they not packed; `[outputs, inputs]`, after the experts where
/// these are stacked.
pub(super) fn plan<'a>(
    pieces: &[Piece],
    packed: &[&Packed<'a>],
    shape: &[usize],
) -> Option<Vec<Planned<'a>>> {
    let (first, stacked) = (packed.first()?, pieces.first()?.part.stack.map_or(1, |(_, all)| all));
    let tensors = first.records.iter().enumerate().map(|(at, record)| {
        let each = packed.iter().map(|weight| {
            weight
                .records
                .get(at)
                .filter(|other| other.name == record.name)
                .map(|found| found.bytes)
        });
        let each = each.collect::<Option<Vec<&'a [u8]>>>()?;
        let parts = pieces.iter().cloned().zip(each).collect();
        let name = record.name.to_owned();
        let shape = record.shape.of(shape)?;
        let description = TensorDescription { name, format: record.format.clone(), shape };
        let content = Content::Packed(Stacked { slices: stacked, parts });
        Some(Planned { description, content })
    });
    tensors.collect()
}

impl Shape {
    fn of(self, matrix: &[usize]) -> Option<Vec<usize>> {
        let [stack @ .., rows, columns] = matrix else { return None };
        let last = match self {
            Self::Columns(group) => vec![*rows, columns.div_ceil(group)],
            Self::MxBlocks => vec![*rows, columns.div_ceil(MX_GROUP), MX_GROUP_BYTES],
            Self::Tiles(tile_rows, tile_columns) => {
                vec![rows.div_ceil(tile_rows), columns.div_ceil(tile_columns)]
            }
        };
        Some([stack, &last[..]].concat())
    }
}

/// The rows of some weights as they are put into one stored tensor.
pub(super) struct Stacked<'a> {
    slices: usize,
    parts: Vec<(Piece, &'a [u8])>,
}

impl Stacked<'_> {
    /// Writes the tensor's bytes.
    pub(super) fn write(&self, cancel: &Cancel, out: &mut dyn Write) -> io::Result<()> {
        for index in 0..self.slices {
            let of_slice =
                |(piece, _): &&(Piece, &[u8])| piece.part.stack.map_or(0, |(own, _)| own) == index;
            let parts: Vec<&(Piece, &[u8])> = self.parts.iter().filter(of_slice).collect();
            cancel.check().map_err(io::Error::other)?;
            match parts[..] {
                // One weight alone: also tiles, which are no rows.
                [(_, bytes)] => {
                    for chunk in bytes.chunks(CHUNK_BYTES) {
                        cancel.check().map_err(io::Error::other)?;
                        out.write_all(chunk)?;
                    }
                }
                _ => write_rows(&parts, out)?,
            }
        }
        Ok(())
    }
}

fn write_rows(parts: &[&(Piece, &[u8])], out: &mut dyn Write) -> io::Result<()> {
    let total = parts.first().map_or(0, |(piece, _)| piece.part.total);
    for row in 0..total {
        let found = parts.iter().find_map(|(piece, bytes)| {
            let each = bytes.len() / piece.outputs.max(1);
            let at = piece.output_at(row)? * each;
            bytes.get(at..at + each)
        });
        let lost = || io::Error::other(format!("row {row} of a quantised tensor is gone"));
        out.write_all(found.ok_or_else(lost)?)?;
    }
    Ok(())
}
