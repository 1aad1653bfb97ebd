//! DELETE and UPDATE of the edges that were chosen.

use std::collections::HashSet;

use larql_compute::model::{Role, feature_row};
use larql_planner::physical::edit::Assignments;
use larql_planner::syntax::ast::Harm;
use larql_storage::overlay::{
    DeleteKnn, Describe, Fact, LowRank, Mode, Operation, Overlay, SetFeature, SetKnn, Stating,
    Vector,
};

use super::super::{Row, Work};
use super::chosen::{Chosen, Edited, Feature};
use super::receipts::{Changed, of_feature};
use super::{Known, OtherChanges, finish, maker, store, taken_back};
use crate::editing::background::Looks;
use crate::editing::layers;
use crate::editing::making::Manner;
use crate::editing::prompts::Prompter;
use crate::editing::stated::{is_same_pair, pair};
use crate::failure::{Failure, code};
use crate::knowledge::prober::Prober;
use crate::mounts::Model;

/// Facts whose vectors one statement finds at most.
const FACTS_MAX: usize = 1000;
/// Features of one statement whose change is measured.
const FEATURES_MEASURED: usize = 16;

fn nothing(work: &Work<'_>) -> Result<Vec<Row>, Failure> {
    let hint = "SELECT … FROM EDGES with the same WHERE shows what there is";
    work.notice("no edge is like that; nothing was changed", hint)?;
    Ok(Vec::new())
}

fn too_many(count: usize) -> Result<(), Failure> {
    if count <= FACTS_MAX {
        return Ok(());
    }
    let message = format!("{count} facts would be changed, and one statement changes {FACTS_MAX}");
    Err(Failure::new(code::LIMIT, message).hint("narrow the condition"))
}

/// Takes edits back, speaks against what the base answers, and hides features.
pub(super) fn delete(
    work: &mut Work<'_>,
    chosen: &Chosen,
    harm: Option<Harm>,
) -> Result<Vec<Row>, Failure> {
    if chosen.is_empty() {
        return nothing(work);
    }
    too_many(chosen.known.len())?;
    let model = work.model()?;
    let earlier = work.view().overlay().clone();
    let knowledge = model.knowledge();
    let prompter = Prompter::new(&model, knowledge.as_deref());
    let asked = |fact: &Fact| -> Result<_, Failure> {
        let target = prompter.answer_tokens(&fact.target)?.first().copied();
        Ok(Some(prompter.of(&fact.entity, &fact.relation)?).zip(target))
    };
    let (mut operations, mut made) = (Vec::new(), Vec::new());
    for edited in &chosen.edited {
        operations.extend(edited.slots.iter().map(|&slot| Operation::RestoreFeature(slot)));
        if edited.mode == Mode::Knn {
            operations.push(Operation::DeleteKnn(DeleteKnn::of(&edited.fact)));
        }
        made.push(Changed::of(&edited.fact, edited.mode, asked(&edited.fact)?));
    }
    let is_asked = |fact: &Fact| {
        chosen.edited.iter().any(|edited| edited.mode == Mode::Memit && edited.fact == *fact)
    };
    let taken = taken_back::of_updates(&earlier, &is_asked);
    for (index, feature) in chosen.features.iter().enumerate() {
        let operation = match feature.is_edited {
            true => Operation::RestoreFeature(feature.slot),
            false => Operation::HideFeature(feature.slot),
        };
        operations.push(operation.clone());
        made.push(of_row(&model, &prompter, feature, operation, index < FEATURES_MEASURED)?);
    }
    let mut stored = earlier.clone();
    if chosen.known.is_empty() && !taken.restates() {
        operations.extend(taken.into_operations());
        operations.iter().for_each(|operation| stored.apply(operation, u64::MAX));
        return finish(work, &model, (&earlier, &stored), operations, &made, harm);
    }
    let layers = layers::of_weights(model.architecture());
    let looked_at: Vec<usize> = layers.iter().copied().chain(taken.layers()).collect();
    let looks = Looks { activations: taken.restates(), elsewhere: !chosen.known.is_empty() };
    let mut maker = maker(work, &model, knowledge.as_deref(), &looked_at, looks)?;
    operations.extend(taken.operations(&mut maker, &earlier)?);
    operations.iter().for_each(|operation| stored.apply(operation, u64::MAX));
    for fact in &chosen.known {
        work.cancel.check()?;
        let asked = asked(fact)?;
        let Some((prompts, _)) = &asked else { continue };
        let named = [&*fact.entity, &*fact.relation, &*fact.target];
        let against = maker.against(named, &layers, prompts, &stored)?;
        against.iter().for_each(|operation| stored.apply(operation, u64::MAX));
        operations.extend(against.iter().cloned());
        made.push(Changed { operations: against, ..Changed::of(fact, Mode::Compose, asked) });
    }
    drop(maker);
    finish(work, &model, (&earlier, &stored), operations, &made, harm)
}

