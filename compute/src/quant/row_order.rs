//! Which stored row a row of a view is.

/// The order in which a view takes rows from a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOrder {
    /// Rows `first`, `first + step`, `first + 2 step` and so on.
    Linear {
        /// The first row taken.
        first: usize,
        /// The distance between rows taken.
        step: usize,
    },
    /// The order into which ggml's converter brings the query and key rows of Llama models: within
    /// each head of `head_dim` rows, the first half lies at the even places, the second half at
    /// the odd ones. The view undoes it.
    InterleavedHeads {
        /// The first row of the first head.
        first: usize,
        /// Rows of a head; even.
        head_dim: usize,
    },
}

/// Orders applied one after another: row `r` is the stored row
/// `origin + step * place(skip + stride * r)`, where `place` undoes the interleaving of heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowMap {
    origin: usize,
    step: usize,
    head_dim: Option<usize>,
    skip: usize,
    stride: usize,
}

impl RowMap {
    /// Every row at its own place.
    pub(super) const IDENTITY: RowMap =
        RowMap { origin: 0, step: 1, head_dim: None, skip: 0, stride: 1 };

    /// The stored row of row `row`, which is within the view.
    #[inline]
    pub(super) fn stored(&self, row: usize) -> usize {
        let index = self.skip + self.stride * row;
        let place = match self.head_dim {
            None => index,
            Some(head_dim) => {
                let (head, within) = (index / head_dim, index % head_dim);
                let half = head_dim / 2;
                let place = if within < half { 2 * within } else { 2 * (within - half) + 1 };
                head * head_dim + place
            }
        };
        self.origin + self.step * place
    }

    /// The first stored row, if each row lies right after the one before it.
    pub(super) fn contiguous_from(&self) -> Option<usize> {
        let contiguous = self.head_dim.is_none() && self.step == 1 && self.stride == 1;
        contiguous.then(|| self.origin + self.skip)
    }

    /// The map of `rows` rows taken by `order` from a view of `available` rows, or `None` where
    /// they are not within it, or heads are taken from heads or are no whole heads.
    pub(super) fn then(self, rows: usize, order: RowOrder, available: usize) -> Option<RowMap> {
        match order {
            RowOrder::Linear { first, step } => {
                if rows > 0 {
                    let last = (rows - 1).checked_mul(step)?.checked_add(first)?;
                    (last < available).then_some(())?;
                }
                // With one row or none, first and step may be anything that does not overflow.
                let skip = self.stride.checked_mul(first)?.checked_add(self.skip)?;
                let stride = if rows > 1 { self.stride.checked_mul(step)? } else { 1 };
                Some(RowMap { skip, stride, ..self })
            }
            RowOrder::InterleavedHeads { first, head_dim } => {
                let whole =
                    head_dim > 0 && head_dim.is_multiple_of(2) && rows.is_multiple_of(head_dim);
                let within = first.checked_add(rows)? <= available;
                if !whole || !within || self.head_dim.is_some() {
                    return None;
                }
                Some(RowMap {
                    origin: self.origin + self.step * (self.skip + self.stride * first),
                    step: self.step * self.stride,
                    head_dim: Some(head_dim),
                    skip: 0,
                    stride: 1,
                })
            }
        }
    }
}
