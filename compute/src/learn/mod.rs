//! Small statistical models that are learned from a model's own numbers: linear readouts of its
//! residual stream, calibrated probabilities, and how far those can be believed.
//!
//! Promises: the same samples in the same order give the same bits, whatever the pool; nothing is
//! drawn at random. Samples come from outside, so every result is finite or refused.
//!
//! Elsewhere: what the samples are and what is done with the answers (`larqld/src/knowledge`,
//! `larqld/src/pipeline/label`).

mod calibration;
mod logistic;
mod readout;

pub use calibration::{expected_calibration_error, log_probability, wilson_lower};
pub use logistic::Logistic;
pub use readout::LinearReadout;
