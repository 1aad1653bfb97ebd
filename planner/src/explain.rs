//! Plans as rows, as JSON and as text: what EXPLAIN answers.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::physical::plan::{Explain, Node};
use crate::syntax::ast::ExplainFormat;
use crate::value::{Column, ColumnType, Value};

/// A plan after one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleStep {
    /// The rule, or `bind` and `lower` for the plans between which rules work.
    pub rule: &'static str,
    /// The plan, one line a node, inputs indented.
    pub plan: String,
}

/// The steps of a plan's making, where somebody wants to see them.
#[derive(Debug)]
pub struct RuleTrace {
    steps: Option<Vec<RuleStep>>,
}

impl RuleTrace {
    /// A trace that keeps its steps if they are `wanted`.
    pub fn new(wanted: bool) -> Self {
        Self { steps: wanted.then(Vec::new) }
    }

    /// Keeps a step.
    pub fn note(&mut self, rule: &'static str, plan: impl FnOnce() -> String) {
        if let Some(steps) = &mut self.steps {
            steps.push(RuleStep { rule, plan: plan() });
        }
    }

    /// The steps, if they were wanted.
    pub fn into_steps(self) -> Option<Vec<RuleStep>> {
        self.steps
    }
}

/// What a node really did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// Rows out.
    pub rows: u64,
    /// Bytes of weights and metadata read.
    pub bytes: u64,
    /// Milliseconds in this operator alone.
    pub ms: f64,
    /// What its bytes and milliseconds went to, where it can say.
    pub parts: Vec<MeasuredPart>,
}

/// A part of what a node did. Its bytes and milliseconds are among the node's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MeasuredPart {
    /// What worked.
    pub operator: &'static str,
    /// Which one.
    pub detail: String,
    /// Bytes of weights read.
    pub bytes: u64,
    /// Milliseconds.
    pub ms: f64,
    /// Its own parts.
    pub parts: Vec<Self>,
}

/// What each node did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measurements {
    nodes: HashMap<u32, Measured>,
    bandwidth_bytes_per_s: f64,
}

impl Measurements {
    /// Nothing yet, on a machine that reads so many bytes a second.
    pub fn new(bandwidth_bytes_per_s: f64) -> Self {
        Self { nodes: HashMap::new(), bandwidth_bytes_per_s }
    }

    /// Takes note of what a node did.
    pub fn insert(&mut self, node: u32, measured: Measured) {
        self.nodes.insert(node, measured);
    }

    /// What a node did.
    pub fn get(&self, node: u32) -> Option<&Measured> {
        self.nodes.get(&node)
    }

    /// How fast so many bytes were read, in words; empty where nothing was.
    fn rate(&self, bytes: u64, ms: f64) -> String {
        if bytes == 0 || ms <= 0.0 {
            return String::new();
        }
        let bytes_per_s = bytes as f64 / ms * 1e3;
        let share = match self.bandwidth_bytes_per_s {
            bandwidth if bandwidth > 0.0 => {
                format!(", {:.0} % of bandwidth", bytes_per_s / bandwidth * 100.0)
            }
            _ => String::new(),
        };
        format!("{:.2} GB/s{share}", bytes_per_s / 1e9)
    }
}

const PLAN_COLUMNS: [(&str, ColumnType); 10] = [
    ("id", ColumnType::Integer),
    ("parent", ColumnType::Integer),
    ("operator", ColumnType::Text),
    ("detail", ColumnType::Text),
    ("est_rows", ColumnType::Real),
    ("est_bytes", ColumnType::Real),
    ("est_ms", ColumnType::Real),
    ("rows", ColumnType::Integer),
    ("bytes", ColumnType::Integer),
    ("ms", ColumnType::Real),
];

/// The columns that an EXPLAIN answers.
pub fn columns(explain: &Explain) -> Vec<Column> {
    let columns: &[(&str, ColumnType)] = match (explain.format, &explain.rules) {
        (ExplainFormat::Json, _) => &[("plan", ColumnType::Text)],
        (ExplainFormat::Text, Some(_)) => {
            &[("step", ColumnType::Integer), ("rule", ColumnType::Text), ("plan", ColumnType::Text)]
        }
        (ExplainFormat::Text, None) => &PLAN_COLUMNS,
    };
    columns.iter().map(|(name, kind)| Column::new(*name, *kind)).collect()
}

