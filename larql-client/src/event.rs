//! What a daemon tells a client, and what a client asks apart from scripts: plain data.

use crate::value::{Column, Row};

/// One piece of the answer to a script, in the order in which the daemon made it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A statement begins to answer.
    Schema {
        /// Index of the statement in its script, from 0.
        statement: u32,
        /// The statement's first keywords, such as `DESCRIBE`.
        tag: String,
        /// The columns of the rows that follow; none for commands.
        columns: Vec<Column>,
    },
    /// Some rows of the current statement.
    Rows(Vec<Row>),
    /// Something the user should know that is not an error.
    Notice(Notice),
    /// How far a long statement is.
    Progress(Progress),
    /// The current statement succeeded.
    Summary(Summary),
    /// A statement failed, and with it the script.
    Error(StatementError),
    /// The script is over.
    Finished {
        /// How many statements answered or failed.
        statements: u32,
        /// Whether one of them failed.
        failed: bool,
    },
}

/// Something the user should know that is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Five characters, after SQLSTATE.
    pub code: String,
    /// What to know.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

/// How far a long statement is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, such as `down_meta`.
    pub stage: String,
    /// How many units are done.
    pub done: u64,
    /// How many there are; 0 if unknown.
    pub total: u64,
    /// What is counted, such as `layers` or `bytes`.
    pub unit: String,
}

/// What one statement did and which weights answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Rows returned.
    pub rows: u64,
    /// Bytes of weights and indexes read, mapped or not.
    pub bytes_touched: u64,
    /// Time in the daemon, in milliseconds.
    pub milliseconds: f64,
    /// SHA-256 of the base in hexadecimal; empty where no vindex is in use.
    pub base_hash: String,
    /// The branch that answered.
    pub branch: String,
    /// The log sequence number of the snapshot.
    pub lsn: u64,
    /// The name of the mount that answered; empty if none.
    pub mount: String,
}

/// Why a statement failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct StatementError {
    /// Five characters, after SQLSTATE; [`StatementError::CONNECTION_LOST`] when the daemon went away.
    pub code: String,
    /// What failed, with what.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
    /// The offending text, where the error has one.
    pub position: Option<Position>,
    /// Index of the statement in its script, from 0.
    pub statement: u32,
}

impl StatementError {
    /// The code of an answer that broke off because the connection did.
    pub const CONNECTION_LOST: &'static str = "08006";
    /// The code of a statement that was cancelled.
    pub const CANCELLED: &'static str = "57014";

    /// True if the daemon went away rather than refused: the session is over.
    pub fn is_connection_lost(&self) -> bool {
        self.code == StatementError::CONNECTION_LOST
    }
}

/// A place in a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// First byte.
    pub offset: u32,
    /// Bytes; 0 for a place between two characters.
    pub length: u32,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// What the daemon said when the session opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol version that both sides speak from here on.
    pub version: u32,
    /// Name and version of the daemon.
    pub server: String,
    /// The session's number in the daemon.
    pub session_id: u64,
    /// `reader`, `infer`, `editor` or `admin`.
    pub role: String,
    /// Words for what this daemon can do.
    pub capabilities: Vec<String>,
}

/// The daemon's own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonStatus {
    /// The daemon's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Open sessions.
    pub sessions: u32,
    /// Statements answered since it started.
    pub statements: u64,
    /// The data directory that it holds.
    pub data_dir: String,
    /// Threads that compute.
    pub threads: u32,
    /// Its process id.
    pub pid: u32,
    /// Models that generations and inferences run on, or ran on in the last minutes.
    pub batches: Vec<BatchStatus>,
}

/// Sequences of one model that advance together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchStatus {
    /// The model's path.
    pub model: String,
    /// Sequences that have a place.
    pub running: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// Sequences whose clients do not read.
    pub paused: u32,
    /// Pages of keys and values that are held.
    pub pages_used: u32,
    /// Pages that are kept for later requests that begin alike.
    pub pages_reusable: u32,
    /// Pages that there may be.
    pub pages_max: u32,
    /// Passes over the weights.
    pub steps: u64,
    /// Tokens of prompts that were computed.
    pub tokens_prefilled: u64,
    /// Tokens of prompts whose pages were there already.
    pub tokens_reused: u64,
    /// Rows of sequences that had begun to answer.
    pub tokens_decoded: u64,
    /// Sequences that gave way to others and went on later.
    pub preemptions: u64,
}

