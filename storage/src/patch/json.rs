//! Operations as a `.vlp` file writes them: one flat object, its kind in `op`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{ANCESTOR_THRESHOLD, Step};
use crate::overlay::{
    DeleteKnn, Describe, Fact, LowRank, Matrix, Mode, Operation, Problem, SetFeature, SetKnn, Slot,
    Vector,
};

/// Every field that an operation of any kind may have. Those that a kind has no use for are refused.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationJson<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feature: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_ids: Option<Vec<Vec<u32>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matrix: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<u32>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    gate_vector_b64: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    up_vector_b64: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    down_vector_b64: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    key_vector_b64: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    left_b64: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    right_b64: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    down_meta: Option<DownMetaJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<Vec<FactJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The output token of a feature: its text, its number, its logit.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DownMetaJson {
    t: String,
    i: u32,
    #[serde(default)]
    c: f32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FactJson {
    entity: String,
    relation: String,
    target: String,
}

/// The words of operations.
mod word {
    pub(super) const INSERT: &str = "insert";
    pub(super) const UPDATE: &str = "update";
    pub(super) const DELETE: &str = "delete";
    pub(super) const RESTORE: &str = "restore";
    pub(super) const DESCRIBE: &str = "describe";
    pub(super) const INSERT_KNN: &str = "insert_knn";
    pub(super) const DELETE_KNN: &str = "delete_knn";
    pub(super) const LOW_RANK: &str = "low_rank";
    pub(super) const DROP_LOW_RANK: &str = "drop_low_rank";
}

const DOWN: &str = "down";

/// The operation of such an object, checked by itself.
pub(super) fn from_json(json: OperationJson<'_>) -> Result<Step, Problem> {
    let step = match &*json.op {
        word::INSERT => Step::Operation(set_feature(json, true)?),
        word::UPDATE => Step::Operation(update(json)?),
        word::DELETE => Step::Operation(Operation::HideFeature(slot(&json)?)),
        word::RESTORE => Step::Operation(Operation::RestoreFeature(slot(&json)?)),
        word::DESCRIBE => Step::Operation(describe(json)?),
        word::INSERT_KNN => Step::Operation(set_knn(json)?),
        word::DELETE_KNN => {
            let entity = wanted("entity", json.entity)?;
            match json.relation {
                Some(relation) => {
                    Step::Operation(Operation::DeleteKnn(DeleteKnn { entity, relation }))
                }
                None => Step::ForgetEntity(entity),
            }
        }
        word::LOW_RANK => Step::Operation(low_rank(json)?),
        word::DROP_LOW_RANK => {
            Step::Operation(Operation::DropLowRank { id: wanted("id", json.id)? })
        }
        other => {
            let other: String = other.chars().take(40).collect();
            return refuse("op", format!("{other:?} is no operation"));
        }
    };
    if let Step::Operation(operation) = &step {
        operation.check()?;
    }
    Ok(step)
}

fn refuse<T>(what: &'static str, problem: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { what, problem: problem.into() })
}

fn wanted<T>(what: &'static str, found: Option<T>) -> Result<T, Problem> {
    found.map_or_else(|| refuse(what, "is missing"), Ok)
}

fn slot(json: &OperationJson<'_>) -> Result<Slot, Problem> {
    Ok(Slot { layer: wanted("layer", json.layer)?, feature: wanted("feature", json.feature)? })
}

fn vector(what: &'static str, text: Option<Cow<'_, str>>) -> Result<Option<Vector>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let bytes = STANDARD.decode(text.as_bytes());
    let bytes = bytes.or_else(|error| refuse(what, format!("is no base64: {error}")))?;
    let (values, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return refuse(what, format!("{} bytes are no whole number of f32", bytes.len()));
    }
    Ok(Some(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
}

fn text(vector: &Vector) -> Cow<'static, str> {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    STANDARD.encode(bytes).into()
}

fn set_feature(json: OperationJson<'_>, is_insert: bool) -> Result<Operation, Problem> {
    let slot = slot(&json)?;
    let mode = match json.mode.as_deref() {
        None => Mode::Rows,
        Some(name) => wanted("mode", Mode::from_name(name))?,
    };
    let (output, output_id) = json.down_meta.map(|meta| (meta.t, meta.i)).unzip();
    let output = output.filter(|text| !text.is_empty());
    let target =
        if is_insert { Some(wanted("target", json.target)?) } else { json.target.or(output) };
    Ok(Operation::SetFeature(SetFeature {
        slot,
        gate: vector("gate_vector_b64", json.gate_vector_b64)?,
        up: vector("up_vector_b64", json.up_vector_b64)?,
        down: vector("down_vector_b64", json.down_vector_b64)?,
        entity: if is_insert { Some(wanted("entity", json.entity)?) } else { json.entity },
        relation: json.relation,
        target,
        target_ids: json.target_ids.unwrap_or_else(|| output_id.into_iter().collect()),
        confidence: json.confidence,
        mode,
    }))
}

/// An update of vectors, or of a label alone: what the ancestor's UPDATE records.
fn update(json: OperationJson<'_>) -> Result<Operation, Problem> {
    let vectors = [&json.gate_vector_b64, &json.up_vector_b64, &json.down_vector_b64];
    if vectors.into_iter().any(Option::is_some) {
        return set_feature(json, false);
    }
    describe(json)
}

