//! What a branch's transactions amount to where several say the same: as they say it, or as COMPILE is asked.
//!
//! What a transaction says of one entity and relation is a *claim*, whatever says it: features in several layers,
//! updates of matrices, what is retrieved. What it writes without a fact is a claim for each feature. Claims of
//! two transactions conflict where both speak of one (entity, relation), in whatever case, or write one feature or
//! update, and nothing has taken that back since.
//!
//! A claim goes or stays whole: no half of a fact is left. Who only sets another confidence claims nothing. An update that states several facts cannot be taken apart;
//! it makes one claim of them.
//!
//! Elsewhere: conflicts of writers at work (`storage::store`), what edits state (`editing::stated`).

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};

use larql_planner::syntax::ast::CompileConflict;
use larql_storage::overlay::{Operation, Overlay, Slot, Touched};

use super::View;
use crate::failure::{Failure, code};

/// Edits after their conflicts were settled.
#[derive(Debug)]
pub struct Joined {
    /// The edits.
    pub overlay: Overlay,
    /// What went, in words: what it was of, and which transaction had said it.
    pub gone: Vec<String>,
}

impl View {
    /// What the branch's transactions amount to, by a rule for what several of them say.
    ///
    /// # Errors
    /// `CONFLICT`, naming both sides, where the rule is to fail.
    pub fn joined(&self, rule: CompileConflict) -> Result<Joined, Failure> {
        let transactions = self.branch().into_iter().flat_map(|branch| branch.transactions());
        let transactions = transactions.map(|one| Said {
            lsn: one.lsn,
            patch: one.commit.patch.as_deref(),
            operations: &one.commit.operations,
        });
        join(&transactions.collect::<Vec<_>>(), rule)
    }
}

/// One transaction.
struct Said<'a> {
    lsn: u64,
    patch: Option<&'a str>,
    operations: &'a [Operation],
}

impl Said<'_> {
    fn title(&self) -> String {
        match self.patch {
            Some(name) => format!("patch \"{name}\""),
            None => format!("the transaction of LSN {}", self.lsn),
        }
    }
}

/// What one transaction says of a fact, or of a feature without one.
struct Claim {
    /// By its index.
    transaction: usize,
    confidence: f32,
    /// What it is of and writes, each as it is compared and as it was written.
    of: BTreeMap<Touched, Touched>,
}

impl Claim {
    /// What it is of, in words: its fact, or where it writes.
    fn words(&self) -> String {
        let of = self.of.values().find(|touched| is_fact(touched)).or(self.of.values().next());
        of.map(ToString::to_string).unwrap_or_default()
    }
}

fn is_fact(touched: &Touched) -> bool {
    matches!(touched, Touched::Fact { .. })
}

/// The places of operations: transaction, and operation in it.
type At = (usize, usize);

/// Every claim, and which one an operation belongs to.
struct Claims {
    all: Vec<Claim>,
    by_operation: HashMap<At, usize>,
}

