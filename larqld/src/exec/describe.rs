//! DESCRIBE: gate hits of an entity become edges.
//!
//! A gate hit is an edge when its target is a content token other than the entity. What LABEL learned
//! adds edges whose relation is known, with a calibrated confidence (`knowledge`). Edges with one
//! target (case-folded) are one row: it shows the most certain, else the strongest of them, and how
//! many there are; two relations to one target are two rows. Certain rows come first. The rows of
//! each band are capped by the display.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use larql_planner::catalog::{Bands, Component};
use larql_planner::physical::plan::{self, BandCaps, Display};
use larql_planner::value::Value;
use larql_storage::vindex::knowledge::EdgeRecord;

use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::failure::Failure;
use crate::knowledge::prober::Prober;
use crate::knowledge::{Edges, Knowledge, Source, shown_confidence};
use crate::mounts::unsteady;
use crate::text::{case_folded, is_content};

/// Layers whose experts are named.
const EXPERT_LAYERS_MAX: usize = 64;
/// Further tokens that an edge shows beside its target.
const ALSO_MAX: usize = 3;

/// Groups hits into edges.
pub(super) struct DescribeEdges {
    input: Box<dyn Operator>,
    describe: plan::DescribeEdges,
    entity: String,
    ready: Option<Ready>,
    /// Targets already given, when rows are given as they are found.
    seen: HashSet<String>,
    /// What is known was given, when rows are given as they are found.
    began: bool,
    given: u64,
    /// Rows given of each band, when rows are given as they are found.
    given_of_band: [u64; 3],
    /// No row was given yet.
    empty: bool,
    /// What is to be known of the model was said.
    told: bool,
    /// Relations are claimed by calibrated sources only, not by a feature's label alone.
    is_calibrated: bool,
    /// What names clusters of features, where no relation is known.
    clusters: Option<Arc<Knowledge>>,
}

#[derive(Debug, Clone)]
struct Edge {
    target: Arc<str>,
    relation: Value,
    score: f32,
    layer: i64,
    feature: i64,
    layer_min: i64,
    layer_max: i64,
    count: i64,
    also: Vec<Value>,
    source: &'static str,
    confidence: Option<f64>,
}

impl DescribeEdges {
    pub(super) fn new(input: Box<dyn Operator>, describe: plan::DescribeEdges) -> Self {
        let entity = case_folded(describe.entity.trim());
        Self {
            input,
            describe,
            entity,
            ready: None,
            seen: HashSet::new(),
            began: false,
            given: 0,
            given_of_band: [0; 3],
            empty: true,
            told: false,
            is_calibrated: false,
            clusters: None,
        }
    }

    /// The edge that one hit is by itself, if it is one.
    fn edge(&self, row: &Row) -> Option<(String, Edge)> {
        let [
            Value::Integer(layer),
            Value::Integer(feature),
            Value::Score(score),
            _,
            Value::Text(target),
            relation,
            Value::List(tokens),
        ] = &row[..]
        else {
            return None;
        };
        let folded = case_folded(target);
        if !is_content(target) || folded == self.entity {
            return None;
        }
        let relation = match self.is_calibrated || self.describe.display == Display::Raw {
            true => &Value::Null,
            false => relation,
        };
        let mut named = vec![folded.clone()];
        let mut also = Vec::new();
        for token in tokens.iter() {
            let Value::Text(word) = token else { continue };
            let other = case_folded(word);
            if also.len() < ALSO_MAX
                && is_content(word)
                && other != self.entity
                && !named.contains(&other)
            {
                also.push(token.clone());
                named.push(other);
            }
        }
        // Where nothing is known by facts, what features have in common says something.
        let cluster = self.clusters.as_ref().filter(|_| self.describe.display != Display::Raw);
        let cluster = cluster.filter(|_| relation.is_null()).and_then(|knowledge| {
            knowledge.cluster(u32::try_from(*layer).ok()?, u32::try_from(*feature).ok()?)
        });
        let (relation, source) = match cluster {
            Some(name) => (Value::text(name), "cluster"),
            None => (relation.clone(), "gate"),
        };
        if self.describe.relations_only && relation.is_null() {
            return None;
        }
        let edge = Edge {
            target: target.clone(),
            relation,
            score: *score,
            layer: *layer,
            feature: *feature,
            layer_min: *layer,
            layer_max: *layer,
            count: 1,
            also,
            source,
            confidence: None,
        };
        Some((folded, edge))
    }

