//! VERIFY EDGE: which edge, out of conditions joined by AND.

use super::BindError;
use super::statement::{Bound, Reader};
use crate::catalog::{Catalog, INFERENCE_COMPONENTS};
use crate::logical::Plan;
use crate::logical::plan::VERIFY_EDGE_COLUMNS;
use crate::physical::plan::{Operator, VerifyEdge};
use crate::planned::Role;
use crate::syntax::ast::{ComparisonOperator, Expression, ExpressionKind};

const COLUMNS: &str = "entity, relation, target, layer and feature";

/// Binds a VERIFY EDGE.
///
/// # Errors
/// A condition that is no `column = value`, a column that is none of the edge's, no entity, one of
/// relation and target at least, and layer and feature together.
pub(super) fn bind(filter: &Expression, catalog: &dyn Catalog) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    reader.needs(&INFERENCE_COMPONENTS)?;
    let mut edge = VerifyEdge::default();
    let (mut layer, mut feature) = (None, None);
    let conjuncts = match &filter.value {
        ExpressionKind::And(conjuncts) => &conjuncts[..],
        _ => std::slice::from_ref(filter),
    };
    for conjunct in conjuncts {
        let refuse = |what: String| BindError::Meaningless {
            what,
            span: Some(conjunct.span),
            hint: format!("write column = value with AND between; the columns are {COLUMNS}"),
        };
        let ExpressionKind::Comparison { operator: ComparisonOperator::Equal, left, right } =
            &conjunct.value
        else {
            return Err(refuse("VERIFY EDGE takes conditions of the form column = value".into()));
        };
        let ExpressionKind::Column { qualifier: None, name } = &left.value else {
            return Err(refuse("the left side is no column of an edge".into()));
        };
        let given_twice = match (&*name.to_ascii_lowercase(), &right.value) {
            ("entity", ExpressionKind::Text(text)) => edge.entity.replace(text.clone()).is_some(),
            ("relation", ExpressionKind::Text(text)) => {
                edge.relation.replace(text.clone()).is_some()
            }
            ("target", ExpressionKind::Text(text)) => edge.target.replace(text.clone()).is_some(),
            ("layer", ExpressionKind::Integer(number)) => {
                let number = u32::try_from(*number).ok().filter(|&layer| layer < reader.layers());
                let number = number.ok_or_else(|| refuse("there is no such layer".into()))?;
                layer.replace(number).is_some()
            }
            ("feature", ExpressionKind::Integer(number)) => {
                let number = u64::try_from(*number).ok();
                let number = number.ok_or_else(|| refuse("there is no such feature".into()))?;
                feature.replace(number).is_some()
            }
            ("entity" | "relation" | "target", _) => {
                return Err(refuse(format!("{name} is a text")));
            }
            ("layer" | "feature", _) => return Err(refuse(format!("{name} is a whole number"))),
            _ => return Err(refuse(format!("an edge has no column {name}"))),
        };
        if given_twice {
            return Err(refuse(format!("{name} is given twice")));
        }
    }
    let refuse = |what: &str, hint: &str| BindError::Meaningless {
        what: what.to_owned(),
        span: Some(filter.span),
        hint: hint.to_owned(),
    };
    if edge.entity.is_none() || (edge.relation.is_none() && edge.target.is_none()) {
        return Err(refuse(
            "an edge to verify has an entity, and a relation or a target",
            "VERIFY EDGE WHERE entity = 'France' AND relation = 'capital'",
        ));
    }
    edge.slot = match (layer, feature) {
        (Some(layer), Some(feature)) if feature < reader.mount.features(layer) => {
            Some((layer, feature as u32))
        }
        (Some(_), Some(_)) => {
            return Err(refuse(
                "there is no such feature in that layer",
                "SHOW LAYERS counts them",
            ));
        }
        (None, None) => None,
        _ => {
            return Err(refuse(
                "layer and feature go together",
                "give both, or neither for the feature that DESCRIBE shows",
            ));
        }
    };
    let plan = Plan::leaf(Operator::VerifyEdge(edge), &VERIFY_EDGE_COLUMNS);
    Ok(reader.bound(plan, "VERIFY EDGE", Role::Infer))
}
