//! Sketches of gates: each gate in few bits, with a bound of how far its score may be from the exact one.
//!
//! A query's products with the sketch bracket every exact score. The hits of a scan are among those gates
//! whose bracket reaches high enough; only these are scored exactly, with the scan's own arithmetic, so
//! that what is found has the scan's bits.
//!
//! Of a `sketch` (8 bits) the bounds hold for every query: a score differs by at most the length of what
//! rounding took from the gate times the length of the query (Cauchy and Schwarz), and by what rounding
//! while adding can do to either sum. Of a `coarse_sketch` (4 bits) that would bracket nearly everything.
//! Its bounds are so many standard deviations of an error whose direction is random, that of rounding the
//! query to 8 bits included; how many hits that misses is measured on the vindex's own embeddings when the
//! index is made.
//!
//! Two sections a layer: the codes of its gates, row by row in their block format, and a bound a gate
//! (f32), to be multiplied by the query's length.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::kernels::gate_scan;
use larql_compute::kernels::quantised::{Product, ServingScratch, products};
use larql_compute::kernels::top_k::top_k;
use larql_compute::quant::{self, Dtype, MatrixView};
use larql_planner::catalog::GateReads;
use larql_planner::physical::plan::IndexMethod;
use larql_storage::vindex::index::SectionRecord;
use larql_storage::vindex::{IndexError, IndexFile, IndexWriter};

use super::gates::{
    Found, GateSearch, RECALL_QUERIES, RECALL_WANTED, Recall, Wanted, embeddings, exact_hits,
    in_rows, score_exactly,
};
use crate::failure::{Failure, code};
use crate::mounts::Model;
use crate::pipeline::Progress;

/// Standard deviations of a guessed error that a coarse sketch allows for.
const DEVIATIONS: f64 = 5.0;
/// What rounding a query to 8 bits in blocks of 32 takes from it at most, by its length: half a step of a
/// block's largest number over 127, for each of 32.
const QUERY_APART: f64 = 5.66 / 254.0;
/// Gates that are cut at a time.
const ROWS_AT_ONCE: usize = 256;

/// The block format of a sketch's codes.
fn format(method: IndexMethod) -> Option<Dtype> {
    match method {
        IndexMethod::Postings | IndexMethod::Hnsw => None,
        IndexMethod::Sketch => Some(Dtype::Q8_0),
        IndexMethod::CoarseSketch => Some(Dtype::Q4_0),
    }
}

/// A sketch of all layers.
#[derive(Debug)]
pub struct Sketch {
    file: IndexFile,
    dtype: Dtype,
    columns: usize,
}

impl Sketch {
    /// Checks that a file has a sketch of every layer of a model.
    ///
    /// # Errors
    /// `Format`.
    pub fn open(file: IndexFile, method: IndexMethod, model: &Model) -> Result<Self, IndexError> {
        let refuse = || IndexError::Format {
            path: file.path().to_owned(),
            problem: "its sections are not sketches of these gates".to_owned(),
        };
        let columns = model.architecture().hidden_size;
        let dtype = format(method).ok_or_else(refuse)?;
        let row_bytes = dtype.bytes_for(columns).ok_or_else(refuse)? as u64;
        let sections = &file.header().sections;
        let fits = |(layer, pair): (u32, &[SectionRecord])| {
            let [codes, bounds] = pair else { return false };
            let features = model.features(layer);
            features.checked_mul(row_bytes) == Some(codes.bytes) && features * 4 == bounds.bytes
        };
        let right = sections.len() as u64 == 2 * u64::from(model.layers())
            && (0..).zip(sections.chunks(2)).all(fits);
        if !right {
            return Err(refuse());
        }
        Ok(Self { file, dtype, columns })
    }
}

impl GateSearch for Sketch {
    fn reads(&self) -> GateReads {
        let codes = self.dtype.bytes_for(self.columns).unwrap_or(0) as u64;
        GateReads::EachGate { row_bytes: codes + size_of::<f32>() as u64 }
    }

    fn best(
        &self,
        with: (&Model, &Pool),
        layer: u32,
        vector: &[f32],
        wanted: Wanted,
        cancel: &Cancel,
    ) -> Result<Found, Failure> {
        let codes = self.file.section(2 * layer as usize)?;
        let bounds = self.file.section(2 * layer as usize + 1)?;
        let bounds: Vec<f32> =
            bounds.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let view = view(self.dtype, bounds.len(), self.columns, codes)?;
        let found = best(with, layer, (&view, &bounds), vector, wanted, cancel)?;
        self.file.check()?;
        Ok(found)
    }
}

fn view(
    dtype: Dtype,
    rows: usize,
    columns: usize,
    codes: &[u8],
) -> Result<MatrixView<'_>, Failure> {
    MatrixView::new(dtype, rows, columns, codes)
        .map_err(|error| Failure::new(code::INTERNAL, error.to_string()))
}

