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
use tracing_subscriber::EnvFilter;

use crate::config::{Arguments, Config, LogFormat};
use crate::engine::Engine;
use crate::server::{self, Listeners};

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When the data directory belongs to another daemon, or nothing can be served.
pub fn run(config: Config, arguments: &Arguments) -> anyhow::Result<()> {
    start_log(&config)?;
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
    runtime.block_on(serve(config, arguments.clone(), engine))?;
    // What still runs was told to stop; it does not keep the program.
    runtime.shutdown_timeout(Duration::from_secs(1));
    tracing::info!("larqld ends");
    Ok(())
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(&config.log).with_context(|| format!("log = {:?}", config.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
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

async fn serve(config: Config, arguments: Arguments, engine: Arc<Engine>) -> anyhow::Result<()> {
    let listeners = Listeners::bind(&config).await?;
    let socket = listeners.socket().to_owned();
    let (drain, draining) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reload = signal(SignalKind::hangup())?;
    let serving = server::serve(&config, engine, listeners, draining);
    tokio::pin!(serving);
    let result = loop {
        tokio::select! {
            result = &mut serving => break result,
            _ = terminate.recv() => break drain_and_stop(&drain, serving, config.drain).await,
            _ = interrupt.recv() => break drain_and_stop(&drain, serving, config.drain).await,
            _ = reload.recv() => check_configuration(&arguments),
        }
    };
    // A new daemon may have taken the directory only after this process is gone.
    let _ = std::fs::remove_file(socket);
    result
}

async fn drain_and_stop(
    drain: &watch::Sender<bool>,
    serving: impl Future<Output = anyhow::Result<()>>,
    patience: Duration,
) -> anyhow::Result<()> {
    tracing::info!(seconds = patience.as_secs(), "draining");
    drain.send_replace(true);
    match tokio::time::timeout(patience, serving).await {
        Ok(result) => result,
        Err(_) => {
            tracing::warn!("statements were still running when the time to drain was over");
            Ok(())
        }
    }
}

/// SIGHUP: reads the configuration again and says whether it holds; listeners and limits stay as they
/// are until the daemon starts anew.
fn check_configuration(arguments: &Arguments) {
    match Config::load(arguments) {
        Ok(_) => tracing::info!("the configuration is valid; it takes effect at the next start"),
        Err(error) => tracing::error!("the configuration is not valid: {error:#}"),
    }
}
