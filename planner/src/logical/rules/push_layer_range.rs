//! `Filter(p(layer))` over features or gate hits scans only the layers for which `p` is true, so
//! unasked layers are not paged in. Conjuncts about the layer alone are then true of every row, and
//! leave the filter.

use super::Rule;
use crate::bind::expression::Expression;
use crate::layers::LayerSet;
use crate::logical::Plan;
use crate::physical::plan::FeatureColumn;
use crate::value::Value;

#[derive(Debug)]
pub struct PushLayerRange;

impl Rule for PushLayerRange {
    fn name(&self) -> &'static str {
        "push_layer_range"
    }

    fn rewrite(&self, plan: &Plan) -> Option<Plan> {
        let Plan::Filter { predicate, input } = plan else { return None };
        let (Plan::Features { columns, .. } | Plan::GateHits { columns, .. }) = &**input else {
            return None;
        };
        let layer = columns.iter().position(|column| *column == FeatureColumn::Layer)?;
        let (about_layer, others): (Vec<_>, Vec<_>) = predicate
            .clone()
            .conjuncts()
            .into_iter()
            .partition(|conjunct| conjunct.columns() == [layer]);
        let about_layer = Expression::conjunction(about_layer)?;
        let keep = |layers: &LayerSet| {
            layers.filter(|layer| about_layer.is_true(&|_| Value::Integer(i64::from(layer))))
        };
        let mut input = (**input).clone();
        if let Plan::Features { layers, .. } | Plan::GateHits { layers, .. } = &mut input {
            *layers = keep(layers);
        }
        Some(match Expression::conjunction(others) {
            Some(predicate) => Plan::Filter { predicate, input: Box::new(input) },
            None => input,
        })
    }
}
