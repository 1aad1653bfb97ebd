//! `Filter(target = "…" AND rest)` over `FeatureScan` becomes the same filter over `PostingLookup`, and so
//! for `relation`, where that costs less: an index says which features have the text.
//!
//! The filter stays whole. What an index lists is what was true when it was made, and LABEL may give
//! features other labels while the statement runs.

use std::sync::Arc;

use super::{Context, Rule};
use crate::bind::expression::{ComparisonOperator, Expression};
use crate::catalog::IndexTarget;
use crate::cost::total_ms;
use crate::physical::plan::{FeatureColumn, Node, Operator, PostingLookup};
use crate::settings::AccessPath;
use crate::value::Value;

#[derive(Debug)]
pub struct PostingLookupRule;

/// The columns that indexes list, with what they are to CREATE INDEX.
const INDEXED: [(FeatureColumn, IndexTarget); 2] =
    [(FeatureColumn::Target, IndexTarget::Targets), (FeatureColumn::Relation, IndexTarget::Labels)];

impl Rule for PostingLookupRule {
    fn name(&self) -> &'static str {
        "posting_lookup"
    }

    fn rewrite(&self, node: &Node, context: &Context<'_>) -> Option<Node> {
        let choice = context.settings.allows(AccessPath::Postings)?;
        let Operator::Filter { predicate } = &node.operator else { return None };
        let [input] = node.children.as_slice() else { return None };
        let Operator::FeatureScan(scan) = &input.operator else { return None };
        // A bound on rows counts rows before the filter.
        if scan.rows_max.is_some() {
            return None;
        }
        let mount = context.mount?;
        let conjuncts = predicate.clone().conjuncts();
        let lookups = INDEXED.into_iter().filter_map(|(column, of)| {
            let at = scan.columns.iter().position(|found| *found == column)?;
            let texts = conjuncts.iter().find_map(|conjunct| listed(conjunct, at))?;
            let index = mount.postings(of)?.name().to_owned();
            let (layers, columns) = (scan.layers.clone(), scan.columns.clone());
            let lookup =
                Operator::PostingLookup(PostingLookup { of, index, texts, layers, columns });
            let lookup = Node::new(lookup, Vec::new(), input.columns.clone());
            Some(Node::new(node.operator.clone(), vec![lookup], node.columns.clone()))
        });
        let costs = lookups.map(|lookup| (total_ms(&lookup, context), lookup));
        let (ms, better) = costs.min_by(|(a, _), (b, _)| a.total_cmp(b))?;
        (choice.is_forced() || ms < total_ms(node, context)).then_some(better)
    }
}

/// The texts that make a conjunct true, where it lists them: `column = "…"` or `column IN (…)`;
/// ascending, without repeats.
fn listed(conjunct: &Expression, index: usize) -> Option<Vec<Arc<str>>> {
    let is_column = |operand: &Expression| matches!(operand, Expression::Column { index: found, .. } if *found == index);
    let mut texts: Vec<Arc<str>> = match conjunct {
        Expression::Comparison { operator: ComparisonOperator::Equal, left, right } => {
            let value = match (is_column(left), is_column(right)) {
                (true, false) => right,
                (false, true) => left,
                _ => return None,
            };
            text(value)?.into_iter().collect()
        }
        Expression::InList { value, list } if is_column(value) => {
            list.iter().map(text).collect::<Option<Vec<_>>>()?.into_iter().flatten().collect()
        }
        Expression::InSet { value, set, .. } if is_column(value) => {
            let known = |one: &Value| text(&Expression::Literal(one.clone()));
            set.iter().map(known).collect::<Option<Vec<_>>>()?.into_iter().flatten().collect()
        }
        _ => return None,
    };
    texts.sort_unstable();
    texts.dedup();
    Some(texts)
}

/// The text that a constant is: `Some(None)` for NULL, which nothing equals; `None` if it is not known.
fn text(expression: &Expression) -> Option<Option<Arc<str>>> {
    match expression {
        Expression::Literal(Value::Text(text)) => Some(Some(text.clone())),
        Expression::Literal(Value::Null) => Some(None),
        _ => None,
    }
}
