//! The page of the knowledge bench.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::baselines::Baseline;
use super::scores::{Choice, Judged, Pair, Scores, calibration_error};
use super::{Options, SOURCES, called};
use crate::bench::load;
use crate::daemon::machine;
use crate::statistics::bootstrap_of;

/// A part of a whole, of one entity.
type Share = (f64, f64);

/// Writes the page.
pub fn render(root: &Path, options: &Options, scores: &Scores) -> anyhow::Result<String> {
    let mut text = String::from("# What DESCRIBE knows, measured\n\n");
    writeln!(
        text,
        "{}; load average at the end {}; command: `cargo xtask bench knowledge --folds {} --folds-run {} --record`.\n",
        machine(root)?,
        load::average(),
        options.folds,
        options.folds_run
    )?;
    text.push_str(INTRODUCTION);
    of_sources(&mut text, scores)?;
    of_rows(&mut text, scores)?;
    of_baselines(&mut text, scores)?;
    of_relations(&mut text, scores)?;
    others(&mut text, scores)?;
    Ok(text)
}

const INTRODUCTION: &str = "The bundled model and the facts that it was trained on. Labels are learned from all folds of entities but one and scored on that one; a *pair* is an \
entity and a relation that it has, found when one of the first ten rows has that relation and a right object. The *known set* is the pairs that the model answers itself: its next token after a \
sentence of the relation (`tests/data/atlas-prompts.tsv`) begins a right object. Intervals are 95 % bootstrap intervals over entities. *Other entity*: the same rows judged by the next entity that has the relation.\n\n";

fn of_sources(text: &mut String, scores: &Scores) -> anyhow::Result<()> {
    writeln!(text, "## By source\n")?;
    writeln!(
        text,
        "| sources | pairs | recall@10 | recall@10, known set | other entity | MRR among all rows | MRR among the relation's rows |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|")?;
    for sources in SOURCES.map(called) {
        let Some(choice) = scores.choices.get(&sources) else { continue };
        let all = |_: &Pair| true;
        let known = |pair: &Pair| baseline(scores, pair).known;
        writeln!(
            text,
            "| {sources} | {} | {} | {} | {} | {} | {} |",
            choice.pairs.len(),
            share(choice, all, |pair| one(pair.place.is_some())),
            share(choice, known, |pair| one(pair.place.is_some())),
            share(choice, all, |pair| one(pair.chance)),
            share(choice, all, |pair| reciprocal(pair.place)),
            share(choice, all, |pair| reciprocal(pair.place_of_relation)),
        )?;
    }
    let mut of_entity: BTreeMap<&str, usize> = BTreeMap::new();
    for (entity, _) in scores.baselines.keys() {
        *of_entity.entry(entity).or_default() += 1;
    }
    let most: f64 = of_entity
        .values()
        .map(|&count| (1..=count).map(|place| 1.0 / place as f64).sum::<f64>())
        .sum();
    writeln!(
        text,
        "\nAmong all rows, an answer that has every pair of an entity first and nothing else has an MRR of {:.3}, as only one can stand first.\n",
        most / scores.baselines.len().max(1) as f64
    )?;
    Ok(())
}

fn of_rows(text: &mut String, scores: &Scores) -> anyhow::Result<()> {
    writeln!(text, "## Rows that claim a relation\n")?;
    writeln!(
        text,
        "| sources | rows of | typed rows | precision@10 | calibration error | untyped rows |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|")?;
    for sources in SOURCES.map(called) {
        let Some(choice) = scores.choices.get(&sources) else { continue };
        let mut kinds: BTreeSet<&str> = choice.rows.iter().map(|row| row.source.as_str()).collect();
        // All of them, then each where there are several.
        let alone = kinds.len() < 2;
        kinds.insert("");
        for kind in kinds.into_iter().filter(|kind| kind.is_empty() || !alone) {
            let rows = || choice.rows.iter().filter(|row| kind.is_empty() || row.source == kind);
            writeln!(
                text,
                "| {sources} | {} | {} | {} | {:.3} | {} |",
                if kind.is_empty() { "any" } else { kind },
                rows().count(),
                interval(by_entity(
                    rows().map(|row: &Judged| { (row.entity.as_str(), (one(row.right), 1.0)) })
                )),
                calibration_error(rows()),
                if kind.is_empty() { choice.untyped.to_string() } else { String::new() },
            )?;
        }
    }
    Ok(())
}

