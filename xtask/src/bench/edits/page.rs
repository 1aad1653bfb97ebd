//! The page of edits.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::{Mode, Options, Run};
use crate::bench::load;
use crate::daemon::machine;
use crate::statistics::wilson;

/// What an edit should reach: (what, of retrieval, of weights).
struct Target {
    what: &'static str,
    least: bool,
    knn: f64,
    weights: f64,
    of: fn(&Run) -> f64,
}

const TARGETS: [Target; 9] = [
    Target {
        what: "new fact answered exactly, free generation, single edits",
        least: true,
        knn: 0.98,
        weights: 0.95,
        of: |run| share(&run.found["single"]["efficacy"]),
    },
    Target {
        what: "paraphrases of the same",
        least: true,
        knn: 0.90,
        weights: 0.85,
        of: |run| share(&run.found["single"]["paraphrases_understood"]),
    },
    Target {
        what: "after sequential edits: the plain prompt",
        least: true,
        knn: 0.98,
        weights: 0.90,
        of: |run| share(&last(run)["efficacy"]),
    },
    Target {
        what: "after sequential edits: paraphrases",
        least: true,
        knn: 0.90,
        weights: 0.75,
        of: |run| share(&last(run)["paraphrases_understood"]),
    },
    Target {
        what: "neighbours and distractors: likeliest token kept",
        least: true,
        knn: 0.995,
        weights: 0.97,
        of: |run| share(&run.found["single"]["kept"]),
    },
    Target {
        what: "the same: median loss, in points",
        least: false,
        knn: 1.0,
        weights: 2.0,
        of: |run| number(&run.found["single"]["loss"]["median"]),
    },
    Target {
        what: "the same: worst of 50, in points, median over edits",
        least: false,
        knn: 5.0,
        weights: 10.0,
        of: |run| number(&run.found["single"]["worst"]["median"]),
    },
    Target {
        what: "drift after one edit, bits/token",
        least: false,
        knn: 0.001,
        weights: 0.02,
        of: |run| number(&run.found["single"]["drift"]["median"]),
    },
    Target {
        what: "drift after 100 edits, bits/token",
        least: false,
        knn: 0.001,
        weights: 0.02,
        of: |run| number(&at_step(run, 100)["drift"]["median"]),
    },
];

/// Writes the page.
pub fn render(root: &Path, options: &Options, runs: &[Run]) -> anyhow::Result<String> {
    let mut text = String::from("# Edits, measured\n\n");
    writeln!(
        text,
        "{}; load average at the end {}; command: `cargo xtask bench edits --edits {} --sequential {} --batch {}{}{} --record`.\n",
        machine(root)?,
        load::average(),
        options.edits,
        options.sequential,
        options.batch,
        if options.tuning { " --tuning" } else { "" },
        if options.small { " --small" } else { "" },
    )?;
    writeln!(
        text,
        "Edits are made by what INSERT calls, on vindexes with the labels that EXTRACT gives them, and asked for as GENERATE asks. New targets are other objects of the relation; one edit in twelve \
         is about a name that is in no table. Entities are those of {}. A paraphrase is a prompt that the editor does not read: the templates that were held out from the model's training, and \
         `tests/data/atlas-phrasings.tsv`; *understood* are those by which the base answers what was true before. Each edit has 50 neighbours: names that contain one another, the entity's other \
         relations, the relation of others, prompts about the new object, negation, the entity mentioned in passing, sentences about nothing in the table; *unread* are those that nothing that makes edits has read. Shares stand with 95 % Wilson intervals.\n",
        if options.tuning {
            "the half that methods are tuned on"
        } else {
            "the half that nothing was tuned on"
        }
    )?;
    targets(&mut text, runs)?;
    singles(&mut text, runs)?;
    kinds(&mut text, runs)?;
    curves(&mut text, runs)?;
    Ok(text)
}

fn targets(text: &mut String, runs: &[Run]) -> anyhow::Result<()> {
    write!(text, "## Targets\n\n| what | KNN | weights |")?;
    runs.iter().try_for_each(|run| write!(text, " {}, {} |", run.base.name(), run.mode.name()))?;
    writeln!(text, "\n|---|---|---|{}", "---|".repeat(runs.len()))?;
    for Target { what, least, knn, weights, of } in TARGETS {
        let sign = if least { "≥" } else { "≤" };
        write!(text, "| {what} | {sign} {knn} | {sign} {weights} |")?;
        for run in runs {
            let bound = if run.mode == Mode::Knn { knn } else { weights };
            let found = of(run);
            let met = if least { found >= bound } else { found <= bound };
            match found.is_nan() {
                true => write!(text, " - |")?,
                false => write!(
                    text,
                    " {}{} |",
                    if met { "" } else { "**missed** " },
                    figure(found, least)
                )?,
            }
        }
        writeln!(text)?;
    }
    Ok(())
}

