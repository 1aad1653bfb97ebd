//! Why a statement that parsed cannot be planned.

use crate::catalog::Component;
use crate::settings::SettingError;
use crate::syntax::Span;

/// Why a statement could not be bound.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The session uses nothing.
    #[error("no vindex is in use")]
    NothingInUse,
    /// No mount has that name.
    #[error("nothing is mounted as \"{name}\"")]
    UnknownMount {
        /// As written.
        name: String,
        /// Where.
        span: Span,
    },
    /// The mount lacks what the statement reads.
    #[error("{mount} has no {missing}: it is {state}", missing = component.words())]
    MissingComponent {
        /// The mount's name.
        mount: String,
        /// What it is, in words.
        state: String,
        /// What is missing.
        component: Component,
        /// The EXTRACT that adds it.
        extract: String,
    },
    /// The mount declares no bands.
    #[error("{mount} declares no layer bands")]
    NoBands {
        /// The mount's name.
        mount: String,
        /// How many layers it has.
        layers: u32,
    },
    /// A layer beyond the last.
    #[error("layer {layer} is out of range: {mount} has layers 0 to {last}", last = layers.saturating_sub(1))]
    LayerOutOfRange {
        /// As written.
        layer: u32,
        /// The mount's name.
        mount: String,
        /// How many layers it has.
        layers: u32,
        /// Where.
        span: Span,
    },
    /// The mount has no layer at all.
    #[error("{mount} has no layers")]
    NoLayers {
        /// The mount's name.
        mount: String,
    },
    /// No source of rows has that name.
    #[error("there is no table \"{name}\"")]
    UnknownTable {
        /// As written.
        name: String,
        /// What may have been meant.
        nearest: Option<&'static str>,
        /// Where.
        span: Span,
    },
    /// No column has that name.
    #[error("there is no column \"{name}\" in {table}")]
    UnknownColumn {
        /// As written.
        name: String,
        /// Where it was looked for.
        table: String,
        /// What may have been meant.
        nearest: Option<String>,
        /// Every column there is.
        columns: String,
        /// Where.
        span: Span,
    },
    /// No function has that name.
    #[error("there is no function \"{name}\"")]
    UnknownFunction {
        /// As written.
        name: String,
        /// What may have been meant.
        nearest: Option<&'static str>,
        /// Where.
        span: Span,
    },
    /// A function called with another number of arguments.
    #[error("{name} takes {expected} argument(s), found {found}")]
    ArgumentCount {
        /// The function.
        name: &'static str,
        /// As many as it takes.
        expected: usize,
        /// As many as written.
        found: usize,
        /// Where.
        span: Span,
    },
    /// Types that do not go together.
    #[error("{what}")]
    TypeMismatch {
        /// Which types, and where they meet.
        what: String,
        /// Where.
        span: Span,
    },
    /// A count of zero where at least one is needed.
    #[error("{what}")]
    Meaningless {
        /// What has no meaning.
        what: String,
        /// Where.
        span: Option<Span>,
        /// What to write instead.
        hint: String,
    },
    /// A setting was refused.
    #[error("{source}")]
    Setting {
        /// Why.
        source: SettingError,
        /// Where.
        span: Span,
    },
}

impl BindError {
    /// Five characters, after SQLSTATE.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NothingInUse => "3F000",
            Self::MissingComponent { .. } | Self::NoBands { .. } | Self::NoLayers { .. } => "55000",
            Self::LayerOutOfRange { .. } => "22023",
            Self::UnknownTable { .. } => "42P01",
            Self::UnknownColumn { .. } => "42703",
            Self::UnknownFunction { .. } | Self::ArgumentCount { .. } => "42883",
            Self::TypeMismatch { .. } => "42804",
            Self::Meaningless { .. } => "42601",
            Self::UnknownMount { .. }
            | Self::Setting { source: SettingError::Unknown { .. }, .. } => "42704",
            Self::Setting { .. } => "22023",
        }
    }

    /// Where in the script, if the error has a place.
    pub fn span(&self) -> Option<Span> {
        match self {
            Self::NothingInUse
            | Self::MissingComponent { .. }
            | Self::NoBands { .. }
            | Self::NoLayers { .. } => None,
            Self::UnknownMount { span, .. }
            | Self::LayerOutOfRange { span, .. }
            | Self::UnknownTable { span, .. }
            | Self::UnknownColumn { span, .. }
            | Self::UnknownFunction { span, .. }
            | Self::ArgumentCount { span, .. }
            | Self::TypeMismatch { span, .. }
            | Self::Setting { span, .. } => Some(*span),
            Self::Meaningless { span, .. } => *span,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let meant = |name: &str| Some(format!("did you mean {name}?"));
        match self {
            Self::NothingInUse => {
                Some("USE \"name\"; SHOW MOUNTS lists what is mounted".to_owned())
            }
            Self::UnknownMount { .. } => Some("SHOW MOUNTS lists what is mounted".to_owned()),
            Self::MissingComponent { extract, .. } => Some(extract.clone()),
            Self::NoBands { layers, .. } => {
                Some(format!("write ALL LAYERS, or AT LAYER 0 to {}", layers.saturating_sub(1)))
            }
            Self::LayerOutOfRange { .. } | Self::ArgumentCount { .. } => None,
            Self::NoLayers { .. } => Some("EXTRACT the model again".to_owned()),
            Self::UnknownTable { nearest: Some(name), .. }
            | Self::UnknownFunction { nearest: Some(name), .. } => meant(name),
            Self::UnknownTable { .. } => Some("tables are EDGES, FEATURES and ENTITIES".to_owned()),
            Self::UnknownColumn { nearest: Some(name), .. } => meant(name),
            Self::UnknownColumn { columns, .. } => Some(format!("columns are {columns}")),
            Self::UnknownFunction { .. } => Some(format!(
                "functions are {}",
                crate::bind::expression::Function::ALL.map(|function| function.name()).join(", ")
            )),
            Self::TypeMismatch { .. } => None,
            Self::Meaningless { hint, .. } => Some(hint.clone()),
            Self::Setting { source: SettingError::Unknown { nearest: Some(name), .. }, .. } => {
                meant(name)
            }
            Self::Setting { .. } => Some("SHOW ALL lists the settings".to_owned()),
        }
    }
}
