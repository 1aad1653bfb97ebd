//! Where sequences of a pass have edits: which rows of a layer, and which rows keys are looked up for.

use std::ops::Range;

use super::{Buffers, LogitsWanted, Outputs, Part, Segment};
use crate::model::Match;
use crate::model::ffn::RowEdits;

/// The rows of a block whose sequences have edits in a layer.
pub(super) fn rows<'s>(
    layer: usize,
    segments: &'s [Segment<'_>],
    parts: &[Part],
) -> Vec<RowEdits<'s>> {
    let edits = parts.iter().filter_map(|part| {
        let edits = segments[part.segment].cache.overlay()?.layer(layer)?;
        Some(RowEdits { rows: part.row..part.row + part.count, edits })
    });
    edits.collect()
}

/// The rows of a part whose logits are wanted.
pub(super) fn rows_wanted(
    segments: &[Segment<'_>],
    lengths: &[usize],
    part: &Part,
) -> Range<usize> {
    let segment = &segments[part.segment];
    let end = part.row + part.count;
    let ends = part.first + part.count == lengths[part.segment] + segment.tokens.len();
    match segment.logits {
        LogitsWanted::All => part.row..end,
        LogitsWanted::Last if ends => end - 1..end,
        _ => end..end,
    }
}

/// Looks the inputs of a layer's networks up among the keys of their sequences.
///
/// # Shapes
/// `normed`: `[rows, hidden]`; `matches`: a list for each row, or none at all.
pub(super) fn find(
    layer: usize,
    segments: &[Segment<'_>],
    lengths: &[usize],
    parts: &[Part],
    normed: &[f32],
    matches: &mut [Vec<Match>],
) {
    if matches.is_empty() {
        return;
    }
    let hidden = normed.len() / matches.len();
    for part in parts {
        let Some(overlay) = segments[part.segment].cache.overlay() else { continue };
        if overlay.has_keys(layer) {
            for row in rows_wanted(segments, lengths, part) {
                let input = &normed[row * hidden..(row + 1) * hidden];
                overlay.find(layer, input, &mut matches[row]);
            }
        }
    }
}

impl Buffers {
    /// Makes a list for each row where a sequence has keys.
    pub(super) fn begin_matches(&mut self, segments: &[Segment<'_>]) {
        self.matches.clear();
        let retrieves = |part: &Part| {
            segments[part.segment].cache.overlay().is_some_and(|overlay| overlay.retrieves())
        };
        if self.parts.iter().any(retrieves) {
            self.matches.resize_with(self.tokens.len(), Vec::new);
        }
    }
}

impl Outputs {
    /// Keeps what was found for the rows whose logits follow those that are there.
    pub(super) fn keep_matches(
        &mut self,
        wanted: Range<usize>,
        matches: &[Vec<Match>],
        hidden: usize,
    ) {
        if matches.is_empty() {
            return;
        }
        // Rows of earlier blocks whose sequences have no keys found nothing.
        self.matches.resize_with(self.rows + self.wanted.len() / hidden, Vec::new);
        self.matches.extend(matches[wanted].iter().map(|found| {
            let mut found = found.clone();
            found.sort_by(|a, b| b.margin.total_cmp(&a.margin).then(a.entry.cmp(&b.entry)));
            found
        }));
    }
}
