//! What edits do to a model's answers: to the fact, to paraphrases, to neighbours and distractors, to
//! a text. Prints one JSON object; `cargo xtask bench edits` makes the page of it.
//!
//!     cargo run -p larqld --example measure_edits -- --model DIR --facts FILE --probes FILE \
//!         --phrasings FILE --mode knn --edits 100 --sequential 500
//!
//! Edits are made by what INSERT calls, and taken by the passes that answer statements. Facts are those of one half
//! of the table's entities (the other half is for tuning). Paraphrases that the editor uses itself are left out; of
//! neighbours, those that nothing that makes edits has read are counted by themselves, too.

mod asker;
mod questions;
mod scores;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use larql_compute::cpu::{Cancel, Pool};
use larql_storage::file::{DiskFiles, Files};
use larql_storage::overlay::{Fact, Mode, Overlay};
use larqld::editing::applied::{Applied, Identity};
use larqld::editing::background::{Looks, prompts_read};
use larqld::editing::maker::Maker;
use larqld::editing::making::{Manner, looked_at, make};
use larqld::editing::prompts::Prompter;
use larqld::mounts::Model;
use serde_json::json;

use self::asker::Asker;
use self::questions::{Neighbour, Questions};
use self::scores::Scores;

type Problem = Box<dyn std::error::Error>;

/// Tokens that an answer may take.
const ANSWER_TOKENS: usize = 10;
/// Numbers of edits at which sequential ones are looked at.
const STEPS: [usize; 7] = [1, 10, 50, 100, 200, 350, 500];
/// Edits whose answers are asked for at each step but the last, and whose neighbours are at every step.
const LOOKED_AT: usize = 40;
/// Sentences that drift is measured on, and how many of them after a single edit.
const SENTENCES: usize = 160;
const SENTENCES_SINGLE: usize = 24;
/// Text besides.
const TEXT: &str = "The old bridge was closed for repairs last spring. Our neighbours grow tomatoes and beans behind \
their house. A small boat came into the harbour with a cargo of salt. Nobody remembered who had written the song. The \
lesson begins at nine and ends before noon. He asked for a glass of water and a piece of bread. Snow fell on the hills.";

struct Measuring<'a> {
    model: &'a Model,
    pool: &'a Pool,
    cancel: &'a Cancel,
    asker: Asker<'a>,
    questions: Questions,
    sentences: Vec<String>,
    misses: bool,
    /// Prompts that the editor looks at a base by.
    read: HashSet<Vec<u32>>,
}

fn main() -> Result<(), Problem> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|one| one == name)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let path =
        |name: &'static str| option(name).map(Path::new).ok_or(format!("{name} FILE is missing"));
    let number = |name: &str, usual: u64| option(name).map_or(Ok(usual), str::parse::<u64>);
    let mode =
        option("--mode").and_then(Mode::from_name).ok_or("--mode is knn, compose or memit")?;
    let edits = number("--edits", 20)? as usize;
    let sequential = number("--sequential", 0)? as usize;
    let batch = number("--batch", 1)? as usize;
    let half = number("--half", 1)?;
    let files: Arc<dyn Files> = Arc::new(DiskFiles);
    let (pool, cancel) = (Pool::new(number("--threads", 2)? as usize), Cancel::new());
    let model = Model::open(&files, path("--model")?, &cancel)?;
    let seed = number("--seed", 1)?;
    let mut questions =
        Questions::read(path("--facts")?, path("--probes")?, path("--phrasings")?, seed)?;
    let mut sentences = questions.sentences(SENTENCES, half);
    sentences.extend(TEXT.split_inclusive(". ").map(|sentence| sentence.trim().to_owned()));
    let asker = Asker::new(&model, &pool, &cancel)?;
    let misses = arguments.iter().any(|one| one == "--misses");
    let mut measuring = Measuring {
        model: &model,
        pool: &pool,
        cancel: &cancel,
        asker,
        questions,
        sentences,
        misses,
        read: HashSet::new(),
    };
    let single = measuring.single(mode, edits, half)?;
    let curve = match sequential {
        0 => Vec::new(),
        _ => measuring.sequential(mode, sequential, batch, half)?,
    };
    println!(
        "{}",
        json!({"single": single, "sequential": curve, "labels": model.knowledge().is_some()})
    );
    Ok(())
}

