//! `larql.caches`: what is kept of plans and answers, and how often it was of use.

use larql_planner::value::Value;

use super::mount_row::integer;
use super::{Operator, Row, Work};
use crate::failure::Failure;

/// Gives a row for plans and a row for answers.
#[derive(Default)]
pub(super) struct ShowCaches {
    done: bool,
}

impl Operator for ShowCaches {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let cache = work.engine().cache();
        let row = |(name, counts): (&str, crate::cache::Counts)| {
            vec![
                Value::text(name),
                integer(counts.entries),
                integer(counts.bytes),
                integer(cache.bytes_max() as u64),
                integer(counts.hits),
                integer(counts.misses),
            ]
        };
        Ok(Some(cache.counts().map(row).into()))
    }
}
