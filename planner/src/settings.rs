//! The session's settings: one table, read by SET, RESET, SHOW, completion and documentation.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::nearest_name::nearest;
use crate::syntax::ast::SettingLiteral;

/// What a setting may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SettingKind {
    /// `on` or `off`.
    Switch,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A real within these bounds, both inclusive.
    Real {
        /// The least.
        min: f64,
        /// The greatest.
        max: f64,
    },
    /// `all`, or a count of at least one.
    CountOrAll,
    /// `all`, or some of the sources of edges with `+` between them.
    Sources,
}

impl fmt::Display for SettingKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => formatter.write_str("on or off"),
            Self::Word(words) => formatter.write_str(&words.join(", ")),
            Self::Real { min, max } => write!(formatter, "a number from {min} to {max}"),
            Self::CountOrAll => formatter.write_str("all, or a whole number from 1"),
            Self::Sources => {
                let names = EdgeSources::NAMES.map(|(_, name)| name).join(", ");
                write!(formatter, "all, or some of {names} as in 'gate+probe'")
            }
        }
    }
}

/// The value of a setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SettingValue {
    /// Of a switch.
    Switch(bool),
    /// One of the words.
    Word(&'static str),
    /// A real.
    Real(f64),
    /// A count; `None` is `all`.
    CountOrAll(Option<u64>),
    /// Sources of edges.
    Sources(EdgeSources),
}

/// A way to find features, beside the scan that can always answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccessPath {
    /// Single features by number.
    Slots,
    /// Lists of features by their target or label.
    Postings,
    /// Gates by an index of them.
    GateIndex,
}

impl AccessPath {
    /// What `access_path` may be.
    const WORDS: &[&str] = &["auto", "scan", "slots", "postings", "gate_index"];

    fn word(self) -> &'static str {
        match self {
            Self::Slots => "slots",
            Self::Postings => "postings",
            Self::GateIndex => "gate_index",
        }
    }
}

/// How an access path may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessChoice {
    /// Where it costs less.
    Cheapest,
    /// Wherever it can answer.
    Forced,
}

impl AccessChoice {
    /// Whether costs do not matter.
    pub fn is_forced(self) -> bool {
        self == Self::Forced
    }
}

/// Where the edges of DESCRIBE come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EdgeSources {
    /// Gate hits of the entity's embedding.
    pub gate: bool,
    /// What the feed-forward networks write at the entity's bare name.
    pub residual: bool,
    /// What the model answers to the sentences that LABEL learned.
    pub probe: bool,
}

impl Default for EdgeSources {
    /// All of them.
    fn default() -> Self {
        Self { gate: true, residual: true, probe: true }
    }
}

/// The place of one source's choice.
type Chosen = fn(&mut EdgeSources) -> &mut bool;

impl EdgeSources {
    /// What chooses each, with its name.
    const NAMES: [(Chosen, &'static str); 3] = [
        (|sources| &mut sources.gate, "gate"),
        (|sources| &mut sources.residual, "residual"),
        (|sources| &mut sources.probe, "probe"),
    ];

    fn from_words(words: &str) -> Option<Self> {
        if words.eq_ignore_ascii_case("all") {
            return Some(Self::default());
        }
        let mut sources = Self { gate: false, residual: false, probe: false };
        for word in words.split(['+', ',']).map(str::trim) {
            let (chosen, _) =
                Self::NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(word))?;
            *chosen(&mut sources) = true;
        }
        Some(sources)
    }
}

impl fmt::Display for EdgeSources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return formatter.write_str("all");
        }
        let mut copy = *self;
        let chosen = Self::NAMES.into_iter().filter(|(choice, _)| *choice(&mut copy));
        let names: Vec<&str> = chosen.map(|(_, name)| name).collect();
        formatter.write_str(&names.join("+"))
    }
}

impl fmt::Display for SettingValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(on) => formatter.write_str(if *on { "on" } else { "off" }),
            Self::Word(word) => formatter.write_str(word),
            Self::Real(real) => write!(formatter, "{real}"),
            Self::CountOrAll(None) => formatter.write_str("all"),
            Self::CountOrAll(Some(count)) => write!(formatter, "{count}"),
            Self::Sources(sources) => sources.fmt(formatter),
        }
    }
}

