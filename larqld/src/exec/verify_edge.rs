//! VERIFY EDGE: whether an edge needs its feature.
//!
//! The model is asked for the edge's object twice, once as it is and once with the feature silenced
//! at every position. What the object loses (in nats of log-probability) is compared with what it
//! loses without other features of the same layer, chosen at random: the edge is confirmed where it
//! loses more than at the 95th percentile of those.

use larql_planner::physical::plan;
use larql_planner::value::Value;

use super::{Operator, Row, Work};
use crate::failure::{Failure, code};
use crate::knowledge::Source;
use crate::knowledge::answer::{fill, is_same};
use crate::knowledge::evidence::{Question, gather};
use crate::knowledge::prober::Prober;
use crate::mounts::Model;

/// Random features that a loss is compared with.
const RANDOM_FEATURES: usize = 100;
/// The part of them whose loss must be less.
const PERCENTILE: f64 = 0.95;

/// Measures once and gives one row.
pub(super) struct VerifyEdge {
    edge: Option<plan::VerifyEdge>,
}

impl VerifyEdge {
    pub(super) fn new(edge: plan::VerifyEdge) -> Self {
        Self { edge: Some(edge) }
    }
}

/// What is measured: a prompt, what follows it, and the object that this stands for.
struct Asked {
    prompt: Vec<u32>,
    token: u32,
    target: String,
}

impl Operator for VerifyEdge {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(edge) = self.edge.take() else { return Ok(None) };
        let entity = edge.entity.clone().unwrap_or_default();
        let model = work.model()?;
        let mut prober = Prober::new(&model, work.engine().pool(), work.cancel)?;
        let asked = ask(work, &model, &mut prober, &entity, &edge)?;
        let (layer, feature) = match edge.slot {
            Some(slot) => slot,
            None => slot(work, &model, &mut prober, &entity, &edge, &asked)?,
        };
        let mut sets = vec![vec![(layer, feature)]];
        sets.extend(others(&model, layer, feature).map(|other| vec![(layer, other)]));
        let (before, losses) = prober.losses(&asked.prompt, asked.token, &sets)?;
        work.touch_passes(prober.meters());
        let (loss, mut random) = (losses[0], losses[1..].to_vec());
        random.sort_by(f64::total_cmp);
        let at = (random.len() as f64 * PERCENTILE) as usize;
        let at_random = random.get(at.min(random.len().saturating_sub(1))).copied();
        Ok(Some(vec![vec![
            Value::text(entity),
            edge.relation.map_or(Value::Null, Value::text),
            Value::text(asked.target),
            Value::Integer(layer.into()),
            Value::Integer(feature.into()),
            Value::Real(before.exp()),
            Value::Real((before - loss).exp()),
            Value::Real(loss),
            at_random.map_or(Value::Null, Value::Real),
            at_random.map_or(Value::Null, |other| Value::Boolean(loss > other)),
        ]]))
    }
}

/// The prompt of an edge: the relation's sentence for the entity, as far as the object.
fn ask(
    work: &Work<'_>,
    model: &Model,
    prober: &mut Prober<'_>,
    entity: &str,
    edge: &plan::VerifyEdge,
) -> Result<Asked, Failure> {
    let unanswered = |what: String| {
        Failure::new(code::UNDEFINED_OBJECT, what).hint(
            "SHOW RELATIONS lists what labels know; give target = '…' to check another object",
        )
    };
    let too_long = || Failure::new(code::LIMIT, "the entity's name is too long or has no token");
    let Some(relation) = &edge.relation else {
        let target = edge.target.clone().unwrap_or_default();
        let prompt = prober.tokens(entity)?.ok_or_else(too_long)?;
        let token = crate::inference::named_token(model, &target)?;
        if let Some(notice) = token.notice {
            work.notice(notice, "")?;
        }
        return Ok(Asked { prompt, token: token.id, target });
    };
    let knowledge = model.knowledge();
    let known = knowledge.as_ref().and_then(|known| Some((known, known.relation_index(relation)?)));
    let Some((knowledge, index)) = known else {
        return Err(unanswered(format!("no label says how to ask for {relation:?}")));
    };
    let relations = &knowledge.file().relations;
    let question = Question { entity, relation: index, applicability: 1.0 };
    let found = gather(prober, relations, &[question])?.remove(0);
    match (&edge.target, found) {
        (None, Some(found)) => {
            Ok(Asked { prompt: found.prompt, token: found.token, target: found.target })
        }
        (Some(target), Some(found)) if is_same(target, &found.target) => {
            Ok(Asked { prompt: found.prompt, token: found.token, target: found.target })
        }
        (None, None) => {
            Err(unanswered(format!("the model has no {relation} of {entity:?} to say")))
        }
        (Some(target), _) => {
            let template = relations[index].templates.first();
            let template = template.ok_or_else(|| unanswered("no sentence is known".to_owned()))?;
            let prompt = prober.tokens(&fill(&template.text, entity))?.ok_or_else(too_long)?;
            let token = prober.first_token(target)?.ok_or_else(too_long)?;
            Ok(Asked { prompt, token, target: target.clone() })
        }
    }
}

/// The feature that DESCRIBE shows with the edge, or the one that costs it most.
fn slot(
    work: &mut Work<'_>,
    model: &Model,
    prober: &mut Prober<'_>,
    entity: &str,
    edge: &plan::VerifyEdge,
    asked: &Asked,
) -> Result<(u32, u32), Failure> {
    if let (Some(knowledge), Some(relation)) = (model.knowledge(), &edge.relation) {
        let edges = work.ask(model, &knowledge, Source::Probe, entity)?;
        let of_edge = edges.iter().find(|known| {
            knowledge.relation(known.relation).is_some_and(|name| is_same(name, relation))
                && is_same(&known.target, &asked.target)
        });
        if let Some(known) = of_edge {
            return Ok((known.layer, known.feature));
        }
    }
    let behind = prober.features_behind(&[(&asked.prompt, asked.token)])?;
    behind.iter().flatten().next().map(|one| (one.layer, one.feature)).ok_or_else(|| {
        Failure::new(code::UNDEFINED_OBJECT, "no feature has a share in that object")
            .hint("name one: AND layer = … AND feature = …")
    })
}

/// Other features of a layer, the same for the same feature, spread by a fixed permutation.
fn others(model: &Model, layer: u32, feature: u32) -> impl Iterator<Item = u32> + use<> {
    let count = model.features(layer);
    // Knuth's multiplicative hash, which visits each residue once where the multiplier is coprime.
    let place = move |index: u64| (u64::from(feature) + (index + 1) * 2_654_435_761) % count.max(1);
    let wanted = RANDOM_FEATURES.min(count.saturating_sub(1) as usize);
    (0..count)
        .map(move |index| place(index) as u32)
        .filter(move |&other| other != feature)
        .take(wanted)
}
