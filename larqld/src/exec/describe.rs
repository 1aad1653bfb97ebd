//! DESCRIBE: gate hits of an entity become edges.
//!
//! A hit is an edge when its target is a content token other than the entity. Hits with one target
//! (case-folded) are one edge: it shows the strongest hit and how many there are. The rows of each
//! band are capped by the display.

use std::collections::HashMap;
use std::sync::Arc;

use larql_planner::catalog::{Bands, Component};
use larql_planner::physical::plan::{self, BandCaps, Display};
use larql_planner::value::Value;

use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::failure::Failure;
use crate::text::{case_folded, is_content};

/// Further tokens that an edge shows beside its target.
const ALSO_MAX: usize = 3;

/// Groups hits into edges.
pub(super) struct DescribeEdges {
    input: Box<dyn Operator>,
    describe: plan::DescribeEdges,
    entity: String,
    ready: Option<Ready>,
    /// Targets already given, when rows are given as they are found.
    seen: HashMap<String, ()>,
    given: u64,
    /// Rows given of each band, when rows are given as they are found.
    given_of_band: [u64; 3],
    /// No row was given yet.
    empty: bool,
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
}

impl DescribeEdges {
    pub(super) fn new(input: Box<dyn Operator>, describe: plan::DescribeEdges) -> Self {
        let entity = case_folded(describe.entity.trim());
        Self {
            input,
            describe,
            entity,
            ready: None,
            seen: HashMap::new(),
            given: 0,
            given_of_band: [0; 3],
            empty: true,
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
        if self.describe.relations_only && relation.is_null() {
            return None;
        }
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
        let edge = Edge {
            target: target.clone(),
            relation: if self.describe.display == Display::Raw {
                Value::Null
            } else {
                relation.clone()
            },
            score: *score,
            layer: *layer,
            feature: *feature,
            layer_min: *layer,
            layer_max: *layer,
            count: 1,
            also,
        };
        Some((folded, edge))
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
            Value::text("gate"),
            Value::Null,
        ]
    }

    fn grouped(&mut self, work: &mut Work<'_>) -> Result<Ready, Failure> {
        let mut order: Vec<Edge> = Vec::new();
        let mut index: HashMap<String, usize> = HashMap::new();
        while let Some(rows) = self.input.next(work)? {
            for (folded, edge) in rows.iter().filter_map(|row| self.edge(row)) {
                match index.get(&folded) {
                    None => {
                        index.insert(folded, order.len());
                        order.push(edge);
                    }
                    Some(&at) => merge(&mut order[at], edge),
                }
            }
        }
        order.sort_by(|a, b| {
            b.score.total_cmp(&a.score).then(a.layer.cmp(&b.layer)).then(a.feature.cmp(&b.feature))
        });
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
            let Some(rows) = self.input.next(work)? else { break };
            let mut batch = Vec::new();
            for (folded, edge) in rows.iter().filter_map(|row| self.edge(row)).collect::<Vec<_>>() {
                let band = band_of(self.describe.bands, edge.layer);
                let room =
                    self.given < limit && self.given_of_band[band] < cap(self.describe.caps, band);
                if room && self.seen.insert(folded, ()).is_none() {
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

fn merge(edge: &mut Edge, other: Edge) {
    let (layer_min, layer_max) = (edge.layer_min.min(other.layer), edge.layer_max.max(other.layer));
    let count = edge.count + 1;
    let first = (edge.layer, edge.feature);
    if other.score > edge.score
        || (other.score == edge.score && (other.layer, other.feature) < first)
    {
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
