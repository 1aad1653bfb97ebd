//! Whether an operation makes sense, by itself and on a base: what comes from files and logs is checked here
//! before anything is done with it.

use super::operation::{Fact, Operation, Slot, Vector};

/// Most bytes of an entity, relation or target.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Most tokens of an answer or of one way to write an entity.
const TOKENS_MAX: usize = 1024;

/// Most ways to write an entity.
const SPELLINGS_MAX: usize = 256;

/// Most facts of one update of a matrix, and its highest rank.
const RANK_MAX: usize = 65_536;

/// The longest vector (L2) that a row may be: far above every published model's rows, and far below what makes
/// the residual stream overflow.
pub const VECTOR_NORM_MAX: f64 = 1.0e5;

/// The part of a base that operations must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseShape {
    /// Width of the residual stream.
    pub hidden: u32,
    /// Features of each layer in the base.
    pub features: Vec<u32>,
    /// Tokens in the vocabulary.
    pub vocabulary: u32,
}

/// Why an operation was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct Problem {
    /// Which part of the operation.
    pub what: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

fn refuse<T>(what: &'static str, problem: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { what, problem: problem.into() })
}

/// Refuses the name of an update after which there is no next one.
fn check_update(id: u64) -> Result<(), Problem> {
    match id < UPDATE_ID_END {
        true => Ok(()),
        false => refuse("id", format!("{id} is beyond {UPDATE_ID_END}")),
    }
}

/// The end of the names of updates: far beyond what anybody counts to, and far below where counting ends.
const UPDATE_ID_END: u64 = 1 << 62;

fn check_text(what: &'static str, text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return refuse(what, "is empty");
    }
    if text.len() > TEXT_BYTES_MAX {
        return refuse(what, format!("has {} bytes, the most is {TEXT_BYTES_MAX}", text.len()));
    }
    if text.contains('\0') {
        return refuse(what, "holds a NUL character");
    }
    Ok(())
}

