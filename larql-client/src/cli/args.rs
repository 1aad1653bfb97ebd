//! What the command line may say: plain data, checked but not acted on.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::shell::render::Format;
use crate::target::Target;

/// The shell of larqld, the database in a transformer's weights.
#[derive(Debug, Parser)]
#[command(name = "larql", version, about, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,

    /// Run these statements; may be given several times
    #[arg(short = 'c', value_name = "LQL")]
    pub(super) statements: Vec<String>,

    /// Run the statements of a file; - is standard input
    #[arg(short = 'f', value_name = "FILE", conflicts_with = "statements")]
    pub(super) file: Option<PathBuf>,

    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// Options that every command takes.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Where the daemon listens: unix:///path or grpc://host:port
    #[arg(long, global = true, env = "LARQL_URL", value_name = "URL")]
    pub(super) host: Option<Target>,

    /// A file with the token to show; only its owner may read it
    #[arg(long, global = true, env = "LARQL_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,

    /// The data directory, of a daemon that is started too [default: $LARQL_HOME, else
    /// $XDG_DATA_HOME/larql, else ~/.local/share/larql]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,

    /// Start no daemon; fail if none is running
    #[arg(long, global = true)]
    pub(super) no_start: bool,

    /// table, vertical, json, ndjson, csv, markdown or junit
    #[arg(
        short = 'F', long, global = true, default_value = "table", value_name = "FORMAT",
        value_parser = |name: &str| Format::named(name)
    )]
    pub(super) format: &'static Format,

    /// No summaries, no progress, no banner
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,

    /// No colours (also: NO_COLOR)
    #[arg(long, global = true)]
    pub(super) no_color: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The shell, as without a command
    Repl,
    /// Run statements, as -c does
    Lql {
        /// The statements
        text: String,
    },
    /// Run the statements on standard input
    #[command(name = "-")]
    Stdin,
    /// Extract the bundled model and tour the main statements
    Demo(Demo),
    /// Turn a checkpoint into a vindex
    #[command(visible_alias = "extract-index")]
    Extract(Extract),
    /// Turn files of other programs into a vindex
    #[command(subcommand)]
    Convert(Convert),
    /// Check every byte of a vindex against its checksums
    Verify {
        /// The vindex directory
        vindex: String,
    },
    /// Learn what a model knows from a table of facts, and keep it beside its vindex
    Label {
        /// A mounted name or a vindex directory
        vindex: String,
        /// A table of entity, relation and object with tabs between; without it the bundled one
        #[arg(long, value_name = "FILE.tsv")]
        facts: Option<String>,
        /// Go on with an interrupted run
        #[arg(long)]
        resume: bool,
    },
    /// Make a vindex as a Vindexfile says
    Build(Build),
    /// Mount a vindex
    #[command(visible_alias = "link")]
    Mount {
        /// The vindex directory
        path: String,
        /// The name to mount it under [default: the directory's stem]
        #[arg(long = "as", value_name = "NAME")]
        name: Option<String>,
    },
    /// Unmount a vindex
    Unmount {
        /// The name it is mounted under
        name: String,
    },
    /// List what is mounted
    List,
    /// Tell what a mount is
    Show {
        /// The name it is mounted under
        name: String,
    },
    /// Generate text from a prompt, or chat without one
    Run(Run),
    /// Run the daemon in the foreground with these mounts
    Serve(Serve),
    /// The daemon's own state
    #[command(subcommand)]
    Admin(Admin),
    /// Measure a model on the daemon's machine
    Bench(Bench),
    /// Tools for those who check or study a model
    #[command(subcommand)]
    Dev(Dev),
    /// Which features the last token of a prompt touches (also: dev walk)
    Walk(Walk),
}

