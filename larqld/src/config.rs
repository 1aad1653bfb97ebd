//! Configuration: flags, then environment, then `larqld.toml`, then defaults.
//!
//! [`Arguments`] is plain data as the user typed it; [`Config`] is what was made of it, checked, and
//! the only form that the rest of the daemon sees. Every key of the file has a flag and an
//! environment variable of the same name; an unknown key is an error.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use larql_compute::model::KvType;
use serde::Deserialize;

use crate::batch;
use crate::session::Role;

/// The port of a gRPC listener that names none.
pub const GRPC_PORT: u16 = 7878;

/// The daemon's command line.
#[derive(Debug, Clone, Default, clap::Parser)]
#[command(name = "larqld", version, about = "Mounts model weights as a database and answers LQL")]
pub struct Arguments {
    /// Configuration file [default: DATA_DIR/larqld.toml where it exists]
    #[arg(long, env = "LARQLD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the catalog, vindexes and the socket are kept
    #[arg(long, env = "LARQLD_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Also serve gRPC on this loopback address; repeatable
    #[arg(long, env = "LARQLD_LISTEN", value_name = "ADDR", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// Mount this vindex or checkpoint directory at start; repeatable
    #[arg(long, env = "LARQLD_MOUNT", value_name = "PATH", value_delimiter = ',')]
    pub mount: Vec<PathBuf>,
    /// Threads that compute [default: one per physical core]
    #[arg(long, env = "LARQLD_THREADS", value_name = "N")]
    pub threads: Option<usize>,
    /// Directories that sessions other than the owner's may name in statements
    #[arg(long, env = "LARQLD_ROOTS", value_name = "DIR", value_delimiter = ',')]
    pub roots: Vec<PathBuf>,
    /// Sessions at one time [default: 1024]
    #[arg(long, env = "LARQLD_SESSIONS_MAX", value_name = "N")]
    pub sessions_max: Option<usize>,
    /// Seconds that running statements get on SIGTERM [default: 10]
    #[arg(long, env = "LARQLD_DRAIN_SECONDS", value_name = "S")]
    pub drain_seconds: Option<u64>,
    /// How keys and values of sequences are kept: f16 or q8 [default: f16]
    #[arg(long, env = "LARQLD_KV_TYPE", value_name = "TYPE")]
    pub kv_type: Option<String>,
    /// Memory for keys and values of each model in use, in MiB [default: 1024]
    #[arg(long, env = "LARQLD_KV_CACHE_MB", value_name = "MIB")]
    pub kv_cache_mb: Option<usize>,
    /// Sequences of one model that advance together [default: 32]
    #[arg(long, env = "LARQLD_BATCH_SEQUENCES_MAX", value_name = "N")]
    pub batch_sequences_max: Option<usize>,
    /// Generations and inferences that may wait for one model [default: 1024]
    #[arg(long, env = "LARQLD_GENERATE_QUEUE_MAX", value_name = "N")]
    pub generate_queue_max: Option<usize>,
    /// Tokens of prompts that one step reads; a quarter of it while others decode [default: 256]
    #[arg(long, env = "LARQLD_PREFILL_CHUNK_TOKENS", value_name = "N")]
    pub prefill_chunk_tokens: Option<usize>,
    /// Memory for plans and answers that are kept, in MiB; 0 keeps none [default: 64]
    #[arg(long, env = "LARQLD_RESULT_CACHE_MB", value_name = "MIB")]
    pub result_cache_mb: Option<usize>,
    /// The latest LSNs that AS OF can read; 0: all since the last COMPACT MAJOR [default: 0]
    #[arg(long, env = "LARQLD_HISTORY_LSNS", value_name = "N")]
    pub history_lsns: Option<u64>,
    /// File with the token to show to daemons that USE REMOTE names [default: none]
    #[arg(long, env = "LARQLD_REMOTE_TOKEN_FILE", value_name = "FILE")]
    pub remote_token_file: Option<PathBuf>,
    /// What to log, as tracing filter directives [default: info]
    #[arg(long, env = "LARQLD_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines look: text or json [default: text]
    #[arg(long, env = "LARQLD_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    #[serde(default)]
    listen: Vec<String>,
    #[serde(default)]
    mount: Vec<PathBuf>,
    threads: Option<usize>,
    #[serde(default)]
    roots: Vec<PathBuf>,
    sessions_max: Option<usize>,
    drain_seconds: Option<u64>,
    kv_type: Option<String>,
    kv_cache_mb: Option<usize>,
    batch_sequences_max: Option<usize>,
    generate_queue_max: Option<usize>,
    prefill_chunk_tokens: Option<usize>,
    result_cache_mb: Option<usize>,
    history_lsns: Option<u64>,
    remote_token_file: Option<PathBuf>,
    log: Option<String>,
    log_format: Option<LogFormat>,
    #[serde(default)]
    tokens: Vec<FileToken>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileToken {
    name: String,
    role: String,
    sha256: String,
}

/// A bearer token that callers over TCP may show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Who it stands for, in logs.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// SHA-256 of the token; the token itself is kept nowhere.
    pub sha256: [u8; 32],
}

