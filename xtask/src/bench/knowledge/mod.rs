//! What DESCRIBE knows of the bundled model, scored on entities that labels never saw: what
//! `docs/benchmarks/knowledge.md` records.
//!
//! Entities are divided into folds by their place in the table; labels are learned from all folds but
//! one, and scored on that one. Every figure stands beside what chance, frequency and strings alone
//! would reach. Nothing here is read by what it scores.

mod page;
mod scores;
mod table;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use self::scores::{Answer, Row, Scores};
use self::table::Facts;
use crate::daemon::{Daemon, output};

/// Relations that the run for discovery leaves out of the labels altogether.
const RELATIONS_HELD_OUT: [&str; 4] = ["capital", "currency", "symbol", "founder"];
/// Rows of an answer that count.
const TOP: usize = 10;
/// Edges whose ablation is measured in each fold.
const EDGES_VERIFIED: usize = 40;

/// What is measured: the choice of sources, and the least confidence of a claimed relation.
const SOURCES: [(&str, f64); 7] = [
    ("all", 0.5),
    ("probe", 0.5),
    ("residual", 0.5),
    ("gate", 0.5),
    ("gate+residual", 0.5),
    ("residual", 0.02),
    ("gate", 0.02),
];

/// A choice in words.
fn called((sources, confidence): (&str, f64)) -> String {
    format!("{sources}, confidence >= {confidence}")
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The checkpoint.
    pub model: PathBuf,
    /// The facts.
    pub facts: PathBuf,
    /// Parts that entities are divided into.
    pub folds: usize,
    /// Only the first so many of them.
    pub folds_run: usize,
    /// Write the page.
    pub record: bool,
}

/// Measures, prints the page, and writes it where asked.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    // Answers do not depend on how fast they come.
    let binaries = crate::build(false)?;
    let work = crate::target_directory().join("bench/knowledge");
    let _ = std::fs::remove_dir_all(&work);
    let daemon = Daemon::start(&binaries, &work)?;
    let facts = Facts::read(&options.facts)?;
    let vindex = extracted(&daemon, &options.model, "f16", "")?;
    let mut scores = Scores::default();
    for fold in 0..options.folds_run.min(options.folds) {
        let held = held_out(&facts, options.folds, fold);
        println!("fold {}: {} entities held out", fold + 1, held.len());
        let train = |entity: &str| !held.contains(&entity);
        label(&daemon, &vindex, &facts.part(&train, &[]))?;
        for sources in SOURCES {
            let answers = describe(&daemon, &vindex, &held, sources)?;
            scores.add(&called(sources), &facts, &train, &answers);
            if sources == SOURCES[0] {
                let edges = answers.iter().flat_map(|answer| {
                    let typed = answer.rows.iter().filter(|row| row.relation.is_some()).take(TOP);
                    typed.map(|row| (answer.entity.clone(), row.clone()))
                });
                let edges: Vec<(String, Row)> = edges.collect();
                let every = edges.len().div_ceil(EDGES_VERIFIED).max(1);
                let chosen: Vec<_> = edges.into_iter().step_by(every).collect();
                scores.verified.extend(verify(&daemon, &vindex, &chosen)?);
            }
        }
        if fold == 0 {
            let answers = describe(&daemon, &vindex, &held, SOURCES[0])?;
            let packed = extracted(&daemon, &options.model, "q4k", "QUANT Q4K")?;
            label(&daemon, &packed, &facts.part(&train, &[]))?;
            let others = describe(&daemon, &packed, &held, SOURCES[0])?;
            scores.jaccard = Some(scores::jaccard(&answers, &others));
            label(&daemon, &vindex, &facts.part(&train, &RELATIONS_HELD_OUT))?;
            let answers = describe(&daemon, &vindex, &held, SOURCES[0])?;
            scores.discovered = scores::discovered(&facts, &answers, &RELATIONS_HELD_OUT);
        }
    }
    let text = page::render(root, options, &scores)?;
    println!("{text}");
    if options.record {
        let path = root.join("docs/benchmarks/knowledge.md");
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn held_out(facts: &Facts, folds: usize, fold: usize) -> Vec<&str> {
    facts.entities().into_iter().skip(fold).step_by(folds).collect()
}

fn extracted(daemon: &Daemon, model: &Path, name: &str, options: &str) -> anyhow::Result<PathBuf> {
    let vindex = daemon.data.join(format!("{name}.vindex"));
    let statement = format!(
        "EXTRACT MODEL {} INTO {} WITH INFERENCE {options} WITHOUT LABELS",
        quoted(&model.display().to_string()),
        quoted(&vindex.display().to_string())
    );
    output(&mut daemon.larql(&["-q", "-c", &statement]))?;
    Ok(vindex)
}

fn label(daemon: &Daemon, vindex: &Path, table: &str) -> anyhow::Result<()> {
    let path = daemon.data.join("facts.tsv");
    std::fs::write(&path, table)?;
    let (vindex, path) = (vindex.display().to_string(), path.display().to_string());
    output(&mut daemon.larql(&["-q", "label", &vindex, "--facts", &path]))?;
    Ok(())
}

/// The answers of DESCRIBE about some entities.
fn describe(
    daemon: &Daemon,
    vindex: &Path,
    entities: &[&str],
    (sources, confidence): (&str, f64),
) -> anyhow::Result<Vec<Answer>> {
    let mut script = format!(
        "USE {}; SET describe_sources = '{sources}'; SET describe_confidence = {confidence};\n",
        quoted(&vindex.display().to_string())
    );
    for entity in entities {
        script.push_str(&format!("DESCRIBE {} LIMIT {};\n", quoted(entity), 3 * TOP));
    }
    let path = daemon.data.join("describe.lql");
    std::fs::write(&path, script)?;
    let text =
        output(&mut daemon.larql(&["-q", "-F", "ndjson", "-f", &path.display().to_string()]))?;
    let mut answers: Vec<Answer> = entities
        .iter()
        .map(|&entity| Answer { entity: entity.to_owned(), rows: Vec::new() })
        .collect();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let entity = row["entity"].as_str().unwrap_or_default();
        if let Some(answer) = answers.iter_mut().find(|answer| answer.entity == entity) {
            answer.rows.push(Row::parse(&row));
        }
    }
    Ok(answers)
}

/// Whether each edge loses more without its feature than without random ones.
fn verify(
    daemon: &Daemon,
    vindex: &Path,
    edges: &[(String, Row)],
) -> anyhow::Result<Vec<(String, bool)>> {
    let mut verified = Vec::new();
    for (entity, row) in edges {
        let relation = row.relation.as_deref().unwrap_or_default();
        let statement = format!(
            "USE {}; VERIFY EDGE WHERE entity = {} AND relation = {} AND target = {} AND layer = {} AND feature = {}",
            quoted(&vindex.display().to_string()),
            quoted(entity),
            quoted(relation),
            quoted(&row.target),
            row.layer,
            row.feature
        );
        let text = output(&mut daemon.larql(&["-q", "-F", "ndjson", "-c", &statement]))?;
        let found: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        verified.push((row.source.clone(), found["confirmed"].as_bool().unwrap_or(false)));
    }
    Ok(verified)
}

/// A string of LQL.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
