//! In which type and layout each weight is written.
//!
//! Without QUANT every weight is written in the type asked for; `source` means as it lies in the
//! checkpoint, scales beside it included, bit for bit. With QUANT the matrices of [`QUANTISED`] get
//! its block formats, other matrices the type asked for, and what is small (vectors, routers) keeps
//! its own numbers, because rounding it would save nothing.

use larql_compute::model::{Orientation, Role};
use larql_compute::quant::Dtype;
use larql_planner::physical::plan::{ExtractDtype, Quantisation};
use larql_storage::vindex::Layout;

use super::Job;
use super::survey::survey;
use crate::failure::Failure;
use crate::pipeline::rows::Rows;
use crate::source::{Resolved, ScalesLayout};

/// How a weight is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) dtype: Dtype,
    pub(super) layout: Layout,
    /// The checkpoint's bytes are taken as they are, row by row, with their scales.
    pub(super) kept: bool,
}

/// The block formats that some roles get.
struct QuantisedRoles {
    roles: &'static [Role],
    q4k: Dtype,
    /// `None` where FP4 and FP8 leave a matrix in the plain type.
    fp4: Option<Dtype>,
    fp8: Option<Dtype>,
}

/// The matrices that QUANT quantises. Q8_0 is one format for all of them.
const QUANTISED: &[QuantisedRoles] = &[
    QuantisedRoles {
        roles: &[Role::Gate, Role::Up],
        q4k: Dtype::Q4K,
        fp4: Some(Dtype::Fp4),
        fp8: Some(Dtype::Fp8),
    },
    QuantisedRoles {
        roles: &[Role::Down],
        q4k: Dtype::Q6K,
        fp4: Some(Dtype::Fp8),
        fp8: Some(Dtype::Fp8),
    },
    QuantisedRoles {
        roles: &[Role::Query, Role::QueryDown, Role::QueryUp, Role::Key, Role::Output],
        q4k: Dtype::Q4K,
        fp4: None,
        fp8: None,
    },
    // What is added to the stream without a softmax in between, and the tables of tokens.
    QuantisedRoles {
        roles: &[
            Role::Value,
            Role::KvDown,
            Role::KvUp,
            Role::Embedding,
            Role::PerLayerEmbedding,
            Role::Unembedding,
        ],
        q4k: Dtype::Q6K,
        fp4: None,
        fp8: None,
    },
];

/// Matrices so small beside the others that QUANT keeps their numbers.
const SMALL: &[Role] = &[Role::Router, Role::SharedExpertGate];

/// The block format that a quantisation gives a role's matrix, if it does.
///
/// `value_is_key`: keys serve as values too, and are kept as well as values are.
fn block_format(quantisation: Quantisation, role: Role, value_is_key: bool) -> Option<Dtype> {
    let role = if role == Role::Key && value_is_key { Role::Value } else { role };
    let quantised = QUANTISED.iter().find(|quantised| quantised.roles.contains(&role))?;
    match quantisation {
        Quantisation::Q4K { down_q4k: true } if role == Role::Down => Some(Dtype::Q4K),
        Quantisation::Q4K { .. } => Some(quantised.q4k),
        Quantisation::Q8_0 => Some(Dtype::Q8_0),
        Quantisation::Fp4 => quantised.fp4,
        Quantisation::Fp8 => quantised.fp8,
    }
}

impl Job<'_> {
    /// Decides how a weight is written; what a user should know about it becomes a note.
    pub(super) fn format(&mut self, weight: &Resolved) -> Result<Format, Failure> {
        let source = weight.stored.dtype;
        // What holds the numbers of the source, whatever their format.
        let own = if source.is_plain() { source } else { Dtype::F32 };
        let wanted = self.wanted(weight, own);
        let name = self.model.name(weight);
        let numbers = survey(self.pool, self.model, weight, self.cancel)?;
        if numbers.not_finite > 0 {
            let count = numbers.not_finite;
            self.notes.push(format!("{name} has {count} values that are not finite"));
        }
        let overflows = wanted == Dtype::F16 && source != Dtype::F16 && numbers.overflow_f16;
        if overflows {
            let (tag, verb) = (tag(own), if own == source { "stays" } else { "becomes" });
            self.notes.push(format!("{name} {verb} {tag}: f16 cannot hold its values"));
        }
        if numbers.offset_rounds && self.options.dtype == ExtractDtype::Source {
            self.notes.push(format!(
                "{name} holds numbers that lose their last bits when the offset of its norm is taken away"
            ));
        }
        let layout = match weight.key.role {
            Role::Down => Layout::FeatureMajor,
            _ => Layout::RowMajor,
        };
        if wanted == source && !source.is_plain() {
            if self.is_keepable(weight)? {
                return Ok(Format { dtype: source, layout: Layout::RowMajor, kept: true });
            }
            // Numbers encoded anew have no scales beside them to bring them into the format's range.
            if !source.can_encode() || weight.stored.scales != ScalesLayout::None {
                self.notes.push(format!(
                    "{name} becomes f32: a part of it cannot be kept in the format {}",
                    tag(source)
                ));
                return Ok(Format { dtype: Dtype::F32, layout, kept: false });
            }
        }
        Ok(Format { dtype: if overflows { own } else { wanted }, layout, kept: false })
    }

    fn wanted(&self, weight: &Resolved, own: Dtype) -> Dtype {
        let role = weight.key.role;
        if let Some(quantisation) = self.options.quantisation {
            if weight.is_vector() || SMALL.contains(&role) {
                return own;
            }
            let layer = weight.key.layer.map(|layer| layer as usize);
            let attention = layer.map(|layer| &self.model.architecture().layer(layer).attention);
            let value_is_key = attention.is_some_and(|attention| attention.value_is_key);
            if let Some(block) = block_format(quantisation, role, value_is_key) {
                return block;
            }
        }
        match self.options.dtype {
            ExtractDtype::F16 => Dtype::F16,
            ExtractDtype::F32 => Dtype::F32,
            ExtractDtype::Source if weight.is_vector() => own,
            ExtractDtype::Source => weight.stored.dtype,
        }
    }

    /// Whether the rows of a matrix can be taken as they lie, with their scales.
    fn is_keepable(&self, weight: &Resolved) -> Result<bool, Failure> {
        if weight.is_vector() {
            return Ok(false);
        }
        let rows = Rows::of(self.model, weight, Orientation::OutIn)?;
        Ok(rows.are_stored_rows()
            && match weight.stored.scales {
                ScalesLayout::None | ScalesLayout::Groups { .. } | ScalesLayout::Mx => true,
                // A tile covers rows that need not be of one part.
                ScalesLayout::Grid { .. } => weight.is_whole(),
            })
    }
}

/// The tag of a type in manifests.
pub(super) fn tag(dtype: Dtype) -> String {
    dtype.tag().to_lowercase()
}