/// The rows that an EXPLAIN answers. `root` is the plan shown, the child of the EXPLAIN node;
/// `measured` is what its nodes did, with ANALYZE.
pub fn rows(explain: &Explain, root: &Node, measured: Option<&Measurements>) -> Vec<Vec<Value>> {
    match (explain.format, &explain.rules) {
        (ExplainFormat::Json, rules) => {
            vec![vec![Value::text(json(root, measured, rules.as_deref()))]]
        }
        (ExplainFormat::Text, Some(rules)) => rules
            .iter()
            .zip(0i64..)
            .map(|(step, index)| {
                vec![
                    Value::Integer(index),
                    Value::text(step.rule),
                    Value::text(step.plan.trim_end()),
                ]
            })
            .collect(),
        (ExplainFormat::Text, None) => {
            let mut rows = Vec::new();
            // Parts of nodes are numbered after all nodes.
            let mut next = 0;
            root.visit(&mut |node, _| next = next.max(node.id + 1));
            root.visit(&mut |node, parent| {
                rows.push(plan_row(node, parent, measured));
                if let Some((all, own)) = measured.and_then(|all| Some((all, all.get(node.id)?))) {
                    part_rows(all, &own.parts, node.id, &mut next, &mut rows);
                }
            });
            // The shown plan has no parent, although it is the child of EXPLAIN.
            if let Some(first) = rows.first_mut() {
                first[1] = Value::Null;
            }
            rows
        }
    }
}

fn plan_row(node: &Node, parent: Option<u32>, measured: Option<&Measurements>) -> Vec<Value> {
    let mut detail = described(node);
    let own = measured.and_then(|all| all.get(node.id));
    if let (Some(all), Some(own)) = (measured, own) {
        append(&mut detail, &all.rate(own.bytes, own.ms));
    }
    let measured = own;
    vec![
        Value::Integer(i64::from(node.id)),
        parent.map_or(Value::Null, |parent| Value::Integer(i64::from(parent))),
        Value::text(node.operator.name()),
        Value::text(detail),
        Value::Real(rounded(node.estimate.rows)),
        Value::Real(rounded(node.estimate.bytes)),
        Value::Real(rounded(node.estimate.ms)),
        measured.map_or(Value::Null, |measured| integer(measured.rows)),
        measured.map_or(Value::Null, |measured| integer(measured.bytes)),
        measured.map_or(Value::Null, |measured| Value::Real(measured.ms)),
    ]
}

/// The operands of a node in words, and its note.
fn described(node: &Node) -> String {
    let mut detail = node.operator.detail(&node.columns);
    append(&mut detail, node.note.unwrap_or_default());
    detail
}

