//! Operations as bytes: Protocol Buffers, as the log keeps them (docs/formats/wal.md).
//!
//! The messages stand here and nowhere else: a field's number is never used for something else.

use prost::Message;

use super::check::Problem;
use super::operation::{
    DeleteKnn, Describe, Fact, LowRank, Matrix, Mode, Operation, SetFeature, SetKnn, Slot, Vector,
};

/// Why bytes are no operation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// They are not the message that was expected.
    #[error("is not readable: {0}")]
    Message(#[from] prost::DecodeError),
    /// The message lacks something, or has something that this version does not know.
    #[error("{0}")]
    Unknown(&'static str),
    /// The operation makes no sense.
    #[error("{0}")]
    Problem(#[from] Problem),
}

#[derive(Clone, PartialEq, Message)]
struct SlotMessage {
    #[prost(uint32, tag = "1")]
    layer: u32,
    #[prost(uint32, tag = "2")]
    feature: u32,
}

#[derive(Clone, PartialEq, Message)]
struct VectorMessage {
    #[prost(float, repeated, tag = "1")]
    values: Vec<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct TokensMessage {
    #[prost(uint32, repeated, tag = "1")]
    ids: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct FactMessage {
    #[prost(string, tag = "1")]
    entity: String,
    #[prost(string, tag = "2")]
    relation: String,
    #[prost(string, tag = "3")]
    target: String,
}

#[derive(Clone, PartialEq, Message)]
struct SetFeatureMessage {
    #[prost(message, optional, tag = "1")]
    slot: Option<SlotMessage>,
    #[prost(message, optional, tag = "2")]
    gate: Option<VectorMessage>,
    #[prost(message, optional, tag = "3")]
    up: Option<VectorMessage>,
    #[prost(message, optional, tag = "4")]
    down: Option<VectorMessage>,
    #[prost(string, optional, tag = "5")]
    entity: Option<String>,
    #[prost(string, optional, tag = "6")]
    relation: Option<String>,
    #[prost(string, optional, tag = "7")]
    target: Option<String>,
    #[prost(uint32, repeated, tag = "8")]
    target_ids: Vec<u32>,
    #[prost(float, optional, tag = "9")]
    confidence: Option<f32>,
    #[prost(uint32, tag = "10")]
    mode: u32,
}

#[derive(Clone, PartialEq, Message)]
struct SetKnnMessage {
    #[prost(uint32, tag = "1")]
    layer: u32,
    #[prost(message, optional, tag = "2")]
    key: Option<VectorMessage>,
    #[prost(float, tag = "3")]
    threshold: f32,
    #[prost(message, optional, tag = "4")]
    fact: Option<FactMessage>,
    #[prost(message, repeated, tag = "5")]
    entity_ids: Vec<TokensMessage>,
    #[prost(uint32, repeated, tag = "6")]
    target_ids: Vec<u32>,
    #[prost(float, optional, tag = "7")]
    confidence: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct LowRankMessage {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    layer: u32,
    #[prost(uint32, tag = "3")]
    matrix: u32,
    #[prost(uint32, tag = "4")]
    rank: u32,
    #[prost(message, optional, tag = "5")]
    left: Option<VectorMessage>,
    #[prost(message, optional, tag = "6")]
    right: Option<VectorMessage>,
    #[prost(message, repeated, tag = "7")]
    facts: Vec<FactMessage>,
    #[prost(float, optional, tag = "8")]
    confidence: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct DescribeMessage {
    #[prost(message, optional, tag = "1")]
    slot: Option<SlotMessage>,
    #[prost(string, optional, tag = "2")]
    relation: Option<String>,
    #[prost(string, optional, tag = "3")]
    target: Option<String>,
    #[prost(float, optional, tag = "4")]
    confidence: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct OperationMessage {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    SetFeature(SetFeatureMessage),
    #[prost(message, tag = "2")]
    HideFeature(SlotMessage),
    #[prost(message, tag = "3")]
    RestoreFeature(SlotMessage),
    #[prost(message, tag = "4")]
    SetKnn(SetKnnMessage),
    #[prost(message, tag = "5")]
    DeleteKnn(FactMessage),
    #[prost(message, tag = "6")]
    LowRank(LowRankMessage),
    #[prost(uint64, tag = "7")]
    DropLowRank(u64),
    #[prost(message, tag = "8")]
    Describe(DescribeMessage),
}

/// The numbers of modes on disk.
const MODES: [(u32, Mode); 4] =
    [(1, Mode::Knn), (2, Mode::Compose), (3, Mode::Memit), (4, Mode::Rows)];

/// The numbers of matrices on disk.
const MATRICES: [(u32, Matrix); 1] = [(1, Matrix::Down)];

fn number_of<T: PartialEq + Copy>(table: &[(u32, T)], value: T) -> u32 {
    table.iter().find(|(_, one)| *one == value).expect("every variant has a number").0
}

fn value_of<T: Copy>(
    table: &[(u32, T)],
    number: u32,
    unknown: &'static str,
) -> Result<T, DecodeError> {
    let found = table.iter().find(|(one, _)| *one == number);
    found.map(|(_, value)| *value).ok_or(DecodeError::Unknown(unknown))
}

/// An operation as bytes.
pub fn encode(operation: &Operation) -> Vec<u8> {
    let kind = match operation {
        Operation::SetFeature(set) => Kind::SetFeature(SetFeatureMessage {
            slot: Some(slot_message(set.slot)),
            gate: set.gate.as_ref().map(vector_message),
            up: set.up.as_ref().map(vector_message),
            down: set.down.as_ref().map(vector_message),
            entity: set.entity.clone(),
            relation: set.relation.clone(),
            target: set.target.clone(),
            target_ids: set.target_ids.clone(),
            confidence: set.confidence,
            mode: number_of(&MODES, set.mode),
        }),
        Operation::HideFeature(slot) => Kind::HideFeature(slot_message(*slot)),
        Operation::RestoreFeature(slot) => Kind::RestoreFeature(slot_message(*slot)),
        Operation::SetKnn(knn) => Kind::SetKnn(SetKnnMessage {
            layer: knn.layer,
            key: Some(vector_message(&knn.key)),
            threshold: knn.threshold,
            fact: Some(fact_message(&knn.fact)),
            entity_ids: knn
                .entity_ids
                .iter()
                .map(|ids| TokensMessage { ids: ids.clone() })
                .collect(),
            target_ids: knn.target_ids.clone(),
            confidence: knn.confidence,
        }),
        Operation::DeleteKnn(knn) => Kind::DeleteKnn(FactMessage {
            entity: knn.entity.clone(),
            relation: knn.relation.clone(),
            target: String::new(),
        }),
        Operation::LowRank(update) => Kind::LowRank(LowRankMessage {
            id: update.id,
            layer: update.layer,
            matrix: number_of(&MATRICES, update.matrix),
            rank: update.rank,
            left: Some(vector_message(&update.left)),
            right: Some(vector_message(&update.right)),
            facts: update.facts.iter().map(fact_message).collect(),
            confidence: update.confidence,
        }),
        Operation::DropLowRank { id } => Kind::DropLowRank(*id),
        Operation::Describe(describe) => Kind::Describe(DescribeMessage {
            slot: Some(slot_message(describe.slot)),
            relation: describe.relation.clone(),
            target: describe.target.clone(),
            confidence: describe.confidence,
        }),
    };
    OperationMessage { kind: Some(kind) }.encode_to_vec()
}

/// The operation of such bytes, checked by itself ([`Operation::check`]).
///
/// # Errors
/// When they are none, or one that makes no sense.
pub fn decode(bytes: &[u8]) -> Result<Operation, DecodeError> {
    let message = OperationMessage::decode(bytes)?;
    let operation =
        match message.kind.ok_or(DecodeError::Unknown("is no operation of this version"))? {
            Kind::SetFeature(set) => Operation::SetFeature(SetFeature {
                slot: slot(set.slot)?,
                gate: set.gate.map(vector),
                up: set.up.map(vector),
                down: set.down.map(vector),
                entity: set.entity,
                relation: set.relation,
                target: set.target,
                target_ids: set.target_ids,
                confidence: set.confidence,
                mode: value_of(&MODES, set.mode, "has a mode that this version does not know")?,
            }),
            Kind::HideFeature(place) => Operation::HideFeature(slot(Some(place))?),
            Kind::RestoreFeature(place) => Operation::RestoreFeature(slot(Some(place))?),
            Kind::SetKnn(knn) => Operation::SetKnn(SetKnn {
                layer: knn.layer,
                key: vector(knn.key.ok_or(DecodeError::Unknown("has no key"))?),
                threshold: knn.threshold,
                fact: fact(knn.fact.ok_or(DecodeError::Unknown("has no fact"))?),
                entity_ids: knn.entity_ids.into_iter().map(|tokens| tokens.ids).collect(),
                target_ids: knn.target_ids,
                confidence: knn.confidence,
            }),
            Kind::DeleteKnn(knn) => {
                Operation::DeleteKnn(DeleteKnn { entity: knn.entity, relation: knn.relation })
            }
            Kind::LowRank(update) => Operation::LowRank(LowRank {
                id: update.id,
                layer: update.layer,
                matrix: value_of(&MATRICES, update.matrix, "updates an unknown matrix")?,
                rank: update.rank,
                left: vector(update.left.ok_or(DecodeError::Unknown("has no left factor"))?),
                right: vector(update.right.ok_or(DecodeError::Unknown("has no right factor"))?),
                facts: update.facts.into_iter().map(fact).collect(),
                confidence: update.confidence,
            }),
            Kind::DropLowRank(id) => Operation::DropLowRank { id },
            Kind::Describe(describe) => Operation::Describe(Describe {
                slot: slot(describe.slot)?,
                relation: describe.relation,
                target: describe.target,
                confidence: describe.confidence,
            }),
        };
    operation.check()?;
    Ok(operation)
}

fn slot_message(slot: Slot) -> SlotMessage {
    SlotMessage { layer: slot.layer, feature: slot.feature }
}

fn vector_message(vector: &Vector) -> VectorMessage {
    VectorMessage { values: vector.to_vec() }
}

fn fact_message(fact: &Fact) -> FactMessage {
    FactMessage {
        entity: fact.entity.clone(),
        relation: fact.relation.clone(),
        target: fact.target.clone(),
    }
}

fn slot(message: Option<SlotMessage>) -> Result<Slot, DecodeError> {
    let message = message.ok_or(DecodeError::Unknown("names no feature"))?;
    Ok(Slot { layer: message.layer, feature: message.feature })
}

fn vector(message: VectorMessage) -> Vector {
    message.values.into()
}

fn fact(message: FactMessage) -> Fact {
    Fact { entity: message.entity, relation: message.relation, target: message.target }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        "[^\0]{1,12}"
    }

    fn row() -> impl Strategy<Value = Vector> {
        proptest::collection::vec(-9f32..9.0, 1..5).prop_map(Vector::from)
    }

    fn any_fact() -> impl Strategy<Value = Fact> {
        (text(), text(), text()).prop_map(|(entity, relation, target)| Fact {
            entity,
            relation,
            target,
        })
    }

    fn any_slot() -> impl Strategy<Value = Slot> {
        (any::<u32>(), any::<u32>()).prop_map(|(layer, feature)| Slot { layer, feature })
    }

    fn any_feature() -> impl Strategy<Value = SetFeature> {
        let option = proptest::option::of::<BoxedStrategy<Vector>>;
        let rows = (option(row().boxed()), option(row().boxed()), option(row().boxed()));
        let mode =
            prop_oneof![Just(Mode::Knn), Just(Mode::Compose), Just(Mode::Memit), Just(Mode::Rows)];
        let fact = proptest::option::of(any_fact());
        let ids = proptest::collection::vec(any::<u32>(), 0..4);
        (any_slot(), rows, fact, ids, proptest::option::of(0f32..=1.0), mode).prop_map(
            |(slot, (gate, up, down), fact, target_ids, confidence, mode)| {
                let (entity, relation, target) = match fact {
                    Some(fact) => (Some(fact.entity), Some(fact.relation), Some(fact.target)),
                    None => (None, None, None),
                };
                SetFeature {
                    slot,
                    gate,
                    up,
                    down,
                    entity,
                    relation,
                    target,
                    target_ids,
                    confidence,
                    mode,
                }
            },
        )
    }

    fn any_operation() -> impl Strategy<Value = Operation> {
        let spellings =
            proptest::collection::vec(proptest::collection::vec(any::<u32>(), 1..4), 0..3);
        let knn = (any::<u32>(), row(), -1f32..1.0, any_fact(), spellings, 0..9u32).prop_map(
            |(layer, key, threshold, fact, entity_ids, id)| SetKnn {
                layer,
                key,
                threshold,
                fact,
                entity_ids,
                target_ids: vec![id],
                confidence: None,
            },
        );
        let sure = proptest::option::of(0f32..=1.0);
        let update = (0..1u64 << 62, any::<u32>(), 1..4u32, -9f32..9.0, any_fact(), sure).prop_map(
            |(id, layer, rank, value, fact, confidence)| LowRank {
                id,
                layer,
                matrix: Matrix::Down,
                rank,
                left: vec![value; rank as usize * 2].into(),
                right: vec![value; rank as usize * 3].into(),
                facts: vec![fact],
                confidence,
            },
        );
        let describe = (any_slot(), proptest::option::of(text()), proptest::option::of(text()))
            .prop_map(|(slot, relation, target)| Describe {
                slot,
                relation,
                target,
                confidence: Some(0.5),
            });
        prop_oneof![
            any_feature().prop_map(Operation::SetFeature),
            any_slot().prop_map(Operation::HideFeature),
            any_slot().prop_map(Operation::RestoreFeature),
            knn.prop_map(Operation::SetKnn),
            (text(), text()).prop_map(|(entity, relation)| Operation::DeleteKnn(DeleteKnn {
                entity,
                relation
            })),
            update.prop_map(Operation::LowRank),
            (0..1u64 << 62).prop_map(|id| Operation::DropLowRank { id }),
            describe.prop_map(Operation::Describe),
        ]
    }

    proptest! {
        #[test]
        fn every_operation_comes_back_from_its_bytes(operation in any_operation()) {
            prop_assert_eq!(decode(&encode(&operation)), Ok(operation));
        }

        #[test]
        fn bytes_cut_short_or_changed_never_panic(operation in any_operation(), at: usize, bit in 0..8u32) {
            let mut bytes = encode(&operation);
            let at = at % bytes.len();
            let _ = decode(&bytes[..at]);
            bytes[at] ^= 1u8 << bit;
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn an_operation_that_makes_no_sense_is_refused_with_what_is_wrong() {
        let set = SetFeature {
            slot: Slot { layer: 0, feature: 0 },
            gate: None,
            up: None,
            down: None,
            entity: None,
            relation: None,
            target: None,
            target_ids: Vec::new(),
            confidence: None,
            mode: Mode::Rows,
        };
        let rows: [(&[f32], &str); 4] = [
            (&[], "no values"),
            (&[0.0, f32::NAN], "NaN"),
            (&[f32::INFINITY], "inf"),
            (&[1e30], "length"),
        ];
        for (row, problem) in rows {
            let operation =
                Operation::SetFeature(SetFeature { gate: Some(row.into()), ..set.clone() });
            let error = decode(&encode(&operation)).unwrap_err().to_string();
            assert!(error.starts_with("gate: ") && error.contains(problem), "{error}");
        }
    }
}