/// What to generate, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerateRequest {
    /// A mounted name, a vindex directory or a checkpoint directory.
    pub model: String,
    /// Relative paths are resolved against this directory.
    pub working_directory: String,
    /// Text to continue; leave it empty to send `messages`.
    pub prompt: String,
    /// A chat, rendered by the model's own template.
    pub messages: Vec<ChatMessage>,
    /// At most this many tokens; 0 leaves it to the daemon.
    pub tokens_max: u32,
    /// Softmax temperature; absent or 0 is greedy.
    pub temperature: Option<f32>,
    /// Draw from this many most probable tokens.
    pub top_k: Option<u32>,
    /// Draw from the most probable tokens that sum to this probability.
    pub top_p: Option<f32>,
    /// Makes the draw repeatable.
    pub seed: Option<u64>,
    /// Texts that end the generation.
    pub stop: Vec<String>,
    /// Keep tokens with at least this share of the best one's probability.
    pub min_p: Option<f32>,
    /// Divides positive and multiplies negative logits of tokens that came before.
    pub repetition_penalty: Option<f32>,
    /// Taken off the logits of tokens that were made before.
    pub presence_penalty: Option<f32>,
    /// Taken off a token's logit for each time that it was made before.
    pub frequency_penalty: Option<f32>,
    /// How many of the last tokens penalties look at; absent: all.
    pub penalty_window: Option<u32>,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Report each token's log probability and those of so many alternatives.
    pub logprobs: Option<u32>,
    /// Whether the model thinks aloud first, where its template has a toggle.
    pub think: Option<bool>,
    /// Tools for the model, a JSON array; empty: none.
    pub tools: String,
    /// What the answer has to look like.
    pub constraint: Option<Constraint>,
    /// How tokens are guessed ahead.
    pub speculation: Option<Speculation>,
}

/// What an answer has to look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// A JSON text that this schema describes.
    JsonSchema(String),
    /// A text that this grammar derives, in llguidance's variant of Lark.
    Grammar(String),
}

/// How tokens are guessed ahead; the answer stays the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speculation {
    /// A model with the same vocabulary; empty: from the text so far.
    pub draft_model: String,
    /// Tokens guessed at a time; 0 leaves it to the daemon.
    pub tokens_max: u32,
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// One piece of a generation.
#[derive(Clone, Debug, PartialEq)]
pub enum GenerateEvent {
    /// A token and the whole characters that it completed.
    Token {
        /// Its id in the vocabulary.
        id: u32,
        /// Its text; may be empty while a character is unfinished.
        text: String,
        /// The natural logarithm of its probability, where it was asked for.
        logprob: Option<f32>,
        /// The most likely tokens, best first, where they were asked for.
        alternatives: Vec<Alternative>,
    },
    /// The generation is over.
    Done(GenerationSummary),
}

/// A token that was likely.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// Its id in the vocabulary.
    pub id: u32,
    /// What it stands for by itself.
    pub text: String,
    /// The natural logarithm of its probability.
    pub logprob: f32,
}

/// How a generation ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationSummary {
    /// `stop`, `length` or `context`.
    pub reason: String,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub generated_tokens: u32,
    /// Milliseconds to read the prompt.
    pub prefill_ms: f64,
    /// Milliseconds to generate.
    pub decode_ms: f64,
    /// SHA-256 of the base in hexadecimal.
    pub base_hash: String,
    /// Tokens that were guessed ahead.
    pub proposed_tokens: u32,
    /// Those of them that proved right.
    pub accepted_tokens: u32,
}

/// A reference check: which token ids to run, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogitsRequest {
    /// A mounted name, a vindex directory or a checkpoint directory.
    pub model: String,
    /// Relative paths are resolved against this directory.
    pub working_directory: String,
    /// `[n]`, at least one.
    pub token_ids: Vec<u32>,
    /// How many tokens to continue greedily.
    pub greedy_tokens: u32,
    /// The serving kernels instead of exact arithmetic.
    pub fast: bool,
}

/// What reference checks compare.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits {
    /// `[vocabulary]`, last position, after any final soft cap.
    pub logits: Vec<f32>,
    /// The residual stream after each layer, last position.
    pub layers: Vec<LayerResidual>,
    /// The greedy continuation.
    pub greedy: Vec<u32>,
}

/// The residual stream after one layer, last position.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerResidual {
    /// The layer, from 0.
    pub layer: u32,
    /// L2 norm.
    pub norm: f64,
    /// The first eight values.
    pub first8: Vec<f32>,
}

/// What to measure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BenchRequest {
    /// `decode`, `prefill`, `gate-scan`, `describe` or `serve`.
    pub kind: String,
    /// A mounted name, a vindex directory or a checkpoint directory.
    pub model: String,
    /// Relative paths are resolved against this directory.
    pub working_directory: String,
    /// Tokens decoded, of the prompt, or made for each client; 0 leaves it to the daemon.
    pub tokens: u32,
    /// Tokens in the cache before the clock starts; of `serve`: of each client's prompt.
    pub context: u32,
    /// Clients of `serve` at once; 0 leaves it to the daemon.
    pub clients: u32,
    /// Repetitions; 0 leaves it to the daemon.
    pub runs: u32,
    /// Threads; 0 takes the daemon's own setting.
    pub threads: u32,
}

/// One piece of a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BenchEvent {
    /// What is being done.
    Progress(String),
    /// The result: one JSON object.
    Json(String),
}
