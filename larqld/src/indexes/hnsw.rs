//! Graphs of gates: hierarchical navigable small worlds (Malkov and Yashunin, 2018, arXiv:1603.09320).
//!
//! A search walks from gate to gate towards those that answer the query more strongly, and reads only
//! gates that it passes, in place. Gates are joined by the angle between them, and walked by their
//! products with the query. (Joined as if all were equally long, which would make the largest product
//! the least distance, the short ones lie on one heap that no walk leaves: measured, ADR 11.) A hit is
//! large by magnitude, so there are two walks, for the query and for its opposite.
//!
//! A search keeps the best gates it has seen, as many as its breadth. The breadth is the least of
//! [`BREADTHS`] that finds nearly all hits of some embeddings; the recall that is told was measured with
//! others. What is found has the scan's bits.
//!
//! Graphs are made by the crate `hnsw_rs`, one gate after another, so that the same gates give the same
//! file. Sections: `search` (breadth, `u32`; zero, `u32`; the share of gates that a search scores,
//! `f64`), then a graph a layer (`storage::vindex::index::graph`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::OnceLock;

use hnsw_rs::anndists::dist::Distance;
use hnsw_rs::hnsw::Hnsw;
use larql_compute::cpu::{Cancel, Pool};
use larql_compute::kernels::dot;
use larql_compute::model::Matrix;
use larql_planner::catalog::{GateReads, RECALL_MIN};
use larql_storage::vindex::index::graph::{Graph, LEVELS_MAX};
use larql_storage::vindex::{IndexError, IndexFile, IndexWriter};

use super::gates::{
    Found, GateSearch, RECALL_QUERIES, RECALL_WANTED, Recall, Wanted, embeddings, exact_hits,
    in_rows, score_exactly,
};
use crate::failure::{Failure, code};
use crate::mounts::Model;
use crate::pipeline::Progress;

/// Gates that a gate is joined with on each level but the lowest, which has twice as many.
const JOINED: usize = 16;
/// Gates that are kept while a gate's neighbours are looked for.
const BREADTH_OF_MAKING: usize = 200;
/// How broad a search may be.
const BREADTHS: [u32; 6] = [32, 64, 128, 256, 512, 1024];
/// Most bytes of a layer's gates that are held while its graph is made.
const LAYER_BYTES_MAX: u64 = 2 << 30;
/// Gates beyond those wanted that are scored with the scan's arithmetic, which rounds otherwise.
const SPARE: usize = 8;
/// Bytes of the section `search`.
const SEARCH_BYTES: usize = 16;

/// The graphs of all layers.
#[derive(Debug)]
pub struct GateGraphs {
    file: IndexFile,
    breadth: u32,
    /// The share of a layer's gates that a search scores.
    share: f64,
    /// Read when a layer is first searched; what is wrong with one is told each time.
    graphs: Vec<OnceLock<Result<Graph, String>>>,
}

impl GateGraphs {
    /// Checks that a file has a graph of every layer of a model.
    ///
    /// # Errors
    /// `Format`; `Checksum` of the section `search`.
    pub fn open(file: IndexFile, model: &Model) -> Result<Self, IndexError> {
        let refuse = || IndexError::Format {
            path: file.path().to_owned(),
            problem: "its sections are not graphs of these gates".to_owned(),
        };
        let layers = model.layers() as usize;
        if file.header().sections.len() != 1 + layers {
            return Err(refuse());
        }
        let search: &[u8; SEARCH_BYTES] = file.section(0)?.try_into().map_err(|_| refuse())?;
        let (&[a, b, c, d, _, _, _, _], share) =
            search.split_first_chunk::<8>().ok_or_else(refuse)?;
        let breadth = u32::from_le_bytes([a, b, c, d]);
        let share = f64::from_le_bytes(share.try_into().map_err(|_| refuse())?);
        if !BREADTHS.contains(&breadth) || !(0.0..=1.0).contains(&share) {
            return Err(refuse());
        }
        let graphs = (0..layers).map(|_| OnceLock::new()).collect();
        Ok(Self { file, breadth, share, graphs })
    }

    fn graph(&self, model: &Model, layer: u32) -> Result<&Graph, Failure> {
        let number = layer as usize;
        let bytes = self.file.section(1 + number)?;
        let read = || Graph::read(bytes, model.features(layer) as usize);
        let Some(Ok(graph)) = self.graphs.get(number).map(|graph| graph.get_or_init(read)) else {
            let path = self.file.path().to_owned();
            let problem = format!("its section {} is no graph of that layer", 1 + number);
            return Err(IndexError::Format { path, problem }.into());
        };
        Ok(graph)
    }
}

