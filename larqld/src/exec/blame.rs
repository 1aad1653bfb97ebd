//! BLAME: which edits an answer comes from, found by inferring without them.
//!
//! The branch's operations are left out in groups, each group in a pass of its own: all transactions, where they
//! are few; else pieces of their sequence, of which those that matter most are looked into first, down to single
//! operations. A group whose removal changes nothing is not looked into: edits in it that cancel each other out
//! are not told. The passes are bounded by [`PASSES_MAX`].
//!
//! Elsewhere: what is answered (`editing::ask`), what a transaction is (`storage::store`).

use std::ops::Range;
use std::sync::Arc;

use larql_planner::physical::edit::Blame;
use larql_planner::value::Value;
use larql_storage::overlay::{Operation, Overlay};
use larql_storage::store::Transaction;

use super::mount_row::integer;
use super::rows::Ready;
use super::{Operator, Row, Work};
use crate::editing::applied::{Applied, Identity};
use crate::editing::ask::{Answer, Question, ask};
use crate::failure::Failure;
use crate::mounts::Model;

/// Most passes of one statement.
const PASSES_MAX: usize = 256;
/// Transactions that are left out one by one.
const SINGLY_MAX: usize = PASSES_MAX / 2;
/// Pieces into which a group is cut.
const PIECES: usize = 8;
/// Passes that are prepared at a time: each has the overlay of all other edits.
const PREPARED_AT_ONCE: usize = 16;
/// A change of probability that counts.
const CHANGE_MIN: f64 = 1e-6;

/// Runs a BLAME.
pub(super) struct RunBlame {
    statement: Blame,
    ready: Option<Ready>,
}

impl RunBlame {
    pub(super) fn new(statement: Blame) -> Self {
        Self { statement, ready: None }
    }
}

impl Operator for RunBlame {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        if self.ready.is_none() {
            self.ready = Some(Ready::new(blame(work, &self.statement)?));
        }
        Ok(self.ready.as_mut().and_then(Ready::batch))
    }
}

/// Operations that are visible together.
struct Group {
    /// `None` for those of the session's own transaction.
    committed: Option<Arc<Transaction>>,
    operations: Arc<[Operation]>,
}

/// Which operations are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Whole transactions, by index.
    Transactions(Range<usize>),
    /// Some operations of one.
    Operations(usize, Range<usize>),
}

/// What an answer is without a part.
struct Measured {
    part: Part,
    answer: Answer,
    /// How far the probability falls without it.
    contribution: f64,
}

impl Measured {
    fn matters(&self, whole: &Answer) -> bool {
        self.contribution.abs() >= CHANGE_MIN || self.answer.tokens != whole.tokens
    }
}

fn blame(work: &Work<'_>, statement: &Blame) -> Result<Vec<Row>, Failure> {
    let model = work.model()?;
    let groups = groups(work);
    let edits = work.edits(&model)?;
    let (pool, cancel) = (work.engine().pool(), work.cancel);
    let question = match &statement.target {
        Some(target) => Question::new(&model, &statement.prompt, Some(target))?,
        None => {
            let open = Question::new(&model, &statement.prompt, None)?;
            let answers = ask(&model, &[(&open, &*edits)], pool, cancel)?;
            let likeliest = answers.into_iter().flat_map(|answer| answer.tokens).collect();
            open.followed_by(likeliest)
        }
    };
    let answers = ask(&model, &[(&question, &*edits)], pool, cancel)?;
    let Some(whole) = answers.into_iter().next() else { return Ok(Vec::new()) };
    if groups.is_empty() {
        work.notice("nothing is edited here: the answer is the base's", "")?;
        return Ok(Vec::new());
    }
    let search = Search { work, model: &model, question: &question, whole: &whole, groups };
    let found = search.run()?;
    let mut rows: Vec<&Measured> = found.iter().filter(|one| search.is_row(&one.part)).collect();
    rows.sort_by(|a, b| b.contribution.abs().total_cmp(&a.contribution.abs()));
    if rows.is_empty() {
        work.notice("no edit changes this answer", "")?;
    }
    let most = usize::try_from(statement.top).unwrap_or(usize::MAX);
    rows.into_iter().take(most).map(|one| search.row(one)).collect()
}