fn integer(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Adds a phrase to others.
fn append(detail: &mut String, phrase: &str) {
    if !detail.is_empty() && !phrase.is_empty() {
        detail.push_str(", ");
    }
    detail.push_str(phrase);
}

/// The rows of what a node's work went to; nobody estimated them.
fn part_rows(
    all: &Measurements,
    parts: &[MeasuredPart],
    parent: u32,
    next: &mut u32,
    rows: &mut Vec<Vec<Value>>,
) {
    for part in parts {
        let id = *next;
        *next += 1;
        let mut detail = part.detail.clone();
        append(&mut detail, &all.rate(part.bytes, part.ms));
        rows.push(vec![
            Value::Integer(id.into()),
            Value::Integer(parent.into()),
            Value::text(part.operator),
            Value::text(detail),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Null,
            integer(part.bytes),
            Value::Real(part.ms),
        ]);
        part_rows(all, &part.parts, id, next, rows);
    }
}

/// An estimate with the four digits that it deserves at most.
fn rounded(estimate: f64) -> f64 {
    // Adding zero takes the sign off the sum of nothing.
    let rounded =
        if estimate >= 1000.0 { estimate.round() } else { (estimate * 1e4).round() / 1e4 };
    rounded + 0.0
}

/// The plan as text: one line a node with its operator and detail, inputs indented.
pub fn tree(root: &Node) -> String {
    fn write(node: &Node, depth: usize, text: &mut String) {
        let detail = node.operator.detail(&node.columns);
        let line = format!("{}{} {detail}", "  ".repeat(depth), node.operator.name());
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
        node.children.iter().for_each(|child| write(child, depth + 1, text));
    }
    let mut text = String::new();
    write(root, 0, &mut text);
    text
}

/// The plan as one JSON document: nodes nested under `children`, steps of rules beside them.
fn json(root: &Node, measured: Option<&Measurements>, rules: Option<&[RuleStep]>) -> String {
    let mut text = String::from("{\"plan\":");
    write_json_node(root, measured, &mut text);
    if let Some(rules) = rules {
        text.push_str(",\"rules\":[");
        for (index, step) in rules.iter().enumerate() {
            text.push_str(if index == 0 { "{\"rule\":" } else { ",{\"rule\":" });
            write_json_string(step.rule, &mut text);
            text.push_str(",\"plan\":");
            write_json_string(step.plan.trim_end(), &mut text);
            text.push('}');
        }
        text.push(']');
    }
    text.push('}');
    text
}

fn write_json_node(node: &Node, measured: Option<&Measurements>, text: &mut String) {
    let _ = write!(text, "{{\"id\":{},\"operator\":", node.id);
    write_json_string(node.operator.name(), text);
    text.push_str(",\"detail\":");
    write_json_string(&described(node), text);
    let estimate = node.estimate;
    for (name, value) in
        [("est_rows", estimate.rows), ("est_bytes", estimate.bytes), ("est_ms", estimate.ms)]
    {
        let _ = write!(text, ",\"{name}\":{}", rounded(value));
    }
    if let Some((all, measured)) = measured.and_then(|all| Some((all, all.get(node.id)?))) {
        let Measured { rows, bytes, ms, parts } = measured;
        let _ = write!(text, ",\"rows\":{rows},\"bytes\":{bytes},\"ms\":{ms}");
        write_json_rate(all, *bytes, *ms, text);
        write_json_parts(all, parts, text);
    }
    text.push_str(",\"children\":[");
    for (index, child) in node.children.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { "," });
        write_json_node(child, measured, text);
    }
    text.push_str("]}");
}

/// How fast bytes were read: `gb_per_s`, and which share of the machine's bandwidth that is.
fn write_json_rate(all: &Measurements, bytes: u64, ms: f64, text: &mut String) {
    if bytes > 0 && ms > 0.0 {
        let bytes_per_s = bytes as f64 / ms * 1e3;
        let _ = write!(text, ",\"gb_per_s\":{}", bytes_per_s / 1e9);
        if all.bandwidth_bytes_per_s > 0.0 {
            let share = bytes_per_s / all.bandwidth_bytes_per_s;
            let _ = write!(text, ",\"bandwidth_share\":{share}");
        }
    }
}

fn write_json_parts(all: &Measurements, parts: &[MeasuredPart], text: &mut String) {
    if parts.is_empty() {
        return;
    }
    text.push_str(",\"parts\":[");
    for (index, part) in parts.iter().enumerate() {
        text.push_str(if index == 0 { "{\"operator\":" } else { ",{\"operator\":" });
        write_json_string(part.operator, text);
        text.push_str(",\"detail\":");
        write_json_string(&part.detail, text);
        let _ = write!(text, ",\"bytes\":{},\"ms\":{}", part.bytes, part.ms);
        write_json_rate(all, part.bytes, part.ms, text);
        write_json_parts(all, &part.parts, text);
        text.push('}');
    }
    text.push(']');
}

fn write_json_string(value: &str, text: &mut String) {
    text.push('"');
    for character in value.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            control if u32::from(control) < 0x20 => {
                let _ = write!(text, "\\u{:04x}", u32::from(control));
            }
            other => text.push(other),
        }
    }
    text.push('"');
}
