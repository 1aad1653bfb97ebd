//! `knowledge.labels`: what LABEL learned about a vindex's weights, in one file beside them
//! (`docs/formats/knowledge.md`).
//!
//! The first line names the format, its version and the SHA-256 of all that follows, which is JSON.
//! The file is no part of the vindex's manifest or identity: it can be made, replaced and removed
//! at any time, and it names the weights that it was learned from.
//!
//! Promises: a file that parses has nothing beyond its limits, no index without an object, no number
//! that is not finite. It is written beside its place and moved in whole.
//!
//! Elsewhere: how it is learned (`larqld/src/pipeline/label`), what is answered from it
//! (`larqld/src/knowledge`).

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::file::{Claim, Files, parent_of};

/// The file's name.
pub const KNOWLEDGE: &str = "knowledge.labels";
/// Where it is written before it is moved in.
const STAGED: &str = "knowledge.labels.partial";
/// Whose lock the right to write it is.
const LOCK: &str = "knowledge.labels.lock";
/// The first word of the file.
const MAGIC: &str = "larql-knowledge";
/// The version that is written and read.
pub const KNOWLEDGE_VERSION: u32 = 1;
/// Largest file that is read.
pub const KNOWLEDGE_BYTES_MAX: u64 = 512 << 20;
/// Most relations.
pub const RELATIONS_MAX: usize = 4096;
/// Most templates of a relation.
pub const TEMPLATES_MAX: usize = 16;
/// Most bytes of a name, target or template.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Most entities whose edges are kept.
pub const ENTITIES_MAX: usize = 1 << 20;
/// Most clusters of features.
pub const CLUSTERS_MAX: usize = 4096;
/// What stands for the entity in a template.
pub const ENTITY_SLOT: &str = "{entity}";

/// All that is known of a vindex.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnowledgeFile {
    /// The identity of the weights it was learned from, in hexadecimal.
    pub base_hash: String,
    /// The program and version that learned it.
    pub generator: String,
    /// Where the facts came from: `default`, or the name of a table.
    pub facts: String,
    /// Relations, by index.
    pub relations: Vec<RelationRecord>,
    /// Which relations an entity can have, read off the residual stream.
    pub applicability: Option<ReadoutRecord>,
    /// Which words are objects of which relation, read off their unembedding rows.
    pub kinds: Option<KindsRecord>,
    /// What sources that read weights alone see of entities on average.
    pub readings: Vec<ReadingRecord>,
    /// How the sources' evidence becomes a probability.
    pub calibrations: Vec<CalibrationRecord>,
    /// Which features speak for a relation.
    pub features: Vec<FeatureRecord>,
    /// Features that were found to belong together, without any fact.
    #[serde(default)]
    pub clusters: Vec<ClusterRecord>,
    /// Entities with the edges that were found.
    pub entities: Vec<EntityRecord>,
}

/// Features that lead the same way, from one kind of word to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterRecord {
    /// The words that its inputs and its outputs have in common.
    pub name: String,
    /// How well its features agree: the mean cosine with their mean.
    pub agreement: f64,
    /// The most that features paired by chance agreed.
    pub chance: f64,
    /// Layer and feature of each.
    pub features: Vec<(u32, u32)>,
}

/// A relation that the model was found to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelationRecord {
    /// Its name.
    pub name: String,
    /// Prompts that ask for it, best first.
    pub templates: Vec<TemplateRecord>,
    /// Whether an entity has one object of it, as nearly all in the table do.
    pub single: bool,
    /// Most tokens that an object has.
    pub object_tokens_max: u32,
    /// Whether a full stop may stand within an object, as after initials.
    pub initials: bool,
    /// Words that were seen to follow an object and end it.
    pub followers: Vec<String>,
    /// Share of the facts that the best template completes.
    pub accuracy: f64,
    /// The same share with every answer compared with another entity's object: what frequency alone
    /// gives.
    pub control: f64,
    /// Facts that the two were measured on.
    pub tested: u32,
}

/// A prompt with a slot for the entity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateRecord {
    /// The text, with [`ENTITY_SLOT`] once in it.
    pub text: String,
    /// Words that were seen to stand before the object and are no part of it, longest first.
    pub leads: Vec<String>,
    /// Share of the facts that it completes.
    pub accuracy: f64,
}

/// A linear readout of the residual stream at an entity's last token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadoutRecord {
    /// The layer whose output is read.
    pub layer: u32,
    /// `[hidden]`: what is taken from every direction.
    pub mean: Vec<f32>,
    /// `[relations, hidden]`.
    pub weights: Vec<f32>,
    /// `[relations]`.
    pub bias: Vec<f32>,
}

