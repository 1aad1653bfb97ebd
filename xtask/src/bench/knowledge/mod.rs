//! What DESCRIBE knows of the bundled model, scored on entities and relations that labels never saw:
//! what `docs/benchmarks/knowledge.md` records.
//!
//! Entities are divided into folds by their place in the table; labels are learned from all folds but
//! one, and scored on that one. Relations are divided the same way: each fold is scored once more
//! with labels that never saw its relations either. Every figure stands beside what chance,
//! frequency, strings and the two plainest readings of a model would reach ([`baselines`]). Nothing
//! here is read by what it scores.

mod baselines;
mod page;
mod scores;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use self::scores::{Answer, Row, Scores};
use self::table::{Facts, Prompts};
use crate::daemon::{Daemon, output};

/// Rows of an answer that count.
const TOP: usize = 10;
/// Edges whose ablation is measured in each fold.
const EDGES_VERIFIED: usize = 40;

/// What is measured: the choice of sources, and the least confidence of a claimed relation.
const SOURCES: [(&str, f64); 8] = [
    ("all", 0.5),
    ("probe", 0.5),
    ("residual", 0.5),
    ("gate", 0.5),
    ("gate+residual", 0.5),
    ("gate+residual", 0.02),
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
    /// A sentence for each relation, to learn what the model answers itself.
    pub prompts: PathBuf,
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
    let binaries = crate::build(true)?;
    let work = crate::target_directory().join("bench/knowledge");
    let _ = std::fs::remove_dir_all(&work);
    let daemon = Daemon::start(&binaries, &work)?;
    let facts = Facts::read(&options.facts)?;
    let prompts = Prompts::read(&options.prompts)?;
    let vindex = extracted(&daemon, &options.model, "f16", "")?;
    let mut scores = Scores::default();
    let features = baselines::features(&daemon, &vindex)?;
    for fold in 0..options.folds_run.min(options.folds) {
        let held = held_out(&facts, options.folds, fold);
        println!("fold {}: {} entities held out", fold + 1, held.len());
        let train = |entity: &str| !held.contains(&entity);
        scores.baselines.append(&mut baselines::measure(
            &daemon, &vindex, &facts, &prompts, &features, &held, &train,
        )?);
        label(&daemon, &vindex, &facts.part(&train, &[]))?;
        for sources in SOURCES {
            let answers = describe(&daemon, &vindex, &held, sources)?;
            scores.add(&called(sources), &facts, &answers);
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
        }
        let relations = facts.relations();
        let unseen: Vec<&str> =
            relations.iter().skip(fold).step_by(options.folds).map(String::as_str).collect();
        label(&daemon, &vindex, &facts.part(&train, &unseen))?;
        let answers = describe(&daemon, &vindex, &held, SOURCES[0])?;
        scores.add_unseen(&facts, &answers, &unseen);
    }
    let text = page::render(root, options, &scores)?;
    println!("{text}");
    if options.record {
        let path = root.join("docs/benchmarks/knowledge.md");
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        // What was written by hand stays.
        let notes = old.find("\n## Notes").map_or("", |at| &old[at..]);
        std::fs::write(&path, text + notes).with_context(|| path.display().to_string())?;
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

/// The rows that a script of statements answers.
fn rows(daemon: &Daemon, vindex: &Path, script: &str) -> anyhow::Result<Vec<Value>> {
    let script = format!("USE {};\n{script}", quoted(&vindex.display().to_string()));
    let path = daemon.data.join("script.lql");
    std::fs::write(&path, script)?;
    let text =
        output(&mut daemon.larql(&["-q", "-F", "ndjson", "-f", &path.display().to_string()]))?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// The answers of DESCRIBE about some entities.
fn describe(
    daemon: &Daemon,
    vindex: &Path,
    entities: &[&str],
    (sources, confidence): (&str, f64),
) -> anyhow::Result<Vec<Answer>> {
    let mut script =
        format!("SET describe_sources = '{sources}'; SET describe_confidence = {confidence};\n");
    for entity in entities {
        script.push_str(&format!("DESCRIBE {} LIMIT {};\n", quoted(entity), 3 * TOP));
    }
    let mut of: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in rows(daemon, vindex, &script)? {
        let entity = row["entity"].as_str().unwrap_or_default();
        of.entry(entity.to_owned()).or_default().push(Row::parse(&row));
    }
    let answers = entities.iter().map(|&entity| Answer {
        entity: entity.to_owned(),
        rows: of.remove(entity).unwrap_or_default(),
    });
    Ok(answers.collect())
}

/// Whether each edge loses more without its feature than without random ones.
fn verify(
    daemon: &Daemon,
    vindex: &Path,
    edges: &[(String, Row)],
) -> anyhow::Result<Vec<(String, bool)>> {
    let statements = edges.iter().map(|(entity, row)| {
        let relation = row.relation.as_deref().unwrap_or_default();
        format!(
            "VERIFY EDGE WHERE entity = {} AND relation = {} AND target = {} AND layer = {} AND feature = {};\n",
            quoted(entity),
            quoted(relation),
            quoted(&row.target),
            row.layer,
            row.feature
        )
    });
    let found = rows(daemon, vindex, &statements.collect::<String>())?;
    anyhow::ensure!(found.len() == edges.len(), "{} rows of {}", found.len(), edges.len());
    let verified = edges.iter().zip(found).map(|((_, row), found)| {
        (row.source.clone(), found["confirmed"].as_bool().unwrap_or(false))
    });
    Ok(verified.collect())
}

/// A string of LQL.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
