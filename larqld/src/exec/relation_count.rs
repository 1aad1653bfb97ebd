//! Relations: how many features bear each label, or are of each cluster, and how many edges of each labels
//! know and edits state.

use std::collections::BTreeMap;
use std::sync::Arc;

use larql_planner::physical::plan::{self, RELATION_EXAMPLES};
use larql_planner::value::Value;
use larql_storage::overlay::Fact;

use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::editing::stated::Stated;
use crate::failure::Failure;

/// Counts features by relation; most frequent first, the unlabelled ones last as one NULL row.
pub(super) struct RelationCount {
    input: Box<dyn Operator>,
    count: plan::RelationCount,
    ready: Option<Ready>,
}

#[derive(Debug, Default)]
struct Tally {
    features: i64,
    edges: i64,
    /// The first and the last layer of any of them.
    layers: Option<(i64, i64)>,
    /// Targets with their logits, the best few.
    examples: Vec<(f32, Arc<str>)>,
}

impl RelationCount {
    pub(super) fn new(input: Box<dyn Operator>, count: plan::RelationCount) -> Self {
        Self { input, count, ready: None }
    }

    fn fill(&mut self, work: &mut Work<'_>) -> Result<Ready, Failure> {
        let mut tallies: BTreeMap<Option<Arc<str>>, Tally> = BTreeMap::new();
        let plan::RelationCount { examples, raw, layers } = self.count.clone();
        let knowledge = work.model()?.knowledge();
        let stated = Stated::of(work.view().overlay());
        let cluster = |layer: i64, feature: i64| {
            let (layer, feature) = (u32::try_from(layer).ok()?, u32::try_from(feature).ok()?);
            knowledge.as_ref()?.cluster(layer, feature).map(Arc::from)
        };
        while let Some(rows) = self.input.next(work)? {
            work.cancel.check()?;
            for row in rows {
                let [Value::Integer(layer), relation, target, logit, feature @ ..] = &row[..]
                else {
                    continue;
                };
                let relation = match (relation, feature) {
                    (_, [Value::Integer(feature)]) if raw => cluster(*layer, *feature),
                    (Value::Text(relation), _) if !raw => Some(relation.clone()),
                    _ => None,
                };
                let tally = tallies.entry(relation).or_default();
                tally.features += 1;
                tally.reach(*layer);
                if let (true, Value::Text(target), Value::Score(logit)) = (examples, target, logit)
                {
                    tally.offer(*logit, target);
                }
            }
        }
        if let (Some(knowledge), false) = (&knowledge, raw) {
            let entities = knowledge.file().entities.iter();
            let edges = entities.flat_map(|of| of.edges.iter().map(|edge| (&*of.name, edge)));
            for (entity, edge) in edges.filter(|(_, edge)| layers.contains(edge.layer)) {
                let Some(relation) = knowledge.relation(edge.relation) else { continue };
                if stated.hides(entity, relation, (edge.layer, edge.feature)) {
                    continue;
                }
                let tally = tallies.entry(Some(relation.into())).or_default();
                tally.edges += 1;
                tally.reach(edge.layer.into());
                // Below every logit that stands out.
                if examples {
                    tally.offer(edge.confidence, &edge.target.as_str().into());
                }
            }
        }
        let mut facts: Vec<&Fact> = Vec::new();
        for edge in stated.edges().filter(|edge| !raw && layers.contains(edge.layer)) {
            let tally = tallies.entry(Some(edge.fact.relation.as_str().into())).or_default();
            tally.reach(edge.layer.into());
            // One fact is one edge, however many features state it; those that follow are its own.
            if facts.last() != Some(&&edge.fact) {
                facts.push(&edge.fact);
                tally.edges += 1;
                if examples {
                    tally.offer(edge.confidence.unwrap_or(1.0), &edge.fact.target.as_str().into());
                }
            }
        }
        let mut tallies: Vec<_> = tallies.into_iter().collect();
        tallies.sort_by(|(a, a_tally), (b, b_tally)| {
            let most = (b_tally.features, b_tally.edges).cmp(&(a_tally.features, a_tally.edges));
            a.is_none().cmp(&b.is_none()).then(most).then(a.cmp(b))
        });
        let row = |(relation, tally): (Option<Arc<str>>, Tally)| {
            let mut row = vec![
                relation.map_or(Value::Null, Value::Text),
                Value::Integer(tally.features),
                tally.layers.map_or(Value::Null, |(first, _)| Value::Integer(first)),
                tally.layers.map_or(Value::Null, |(_, last)| Value::Integer(last)),
                Value::Integer(tally.edges),
            ];
            if examples {
                row.push(Value::List(
                    tally.examples.into_iter().map(|(_, target)| Value::Text(target)).collect(),
                ));
            }
            row
        };
        Ok(Ready::new(tallies.into_iter().map(row).collect()))
    }
}

impl Tally {
    fn reach(&mut self, layer: i64) {
        let (first, last) = self.layers.unwrap_or((layer, layer));
        self.layers = Some((first.min(layer), last.max(layer)));
    }

    fn offer(&mut self, logit: f32, target: &Arc<str>) {
        if let Some(known) = self.examples.iter_mut().find(|(_, known)| known == target) {
            known.0 = known.0.max(logit);
        } else {
            self.examples.push((logit, target.clone()));
        }
        self.examples.sort_by(|(a, a_text), (b, b_text)| b.total_cmp(a).then(a_text.cmp(b_text)));
        self.examples.truncate(RELATION_EXAMPLES);
    }
}

impl Operator for RelationCount {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            self.ready = Some(self.fill(work)?);
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}
