//! Weights that cannot be used where they lie: taken apart once, into memory.
//!
//! A projection that is a part of a matrix stored the other way around (the query of GPT-2's joined
//! projection, the gate of GPT-OSS's interleaved experts) has no rows of its own. It is copied into
//! rows, number for number in its own dtype where that is a plain one. So is one that lies in two
//! tensors (the keys and values that DeepSeek's latent attention expands). Vectors are decoded to f32.

use larql_compute::model::{Part, SplitHeads};
use larql_compute::quant::{Dtype, MatrixView, RowOrder, ViewError};

/// A matrix in memory, with a row for each output.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) dtype: Dtype,
    pub(super) bytes: Vec<u8>,
}

/// Inputs that are turned at a time, so that the rows they come from stay in the cache.
const TILE: usize = 64;

/// Takes the columns of a part out of a stored slice `[inputs, total]`, as rows.
pub(super) fn columns(part: &Part, slice: &MatrixView<'_>, outputs: usize) -> Unpacked {
    let inputs = slice.rows();
    let stored_column = |output: usize| part.first + part.step * output;
    if slice.is_contiguous_plain() {
        let width = slice.row_bytes() / slice.columns().max(1);
        let mut bytes = vec![0; outputs * inputs * width];
        for first in (0..inputs).step_by(TILE) {
            for output in 0..outputs {
                let column = stored_column(output) * width;
                for input in first..inputs.min(first + TILE) {
                    let to = (output * inputs + input) * width;
                    bytes[to..][..width].copy_from_slice(&slice.row(input)[column..][..width]);
                }
            }
        }
        return Unpacked { dtype: slice.dtype(), bytes };
    }
    let mut values = vec![0.0_f32; outputs * inputs];
    let mut row = vec![0.0_f32; slice.columns()];
    for input in 0..inputs {
        slice.row_f32(input, &mut row);
        for output in 0..outputs {
            values[output * inputs + input] = row[stored_column(output)];
        }
    }
    Unpacked { dtype: Dtype::F32, bytes: to_bytes(&values) }
}

/// The type in which keys and values can be put together: their own, where that is one and plain.
pub(super) fn joined_dtype(keys: Dtype, values: Dtype) -> Dtype {
    if keys == values && keys.is_plain() { keys } else { Dtype::F32 }
}

/// Puts the projection to the keys and values of all heads together: `keys` is
/// `[heads * inputs, keys]`, which is turned around, `values` is `[heads * values, inputs]`.
///
/// # Errors
/// When the views have other sizes.
pub(super) fn joined_heads(
    heads: &SplitHeads,
    keys: &MatrixView<'_>,
    values: &MatrixView<'_>,
) -> Result<Unpacked, ViewError> {
    let inputs = values.columns();
    let dtype = joined_dtype(keys.dtype(), values.dtype());
    let mut bytes = Vec::new();
    let mut append = |view: &MatrixView<'_>| match view.contiguous_bytes() {
        Some(stored) if view.dtype() == dtype => bytes.extend_from_slice(stored),
        _ => bytes.extend(rows_less(view, 0.0).bytes),
    };
    let all = Part::whole(heads.keys);
    for head in 0..heads.heads {
        let of_head = |rows: usize| RowOrder::Linear { first: head * rows, step: 1 };
        let turned = columns(&all, &keys.select(inputs, of_head(inputs))?, heads.keys);
        append(&MatrixView::new(turned.dtype, heads.keys, inputs, &turned.bytes)?);
        append(&values.select(heads.values, of_head(heads.values))?);
    }
    Ok(Unpacked { dtype, bytes })
}

/// Takes the rows of a matrix, less a number each.
pub(super) fn rows_less(view: &MatrixView<'_>, minus: f32) -> Unpacked {
    let mut values = vec![0.0_f32; view.rows() * view.columns()];
    for (row, values) in values.chunks_exact_mut(view.columns().max(1)).enumerate() {
        view.row_f32(row, values);
        values.iter_mut().for_each(|value| *value -= minus);
    }
    Unpacked { dtype: Dtype::F32, bytes: to_bytes(&values) }
}

/// The numbers of a vector that is a part of a stored one, which `slice` holds as a row.
///
/// # Errors
/// When the part is not within it.
pub(super) fn vector(
    slice: &MatrixView<'_>,
    count: usize,
    order: RowOrder,
    minus: f32,
) -> Result<Vec<f32>, ViewError> {
    let mut stored = vec![0.0; slice.columns()];
    slice.row_f32(0, &mut stored);
    // As rows of one number each, so that there is one meaning of an order of rows.
    let numbers = MatrixView::from_f32(stored.len(), 1, &stored)?.select(count, order)?;
    Ok((0..count).map(|index| numbers.element(index, 0) - minus).collect())
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
