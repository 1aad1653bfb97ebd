//! What is kept of a model for edits: the latest edits that were made ready for passes, and what was
//! measured of the base.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use larql_compute::browse::TokenList;
use larql_compute::cpu::{Cancel, Pool};
use larql_compute::edit::Editor;
use larql_storage::overlay::{Overlay, Vector};
use parking_lot::Mutex;

use super::applied::{Applied, Identity};
use super::background::{Background, Looks};
use super::latest::Latest;
use super::prompts::Prompter;
use super::sentences::Sentences;
use crate::failure::Failure;
use crate::mounts::Model;

/// Memory of edits that are ready for passes, beyond the latest.
const APPLIED_BYTES_MAX: usize = 256 << 20;
/// Moments that are kept, however small: those of sessions at work.
const APPLIED_MAX: usize = 256;
/// Relations whose sentences are kept.
const RELATIONS_MAX: usize = 256;

/// Edited down vectors whose output tokens are kept; more take the place of all before.
const TOKENS_MAX: usize = 8192;

/// The open model, and how often what it answers from has changed.
type Moment = (u64, u64);

/// What came of learning a relation's sentences, and when.
type Learned = (Moment, Option<Arc<Sentences>>);

/// What is kept of one model.
#[derive(Debug)]
pub struct Kept {
    applied: Latest<Identity, Applied>,
    /// With the layers and the moment of the labels that it was measured in.
    background: Mutex<Option<(Moment, Arc<Background>)>>,
    /// Output tokens of edited down vectors, by where a vector lies; each with its vector, so that nothing
    /// else comes to lie there.
    tokens: Mutex<HashMap<usize, (Vector, TokenList)>>,
    /// By relation, with the moment of the labels that they were learned in.
    sentences: Mutex<BTreeMap<String, Learned>>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            applied: Latest::new(APPLIED_BYTES_MAX, APPLIED_MAX),
            background: Mutex::default(),
            tokens: Mutex::default(),
            sentences: Mutex::default(),
        }
    }
}

impl Kept {
    /// Edits made ready for passes, as often as they are asked for.
    ///
    /// # Errors
    /// As [`Applied::new`].
    pub fn applied(
        &self,
        model: &Model,
        stored: &Overlay,
        identity: &Identity,
    ) -> Result<Arc<Applied>, Failure> {
        let make = || Applied::new(model, stored.clone(), identity.clone());
        self.applied.get(identity, Applied::bytes, make)
    }

    /// The output tokens of edited down vectors, each `[hidden]`, and the bytes that were read for them;
    /// none where the vocabulary's table is not here.
    ///
    /// # Errors
    /// When cancelled.
    pub fn output_tokens(
        &self,
        model: &Model,
        vectors: &[Vector],
        pool: &Pool,
        cancel: &Cancel,
    ) -> Result<(Vec<TokenList>, u64), Failure> {
        let place = |vector: &Vector| vector.as_ptr() as usize;
        let mut lists: Vec<Option<TokenList>> = {
            let kept = self.tokens.lock();
            vectors
                .iter()
                .map(|vector| kept.get(&place(vector)).map(|(_, list)| list.clone()))
                .collect()
        };
        let missing = vectors.iter().zip(&lists).filter(|(_, list)| list.is_none());
        let missing: Vec<Vector> = missing.map(|(vector, _)| vector.clone()).collect();
        let mut bytes = 0;
        if !missing.is_empty() {
            let numbers: Vec<f32> =
                missing.iter().flat_map(|vector| vector.iter()).copied().collect();
            let found = model.output_tokens_of(&numbers, pool, cancel)?;
            let (found, read) = found.unwrap_or_else(|| (vec![TokenList::new(); missing.len()], 0));
            bytes = read;
            let mut kept = self.tokens.lock();
            if kept.len() + missing.len() > TOKENS_MAX {
                kept.clear();
            }
            let mut found = found.into_iter();
            for (vector, list) in vectors.iter().zip(&mut lists).filter(|(_, list)| list.is_none())
            {
                let computed = found.next().unwrap_or_default();
                kept.insert(place(vector), (vector.clone(), computed.clone()));
                *list = Some(computed);
            }
        }
        Ok((lists.into_iter().map(Option::unwrap_or_default).collect(), bytes))
    }

    /// Sentences of a relation that the model understands, tried once for all edits of it.
    ///
    /// # Errors
    /// As [`Sentences::learn`].
    pub fn learn(
        &self,
        model: &Model,
        prompter: &Prompter<'_>,
        relation: &str,
        editor: &mut Editor<'_>,
    ) -> Result<(), Failure> {
        let moment = model.moment();
        let known = |kept: &Learned| kept.0 == moment;
        if !self.sentences.lock().get(relation).is_some_and(known) {
            let learned = Sentences::learn(prompter, relation, editor)?.map(Arc::new);
            let mut kept = self.sentences.lock();
            kept.retain(|_, one| known(one));
            if kept.len() >= RELATIONS_MAX {
                kept.pop_first();
            }
            kept.insert(relation.to_owned(), (moment, learned));
        }
        Ok(())
    }

    /// Sentences of a relation, where they were learned and something came of it.
    pub fn learned(&self, model: &Model, relation: &str) -> Option<Arc<Sentences>> {
        let kept = self.sentences.lock();
        let (moment, learned) = kept.get(relation)?;
        learned.clone().filter(|_| *moment == model.moment())
    }

    /// How the base behaves, measured anew when labels changed or more is asked for.
    ///
    /// # Errors
    /// As [`Background::measure`].
    pub fn background(
        &self,
        model: &Model,
        prompter: &Prompter<'_>,
        layers: &[usize],
        looks: Looks,
        pool: &Pool,
        cancel: &Cancel,
    ) -> Result<Arc<Background>, Failure> {
        let moment = model.moment();
        let (mut wanted, mut looks) = (layers.to_vec(), looks);
        if let Some((then, background)) = &*self.background.lock()
            && *then == moment
        {
            if background.has(looks)
                && layers.iter().all(|&layer| background.place(layer).is_some())
            {
                return Ok(background.clone());
            }
            wanted.extend(&background.layers);
            looks = background.with(looks);
        }
        wanted.sort_unstable();
        wanted.dedup();
        let measured = Background::measure(model, prompter, &wanted, looks, pool, cancel)?;
        let measured = Arc::new(measured);
        *self.background.lock() = Some((moment, measured.clone()));
        Ok(measured)
    }
}
