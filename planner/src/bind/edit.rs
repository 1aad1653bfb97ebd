//! INSERT, DELETE and UPDATE: which facts, and which edges.

use super::BindError;
use super::statement::{Bound, Reader};
use crate::catalog::{Catalog, INFERENCE_COMPONENTS};
use crate::logical::Plan;
use crate::logical::plan::EDIT_COLUMNS;
use crate::physical::edit::{Edit, EditedRows, InsertFacts};
use crate::physical::plan::Operator;
use crate::planned::Role;
use crate::syntax::Span;
use crate::syntax::ast::{ComparisonOperator, Expression, ExpressionKind, Harm, Insert, Name};

const FACT: [&str; 3] = ["entity", "relation", "target"];
const EDGE: &str = "entity, relation, target, layer, feature and source";

fn refuse(what: impl Into<String>, span: Span, hint: impl Into<String>) -> BindError {
    BindError::Meaningless { what: what.into(), span: Some(span), hint: hint.into() }
}

fn bound(edit: Edit, reader: Reader<'_>) -> Bound {
    let tag = edit.tag();
    reader.bound(Plan::leaf(Operator::Edit(edit), &EDIT_COLUMNS), tag, Role::Editor)
}

/// Binds an INSERT.
///
/// # Errors
/// Columns other than entity, relation and target, once each; values that are no texts; layers that
/// are not there; numbers out of range.
pub(super) fn insert(
    request: &Insert,
    span: Span,
    catalog: &dyn Catalog,
) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    reader.needs(&INFERENCE_COMPONENTS)?;
    let hint = "INSERT INTO EDGES (entity, relation, target) VALUES ('France', 'capital', 'Lyon')";
    let mut places = [usize::MAX; 3];
    for (index, column) in request.columns.iter().enumerate() {
        let place = FACT.iter().position(|fact| column.value.eq_ignore_ascii_case(fact));
        let place = place.filter(|&place| places[place] == usize::MAX).ok_or_else(|| {
            let what = format!("{} is no column of a fact, or given twice", column.value);
            refuse(what, column.span, hint)
        })?;
        places[place] = index;
    }
    if let Some(missing) = places.iter().position(|&place| place == usize::MAX) {
        return Err(refuse(format!("a fact has a {}", FACT[missing]), span, hint));
    }
    let mut facts = Vec::with_capacity(request.rows.len());
    for row in &request.rows {
        let mut fact: [String; 3] = Default::default();
        for (part, &place) in fact.iter_mut().zip(&places) {
            match row.get(place).map(|value| (&value.value, value.span)) {
                Some((ExpressionKind::Text(text), _)) if !text.trim().is_empty() => {
                    *part = text.trim().to_owned();
                }
                // PREPARE binds parameters as NULL; what runs refuses a text that is empty.
                Some((ExpressionKind::Null, _)) => {}
                Some((_, span)) => {
                    return Err(refuse("a fact is made of texts that are not empty", span, hint));
                }
                None => return Err(refuse("a row lacks a value", span, hint)),
            }
        }
        let whole = fact[..2].iter().all(|part| !part.is_empty());
        if whole && facts.iter().any(|known: &[String; 3]| known[..2] == fact[..2]) {
            let what = format!("{:?} of {:?} is given twice", fact[1], fact[0]);
            return Err(refuse(what, span, "give each fact once"));
        }
        facts.push(fact);
    }
    let layers = match &request.layers {
        None => None,
        Some(range) => {
            let (first, last) = (range.value.first, range.value.last);
            if first > last || last >= reader.layers() {
                let what = format!("the model has layers 0 to {}", reader.layers() - 1);
                return Err(refuse(what, range.span, "AT LAYERS first-last"));
            }
            Some((first, last))
        }
    };
    if let Some(confidence) = request.confidence.filter(|c| !(0.0..=1.0).contains(c)) {
        let what = format!("CONFIDENCE {confidence} is not between 0 and 1");
        return Err(refuse(what, span, "CONFIDENCE 0.9"));
    }
    let alpha = request.alpha.unwrap_or(1.0);
    if !(alpha > 0.0 && alpha <= 100.0) {
        let what = format!("ALPHA {alpha} is not above 0 and at most 100");
        return Err(refuse(what, span, "ALPHA 1 is as strong as was found to be needed"));
    }
    let harm = checked(request.harm, span)?;
    let (mode, confidence) = (request.mode, request.confidence);
    let insert = InsertFacts { facts, mode, layers, confidence, alpha, harm };
    Ok(bound(Edit::Insert(insert), reader))
}