fn singles(text: &mut String, runs: &[Run]) -> anyhow::Result<()> {
    writeln!(
        text,
        "\n## Single edits\n\n| base | mode | plain prompt | paraphrases, all | understood | invented names | their paraphrases | likeliest token kept | the same of unread neighbours | loss: median, 98th percentile | worst of 50: median, 90th percentile, most | drift: median, most | seconds an edit | refused |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for run in runs {
        let found = &run.found["single"];
        let points = |name: &str, which: &[&str]| -> String {
            let each = which.iter().map(|one| format!("{:.1}", number(&found[name][*one])));
            each.collect::<Vec<_>>().join(", ")
        };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.5}, {:.5} | {:.2} | {} |",
            run.base.name(),
            run.mode.name(),
            interval(&found["efficacy"]),
            interval(&found["paraphrases"]),
            interval(&found["paraphrases_understood"]),
            interval(&found["invented"]),
            interval(&found["invented_paraphrases"]),
            interval(&found["kept"]),
            interval(&found["kept_unread"]),
            points("loss", &["median", "p98"]),
            points("worst", &["median", "p90", "most"]),
            number(&found["drift"]["median"]),
            number(&found["drift"]["most"]),
            number(&found["seconds"]["median"]),
            found["refused"],
        )?;
    }
    Ok(())
}

/// Each kind of neighbour, of the first base.
fn kinds(text: &mut String, runs: &[Run]) -> anyhow::Result<()> {
    let Some(first) = runs.first() else { return Ok(()) };
    let runs: Vec<&Run> = runs.iter().filter(|run| run.base == first.base).collect();
    write!(text, "\n## Neighbours by kind, {}\n\n| kind |", first.base.name())?;
    for run in &runs {
        let mode = run.mode.name();
        write!(text, " {mode}: kept | median, 90th, 98th percentile of the loss |")?;
    }
    writeln!(text, "\n|---|{}", "---|".repeat(2 * runs.len()))?;
    let Some(kinds) = first.found["single"]["kinds"].as_object() else { return Ok(()) };
    for kind in kinds.keys() {
        write!(text, "| {kind} |")?;
        for run in &runs {
            let of = &run.found["single"]["kinds"][kind];
            let loss = |which: &str| number(&of["loss"][which]);
            write!(
                text,
                " {} | {:.1}, {:.1}, {:.1} |",
                interval(&of["kept"]),
                loss("median"),
                loss("p90"),
                loss("p98")
            )?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn curves(text: &mut String, runs: &[Run]) -> anyhow::Result<()> {
    writeln!(
        text,
        "\n## Capacity: edits on top of one another\n\n| base | mode | edits | plain prompt | paraphrases, all | understood | likeliest token kept | loss: median, 98th percentile | worst of 50: median | drift | seconds an edit |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for run in runs {
        for step in run.found["sequential"].as_array().into_iter().flatten() {
            let found = &step["scores"];
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {:.1}, {:.1} | {:.1} | {:.4} | {:.2} |",
                run.base.name(),
                run.mode.name(),
                step["edits"],
                interval(&found["efficacy"]),
                interval(&found["paraphrases"]),
                interval(&found["paraphrases_understood"]),
                interval(&found["kept"]),
                number(&found["loss"]["median"]),
                number(&found["loss"]["p98"]),
                number(&found["worst"]["median"]),
                number(&found["drift"]["median"]),
                number(&found["seconds"]["median"]),
            )?;
        }
    }
    Ok(())
}

/// The last step of edits on top of one another.
fn last(run: &Run) -> &Value {
    let steps = run.found["sequential"].as_array();
    steps.and_then(|steps| steps.last()).map_or(&Value::Null, |step| &step["scores"])
}

fn at_step(run: &Run, edits: u64) -> &Value {
    let steps = run.found["sequential"].as_array().into_iter().flatten();
    let mut steps = steps.filter(|step| step["edits"].as_u64() == Some(edits));
    steps.next().map_or(&Value::Null, |step| &step["scores"])
}

fn figure(found: f64, share: bool) -> String {
    match share {
        true => format!("{:.1} %", 100.0 * found),
        false if found.abs() < 0.1 => format!("{found:.5}"),
        false => format!("{found:.1}"),
    }
}

fn counts(of: &Value) -> (f64, f64) {
    (number(&of[0]), number(&of[1]))
}

fn share(of: &Value) -> f64 {
    let (right, all) = counts(of);
    right / all
}

fn interval(of: &Value) -> String {
    let (right, all) = counts(of);
    if all.is_nan() || all == 0.0 {
        return "-".to_owned();
    }
    let (low, high) = wilson(right, all);
    format!(
        "{right}/{all} = {:.1} % ({:.1} to {:.1})",
        100.0 * right / all,
        100.0 * low,
        100.0 * high
    )
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}
