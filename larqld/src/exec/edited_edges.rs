//! The edges that edits state, as rows of EDGES beside the base's.
//!
//! Of an entity all of them are; of all entities only those that are no features, because a scan of features
//! has the others.

use larql_planner::physical::plan::{self, FeatureColumn};
use larql_planner::value::Value;

use super::feature_row::{dot_with, z};
use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::editing::stated::{Stated, StatedEdge};
use crate::failure::Failure;
use crate::knowledge::shown_confidence;
use crate::mounts::Model;

/// Rows of an entity's edits, or of all that are no features.
pub(super) struct EditedEdges {
    edited: plan::EditedEdges,
    ready: Option<Ready>,
}

impl EditedEdges {
    pub(super) fn new(edited: plan::EditedEdges) -> Self {
        Self { edited, ready: None }
    }

    fn fill(&self, work: &mut Work<'_>) -> Result<Ready, Failure> {
        let model = work.model()?;
        let stated = Stated::of(work.view().overlay());
        let mut rows = Vec::new();
        match &self.edited.entity {
            Some(entity) => {
                for edge in stated.of_entity(entity) {
                    work.cancel.check()?;
                    rows.push(self.row(&model, entity, edge));
                }
            }
            None => {
                let others = stated.edges().filter(|edge| edge.feature.is_none());
                rows.extend(others.map(|edge| self.row(&model, &edge.fact.entity, edge)));
            }
        }
        Ok(Ready::new(rows))
    }

    fn row(&self, model: &Model, entity: &str, edge: &StatedEdge) -> Row {
        let score = || dot_with(model, edge.gate.as_deref()?, entity);
        let value = |column: &FeatureColumn| match column {
            FeatureColumn::Entity => Value::text(entity),
            FeatureColumn::Relation => Value::text(edge.fact.relation.as_str()),
            FeatureColumn::Target => Value::text(edge.fact.target.as_str()),
            FeatureColumn::Layer => Value::Integer(edge.layer.into()),
            FeatureColumn::Feature => {
                edge.feature.map_or(Value::Null, |feature| Value::Integer(feature.into()))
            }
            FeatureColumn::GateScore => score().map_or(Value::Null, Value::Score),
            FeatureColumn::Z => score()
                .and_then(|score| z(model, edge.layer, score))
                .map_or(Value::Null, Value::Real),
            FeatureColumn::Confidence => edge
                .confidence
                .map_or(Value::Null, |confidence| Value::Real(shown_confidence(confidence))),
            FeatureColumn::Source => Value::text(edge.source.as_str()),
            FeatureColumn::TopTokens => {
                Value::List(std::iter::once(Value::text(edge.fact.target.as_str())).collect())
            }
            _ => Value::Null,
        };
        self.edited.columns.iter().map(value).collect()
    }
}

impl Operator for EditedEdges {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            self.ready = Some(self.fill(work)?);
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}