impl Measuring<'_> {
    /// Each edit by itself.
    fn single(
        &mut self,
        mode: Mode,
        count: usize,
        half: u64,
    ) -> Result<serde_json::Value, Problem> {
        let mut scores = Scores::default();
        let text: Vec<String> =
            self.sentences[..SENTENCES_SINGLE.min(self.sentences.len())].to_vec();
        let bits = self.asker.bits(&text, &Applied::default())?;
        for fact in self.questions.choose(count, half) {
            let began = Instant::now();
            let mut stored = Overlay::default();
            if let Err(failure) = self.insert(std::slice::from_ref(&fact), mode, &mut stored) {
                if self.misses {
                    eprintln!("refused {fact:?}: {failure}");
                }
                scores.refused += 1;
                scores.efficacy.add(false);
                continue;
            }
            scores.seconds.push(began.elapsed().as_secs_f64());
            let applied = Applied::new(self.model, stored, Identity::default())?;
            self.score_answers(&fact, &applied, &mut scores)?;
            self.score_neighbours(&fact, &applied, &BTreeSet::new(), &mut scores)?;
            scores.drift.push(self.asker.bits(&text, &applied)? - bits);
        }
        Ok(scores.json())
    }

    /// Edits on top of one another, by statements of `batch` facts.
    fn sequential(
        &mut self,
        mode: Mode,
        count: usize,
        batch: usize,
        half: u64,
    ) -> Result<Vec<serde_json::Value>, Problem> {
        let facts = self.questions.choose(count, half);
        let mut stored = Overlay::default();
        let sentences = self.sentences.clone();
        let bits = self.asker.bits(&sentences, &Applied::default())?;
        let mut steps = Vec::new();
        let (mut made, mut refused) = (0, 0);
        let began = Instant::now();
        for (index, some) in facts.chunks(batch.max(1)).enumerate() {
            let before = made;
            if let Err(failure) = self.insert(some, mode, &mut stored) {
                if self.misses {
                    eprintln!("refused {some:?}: {failure}");
                }
                refused += some.len();
            }
            made += some.len();
            let last = (index + 1) * batch.max(1) >= facts.len();
            if !last && !STEPS.iter().any(|step| (before + 1..=made).contains(step)) {
                continue;
            }
            let mut scores = Scores::default();
            scores.refused = refused;
            scores.seconds.push(began.elapsed().as_secs_f64() / made as f64);
            let applied = Applied::new(self.model, stored.clone(), Identity::default())?;
            let done = &facts[..made];
            let edited: BTreeSet<(String, String)> =
                done.iter().map(|fact| (fact.entity.clone(), fact.relation.clone())).collect();
            let asked = if last { done.len() } else { LOOKED_AT };
            for fact in done.iter().step_by(done.len().div_ceil(asked)) {
                self.score_answers(fact, &applied, &mut scores)?;
            }
            for fact in done.iter().step_by(done.len().div_ceil(LOOKED_AT)) {
                self.score_neighbours(fact, &applied, &edited, &mut scores)?;
            }
            scores.drift.push(self.asker.bits(&sentences, &applied)? - bits);
            steps.push(json!({"edits": made, "scores": scores.json()}));
        }
        Ok(steps)
    }

    /// What INSERT does, without a receipt and a log.
    fn insert(&self, facts: &[Fact], mode: Mode, stored: &mut Overlay) -> Result<(), Problem> {
        let (model, manner) = (self.model, Manner::of(mode));
        let knowledge = model.knowledge();
        let prompter = Prompter::new(model, knowledge.as_deref());
        let layers = looked_at(model, &manner);
        let kept = model.kept_edits();
        let background =
            kept.background(model, &prompter, &layers, Looks::of(mode), self.pool, self.cancel)?;
        let mut maker = Maker::new(model, prompter, background, self.pool, self.cancel)?;
        let first = stored.low_rank().map(|delta| delta.update.id + 1).max().unwrap_or(1);
        make(&mut maker, facts, &manner, stored, first, self.cancel)?;
        Ok(())
    }

    fn score_answers(
        &mut self,
        fact: &Fact,
        applied: &Applied,
        scores: &mut Scores,
    ) -> Result<(), Problem> {
        let (plain, mut others) = self.questions.asked(fact);
        let knowledge = self.model.knowledge();
        let prompter = Prompter::new(self.model, knowledge.as_deref());
        let read = prompter.of(&fact.entity, &fact.relation)?;
        let own = [read.fact, read.unclear].concat();
        let tokenizer = self.model.tokenizer()?;
        let mut unseen = Vec::new();
        for prompt in others.drain(..) {
            if !own.contains(&tokenizer.encode(&prompt, true)?) {
                unseen.push(prompt);
            }
        }
        let all: Vec<String> = [plain].into_iter().chain(unseen).collect();
        let after = self.asker.generate(&all, applied, ANSWER_TOKENS)?;
        let before = self.asker.generate(&all, &Applied::default(), ANSWER_TOKENS)?;
        let was = self.questions.before(fact);
        for (index, (after, before)) in after.iter().zip(&before).enumerate() {
            let right = says(after, &fact.target);
            let understood = was.iter().any(|was| says(before, was));
            if !right && self.misses {
                eprintln!(
                    "miss: {} -> {after:?}, not {:?} (before {before:?})",
                    all[index], fact.target
                );
            }
            match (index, Questions::is_invented(&fact.entity)) {
                (0, true) => scores.invented.add(right),
                (_, true) => scores.invented_paraphrases.add(right),
                (0, _) => {}
                (_, _) => {
                    scores.paraphrases.add(right);
                    if understood {
                        scores.paraphrases_understood.add(right);
                    }
                }
            }
            if index == 0 {
                scores.efficacy.add(right);
            }
        }
        Ok(())
    }

    fn score_neighbours(
        &mut self,
        fact: &Fact,
        applied: &Applied,
        edited: &BTreeSet<(String, String)>,
        scores: &mut Scores,
    ) -> Result<(), Problem> {
        let mut neighbours: Vec<Neighbour> = self.questions.neighbours(fact, edited);
        neighbours.truncate(questions::NEIGHBOURS);
        let prompts: Vec<String> = neighbours.iter().map(|one| one.prompt.clone()).collect();
        let compared = self.asker.compare(&prompts, applied)?;
        if self.misses {
            for (neighbour, found) in
                neighbours.iter().zip(&compared).filter(|(_, found)| found.loss > 0.05)
            {
                eprintln!(
                    "harm {:.0} by {fact:?}: {} ({})",
                    100.0 * found.loss,
                    neighbour.prompt,
                    neighbour.kind
                );
            }
        }
        let knowledge = self.model.knowledge();
        let prompter = Prompter::new(self.model, knowledge.as_deref());
        if self.read.is_empty() {
            self.read = prompts_read(self.model, &prompter)?;
        }
        let near = prompter.of(&fact.entity, &fact.relation)?;
        let near = [near.named(), near.more_relations, near.entities, near.fact, near.unclear];
        let tokenizer = self.model.tokenizer()?;
        let mut is_read = Vec::with_capacity(prompts.len());
        for prompt in &prompts {
            let tokens = tokenizer.encode(prompt, true)?;
            let is_near = near.iter().any(|list| list.contains(&tokens));
            is_read.push(is_near || self.read.contains(&tokens));
        }
        scores.add_neighbours(&neighbours, &compared, &is_read);
        Ok(())
    }
}

/// Whether an answer is the target, as a word or words of its own; an article may stand before it.
fn says(answer: &str, target: &str) -> bool {
    let answer = answer.trim_start();
    let articles = ["the ", "a ", "an "];
    let bare = articles.iter().find_map(|article| answer.strip_prefix(article));
    [Some(answer), bare].into_iter().flatten().any(|answer| {
        answer
            .strip_prefix(target)
            .is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric()))
    })
}