/// One row of the table of settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What it may hold.
    pub kind: SettingKind,
    /// What it holds at first.
    pub default: SettingValue,
    /// What it does, in one sentence.
    pub help: &'static str,
}

/// Every setting there is.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "access_path",
        kind: SettingKind::Word(AccessPath::WORDS),
        default: SettingValue::Word("auto"),
        help: "how plans find features; auto is the cheapest, any other wherever it can answer",
    },
    Setting {
        name: "describe_confidence",
        kind: SettingKind::Real { min: 0.0, max: 1.0 },
        default: SettingValue::Real(0.5),
        help: "least confidence at which DESCRIBE claims a relation",
    },
    Setting {
        name: "describe_sources",
        kind: SettingKind::Sources,
        default: SettingValue::Sources(EdgeSources { gate: true, residual: true, probe: true }),
        help: "where the edges of DESCRIBE come from: all, or some of gate+residual+probe",
    },
    Setting {
        name: "describe_z",
        kind: SettingKind::Real { min: 0.0, max: 1000.0 },
        default: SettingValue::Real(4.0),
        help: "least z of a gate hit that DESCRIBE and SELECT … WHERE entity = … show",
    },
    Setting {
        name: "enable_gate_slots",
        kind: SettingKind::Switch,
        default: SettingValue::Switch(true),
        help: "whether plans may score single gates where that cannot change a rank",
    },
    Setting {
        name: "enable_hash_join",
        kind: SettingKind::Switch,
        default: SettingValue::Switch(true),
        help: "whether plans may join by hashing instead of comparing every pair of rows",
    },
    Setting {
        name: "enable_slot_lookup",
        kind: SettingKind::Switch,
        default: SettingValue::Switch(true),
        help: "whether plans may look up single features instead of scanning layers",
    },
    Setting {
        name: "ffn",
        kind: SettingKind::Word(&["auto", "dense", "walk"]),
        default: SettingValue::Word("auto"),
        help: "how inference computes the feed-forward part; auto is dense",
    },
    Setting {
        name: "on_error",
        kind: SettingKind::Word(&["stop", "continue"]),
        default: SettingValue::Word("stop"),
        help: "whether a script stops at its first failing statement",
    },
    Setting {
        name: "result_cache",
        kind: SettingKind::Switch,
        default: SettingValue::Switch(true),
        help: "whether plans and answers that are kept are used, and new ones kept",
    },
    Setting {
        name: "trace_window",
        kind: SettingKind::CountOrAll,
        default: SettingValue::CountOrAll(Some(256)),
        help: "positions a window of a TRACE that is saved as .bndx or .ctxt",
    },
    Setting {
        name: "walk_k",
        kind: SettingKind::CountOrAll,
        default: SettingValue::CountOrAll(None),
        help: "features a layer that the walk computes",
    },
];

/// A checked change: the setting's index in [`SETTINGS`] and its new value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SettingChange {
    index: usize,
    value: SettingValue,
}

impl SettingChange {
    /// The setting's name.
    pub fn name(&self) -> &'static str {
        SETTINGS[self.index].name
    }

    /// Its new value.
    pub fn value(&self) -> SettingValue {
        self.value
    }
}

/// Why a setting was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// There is no such setting.
    #[error("there is no setting \"{name}\"")]
    Unknown {
        /// As written.
        name: String,
        /// What may have been meant.
        nearest: Option<&'static str>,
    },
    /// The value does not fit.
    #[error("{name} cannot be {found}: expected {expected}")]
    Value {
        /// The setting.
        name: &'static str,
        /// As written.
        found: String,
        /// What it may hold.
        expected: String,
    },
}

/// The settings of one session.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    values: [SettingValue; SETTINGS.len()],
}

impl Eq for Settings {}

impl Hash for Settings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for value in &self.values {
            match value {
                SettingValue::Switch(switch) => switch.hash(state),
                SettingValue::Word(word) => word.hash(state),
                // Both zeros are one value.
                SettingValue::Real(real) => (real + 0.0).to_bits().hash(state),
                SettingValue::CountOrAll(count) => count.hash(state),
                SettingValue::Sources(sources) => sources.hash(state),
            }
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { values: std::array::from_fn(|index| SETTINGS[index].default) }
    }
}

