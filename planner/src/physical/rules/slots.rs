//! Which features a predicate pins: shared by the rules that look up slots.

use crate::bind::expression::{ComparisonOperator, Expression};
use crate::catalog::Mount;
use crate::layers::{LayerSet, Slot};
use crate::physical::plan::FeatureColumn;
use crate::value::Value;

/// The slots that a predicate over a feature source leaves possible, with what remains to be
/// checked of each; `None` if the predicate does not pin the feature.
pub(super) fn pinned(
    predicate: &Expression,
    columns: &[FeatureColumn],
    layers: &LayerSet,
    mount: &dyn Mount,
) -> Option<(Vec<Slot>, Option<Expression>)> {
    let index = columns.iter().position(|column| *column == FeatureColumn::Feature)?;
    let mut conjuncts = predicate.clone().conjuncts();
    let at = conjuncts.iter().position(|conjunct| listed(conjunct, index).is_some())?;
    let mut features = listed(&conjuncts.remove(at), index)?;
    features.sort_unstable();
    features.dedup();
    let slots = layers
        .iter()
        .flat_map(|layer| {
            let count = mount.features_edited(layer);
            let features = features.iter().filter(move |feature| **feature < count);
            features.map(move |feature| Slot { layer, feature: *feature })
        })
        .collect();
    Some((slots, Expression::conjunction(conjuncts)))
}

/// The features that make a conjunct true, where it lists them: `feature = n` or `feature IN (…)`.
fn listed(conjunct: &Expression, index: usize) -> Option<Vec<u64>> {
    let is_feature = |operand: &Expression| matches!(operand, Expression::Column { index: found, .. } if *found == index);
    match conjunct {
        Expression::Comparison { operator: ComparisonOperator::Equal, left, right } => {
            let value = match (is_feature(left), is_feature(right)) {
                (true, false) => right,
                (false, true) => left,
                _ => return None,
            };
            Some(whole(value)?.into_iter().collect())
        }
        Expression::InList { value, list } if is_feature(value) => {
            let features: Option<Vec<Option<u64>>> = list.iter().map(whole).collect();
            Some(features?.into_iter().flatten().collect())
        }
        Expression::InSet { value, set, .. } if is_feature(value) => {
            let known = |one: &Value| whole(&Expression::Literal(one.clone()));
            let features: Option<Vec<Option<u64>>> = set.iter().map(known).collect();
            Some(features?.into_iter().flatten().collect())
        }
        _ => None,
    }
}

/// The feature that a constant names: `Some(None)` if it can name none, `None` if it is not known.
fn whole(expression: &Expression) -> Option<Option<u64>> {
    match expression {
        Expression::Literal(Value::Integer(integer)) => Some(u64::try_from(*integer).ok()),
        Expression::Literal(Value::Null) => Some(None),
        _ => None,
    }
}