/// Binds a DELETE.
///
/// # Errors
/// As [`conditions`].
pub(super) fn delete(
    filter: &Expression,
    harm: Option<Harm>,
    catalog: &dyn Catalog,
) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    let rows = conditions(filter, harm, &reader)?;
    Ok(bound(Edit::Delete(rows), reader))
}

/// Binds an UPDATE.
///
/// # Errors
/// As [`conditions`]; anything but one new target.
pub(super) fn update(
    assignments: &[(Name, Expression)],
    filter: &Expression,
    harm: Option<Harm>,
    catalog: &dyn Catalog,
) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    reader.needs(&INFERENCE_COMPONENTS)?;
    let rows = conditions(filter, harm, &reader)?;
    let hint = "UPDATE EDGES SET target = 'Lyon' WHERE entity = 'France' AND relation = 'capital'";
    let [(name, value)] = assignments else {
        return Err(refuse("UPDATE sets one target", filter.span, hint));
    };
    match &value.value {
        ExpressionKind::Text(target)
            if name.value.eq_ignore_ascii_case("target") && !target.trim().is_empty() =>
        {
            Ok(bound(Edit::Update(rows, target.trim().to_owned()), reader))
        }
        _ => Err(refuse("UPDATE sets the target, which is a text", name.span, hint)),
    }
}

/// Conditions of the form `column = value` with AND between.
///
/// # Errors
/// Other conditions, columns that an edge does not have, values of another kind, one column twice.
fn conditions(
    filter: &Expression,
    harm: Option<Harm>,
    reader: &Reader<'_>,
) -> Result<EditedRows, BindError> {
    let mut rows = EditedRows { harm: checked(harm, filter.span)?, ..EditedRows::default() };
    let conjuncts = match &filter.value {
        ExpressionKind::And(conjuncts) => &conjuncts[..],
        _ => std::slice::from_ref(filter),
    };
    for conjunct in conjuncts {
        let hint = format!("write column = value with AND between; the columns are {EDGE}");
        let refuse = |what: &str| refuse(what, conjunct.span, hint.clone());
        let ExpressionKind::Comparison { operator: ComparisonOperator::Equal, left, right } =
            &conjunct.value
        else {
            return Err(refuse("edits are found by conditions of the form column = value"));
        };
        let ExpressionKind::Column { qualifier: None, name } = &left.value else {
            return Err(refuse("the left side is no column of an edge"));
        };
        let column = name.to_ascii_lowercase();
        let twice = match (&*column, &right.value) {
            ("entity", ExpressionKind::Text(text)) => rows.entity.replace(text.clone()).is_some(),
            ("relation", ExpressionKind::Text(text)) => {
                rows.relation.replace(text.clone()).is_some()
            }
            ("target", ExpressionKind::Text(text)) => rows.target.replace(text.clone()).is_some(),
            ("source", ExpressionKind::Text(text)) if matches!(&**text, "knn" | "patch") => {
                rows.source.replace(text.clone()).is_some()
            }
            ("layer", ExpressionKind::Integer(number)) => {
                let layer = u32::try_from(*number).ok().filter(|&layer| layer < reader.layers());
                let layer = layer.ok_or_else(|| refuse("there is no such layer"))?;
                rows.layer.replace(layer).is_some()
            }
            ("feature", ExpressionKind::Integer(number)) => {
                let feature = u64::try_from(*number).ok();
                let feature = feature.ok_or_else(|| refuse("there is no such feature"))?;
                rows.feature.replace(feature).is_some()
            }
            _ => return Err(refuse("an edge has no such column, or it is of another type")),
        };
        if twice {
            return Err(refuse("a column is given twice"));
        }
    }
    Ok(rows)
}

/// A budget that makes sense.
fn checked(harm: Option<Harm>, span: Span) -> Result<Option<Harm>, BindError> {
    if let Some(Harm::Max { budget, points }) = harm {
        let most = if points { 100.0 } else { 1.0 };
        if !(0.0..=most).contains(&budget) {
            let what = format!("a budget of harm is between 0 and {most}, not {budget}");
            return Err(refuse(what, span, "WITH MAX HARM 5 POINTS is WITH MAX HARM 0.05"));
        }
    }
    Ok(harm)
}