impl Settings {
    /// Checks a change without making it. Names are case-insensitive.
    pub fn check(name: &str, literal: &SettingLiteral) -> Result<SettingChange, SettingError> {
        let index = index_of(name)?;
        let setting = &SETTINGS[index];
        let value = convert(setting.kind, literal).ok_or_else(|| SettingError::Value {
            name: setting.name,
            found: match literal {
                SettingLiteral::Word(word) => format!("\"{word}\""),
                SettingLiteral::Integer(integer) => integer.to_string(),
                SettingLiteral::Real(real) => real.to_string(),
            },
            expected: setting.kind.to_string(),
        })?;
        Ok(SettingChange { index, value })
    }

    /// The setting's own spelling of `name`.
    pub fn name_of(name: &str) -> Result<&'static str, SettingError> {
        Ok(SETTINGS[index_of(name)?].name)
    }

    /// Makes a checked change.
    pub fn apply(&mut self, change: &SettingChange) {
        self.values[change.index] = change.value;
    }

    /// Takes a setting back to its default.
    pub fn reset(&mut self, name: &str) -> Result<(), SettingError> {
        let index = index_of(name)?;
        self.values[index] = SETTINGS[index].default;
        Ok(())
    }

    /// The value of a setting.
    pub fn get(&self, name: &str) -> Result<SettingValue, SettingError> {
        Ok(self.values[index_of(name)?])
    }

    /// Every setting with its value, by name.
    pub fn all(&self) -> impl Iterator<Item = (&'static Setting, SettingValue)> + '_ {
        SETTINGS.iter().zip(self.values.iter().copied())
    }

    /// `describe_z`: least z of a gate hit that is shown.
    pub fn describe_z(&self) -> f64 {
        match self.known("describe_z") {
            SettingValue::Real(real) => real,
            other => unreachable!("describe_z holds {other:?}"),
        }
    }

    /// `describe_confidence`: least confidence of an edge whose relation is claimed.
    pub fn describe_confidence(&self) -> f64 {
        match self.known("describe_confidence") {
            SettingValue::Real(real) => real,
            other => unreachable!("describe_confidence holds {other:?}"),
        }
    }

    /// `describe_sources`: where edges come from.
    pub fn describe_sources(&self) -> EdgeSources {
        match self.known("describe_sources") {
            SettingValue::Sources(sources) => sources,
            other => unreachable!("describe_sources holds {other:?}"),
        }
    }

    /// `on_error = continue`.
    pub fn continue_on_error(&self) -> bool {
        self.known("on_error") == SettingValue::Word("continue")
    }

    /// `ffn = walk`; `auto` and `dense` are dense.
    pub fn ffn_is_walk(&self) -> bool {
        self.known("ffn") == SettingValue::Word("walk")
    }

    /// `walk_k`: features a layer, `None` for all.
    pub fn walk_k(&self) -> Option<u64> {
        match self.known("walk_k") {
            SettingValue::CountOrAll(count) => count,
            other => unreachable!("walk_k holds {other:?}"),
        }
    }

    /// `trace_window`: positions a window, `None` for all.
    pub fn trace_window(&self) -> Option<u64> {
        match self.known("trace_window") {
            SettingValue::CountOrAll(count) => count,
            other => unreachable!("trace_window holds {other:?}"),
        }
    }

    /// `access_path`: how a path may be taken; `None` where another was asked for.
    pub fn allows(&self, path: AccessPath) -> Option<AccessChoice> {
        match self.known("access_path") {
            SettingValue::Word("auto") => Some(AccessChoice::Cheapest),
            SettingValue::Word(word) => (word == path.word()).then_some(AccessChoice::Forced),
            other => unreachable!("access_path holds {other:?}"),
        }
    }

    /// `result_cache`.
    pub fn result_cache(&self) -> bool {
        self.known("result_cache") == SettingValue::Switch(true)
    }

    /// `enable_slot_lookup`.
    pub fn enable_slot_lookup(&self) -> bool {
        self.known("enable_slot_lookup") == SettingValue::Switch(true)
    }

    /// `enable_hash_join`.
    pub fn enable_hash_join(&self) -> bool {
        self.known("enable_hash_join") == SettingValue::Switch(true)
    }

    /// `enable_gate_slots`.
    pub fn enable_gate_slots(&self) -> bool {
        self.known("enable_gate_slots") == SettingValue::Switch(true)
    }

    fn known(&self, name: &'static str) -> SettingValue {
        self.get(name).unwrap_or_else(|error| unreachable!("{error}"))
    }
}