/// A linear readout of unembedding rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindsRecord {
    /// `[hidden]`: what is taken from every direction.
    pub mean: Vec<f32>,
    /// `[relations, hidden]`.
    pub weights: Vec<f32>,
    /// `[relations]`.
    pub bias: Vec<f32>,
}

/// What a source that reads weights alone sees of entities on average.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadingRecord {
    /// The source.
    pub source: String,
    /// `[hidden]`.
    pub mean: Vec<f32>,
    /// Where the name stands as the source reads it, each with `{entity}` in it once, as the name's
    /// features are found at the first of them; none: the name by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<String>,
}

/// A logistic function of a source's signals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationRecord {
    /// The source.
    pub source: String,
    /// One weight a signal.
    pub weights: Vec<f64>,
    /// What is added.
    pub bias: f64,
    /// Predictions that it was fitted on.
    pub samples: u64,
    /// Expected calibration error on predictions that it was not fitted on.
    pub error: f64,
}

/// A feature that speaks for a relation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureRecord {
    /// Its layer.
    pub layer: u32,
    /// Its index in the layer.
    pub feature: u32,
    /// The relation's index.
    pub relation: u32,
    /// The part of its effect on known edges that is on edges of this relation.
    pub score: f32,
}

/// An entity and what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntityRecord {
    /// Its name.
    pub name: String,
    /// Its edges, most certain first.
    pub edges: Vec<EdgeRecord>,
}

/// One edge of an entity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeRecord {
    /// The relation's index.
    pub relation: u32,
    /// The object.
    pub target: String,
    /// Calibrated probability that the edge is true of what the model says.
    pub confidence: f32,
    /// The layer of the feature that carries most of it.
    pub layer: u32,
    /// That feature.
    pub feature: u32,
    /// By how much the target's log-probability falls without the feature.
    pub effect: f32,
    /// The gate score of the feature at the end of the prompt.
    pub gate_score: f32,
}

/// Why a knowledge file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KnowledgeError {
    /// The file could not be read or written.
    #[error("could not {action} {KNOWLEDGE}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// It is no knowledge file, or another program's.
    #[error("{KNOWLEDGE} is not a knowledge file: {problem}")]
    Format {
        /// What is wrong.
        problem: String,
    },
    /// It was written by a later version.
    #[error("{KNOWLEDGE} has version {found}; this build reads version {KNOWLEDGE_VERSION}")]
    Version {
        /// The version it names.
        found: u32,
    },
    /// Its content is not what was written.
    #[error("{KNOWLEDGE} is damaged: its checksum is {found}, its first line says {expected}")]
    Checksum {
        /// What its bytes have.
        found: String,
        /// What its first line says.
        expected: String,
    },
    /// It was learned from other weights.
    #[error(
        "{KNOWLEDGE} was learned from other weights (base {found}, this vindex has {expected})"
    )]
    OtherWeights {
        /// The base hash it names.
        found: String,
        /// The vindex's.
        expected: String,
    },
}

/// The right to write a vindex's knowledge, which one run at a time has; it ends when dropped, or
/// with the process.
pub struct KnowledgeClaim {
    _claim: Claim,
}

impl KnowledgeClaim {
    /// Takes it.
    ///
    /// # Errors
    /// `WouldBlock` when somebody else has it; when the directory cannot be written.
    pub fn take(files: &Arc<dyn Files>, directory: &Path) -> io::Result<Self> {
        Ok(Self { _claim: Claim::take(files, &directory.join(LOCK))? })
    }
}

/// What a file must agree with.
#[derive(Debug, Clone, Copy)]
pub struct KnowledgeLimits<'a> {
    /// The vindex's identity.
    pub base_hash: &'a str,
    /// Width of the residual stream.
    pub hidden_size: u64,
    /// Number of features of each layer.
    pub features: &'a [u64],
}

