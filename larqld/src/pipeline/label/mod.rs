//! LABEL: what a model knows, learned from a table of facts and kept beside its vindex.
//!
//! For each relation of the table: sentences that make the model say its facts ([`templates`]). For
//! the entities: which relations they can have ([`applicability`]), what the model answers
//! (`knowledge::evidence`), how sure that is, and which features it leans on ([`edges`]). A relation
//! that the model does not know leaves no trace: nothing is taken from the table but the judgement of
//! the model's own answers. Without any facts, features that lead the same way are found ([`clusters`]).
//!
//! Promises: the same weights, table and version give the same file; what is finished survives a kill
//! and is not done again on RESUME; until the last rename the labels are the old ones.

mod applicability;
mod bare;
mod clusters;
mod edges;
mod facts;
mod journal;
mod phrasings;
mod readings;
mod templates;

use std::collections::HashMap;
use std::sync::Arc;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::learn::Logistic;
use larql_compute::model::PassMeters;
use larql_storage::file::Files;
use larql_storage::vindex::KnowledgeFile;
use larql_storage::vindex::knowledge::{EdgeRecord, EntityRecord, KnowledgeClaim, RelationRecord};
use sha2::{Digest as _, Sha256};

use self::edges::{Found, Judged};
use self::journal::{Entry, Journal};
use super::Progress;
use crate::failure::{Failure, code};
use crate::knowledge::answer::is_same;
use crate::knowledge::evidence::{Evidence, gather};
use crate::knowledge::prober::Prober;
use crate::knowledge::{CONFIDENCE_KEPT_MIN, object_tokens_max, predictions, questions};
use crate::mounts::{Model, Source};

pub use self::facts::{FACTS_BYTES_MAX, Facts};
pub use self::phrasings::{all_sentences, candidates};

/// The table that comes with the program.
const DEFAULT_FACTS: &[u8] = include_bytes!("../../../assets/default_facts.tsv");
/// Changes whenever the same input would give another file.
const METHOD: &str = "4";
/// Entities whose questions are asked together.
const ENTITIES_ASKED: usize = 32;

/// A table with its name.
#[derive(Debug, Clone)]
pub struct Table {
    /// What the labels say they were learned from.
    pub name: String,
    /// The facts.
    pub facts: Facts,
    /// Identity of the table's bytes.
    digest: String,
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// As [`Facts::parse`].
    pub fn parse(name: &str, text: &[u8]) -> Result<Self, Failure> {
        let digest = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { name: name.to_owned(), facts: Facts::parse(name, text)?, digest })
    }

    /// The bundled table: general geography, people, elements, companies and works.
    ///
    /// # Errors
    /// As [`Facts::parse`].
    pub fn bundled() -> Result<Self, Failure> {
        Self::parse("default", DEFAULT_FACTS)
    }
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Labelled {
    /// Relations in the table.
    pub relations: u64,
    /// Relations that the model was found to know.
    pub relations_known: u64,
    /// Entities in the table.
    pub entities: u64,
    /// Edges found.
    pub edges: u64,
    /// Features labelled.
    pub features: u64,
    /// Expected calibration error of the edges' confidence, on entities left out.
    pub calibration_error: Option<f64>,
    /// What the model's passes took.
    pub passes: PassMeters,
}

/// Learns labels and moves them in beside the vindex; the model answers from them from then on.
///
/// # Errors
/// `MISSING_COMPONENT` for a model that cannot run, `UNSUPPORTED` for a checkpoint, which has no place
/// for labels; when cancelled; when the file cannot be written. Labels that were there stay.
pub fn label(
    (files, pool): (&Arc<dyn Files>, &Pool),
    model: &Model,
    table: &Table,
    resume: bool,
    cancel: &Cancel,
    progress: &mut Progress<'_>,
) -> Result<Labelled, Failure> {
    if !matches!(model.source(), Source::Vindex(_)) {
        let message = format!("{} is a checkpoint, which keeps no labels", model.path().display());
        let hint = "EXTRACT MODEL \"…\" INTO \"…\" WITH INFERENCE, then LABEL the vindex";
        return Err(Failure::new(code::NOT_SUPPORTED, message).hint(hint));
    }
    let mut prober = Prober::new(model, pool, cancel)?;
    let _claim = KnowledgeClaim::take(files, model.path()).map_err(|error| {
        Failure::new(code::BUSY, format!("{}: {error}", model.path().display()))
            .hint("another LABEL of this vindex is running; wait for its end")
    })?;
    let fingerprint = format!("{METHOD} {} {}", model.base_hash(), table.digest);
    let (journal, entries) = Journal::open(files, model.path(), &fingerprint, resume)?;
    let mut job = Job { model, pool, table, cancel, journal, done: Done::new(entries) };
    let file = job.run(&mut prober, progress)?;
    let labelled = Labelled {
        relations: table.facts.relations().count() as u64,
        relations_known: file.relations.len() as u64,
        entities: table.facts.entities().len() as u64,
        edges: file.entities.iter().map(|entity| entity.edges.len() as u64).sum(),
        features: file.features.len() as u64,
        calibration_error: file.calibrations.first().map(|fit| fit.error),
        passes: prober.meters().clone(),
    };
    progress("writing", 0, 0, "")?;
    model.check()?;
    file.write(files, model.path())?;
    job.journal.finish();
    model.set_knowledge(Some(file));
    Ok(labelled)
}