fn describe(json: OperationJson<'_>) -> Result<Operation, Problem> {
    let slot = slot(&json)?;
    let output = json.down_meta.map(|meta| meta.t).filter(|text| !text.is_empty());
    let target = json.target.or(output);
    Ok(Operation::Describe(Describe {
        slot,
        relation: json.relation,
        target,
        confidence: json.confidence,
    }))
}

fn set_knn(json: OperationJson<'_>) -> Result<Operation, Problem> {
    let target_ids = json.target_ids.or(json.target_id.map(|id| vec![id]));
    Ok(Operation::SetKnn(SetKnn {
        layer: wanted("layer", json.layer)?,
        key: wanted("key_vector_b64", vector("key_vector_b64", json.key_vector_b64)?)?,
        threshold: json.threshold.unwrap_or(ANCESTOR_THRESHOLD),
        fact: Fact {
            entity: wanted("entity", json.entity)?,
            relation: wanted("relation", json.relation)?,
            target: wanted("target", json.target)?,
        },
        entity_ids: json.entity_ids.unwrap_or_default(),
        target_ids: wanted("target_id", target_ids)?,
        confidence: json.confidence,
    }))
}

fn low_rank(json: OperationJson<'_>) -> Result<Operation, Problem> {
    match json.matrix.as_deref() {
        Some(DOWN) => {}
        other => return refuse("matrix", format!("{other:?} is not {DOWN:?}")),
    }
    let facts = json.facts.unwrap_or_default().into_iter().map(|fact| Fact {
        entity: fact.entity,
        relation: fact.relation,
        target: fact.target,
    });
    Ok(Operation::LowRank(LowRank {
        id: wanted("id", json.id)?,
        layer: wanted("layer", json.layer)?,
        matrix: Matrix::Down,
        rank: wanted("rank", json.rank)?,
        left: wanted("left_b64", vector("left_b64", json.left_b64)?)?,
        right: wanted("right_b64", vector("right_b64", json.right_b64)?)?,
        facts: facts.collect(),
        confidence: json.confidence,
    }))
}

/// The object of an operation.
pub(super) fn to_json(step: &Step) -> OperationJson<'_> {
    let of = |op: &'static str| OperationJson { op: op.into(), ..OperationJson::default() };
    let at = |op, slot: &Slot| OperationJson {
        layer: Some(slot.layer),
        feature: Some(slot.feature),
        ..of(op)
    };
    let operation = match step {
        Step::Operation(operation) => operation,
        Step::ForgetEntity(entity) => {
            return OperationJson { entity: Some(entity.clone()), ..of(word::DELETE_KNN) };
        }
    };
    match operation {
        Operation::SetFeature(set) => {
            let is_insert = set.entity.is_some() && set.target.is_some();
            // An update without vectors is a label's; such an operation is written as what it is.
            let op = if is_insert { word::INSERT } else { word::UPDATE };
            OperationJson {
                entity: set.entity.clone(),
                relation: set.relation.clone(),
                target: set.target.clone(),
                target_ids: Some(set.target_ids.clone()),
                confidence: set.confidence,
                mode: Some(set.mode.name().into()),
                gate_vector_b64: set.gate.as_ref().map(text),
                up_vector_b64: set.up.as_ref().map(text),
                down_vector_b64: set.down.as_ref().map(text),
                ..at(op, &set.slot)
            }
        }
        Operation::HideFeature(slot) => at(word::DELETE, slot),
        Operation::RestoreFeature(slot) => at(word::RESTORE, slot),
        Operation::Describe(describe) => OperationJson {
            relation: describe.relation.clone(),
            target: describe.target.clone(),
            confidence: describe.confidence,
            ..at(word::DESCRIBE, &describe.slot)
        },
        Operation::SetKnn(knn) => OperationJson {
            layer: Some(knn.layer),
            entity: Some(knn.fact.entity.clone()),
            relation: Some(knn.fact.relation.clone()),
            target: Some(knn.fact.target.clone()),
            target_id: knn.target_ids.first().copied(),
            target_ids: Some(knn.target_ids.clone()),
            entity_ids: Some(knn.entity_ids.clone()),
            confidence: knn.confidence,
            threshold: Some(knn.threshold),
            key_vector_b64: Some(text(&knn.key)),
            ..of(word::INSERT_KNN)
        },
        Operation::DeleteKnn(knn) => OperationJson {
            entity: Some(knn.entity.clone()),
            relation: Some(knn.relation.clone()),
            ..of(word::DELETE_KNN)
        },
        Operation::LowRank(update) => OperationJson {
            id: Some(update.id),
            layer: Some(update.layer),
            matrix: Some(DOWN.into()),
            rank: Some(update.rank),
            left_b64: Some(text(&update.left)),
            right_b64: Some(text(&update.right)),
            facts: Some(update.facts.iter().map(fact_json).collect()),
            confidence: update.confidence,
            ..of(word::LOW_RANK)
        },
        Operation::DropLowRank { id } => OperationJson { id: Some(*id), ..of(word::DROP_LOW_RANK) },
    }
}

fn fact_json(fact: &Fact) -> FactJson {
    FactJson {
        entity: fact.entity.clone(),
        relation: fact.relation.clone(),
        target: fact.target.clone(),
    }
}