impl KnowledgeFile {
    /// The text of the file.
    ///
    /// # Panics
    /// When a number is not finite: JSON cannot hold it, and whoever computed it is wrong.
    pub fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).expect("knowledge is plain data");
        let mut text = format!("{MAGIC} {KNOWLEDGE_VERSION} {}\n", sha256(&body)).into_bytes();
        text.extend_from_slice(&body);
        text.push(b'\n');
        text
    }

    /// Checks that a file has the bytes that were written, and tells the weights that it was learned
    /// from.
    ///
    /// # Errors
    /// What is wrong with its first line, its checksum, or its form.
    pub fn base_hash_of(text: &[u8]) -> Result<String, KnowledgeError> {
        Self::of_body(body(text)?).map(|file| file.base_hash)
    }

    fn of_body(body: &[u8]) -> Result<Self, KnowledgeError> {
        serde_json::from_slice(body)
            .map_err(|error| KnowledgeError::Format { problem: error.to_string() })
    }

    /// Parses and checks a file.
    ///
    /// # Errors
    /// What is wrong with it, by the first thing that is.
    pub fn parse(text: &[u8], limits: &KnowledgeLimits<'_>) -> Result<Self, KnowledgeError> {
        let file = Self::of_body(body(text)?)?;
        if file.base_hash != limits.base_hash {
            let expected = limits.base_hash.to_owned();
            return Err(KnowledgeError::OtherWeights { found: file.base_hash, expected });
        }
        file.check(limits).map_err(|problem| KnowledgeError::Format { problem })?;
        Ok(file)
    }

    /// Reads the file of a vindex directory; `None` where there is none.
    ///
    /// # Errors
    /// As [`KnowledgeFile::parse`], and when it cannot be read.
    pub fn read(
        files: &Arc<dyn Files>,
        directory: &Path,
        limits: &KnowledgeLimits<'_>,
    ) -> Result<Option<Self>, KnowledgeError> {
        match files.read(&directory.join(KNOWLEDGE), KNOWLEDGE_BYTES_MAX) {
            Ok(text) => Self::parse(&text, limits).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KnowledgeError::Io { action: "read", source }),
        }
    }

    /// Writes the file beside its place in a vindex directory, syncs it, and moves it in.
    ///
    /// # Errors
    /// `Io`; the file that was there is then still there, whole.
    pub fn write(&self, files: &Arc<dyn Files>, directory: &Path) -> Result<(), KnowledgeError> {
        let attempt = |action| move |source| KnowledgeError::Io { action, source };
        let (staged, place) = (directory.join(STAGED), directory.join(KNOWLEDGE));
        let mut file = files.create(&staged).map_err(attempt("create"))?;
        file.write_all(&self.encode()).map_err(attempt("write"))?;
        file.sync().map_err(attempt("sync"))?;
        drop(file);
        files.rename(&staged, &place).map_err(attempt("move in"))?;
        files.sync_dir(parent_of(&place)).map_err(attempt("sync"))
    }

    fn check(&self, limits: &KnowledgeLimits<'_>) -> Result<(), String> {
        let hidden = limits.hidden_size as usize;
        let relations = self.relations.len();
        if relations > RELATIONS_MAX {
            return Err(format!("it has {relations} relations, the most is {RELATIONS_MAX}"));
        }
        let known_feature = |layer: u32, feature: u32| {
            limits.features.get(layer as usize).is_some_and(|&count| u64::from(feature) < count)
        };
        for relation in &self.relations {
            relation.check()?;
        }
        if let Some(readout) = &self.applicability {
            let shapes = (readout.mean.len(), readout.weights.len(), readout.bias.len());
            if shapes != (hidden, hidden * relations, relations) {
                return Err(format!("its readout has the shapes {shapes:?}"));
            }
            let numbers = readout.mean.iter().chain(&readout.weights).chain(&readout.bias);
            finite(numbers.copied().map(f64::from), "its readout")?;
            if readout.layer as usize >= limits.features.len() {
                return Err(format!("its readout is of layer {}", readout.layer));
            }
        }
        if let Some(KindsRecord { mean, weights, bias }) = &self.kinds {
            let shapes = (mean.len(), weights.len(), bias.len());
            if shapes != (hidden, hidden * relations, relations) {
                return Err(format!("its readout of words has the shapes {shapes:?}"));
            }
            let numbers = mean.iter().chain(weights).chain(bias);
            finite(numbers.copied().map(f64::from), "its readout of words")?;
        }
        for reading in &self.readings {
            text(&reading.source, "a reading's source")?;
            if reading.mean.len() != hidden {
                return Err(format!("a reading has {} numbers", reading.mean.len()));
            }
            if reading.templates.len() > TEMPLATES_MAX {
                return Err(format!("a reading has {} templates", reading.templates.len()));
            }
            reading.templates.iter().try_for_each(|template| one_slot(template))?;
            finite(reading.mean.iter().copied().map(f64::from), "a reading")?;
        }
        for calibration in &self.calibrations {
            text(&calibration.source, "a calibration's source")?;
            let numbers = calibration.weights.iter().copied();
            finite(numbers.chain([calibration.bias, calibration.error]), "a calibration")?;
        }
        for label in &self.features {
            let FeatureRecord { layer, feature, relation, score } = *label;
            if !known_feature(layer, feature) || relation as usize >= relations {
                return Err(format!("it labels L{layer}_F{feature}, which there is not"));
            }
            finite([f64::from(score)], "a label's score")?;
        }
        if self.clusters.len() > CLUSTERS_MAX {
            return Err(format!("it has more than {CLUSTERS_MAX} clusters"));
        }
        for cluster in &self.clusters {
            text(&cluster.name, "a cluster's name")?;
            finite([cluster.agreement, cluster.chance], "a cluster")?;
            let missing = cluster.features.iter().find(|&&(l, f)| !known_feature(l, f));
            if let Some((layer, feature)) = missing {
                return Err(format!("it clusters L{layer}_F{feature}, which there is not"));
            }
        }
        if self.entities.len() > ENTITIES_MAX {
            return Err(format!("it has more than {ENTITIES_MAX} entities"));
        }
        for entity in &self.entities {
            text(&entity.name, "an entity's name")?;
            for edge in &entity.edges {
                text(&edge.target, "a target")?;
                let in_range = (0.0..=1.0).contains(&edge.confidence);
                if edge.relation as usize >= relations
                    || !known_feature(edge.layer, edge.feature)
                    || !in_range
                {
                    return Err(format!("an edge of {:?} is out of range", entity.name));
                }
                finite([edge.effect, edge.gate_score].map(f64::from), "an edge")?;
            }
        }
        Ok(())
    }
}