/// What an interrupted run did.
#[derive(Default)]
struct Done {
    relations: HashMap<String, Option<RelationRecord>>,
    answers: HashMap<String, Vec<Evidence>>,
    edges: HashMap<String, Vec<Found>>,
}

impl Done {
    fn new(entries: Vec<Entry>) -> Self {
        let mut done = Self::default();
        for entry in entries {
            match entry {
                Entry::Relation(name, found) => drop(done.relations.insert(name, found)),
                Entry::Answers(name, found) => drop(done.answers.insert(name, found)),
                Entry::Edges(name, found) => drop(done.edges.insert(name, found)),
            }
        }
        done
    }
}

struct Job<'a> {
    model: &'a Model,
    pool: &'a Pool,
    table: &'a Table,
    cancel: &'a Cancel,
    journal: Journal,
    done: Done,
}

impl Job<'_> {
    fn run(
        &mut self,
        prober: &mut Prober<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<KnowledgeFile, Failure> {
        let mut file = KnowledgeFile {
            base_hash: self.model.base_hash().to_owned(),
            generator: concat!("larqld ", env!("CARGO_PKG_VERSION")).to_owned(),
            facts: self.table.name.clone(),
            relations: self.relations(prober, progress)?,
            clusters: match clusters::discover(prober, self.cancel) {
                // A model may have no table whose rows are tokens.
                Err(failure) if failure.code == code::MISSING_COMPONENT => Vec::new(),
                found => found?,
            },
            ..KnowledgeFile::default()
        };
        if file.relations.is_empty() {
            return Ok(file);
        }
        let facts = &self.table.facts;
        let entities: Vec<&str> = facts.entities().into_iter().collect();
        let names: Vec<String> = file.relations.iter().map(|one| one.name.clone()).collect();
        let background = Table::bundled()?.facts;
        let context = (facts, &entities[..], &background);
        let learned =
            applicability::learn(prober, self.pool, context, &names, self.cancel, progress)?;
        let Some(applicability) = learned else { return Ok(file) };
        let answers =
            self.answers(prober, &file.relations, &entities, &applicability.held_out, progress)?;
        let judged: Vec<Judged<'_>> = (0..)
            .zip(&answers)
            .flat_map(|(entity, answers)| answers.iter().map(move |evidence| (entity, evidence)))
            .map(|(entity, evidence)| {
                let objects = facts.objects(entities[entity], &names[evidence.relation]);
                let mut spellings = objects.into_iter().flat_map(|objects| objects.spellings());
                let hit = spellings.any(|spelling| is_same(spelling, &evidence.target));
                Judged { entity, evidence, hit }
            })
            .collect();
        let calibration = edges::calibrate(&judged);
        let fit = Logistic { weights: calibration.weights.clone(), bias: calibration.bias };
        file.calibrations.push(calibration);
        let found = self.edges(prober, &entities, &answers, &fit, progress)?;
        file.features = edges::labels(
            (0..)
                .zip(&found)
                .flat_map(|(entity, found)| found.iter().map(move |one| (entity, one))),
        );
        let answered = found.iter().map(|of| of.iter().map(|found| found.edge.clone()).collect());
        let answered: Vec<Vec<EdgeRecord>> = answered.collect();
        let known = readings::Known {
            facts,
            entities: &entities,
            relations: &names,
            object_tokens_max: object_tokens_max(&file.relations),
            applicability: &applicability.held_out,
            answers: &answered,
        };
        let read = readings::learn(prober, self.pool, &known, self.cancel, progress)?;
        file.calibrations.extend(read.calibrations);
        (file.kinds, file.readings) = (read.kinds, read.readings);
        file.applicability = Some(applicability.record);
        for (name, found) in entities.iter().zip(found) {
            let mut edges: Vec<_> = found.into_iter().map(|found| found.edge).collect();
            crate::knowledge::sort(&mut edges);
            file.entities.push(EntityRecord { name: (*name).to_owned(), edges });
        }
        Ok(file)
    }

    /// Sentences for the relations that the model knows.
    fn relations(
        &mut self,
        prober: &mut Prober<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<RelationRecord>, Failure> {
        let total = self.table.facts.relations().count() as u64;
        let mut known = Vec::new();
        for (index, (name, facts)) in (0..).zip(self.table.facts.relations()) {
            self.cancel.check()?;
            progress("relations", index, total, "relations")?;
            let found = match self.done.relations.remove(name) {
                Some(found) => found,
                None => {
                    let found = templates::learn(prober, name, facts)?;
                    self.journal.add(&Entry::Relation(name.to_owned(), found.clone()))?;
                    found
                }
            };
            tracing::debug!(relation = name, ?found, "a relation was tried");
            known.extend(found);
        }
        progress("relations", total, total, "relations")?;
        Ok(known)
    }

    /// What the model answers of every entity, for the relations that it may have.
    fn answers(
        &mut self,
        prober: &mut Prober<'_>,
        relations: &[RelationRecord],
        entities: &[&str],
        scores: &[Vec<f32>],
        progress: &mut Progress<'_>,
    ) -> Result<Vec<Vec<Evidence>>, Failure> {
        let total = entities.len() as u64;
        let mut answers = Vec::with_capacity(entities.len());
        for (chunk, scores) in entities.chunks(ENTITIES_ASKED).zip(scores.chunks(ENTITIES_ASKED)) {
            self.cancel.check()?;
            progress("answers", answers.len() as u64, total, "entities")?;
            let known: Option<Vec<_>> =
                chunk.iter().map(|&name| self.done.answers.remove(name)).collect();
            if let Some(known) = known {
                answers.extend(known);
                continue;
            }
            let asked: Vec<_> = chunk
                .iter()
                .zip(scores)
                .map(|(&entity, scores)| questions(entity, scores))
                .collect();
            let mut found = gather(prober, relations, &asked.concat())?.into_iter();
            for (&name, asked) in chunk.iter().zip(&asked) {
                let of_entity: Vec<Evidence> = found.by_ref().take(asked.len()).flatten().collect();
                self.journal.add(&Entry::Answers(name.to_owned(), of_entity.clone()))?;
                answers.push(of_entity);
            }
        }
        progress("answers", total, total, "entities")?;
        Ok(answers)
    }

    /// The edges that are certain enough to keep, with the features behind them.
    fn edges(
        &mut self,
        prober: &mut Prober<'_>,
        entities: &[&str],
        answers: &[Vec<Evidence>],
        fit: &Logistic,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<Vec<Found>>, Failure> {
        let total = entities.len() as u64;
        let mut all = Vec::with_capacity(entities.len());
        for (names, answers) in entities.chunks(ENTITIES_ASKED).zip(answers.chunks(ENTITIES_ASKED))
        {
            self.cancel.check()?;
            progress("edges", all.len() as u64, total, "entities")?;
            let known: Option<Vec<_>> =
                names.iter().map(|&name| self.done.edges.remove(name)).collect();
            if let Some(known) = known {
                all.extend(known);
                continue;
            }
            let kept = answers.iter().flatten().filter_map(|evidence| {
                let confidence = fit.probability(&evidence.signals);
                (confidence >= CONFIDENCE_KEPT_MIN).then(|| (evidence.clone(), confidence))
            });
            let kept: Vec<(Evidence, f64)> = kept.collect();
            let behind = prober.features_behind(&predictions(&kept))?;
            let mut rest = kept.iter().zip(&behind).peekable();
            for (&name, answers) in names.iter().zip(answers) {
                // Answers of one entity stand together, in order.
                let mut found = Vec::new();
                for evidence in answers {
                    let is_kept = |&((of, _), _): &(&(Evidence, f64), _)| of == evidence;
                    if let Some(((of, confidence), behind)) = rest.next_if(is_kept) {
                        found.extend(edges::found(of, *confidence, behind));
                    }
                }
                self.journal.add(&Entry::Edges(name.to_owned(), found.clone()))?;
                all.push(found);
            }
        }
        progress("edges", total, total, "entities")?;
        Ok(all)
    }
}
