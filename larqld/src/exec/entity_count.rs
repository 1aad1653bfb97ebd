//! Entities: the distinct targets that look like names.

use std::collections::HashMap;
use std::sync::Arc;

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
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|(a, (a_count, a_logit)), (b, (b_count, b_logit))| {
            b_count.cmp(a_count).then(b_logit.total_cmp(a_logit)).then(a.cmp(b))
        });
        let row = |(name, (count, logit)): (Arc<str>, (i64, f32))| {
            vec![Value::Text(name), Value::Integer(count), Value::Score(logit)]
        };
        Ok(Ready::new(counts.into_iter().map(row).collect()))
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