impl RelationRecord {
    fn check(&self) -> Result<(), String> {
        text(&self.name, "a relation's name")?;
        if self.templates.len() > TEMPLATES_MAX {
            return Err(format!("relation {:?} has too many templates", self.name));
        }
        for template in &self.templates {
            one_slot(&template.text)?;
            template.leads.iter().try_for_each(|lead| text(lead, "a lead"))?;
            finite([template.accuracy], "a template's accuracy")?;
        }
        self.followers.iter().try_for_each(|word| text(word, "a follower"))?;
        finite([self.accuracy, self.control], "a relation's accuracy")
    }
}

/// Whether a text may stand in the file: 1 to [`TEXT_BYTES_MAX`] bytes without control characters.
pub fn is_storable(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn text(text: &str, what: &str) -> Result<(), String> {
    match is_storable(text) {
        true => Ok(()),
        false => Err(format!("{what} has {} bytes or a control character", text.len())),
    }
}

/// Refuses a template that has not the entity in it once.
fn one_slot(template: &str) -> Result<(), String> {
    // A question and its answer may stand in two lines.
    text(&template.replace('\n', " "), "a template")?;
    match template.matches(ENTITY_SLOT).count() {
        1 => Ok(()),
        _ => Err(format!("template {template:?} has not one {ENTITY_SLOT}")),
    }
}

fn finite(numbers: impl IntoIterator<Item = f64>, what: &str) -> Result<(), String> {
    match numbers.into_iter().all(f64::is_finite) {
        true => Ok(()),
        false => Err(format!("{what} has a number that is not finite")),
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What follows the first line, whose checksum it has.
fn body(text: &[u8]) -> Result<&[u8], KnowledgeError> {
    let format = |problem: &str| KnowledgeError::Format { problem: problem.to_owned() };
    let end = text.iter().take(256).position(|&byte| byte == b'\n');
    let first = end.and_then(|end| std::str::from_utf8(&text[..end]).ok());
    let Some((end, first)) = end.zip(first) else { return Err(format("it has no first line")) };
    let words: Vec<&str> = first.split(' ').collect();
    let [MAGIC, version, expected] = words[..] else {
        return Err(format("its first line is of another format"));
    };
    let version: u32 = version.parse().map_err(|_| format("its version is no number"))?;
    if version != KNOWLEDGE_VERSION {
        return Err(KnowledgeError::Version { found: version });
    }
    let body = &text[end + 1..];
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    let found = sha256(body);
    if found != expected {
        return Err(KnowledgeError::Checksum { found, expected: expected.to_owned() });
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::MemoryFiles;

    const LIMITS: KnowledgeLimits<'_> =
        KnowledgeLimits { base_hash: "abc", hidden_size: 2, features: &[4, 4] };

    fn sample() -> KnowledgeFile {
        let template = TemplateRecord {
            text: "The capital of {entity} is".to_owned(),
            leads: vec!["the ".to_owned()],
            accuracy: 0.9,
        };
        KnowledgeFile {
            base_hash: "abc".to_owned(),
            generator: "larqld".to_owned(),
            facts: "default".to_owned(),
            relations: vec![RelationRecord {
                name: "capital".to_owned(),
                templates: vec![template],
                single: true,
                object_tokens_max: 3,
                initials: false,
                followers: vec!["and".to_owned()],
                accuracy: 0.9,
                control: 0.1,
                tested: 20,
            }],
            applicability: Some(ReadoutRecord {
                layer: 1,
                mean: vec![0.0; 2],
                weights: vec![0.5, 0.25],
                bias: vec![0.1],
            }),
            kinds: Some(KindsRecord {
                mean: vec![0.5; 2],
                weights: vec![0.5, 0.25],
                bias: vec![0.1],
            }),
            readings: vec![ReadingRecord {
                source: "gate".to_owned(),
                mean: vec![0.0, 1.0],
                templates: vec!["The {entity}".to_owned()],
            }],
            calibrations: vec![CalibrationRecord {
                source: "probe".to_owned(),
                weights: vec![1.0, 2.0],
                bias: -1.0,
                samples: 12,
                error: 0.03,
            }],
            features: vec![FeatureRecord { layer: 1, feature: 3, relation: 0, score: 0.8 }],
            clusters: vec![ClusterRecord {
                name: "country, city".to_owned(),
                agreement: 0.7,
                chance: 0.4,
                features: vec![(0, 2), (1, 3)],
            }],
            entities: vec![EntityRecord {
                name: "France".to_owned(),
                edges: vec![EdgeRecord {
                    relation: 0,
                    target: "Paris".to_owned(),
                    confidence: 0.97,
                    layer: 1,
                    feature: 3,
                    effect: 2.5,
                    gate_score: 4.0,
                }],
            }],
        }
    }

    #[test]
    fn knowledge_survives_the_disk_and_a_directory_without_any_has_none() {
        let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
        let directory = Path::new("/v");
        files.create_dir_all(directory).unwrap();
        assert!(KnowledgeFile::read(&files, directory, &LIMITS).unwrap().is_none());
        sample().write(&files, directory).unwrap();
        assert_eq!(KnowledgeFile::read(&files, directory, &LIMITS).unwrap(), Some(sample()));
        assert_eq!(files.list(directory).unwrap(), [KNOWLEDGE]);
    }

    #[test]
    fn a_changed_byte_another_version_and_other_weights_are_refused() {
        let text = sample().encode();
        let mut damaged = text.clone();
        let at = damaged.len() - 20;
        damaged[at] ^= 1;
        let refused = |text: &[u8]| KnowledgeFile::parse(text, &LIMITS).unwrap_err();
        assert!(matches!(refused(&damaged), KnowledgeError::Checksum { .. }));
        let later = String::from_utf8(text.clone()).unwrap().replacen(" 1 ", " 2 ", 1);
        assert!(matches!(refused(later.as_bytes()), KnowledgeError::Version { found: 2 }));
        for garbage in [&b""[..], b"\n", b"{}", b"larql-knowledge x y\n{}"] {
            assert!(matches!(refused(garbage), KnowledgeError::Format { .. }), "{garbage:?}");
        }
        let other = KnowledgeLimits { base_hash: "xyz", ..LIMITS };
        let error = KnowledgeFile::parse(&text, &other).unwrap_err();
        assert!(matches!(error, KnowledgeError::OtherWeights { .. }), "{error}");
    }

    type Spoil = fn(&mut KnowledgeFile);

    #[test]
    fn whatever_points_nowhere_or_is_no_number_is_refused() {
        let spoilt: [(&str, Spoil); 12] = [
            ("words", |file| file.kinds.as_mut().unwrap().mean.truncate(1)),
            ("reading", |file| file.readings[0].mean.push(0.0)),
            ("bare", |file| file.readings[0].templates[0].clear()),
            ("slot", |file| file.relations[0].templates[0].text = "no slot".to_owned()),
            ("control", |file| file.relations[0].name = "a\u{1}b".to_owned()),
            ("empty", |file| file.entities[0].edges[0].target.clear()),
            ("long", |file| file.entities[0].name = "x".repeat(TEXT_BYTES_MAX + 1)),
            ("feature", |file| file.features[0].feature = 4),
            ("relation", |file| file.entities[0].edges[0].relation = 1),
            ("probability", |file| file.entities[0].edges[0].confidence = 1.5),
            ("shape", |file| file.applicability.as_mut().unwrap().weights.truncate(1)),
            ("layer", |file| file.applicability.as_mut().unwrap().layer = 2),
        ];
        for (what, spoil) in spoilt {
            let mut file = sample();
            spoil(&mut file);
            let result = KnowledgeFile::parse(&file.encode(), &LIMITS);
            assert!(matches!(result, Err(KnowledgeError::Format { .. })), "{what}: {result:?}");
        }
    }
}
