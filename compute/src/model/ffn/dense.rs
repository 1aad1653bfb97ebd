//! Every feature of every network that runs: the model as it was trained.

use std::cell::RefCell;

use super::experts::Assignment;
use super::{Ffn, FfnContext};
use crate::model::{DecodeError, Hook, Role};

/// Every feature of every network that runs: the model as it was trained.
#[derive(Debug, Clone, Copy, Default)]
pub struct DenseFfn;

thread_local! {
    /// Gate and up numbers of a block, kept between layers.
    static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Gives back what the calling thread keeps between layers.
pub(in crate::model) fn release_scratch() {
    drop(SCRATCH.take());
}

impl Ffn for DenseFfn {
    fn forward(
        &self,
        layer: usize,
        input: &[f32],
        _positions: usize,
        out: &mut [f32],
        context: &FfnContext<'_>,
        observe: Option<&mut dyn Hook>,
    ) -> Result<u64, DecodeError> {
        let assignment = Assignment::new(layer, input, context)?;
        let (mut activations, mut ups) = SCRATCH.take();
        activations.resize(assignment.activations(), 0.0);
        let mut bytes = assignment.bytes;
        for share in &assignment.shares {
            let input = assignment.input(share);
            let gate = &mut activations[share.activations()];
            bytes += context.project(assignment.key(Role::Gate, share), &input, gate)?;
            ups.clear();
            if assignment.has_up(share) {
                ups.resize(gate.len(), 0.0);
                bytes += context.project(assignment.key(Role::Up, share), &input, &mut ups)?;
            }
            assignment.activate(share, gate, &ups, context);
        }
        if let Some(hook) = observe {
            assignment.show(&mut activations, hook, context);
        }
        bytes += assignment.add_up(&activations, out, context, |share, activations, out| {
            context.project(assignment.key(Role::Down, share), activations, out)
        })?;
        SCRATCH.set((activations, ups));
        Ok(bytes)
    }
}
