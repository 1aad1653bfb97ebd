//! One change of what a model knows.

use std::fmt;
use std::sync::Arc;

/// Values of a row or matrix, shared by whoever holds the operation.
pub type Vector = Arc<[f32]>;

/// The place of one feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// The layer.
    pub layer: u32,
    /// The feature; at or above the base's count, one that the overlay adds.
    pub feature: u32,
}

/// What made an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Retrieval at a layer.
    Knn,
    /// A feature composed of its own gate, up and down rows.
    Compose,
    /// A closed-form update.
    Memit,
    /// Rows that were given: by a patch file, MERGE or DIFF.
    Rows,
}

impl Mode {
    /// Its keyword.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Knn => "knn",
            Self::Compose => "compose",
            Self::Memit => "memit",
            Self::Rows => "rows",
        }
    }

    /// The mode of a keyword.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Knn, Self::Compose, Self::Memit, Self::Rows]
            .into_iter()
            .find(|one| one.name() == name)
    }
}

/// A fact that an edit states.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fact {
    /// What it is about.
    pub entity: String,
    /// Which relation.
    pub relation: String,
    /// The answer.
    pub target: String,
}

/// A feature's rows are replaced, or a feature is added to its layer.
#[derive(Debug, Clone, PartialEq)]
pub struct SetFeature {
    /// Where. A feature at or above the base's count widens the layer, one after the other.
    pub slot: Slot,
    /// `[hidden]`, in the model's own scale; `None` leaves the row as it is.
    pub gate: Option<Vector>,
    /// `[hidden]`; `None` leaves the row as it is, and for models without an up projection.
    pub up: Option<Vector>,
    /// `[hidden]`: the feature's column of the down projection; `None` leaves it as it is.
    pub down: Option<Vector>,
    /// What the feature is about.
    pub entity: Option<String>,
    /// Which relation.
    pub relation: Option<String>,
    /// What it answers; `None` of a feature that speaks against what the base answers to `entity` and
    /// `relation`, and of one that states no fact.
    pub target: Option<String>,
    /// The answer's tokens.
    pub target_ids: Vec<u32>,
    /// 0 to 1.
    pub confidence: Option<f32>,
    /// What made it.
    pub mode: Mode,
}

/// A fact that is answered by retrieval: where the residual stream at a layer resembles `key` and the
/// entity is what the prompt names last, the answer is `target`. One for each (entity, relation).
#[derive(Debug, Clone, PartialEq)]
pub struct SetKnn {
    /// The layer whose FFN input is compared.
    pub layer: u32,
    /// `[hidden]`.
    pub key: Vector,
    /// The least similarity that counts.
    pub threshold: f32,
    /// The fact.
    pub fact: Fact,
    /// The entity's spellings as tokens, for programs that compare tokens; here the text of the prompt must name
    /// the entity as words of its own.
    pub entity_ids: Vec<Vec<u32>>,
    /// The answer's tokens.
    pub target_ids: Vec<u32>,
    /// 0 to 1.
    pub confidence: Option<f32>,
}

/// A fact that is answered by retrieval is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteKnn {
    /// What it is about.
    pub entity: String,
    /// Which relation.
    pub relation: String,
}

impl DeleteKnn {
    /// What takes back the retrieved fact.
    pub fn of(fact: &Fact) -> Self {
        Self { entity: fact.entity.clone(), relation: fact.relation.clone() }
    }
}

/// A matrix that can be updated as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Matrix {
    /// A layer's down projection, `[hidden, features]`.
    Down,
}

/// A matrix gains `leftᵀ · right`.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    /// Its name, unique in the store; updates of one matrix are added in the order of their names.
    pub id: u64,
    /// The layer.
    pub layer: u32,
    /// Which of the layer's matrices.
    pub matrix: Matrix,
    /// Rows of `left` and `right`.
    pub rank: u32,
    /// `[rank, hidden]`.
    pub left: Vector,
    /// `[rank, features]`.
    pub right: Vector,
    /// What it states.
    pub facts: Vec<Fact>,
    /// How sure they are, 0 to 1.
    pub confidence: Option<f32>,
}

/// A row's label changes and nothing that is computed; `None` leaves a part as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Describe {
    /// Which feature.
    pub slot: Slot,
    /// Which relation.
    pub relation: Option<String>,
    /// What it answers.
    pub target: Option<String>,
    /// 0 to 1.
    pub confidence: Option<f32>,
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// A feature's rows are replaced, or a feature is added.
    SetFeature(SetFeature),
    /// A feature contributes nothing to inference, and is no row.
    HideFeature(Slot),
    /// A feature is again what the base says, or is no more where the overlay had added it.
    RestoreFeature(Slot),
    /// A fact is answered by retrieval.
    SetKnn(SetKnn),
    /// It no longer is.
    DeleteKnn(DeleteKnn),
    /// A matrix gains a product of two small ones.
    LowRank(LowRank),
    /// The update of that name is taken back.
    DropLowRank {
        /// Its name.
        id: u64,
    },
    /// A row's label changes.
    Describe(Describe),
}