fn index_of(name: &str) -> Result<usize, SettingError> {
    SETTINGS.iter().position(|setting| setting.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let nearest = nearest(name, SETTINGS.iter().map(|setting| setting.name));
        SettingError::Unknown { name: name.to_owned(), nearest }
    })
}

fn convert(kind: SettingKind, literal: &SettingLiteral) -> Option<SettingValue> {
    match (kind, literal) {
        (SettingKind::Switch, SettingLiteral::Word(word)) => {
            let word = word.to_ascii_lowercase();
            match word.as_str() {
                "on" | "true" | "yes" => Some(SettingValue::Switch(true)),
                "off" | "false" | "no" => Some(SettingValue::Switch(false)),
                _ => None,
            }
        }
        (SettingKind::Word(words), SettingLiteral::Word(word)) => words
            .iter()
            .find(|candidate| candidate.eq_ignore_ascii_case(word))
            .map(|word| SettingValue::Word(word)),
        (SettingKind::Real { min, max }, SettingLiteral::Real(real)) => {
            (min..=max).contains(real).then_some(SettingValue::Real(*real))
        }
        (SettingKind::Real { min, max }, SettingLiteral::Integer(integer)) => {
            let real = *integer as f64;
            (min..=max).contains(&real).then_some(SettingValue::Real(real))
        }
        (SettingKind::CountOrAll, SettingLiteral::Integer(integer)) => u64::try_from(*integer)
            .ok()
            .filter(|count| *count > 0)
            .map(|count| SettingValue::CountOrAll(Some(count))),
        (SettingKind::CountOrAll, SettingLiteral::Word(word)) => {
            word.eq_ignore_ascii_case("all").then_some(SettingValue::CountOrAll(None))
        }
        (SettingKind::Sources, SettingLiteral::Word(words)) => {
            EdgeSources::from_words(words).map(SettingValue::Sources)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_starts_at_its_default_and_comes_back_to_it() {
        let mut settings = Settings::default();
        for setting in SETTINGS {
            assert_eq!(settings.get(setting.name), Ok(setting.default), "{}", setting.name);
        }
        let change = Settings::check("WALK_K", &SettingLiteral::Integer(64)).unwrap();
        settings.apply(&change);
        assert_eq!(settings.walk_k(), Some(64));
        settings.reset("walk_k").unwrap();
        assert_eq!(settings.walk_k(), None);
    }

    #[test]
    fn a_misspelt_setting_names_the_one_that_was_meant() {
        let error = Settings::check("describ_z", &SettingLiteral::Integer(1)).unwrap_err();
        let SettingError::Unknown { nearest, .. } = error else { panic!("{error}") };
        assert_eq!(nearest, Some("describe_z"));
    }

    #[test]
    fn values_out_of_range_are_refused_with_what_is_allowed() {
        for (name, literal) in [
            ("walk_k", SettingLiteral::Integer(0)),
            ("walk_k", SettingLiteral::Integer(-1)),
            ("describe_z", SettingLiteral::Real(f64::NAN)),
            ("describe_z", SettingLiteral::Integer(-1)),
            ("ffn", SettingLiteral::Word("sparse".into())),
            ("enable_slot_lookup", SettingLiteral::Integer(1)),
        ] {
            let error = Settings::check(name, &literal).unwrap_err();
            assert!(matches!(error, SettingError::Value { .. }), "{name} took {literal:?}");
        }
    }

    #[test]
    fn settings_are_listed_by_name() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
    }
}
