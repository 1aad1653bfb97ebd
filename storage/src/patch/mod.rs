//! `.vlp` files: a named group of edits in the ancestor's JSON, extended for what it cannot hold.
//!
//! Reading is strict: whatever is taken is checked, and a file that says something that cannot be taken is
//! refused with the operation's place in it. What the ancestor leaves out or says in other words is
//! understood (docs/formats/vlp.md). Writing gives back what was read.
//!
//! Elsewhere: what operations are (`overlay`), applying them (`store`), names of patches (larqld).

mod json;

use std::io::{self, Write};

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::overlay::{BaseShape, DeleteKnn, Operation, Overlay, Problem, compared};
use json::{OperationJson, from_json, to_json};

/// Largest file that is read.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

/// Most operations of one file.
pub const OPERATIONS_MAX: usize = crate::store::OPERATIONS_MAX;

const VERSION: u32 = 1;

/// The threshold of a fact that names none: the ancestor's constant.
pub const ANCESTOR_THRESHOLD: f32 = 0.75;

/// Why a file is no patch, or not one of a base.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// It is no JSON of a patch.
    #[error("is no patch: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version of the format.
    #[error("has version {0}, this larqld reads version {VERSION}")]
    Version(u32),
    /// One of its operations cannot be taken.
    #[error("has an operation that cannot be taken: number {number}, {problem}")]
    Operation {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        problem: Problem,
    },
    /// It was made for other weights.
    #[error("was made for base {found}, this one is {expected}")]
    OtherBase {
        /// The base that it names.
        found: String,
        /// The base that it is to be applied to.
        expected: String,
    },
}

/// One step of a patch file.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// An operation as the log keeps it.
    Operation(Operation),
    /// Every retrieved fact of an entity is forgotten, whichever relations there are.
    ForgetEntity(String),
}

/// A patch as a file says it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PatchFile {
    /// What the base is called.
    pub base_model: String,
    /// The base hash, where it says one.
    pub base_checksum: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// What it is for.
    pub description: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// In order.
    pub steps: Vec<Step>,
}

#[derive(Deserialize)]
struct FileJson<'a> {
    version: u32,
    #[serde(default)]
    base_model: Option<String>,
    #[serde(default)]
    base_checksum: Option<String>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(borrow)]
    operations: Steps<'a>,
}

/// Operations as they are read: checked one by one, and never more than are allowed.
struct Steps<'a>(Vec<Result<Step, Problem>>, std::marker::PhantomData<&'a ()>);

impl<'de: 'a, 'a> Deserialize<'de> for Steps<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StepsVisitor;
        impl<'de> Visitor<'de> for StepsVisitor {
            type Value = Vec<Result<Step, Problem>>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of operations")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut steps = Vec::new();
                while let Some(operation) = seq.next_element::<OperationJson<'de>>()? {
                    if steps.len() == OPERATIONS_MAX {
                        let text = format!("it has more than {OPERATIONS_MAX} operations");
                        return Err(A::Error::custom(text));
                    }
                    let step = from_json(operation);
                    let is_bad = step.is_err();
                    steps.push(step);
                    if is_bad {
                        // What comes after it changes nothing; it is only read over.
                        while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                    }
                }
                Ok(steps)
            }
        }
        Ok(Self(deserializer.deserialize_seq(StepsVisitor)?, std::marker::PhantomData))
    }
}

#[derive(Serialize)]
struct FileOut<'a> {
    version: u32,
    base_model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_checksum: Option<&'a str>,
    created_at: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<&'a str>,
    tags: &'a [String],
    operations: Vec<OperationJson<'a>>,
}

impl PatchFile {
    /// Reads a file. Every operation is checked by itself ([`Operation::check`]).
    ///
    /// # Errors
    /// `Json`, `Version`, `Operation`; the text continues the file's name.
    pub fn parse(bytes: &[u8]) -> Result<Self, PatchError> {
        let file: FileJson<'_> = serde_json::from_slice(bytes)?;
        if file.version != VERSION {
            return Err(PatchError::Version(file.version));
        }
        let steps = file.operations.0.into_iter().zip(1..).map(|(step, number)| {
            step.map_err(|problem| PatchError::Operation { number, problem })
        });
        Ok(Self {
            base_model: file.base_model.unwrap_or_default(),
            base_checksum: file.base_checksum.filter(|text| !text.is_empty()),
            created_at: file.created_at.unwrap_or_default(),
            description: file.description,
            author: file.author,
            tags: file.tags,
            steps: steps.collect::<Result<_, _>>()?,
        })
    }

    /// Writes it as a file.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let out = FileOut {
            version: VERSION,
            base_model: &self.base_model,
            base_checksum: self.base_checksum.as_deref(),
            created_at: &self.created_at,
            description: self.description.as_deref(),
            author: self.author.as_deref(),
            tags: &self.tags,
            operations: self.steps.iter().map(to_json).collect(),
        };
        serde_json::to_writer_pretty(&mut *to, &out)?;
        to.write_all(b"\n")
    }

    /// Whether it fits a base: its own hash, and every operation's layers, widths and tokens.
    ///
    /// With `force`, the hash may be another, or none; widths must be right even so.
    ///
    /// # Errors
    /// `OtherBase`, `Operation`.
    pub fn check_on(&self, hash: &str, base: &BaseShape, force: bool) -> Result<(), PatchError> {
        let named = self.base_checksum.as_deref();
        if let Some(found) = named.filter(|found| !force && !is_same_hash(found, hash)) {
            let (found, expected) = (found.chars().take(80).collect(), hash.to_owned());
            return Err(PatchError::OtherBase { found, expected });
        }
        for (step, number) in self.steps.iter().zip(1..) {
            if let Step::Operation(operation) = step {
                let problem = |problem| PatchError::Operation { number, problem };
                operation.check_on(base).map_err(problem)?;
            }
        }
        Ok(())
    }

    /// Its operations above what is there already.
    pub fn operations_on(&self, overlay: &Overlay) -> Vec<Operation> {
        let mut overlay = overlay.clone();
        let mut operations = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let from = operations.len();
            match step {
                Step::Operation(operation) => operations.push(operation.clone()),
                Step::ForgetEntity(entity) => {
                    let known = overlay.knn().map(|knn| &knn.set.fact);
                    let known = known.filter(|fact| compared(&fact.entity) == compared(entity));
                    operations.extend(known.map(|fact| Operation::DeleteKnn(DeleteKnn::of(fact))));
                }
            }
            operations[from..].iter().for_each(|operation| overlay.apply(operation, 0));
        }
        operations
    }
}

/// A hash may say what kind it is.
fn is_same_hash(found: &str, hash: &str) -> bool {
    let bare = |text: &str| text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    bare(found) == bare(hash)
}