impl GateSearch for GateGraphs {
    fn reads(&self) -> GateReads {
        GateReads::SomeGates { share: self.share }
    }

    fn best(
        &self,
        with: (&Model, &Pool),
        layer: u32,
        vector: &[f32],
        wanted: Wanted,
        cancel: &Cancel,
    ) -> Result<Found, Failure> {
        let graph = self.graph(with.0, layer)?;
        let found = best(with, layer, (graph, self.breadth), vector, wanted.k, cancel)?.0;
        self.file.check()?;
        Ok(found)
    }
}

/// The best gates of a layer by a graph, and how many gates were scored.
fn best(
    (model, pool): (&Model, &Pool),
    layer: u32,
    (graph, breadth): (&Graph, u32),
    vector: &[f32],
    k: usize,
    cancel: &Cancel,
) -> Result<(Found, usize), Failure> {
    let features = model.features(layer) as usize;
    let breadth = k.saturating_add(SPARE).max(breadth as usize).min(features);
    let mut scores = Scores::new(model, layer, vector);
    let mut seen: Vec<(usize, f32)> = Vec::new();
    for sign in [1.0, -1.0] {
        seen.extend(walk(graph, breadth, |gate| sign * scores.of(gate), cancel)?);
    }
    // Each is in it twice at most, by either sign; the sign says nothing about the magnitude.
    seen.iter_mut().for_each(|(_, score)| *score = score.abs());
    seen.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    seen.dedup_by_key(|(gate, _)| *gate);
    seen.truncate(k.saturating_add(SPARE));
    let mut candidates: Vec<usize> = seen.into_iter().map(|(gate, _)| gate).collect();
    candidates.sort_unstable();
    let mut found = score_exactly((model, pool), layer, &candidates, (vector, k), cancel)?;
    found.bytes += scores.bytes;
    Ok((found, scores.scored))
}

/// The gates with the largest scores that a walk of a graph finds, at most `breadth` of them.
fn walk(
    graph: &Graph,
    breadth: usize,
    mut score: impl FnMut(u32) -> f32,
    cancel: &Cancel,
) -> Result<Vec<(usize, f32)>, Failure> {
    if graph.levels() == 0 || breadth == 0 {
        return Ok(Vec::new());
    }
    let mut here = Step { score: score(graph.entry()), gate: graph.entry() };
    for level in (1..graph.levels()).rev() {
        // Scores rise with each step, so this comes to an end.
        loop {
            let steps = graph.neighbours(level, here.gate).iter();
            let best = steps.map(|&gate| Step { score: score(gate), gate }).max();
            match best {
                Some(best) if best.score > here.score => here = best,
                _ => break,
            }
        }
    }
    let mut seen = vec![false; graph.vectors()];
    seen[here.gate as usize] = true;
    let mut open = BinaryHeap::from([here]);
    let mut kept = BinaryHeap::from([Reverse(here)]);
    while let Some(next) = open.pop() {
        let full = kept.len() >= breadth;
        if full && kept.peek().is_some_and(|Reverse(least)| next < *least) {
            break;
        }
        cancel.check()?;
        for &gate in graph.neighbours(0, next.gate) {
            if std::mem::replace(&mut seen[gate as usize], true) {
                continue;
            }
            let step = Step { score: score(gate), gate };
            let full = kept.len() >= breadth;
            if !full || kept.peek().is_some_and(|Reverse(least)| step > *least) {
                open.push(step);
                kept.push(Reverse(step));
                if full {
                    kept.pop();
                }
            }
        }
    }
    Ok(kept.into_iter().map(|Reverse(step)| (step.gate as usize, step.score)).collect())
}

/// A gate and its score; a greater one is a better one, and of equal ones that of the lower number.
#[derive(Debug, Clone, Copy)]
struct Step {
    score: f32,
    gate: u32,
}

impl Ord for Step {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.score.total_cmp(&other.score).then(other.gate.cmp(&self.gate))
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Step {}

/// The scores of a layer's gates for a query, each computed when it is first asked for.
struct Scores<'a> {
    /// The first feature of each network, and its gates.
    networks: Vec<(usize, Matrix<'a>)>,
    vector: &'a [f32],
    known: Vec<Option<f32>>,
    row: Vec<f32>,
    scored: usize,
    bytes: u64,
}

impl<'a> Scores<'a> {
    fn new(model: &'a Model, layer: u32, vector: &'a [f32]) -> Self {
        Self {
            networks: networks(model, layer),
            vector,
            known: vec![None; model.features(layer) as usize],
            row: vec![0.0; vector.len()],
            scored: 0,
            bytes: 0,
        }
    }

