//! EXPLAIN: a plan as rows; with ANALYZE, what running it took.

use std::time::Instant;

use larql_compute::model::{Meter, PassMeters};
use larql_planner::catalog::Catalog as _;
use larql_planner::explain::{Measured, MeasuredPart, Measurements, rows};
use larql_planner::physical::plan::{self, Node};
use larql_planner::with_cached_answer;

use super::rows::Ready;
use super::{Operator, Row, Work, build};
use crate::failure::Failure;

/// Shows a plan; runs it first when asked to, unless its answer is kept.
pub(super) struct Explain {
    explain: plan::Explain,
    plan: Node,
    ready: Option<Ready>,
}

impl Explain {
    pub(super) fn new(explain: plan::Explain, plan: Node) -> Self {
        Self { explain, plan, ready: None }
    }

    fn run(&mut self, work: &mut Work<'_>) -> Result<Ready, Failure> {
        let began = Instant::now();
        let kept = work.kept_answer(self.explain.span);
        if let Some(answer) = kept {
            self.plan = with_cached_answer(&self.plan, answer.rows, work.snapshot().costs());
            let ms = began.elapsed().as_secs_f64() * 1e3;
            let measured = self.explain.analyze.then(|| {
                let mut measured = Measurements::new(0.0);
                let own = Measured { rows: answer.rows, bytes: 0, ms, parts: Vec::new() };
                measured.insert(self.plan.id, own);
                measured
            });
            return Ok(Ready::new(rows(&self.explain, &self.plan, measured.as_ref())));
        }
        let measured = if self.explain.analyze { Some(self.measure(work)?) } else { None };
        Ok(Ready::new(rows(&self.explain, &self.plan, measured.as_ref())))
    }

    /// Runs the plan, throws its rows away and returns what each node did by itself.
    fn measure(&self, work: &mut Work<'_>) -> Result<Measurements, Failure> {
        let mut root = build(&self.plan)?;
        while root.next(work)?.is_some() {
            work.cancel.check()?;
        }
        let elapsed = |node: &Node| work.meters()[node.id as usize].elapsed;
        let bandwidth = work.snapshot().costs().bandwidth_bytes_per_s;
        let mut measured = Measurements::new(bandwidth);
        self.plan.visit(&mut |node, _| {
            let meter = work.meters()[node.id as usize];
            let below = node.children.iter().map(elapsed).sum();
            let ms = meter.elapsed.saturating_sub(below).as_secs_f64() * 1e3;
            let parts = work.passes(node.id).map(parts).unwrap_or_default();
            let (rows, bytes) = (meter.rows, meter.bytes);
            measured.insert(node.id, Measured { rows, bytes, ms, parts });
        });
        Ok(measured)
    }
}

/// What passes of the model took, as parts of the operator that ran them.
fn parts(passes: &PassMeters) -> Vec<MeasuredPart> {
    let part = |operator, detail: String, meters: &[Meter], parts| MeasuredPart {
        operator,
        detail,
        bytes: meters.iter().map(|meter| meter.bytes).sum(),
        ms: meters.iter().map(|meter| meter.elapsed.as_secs_f64() * 1e3).sum(),
        parts,
    };
    let leaf = |operator, meter| part(operator, String::new(), &[meter], Vec::new());
    let layers = passes.layers.iter().enumerate().map(|(index, layer)| {
        let inner = vec![leaf("Attention", layer.attention), leaf("FeedForward", layer.network)];
        part("Layer", index.to_string(), &[layer.attention, layer.network], inner)
    });
    std::iter::once(leaf("Embedding", passes.embedding))
        .chain(layers)
        .chain([leaf("Unembedding", passes.unembedding)])
        .collect()
}

impl Operator for Explain {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            self.ready = Some(self.run(work)?);
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}
