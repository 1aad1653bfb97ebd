//! DESCRIBE: gate hits of an entity become edges.
//!
//! A gate hit is an edge when its target is a content token other than the entity. What LABEL learned
//! adds edges whose relation is known, with a calibrated confidence (`knowledge`). Edges with one
//! target (case-folded) are one row: it shows the most certain, else the strongest of them, and how
//! many there are; two relations to one target are two rows. Certain rows come first. The rows of
//! each band are capped by the display.
//!
//! What edits state of the entity goes before all that. It hides what the base has of the same relation, and
//! hits that only speak for that.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use larql_planner::catalog::{Bands, Component};
use larql_planner::physical::plan::{self, BandCaps, Display};
use larql_planner::value::Value;
use larql_storage::vindex::knowledge::EdgeRecord;

use super::feature_row::dot_with;
use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::editing::stated::Stated;
use crate::failure::Failure;
use crate::knowledge::prober::Prober;
use crate::knowledge::{Edges, Knowledge, Source, shown_confidence};
use crate::mounts::{Model, unsteady};
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
    /// What edits state and hide.
    stated: Stated,
    /// Targets of edges that edits hide, with those that another edge has all the same taken out.
    hidden_targets: HashSet<String>,
}

#[derive(Debug, Clone)]
struct Edge {
    target: Arc<str>,
    relation: Value,
    score: Option<f32>,
    layer: i64,
    /// `None` of an edit that is no feature.
    feature: Option<i64>,
    layer_min: i64,
    layer_max: i64,
    count: i64,
    also: Vec<Value>,
    source: &'static str,
    confidence: Option<f64>,
    /// An edit states it of this entity.
    is_stated: bool,
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
            stated: Stated::default(),
            hidden_targets: HashSet::new(),
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
        if let Value::Text(relation) = relation
            && self.stated.speaks_of(&self.describe.entity, relation)
        {
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
        if relation.is_null() && self.hidden_targets.contains(&folded) {
            return None;
        }
        if self.describe.relations_only && relation.is_null() {
            return None;
        }
        let edge = Edge {
            target: target.clone(),
            relation,
            score: Some(*score),
            layer: *layer,
            feature: Some(*feature),
            layer_min: *layer,
            layer_max: *layer,
            count: 1,
            also,
            source: if self.stated.edits((*layer, *feature)) { "patch" } else { source },
            confidence: None,
            is_stated: false,
        };
        Some((folded, edge))
    }

    /// The edges that edits state of the entity, then those that labels know of it.
    fn known_edges(&mut self, work: &mut Work<'_>) -> Result<Vec<(String, Edge)>, Failure> {
        let model = work.model()?;
        self.stated = Stated::of(work.view().overlay());
        let mut edges = self.stated_edges(&model);
        edges.extend(self.labelled_edges(work, &model)?);
        edges.iter().for_each(|(target, _)| _ = self.hidden_targets.remove(target));
        Ok(edges)
    }

    fn stated_edges(&self, model: &Model) -> Vec<(String, Edge)> {
        let entity = &self.describe.entity;
        let wanted = self.stated.of_entity(entity).filter(|edge| {
            self.describe.layers.as_ref().is_none_or(|layers| layers.contains(edge.layer))
        });
        let edges = wanted.map(|stated| {
            let layer = i64::from(stated.layer);
            let edge = Edge {
                target: stated.fact.target.as_str().into(),
                relation: match self.describe.display {
                    Display::Raw => Value::Null,
                    _ => Value::text(stated.fact.relation.as_str()),
                },
                score: stated.gate.as_deref().and_then(|gate| dot_with(model, gate, entity)),
                layer,
                feature: stated.feature.map(i64::from),
                layer_min: layer,
                layer_max: layer,
                count: 1,
                also: Vec::new(),
                source: stated.source.as_str(),
                confidence: stated.confidence.map(shown_confidence),
                is_stated: true,
            };
            (case_folded(&stated.fact.target), edge)
        });
        edges.collect()
    }

    /// The edges that the model's labels know or learn of the entity now.
    fn labelled_edges(
        &mut self,
        work: &mut Work<'_>,
        model: &Model,
    ) -> Result<Vec<(String, Edge)>, Failure> {
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
            let edges = work.ask(model, &knowledge, source, &self.describe.entity)?;
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
        found.retain(|(_, edge)| {
            let relation = knowledge.relation(edge.relation).unwrap_or_default();
            let place = (edge.layer, edge.feature);
            let hidden = self.stated.hides(&self.describe.entity, relation, place);
            if hidden {
                self.hidden_targets.insert(case_folded(&edge.target));
            }
            !hidden
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
            let (layer, feature) = (found.layer.into(), Some(found.feature.into()));
            let edge = Edge {
                target: found.target.as_str().into(),
                relation,
                score: Some(found.gate_score),
                layer,
                feature,
                layer_min: layer,
                layer_max: layer,
                count: 1,
                also: Vec::new(),
                source: source.as_str(),
                confidence: Some(shown_confidence(found.confidence)),
                is_stated: false,
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
            edge.score.map_or(Value::Null, Value::Score),
            Value::Integer(edge.layer),
            edge.feature.map_or(Value::Null, Value::Integer),
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
                let claims = edge.confidence.is_some() || edge.is_stated;
                let is_new = !claims || self.seen.insert(format!("{folded}\n{}", edge.relation));
                if room && (self.seen.insert(folded) || claims) && is_new {
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

/// What edits state first, then the most certain, then the strongest; those without a confidence last.
fn rank(a: &Edge, b: &Edge) -> Ordering {
    let certain = |edge: &Edge| edge.confidence.unwrap_or(-1.0);
    let score = |edge: &Edge| edge.score.unwrap_or(f32::NEG_INFINITY);
    b.is_stated
        .cmp(&a.is_stated)
        .then(certain(b).total_cmp(&certain(a)))
        .then(score(b).total_cmp(&score(a)))
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
