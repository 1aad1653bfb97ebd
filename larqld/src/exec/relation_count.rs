//! Relations: how many features bear each label, or are of each cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use larql_planner::physical::plan::RELATION_EXAMPLES;
use larql_planner::value::Value;

use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::failure::Failure;

/// Counts features by relation; most frequent first, the unlabelled ones last as one NULL row.
pub(super) struct RelationCount {
    input: Box<dyn Operator>,
    examples: bool,
    /// Clusters of features, which nobody named, instead of labels.
    raw: bool,
    ready: Option<Ready>,
}

#[derive(Debug, Default)]
struct Tally {
    count: i64,
    layer_min: i64,
    layer_max: i64,
    /// Targets with their logits, the best few.
    examples: Vec<(f32, Arc<str>)>,
}

impl RelationCount {
    pub(super) fn new(input: Box<dyn Operator>, examples: bool, raw: bool) -> Self {
        Self { input, examples, raw, ready: None }
    }

    fn fill(&mut self, work: &mut Work<'_>) -> Result<Ready, Failure> {
        let mut tallies: BTreeMap<Option<Arc<str>>, Tally> = BTreeMap::new();
        let knowledge = work.model()?.knowledge();
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
                    (_, [Value::Integer(feature)]) if self.raw => cluster(*layer, *feature),
                    (Value::Text(relation), _) if !self.raw => Some(relation.clone()),
                    _ => None,
                };
                let tally = tallies.entry(relation).or_insert_with(|| Tally {
                    layer_min: *layer,
                    layer_max: *layer,
                    ..Tally::default()
                });
                tally.count += 1;
                tally.layer_min = tally.layer_min.min(*layer);
                tally.layer_max = tally.layer_max.max(*layer);
                if let (true, Value::Text(target), Value::Score(logit)) =
                    (self.examples, target, logit)
                {
                    tally.offer(*logit, target);
                }
            }
        }
        let mut tallies: Vec<_> = tallies.into_iter().collect();
        tallies.sort_by(|(a, a_tally), (b, b_tally)| {
            a.is_none().cmp(&b.is_none()).then(b_tally.count.cmp(&a_tally.count)).then(a.cmp(b))
        });
        let row = |(relation, tally): (Option<Arc<str>>, Tally)| {
            let mut row = vec![
                relation.map_or(Value::Null, Value::Text),
                Value::Integer(tally.count),
                Value::Integer(tally.layer_min),
                Value::Integer(tally.layer_max),
            ];
            if self.examples {
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