fn check_texts(texts: [(&'static str, Option<&String>); 3]) -> Result<(), Problem> {
    texts
        .into_iter()
        .try_for_each(|(what, text)| text.map_or(Ok(()), |text| check_text(what, text)))
}

fn check_fact(fact: &Fact) -> Result<(), Problem> {
    check_texts([
        ("entity", Some(&fact.entity)),
        ("relation", Some(&fact.relation)),
        ("target", Some(&fact.target)),
    ])
}

fn check_confidence(confidence: Option<f32>) -> Result<(), Problem> {
    match confidence {
        Some(value) if !(0.0..=1.0).contains(&value) => {
            refuse("confidence", format!("{value} is not between 0 and 1"))
        }
        _ => Ok(()),
    }
}

fn check_tokens(what: &'static str, tokens: &[u32]) -> Result<(), Problem> {
    if tokens.len() > TOKENS_MAX {
        return refuse(what, format!("{} tokens, the most is {TOKENS_MAX}", tokens.len()));
    }
    Ok(())
}

fn check_values(what: &'static str, values: &Vector) -> Result<(), Problem> {
    if values.is_empty() {
        return refuse(what, "has no values");
    }
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return refuse(what, format!("value {at} is {}", values[at]));
    }
    Ok(())
}

fn check_row(what: &'static str, row: Option<&Vector>) -> Result<(), Problem> {
    let Some(row) = row else { return Ok(()) };
    check_values(what, row)?;
    let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if norm > VECTOR_NORM_MAX {
        return refuse(
            what,
            format!("its length is {norm:.3e}, the most is {VECTOR_NORM_MAX:.0e}"),
        );
    }
    Ok(())
}

impl Operation {
    /// Whether it makes sense on any base: texts, finite values, lengths of vectors among themselves.
    ///
    /// # Errors
    /// The first part that does not.
    pub fn check(&self) -> Result<(), Problem> {
        match self {
            Self::SetFeature(set) => {
                for (what, row) in [("gate", &set.gate), ("up", &set.up), ("down", &set.down)] {
                    check_row(what, row.as_ref())?;
                }
                check_texts([
                    ("entity", set.entity.as_ref()),
                    ("relation", set.relation.as_ref()),
                    ("target", set.target.as_ref()),
                ])?;
                check_tokens("target_ids", &set.target_ids)?;
                check_confidence(set.confidence)
            }
            Self::SetKnn(knn) => {
                check_row("key", Some(&knn.key))?;
                if !knn.threshold.is_finite() {
                    return refuse("threshold", format!("is {}", knn.threshold));
                }
                check_fact(&knn.fact)?;
                if knn.entity_ids.len() > SPELLINGS_MAX {
                    let count = knn.entity_ids.len();
                    return refuse(
                        "entity_ids",
                        format!("{count} spellings, the most is {SPELLINGS_MAX}"),
                    );
                }
                if knn.entity_ids.iter().any(Vec::is_empty) {
                    return refuse("entity_ids", "an empty spelling is in every prompt");
                }
                knn.entity_ids.iter().try_for_each(|ids| check_tokens("entity_ids", ids))?;
                if knn.target_ids.is_empty() {
                    return refuse("target_ids", "an answer has at least one token");
                }
                check_tokens("target_ids", &knn.target_ids)?;
                check_confidence(knn.confidence)
            }
            Self::DeleteKnn(knn) => {
                check_text("entity", &knn.entity)?;
                check_text("relation", &knn.relation)
            }
            Self::LowRank(update) => {
                check_update(update.id)?;
                let rank = update.rank as usize;
                if !(1..=RANK_MAX).contains(&rank) {
                    return refuse("rank", format!("{rank} is not between 1 and {RANK_MAX}"));
                }
                for (what, values) in [("left", &update.left), ("right", &update.right)] {
                    check_values(what, values)?;
                    if values.len() % rank != 0 {
                        return refuse(
                            what,
                            format!("{} values make no {rank} rows", values.len()),
                        );
                    }
                    for row in values.chunks(values.len() / rank) {
                        check_row(what, Some(&row.into()))?;
                    }
                }
                if update.facts.len() > RANK_MAX {
                    return refuse("facts", format!("there are more than {RANK_MAX}"));
                }
                check_confidence(update.confidence)?;
                update.facts.iter().try_for_each(check_fact)
            }
            Self::Describe(describe) => {
                check_texts([
                    ("relation", describe.relation.as_ref()),
                    ("target", describe.target.as_ref()),
                    ("entity", None),
                ])?;
                check_confidence(describe.confidence)
            }
            Self::DropLowRank { id } => check_update(*id),
            Self::HideFeature(_) | Self::RestoreFeature(_) => Ok(()),
        }
    }

    /// Whether it also fits a base: layers, widths and tokens that are there.
    ///
    /// # Errors
    /// The first part that does not.
    pub fn check_on(&self, base: &BaseShape) -> Result<(), Problem> {
        self.check()?;
        match self {
            Self::SetFeature(set) => {
                base.check_slot(set.slot)?;
                for (what, row) in [("gate", &set.gate), ("up", &set.up), ("down", &set.down)] {
                    row.as_ref().map_or(Ok(()), |row| base.check_width(what, row.len()))?;
                }
                base.check_tokens("target_ids", &set.target_ids)
            }
            Self::HideFeature(slot) | Self::RestoreFeature(slot) => base.check_slot(*slot),
            Self::Describe(describe) => base.check_slot(describe.slot),
            Self::SetKnn(knn) => {
                base.features_of(knn.layer)?;
                base.check_width("key", knn.key.len())?;
                base.check_tokens("target_ids", &knn.target_ids)?;
                knn.entity_ids.iter().try_for_each(|ids| base.check_tokens("entity_ids", ids))
            }
            Self::LowRank(update) => {
                let features = base.features_of(update.layer)?;
                let rank = update.rank as usize;
                base.check_width("left", update.left.len() / rank)?;
                let width = update.right.len() / rank;
                if width < features as usize {
                    return refuse("right", format!("{width} columns for {features} features"));
                }
                Ok(())
            }
            Self::DeleteKnn(_) | Self::DropLowRank { .. } => Ok(()),
        }
    }
}

/// Features that an overlay may add to a layer.
pub(super) const ADDED_MAX: u32 = 65_536;

impl BaseShape {
    fn features_of(&self, layer: u32) -> Result<u32, Problem> {
        let found = self.features.get(layer as usize).copied();
        let message = || format!("{layer} is beyond the base's {} layers", self.features.len());
        found.map_or_else(|| refuse("layer", message()), Ok)
    }

    fn check_slot(&self, slot: Slot) -> Result<(), Problem> {
        let features = self.features_of(slot.layer)?;
        let most = features.saturating_add(ADDED_MAX);
        if slot.feature < most {
            return Ok(());
        }
        let Slot { layer, feature } = slot;
        refuse("feature", format!("{feature} is beyond the {most} that layer {layer} may have"))
    }

    fn check_width(&self, what: &'static str, width: usize) -> Result<(), Problem> {
        let hidden = self.hidden as usize;
        if width == hidden {
            return Ok(());
        }
        refuse(what, format!("has {width} values, the model is {hidden} wide"))
    }

    fn check_tokens(&self, what: &'static str, tokens: &[u32]) -> Result<(), Problem> {
        match tokens.iter().find(|&&token| token >= self.vocabulary) {
            None => Ok(()),
            Some(token) => {
                refuse(what, format!("token {token} is beyond a vocabulary of {}", self.vocabulary))
            }
        }
    }
}
