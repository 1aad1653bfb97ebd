//! The whole way from a parsed statement to a plan that can run.

use crate::bind::{Bound, Context, bind};
use crate::catalog::{Catalog, CostConstants};
use crate::error::PlanError;
use crate::explain::{self, RuleStep, RuleTrace};
use crate::physical::plan::{Estimate, Explain, Node, Operator};
use crate::syntax::ast::Statement;
use crate::syntax::{Span, SpannedStatement};
use crate::value::Column;
use crate::{cost, logical, lower, physical, support};

/// Who may run a statement. Each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Looks at what is mounted.
    Reader,
    /// Runs inference.
    Infer,
    /// Edits.
    Editor,
    /// Mounts, extracts, names paths.
    Admin,
}

/// A statement ready to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// How it runs; the root's columns are the answer's.
    pub physical: Node,
    /// The columns of its answer, in order; none for a command that answers no rows.
    pub columns: Vec<Column>,
    /// The statement's first keywords.
    pub tag: &'static str,
    /// The least role that may run it.
    pub required_role: Role,
    /// The mount it reads, by name, if it reads one.
    pub mount: Option<String>,
    /// The logical plan at first, then the plan after each rule that changed it; where EXPLAIN (RULES)
    /// asks for them.
    pub rules_trace: Option<Vec<RuleStep>>,
}

/// Plans a parsed statement against what is mounted now.
///
/// # Errors
/// What is not served ([`support`]), then what does not bind ([`crate::bind::BindError`]).
pub fn plan(statement: &SpannedStatement, catalog: &dyn Catalog) -> Result<Planned, PlanError> {
    support::check(statement)?;
    plan_supported(&statement.statement, statement.span, catalog, false)
}

fn plan_supported(
    statement: &Statement,
    span: Span,
    catalog: &dyn Catalog,
    traced: bool,
) -> Result<Planned, PlanError> {
    if let Statement::Explain(request) = statement {
        let inner = &request.statement;
        let planned = plan_supported(&inner.statement, inner.span, catalog, request.rules)?;
        return Ok(explain(request, planned));
    }
    let Bound { plan, tag, required_role, mount } = bind(statement, span, &Context { catalog })?;
    let mut trace = RuleTrace::new(traced);
    trace.note("bind", || plan.to_string());
    let columns = plan.columns();
    let plan = logical::rules::rewrite(plan, &mut trace);
    let physical_context = physical::Context {
        mount: mount.as_deref(),
        settings: catalog.settings(),
        costs: catalog.costs(),
    };
    let node = lower::lower(plan);
    trace.note("lower", || explain::tree(&node));
    let mut node = physical::rules::rewrite(node, &physical_context, &mut trace);
    number(&mut node, &mut 0);
    cost::estimate_tree(&mut node, &physical_context);
    assert_eq!(node.columns, columns, "planning changed the answer's columns");
    let mount = mount.map(|mount| mount.name().to_owned());
    let rules_trace = trace.into_steps();
    Ok(Planned { physical: node, columns, tag, required_role, mount, rules_trace })
}

/// The plan of an EXPLAIN whose statement has an answer that is kept: giving it again takes a step a row.
pub fn with_cached_answer(explained: &Node, rows: u64, costs: &CostConstants) -> Node {
    let columns = explained.columns.clone();
    let operator = Operator::CachedAnswer { rows };
    let mut node = Node::new(operator, vec![explained.clone()], columns);
    node.estimate = Estimate { rows: rows as f64, bytes: 0.0, ms: rows as f64 * costs.row_ms };
    number(&mut node, &mut 1);
    node
}

/// Wraps a plan so that it is shown instead of, or besides, being run.
fn explain(request: &crate::syntax::ast::Explain, inner: Planned) -> Planned {
    let rules = inner.rules_trace.clone();
    let span = request.statement.span;
    let operator = Explain { format: request.format, analyze: request.analyze, span, rules };
    let columns = explain::columns(&operator);
    let mut physical =
        Node::new(Operator::Explain(operator), vec![inner.physical], columns.clone());
    number(&mut physical, &mut 0);
    Planned { physical, columns, tag: "EXPLAIN", ..inner }
}

/// Numbers the nodes in pre-order.
fn number(node: &mut Node, next: &mut u32) {
    node.id = *next;
    *next += 1;
    node.children.iter_mut().for_each(|child| number(child, next));
}