/// Gives edges another target, another confidence, or both.
pub(super) fn update(
    work: &mut Work<'_>,
    chosen: &Chosen,
    set: Assignments,
    harm: Option<Harm>,
) -> Result<Vec<Row>, Failure> {
    if chosen.is_empty() {
        return nothing(work);
    }
    match &set.target {
        Some(target) if target.is_empty() => {
            Err(Failure::new(code::INVALID_PARAMETER, "a target is a text that is not NULL")
                .hint("SET target = 'Lyon'"))
        }
        Some(target) => retarget(work, chosen, target, set.confidence, harm),
        None => judge(work, chosen, set.confidence.unwrap_or_default() as f32, harm),
    }
}

fn retarget(
    work: &mut Work<'_>,
    chosen: &Chosen,
    target: &str,
    confidence: Option<f64>,
    harm: Option<Harm>,
) -> Result<Vec<Row>, Failure> {
    let stored = work.view().overlay().clone();
    let (mut known, mut told) = (Vec::<Known>::new(), HashSet::new());
    let edited = chosen.edited.iter().map(|edited| (&edited.fact, manner_of(&stored, edited)));
    let of_base = chosen.known.iter().map(|fact| (fact, Manner::of(Mode::Knn)));
    for (fact, mut manner) in edited.chain(of_base) {
        if told.insert(pair(&fact.entity, &fact.relation)) {
            manner.confidence = confidence.map_or(manner.confidence, |given| Some(given as f32));
            let fact = Fact { target: target.to_owned(), ..fact.clone() };
            match known.iter_mut().find(|one| one.manner == manner) {
                Some(alike) => alike.facts.push(fact),
                None => known.push(Known { facts: vec![fact], manner }),
            }
        }
    }
    too_many(told.len())?;
    let model = work.model()?;
    let knowledge = model.knowledge();
    let prompter = Prompter::new(&model, knowledge.as_deref());
    let mut other = OtherChanges::default();
    let ids = prompter.answer_tokens(target)?;
    for (index, feature) in chosen.features.iter().enumerate() {
        let operation = Operation::SetFeature(SetFeature {
            slot: feature.slot,
            gate: None,
            up: None,
            down: Some(pointed(work, &model, &stored, feature, ids[0])?),
            entity: None,
            relation: None,
            target: Some(target.to_owned()),
            target_ids: ids.clone(),
            confidence: confidence.map(|confidence| confidence as f32),
            mode: Mode::Rows,
        });
        other.operations.push(operation.clone());
        let changed = Feature { target: Some(target.to_owned()), ..feature.clone() };
        let measured = index < FEATURES_MEASURED;
        other.made.push(of_row(&model, &prompter, &changed, operation, measured)?);
    }
    if known.is_empty() {
        let mut after = stored.clone();
        other.operations.iter().for_each(|operation| after.apply(operation, u64::MAX));
        return finish(work, &model, (&stored, &after), other.operations, &other.made, harm);
    }
    store(work, &known, other, harm)
}

/// How an edit was made, so that it can be made anew.
fn manner_of(stored: &Overlay, edited: &Edited) -> Manner {
    let fact = &edited.fact;
    let mode = if edited.mode == Mode::Rows { Mode::Compose } else { edited.mode };
    let says = stored.statements().filter(|one| {
        let is_kind = match one.by {
            Stating::Feature(_) => mode == Mode::Compose,
            Stating::Update(_) => mode == Mode::Memit,
            Stating::Knn => mode == Mode::Knn,
        };
        is_kind && is_same_pair((one.entity, one.relation), (&fact.entity, &fact.relation))
    });
    let (mut layers, mut confidence) = (Vec::new(), None);
    for one in says {
        layers.push(one.layer as usize);
        confidence = confidence.or(one.confidence);
    }
    layers.sort_unstable();
    layers.dedup();
    let layers = (!layers.is_empty()).then_some(layers);
    Manner { mode, layers, alpha: 1.0, confidence }
}