#[derive(Debug, Args)]
pub(super) struct Build {
    /// The directory of the Vindexfile
    #[arg(default_value = ".")]
    pub(super) directory: PathBuf,
    /// Do what this stage says too
    #[arg(long, value_name = "NAME")]
    pub(super) stage: Option<String>,
    /// The vindex directory to write
    #[arg(short, long, value_name = "DST", default_value = "./build/vindex")]
    pub(super) output: String,
    /// Replace a vindex that is there
    #[arg(long)]
    pub(super) overwrite: bool,
    /// Ask the product every edited fact before it is moved to its place
    #[arg(long)]
    pub(super) verify: bool,
    /// Write what came of the assertions there, as JUnit's XML
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Leave after the tour, as without a flag, and say nothing about the shell
    #[arg(long, conflicts_with = "shell")]
    pub(super) tour: bool,
    /// Stay in the shell after the tour
    #[arg(long)]
    pub(super) shell: bool,
    /// Keep the private data directory
    #[arg(long)]
    pub(super) keep: bool,
}

/// What a vindex holds: each level has what the one before it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    /// DESCRIBE, WALK and SELECT
    Browse,
    /// Attention as well
    Attention,
    /// INFER and generation as well
    Inference,
    /// Everything in the checkpoint
    All,
}

/// How a vindex stores numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Dtype {
    /// 16-bit floats
    F16,
    /// 32-bit floats
    F32,
    /// As the checkpoint does
    Source,
}

/// The block format of a vindex's matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Quant {
    /// Q4_K, with Q6_K for down, value, embeddings and unembedding
    #[value(name = "q4k", alias = "q4_k")]
    Q4K,
    /// Q8_0
    #[value(name = "q8_0")]
    Q8_0,
    /// FP4 gates and ups, FP8 downs
    Fp4,
    /// FP8 gates, ups and downs
    Fp8,
}

/// Ways to turn one kind of file into another.
#[derive(Debug, Subcommand)]
pub(super) enum Convert {
    /// A GGUF file into a vindex: extract, by its other name
    GgufToVindex(Extract),
}