/// The length of a vector, not less than it is.
fn length(vector: &[f32]) -> f64 {
    let squares: f64 = vector.iter().map(|&value| f64::from(value).powi(2)).sum();
    squares.sqrt() * (1.0 + 1e-9)
}

fn best(
    (model, pool): (&Model, &Pool),
    layer: u32,
    (codes, bounds): (&MatrixView<'_>, &[f32]),
    vector: &[f32],
    wanted: Wanted,
    cancel: &Cancel,
) -> Result<Found, Failure> {
    let estimates = estimates(pool, codes, vector, cancel)?;
    let length = length(vector);
    let candidates = candidates(&estimates, bounds, length, wanted);
    let mut found = score_exactly((model, pool), layer, &candidates, (vector, wanted.k), cancel)?;
    found.bytes += codes.bytes_touched() + size_of_val(bounds) as u64;
    Ok(found)
}

/// The scores of a query by the codes of all gates.
fn estimates(
    pool: &Pool,
    codes: &MatrixView<'_>,
    vector: &[f32],
    cancel: &Cancel,
) -> Result<Vec<f32>, Failure> {
    // Where bounds are tight the query is not rounded.
    if codes.dtype() == Dtype::Q8_0 || codes.rows() == 0 {
        return Ok(gate_scan(pool, codes, vector, cancel)?);
    }
    let mut estimates = vec![0.0; codes.rows()];
    let product = Product { view: *codes, out: &mut estimates };
    products(pool, &mut [product], vector, &mut ServingScratch::default(), cancel)?;
    Ok(estimates)
}

/// The gates whose exact scores have to be known. What is no number may be anything.
fn candidates(estimates: &[f32], bounds: &[f32], length: f64, wanted: Wanted) -> Vec<usize> {
    // More than rounding in f32 takes from a product, a sum and a conversion.
    const SPARE: f32 = 1e-6;
    let length = length as f32 * (1.0 + SPARE);
    // From below, and from above: NaN where it is no number.
    let least = |(estimate, bound): (&f32, &f32)| {
        let least = (estimate.abs() - bound * length) * (1.0 - SPARE);
        if estimate.is_finite() { least.max(0.0) } else { 0.0 }
    };
    let reaches = |(estimate, bound): (&f32, &f32), least: f32| {
        let most = (estimate.abs() + bound * length) * (1.0 + SPARE);
        most >= least || most.is_nan()
    };
    let all = || estimates.iter().zip(bounds);
    let reaching = |least: f32| {
        let found = all().enumerate().filter(move |(_, one)| reaches(*one, least));
        found.map(|(feature, _)| feature).collect::<Vec<usize>>()
    };
    if let Some(score_min) = wanted.score_min.filter(|least| *least > 0.0) {
        let score_min = score_min as f32 * (1.0 - SPARE);
        let found = reaching(score_min);
        // If no more than K reach it in magnitude, each of those that reach it is among the best K.
        if found.len() <= wanted.k {
            return found;
        }
    }
    let lowest: Vec<f32> = all().map(least).collect();
    let best = top_k(&lowest, wanted.k);
    match best.last() {
        Some(&(_, least)) if best.len() == wanted.k => reaching(least),
        _ => (0..estimates.len()).collect(),
    }
}

/// Writes a sketch's sections, and measures what it finds where that is not everything.
///
/// # Errors
/// `NOT_SUPPORTED` for gates that do not lie in rows of whole blocks; when cancelled; when the file
/// cannot be written.
pub fn write(
    (model, pool): (&Model, &Pool),
    method: IndexMethod,
    mut writer: IndexWriter,
    cancel: &Cancel,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let columns = model.architecture().hidden_size;
    let layers = || 0..model.layers();
    let dtype = format(method).filter(|dtype| columns % dtype.block().0 == 0 && in_rows(model));
    let Some(dtype) = dtype else {
        let message = format!("gates of width {columns} cannot be cut into blocks");
        return Err(Failure::new(code::NOT_SUPPORTED, message)
            .hint("scans of this model are exact already"));
    };
    let queries = match method {
        IndexMethod::CoarseSketch => embeddings(model, RECALL_QUERIES, 0)?,
        _ => Vec::new(),
    };
    let mut recall = Recall::default();
    let total = layers().map(|layer| model.features(layer)).sum();
    let mut done = 0;
    for layer in layers() {
        let mut codes = Vec::new();
        let mut bounds: Vec<f32> = Vec::new();
        for (_, gates) in model.gates(layer) {
            let mut block = Block::new(dtype, columns);
            for first in (0..gates.view.rows()).step_by(ROWS_AT_ONCE) {
                cancel.check()?;
                progress("indexing", done, total, "features")?;
                let rows = first..gates.view.rows().min(first + ROWS_AT_ONCE);
                done += rows.len() as u64;
                for row in rows {
                    bounds.push(block.cut(&gates.view, row, method));
                    codes.extend_from_slice(&block.codes);
                }
            }
        }
        writer.section(&format!("codes {layer}"), &codes)?;
        let bytes: Vec<u8> = bounds.iter().flat_map(|bound| bound.to_le_bytes()).collect();
        writer.section(&format!("bounds {layer}"), &bytes)?;
        let view = view(dtype, bounds.len(), columns, &codes)?;
        for query in &queries {
            let exact = exact_hits((model, pool), layer, query, cancel)?;
            let here = best((model, pool), layer, (&view, &bounds), query, RECALL_WANTED, cancel)?;
            recall.count(&exact, &here.hits);
        }
    }
    if let Some(recall) = recall.share() {
        writer.set_recall(recall);
    }
    Ok(writer.finish()?)
}

/// One gate, and what its codes make of it.
struct Block {
    dtype: Dtype,
    gate: Vec<f32>,
    back: Vec<f32>,
    codes: Vec<u8>,
}

impl Block {
    fn new(dtype: Dtype, columns: usize) -> Self {
        let bytes = dtype.bytes_for(columns).unwrap_or(0);
        let zeros = || vec![0.0; columns];
        Self { dtype, gate: zeros(), back: zeros(), codes: vec![0; bytes] }
    }

    /// Cuts a gate; returns its bound.
    fn cut(&mut self, gates: &MatrixView<'_>, row: usize, method: IndexMethod) -> f32 {
        gates.row_f32(row, &mut self.gate);
        quant::from_f32(self.dtype, &self.gate, &mut self.codes);
        quant::to_f32(self.dtype, &self.codes, &mut self.back);
        let apart = self.gate.iter().zip(&self.back);
        let apart: f64 =
            apart.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt();
        let width = self.gate.len() as f64;
        // What adding up may round away: of n products n half-units of their magnitudes, in the scan
        // and in the sketch's own sum, whose three parts round less; two whole units each here.
        let rounding = 4.0 * (width + 64.0) * f64::from(f32::EPSILON);
        let rounding = rounding * (length(&self.gate) + length(&self.back));
        let taken = match method {
            IndexMethod::CoarseSketch => {
                (apart + QUERY_APART * length(&self.back)) * DEVIATIONS / width.max(1.0).sqrt()
            }
            _ => apart,
        };
        ((taken + rounding) * (1.0 + 1e-6)) as f32
    }
}

#[cfg(test)]
mod tests {
    use larql_compute::kernels::top_k::{rank, top_k_by_magnitude};

    use super::*;

    /// Exact scores within the brackets of some estimates, and the hits that a scan finds.
    #[test]
    fn candidates_hold_every_hit_whatever_the_exact_scores_within_the_bounds() {
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f64 / f64::from(1 << 24) - 0.5
        };
        for round in 0..300 {
            let count = 1 + round % 40;
            let exact: Vec<f32> = (0..count).map(|_| (noise() * 20.0) as f32).collect();
            let bounds: Vec<f32> = (0..count).map(|_| (noise() + 0.6) as f32).collect();
            let estimates: Vec<f32> = exact
                .iter()
                .zip(&bounds)
                .map(|(&score, &bound)| {
                    (f64::from(score) + f64::from(bound) * noise() * 3.9) as f32
                })
                .collect();
            for k in [1, 2, 5, 50] {
                let scan = top_k_by_magnitude(&exact, k);
                let all = candidates(&estimates, &bounds, 2.0, Wanted { k, score_min: None });
                assert!(scan.iter().all(|(feature, _)| all.contains(feature)), "{round} {k}");
                let score_min = 4.0 + noise() * 4.0;
                let wanted = Wanted { k, score_min: Some(score_min) };
                let few = candidates(&estimates, &bounds, 2.0, wanted);
                let mut found: Vec<(usize, f32)> =
                    few.iter().map(|&feature| (feature, exact[feature])).collect();
                found.sort_by(|a, b| rank((a.0, a.1.abs()), (b.0, b.1.abs())));
                found.truncate(k);
                let passing = |hits: &[(usize, f32)]| -> Vec<(usize, f32)> {
                    hits.iter().copied().filter(|hit| f64::from(hit.1) >= score_min).collect()
                };
                assert_eq!(passing(&found), passing(&scan), "{round} {k} {score_min}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_always_a_candidate() {
        let estimates = [f32::NAN, 1.0, f32::INFINITY, 9.0];
        let bounds = [0.1, f32::INFINITY, 0.1, 0.1];
        let found = candidates(&estimates, &bounds, 1.0, Wanted { k: 1, score_min: None });
        assert_eq!(found, [0, 1, 2, 3]);
        let wanted = Wanted { k: 1, score_min: Some(20.0) };
        assert_eq!(candidates(&estimates, &bounds, 1.0, wanted), [0, 1, 2, 3]);
    }
}
