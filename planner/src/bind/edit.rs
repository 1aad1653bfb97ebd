//! INSERT, DELETE, UPDATE and MERGE: which facts, which edges, and which model.

use super::BindError;
use super::binder::Binder;
use super::expression as bound;
use super::select::select;
use super::source::{Sources, edges_scope};
use super::statement::{Bound, Reader};
use crate::catalog::{Catalog, INFERENCE_COMPONENTS};
use crate::logical::Plan;
use crate::logical::plan::{EDIT_COLUMNS, MERGE_COLUMNS};
use crate::physical::edit::{Assignments, Edit, InsertFacts, MergeModel};
use crate::physical::plan::Operator;
use crate::planned::Role;
use crate::syntax::ast::{
    Expression, ExpressionKind, Harm, Insert, InsertMode, Literal, MergeConflict, Name, Select,
};
use crate::syntax::{Span, Spanned};

const FACT: [&str; 3] = ["entity", "relation", "target"];

fn refuse(what: impl Into<String>, span: Span, hint: impl Into<String>) -> BindError {
    BindError::Meaningless { what: what.into(), span: Some(span), hint: hint.into() }
}

fn leaf(edit: Edit, reader: Reader<'_>) -> Bound {
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
    if let Some(Spanned { value, span }) = request.confidence
        && !(0.0..=1.0).contains(&value)
    {
        let what = format!("CONFIDENCE {value} is not between 0 and 1");
        return Err(refuse(what, span, "CONFIDENCE 0.9"));
    }
    if let Some(Spanned { value, span }) = request.alpha
        && !(value > 0.0 && value <= 100.0)
    {
        let what = format!("ALPHA {value} is not above 0 and at most 100");
        return Err(refuse(what, span, "ALPHA 1 is as strong as was found to be needed"));
    }
    let mode = match request.mode {
        Some(InsertMode::Knn) => retrievable(request).map(|()| request.mode)?,
        // What is said of features makes features.
        None if retrievable(request).is_err() => Some(InsertMode::Compose),
        mode => mode,
    };
    let harm = checked(request.harm, Some(span))?;
    let alpha = request.alpha.map_or(1.0, |alpha| alpha.value);
    let confidence = request.confidence.map(|confidence| confidence.value);
    let insert = InsertFacts { facts, mode, layers, confidence, alpha, harm };
    Ok(leaf(Edit::Insert(insert), reader))
}

/// Whether everything that an INSERT says means something where its facts are retrieved: a key lies in one
/// layer, and what it answers is as strong as can be.
fn retrievable(request: &Insert) -> Result<(), BindError> {
    if let Some(alpha) = request.alpha {
        let what = "ALPHA is a factor on what is added, and MODE KNN adds nothing";
        return Err(refuse(what, alpha.span, "leave it out, or write MODE COMPOSE or MEMIT"));
    }
    if let Some(layers) = request.layers.filter(|layers| layers.value.first < layers.value.last) {
        let what = "MODE KNN keeps its key at one layer";
        let hint = format!("AT LAYER {}, or MODE COMPOSE or MEMIT", layers.value.last);
        return Err(refuse(what, layers.span, hint));
    }
    Ok(())
}

/// Binds a MERGE.
///
/// # Errors
/// A budget of harm that makes no sense; without inference weights.
pub(super) fn merge(
    source: &Literal,
    into: Option<&Literal>,
    conflict: Option<MergeConflict>,
    harm: Option<Harm>,
    catalog: &dyn Catalog,
) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    reader.needs(&INFERENCE_COMPONENTS)?;
    let merge = MergeModel {
        source: source.value.clone(),
        into: into.map(|into| into.value.clone()),
        conflict: conflict.unwrap_or(MergeConflict::KeepSource),
        harm: checked(harm, Some(source.span))?,
    };
    let plan = Plan::leaf(Operator::Edit(Edit::Merge(merge)), &MERGE_COLUMNS);
    Ok(reader.bound(plan, "MERGE", Role::Editor))
}