#[derive(Debug, Args)]
pub(super) struct Extract {
    /// The checkpoint: a directory, a .safetensors file or a .gguf file
    pub(super) source: String,
    /// The vindex directory to write
    #[arg(short, long, value_name = "DST")]
    pub(super) output: String,
    /// What the vindex holds
    #[arg(long, value_enum, default_value = "inference")]
    pub(super) level: Level,
    /// How the vindex stores numbers [default: f16]
    #[arg(long, value_enum)]
    pub(super) dtype: Option<Dtype>,
    /// Short for --dtype f16
    #[arg(long, conflicts_with_all = ["dtype", "f32"])]
    pub(super) f16: bool,
    /// Short for --dtype f32
    #[arg(long, conflicts_with = "dtype")]
    pub(super) f32: bool,
    /// Quantise the matrices to this block format; --dtype is then the type of the rest
    #[arg(long, value_enum)]
    pub(super) quant: Option<Quant>,
    /// With --quant q4k: down vectors as Q4_K too
    #[arg(long)]
    pub(super) down_q4k: bool,
    /// With --quant q4k: keep no second copy of the gate vectors for browsing (there is none anyway)
    #[arg(long)]
    pub(super) drop_gate_vectors: bool,
    /// Only these layers, both ends included
    #[arg(long, value_name = "A-B", value_parser = layers)]
    pub(super) layers: Option<(u32, u32)>,
    /// Go on where an interrupted extraction stopped
    #[arg(long)]
    pub(super) resume: bool,
    /// Replace what is at the destination
    #[arg(long)]
    pub(super) overwrite: bool,
    /// Do not label features
    #[arg(long)]
    pub(super) no_labels: bool,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// A mounted name, a vindex directory or a checkpoint directory
    pub(super) model: String,
    /// What to continue; without it, chat
    pub(super) prompt: Option<String>,
    /// At most this many tokens
    #[arg(short = 'n', value_name = "N", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) tokens: u32,
    /// Softmax temperature; 0 is greedy
    #[arg(long, value_parser = not_negative)]
    pub(super) temperature: Option<f32>,
    /// Draw from this many most probable tokens
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) top_k: Option<u32>,
    /// Draw from the most probable tokens that sum to this probability
    #[arg(long, value_parser = probability)]
    pub(super) top_p: Option<f32>,
    /// Draw from tokens with at least this share of the best one's probability
    #[arg(long, value_parser = share)]
    pub(super) min_p: Option<f32>,
    /// Divide the positive logits of tokens that came before by this, multiply the negative ones
    #[arg(long, value_name = "FACTOR", value_parser = positive)]
    pub(super) repetition_penalty: Option<f32>,
    /// Take this off the logits of tokens that were made before: -2 to 2
    #[arg(long, value_name = "P", value_parser = penalty, allow_hyphen_values = true)]
    pub(super) presence_penalty: Option<f32>,
    /// Take this off a token's logit for each time it was made before: -2 to 2
    #[arg(long, value_name = "P", value_parser = penalty, allow_hyphen_values = true)]
    pub(super) frequency_penalty: Option<f32>,
    /// Makes the draw repeatable
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(super) stop: Vec<String>,
    /// Tell each token's log probability on stderr, with those of the N most likely tokens
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=20))]
    pub(super) logprobs: Option<u32>,
    /// Answer in JSON as the JSON schema in this file describes it
    #[arg(long, value_name = "FILE", conflicts_with = "grammar")]
    pub(super) json_schema: Option<PathBuf>,
    /// Answer as the grammar in this file (Lark, as llguidance reads it) derives it
    #[arg(long, value_name = "FILE")]
    pub(super) grammar: Option<PathBuf>,
    /// Let the model think aloud first, if its chat template can say so
    #[arg(long, conflicts_with_all = ["no_think", "prompt"])]
    pub(super) think: bool,
    /// Let the model answer at once, if its chat template can say so
    #[arg(long, conflicts_with = "prompt")]
    pub(super) no_think: bool,
    /// Guess tokens ahead for the same answer sooner: ngram (from the text so far), or the name of a
    /// smaller model with the same vocabulary
    #[arg(long, value_name = "ngram|MODEL")]
    pub(super) speculate: Option<String>,
    /// Tell tokens and speed on stderr
    #[arg(long)]
    pub(super) stats: bool,
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The vindexes to mount
    #[arg(required = true, action = ArgAction::Append)]
    pub(super) paths: Vec<PathBuf>,
    /// Listen on this port of 127.0.0.1 as well
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Admin {
    /// Version, uptime, sessions, threads
    Status,
    /// Who is connected and what runs
    Sessions,
    /// End a session
    Kill {
        /// Its number, as `sessions` shows it
        session: u64,
    },
    /// The log of a model's edits
    #[command(subcommand)]
    Wal(Wal),
}

#[derive(Debug, Subcommand)]
pub(super) enum Wal {
    /// How far it is
    Status {
        /// A mount, or a base hash
        model: String,
    },
    /// Read everything again and say whether it is whole
    Verify {
        /// A mount, or a base hash
        model: String,
    },
    /// Write all of it as one file
    Export {
        /// A mount, or a base hash
        model: String,
        /// The file to write
        #[arg(short, long)]
        output: String,
    },
    /// Begin a log with what another one exported
    Import {
        /// A mount, or a base hash
        model: String,
        /// The export
        file: String,
    },
    /// Say what can be saved of one that does not open, and write it where a file is named
    Salvage {
        /// A mount, or a base hash
        model: String,
        /// The file to write
        #[arg(short, long)]
        output: Option<String>,
    },
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BenchKind {
    /// Tokens one after the other
    Decode,
    /// A prompt at once
    Prefill,
    /// One query against all gates
    GateScan,
    /// DESCRIBE
    Describe,
    /// Generations of several clients at once
    Serve,
}

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// What to measure
    #[arg(value_enum)]
    pub(super) kind: BenchKind,
    /// A mounted name, a vindex directory, a checkpoint directory or a GGUF file
    pub(super) model: String,
    /// Tokens decoded, of the prompt, or made for each client of serve
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) tokens: Option<u32>,
    /// Tokens in the cache before the clock starts; of serve: of each client's prompt
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) context: u32,
    /// Clients of serve [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) clients: Option<u32>,
    /// Repetitions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) runs: Option<u32>,
    /// Threads [default: as the daemon serves]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) threads: Option<u32>,
    /// One JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Dev {
    /// Logits and residuals of a prompt of token ids, for reference checks
    Logits(DevLogits),
    /// Which features the last token of a prompt touches
    Walk(Walk),
}