/// The daemon's checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the catalog, vindexes and the socket are kept; absolute.
    pub data_dir: PathBuf,
    /// Loopback addresses to serve gRPC on, besides the unix socket.
    pub listen: Vec<SocketAddr>,
    /// What to mount at start; absolute paths.
    pub mounts: Vec<PathBuf>,
    /// Threads that compute; 0 means one per physical core.
    pub threads: usize,
    /// Where sessions other than the owner's may read and write.
    pub roots: Vec<PathBuf>,
    /// Sessions at one time.
    pub sessions_max: usize,
    /// How long running statements may go on after SIGTERM.
    pub drain: Duration,
    /// How much runs together, waits and is kept.
    pub batch: batch::Limits,
    /// Memory for plans and answers that are kept; 0 keeps none.
    pub result_cache_bytes: usize,
    /// The latest LSNs that AS OF can read; 0: all since the last COMPACT MAJOR.
    pub history_lsns: u64,
    /// Holds the token to show to other daemons; absolute.
    pub remote_token_file: Option<PathBuf>,
    /// Tracing filter directives.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Who callers over TCP may be.
    pub tokens: Vec<Token>,
}

impl Config {
    /// Checks `arguments`, reads the configuration file, and decides.
    ///
    /// # Errors
    /// A file that cannot be read or has an unknown key, an address that is not loopback, a number
    /// that makes no sense: each with the name of the key.
    pub fn load(arguments: &Arguments) -> anyhow::Result<Self> {
        let directory = arguments.data_dir.clone().unwrap_or_else(default_data_dir);
        let path = arguments
            .config
            .clone()
            .or_else(|| Some(directory.join("larqld.toml")).filter(|path| path.is_file()));
        let file = match path {
            Some(path) => read_file(&path)?,
            None => File::default(),
        };
        Self::merge(arguments, file)
    }