    /// The edges that the model's labels know or learn of the entity now.
    fn known_edges(&mut self, work: &mut Work<'_>) -> Result<Vec<(String, Edge)>, Failure> {
        let model = work.model()?;
        let Some(knowledge) = model.knowledge() else { return Ok(Vec::new()) };
        self.is_calibrated = !knowledge.file().relations.is_empty();
        if !self.is_calibrated {
            self.clusters = Some(knowledge);
            return Ok(Vec::new());
        }
        let sources = self.describe.sources;
        let chosen = [
            (sources.probe, Source::Probe),
            (sources.residual, Source::Residual),
            (sources.gate, Source::Gate),
        ];
        let mut found: Vec<(Source, EdgeRecord)> = Vec::new();
        let mut answers: Option<Edges> = None;
        for (_, source) in chosen.into_iter().filter(|(chosen, _)| *chosen) {
            let edges = work.ask(&model, &knowledge, source, &self.describe.entity)?;
            match &answers {
                Some(answers) => {
                    let others = knowledge.beside_answers(source, &edges, answers);
                    found.extend(others.into_iter().map(|edge| (source, edge)));
                }
                None => found.extend(edges.iter().map(|edge| (source, edge.clone()))),
            }
            if source == Source::Probe {
                answers = Some(edges);
            }
        }
        found.sort_by(|(_, a), (_, b)| b.confidence.total_cmp(&a.confidence));
        // Of a relation that has one object the most certain one stands.
        let mut objects: HashMap<u32, String> = HashMap::new();
        found.retain(|(_, edge)| {
            let target = case_folded(&edge.target);
            let first = objects.entry(edge.relation).or_insert_with(|| target.clone());
            !knowledge.is_single(edge.relation) || *first == target
        });
        Ok(self.edges_of(&knowledge, &found))
    }

    /// The edges that are certain enough and lie where they are asked for.
    fn edges_of(
        &self,
        knowledge: &Knowledge,
        found: &[(Source, EdgeRecord)],
    ) -> Vec<(String, Edge)> {
        let wanted = found.iter().filter(|(_, edge)| {
            self.describe.layers.as_ref().is_none_or(|layers| layers.contains(edge.layer))
                && shown_confidence(edge.confidence) >= self.describe.confidence_min
        });
        let edges = wanted.filter_map(|(source, found)| {
            let relation = match self.describe.display {
                Display::Raw => Value::Null,
                _ => Value::text(knowledge.relation(found.relation)?),
            };
            let (layer, feature) = (found.layer.into(), found.feature.into());
            let edge = Edge {
                target: found.target.as_str().into(),
                relation,
                score: found.gate_score,
                layer,
                feature,
                layer_min: layer,
                layer_max: layer,
                count: 1,
                also: Vec::new(),
                source: source.as_str(),
                confidence: Some(shown_confidence(found.confidence)),
            };
            Some((case_folded(&found.target), edge))
        });
        edges.collect()
    }

    /// Says what the model makes of any answer: how steady gate hits are, and, of a mixture of experts
    /// in a verbose answer, which experts the router chose.
    fn tell_of_model(&self, work: &mut Work<'_>) -> Result<(), Failure> {
        let model = work.model()?;
        if self.describe.sources.gate
            && let Some((message, hint)) = unsteady(model.strongest_features_kept(work.cancel)?)
        {
            work.notice(message, hint)?;
        }
        if self.describe.experts && model.require_inference().is_ok() {
            let mut prober = Prober::new(&model, work.engine().pool(), work.cancel)?;
            let routed = prober.experts(&self.describe.entity)?;
            work.touch_passes(prober.meters());
            let wanted = |layer| self.describe.layers.as_ref().is_none_or(|of| of.contains(layer));
            let routed = routed.iter().filter(|(layer, _)| wanted(*layer));
            let shown = routed.take(EXPERT_LAYERS_MAX).map(|(layer, experts)| {
                let experts: Vec<String> = experts.iter().map(u32::to_string).collect();
                format!("layer {layer}: {}", experts.join(", "))
            });
            let shown: Vec<String> = shown.collect();
            if !shown.is_empty() {
                let message = format!("experts at the bare name: {}", shown.join("; "));
                work.notice(message, "")?;
            }
        }
        Ok(())
    }

    /// Says what kept an answer empty, so that nobody takes it for a failure.
    fn tell_why_empty(&self, work: &Work<'_>) -> Result<(), Failure> {
        if self.describe.limit == Some(0) {
            return Ok(());
        }
        let entity = &self.describe.entity;
        if self.describe.relations_only && !work.model()?.has(Component::Labels) {
            let message =
                format!("no feature has a label, so no edge of {entity:?} has a relation");
            return work.notice(message, "leave out RELATIONS ONLY");
        }
        let z = work.context.state().settings.describe_z();
        let message = format!("no edge of {entity:?} stands out at z >= {z} in its layer");
        let hint = match z > 0.0 {
            true => format!("SET describe_z = {} shows weaker ones", z / 2.0),
            false => String::new(),
        };
        work.notice(message, hint)
    }

