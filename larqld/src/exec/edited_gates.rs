//! Gates that edits replaced or added, beside the base's in every scan.
//!
//! A hidden feature keeps its rank, so that hiding one lets no other in; whoever makes rows of hits leaves
//! it out.

use larql_compute::kernels::dot;
use larql_storage::overlay::{Overlay, Slot};

pub(super) use crate::mounts::edited_features as features;

/// The scores of the gates of a layer that edits replaced or added; `vector` is what the network of a
/// feature reads.
pub(super) fn scores<'v>(
    overlay: &Overlay,
    layer: u32,
    vector: impl Fn(u32) -> &'v [f32],
) -> Vec<(usize, f32)> {
    let edited = overlay.features_of(layer).filter(|(_, delta)| !delta.hidden);
    let scored = edited.filter_map(|(slot, delta)| {
        let (gate, vector) = (delta.gate.as_deref()?, vector(slot.feature));
        (gate.len() == vector.len()).then(|| (slot.feature as usize, dot(gate, vector)))
    });
    scored.collect()
}

/// Puts scores of edited gates among those of a whole layer; a number that no feature has scores 0.
pub(super) fn merge(scores: &mut Vec<f32>, edited: &[(usize, f32)]) {
    for &(feature, score) in edited {
        if feature >= scores.len() {
            scores.resize(feature + 1, 0.0);
        }
        scores[feature] = score;
    }
}

/// The score of one edited gate; `None` for one that is as in the base.
pub(super) fn score(overlay: &Overlay, slot: Slot, vector: &[f32]) -> Option<f32> {
    let gate = overlay.feature(slot)?.gate.as_deref()?;
    (gate.len() == vector.len()).then(|| dot(gate, vector))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_gate_takes_the_place_of_the_bases_and_an_added_one_its_own() {
        let mut scores = vec![1.0, 2.0];
        merge(&mut scores, &[(0, 4.0), (3, 5.0)]);
        assert_eq!(scores, [4.0, 2.0, 0.0, 5.0]);
    }
}
