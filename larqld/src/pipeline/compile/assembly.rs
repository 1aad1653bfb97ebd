//! Stored tensors put together again from the weights that are parts of them.
//!
//! A family's list of names says which part of which stored tensor a weight is. Extraction takes
//! tensors apart by it, and here it is read the other way: weights that are parts of one tensor are
//! gathered, their outputs put where they belong (fused, interleaved, stacked, transposed, in the
//! order of GGUF's converter, with its offset added), and encoded in the type that is written.
//!
//! Memory is a block of rows, whatever a tensor's size. Numbers go through `f32`, which holds every
//! number of every plain type; rows of block types that stay as they are go as bytes.

use std::borrow::Cow;
use std::io::{self, Write};
use std::ops::Range;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{Part, WeightKey, Weights};
use larql_compute::quant::{Dtype, from_f32};

use crate::pipeline::edited::{EditedMatrix, EditedModel};

/// Numbers that are gathered and encoded at a time.
const BLOCK_NUMBERS: usize = 1 << 20;

/// A weight's place in a stored tensor.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) key: WeightKey,
    pub(super) part: Part,
    /// Its outputs and inputs; a vector is one row.
    pub(super) outputs: usize,
    pub(super) inputs: Option<usize>,
}

/// The numbers that tensors are put together from.
#[derive(Clone, Copy)]
pub(super) struct Numbers<'a> {
    /// The model's.
    pub(super) weights: &'a dyn Weights,
    /// What edits make of some of them.
    pub(super) edited: Option<&'a EditedModel<'a>>,
}

impl<'a> Numbers<'a> {
    pub(super) fn matrix(&self, key: WeightKey) -> Option<EditedMatrix<'a>> {
        match self.edited.filter(|edited| edited.changes(key)) {
            Some(edited) => edited.matrix(key),
            None => self.weights.matrix(key).map(EditedMatrix::unedited),
        }
    }

    pub(super) fn vector(&self, key: WeightKey) -> Option<Cow<'a, [f32]>> {
        match self.edited.filter(|edited| edited.changes(key)) {
            Some(edited) => edited.vector(key).map(Cow::Owned),
            None => self.weights.vector(key),
        }
    }
}

/// A stored tensor in the making.
#[derive(Debug, Clone)]
pub(super) struct Assembly {
    pub(super) shape: Vec<usize>,
    pub(super) dtype: Dtype,
    pub(super) pieces: Vec<Piece>,
}

impl Piece {
    /// The output that lies at `row` of the stored outputs, if it is this weight's.
    pub(super) fn output_at(&self, row: usize) -> Option<usize> {
        let past = row.checked_sub(self.part.first)?;
        if past % self.part.step != 0 {
            return None;
        }
        let at = past / self.part.step;
        if at >= self.outputs {
            return None;
        }
        Some(match self.part.heads {
            None => at,
            Some(head) => {
                // Pairs that turn together are neighbours in GGUF, halves of a head here.
                let (start, within) = (at / head * head, at % head);
                start + within / 2 + (within % 2) * (head / 2)
            }
        })
    }
}

impl Assembly {
    /// Stored outputs in one slice of the tensor, and numbers in a stored row.
    fn total(&self) -> usize {
        self.pieces[0].part.total
    }

    /// Rows and columns of one slice as stored.
    fn slice(&self) -> (usize, usize) {
        let piece = &self.pieces[0];
        match piece.inputs {
            None => (1, self.total()),
            Some(inputs) if piece.part.transposed => (inputs, self.total()),
            Some(inputs) => (self.total(), inputs),
        }
    }

    /// Whether the pieces fill the whole tensor; the first gap otherwise.
    pub(super) fn gap(&self) -> Option<usize> {
        let stacked = self.pieces[0].part.stack.map_or(1, |(_, count)| count);
        let total = self.total();
        let mut filled = vec![false; stacked.checked_mul(total)?];
        for piece in &self.pieces {
            let slice = piece.part.stack.map_or(0, |(index, _)| index);
            for at in 0..piece.outputs {
                let row = piece.part.first + at * piece.part.step;
                if let Some(filled) = filled.get_mut(slice * total + row) {
                    *filled = true;
                }
            }
        }
        filled.iter().position(|filled| !filled)
    }

    /// Writes the tensor's bytes.
    pub(super) fn write(
        &self,
        numbers: Numbers<'_>,
        pool: &Pool,
        cancel: &Cancel,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let stacked = self.pieces[0].part.stack.map_or(1, |(_, count)| count);
        for index in 0..stacked {
            let of_slice = |piece: &&Piece| piece.part.stack.map_or(0, |(own, _)| own) == index;
            let pieces: Vec<&Piece> = self.pieces.iter().filter(of_slice).collect();
            self.write_slice(&pieces, numbers, pool, cancel, out)?;
        }
        Ok(())
    }