/// A baseline in words, and how it did on a pair.
type Named = (&'static str, fn(&Baseline) -> bool);

const BASELINES: [Named; 8] = [
    ("the model itself, asked by a sentence (the known set)", |one| one.known),
    ("always the object that most training entities have", |one| one.common),
    ("strings: the known object that shares the longest run of letters with the name", |one| {
        one.strings
    }),
    ("ten random features: a right object is the output token of one", |one| one.random),
    (
        "logit lens: the object's first token is among the first ten at the entity's last token",
        |one| one.lens,
    ),
    ("the same, another entity's object", |one| one.lens_chance),
    ("embedding neighbours: it is among the first ten of the last token's embedding", |one| {
        one.neighbours
    }),
    ("the same, another entity's object", |one| one.neighbours_chance),
];

fn of_baselines(text: &mut String, scores: &Scores) -> anyhow::Result<()> {
    writeln!(
        text,
        "\n## Without DESCRIBE\n\nThe lens and the neighbours are given the object to look for, count its first token for it, and name no relation: they are looser tests than those above.\n"
    )?;
    writeln!(text, "| what | share of pairs |\n|---|---|")?;
    for (name, of) in BASELINES {
        let pairs = scores.baselines.iter();
        let shares = pairs.map(|((entity, _), one_of)| (entity.as_str(), (one(of(one_of)), 1.0)));
        writeln!(text, "| {name} | {} |", interval(by_entity(shares)))?;
    }
    Ok(())
}

fn of_relations(text: &mut String, scores: &Scores) -> anyhow::Result<()> {
    let relations: BTreeSet<&str> =
        scores.baselines.keys().map(|(_, relation)| relation.as_str()).collect();
    writeln!(text, "\n## By relation\n\nRecall@10; the controls and baselines as above.\n")?;
    let shown = [0, 1, 5, 6, 7].map(|at| called(SOURCES[at]));
    write!(text, "| relation | pairs | known |")?;
    shown.iter().try_for_each(|sources| write!(text, " {sources} |"))?;
    writeln!(
        text,
        " other entity | most common | strings | logit lens | neighbours | rows, all | right |"
    )?;
    writeln!(text, "|---|---|---|{}---|---|---|---|---|---|---|", "---|".repeat(shown.len()))?;
    for relation in relations {
        let of_baseline = |of: fn(&Baseline) -> bool| {
            let pairs = scores.baselines.iter().filter(|((_, name), _)| name == relation);
            let all: Vec<f64> = pairs.map(|(_, baseline)| one(of(baseline))).collect();
            all.iter().sum::<f64>() / all.len().max(1) as f64
        };
        let is_of = |pair: &Pair| pair.relation == relation;
        let pairs = scores.baselines.keys().filter(|(_, name)| name == relation).count();
        write!(text, "| {relation} | {pairs} | {:.3} |", of_baseline(|one| one.known))?;
        for sources in &shown {
            let found = scores.choices.get(sources);
            let found = found.map(|choice| share(choice, is_of, |pair| one(pair.place.is_some())));
            write!(text, " {} |", found.unwrap_or_default())?;
        }
        let all = scores.choices.get(&shown[0]);
        let chance = all.map(|all| share(all, is_of, |pair| one(pair.chance)));
        let rows: Vec<f64> = all
            .into_iter()
            .flat_map(|all| &all.rows)
            .filter(|row| row.relation == relation)
            .map(|row| one(row.right))
            .collect();
        writeln!(
            text,
            " {} | {:.3} | {:.3} | {:.3} | {:.3} | {} | {:.3} |",
            chance.unwrap_or_default(),
            of_baseline(|one| one.common),
            of_baseline(|one| one.strings),
            of_baseline(|one| one.lens),
            of_baseline(|one| one.neighbours),
            rows.len(),
            rows.iter().sum::<f64>() / rows.len().max(1) as f64,
        )?;
    }
    Ok(())
}

fn others(text: &mut String, scores: &Scores) -> anyhow::Result<()> {
    writeln!(text, "\n## Other figures\n\n| what | value |\n|---|---|")?;
    let confirmed = scores.verified.iter().filter(|(_, confirmed)| *confirmed).count();
    writeln!(
        text,
        "| shown edges whose ablation costs the object more than at the 95th percentile of 100 random features of the layer | {confirmed} of {} ({:.2}) |",
        scores.verified.len(),
        confirmed as f64 / scores.verified.len().max(1) as f64
    )?;
    if let Some(jaccard) = scores.jaccard {
        writeln!(
            text,
            "| Jaccard@10 of (relation, target) between the f16 and the q4k extraction | {jaccard:.3} |"
        )?;
    }
    let unseen = |of: fn(bool, bool) -> bool| {
        let pairs = scores.unseen.iter();
        let shares =
            pairs.map(|pair| (pair.entity.as_str(), (one(of(pair.found, pair.chance)), 1.0)));
        interval(by_entity(shares))
    };
    writeln!(
        text,
        "| relations that labels never saw, a fold of them at a time: pairs whose object is shown, under whatever name ({} pairs) | {} |",
        scores.unseen.len(),
        unseen(|found, _| found)
    )?;
    writeln!(text, "| the same, another entity's object | {} |", unseen(|_, chance| chance))?;
    Ok(())
}

fn one(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn reciprocal(place: Option<usize>) -> f64 {
    place.map_or(0.0, |place| 1.0 / place as f64)
}

fn baseline(scores: &Scores, pair: &Pair) -> Baseline {
    let key = (pair.entity.clone(), pair.relation.clone());
    scores.baselines.get(&key).copied().unwrap_or_default()
}

/// The share of some pairs, with its interval.
fn share(choice: &Choice, wanted: impl Fn(&Pair) -> bool, of: impl Fn(&Pair) -> f64) -> String {
    let pairs = choice.pairs.iter().filter(|pair| wanted(pair));
    interval(by_entity(pairs.map(|pair| (pair.entity.as_str(), (of(pair), 1.0)))))
}

/// Adds up by entity, so that entities can be drawn again.
fn by_entity<'e>(cases: impl Iterator<Item = (&'e str, Share)>) -> Vec<Share> {
    let mut of: BTreeMap<&str, Share> = BTreeMap::new();
    for (entity, (part, whole)) in cases {
        let sum = of.entry(entity).or_default();
        *sum = (sum.0 + part, sum.1 + whole);
    }
    of.into_values().collect()
}

fn interval(entities: Vec<Share>) -> String {
    if entities.is_empty() {
        return "-".to_owned();
    }
    let found = bootstrap_of(&entities, |drawn| {
        let (part, whole) = drawn.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
        if whole > 0.0 { part / whole } else { 0.0 }
    });
    format!("{:.3} ({:.3} to {:.3})", found.median, found.low, found.high)
}