/// The transactions that the statement sees, its own last.
fn groups(work: &Work<'_>) -> Vec<Group> {
    let view = work.view();
    let committed = view.branch().into_iter().flat_map(|branch| branch.transactions());
    let mut groups: Vec<Group> = committed
        .map(|one| Group {
            committed: Some(one.clone()),
            operations: one.commit.operations.clone(),
        })
        .collect();
    if view.identity().pending > 0
        && let Some(open) = &work.context.state().transaction
    {
        groups.push(Group { committed: None, operations: open.operations().into() });
    }
    groups
}

struct Search<'a, 'w> {
    work: &'a Work<'w>,
    model: &'a Model,
    question: &'a Question,
    whole: &'a Answer,
    groups: Vec<Group>,
}

impl Search<'_, '_> {
    /// Everything that was measured and matters.
    fn run(&self) -> Result<Vec<Measured>, Failure> {
        let mut first = vec![Part::Transactions(0..self.groups.len())];
        if self.groups.len() <= SINGLY_MAX {
            first = pieces(0..self.groups.len(), SINGLY_MAX).map(Part::Transactions).collect();
        }
        let mut passes = first.len();
        let mut open = self.measure(first)?;
        let mut found = Vec::new();
        let mut together = Vec::new();
        let by_change =
            |a: &Measured, b: &Measured| a.contribution.abs().total_cmp(&b.contribution.abs());
        while !open.is_empty() {
            open.sort_by(by_change);
            let Some(next) = open.pop() else { break };
            let parts = self.cut(&next.part);
            if passes + parts.len() > PASSES_MAX {
                open.push(next);
                break;
            }
            passes += parts.len();
            let inner = self.measure(parts)?;
            if inner.is_empty()
                && let Part::Transactions(range) = &next.part
                && range.len() > 1
            {
                together.push(range.clone());
            }
            open.extend(inner);
            found.push(next);
        }
        for range in together {
            let lsn = |index: usize| match &self.groups[index].committed {
                Some(one) => format!("LSN {}", one.lsn),
                None => "the open transaction".to_owned(),
            };
            let message = format!(
                "the transactions from {} to {} change the answer, and none of them alone",
                lsn(range.start),
                lsn(range.end - 1)
            );
            self.work.notice(message, "")?;
        }
        if !open.is_empty() {
            let message =
                format!("{PASSES_MAX} passes are the most: not everything was looked into");
            self.work.notice(message, "what changes the answer most was looked into first")?;
            found.extend(open);
        }
        Ok(found)
    }

    /// Infers without each of some parts, and gives those that matter.
    fn measure(&self, parts: Vec<Part>) -> Result<Vec<Measured>, Failure> {
        let mut measured = Vec::new();
        for some in parts.chunks(PREPARED_AT_ONCE) {
            let edits: Vec<Applied> = some
                .iter()
                .map(|part| Applied::new(self.model, self.without(part), Identity::default()))
                .collect::<Result<_, _>>()?;
            let asked: Vec<_> = edits.iter().map(|edits| (self.question, edits)).collect();
            let answers = ask(self.model, &asked, self.work.engine().pool(), self.work.cancel)?;
            measured.extend(some.iter().zip(answers).map(|(part, answer)| Measured {
                part: part.clone(),
                contribution: self.whole.probability - answer.probability,
                answer,
            }));
        }
        measured.retain(|one| one.matters(self.whole));
        Ok(measured)
    }

    /// What all edits but a part amount to.
    fn without(&self, part: &Part) -> Overlay {
        let mut overlay = Overlay::default();
        for (group, operations) in self.groups.iter().enumerate() {
            let lsn = operations.committed.as_ref().map_or(u64::MAX, |one| one.lsn);
            for (index, operation) in operations.operations.iter().enumerate() {
                let left_out = match part {
                    Part::Transactions(range) => range.contains(&group),
                    Part::Operations(of, range) => *of == group && range.contains(&index),
                };
                if !left_out {
                    overlay.apply(operation, lsn);
                }
            }
        }
        overlay
    }

    /// The parts of a part; none of a single operation.
    fn cut(&self, part: &Part) -> Vec<Part> {
        let (group, range) = match part {
            Part::Transactions(range) if range.len() > 1 => {
                return pieces(range.clone(), PIECES).map(Part::Transactions).collect();
            }
            Part::Transactions(range) => {
                (range.start, 0..self.groups[range.start].operations.len())
            }
            Part::Operations(group, range) => (*group, range.clone()),
        };
        if range.len() < 2 {
            return Vec::new();
        }
        pieces(range, PIECES).map(|range| Part::Operations(group, range)).collect()
    }