    fn write_slice(
        &self,
        pieces: &[&Piece],
        numbers: Numbers<'_>,
        pool: &Pool,
        cancel: &Cancel,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let (rows, columns) = self.slice();
        let sources = pieces
            .iter()
            .map(|piece| Source::of(piece, numbers))
            .collect::<io::Result<Vec<Source<'_>>>>()?;
        let row_bytes = self.dtype.bytes_for(columns).ok_or_else(too_large)?;
        let block = (BLOCK_NUMBERS / columns.max(1)).clamp(1, rows.max(1));
        let mut values = vec![0.0; block * columns];
        let mut bytes = vec![0; block * row_bytes];
        for first in (0..rows).step_by(block) {
            cancel.check().map_err(io::Error::other)?;
            let range = first..(first + block).min(rows);
            let bytes = &mut bytes[..range.len() * row_bytes];
            let stored: Vec<Option<&[u8]>> =
                range.clone().map(|row| self.stored_row(&sources, row, row_bytes)).collect();
            if stored.iter().any(Option::is_none) {
                let values = &mut values[..range.len() * columns];
                gather(&sources, range, columns, values);
                encode(self.dtype, values, columns, bytes, pool);
            }
            // Rows that are stored as they are to be written stay what they are, to the bit.
            for (bytes, stored) in bytes.chunks_exact_mut(row_bytes.max(1)).zip(stored) {
                if let Some(stored) = stored {
                    bytes.copy_from_slice(stored);
                }
            }
            out.write_all(bytes)?;
        }
        Ok(())
    }

    /// The bytes of a row that is stored as it is to be written.
    fn stored_row<'a>(
        &self,
        sources: &[Source<'a>],
        row: usize,
        row_bytes: usize,
    ) -> Option<&'a [u8]> {
        sources.iter().find_map(|source| {
            let Values::Matrix(matrix) = &source.values else { return None };
            let as_it_is = !source.piece.part.transposed
                && source.piece.part.minus == 0.0
                && matrix.base().view.dtype() == self.dtype;
            let output = source.piece.output_at(row).filter(|_| as_it_is)?;
            matrix.stored_output(output).filter(|stored| stored.len() == row_bytes)
        })
    }
}

fn too_large() -> io::Error {
    io::Error::other("a row does not fit this machine")
}

/// A piece with its numbers at hand.
struct Source<'a> {
    piece: &'a Piece,
    values: Values<'a>,
}

enum Values<'a> {
    Matrix(EditedMatrix<'a>),
    Vector(Cow<'a, [f32]>),
}

impl<'a> Source<'a> {
    fn of(piece: &'a Piece, numbers: Numbers<'a>) -> io::Result<Self> {
        let lost = || io::Error::other(format!("{} is gone", piece.key));
        let values = match piece.inputs {
            Some(_) => Values::Matrix(numbers.matrix(piece.key).ok_or_else(lost)?),
            None => Values::Vector(numbers.vector(piece.key).ok_or_else(lost)?),
        };
        Ok(Self { piece, values })
    }
}

/// The numbers of some stored rows: `out[row][column]`.
fn gather(sources: &[Source<'_>], rows: Range<usize>, columns: usize, out: &mut [f32]) {
    for source in sources {
        let Source { piece, values } = source;
        let part = &piece.part;
        match values {
            Values::Vector(values) => {
                for at in 0..piece.outputs {
                    let row = part.first + at * part.step;
                    if let Some(output) = piece.output_at(row) {
                        out[row] = values[output] + part.minus;
                    }
                }
            }
            Values::Matrix(matrix) if part.transposed => {
                // Stored rows are inputs, and every output has a number in each of them.
                let mut block = vec![0.0; piece.outputs * rows.len()];
                matrix.read(0..piece.outputs, rows.clone(), &mut block);
                for (output, values) in block.chunks_exact(rows.len().max(1)).enumerate() {
                    let column = part.first + output * part.step;
                    for (row, value) in values.iter().enumerate() {
                        out[row * columns + column] = value + part.minus;
                    }
                }
            }
            Values::Matrix(matrix) => gather_outputs(piece, matrix, rows.clone(), columns, out),
        }
    }
}

/// Outputs of a piece that lie in some stored rows, run by run of neighbours.
fn gather_outputs(
    piece: &Piece,
    matrix: &EditedMatrix<'_>,
    rows: Range<usize>,
    columns: usize,
    out: &mut [f32],
) {
    let mut row = rows.start;
    while row < rows.end {
        let Some(first) = piece.output_at(row) else {
            row += 1;
            continue;
        };
        let mut run = 1;
        while row + run < rows.end && piece.output_at(row + run) == Some(first + run) {
            run += 1;
        }
        let at = (row - rows.start) * columns;
        let out = &mut out[at..at + run * columns];
        matrix.read(first..first + run, 0..columns, out);
        if piece.part.minus != 0.0 {
            out.iter_mut().for_each(|value| *value += piece.part.minus);
        }
        row += run;
    }
}

/// Encodes rows, each padded to whole blocks by itself.
fn encode(dtype: Dtype, numbers: &[f32], columns: usize, bytes: &mut [u8], pool: &Pool) {
    let (columns, rows) = (columns.max(1), numbers.len() / columns.max(1));
    if rows == 0 {
        return;
    }
    let row_bytes = (bytes.len() / rows).max(1);
    let rows_a_task = rows.div_ceil(8 * pool.threads()).max(1);
    pool.run_chunks(bytes, rows_a_task * row_bytes, &|first, bytes: &mut [u8]| {
        let numbers = &numbers[first / row_bytes * columns..];
        let each = bytes.chunks_exact_mut(row_bytes).zip(numbers.chunks_exact(columns));
        each.for_each(|(bytes, numbers)| from_f32(dtype, numbers, bytes));
    });
}
