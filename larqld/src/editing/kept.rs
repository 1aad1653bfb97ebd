//! What is kept of a model for edits: the latest edits that were made ready for passes, and what was
//! measured of the base.

use std::collections::VecDeque;
use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_storage::overlay::Overlay;
use parking_lot::Mutex;

use super::applied::{Applied, Identity};
use super::background::Background;
use super::prompts::Prompter;
use crate::failure::Failure;
use crate::mounts::Model;

/// Moments that are kept: those of sessions at work.
const APPLIED_MAX: usize = 8;

/// The open model, and how often what it answers from has changed.
type Moment = (u64, u64);

/// What is kept of one model.
#[derive(Debug, Default)]
pub struct Kept {
    applied: Mutex<VecDeque<Arc<Applied>>>,
    /// With the layers and the moment of the labels that it was measured in.
    background: Mutex<Option<(Moment, Arc<Background>)>>,
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
        let mut kept = self.applied.lock();
        if let Some(found) = kept.iter().find(|applied| applied.identity == *identity) {
            return Ok(found.clone());
        }
        let applied = Arc::new(Applied::new(model, stored.clone(), identity.clone())?);
        if kept.len() >= APPLIED_MAX {
            kept.pop_front();
        }
        kept.push_back(applied.clone());
        Ok(applied)
    }

    /// How the base behaves, measured anew when labels changed or other layers are asked for.
    ///
    /// # Errors
    /// As [`Background::measure`].
    pub fn background(
        &self,
        model: &Model,
        prompter: &Prompter<'_>,
        layers: &[usize],
        activations: bool,
        pool: &Pool,
        cancel: &Cancel,
    ) -> Result<Arc<Background>, Failure> {
        let moment = model.moment();
        let mut wanted = layers.to_vec();
        if let Some((then, background)) = &*self.background.lock()
            && *then == moment
        {
            let knows = !activations || !background.preserved.is_empty();
            if knows && layers.iter().all(|&layer| background.place(layer).is_some()) {
                return Ok(background.clone());
            }
            wanted.extend(&background.layers);
        }
        wanted.sort_unstable();
        wanted.dedup();
        let measured = Background::measure(model, prompter, &wanted, activations, pool, cancel)?;
        let measured = Arc::new(measured);
        *self.background.lock() = Some((moment, measured.clone()));
        Ok(measured)
    }
}