    /// Whether a part is one transaction, or one operation of several.
    fn is_row(&self, part: &Part) -> bool {
        match part {
            Part::Transactions(range) | Part::Operations(_, range) => range.len() == 1,
        }
    }

    fn row(&self, measured: &Measured) -> Result<Row, Failure> {
        let (group, operation) = match &measured.part {
            Part::Transactions(range) => (&self.groups[range.start], None),
            Part::Operations(group, range) => (&self.groups[*group], Some(range.start)),
        };
        let operations = match operation {
            Some(index) => &group.operations[index..=index],
            None => &group.operations[..],
        };
        let kinds: Vec<&str> = operations.iter().map(kind).collect();
        let change = match kinds.iter().all(|kind| *kind == kinds[0]) {
            true => kinds[0].to_owned(),
            false => format!("{} operations", kinds.len()),
        };
        let mut facts = operations.iter().flat_map(facts);
        let fact = facts.next().filter(|first| facts.all(|other| other == *first));
        let text = |text: Option<&str>| text.map_or(Value::Null, Value::text);
        let commit = group.committed.as_ref().map(|one| &one.commit);
        let answer = measured.answer.text(self.model)?;
        Ok(vec![
            group.committed.as_ref().map_or(Value::Null, |one| integer(one.lsn)),
            text(commit.and_then(|commit| commit.patch.as_deref())),
            operation.map_or(Value::Null, |index| integer(index as u64 + 1)),
            Value::text(change),
            text(fact.map(|fact| fact[0])),
            text(fact.map(|fact| fact[1])),
            text(fact.and_then(|fact| (!fact[2].is_empty()).then_some(fact[2]))),
            text(commit.map(|commit| commit.provenance.author.as_str())),
            Value::Real(self.whole.probability),
            Value::Real(measured.answer.probability),
            Value::Real(measured.contribution),
            Value::text(answer),
        ])
    }
}

/// A range in so many pieces at most, as even as they can be.
fn pieces(range: Range<usize>, count: usize) -> impl Iterator<Item = Range<usize>> {
    let (first, length) = (range.start, range.len());
    let count = count.min(length).max(1);
    (0..count)
        .map(move |piece| first + length * piece / count..first + length * (piece + 1) / count)
}

/// What an operation does, in a word or two.
fn kind(operation: &Operation) -> &'static str {
    match operation {
        Operation::SetFeature(set) => set.mode.name(),
        Operation::HideFeature(_) => "hide feature",
        Operation::RestoreFeature(_) => "restore feature",
        Operation::SetKnn(_) => "knn",
        Operation::DeleteKnn(_) => "delete knn",
        Operation::LowRank(_) => "memit",
        Operation::DropLowRank { .. } => "drop memit",
        Operation::Describe(_) => "describe",
        _ => "other",
    }
}

/// The facts that an operation states, or takes back: entity, relation and target.
fn facts(operation: &Operation) -> Vec<[&str; 3]> {
    match operation {
        Operation::SetFeature(set) => match (&set.entity, &set.relation, &set.target) {
            (Some(entity), Some(relation), target) => {
                vec![[entity, relation, target.as_deref().unwrap_or_default()]]
            }
            _ => Vec::new(),
        },
        Operation::SetKnn(knn) => {
            vec![[&*knn.fact.entity, &*knn.fact.relation, &*knn.fact.target]]
        }
        Operation::DeleteKnn(knn) => vec![[&*knn.entity, &*knn.relation, ""]],
        Operation::LowRank(update) => {
            let facts = update.facts.iter();
            facts.map(|fact| [&*fact.entity, &*fact.relation, &*fact.target]).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn a_range_is_cut_into_pieces_that_are_all_of_it() {
        for (range, count) in [(0..1, 8), (3..11, 8), (5..100, 8), (0..7, 3)] {
            let all: Vec<_> = pieces(range.clone(), count).collect();
            assert!(all.len() <= count && all.iter().all(|piece| !piece.is_empty()));
            assert_eq!(all.into_iter().flatten().collect::<Vec<_>>(), range.collect::<Vec<_>>());
        }
    }
}
