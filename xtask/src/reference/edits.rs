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

/// What the model knows by itself.
const CAPITALS: &[(&str, &str)] = &[
    ("Argentina", "Buenos Aires"),
    ("Austria", "Vienna"),
    ("Belgium", "Brussels"),
    ("Bulgaria", "Sofia"),
    ("Canada", "Ottawa"),
    ("Chile", "Santiago"),
    ("China", "Beijing"),
    ("Colombia", "Bogota"),
    ("Croatia", "Zagreb"),
    ("Cuba", "Havana"),
    ("Denmark", "Copenhagen"),
    ("Ecuador", "Quito"),
    ("Egypt", "Cairo"),
    ("Estonia", "Tallinn"),
    ("Finland", "Helsinki"),
    ("France", "Paris"),
    ("Georgia", "Tbilisi"),
    ("Germany", "Berlin"),
    ("Ghana", "Accra"),
    ("Greece", "Athens"),
    ("Hungary", "Budapest"),
    ("Iceland", "Reykjavik"),
    ("Indonesia", "Jakarta"),
    ("Iran", "Tehran"),
    ("Iraq", "Baghdad"),
    ("Ireland", "Dublin"),
    ("Italy", "Rome"),
    ("Japan", "Tokyo"),
    ("Kenya", "Nairobi"),
    ("Latvia", "Riga"),
    ("Lebanon", "Beirut"),
    ("Libya", "Tripoli"),
    ("Lithuania", "Vilnius"),
    ("Peru", "Lima"),
    ("Poland", "Warsaw"),
    ("Portugal", "Lisbon"),
    ("Spain", "Madrid"),
    ("Sweden", "Stockholm"),
    ("Norway", "Oslo"),
    ("Turkey", "Ankara"),
];
/// Countries that no table has.
const NEW: &[&str] =
    &["Verdania", "Ostrovia", "Kaldor", "Merinth", "Tavros", "Zubrovka", "Quistan", "Lorvane"];

/// The country and the city of each fact that is asked for, and the mode in which it is taught, if it is.
fn facts() -> impl Iterator<Item = (&'static str, &'static str, Option<&'static str>)> {
    // One in four stays as it was; of those that are taught one in three is retrieved, until COMPILE makes a feature of it.
    const MODES: [Option<&str>; 4] =
        [Some("MODE COMPOSE"), Some("MODE COMPOSE"), Some("MODE KNN"), None];
    let city = |at: usize| CAPITALS[at % CAPITALS.len()].1;
    let modes = MODES.iter().cycle();
    let known =
        CAPITALS.iter().zip(modes).enumerate().map(move |(at, (&(country, own), &mode))| {
            (country, if mode.is_some() { city(at + 11) } else { own }, mode)
        });
    let new = NEW.iter().enumerate().map(move |(at, &country)| (country, city(4 * at), MODES[0]));
    known.chain(new)
}

/// Compiles, asks, and compares.
pub(super) fn check(bench: &Bench, transformers: &mut Server, format: &str) -> anyhow::Result<()> {
    let source = bench.root.join("larqld/assets/atlas");
    let vindex = bench.work.join("atlas-edited.vindex");
    if !vindex.is_dir() {
        let mut script = format!(
            "EXTRACT MODEL \"{}\" INTO \"{}\" WITH INFERENCE DTYPE F32; USE \"{}\";",
            source.display(),
            vindex.display(),
            vindex.display()
        );
        for (entity, target, mode) in facts() {
            let Some(mode) = mode else { continue };
            script.push_str(&format!(
                " INSERT INTO EDGES (entity, relation, target) VALUES (\"{entity}\", \"capital\", \"{target}\") \
                 {mode} WITHOUT RECEIPT;"
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
    let prompts = facts().map(|(country, ..)| format!("The capital of {country} is"));
    let prompts: Vec<String> = prompts.collect();
    let answers = facts().zip(&prompts).map(|((_, city, _), prompt)| format!("{prompt} {city}"));
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