/// Binds a DELETE.
///
/// # Errors
/// As [`edges`].
pub(super) fn delete(
    filter: &Expression,
    harm: Option<Harm>,
    catalog: &dyn Catalog,
) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    let input = edges(filter, catalog)?;
    let edit = Edit::Delete { harm: checked(harm, Some(filter.span))? };
    Ok(reader.bound(Plan::Edit { edit, input: Box::new(input) }, "DELETE", Role::Editor))
}

/// Binds an UPDATE.
///
/// # Errors
/// As [`edges`]; columns other than target and confidence, each once, and values that they cannot have.
pub(super) fn update(
    assignments: &[(Name, Expression)],
    filter: &Expression,
    harm: Option<Harm>,
    catalog: &dyn Catalog,
) -> Result<Bound, BindError> {
    let reader = Reader::current(catalog)?;
    reader.needs(&INFERENCE_COMPONENTS)?;
    let hint = "UPDATE EDGES SET target = 'Lyon' WHERE entity = 'France' AND relation = 'capital'";
    let mut set = Assignments::default();
    for (name, value) in assignments {
        let number = match &value.value {
            ExpressionKind::Integer(number) => Some(*number as f64),
            ExpressionKind::Real(number) => Some(*number),
            _ => None,
        };
        let twice = match (&*name.value.to_ascii_lowercase(), &value.value) {
            // What PREPARE binds is refused as empty when it runs.
            ("target", ExpressionKind::Null) => set.target.replace(String::new()).is_some(),
            ("target", ExpressionKind::Text(text)) if !text.trim().is_empty() => {
                set.target.replace(text.trim().to_owned()).is_some()
            }
            ("target", _) => {
                return Err(refuse("a target is a text that is not empty", value.span, hint));
            }
            ("confidence", _) if number.is_some_and(|number| (0.0..=1.0).contains(&number)) => {
                std::mem::replace(&mut set.confidence, number).is_some()
            }
            ("confidence", _) => {
                let hint = "SET confidence = 0.9";
                return Err(refuse("a confidence is a number from 0 to 1", value.span, hint));
            }
            _ => {
                let what = format!("UPDATE sets target and confidence, and not {}", name.value);
                return Err(refuse(what, name.span, hint));
            }
        };
        if twice {
            return Err(refuse(format!("{} is set twice", name.value), name.span, hint));
        }
    }
    let input = edges(filter, catalog)?;
    let edit = Edit::Update { set, harm: checked(harm, Some(filter.span))? };
    Ok(reader.bound(Plan::Edit { edit, input: Box::new(input) }, "UPDATE", Role::Editor))
}

/// The rows of EDGES for which a condition is true: what SELECT shows of it.
///
/// # Errors
/// As SELECT; a condition that is the same for every row.
fn edges(filter: &Expression, catalog: &dyn Catalog) -> Result<Plan, BindError> {
    let span = filter.span;
    let predicate = Binder::over(&edges_scope()).predicate(filter)?;
    let is_itself = |one: &bound::Expression| matches!(one, bound::Expression::Comparison { left, right, .. } if left == right);
    if predicate.columns().is_empty() || predicate.clone().conjuncts().iter().all(is_itself) {
        let hint =
            "name what is meant: entity = '…' AND relation = '…'; source = 'patch' for all edits";
        return Err(refuse("the condition is the same for every edge", span, hint));
    }
    let request = Select::all_of("EDGES", Some(filter.clone()), span);
    select(&Sources::new(catalog), &request, None)
}

/// A budget that makes sense.
pub(super) fn checked(harm: Option<Harm>, span: Option<Span>) -> Result<Option<Harm>, BindError> {
    if let Some(Harm::Max { budget, points }) = harm {
        let most = if points { 100.0 } else { 1.0 };
        if !(0.0..=most).contains(&budget) {
            let what = format!("a budget of harm is between 0 and {most}, not {budget}");
            let hint = "WITH MAX HARM 5 POINTS is WITH MAX HARM 0.05".to_owned();
            return Err(BindError::Meaningless { what, span, hint });
        }
    }
    Ok(harm)
}