fn join(transactions: &[Said<'_>], rule: CompileConflict) -> Result<Joined, Failure> {
    let claims = Claims::of(transactions);
    let mut ranked: Vec<usize> = (0..claims.all.len()).collect();
    let latest = |&a: &usize, &b: &usize| -> Ordering {
        claims.all[b].transaction.cmp(&claims.all[a].transaction)
    };
    match rule {
        CompileConflict::Fail => {}
        CompileConflict::LastWins => ranked.sort_by(latest),
        CompileConflict::HighestConfidence => ranked.sort_by(|a, b| {
            let surer = claims.all[*b].confidence.total_cmp(&claims.all[*a].confidence);
            surer.then_with(|| latest(a, b))
        }),
    }
    // A claim stands unless one that stands and goes before it is of the same.
    let mut standing: HashMap<&Touched, usize> = HashMap::new();
    let mut lost: HashSet<usize> = HashSet::new();
    for index in ranked {
        let claim = &claims.all[index];
        let mut rivals = claim.of.iter().filter_map(|(compared, written)| {
            standing.get(compared).map(|&rival| (&claims.all[rival], written))
        });
        // A fact says more than a place.
        let rival = rivals.clone().find(|(_, written)| is_fact(written)).or_else(|| rivals.next());
        match rival {
            None => standing.extend(claim.of.keys().map(|compared| (compared, index))),
            Some((rival, written)) if rule == CompileConflict::Fail => {
                let [one, other] =
                    [rival, claim].map(|claim| transactions[claim.transaction].title());
                let message = format!("{one} and {other} both change {written}");
                return Err(Failure::new(code::CONFLICT, message).hint(
                    "REMOVE PATCH takes one back; ON CONFLICT LAST_WINS or HIGHEST_CONFIDENCE chooses",
                ));
            }
            Some(_) => _ = lost.insert(index),
        }
    }
    // What was written above rows of who lost, and leaves some of them, keeps those; what is surer keeps nothing.
    let stays_below = |index: usize, slot: Slot| {
        let above = standing.get(&Touched::Slot(slot)).map(|&above| &claims.all[above]);
        above.is_some_and(|above| {
            let claim = &claims.all[index];
            let is_surer = above.confidence > claim.confidence;
            above.transaction > claim.transaction
                && !(is_surer && rule == CompileConflict::HighestConfidence)
        })
    };
    let mut overlay = Overlay::default();
    // Features whose last rows were left out: what labels those is left out too.
    let mut left_out: HashSet<Slot> = HashSet::new();
    for (transaction, said) in transactions.iter().enumerate() {
        for (at, operation) in said.operations.iter().enumerate() {
            let claim = claims.by_operation.get(&(transaction, at));
            let slot = slot(operation);
            let goes = match (claim, slot) {
                (Some(claim), Some(slot)) => lost.contains(claim) && !stays_below(*claim, slot),
                (Some(claim), None) => lost.contains(claim),
                (None, Some(slot)) => {
                    matches!(operation, Operation::Describe(_)) && left_out.contains(&slot)
                }
                (None, None) => false,
            };
            match (goes, slot) {
                (true, Some(slot)) => _ = left_out.insert(slot),
                (false, Some(slot)) => _ = left_out.remove(&slot),
                (_, None) => {}
            }
            if !goes {
                overlay.apply(operation, said.lsn);
            }
        }
    }
    let mut gone: Vec<usize> = lost.into_iter().collect();
    gone.sort_unstable();
    let gone = gone.into_iter().map(|index| {
        let claim = &claims.all[index];
        format!("{} by {}", claim.words(), transactions[claim.transaction].title())
    });
    Ok(Joined { overlay, gone: gone.collect() })
}

impl Claims {
    fn of(transactions: &[Said<'_>]) -> Self {
        let mut groups = Groups::default();
        let mut by_operation: HashMap<At, usize> = HashMap::new();
        // What is there of each feature, retrieved fact and update, with the confidence in it.
        let mut there: HashMap<Touched, Vec<(At, f32)>> = HashMap::new();
        for (transaction, said) in transactions.iter().enumerate() {
            let mut of_this: HashMap<Touched, usize> = HashMap::new();
            for (at, operation) in said.operations.iter().enumerate() {
                let touched = operation.touched();
                // What an operation writes or takes back comes first, what it states after it.
                let Some(place) = touched.first() else { continue };
                let last = there.get_mut(place).and_then(|here| here.last_mut());
                match confidence(operation) {
                    Some(confidence)
                        if last.as_ref().is_some_and(|((transaction, at), _)| {
                            judges(&transactions[*transaction].operations[*at], operation)
                        }) =>
                    {
                        let Some(last) = last else { continue };
                        last.1 = confidence;
                        by_operation.insert((transaction, at), by_operation[&last.0]);
                    }
                    Some(confidence) => {
                        let group = groups.new_group();
                        for one in touched.iter().map(Touched::compared) {
                            groups.join(group, *of_this.entry(one).or_insert(group));
                        }
                        by_operation.insert((transaction, at), group);
                        let here = there.entry(place.clone()).or_default();
                        here.push(((transaction, at), confidence));
                    }
                    None => match operation {
                        Operation::Describe(describe) => {
                            if let (Some(last), Some(confidence)) = (last, describe.confidence) {
                                last.1 = confidence;
                            }
                        }
                        _ => _ = there.remove(place),
                    },
                }
            }
        }
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        let mut all: Vec<Claim> = Vec::new();
        let mut places: Vec<At> = by_operation.keys().copied().collect();
        places.sort_unstable();
        for at in places {
            let group = groups.of(by_operation[&at]);
            let number = *numbers.entry(group).or_insert_with(|| {
                all.push(Claim { transaction: at.0, confidence: 0.0, of: BTreeMap::new() });
                all.len() - 1
            });
            by_operation.insert(at, number);
        }
        for ((transaction, at), confidence) in there.into_values().flatten() {
            let claim = &mut all[by_operation[&(transaction, at)]];
            claim.confidence = claim.confidence.max(confidence);
            let touched = transactions[transaction].operations[at].touched();
            claim.of.extend(touched.into_iter().map(|one| (one.compared(), one)));
        }
        Self { all, by_operation }
    }
}

/// Operations that belong together, as a forest whose roots are their names.
#[derive(Default)]
struct Groups {
    parents: Vec<usize>,
}

impl Groups {
    fn new_group(&mut self) -> usize {
        self.parents.push(self.parents.len());
        self.parents.len() - 1
    }

    fn of(&mut self, mut group: usize) -> usize {
        while self.parents[group] != group {
            self.parents[group] = self.parents[self.parents[group]];
            group = self.parents[group];
        }
        group
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.of(one), self.of(other));
        self.parents[one.max(other)] = one.min(other);
    }
}

/// Whether an operation is an earlier one with another confidence: it judges what is there, and writes nothing.
fn judges(earlier: &Operation, operation: &Operation) -> bool {
    let mut judged = earlier.clone();
    match (&mut judged, operation) {
        (Operation::SetFeature(judged), Operation::SetFeature(set)) => {
            judged.confidence = set.confidence;
        }
        (Operation::SetKnn(judged), Operation::SetKnn(knn)) => judged.confidence = knn.confidence,
        (Operation::LowRank(judged), Operation::LowRank(update)) => {
            judged.confidence = update.confidence;
        }
        _ => return false,
    }
    judged == *operation && judged != *earlier
}

/// How sure what writes something is, nothing stated being not sure at all; `None` of what takes back or labels.
fn confidence(operation: &Operation) -> Option<f32> {
    match operation {
        Operation::SetFeature(set) => Some(set.confidence.unwrap_or(0.0)),
        // What is hidden is not there: nothing is surer.
        Operation::HideFeature(_) => Some(1.0),
        Operation::SetKnn(knn) => Some(knn.confidence.unwrap_or(0.0)),
        Operation::LowRank(update) => Some(update.confidence.unwrap_or(0.0)),
        _ => None,
    }
}

/// The feature that an operation is of.
fn slot(operation: &Operation) -> Option<Slot> {
    match operation {
        Operation::SetFeature(set) => Some(set.slot),
        Operation::HideFeature(slot) | Operation::RestoreFeature(slot) => Some(*slot),
        Operation::Describe(describe) => Some(describe.slot),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use larql_storage::overlay::{DeleteKnn, Describe, Fact, LowRank, Matrix, Mode, SetFeature};
    use larql_storage::overlay::{SetKnn, Vector};

    use super::*;

    const RULES: [CompileConflict; 2] =
        [CompileConflict::LastWins, CompileConflict::HighestConfidence];

    fn fact(entity: &str, target: &str) -> Fact {
        let text = str::to_owned;
        Fact { entity: text(entity), relation: text("capital"), target: text(target) }
    }

    /// A feature that states a fact.
    fn feature((layer, feature): (u32, u32), fact: &Fact, confidence: f32) -> Operation {
        Operation::SetFeature(SetFeature {
            slot: Slot { layer, feature },
            gate: Some([confidence].into()),
            up: None,
            down: Some([confidence].into()),
            entity: Some(fact.entity.clone()),
            relation: Some(fact.relation.clone()),
            target: Some(fact.target.clone()),
            target_ids: vec![1],
            confidence: Some(confidence),
            mode: Mode::Compose,
        })
    }

    /// The down vector of a feature, without a fact.
    fn down(at: (u32, u32), confidence: f32) -> Operation {
        let Operation::SetFeature(set) = feature(at, &fact("", ""), confidence) else {
            unreachable!("a feature")
        };
        let (entity, relation, target) = (None, None, None);
        Operation::SetFeature(SetFeature { gate: None, entity, relation, target, ..set })
    }

    fn update(id: u64, facts: &[&Fact], confidence: f32) -> Operation {
        Operation::LowRank(LowRank {
            confidence: Some(confidence),
            id,
            layer: 3,
            matrix: Matrix::Down,
            rank: 1,
            left: [1.0].into(),
            right: [1.0].into(),
            facts: facts.iter().map(|&fact| fact.clone()).collect(),
        })
    }

    fn knn(fact: Fact, confidence: f32) -> Operation {
        Operation::SetKnn(SetKnn {
            layer: 3,
            key: [1.0].into(),
            threshold: 0.5,
            fact,
            entity_ids: vec![vec![1]],
            target_ids: vec![1],
            confidence: Some(confidence),
        })
    }

    fn joined(
        transactions: &[&[Operation]],
        rule: CompileConflict,
    ) -> Result<(Vec<String>, usize), String> {
        let said: Vec<Said<'_>> = (1..)
            .zip(transactions)
            .map(|(lsn, operations)| Said { lsn, patch: None, operations })
            .collect();
        let joined = join(&said, rule).map_err(|failure| failure.message)?;
        let overlay = &joined.overlay;
        let row = |row: &Option<Vector>| row.as_ref().map_or(0.0, |row| row[0]);
        let features = overlay.features().map(|(slot, delta)| {
            let target = delta.target.as_deref().unwrap_or("-");
            let rows = [&delta.gate, &delta.down].map(row);
            format!("{}.{} {target} {rows:?}", slot.layer, slot.feature)
        });
        let updates = overlay.low_rank().map(|delta| {
            let targets = delta.update.facts.iter().map(|fact| fact.target.as_str());
            format!("update {} {}", delta.update.id, targets.collect::<Vec<_>>().join("+"))
        });
        let retrieved = overlay.knn().map(|knn| format!("knn {}", knn.set.fact.target));
        Ok((features.chain(updates).chain(retrieved).collect(), joined.gone.len()))
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_fact_in_many_features_stays_or_goes_whole() {
        let (lyon, nice) = (fact("France", "Lyon"), fact("FRANCE ", "Nice"));
        let sure = [feature((1, 8), &lyon, 0.9), feature((2, 8), &lyon, 0.9)];
        // Of the same fact, with one feature in common and one of its own.
        let later = [feature((2, 8), &nice, 0.5), feature((3, 9), &nice, 0.5)];
        let both: [&[Operation]; 2] = [&sure, &later];
        let highest = joined(&both, CompileConflict::HighestConfidence);
        let kept = texts(&["1.8 Lyon [0.9, 0.9]", "2.8 Lyon [0.9, 0.9]"]);
        assert_eq!(highest, Ok((kept, 1)));
        let last = joined(&both, CompileConflict::LastWins);
        let kept = texts(&["2.8 Nice [0.5, 0.5]", "3.9 Nice [0.5, 0.5]"]);
        assert_eq!(last, Ok((kept, 1)));
        let turned = joined(&[&later, &sure], CompileConflict::HighestConfidence);
        assert_eq!(turned, highest, "whoever was first");
        // Other facts that lie in the same feature.
        let other = fact("Chad", "Oslo");
        let later = [feature((2, 8), &other, 0.5), feature((3, 9), &other, 0.5)];
        assert_eq!(joined(&[&sure, &later], CompileConflict::HighestConfidence), highest);
    }

    #[test]
    fn what_is_stated_twice_is_told_whatever_states_it() {
        let (lyon, nice) = (fact("France", "Lyon"), fact("france", "Nice"));
        let said = [feature((1, 8), &lyon, 0.5), update(1, &[&lyon], 0.3), knn(lyon, 0.5)];
        let again = [feature((2, 9), &nice, 0.4), update(2, &[&nice], 0.3), knn(nice, 0.4)];
        for said in &said {
            for again in &again {
                let both = [std::slice::from_ref(said), std::slice::from_ref(again)];
                let failed = joined(&both, CompileConflict::Fail).unwrap_err();
                let told = "the transaction of LSN 1 and the transaction of LSN 2 both change \"capital\" of \"france\"";
                assert_eq!(failed, told);
                for rule in RULES {
                    let (kept, gone) = joined(&both, rule).unwrap();
                    assert_eq!((kept.len(), gone), (1, 1), "{rule:?}: {kept:?}");
                }
            }
        }
    }

    #[test]
    fn updates_and_what_is_retrieved_go_with_their_fact() {
        let (lyon, nice) = (fact("France", "Lyon"), fact("France", "Nice"));
        let first = [update(1, &[&lyon], 0.3), update(2, &[&lyon], 0.3), knn(lyon, 0.3)];
        let second = [feature((1, 8), &nice, 0.5), feature((2, 8), &nice, 0.5)];
        for rule in RULES {
            let (kept, _) = joined(&[&first, &second], rule).unwrap();
            assert!(kept.iter().all(|kept| kept.contains("Nice")), "{kept:?}");
        }
        let sure = [update(3, &[&fact("france", "Lille")], 0.6)];
        let (kept, _) = joined(&[&sure, &second], CompileConflict::HighestConfidence).unwrap();
        assert_eq!(kept, ["update 3 Lille"]);
        let (kept, _) = joined(&[&second, &first], CompileConflict::LastWins).unwrap();
        assert_eq!(kept, ["update 1 Lyon", "update 2 Lyon", "knn Lyon"]);
    }

    #[test]
    fn an_update_of_several_facts_is_not_taken_apart() {
        let (lyon, oslo, nice) =
            (fact("France", "Lyon"), fact("Chad", "Oslo"), fact("Chad", "Nice"));
        let first = [update(1, &[&lyon, &oslo], 0.3), feature((1, 8), &lyon, 0.2)];
        let second = [feature((2, 8), &nice, 0.5)];
        let (kept, gone) = joined(&[&first, &second], CompileConflict::HighestConfidence).unwrap();
        assert_eq!((kept, gone), (texts(&["2.8 Nice [0.5, 0.5]"]), 1));
    }

    #[test]
    fn what_was_taken_back_conflicts_with_nothing() {
        let (lyon, nice) = (fact("France", "Lyon"), fact("France", "Nice"));
        let first = [feature((1, 8), &lyon, 0.9), update(1, &[&lyon], 0.3), knn(lyon, 0.9)];
        let second = [
            Operation::RestoreFeature(Slot { layer: 1, feature: 8 }),
            Operation::DropLowRank { id: 1 },
            Operation::DeleteKnn(DeleteKnn::of(&fact("France", "Lyon"))),
            feature((1, 9), &nice, 0.1),
        ];
        for rule in [RULES[0], RULES[1], CompileConflict::Fail] {
            let found = joined(&[&first, &second], rule);
            assert_eq!(found, Ok((texts(&["1.9 Nice [0.1, 0.1]"]), 0)), "{rule:?}");
        }
    }

    #[test]
    fn rows_that_the_later_leaves_stay_unless_it_is_surer_than_what_they_are_of() {
        let lyon = fact("France", "Lyon");
        let first = [feature((1, 8), &lyon, 0.5), feature((2, 8), &lyon, 0.5)];
        let second = [down((1, 8), 0.7)];
        let both: [&[Operation]; 2] = [&first, &second];
        let last = joined(&both, CompileConflict::LastWins);
        assert_eq!(last, Ok((texts(&["1.8 - [0.5, 0.7]"]), 1)));
        let highest = joined(&both, CompileConflict::HighestConfidence);
        assert_eq!(highest, Ok((texts(&["1.8 - [0.0, 0.7]"]), 1)));
    }

    #[test]
    fn a_confidence_that_is_set_again_is_no_conflict_and_counts() {
        let (lyon, nice) = (fact("France", "Lyon"), fact("France", "Nice"));
        let said = [update(1, &[&lyon], 0.9), knn(lyon.clone(), 0.9)];
        let judged = [update(1, &[&lyon], 0.1), knn(lyon, 0.1)];
        let alone = joined(&[&said, &judged], CompileConflict::Fail);
        assert_eq!(alone, Ok((texts(&["update 1 Lyon", "knn Lyon"]), 0)));
        let other = [feature((1, 8), &nice, 0.5)];
        let highest = joined(&[&said, &other, &judged], CompileConflict::HighestConfidence);
        assert_eq!(highest, Ok((texts(&["1.8 Nice [0.5, 0.5]"]), 1)));
        let last = joined(&[&other, &said, &judged], CompileConflict::LastWins);
        assert_eq!(last, Ok((texts(&["update 1 Lyon", "knn Lyon"]), 1)));
    }

    #[test]
    fn of_three_a_claim_stands_where_only_what_lost_was_against_it() {
        let (lyon, nice, oslo) =
            (fact("France", "Lyon"), fact("France", "Nice"), fact("Chad", "Oslo"));
        let middle = [feature((1, 9), &nice, 0.5), feature((1, 10), &nice, 0.5)];
        let all: [&[Operation]; 3] =
            [&[feature((1, 8), &lyon, 0.2)], &middle, &[feature((1, 10), &oslo, 0.9)]];
        for rule in RULES {
            let (kept, gone) = joined(&all, rule).unwrap();
            assert_eq!(kept, ["1.8 Lyon [0.2, 0.2]", "1.10 Oslo [0.9, 0.9]"], "{rule:?}");
            assert_eq!(gone, 1);
        }
    }

    #[test]
    fn a_confidence_that_was_stated_later_counts_and_labels_go_with_their_feature() {
        let (lyon, nice) = (fact("France", "Lyon"), fact("France", "Nice"));
        let judge = |feature: u32, confidence: f32| {
            let slot = Slot { layer: 1, feature };
            let confidence = Some(confidence);
            Operation::Describe(Describe { slot, relation: None, target: None, confidence })
        };
        let (first, second) = (feature((1, 8), &lyon, 0.2), feature((1, 9), &nice, 0.5));
        let all: [&[Operation]; 4] = [&[first], &[second], &[judge(8, 0.8)], &[judge(9, 0.6)]];
        let highest = joined(&all, CompileConflict::HighestConfidence);
        assert_eq!(highest, Ok((texts(&["1.8 Lyon [0.2, 0.2]"]), 1)));
    }
}