    fn merge(arguments: &Arguments, file: File) -> anyhow::Result<Self> {
        let data_dir =
            arguments.data_dir.clone().or(file.data_dir).unwrap_or_else(default_data_dir);
        let listen =
            if arguments.listen.is_empty() { file.listen } else { arguments.listen.clone() };
        let mounts = if arguments.mount.is_empty() { file.mount } else { arguments.mount.clone() };
        let roots = if arguments.roots.is_empty() { file.roots } else { arguments.roots.clone() };
        let threads = arguments.threads.or(file.threads).unwrap_or(0);
        if threads > 1024 {
            bail!("threads = {threads}: at most 1024");
        }
        let sessions_max = arguments.sessions_max.or(file.sessions_max).unwrap_or(1024);
        if !(1..=65_536).contains(&sessions_max) {
            bail!("sessions_max = {sessions_max}: from 1 to 65536");
        }
        let drain = arguments.drain_seconds.or(file.drain_seconds).unwrap_or(10);
        if drain > 86_400 {
            bail!("drain_seconds = {drain}: at most a day");
        }
        let within = |key: &str, flag: Option<usize>, file: Option<usize>, default, most| match flag
            .or(file)
            .unwrap_or(default)
        {
            value if (1..=most).contains(&value) => Ok(value),
            value => bail!("{key} = {value}: from 1 to {most}"),
        };
        let kv_cache_mb =
            within("kv_cache_mb", arguments.kv_cache_mb, file.kv_cache_mb, 1024, 1 << 24)?;
        let batch = batch::Limits {
            kv_type: kv_type(arguments.kv_type.as_deref().or(file.kv_type.as_deref()))?,
            kv_cache_bytes: kv_cache_mb << 20,
            sequences_max: within(
                "batch_sequences_max",
                arguments.batch_sequences_max,
                file.batch_sequences_max,
                32,
                4096,
            )?,
            queue_max: within(
                "generate_queue_max",
                arguments.generate_queue_max,
                file.generate_queue_max,
                1024,
                65_536,
            )?,
            prefill_tokens_max: within(
                "prefill_chunk_tokens",
                arguments.prefill_chunk_tokens,
                file.prefill_chunk_tokens,
                256,
                65_536,
            )?,
        };
        let result_cache_mb = arguments.result_cache_mb.or(file.result_cache_mb).unwrap_or(64);
        if result_cache_mb > 1 << 20 {
            bail!("result_cache_mb = {result_cache_mb}: at most {}", 1 << 20);
        }
        let absolute =
            |path: &PathBuf| std::path::absolute(path).with_context(|| path.display().to_string());
        Ok(Self {
            data_dir: absolute(&data_dir)?,
            listen: listen.iter().map(|text| loopback(text)).collect::<anyhow::Result<_>>()?,
            mounts: mounts.iter().map(absolute).collect::<anyhow::Result<_>>()?,
            roots: roots.iter().map(absolute).collect::<anyhow::Result<_>>()?,
            threads,
            sessions_max,
            drain: Duration::from_secs(drain),
            batch,
            result_cache_bytes: result_cache_mb << 20,
            history_lsns: arguments.history_lsns.or(file.history_lsns).unwrap_or(0),
            remote_token_file: arguments
                .remote_token_file
                .as_ref()
                .or(file.remote_token_file.as_ref())
                .map(absolute)
                .transpose()?,
            log: arguments.log.clone().or(file.log).unwrap_or_else(|| "info".to_owned()),
            log_format: arguments.log_format.or(file.log_format).unwrap_or_default(),
            tokens: file.tokens.into_iter().map(token).collect::<anyhow::Result<_>>()?,
        })
    }

    /// The unix socket's path.
    pub fn socket(&self) -> PathBuf {
        self.data_dir.join("run").join("larqld.sock")
    }
}

fn read_file(path: &Path) -> anyhow::Result<File> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text)
        .with_context(|| format!("{} is not a larqld configuration", path.display()))
}

/// `$LARQL_HOME`, else `$XDG_DATA_HOME/larql`, else `~/.local/share/larql`, else `/var/lib/larqld` for
/// a service without a home. The same as `larql_client::start::data_dir`.
fn default_data_dir() -> PathBuf {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("LARQL_HOME")
        // Relative paths are invalid there, says the XDG base directory specification.
        .or_else(|| {
            variable("XDG_DATA_HOME")
                .filter(|path| path.is_absolute())
                .map(|path| path.join("larql"))
        })
        .or_else(|| variable("HOME").map(|home| home.join(".local/share/larql")))
        .unwrap_or_else(|| PathBuf::from("/var/lib/larqld"))
}

/// Parses `ADDR`, `ADDR:PORT`, `:PORT` or `PORT` and insists on loopback: other addresses need TLS
/// and credentials, which this build does not offer.
fn loopback(text: &str) -> anyhow::Result<SocketAddr> {
    let parsed = text
        .parse::<SocketAddr>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, GRPC_PORT)))
        .or_else(|| {
            let port =
                text.strip_prefix(':').or_else(|| text.strip_prefix("localhost:")).unwrap_or(text);
            port.parse().ok().map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        })
        .or_else(|| (text == "localhost").then(|| SocketAddr::from(([127, 0, 0, 1], GRPC_PORT))));
    match parsed {
        Some(address) if address.ip().is_loopback() => Ok(address),
        Some(address) => bail!(
            "listen = {address}: only loopback addresses may be served without TLS and credentials"
        ),
        None => bail!("listen = {text:?}: expected ADDRESS, ADDRESS:PORT or PORT"),
    }
}

