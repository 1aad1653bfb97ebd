//! Entities: the distinct targets that look like names.

use std::collections::HashMap;
use std::sync::Arc;

use larql_planner::catalog::IndexTarget;
use larql_planner::layers::LayerSet;
use larql_planner::physical::plan::{ENTITY_COUNT_INPUT, FeatureScan};
use larql_planner::value::Value;

use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::failure::Failure;
use crate::text::is_content;

/// Counts targets that are content tokens starting with an upper- or title-case letter; most
/// frequent first, then by logit, then by name.
pub(super) struct EntityCount {
    input: Box<dyn Operator>,
    ready: Option<Ready>,
}

impl EntityCount {
    pub(super) fn new(input: Box<dyn Operator>) -> Self {
        Self { input, ready: None }
    }

    fn fill(&mut self, work: &mut Work<'_>) -> Result<Ready, Failure> {
        let mut counts: HashMap<Arc<str>, (i64, f32)> = HashMap::new();
        while let Some(rows) = self.input.next(work)? {
            work.cancel.check()?;
            for row in rows {
                let [Value::Text(target), Value::Score(logit)] = &row[..] else { continue };
                if looks_like_a_name(target) {
                    let (count, most) =
                        counts.entry(target.clone()).or_insert((0, f32::NEG_INFINITY));
                    *count += 1;
                    *most = most.max(*logit);
                }
            }
        }
        Ok(ranked(counts.into_iter().collect()))
    }
}

/// Entities with their counts and highest logits, as rows in order.
fn ranked(mut counts: Vec<(Arc<str>, (i64, f32))>) -> Ready {
    counts.sort_by(|(a, (a_count, a_logit)), (b, (b_count, b_logit))| {
        b_count.cmp(a_count).then(b_logit.total_cmp(a_logit)).then(a.cmp(b))
    });
    let row = |(name, (count, logit)): (Arc<str>, (i64, f32))| {
        vec![Value::Text(name), Value::Integer(count), Value::Score(logit)]
    };
    Ready::new(counts.into_iter().map(row).collect())
}

/// The same rows for all layers, from an index of targets; by a scan where it has gone since the plan was
/// made, and where edits changed features that it counts.
#[derive(Default)]
pub(super) struct EntityLookup {
    ready: Option<Ready>,
}

impl EntityLookup {
    fn fill(work: &mut Work<'_>) -> Result<Ready, Failure> {
        let model = work.model()?;
        let edited = work.view().overlay().features().next().is_some();
        let lists = model.indexes().postings(IndexTarget::Targets).filter(|_| !edited);
        let Some(lists) = lists else {
            let layers = LayerSet::all(model.layers());
            let columns = ENTITY_COUNT_INPUT.to_vec();
            let scan = FeatureScan { layers, rows_max: None, columns };
            let scan = super::feature_scan::FeatureScan::new(scan);
            return EntityCount::new(Box::new(scan)).fill(work);
        };
        let mut counts = Vec::new();
        let mut bytes = 0;
        for (text, list) in lists.iter() {
            bytes += (text.len() + size_of_val(list)) as u64;
            if looks_like_a_name(text) {
                let logit = list.iter().fold(f32::NEG_INFINITY, |most, one| most.max(one.score));
                counts.push((Arc::from(text), (list.len() as i64, logit)));
            }
        }
        work.cancel.check()?;
        work.touch(bytes);
        Ok(ranked(counts))
    }
}

impl Operator for EntityLookup {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            self.ready = Some(Self::fill(work)?);
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}

fn looks_like_a_name(text: &str) -> bool {
    let title =
        |c: char| c.is_uppercase() || c.to_uppercase().ne(std::iter::once(c)) && !c.is_lowercase();
    is_content(text) && text.chars().next().is_some_and(title)
}

impl Operator for EntityCount {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            self.ready = Some(self.fill(work)?);
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_begin_with_a_capital_of_any_script() {
        for name in ["Paris", "Éire", "Москва", "ǅ"] {
            assert!(looks_like_a_name(name), "{name}");
        }
        for word in ["paris", "日本", "1A", "", "-Paris"] {
            assert!(!looks_like_a_name(word), "{word}");
        }
    }
}