#[derive(Debug, Args)]
pub(super) struct DevLogits {
    /// A mounted name, a vindex directory or a checkpoint directory
    pub(super) model: String,
    /// The prompt's token ids
    #[arg(long, required = true, value_delimiter = ',', value_name = "1,2,3")]
    pub(super) ids: Vec<u32>,
    /// Continue greedily by this many tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) greedy: u32,
    /// The serving kernels instead of exact arithmetic
    #[arg(long)]
    pub(super) fast: bool,
    /// One JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Walk {
    /// The prompt
    #[arg(long)]
    pub(super) prompt: String,
    /// A mounted name or a vindex directory
    #[arg(long, value_name = "VINDEX")]
    pub(super) index: String,
}

fn layers(text: &str) -> Result<(u32, u32), String> {
    let range = text.split_once('-').and_then(|(a, b)| Some((number(a)?, number(b)?)));
    range
        .filter(|(a, b)| a <= b)
        .ok_or_else(|| "write A-B, with A not above B, such as 0-11".to_owned())
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn not_negative(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "a number from 0 up is wanted".to_owned())
}

fn positive(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "a number above 0 is wanted".to_owned())
}

fn penalty(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| (-2.0..=2.0).contains(number));
    number.ok_or_else(|| "a number from -2 to 2 is wanted".to_owned())
}

fn share(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "a number from 0 to 1 is wanted".to_owned())
}

fn probability(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| *number > 0.0 && *number <= 1.0);
    number.ok_or_else(|| "a probability above 0, at most 1, is wanted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for line in [
            "larql run m p --temperature NaN",
            "larql run m p --temperature -1",
            "larql run m p --top-p 0",
            "larql run m p --top-p 1.5",
            "larql run m p --top-k 0",
            "larql run m p -n 0",
            "larql run m p --min-p 1.5",
            "larql run m p --min-p NaN",
            "larql run m p --repetition-penalty 0",
            "larql run m p --repetition-penalty inf",
            "larql run m p --presence-penalty -2.5",
            "larql run m p --frequency-penalty NaN",
            "larql run m p --logprobs 21",
            "larql run m p --json-schema a --grammar b",
            "larql run m --think --no-think",
            "larql run m p --think",
            "larql run m p -n -1",
            "larql extract a -o b --layers 5-3",
            "larql extract a -o b --layers +1-3",
            "larql extract a -o b --f16 --f32",
            "larql serve --port 0 x",
            "larql dev logits m --ids 1,-2",
            "larql -F xml",
            "larql --host http://x",
            "larql -c STATS -f x",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line} was accepted");
        }
    }

    #[test]
    fn global_flags_stand_before_and_after_a_command() {
        for line in ["larql -F json --no-start list", "larql list -F json --no-start"] {
            let parsed = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert!(parsed.global.no_start && parsed.global.format.name == "json", "{line}");
        }
    }

    #[test]
    fn a_dash_reads_standard_input() {
        let parsed = Arguments::try_parse_from(["larql", "-q", "-"]).unwrap();
        assert!(matches!(parsed.command, Some(Command::Stdin)));
    }
}
