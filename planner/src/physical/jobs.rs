//! Operands of jobs that read or write files: EXTRACT, LABEL, COMPILE, DIFF, COPY and EXPORT.

use super::weight_type::WeightType;
use crate::syntax::ast::{CompileConflict, CompileFormat, ExtractComponent, ExtractDtype};
use crate::value::Column;

/// Operands of [`super::Operator::Label`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The table of facts as written; `None` for the bundled one.
    pub facts: Option<String>,
    /// Go on with an interrupted run.
    pub resume: bool,
}

/// Operands of [`super::Operator::Extract`].
#[derive(Debug, Clone, PartialEq)]
pub struct Extract {
    /// The checkpoint, as written.
    pub source: String,
    /// The vindex directory to write, as written.
    pub destination: String,
    /// How much to extract.
    pub level: Level,
    /// Only these parts, instead of all that the level holds.
    pub components: Option<Vec<ExtractComponent>>,
    /// Only these layers, first and last inclusive. Checked against the checkpoint when it is open.
    pub layers: Option<(u32, u32)>,
    /// The type of the written weights, of those that `quantisation` leaves where it is given.
    pub dtype: ExtractDtype,
    /// The block format of the matrices.
    pub quantisation: Option<Quantisation>,
    /// The gate vectors need not be kept a second time for browsing.
    pub drop_gate_vectors: bool,
    /// Learn labels afterwards where the level allows it.
    pub labels: bool,
    /// Replace an existing vindex.
    pub overwrite: bool,
    /// Continue an interrupted extraction.
    pub resume: bool,
}

/// How much an extraction holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Gates, embeddings, output tokens: DESCRIBE, WALK, SELECT.
    Browse,
    /// And attention and norms.
    Attention,
    /// And all that INFER reads.
    Inference,
    /// And every other tensor of the source.
    All,
}

impl Level {
    /// Every level, each with what the one before it holds.
    pub const ALL: [Self; 4] = [Self::Browse, Self::Attention, Self::Inference, Self::All];

    /// The level of a name, in whatever case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(name))
    }

    /// The level's name, as in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Browse => "browse",
            Self::Attention => "attention",
            Self::Inference => "inference",
            Self::All => "all",
        }
    }
}

/// Operands of [`super::Operator::Write`].
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The file, as written.
    pub path: String,
    /// Its format.
    pub format: FileFormat,
    /// The columns of the rows.
    pub columns: Vec<Column>,
}

/// How rows lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// Comma-separated values with a header.
    Csv,
    /// Tab-separated values with a header.
    Tsv,
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
    /// RDF 1.1 Turtle.
    Turtle,
    /// GraphML.
    GraphMl,
    /// Two files of comma-separated values, as `neo4j-admin database import` reads them.
    Neo4j,
}

impl FileFormat {
    /// What COPY writes.
    pub const TABLES: [Self; 4] = [Self::Csv, Self::Tsv, Self::Ndjson, Self::Parquet];
    /// What EXPORT writes.
    pub const GRAPHS: [Self; 3] = [Self::Turtle, Self::GraphMl, Self::Neo4j];

    /// Its name in statements, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
            Self::Turtle => "turtle",
            Self::GraphMl => "graphml",
            Self::Neo4j => "neo4j",
        }
    }

    /// Whether a word of a statement, or a file's ending, names it.
    pub fn is_named(self, word: &str) -> bool {
        word.eq_ignore_ascii_case(self.name())
            || self == Self::Ndjson && word.eq_ignore_ascii_case("jsonl")
            || self == Self::Turtle && word.eq_ignore_ascii_case("ttl")
    }
}

/// Operands of [`super::Operator::Compile`].
#[derive(Debug, Clone, PartialEq)]
pub struct Compile {
    /// A mount's name, or a directory as written; `None` for the mount in use.
    pub source: Option<String>,
    /// The directory to write, or (GGUF) the file, as written.
    pub destination: String,
    /// A vindex is written, and not a model for other programs.
    pub into_vindex: bool,
    /// How much of the source a vindex holds; `None` for all of it.
    pub level: Option<Level>,
    /// How patches that change the same thing are joined.
    pub conflict: CompileConflict,
    /// The format of the written files of a model.
    pub format: CompileFormat,
    /// The type of the written weights; `None` for that of the source.
    pub dtype: Option<WeightType>,
    /// Replace what is there.
    pub overwrite: bool,
    /// Read everything back and compare.
    pub verify: bool,
}

/// Operands of [`super::Operator::Diff`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// The old side: a mount's name, or a path as written; `None` for the mount in use.
    pub left: Option<String>,
    /// The new side.
    pub right: Option<String>,
    /// One layer; `None` for all.
    pub layer: Option<u32>,
    /// Features that bear this relation on either side; `None` for all.
    pub relation: Option<String>,
    /// The patch to write, by name or path.
    pub into_patch: Option<String>,
}

/// The block format of an extraction's matrices. Which matrix gets which type is the extraction's
/// own table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quantisation {
    /// `q4k`: Q4_K, and Q6_K where it matters more.
    Q4K {
        /// Down is Q4_K too.
        down_q4k: bool,
    },
    /// `q8_0`
    Q8_0,
    /// `fp4`: FP4 gates and ups, FP8 downs.
    Fp4,
    /// `fp8`
    Fp8,
}

impl Quantisation {
    /// Every one there is.
    pub const ALL: [Self; 5] = [
        Self::Q4K { down_q4k: false },
        Self::Q4K { down_q4k: true },
        Self::Q8_0,
        Self::Fp4,
        Self::Fp8,
    ];

    /// The name, as in manifests and plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4K { down_q4k: false } => "q4k",
            Self::Q4K { down_q4k: true } => "q4k down q4k",
            Self::Q8_0 => "q8_0",
            Self::Fp4 => "fp4",
            Self::Fp8 => "fp8",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quantisation| quantisation.name() == name)
    }
}
