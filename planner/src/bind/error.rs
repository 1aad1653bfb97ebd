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
        nearest: Option<String>,
        /// Every table there is.
        tables: String,
        /// Where.
        span: Span,
    },
    /// A table that is there and cannot be read.
    #[error("the table \"{name}\" cannot be read: {reason}")]
    UnreadableTable {
        /// As written.
        name: String,
        /// Why.
        reason: String,
        /// Where.
        span: Span,
    },
    /// Two sources of rows go by one name.
    #[error("two sources of rows are called \"{name}\"")]
    DuplicateTable {
        /// Their name.
        name: String,
        /// Where the second stands.
        span: Span,
    },
    /// A name that several columns have.
    #[error("the column \"{name}\" is {tables}")]
    AmbiguousColumn {
        /// As written.
        name: String,
        /// Where the columns are, in words.
        tables: String,
        /// Where.
        span: Span,
    },
    /// A column where there is nothing to read columns from.
    #[error("there is no FROM that has a column \"{name}\"")]
    NoColumns {
        /// As written.
        name: String,
        /// Where.
        span: Span,
    },
    /// A column that is no key where rows are grouped.
    #[error("\"{name}\" is neither in GROUP BY nor in an aggregate")]
    Ungrouped {
        /// As written.
        name: String,
        /// Where.
        span: Span,
    },
    /// An aggregate where there are no groups.
    #[error("the aggregate {name} cannot stand in WHERE, ON, GROUP BY or another aggregate")]
    MisplacedAggregate {
        /// As written.
        name: String,
        /// Where.
        span: Span,
    },
    /// `*` or `DISTINCT` in a function that takes neither.
    #[error("{name} takes neither * nor DISTINCT")]
    NoAggregate {
        /// As written.
        name: String,
        /// Where.
        span: Span,
    },
    /// A parameter that nothing gives a value.
    #[error("{name} has no value")]
    UnboundParameter {
        /// As written, with its sign.
        name: String,
        /// Where.
        span: Span,
    },
    /// A value that cannot stand in place of a parameter.
    #[error("{name} cannot be {what} here")]
    ParameterType {
        /// As written, with its sign.
        name: String,
        /// What the value is, in words.
        what: String,
        /// Where.
        span: Span,
    },
    /// A statement of no prepared name.
    #[error("no statement is prepared as \"{name}\"")]
    UnknownPrepared {
        /// As written.
        name: String,
        /// Where.
        span: Span,
    },
    /// What was prepared does not bind, with these values.
    #[error("{source}")]
    Prepared {
        /// Why; its place is in the prepared text.
        source: Box<Self>,
        /// Where EXECUTE stands.
        span: Span,
    },
    /// More of something than a statement may have.
    #[error("{what}")]
    TooMany {
        /// What there is too much of, with the limit.
        what: String,
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
            Self::UnreadableTable { .. } => "XX001",
            Self::UnknownColumn { .. } | Self::NoColumns { .. } => "42703",
            Self::DuplicateTable { .. } | Self::AmbiguousColumn { .. } => "42702",
            Self::Ungrouped { .. } | Self::MisplacedAggregate { .. } => "42803",
            Self::UnknownFunction { .. }
            | Self::ArgumentCount { .. }
            | Self::NoAggregate { .. } => "42883",
            Self::TypeMismatch { .. } | Self::ParameterType { .. } => "42804",
            Self::UnboundParameter { .. } => "42P02",
            Self::UnknownPrepared { .. } => "26000",
            Self::Prepared { source, .. } => source.code(),
            Self::TooMany { .. } => "54000",
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
            | Self::UnreadableTable { span, .. }
            | Self::DuplicateTable { span, .. }
            | Self::AmbiguousColumn { span, .. }
            | Self::NoColumns { span, .. }
            | Self::Ungrouped { span, .. }
            | Self::MisplacedAggregate { span, .. }
            | Self::NoAggregate { span, .. }
            | Self::UnboundParameter { span, .. }
            | Self::ParameterType { span, .. }
            | Self::UnknownPrepared { span, .. }
            | Self::Prepared { span, .. }
            | Self::TooMany { span, .. }
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
            Self::UnknownTable { nearest: Some(name), .. } => meant(name),
            Self::UnknownFunction { nearest: Some(name), .. } => meant(name),
            Self::UnknownTable { tables, .. } if tables.is_empty() => None,
            Self::UnknownTable { tables, .. } => Some(format!("tables are {tables}")),
            Self::UnreadableTable { name, .. } => {
                Some(format!("DROP TABLE {name}, and CREATE it again"))
            }
            Self::DuplicateTable { name, .. } => {
                Some(format!("give one of them a name of its own: {name} AS b"))
            }
            Self::AmbiguousColumn { name, .. } => {
                Some(format!("say whose it is: name.{name}, the name being the table's or after AS"))
            }
            Self::NoColumns { .. } => Some("a text stands in quotes".to_owned()),
            Self::Ungrouped { name, .. } => {
                Some(format!("add {name} to GROUP BY, or write min({name})"))
            }
            Self::MisplacedAggregate { .. } => {
                Some("conditions on groups stand in HAVING".to_owned())
            }
            Self::NoAggregate { .. } => Some(format!(
                "aggregates are {}; * goes with count",
                crate::bind::AggregateFunction::ALL.map(|one| one.name()).join(", ")
            )),
            Self::UnboundParameter { name, .. }
                if name.trim_start_matches('$').starts_with(|c: char| c.is_ascii_digit()) =>
            {
                Some("PREPARE the statement and EXECUTE it with values, or send them with the script".to_owned())
            }
            Self::UnboundParameter { .. } => {
                Some("a name after $ is a column of the stage before: rows |> statement".to_owned())
            }
            Self::ParameterType { .. } => Some(
                "prompts and entities take text; elsewhere text, numbers, truth values and NULL"
                    .to_owned(),
            ),
            Self::UnknownPrepared { .. } => Some("PREPARE name AS statement".to_owned()),
            Self::Prepared { source, .. } => source.hint(),
            Self::TooMany { .. } => Some("split the statement".to_owned()),
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