    fn row(&self, edge: Edge) -> Row {
        vec![
            Value::Text(self.describe.entity.clone()),
            edge.relation,
            Value::Text(edge.target),
            Value::Score(edge.score),
            Value::Integer(edge.layer),
            Value::Integer(edge.feature),
            Value::Integer(edge.layer_min),
            Value::Integer(edge.layer_max),
            Value::Integer(edge.count),
            Value::List(edge.also.into()),
            Value::text(edge.source),
            edge.confidence.map_or(Value::Null, Value::Real),
        ]
    }

    fn grouped(&mut self, work: &mut Work<'_>) -> Result<Ready, Failure> {
        let mut order: Vec<Edge> = Vec::new();
        let mut index: HashMap<String, Vec<usize>> = HashMap::new();
        let mut found = self.known_edges(work)?;
        while self.describe.sources.gate
            && let Some(rows) = self.input.next(work)?
        {
            found.extend(rows.iter().filter_map(|row| self.edge(row)));
        }
        for (folded, edge) in found {
            let of_target = index.entry(folded).or_default();
            // A hit without a relation of its own speaks for the relations that are known.
            let same =
                |&&at: &&usize| edge.relation.is_null() || edge.relation == order[at].relation;
            match of_target.iter().find(same) {
                None => {
                    of_target.push(order.len());
                    order.push(edge);
                }
                Some(&at) => merge(&mut order[at], edge),
            }
        }
        order.sort_by(rank);
        let mut of_band = [0; 3];
        let kept = order.into_iter().filter(|edge| {
            let band = band_of(self.describe.bands, edge.layer);
            of_band[band] += 1;
            of_band[band] <= cap(self.describe.caps, band)
        });
        let limit = self
            .describe
            .limit
            .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let kept: Vec<Edge> = kept.take(limit).collect();
        Ok(Ready::new(kept.into_iter().map(|edge| self.row(edge)).collect()))
    }

    fn streamed(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let limit = self.describe.limit.unwrap_or(u64::MAX);
        while self.given < limit {
            let found = match std::mem::replace(&mut self.began, true) {
                false => self.known_edges(work)?,
                true if !self.describe.sources.gate => break,
                true => match self.input.next(work)? {
                    Some(rows) => rows.iter().filter_map(|row| self.edge(row)).collect(),
                    None => break,
                },
            };
            let mut batch = Vec::new();
            for (folded, edge) in found {
                let band = band_of(self.describe.bands, edge.layer);
                let room =
                    self.given < limit && self.given_of_band[band] < cap(self.describe.caps, band);
                let is_new = match &edge.confidence {
                    Some(_) => self.seen.insert(format!("{folded}\n{}", edge.relation)),
                    None => true,
                };
                if room && (self.seen.insert(folded) || edge.confidence.is_some()) && is_new {
                    self.given += 1;
                    self.given_of_band[band] += 1;
                    batch.push(self.row(edge));
                }
            }
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

impl Operator for DescribeEdges {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if !std::mem::replace(&mut self.told, true) {
            self.tell_of_model(work)?;
        }
        let rows = if self.describe.stream {
            self.streamed(work)?
        } else {
            if self.ready.is_none() {
                self.ready = Some(self.grouped(work)?);
            }
            self.ready.as_mut().and_then(Ready::batch)
        };
        match &rows {
            Some(_) => self.empty = false,
            None if std::mem::replace(&mut self.empty, false) => self.tell_why_empty(work)?,
            None => {}
        }
        Ok(rows)
    }
}

/// The most certain first, then the strongest; those without a confidence last.
fn rank(a: &Edge, b: &Edge) -> Ordering {
    let certain = |edge: &Edge| edge.confidence.unwrap_or(-1.0);
    certain(b)
        .total_cmp(&certain(a))
        .then(b.score.total_cmp(&a.score))
        .then(a.layer.cmp(&b.layer))
        .then(a.feature.cmp(&b.feature))
}

fn merge(edge: &mut Edge, other: Edge) {
    let (layer_min, layer_max) = (edge.layer_min.min(other.layer), edge.layer_max.max(other.layer));
    let count = edge.count + 1;
    if rank(&other, edge).is_lt() {
        *edge = other;
    }
    (edge.layer_min, edge.layer_max, edge.count) = (layer_min, layer_max, count);
}

/// 0 syntax, 1 knowledge (and whatever lies outside all bands), 2 output.
fn band_of(bands: Option<Bands>, layer: i64) -> usize {
    let within = |(first, last): (u32, u32)| (i64::from(first)..=i64::from(last)).contains(&layer);
    match bands {
        Some(bands) if within(bands.knowledge) => 1,
        Some(bands) if within(bands.syntax) => 0,
        Some(bands) if within(bands.output) => 2,
        _ => 1,
    }
}

fn cap(caps: BandCaps, band: usize) -> u64 {
    [caps.syntax, caps.knowledge, caps.output][band]
}
