//! Which layers an edit is made in.

use larql_compute::model::Architecture;

/// Layers whose outputs are normed that are edited together: one alone cannot add enough.
const NORMED: usize = 3;
/// Layers that are edited together otherwise.
const PLAIN: usize = 2;

/// The layers of COMPOSE and MEMIT where the statement names none: the last ones.
pub fn of_weights(architecture: &Architecture) -> Vec<usize> {
    let layers = architecture.layers();
    let last = layers.saturating_sub(1);
    let normed = architecture.layer(last).post_norms;
    (layers.saturating_sub(if normed { NORMED } else { PLAIN })..layers).collect()
}

/// The layer at whose input KNN looks where the statement names none: the middle one, where the last token knows what it
/// is asked for, and not yet only what it will answer.
pub fn of_keys(architecture: &Architecture) -> usize {
    architecture.layers() / 2
}
