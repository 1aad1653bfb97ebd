//! The edges that labels know, as rows of EDGES; without those that edits hide.

use larql_planner::physical::plan::{self, FeatureColumn};
use larql_planner::value::Value;
use larql_storage::vindex::knowledge::EdgeRecord;

use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::editing::stated::Stated;
use crate::failure::Failure;
use crate::knowledge::{Knowledge, Source, shown_confidence};

/// Rows of an entity's edges, or of all that are kept.
pub(super) struct KnownEdges {
    known: plan::KnownEdges,
    ready: Option<Ready>,
}

impl KnownEdges {
    pub(super) fn new(known: plan::KnownEdges) -> Self {
        Self { known, ready: None }
    }

    fn fill(&self, work: &mut Work<'_>) -> Result<Ready, Failure> {
        let model = work.model()?;
        let Some(knowledge) = model.knowledge() else { return Ok(Ready::new(Vec::new())) };
        let stated = Stated::of(work.view().overlay());
        let is_known = |entity: &str, edge: &EdgeRecord| {
            let relation = knowledge.relation(edge.relation).unwrap_or_default();
            !stated.hides(entity, relation, (edge.layer, edge.feature))
        };
        let mut rows = Vec::new();
        match &self.known.entity {
            Some(entity) => {
                let edges = work.ask(&model, &knowledge, Source::Probe, entity)?;
                let edges = edges.iter().filter(|edge| is_known(entity, edge));
                rows.extend(edges.map(|edge| self.row(&knowledge, entity, edge)));
            }
            None => {
                for entity in &knowledge.file().entities {
                    work.cancel.check()?;
                    let edges = entity.edges.iter().filter(|edge| is_known(&entity.name, edge));
                    rows.extend(edges.map(|edge| self.row(&knowledge, &entity.name, edge)));
                }
            }
        }
        Ok(Ready::new(rows))
    }

    fn row(&self, knowledge: &Knowledge, entity: &str, edge: &EdgeRecord) -> Row {
        let value = |column: &FeatureColumn| match column {
            FeatureColumn::Entity => Value::text(entity),
            FeatureColumn::Relation => {
                knowledge.relation(edge.relation).map_or(Value::Null, Value::text)
            }
            FeatureColumn::Target => Value::text(edge.target.as_str()),
            FeatureColumn::Layer => Value::Integer(edge.layer.into()),
            FeatureColumn::Feature => Value::Integer(edge.feature.into()),
            FeatureColumn::GateScore => Value::Score(edge.gate_score),
            FeatureColumn::Confidence => Value::Real(shown_confidence(edge.confidence)),
            FeatureColumn::Source => Value::text(Source::Probe.as_str()),
            _ => Value::Null,
        };
        self.known.columns.iter().map(value).collect()
    }
}

impl Operator for KnownEdges {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            self.ready = Some(self.fill(work)?);
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}