/// What an operation changes, and two writers may not both change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Touched {
    /// A feature.
    Slot(Slot),
    /// What is known of an entity by a relation.
    Fact {
        /// The entity.
        entity: String,
        /// The relation.
        relation: String,
    },
    /// An update of a matrix.
    LowRank(u64),
    /// The name of a patch.
    Patch(String),
    /// The name of an assertion.
    Assertion(String),
}

impl Touched {
    /// The same with its names as they are compared ([`compared`](super::compared)): equal for two that are one.
    pub fn compared(&self) -> Self {
        match self {
            Self::Fact { entity, relation } => {
                Self::Fact { entity: super::compared(entity), relation: super::compared(relation) }
            }
            other => other.clone(),
        }
    }
}

impl fmt::Display for Touched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(slot) => write!(f, "feature {} of layer {}", slot.feature, slot.layer),
            Self::Fact { entity, relation } => write!(f, "{relation:?} of {entity:?}"),
            Self::LowRank(id) => write!(f, "update {id} of a matrix"),
            Self::Patch(name) => write!(f, "patch {name:?}"),
            Self::Assertion(name) => write!(f, "assertion {name:?}"),
        }
    }
}

/// What kind of change an operation is, as SHOW PATCHES counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Something new is known.
    Insert,
    /// Something is known otherwise.
    Update,
    /// Something is no longer known.
    Delete,
}

impl Operation {
    /// Everything that it changes.
    pub fn touched(&self) -> Vec<Touched> {
        let fact = |entity: &str, relation: &str| Touched::Fact {
            entity: entity.to_owned(),
            relation: relation.to_owned(),
        };
        match self {
            Self::SetFeature(set) => {
                let stated = set.entity.as_deref().zip(set.relation.as_deref());
                let stated = stated.map(|(entity, relation)| fact(entity, relation));
                std::iter::once(Touched::Slot(set.slot)).chain(stated).collect()
            }
            Self::HideFeature(slot) | Self::RestoreFeature(slot) => vec![Touched::Slot(*slot)],
            Self::SetKnn(knn) => vec![fact(&knn.fact.entity, &knn.fact.relation)],
            Self::DeleteKnn(knn) => vec![fact(&knn.entity, &knn.relation)],
            Self::LowRank(update) => {
                let facts = update.facts.iter().map(|one| fact(&one.entity, &one.relation));
                std::iter::once(Touched::LowRank(update.id)).chain(facts).collect()
            }
            Self::DropLowRank { id } => vec![Touched::LowRank(*id)],
            Self::Describe(describe) => vec![Touched::Slot(describe.slot)],
        }
    }

    /// The operation after which nothing is left of what this one set; `None` of what labels, and of what takes back.
    pub fn inverse(&self) -> Option<Self> {
        match self {
            Self::SetFeature(SetFeature { slot, .. }) | Self::HideFeature(slot) => {
                Some(Self::RestoreFeature(*slot))
            }
            Self::SetKnn(knn) => Some(Self::DeleteKnn(DeleteKnn::of(&knn.fact))),
            Self::LowRank(update) => Some(Self::DropLowRank { id: update.id }),
            Self::RestoreFeature(_)
            | Self::DeleteKnn(_)
            | Self::DropLowRank { .. }
            | Self::Describe(_) => None,
        }
    }

    /// What kind of change it is.
    pub fn effect(&self) -> Effect {
        match self {
            // Rows without a fact replace what is there.
            Self::SetFeature(set) if set.entity.is_none() => Effect::Update,
            // A feature that speaks of a fact and states no target is against what the base answers.
            Self::SetFeature(set) if set.target.is_none() => Effect::Delete,
            Self::SetFeature(_) | Self::SetKnn(_) | Self::LowRank(_) => Effect::Insert,
            Self::Describe(_) => Effect::Update,
            Self::HideFeature(_)
            | Self::RestoreFeature(_)
            | Self::DeleteKnn(_)
            | Self::DropLowRank { .. } => Effect::Delete,
        }
    }

    /// Every vector that it carries.
    pub fn vectors(&self) -> impl Iterator<Item = &Vector> {
        let carried: [Option<&Vector>; 3] = match self {
            Self::SetFeature(set) => [set.gate.as_ref(), set.up.as_ref(), set.down.as_ref()],
            Self::SetKnn(knn) => [Some(&knn.key), None, None],
            Self::LowRank(update) => [Some(&update.left), Some(&update.right), None],
            _ => [None; 3],
        };
        carried.into_iter().flatten()
    }
}
