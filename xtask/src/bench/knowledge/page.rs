//! The page of the knowledge bench.

use std::fmt::Write as _;
use std::path::Path;

use super::scores::{Counts, Scores, calibration_error};
use super::{Options, RELATIONS_HELD_OUT, SOURCES, called};
use crate::daemon::machine;
use crate::statistics::bootstrap_of;

/// Writes the page.
pub fn render(root: &Path, options: &Options, scores: &Scores) -> anyhow::Result<String> {
    let mut text = String::from("# What DESCRIBE knows, measured\n\n");
    writeln!(
        text,
        "{}; command: `cargo xtask bench knowledge --folds {} --folds-run {} --record`.\n",
        machine(root)?,
        options.folds,
        options.folds_run
    )?;
    writeln!(
        text,
        "The bundled model and the facts that it was trained on. Labels are learned from all folds of entities but one and scored on that one; a pair is an \
         entity and a relation that it has, found when one of the first ten rows has that relation and a right object. Intervals are 95 % bootstrap intervals over \
         entities. *Other entity*: the same rows judged by the next entity that has the relation. *Most common*: always the object that most training entities have. \
         *Strings*: the known object that shares the longest run of letters with the name.\n"
    )?;
    writeln!(
        text,
        "| sources | entities | recall@10 | MRR | other entity | most common | strings | precision@10 of typed rows | typed rows | untyped rows | calibration error |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|---|---|---|")?;
    for sources in SOURCES {
        let sources = called(sources);
        let Some(entities) = scores.entities.get(&sources) else { continue };
        let all = entities.iter().fold(Counts::default(), |sum, one| sum.plus(one));
        let share = |of: fn(&Counts) -> (f64, f64)| {
            let interval = bootstrap_of(entities, |drawn| {
                let sums = drawn.iter().map(of);
                let (part, whole) = sums.fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
                if whole > 0.0 { part / whole } else { 0.0 }
            });
            format!("{:.3} ({:.3} to {:.3})", interval.median, interval.low, interval.high)
        };
        let error = scores.predictions.get(&sources).map_or(0.0, |made| calibration_error(made));
        writeln!(
            text,
            "| {sources} | {} | {} | {} | {:.3} | {:.3} | {:.3} | {} | {} | {} | {error:.3} |",
            entities.len(),
            share(|one| (one.found, one.pairs)),
            share(|one| (one.reciprocal, one.pairs)),
            all.chance / all.pairs,
            all.common / all.pairs,
            all.strings / all.pairs,
            share(|one| (one.right, one.typed)),
            all.typed,
            all.untyped,
        )?;
    }
    for sources in SOURCES {
        let sources = called(sources);
        let Some(relations) = scores.relations.get(&sources) else { continue };
        writeln!(text, "\n## By relation, sources {sources}\n")?;
        writeln!(
            text,
            "| relation | pairs | recall@10 | other entity | most common | strings | typed rows | right |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|---|")?;
        for (relation, one) in relations {
            let of = |part: f64| if one.pairs > 0.0 { part / one.pairs } else { 0.0 };
            writeln!(
                text,
                "| {relation} | {} | {:.3} | {:.3} | {:.3} | {:.3} | {} | {:.3} |",
                one.pairs,
                of(one.found),
                of(one.chance),
                of(one.common),
                of(one.strings),
                one.typed,
                if one.typed > 0.0 { one.right / one.typed } else { 0.0 }
            )?;
        }
    }
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
    let (pairs, found, chance) = scores.discovered;
    writeln!(
        text,
        "| objects shown of relations that labels never saw ({}) | {found} of {pairs}; of another entity {chance} |",
        RELATIONS_HELD_OUT.join(", ")
    )?;
    Ok(text)
}