/// A feature's down vector, as long as it is, towards a token.
fn pointed(
    work: &Work<'_>,
    model: &Model,
    stored: &Overlay,
    feature: &Feature,
    token: u32,
) -> Result<Vector, Failure> {
    let slot = feature.slot;
    let edited = stored.feature(slot).and_then(|delta| delta.down.clone());
    let (layer, number) = (slot.layer as usize, slot.feature as usize);
    let down: Vec<f32> = match edited {
        Some(down) => down.to_vec(),
        None => feature_row(model.architecture(), model, Role::Down, layer, number)
            .map_err(|error| Failure::new(code::MISSING_COMPONENT, error.to_string()))?,
    };
    let prober = Prober::new(model, work.engine().pool(), work.cancel)?;
    let towards = prober.unembedding_row(token)?;
    let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    let (long, unit) = (length(&down), length(&towards));
    if long == 0.0 || unit == 0.0 {
        let message =
            format!("feature {number} of layer {layer} adds nothing, whatever its target");
        return Err(Failure::new(code::INVALID_PARAMETER, message)
            .hint("INSERT … MODE COMPOSE makes a fact known with a feature of its own"));
    }
    Ok(towards.iter().map(|x| x * long / unit).collect())
}

/// Gives edges another confidence, and changes nothing that is computed.
fn judge(
    work: &mut Work<'_>,
    chosen: &Chosen,
    confidence: f32,
    harm: Option<Harm>,
) -> Result<Vec<Row>, Failure> {
    let stored = work.view().overlay().clone();
    let model = work.model()?;
    let (mut operations, mut made) = (Vec::new(), Vec::new());
    let describe = |slot| {
        let confidence = Some(confidence);
        Operation::Describe(Describe { slot, relation: None, target: None, confidence })
    };
    for edited in &chosen.edited {
        let fact = &edited.fact;
        let mut own: Vec<Operation> = edited.slots.iter().map(|&slot| describe(slot)).collect();
        if let Some(knn) = stored.fact(&fact.entity, &fact.relation)
            && edited.mode == Mode::Knn
        {
            let confidence = Some(confidence);
            own.push(Operation::SetKnn(SetKnn { confidence, ..knn.set.clone() }));
        }
        if edited.mode == Mode::Memit {
            let updates = stored.low_rank().map(|delta| &delta.update);
            for update in updates.filter(|update| update.facts.contains(fact)) {
                if update.facts.len() > 1 {
                    let message = format!(
                        "{:?} of {:?} is stated together with other facts, by an update of all of them",
                        fact.relation, fact.entity
                    );
                    return Err(Failure::new(code::INVALID_PARAMETER, message)
                        .hint("INSERT it again with the CONFIDENCE that it is to have"));
                }
                own.push(Operation::LowRank(LowRank {
                    confidence: Some(confidence),
                    ..update.clone()
                }));
            }
        }
        operations.extend(own.iter().cloned());
        made.push(Changed { operations: own, ..Changed::of(fact, edited.mode, None) });
    }
    if let Some(fact) = chosen.known.first() {
        let message = format!(
            "the confidence of {:?} of {:?} was measured by LABEL",
            fact.relation, fact.entity
        );
        return Err(Failure::new(code::INVALID_PARAMETER, message)
            .hint("AND source = 'patch' leaves what was measured alone"));
    }
    for feature in &chosen.features {
        let operation = describe(feature.slot);
        operations.push(operation.clone());
        made.push(Changed {
            entity: feature.entity.clone(),
            relation: feature.relation.clone(),
            target: feature.target.clone(),
            mode: Mode::Rows,
            asked: None,
            operations: vec![operation],
        });
    }
    finish(work, &model, (&stored, &stored), operations, &made, harm)
}

/// The change of a feature, as its row tells it.
fn of_row(
    model: &Model,
    prompter: &Prompter<'_>,
    feature: &Feature,
    operation: Operation,
    measured: bool,
) -> Result<Changed, Failure> {
    let target = feature.target.as_deref().unwrap_or("the");
    let text = format!("The name of {}", feature.entity.as_deref().unwrap_or(target));
    let asked = match measured {
        true => of_feature(model, prompter, feature.slot, (&text, target))?,
        false => None,
    };
    Ok(Changed {
        entity: feature.entity.clone(),
        relation: feature.relation.clone(),
        target: feature.target.clone(),
        mode: Mode::Rows,
        asked,
        operations: vec![operation],
    })
}
