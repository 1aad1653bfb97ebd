//! The daemon's life: take the data directory, open what it remembers, serve, drain, go.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use larql_storage::file::{DiskFiles, Files};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

use crate::config::{Arguments, Config, LogFormat};
use crate::engine::Engine;
use crate::machine;
use crate::server::{self, Callers, Listeners};

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When the data directory belongs to another daemon, or nothing can be served.
pub fn run(config: Config, arguments: &Arguments) -> anyhow::Result<()> {
    machine::prepare_allocator();
    let log = start_log(&config)?;
    let _lock = take_data_dir(&config.data_dir)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data_dir = %config.data_dir.display(), "larqld starts");
    let files: Arc<dyn Files> = DiskFiles::shared();
    let engine = Engine::open(&config, files).map_err(|failure| {
        let hint =
            if failure.hint.is_empty() { String::new() } else { format!(" ({})", failure.hint) };
        anyhow::anyhow!("{}{hint}", failure.message)
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .thread_name("larqld-io")
        // One script a session, one job a call.
        .max_blocking_threads(config.sessions_max.saturating_mul(2).saturating_add(64))
        .build()?;
    runtime.block_on(serve(config, arguments.clone(), engine, log))?;
    // What still runs was told to stop; it does not keep the program.
    runtime.shutdown_timeout(Duration::from_secs(1));
    tracing::info!("larqld ends");
    Ok(())
}

/// Changes what is logged.
type LogChange = reload::Handle<EnvFilter, Registry>;

/// Starts the log on stderr, and returns the way to change its filter.
fn start_log(config: &Config) -> anyhow::Result<LogChange> {
    let (filter, change) = reload::Layer::new(filter(&config.log)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let lines = match config.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    Ok(change)
}

fn filter(directives: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(directives).with_context(|| format!("log = {directives:?}"))
}

/// Creates the data directory where it is missing and takes it for this process.
fn take_data_dir(directory: &Path) -> anyhow::Result<File> {
    let run = directory.join("run");
    // Others have no business in the directory of the socket.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&run)
        .with_context(|| format!("cannot create {}", run.display()))?;
    for name in ["catalog", "vindexes", "models", "patches", "log"] {
        let path = directory.join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
    }
    let path = run.join("larqld.lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let lock = lock.with_context(|| format!("cannot open {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!(
            "another larqld uses {}; connect to it with `larql`, or choose another --data-dir",
            directory.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

async fn serve(
    config: Config,
    arguments: Arguments,
    engine: Arc<Engine>,
    log: LogChange,
) -> anyhow::Result<()> {
    let listeners = Listeners::bind(&config).await?;
    let socket = listeners.socket().to_owned();
    let (drain, draining) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reload = signal(SignalKind::hangup())?;
    let callers = Arc::new(Callers::new(&config));
    let serving = server::serve(&config, engine.clone(), callers.clone(), listeners, draining);
    tokio::pin!(serving);
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    let result = loop {
        tokio::select! {
            _ = sweep.tick() => {
                let engine = engine.clone();
                // Whatever it closes, it closes before the daemon ends: dropping the engine does, too.
                drop(tokio::task::spawn_blocking(move || engine.close_unused_edits()));
            }
            result = &mut serving => break result,
            _ = terminate.recv() => break drain_and_stop(&drain, serving, &engine, config.drain).await,
            _ = interrupt.recv() => break drain_and_stop(&drain, serving, &engine, config.drain).await,
            _ = reload.recv() => match reload_configuration(&arguments, &engine, &callers, &log) {
                Ok(()) => tracing::info!("tokens, roots and log filter are as the configuration says now"),
                Err(error) => tracing::error!("the configuration stays as it was: {error:#}"),
            },
        }
    };
    // A new daemon may have taken the directory only after this process is gone.
    let _ = std::fs::remove_file(socket);
    result
}

/// How often what nobody uses any more is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// How long clients may take, when everything is answered, to read what is on its way to them.
const LAST_FRAMES: Duration = Duration::from_secs(2);

/// Ends when everything is answered and read, or the time is over. A connection on which nothing
/// is asked, or whose client does not react, does not hold the daemon.
async fn drain_and_stop(
    drain: &watch::Sender<bool>,
    serving: impl Future<Output = anyhow::Result<()>>,
    engine: &Engine,
    patience: Duration,
) -> anyhow::Result<()> {
    tracing::info!(seconds = patience.as_secs(), "draining");
    drain.send_replace(true);
    engine.batching().drain();
    let answered = async {
        engine.until_idle().await;
        tokio::time::sleep(LAST_FRAMES).await;
    };
    tokio::select! {
        result = serving => result,
        () = answered => Ok(()),
        () = tokio::time::sleep(patience) => {
            tracing::warn!("statements were still running when the time to drain was over");
            Ok(())
        }
    }
}

/// SIGHUP: reads the configuration again and takes over what can change while serving: who callers
/// are, where they may write, what is logged. The rest takes effect at the next start.
fn reload_configuration(
    arguments: &Arguments,
    engine: &Engine,
    callers: &Callers,
    log: &LogChange,
) -> anyhow::Result<()> {
    let config = Config::load(arguments)?;
    log.reload(filter(&config.log)?)?;
    callers.replace_tokens(config.tokens);
    engine.replace_roots(config.roots);
    Ok(())
}
