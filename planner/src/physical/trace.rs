//! Operands of the statements that trace a run of the model.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use super::plan::FfnPath;
use crate::layers::LayerSet;

/// Operands of [`Operator::Trace`](super::plan::Operator::Trace). Rows: by position ascending, within a
/// position by layer ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The prompt, tokenised with special tokens.
    pub prompt: Arc<str>,
    /// The prompt whose numbers are taken off, in an answer of differences.
    pub other: Option<Arc<str>>,
    /// The token that is followed; `None` for the one that the model predicts at each position.
    pub target: Option<Arc<str>>,
    /// Add a row for what enters layer 0, so that all parts of the logit are there.
    pub decompose: bool,
    /// Which layers have rows.
    pub layers: LayerSet,
    /// All positions, else the last.
    pub all_positions: bool,
    /// Keep the run in a file.
    pub save: Option<TraceSave>,
    /// How the feed-forward part is computed.
    pub ffn: FfnPath,
}

/// A file that keeps a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSave {
    /// The path as written.
    pub path: String,
    /// What it holds.
    pub format: TraceFormat,
}

/// What a file keeps of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceFormat {
    /// Every position and layer.
    Chain,
    /// The stream at the end of each window.
    Boundaries {
        /// Positions of a window; `None` for all of them.
        window: Option<u64>,
    },
    /// That, and what some layers added.
    Context {
        /// Positions of a window; `None` for all of them.
        window: Option<u64>,
        /// The layers, at most eight, each below 256.
        critical: Vec<u8>,
        /// What their attention added too, not their networks alone.
        attention: bool,
    },
}

impl Display for TraceFormat {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let windows = |formatter: &mut Formatter<'_>, window: &Option<u64>| match window {
            Some(window) => write!(formatter, " of windows of {window}"),
            None => Ok(()),
        };
        match self {
            Self::Chain => formatter.write_str("chain"),
            Self::Boundaries { window } => {
                formatter.write_str("boundaries")?;
                windows(formatter, window)
            }
            Self::Context { window, critical, attention } => {
                formatter.write_str("context")?;
                windows(formatter, window)?;
                for (index, layer) in critical.iter().enumerate() {
                    let word = if index == 0 { " with layers" } else { "" };
                    write!(formatter, "{word} {layer}")?;
                }
                formatter.write_str(if *attention { " and their attention" } else { "" })
            }
        }
    }
}
