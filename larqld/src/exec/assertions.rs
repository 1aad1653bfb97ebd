//! SHOW ASSERTIONS and CHECK ASSERTIONS.

use std::sync::Arc;

use larql_planner::value::Value;
use larql_storage::store::Assertion;

use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::editing::assertions::{self, Checked};
use crate::failure::Failure;

fn of_branch(work: &Work<'_>) -> Vec<Arc<Assertion>> {
    work.view().branch().into_iter().flat_map(|branch| branch.assertions()).cloned().collect()
}

fn least(assertion: &Assertion) -> Value {
    assertion.at_least.map_or(Value::Null, Value::Real)
}

/// The assertions of the session's branch, by name.
#[derive(Default)]
pub(super) struct ShowAssertions {
    ready: Option<Ready>,
}

impl Operator for ShowAssertions {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let ready = self.ready.get_or_insert_with(|| {
            let row = |one: &Arc<Assertion>| {
                let texts = [&one.name, &one.prompt, &one.expected];
                let mut row: Row = texts.map(|text| Value::text(text.as_str())).into();
                row.push(least(one));
                row
            };
            Ready::new(of_branch(work).iter().map(row).collect())
        });
        Ok(ready.batch())
    }
}

/// Infers every assertion; fails, after its rows, where one does not hold.
#[derive(Default)]
pub(super) struct CheckAssertions {
    checked: Option<Vec<Checked>>,
}

impl Operator for CheckAssertions {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if let Some(checked) = &self.checked {
            return assertions::failure(checked).map_or(Ok(None), Err);
        }
        let model = work.model()?;
        let edits = work.edits(&model)?;
        let all = of_branch(work);
        let checked = assertions::check(&model, &edits, &all, work.engine().pool(), work.cancel)?;
        let rows: Vec<Row> = checked.iter().map(row).collect();
        self.checked = Some(checked);
        Ok((!rows.is_empty()).then_some(rows))
    }
}

fn row(checked: &Checked) -> Row {
    let assertion = &checked.assertion;
    vec![
        Value::text(assertion.name.as_str()),
        Value::Boolean(checked.holds),
        Value::text(assertion.prompt.as_str()),
        Value::text(assertion.expected.as_str()),
        least(assertion),
        Value::text(checked.answer.as_str()),
        Value::Real(checked.probability),
    ]
}
