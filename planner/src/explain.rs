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

impl RuleStep {
    /// A step.
    pub fn new(rule: &'static str, plan: String) -> Self {
        Self { rule, plan }
    }
}

/// What a node really did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measured {
    /// Rows out.
    pub rows: u64,
    /// Bytes of weights and metadata read.
    pub bytes: u64,
    /// Milliseconds in this operator alone.
    pub ms: f64,
}

/// What each node did, by its id.
pub type Measurements = HashMap<u32, Measured>;

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
            root.visit(&mut |node, parent| rows.push(plan_row(node, parent, measured)));
            // The shown plan has no parent, although it is the child of EXPLAIN.
            if let Some(first) = rows.first_mut() {
                first[1] = Value::Null;
            }
            rows
        }
    }
}

fn plan_row(node: &Node, parent: Option<u32>, measured: Option<&Measurements>) -> Vec<Value> {
    let measured = measured.and_then(|all| all.get(&node.id));
    let integer = |value: u64| Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    vec![
        Value::Integer(i64::from(node.id)),
        parent.map_or(Value::Null, |parent| Value::Integer(i64::from(parent))),
        Value::text(node.operator.name()),
        Value::text(node.operator.detail(&node.columns)),
        Value::Real(rounded(node.estimate.rows)),
        Value::Real(rounded(node.estimate.bytes)),
        Value::Real(rounded(node.estimate.ms)),
        measured.map_or(Value::Null, |measured| integer(measured.rows)),
        measured.map_or(Value::Null, |measured| integer(measured.bytes)),
        measured.map_or(Value::Null, |measured| Value::Real(measured.ms)),
    ]
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
    write_json_string(&node.operator.detail(&node.columns), text);
    let estimate = node.estimate;
    for (name, value) in
        [("est_rows", estimate.rows), ("est_bytes", estimate.bytes), ("est_ms", estimate.ms)]
    {
        let _ = write!(text, ",\"{name}\":{}", rounded(value));
    }
    if let Some(measured) = measured.and_then(|all| all.get(&node.id)) {
        let Measured { rows, bytes, ms } = measured;
        let _ = write!(text, ",\"rows\":{rows},\"bytes\":{bytes},\"ms\":{ms}");
    }
    text.push_str(",\"children\":[");
    for (index, child) in node.children.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { "," });
        write_json_node(child, measured, text);
    }
    text.push_str("]}");
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