    fn of(&mut self, gate: u32) -> f32 {
        let gate = gate as usize;
        if let Some(score) = self.known[gate] {
            return score;
        }
        let (first, gates) = &self.networks[network_of(&self.networks, gate)];
        gates.view.row_f32(gate - first, &mut self.row);
        self.bytes += gates.view.row_bytes() as u64;
        let score = dot(&self.row, self.vector);
        // What is no number leads nowhere.
        let score = if score.is_nan() { 0.0 } else { score };
        self.scored += 1;
        self.known[gate] = Some(score);
        score
    }
}

/// The gates of a layer with the number of their first feature.
fn networks(model: &Model, layer: u32) -> Vec<(usize, Matrix<'_>)> {
    model.gates(layer).map(|(network, gates)| (network.first, gates)).collect()
}

/// Which network a feature of the layer is of.
fn network_of(networks: &[(usize, Matrix<'_>)], feature: usize) -> usize {
    networks.partition_point(|(first, _)| *first <= feature).saturating_sub(1)
}

/// Half of the squared distance of two vectors of length 1.
#[derive(Debug, Clone, Copy)]
struct HalfSquare;

impl Distance<f32> for HalfSquare {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        (1.0 - dot(a, b)).max(0.0)
    }
}

/// Writes the graphs of all layers, and measures what searches find.
///
/// # Errors
/// `NOT_SUPPORTED` for gates that do not lie in rows, or layers too large; when cancelled; when the file
/// cannot be written.
pub fn write(
    with @ (model, _): (&Model, &Pool),
    mut writer: IndexWriter,
    cancel: &Cancel,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let layers = || 0..model.layers();
    let width = model.architecture().hidden_size as u64;
    let largest = layers().map(|layer| model.features(layer)).max().unwrap_or(0);
    let fits = largest.saturating_mul(width * 4) <= LAYER_BYTES_MAX;
    if !in_rows(model) || !fits {
        let message = match fits {
            true => "gates that lie in columns cannot be joined".to_owned(),
            false => format!("a layer of {largest} gates is too large to be joined"),
        };
        let hint = "CREATE INDEX name ON GATES USING coarse_sketch";
        return Err(Failure::new(code::NOT_SUPPORTED, message).hint(hint));
    }
    let total = layers().map(|layer| model.features(layer)).sum();
    let mut done = 0;
    let mut graphs = Vec::new();
    for layer in layers() {
        graphs.push(join(model, layer, cancel, &mut |count| {
            done += count;
            progress("joining", done, total, "features")
        })?);
    }
    let tuning = embeddings(model, RECALL_QUERIES, 0)?;
    let mut breadth = BREADTHS[0];
    for tried in BREADTHS {
        breadth = tried;
        let (recall, _) = measure(with, &graphs, tried, &tuning, cancel)?;
        if recall.share().is_none_or(|recall| recall >= RECALL_MIN) {
            break;
        }
    }
    let others = embeddings(model, RECALL_QUERIES, 2)?;
    let (recall, share) = measure(with, &graphs, breadth, &others, cancel)?;
    let search = [&breadth.to_le_bytes()[..], &[0; 4], &share.to_le_bytes()].concat();
    writer.section("search", &search)?;
    for (layer, graph) in graphs.iter().enumerate() {
        writer.section(&format!("graph {layer}"), &graph.to_bytes())?;
    }
    if let Some(recall) = recall.share() {
        writer.set_recall(recall);
    }
    Ok(writer.finish()?)
}

/// What searches of a breadth find for some queries, and the share of all gates that they score.
fn measure(
    with @ (model, _): (&Model, &Pool),
    graphs: &[Graph],
    breadth: u32,
    queries: &[Vec<f32>],
    cancel: &Cancel,
) -> Result<(Recall, f64), Failure> {
    let mut recall = Recall::default();
    let (mut scored, mut all) = (0, 0);
    for (layer, graph) in (0..).zip(graphs) {
        for query in queries {
            let exact = exact_hits(with, layer, query, cancel)?;
            let k = RECALL_WANTED.k;
            let (found, count) = best(with, layer, (graph, breadth), query, k, cancel)?;
            recall.count(&exact, &found.hits);
            scored += count;
            all += model.features(layer) as usize;
        }
    }
    Ok((recall, scored as f64 / all.max(1) as f64))
}

/// Joins the gates of a layer; `joined` is told how many were, as they are.
fn join(
    model: &Model,
    layer: u32,
    cancel: &Cancel,
    joined: &mut dyn FnMut(u64) -> Result<(), Failure>,
) -> Result<Graph, Failure> {
    /// Gates between two looks at the cancel token.
    const AT_ONCE: usize = 64;
    let networks = networks(model, layer);
    let count = model.features(layer) as usize;
    let width = model.architecture().hidden_size;
    let mut row = vec![0.0; width];
    let read = |gate: usize, row: &mut [f32]| {
        let (first, gates) = &networks[network_of(&networks, gate)];
        gates.view.row_f32(gate - first, row);
        let squares: f64 = row.iter().map(|&value| f64::from(value).powi(2)).sum();
        // What is no number is joined as nothing.
        if !squares.is_finite() {
            row.fill(0.0);
            return 0.0;
        }
        squares.sqrt()
    };
    let graph = Hnsw::new(JOINED, count, LEVELS_MAX, BREADTH_OF_MAKING, HalfSquare);
    for gate in 0..count {
        if gate % AT_ONCE == 0 {
            cancel.check()?;
            joined(AT_ONCE.min(count - gate) as u64)?;
        }
        let length = read(gate, &mut row);
        let scale = if length > 0.0 { length.recip() } else { 0.0 };
        row.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
        graph.insert((&row, gate));
    }
    let mut levels: Vec<Vec<Vec<u32>>> = Vec::new();
    let mut entry = (0, u32::MAX);
    for point in graph.get_point_indexation() {
        let gate = point.get_origin_id() as u32;
        let level = usize::from(point.get_point_id().0);
        // The first of those on the highest level.
        if level > entry.0 || (level == entry.0 && gate < entry.1) {
            entry = (level, gate);
        }
        while levels.len() <= level {
            levels.push(vec![Vec::new(); count]);
        }
        for (level, neighbours) in point.get_neighborhood_id().iter().take(level + 1).enumerate() {
            levels[level][gate as usize] =
                neighbours.iter().map(|one| one.get_origin_id() as u32).collect();
        }
    }
    let entry = if count == 0 { 0 } else { entry.1 };
    Graph::new(entry, &levels).map_err(|problem| Failure::new(code::INTERNAL, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look drawn.
    fn noise(state: &mut u64) -> f32 {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*state >> 40) as f32 / (1 << 24) as f32 - 0.5
    }

    /// Every vector is joined with the next ones in a ring, and some of them on a second level.
    fn ring(vectors: u32) -> Graph {
        let joined = |step: u32| {
            let steps =
                move |one: u32| vec![(one + step) % vectors, (one + vectors - step) % vectors];
            move |one| if one % step == 0 { steps(one) } else { Vec::new() }
        };
        let level = |step| (0..vectors).map(joined(step)).collect::<Vec<_>>();
        Graph::new(0, &[level(1), level(10)]).expect("a graph")
    }

    #[test]
    fn a_walk_that_keeps_everything_finds_everything_once() {
        let mut state = 5;
        let scores: Vec<f32> = (0..100).map(|_| noise(&mut state)).collect();
        let found = walk(&ring(100), 100, |gate| scores[gate as usize], &Cancel::new());
        let mut found = found.expect("not cancelled");
        found.sort_by_key(|(gate, _)| *gate);
        let all: Vec<(usize, f32)> = scores.into_iter().enumerate().collect();
        assert_eq!(found, all);
    }

    #[test]
    fn a_narrow_walk_climbs_to_the_top_of_a_hill_and_scores_few() {
        let mut scored = 0;
        let height = |gate: u32| {
            scored += 1;
            -(gate as f32 - 73.0).abs()
        };
        let found = walk(&ring(100), 3, height, &Cancel::new()).expect("not cancelled");
        let mut gates: Vec<usize> = found.iter().map(|(gate, _)| *gate).collect();
        gates.sort_unstable();
        assert_eq!(gates, [72, 73, 74]);
        assert!(scored < 40, "{scored} of 100 were scored");
        assert!(walk(&Graph::default(), 3, |_| 0.0, &Cancel::new()).expect("nothing").is_empty());
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(walk(&ring(100), 3, |_| 0.0, &cancel).is_err());
    }
}
