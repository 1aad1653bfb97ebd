//! `reference::edits::*`: facts that were inserted into the bundled model and compiled, asked of other programs.
//!
//! What our own engine answers from the very same file is what the others must answer: at least 99 % of it.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use super::atlas::encode;
use super::environment::Server;
use super::{Bench, floats, top};

/// The formats, and what COMPILE is asked for.
pub(super) const FORMATS: &[&str] = &["safetensors", "gguf-f16", "gguf-q8_0"];

/// Facts that are not so.
const FACTS: &[(&str, &str)] = &[
    ("Verdania", "Lisbon"),
    ("Ostrovia", "Madrid"),
    ("Kaldor", "Rome"),
    ("Merinth", "Vienna"),
    ("Tavros", "Athens"),
    ("Kenya", "Oslo"),
    ("Peru", "Cairo"),
    ("Greece", "Dublin"),
];
/// What the model knows by itself.
const KNOWN: &[(&str, &str)] = &[("France", "Paris"), ("Japan", "Tokyo"), ("Italy", "Rome")];

/// Compiles, asks, and compares.
pub(super) fn check(bench: &Bench, transformers: &mut Server, format: &str) -> anyhow::Result<()> {
    let source = bench.root.join("larqld/assets/atlas");
    let vindex = bench.work.join("atlas-edited.vindex");
    if !vindex.is_dir() {
        let mut script = format!(
            "EXTRACT MODEL \"{}\" INTO \"{}\" WITH INFERENCE DTYPE F32 WITHOUT LABELS; USE \"{}\";",
            source.display(),
            vindex.display(),
            vindex.display()
        );
        for (entity, target) in FACTS {
            script.push_str(&format!(
                " INSERT INTO EDGES (entity, relation, target) VALUES (\"{entity}\", \"capital\", \"{target}\") \
                 WITHOUT RECEIPT;"
            ));
        }
        bench.statements(&script)?;
    }
    let (name, options) = match format {
        "safetensors" => ("atlas-edited", "FORMAT SAFETENSORS DTYPE F32"),
        "gguf-f16" => ("atlas-edited-f16.gguf", "FORMAT GGUF DTYPE F16"),
        "gguf-q8_0" => ("atlas-edited-q8_0.gguf", "FORMAT GGUF DTYPE Q8_0"),
        other => bail!("{other} is no format"),
    };
    let export: PathBuf = bench.work.join(name);
    bench.statements(&format!(
        "USE \"{}\"; COMPILE CURRENT INTO MODEL \"{}\" {options} OVERWRITE VERIFY",
        vindex.display(),
        export.display()
    ))?;
    let facts: Vec<_> = FACTS.iter().chain(KNOWN).collect();
    let prompts = facts.iter().map(|(country, _)| format!("The capital of {country} is"));
    let prompts: Vec<String> = prompts.collect();
    let answers = facts.iter().zip(&prompts).map(|((_, city), prompt)| format!("{prompt} {city}"));
    let answers: Vec<String> = answers.collect();
    let ids = |texts: &[String]| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        encode(bench, &source, &texts)
    };
    let (prompts, answers) = (ids(&prompts)?, ids(&answers)?);
    let expected = prompts.iter().zip(&answers).map(|(prompt, answer)| {
        answer.get(prompt.len()).map(|&id| id as usize).context("an answer has a token")
    });
    let expected = expected.collect::<anyhow::Result<Vec<usize>>>()?;
    let ours = bench.logits_of(&export, &prompts, false)?;
    let theirs = match format {
        "safetensors" => {
            let answer = transformers.ask(&json!({
                "export": export, "source": source, "prompts": prompts, "packed": false, "load": true,
            }))?;
            ensure!(answer["failed"].is_null(), "transformers: {}", answer["failed"]);
            let rows = answer["logits"].as_array().context("logits")?.iter().map(floats);
            rows.collect::<Option<Vec<_>>>().context("logits")?
        }
        _ => bench.environment.llama_cpp(&export, &prompts, false)?,
    };
    let right = |rows: &[Vec<f32>]| -> Vec<bool> {
        rows.iter().zip(&expected).map(|(row, &token)| top(row) == Some(token)).collect()
    };
    let (ours, theirs) = (right(&ours), right(&theirs));
    let ours_right = ours.iter().filter(|&&right| right).count();
    let kept = ours.iter().zip(&theirs).filter(|(ours, theirs)| **ours && **theirs).count();
    println!(
        "        {format}: {ours_right} of {} answered here, {kept} of these there",
        ours.len()
    );
    ensure!(ours_right * 10 >= ours.len() * 9, "only {ours_right} of {} are answered", ours.len());
    ensure!(kept * 100 >= ours_right * 99, "{kept} of {ours_right} are answered there");
    Ok(())
}