fn kv_type(name: Option<&str>) -> anyhow::Result<KvType> {
    let Some(name) = name else { return Ok(KvType::default()) };
    let known = KvType::ALL.iter().find(|(known, _)| *known == name);
    known.map(|(_, kv_type)| *kv_type).with_context(|| {
        let names: Vec<&str> = KvType::ALL.iter().map(|(known, _)| *known).collect();
        format!("kv_type = {name:?}: expected {}", names.join(" or "))
    })
}

fn token(token: FileToken) -> anyhow::Result<Token> {
    let role = Role::from_name(&token.role).with_context(|| {
        format!("tokens: {:?} is not a role (reader, infer, editor, admin)", token.role)
    })?;
    let digits = token.sha256.as_bytes();
    let mut sha256 = [0; 32];
    let valid = digits.len() == 64 && digits.is_ascii();
    for (index, byte) in sha256.iter_mut().enumerate() {
        let pair = valid.then(|| &token.sha256[2 * index..2 * index + 2]);
        *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).with_context(|| {
            format!("tokens: sha256 of {:?} is not 64 hexadecimal digits", token.name)
        })?;
    }
    Ok(Token { name: token.name, role, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> Arguments {
        Arguments { data_dir: Some(PathBuf::from("/tmp/d")), ..Arguments::default() }
    }

    #[test]
    fn addresses_may_leave_out_port_or_host() {
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1:7878"),
            ("127.0.0.1:9", "127.0.0.1:9"),
            ("[::1]:9", "[::1]:9"),
            ("::1", "[::1]:7878"),
            (":9", "127.0.0.1:9"),
            ("9", "127.0.0.1:9"),
            ("localhost", "127.0.0.1:7878"),
            ("localhost:9", "127.0.0.1:9"),
        ] {
            assert_eq!(loopback(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn an_address_beyond_loopback_is_refused() {
        for text in ["0.0.0.0:9", "192.0.2.1", "[::]:9", "example.com:9"] {
            assert!(loopback(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file: File = toml::from_str("threads = 3\nsessions_max = 5\nlisten = ['9']").unwrap();
        let arguments = Arguments { threads: Some(2), ..arguments() };
        let config = Config::merge(&arguments, file).unwrap();
        assert_eq!((config.threads, config.sessions_max, config.drain.as_secs()), (2, 5, 10));
        assert_eq!(config.listen, ["127.0.0.1:9".parse().unwrap()]);
    }

    #[test]
    fn the_limits_of_a_batch_come_from_flags_file_and_defaults_and_are_checked() {
        let file = || toml::from_str("kv_type = 'q8'\nkv_cache_mb = 64").unwrap();
        let given = Arguments { kv_cache_mb: Some(8), ..arguments() };
        let batch = Config::merge(&given, file()).unwrap().batch;
        assert_eq!((batch.kv_type, batch.kv_cache_bytes), (KvType::Q8, 8 << 20));
        assert_eq!(
            (batch.sequences_max, batch.queue_max, batch.prefill_tokens_max),
            (32, 1024, 256)
        );
        for wrong in
            ["kv_cache_mb", "batch_sequences_max", "generate_queue_max", "prefill_chunk_tokens"]
        {
            let file = toml::from_str(&format!("{wrong} = 0")).unwrap();
            let error = Config::merge(&arguments(), file).unwrap_err();
            assert!(error.to_string().starts_with(wrong), "{error}");
        }
        let other = Arguments { kv_type: Some("f8".to_owned()), ..arguments() };
        let error = Config::merge(&other, File::default()).unwrap_err();
        assert!(error.to_string().contains("f16 or q8"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        assert!(toml::from_str::<File>("tread = 3").is_err());
    }

    #[test]
    fn a_token_needs_a_known_role_and_a_whole_digest() {
        let make = |role: &str, sha256: &str| {
            token(FileToken { name: "n".into(), role: role.into(), sha256: sha256.into() })
        };
        assert_eq!(make("infer", &"ab".repeat(32)).unwrap().sha256, [0xab; 32]);
        assert!(make("root", &"ab".repeat(32)).is_err());
        assert!(make("infer", "ab").is_err());
        assert!(make("infer", &"zz".repeat(32)).is_err());
        assert!(make("infer", &"é".repeat(32)).is_err());
    }
}
