//! Where the daemon is, and how one is started when nobody listens there.
//!
//! A local target is the socket `<data-dir>/run/larqld.sock`. When nobody listens, `larqld` is started
//! for that data directory in the background, outside the caller's session, and polled until it
//! answers. Clients that start one at the same moment queue on a lock file, so one of them starts it
//! and the others find it running; a daemon that somebody started by hand in that moment wins too,
//! because it holds the data directory and ours leaves by itself.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Client, ConnectOptions};
use crate::error::ConnectError;
use crate::shell::render::Message;
use crate::target::Target;
use crate::token::Token;

/// How long a daemon may take from its start to its first answer.
const START_TIME_MAX: Duration = Duration::from_secs(10);
/// How long we look for another daemon's answer after ours gave up.
const LOSER_GRACE: Duration = Duration::from_secs(1);
/// How long a daemon that answers no more may take to be gone.
const LEAVING_TIME_MAX: Duration = Duration::from_secs(2);
/// How often we look.
const POLL: Duration = Duration::from_millis(20);
/// How much of the daemon's output is shown when it fails, in bytes.
const LOG_TAIL_BYTES: u64 = 2000;
/// How long a daemon may take to leave after SIGTERM.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// Returns the data directory: `flag`, else `$LARQLD_DATA_DIR`, else `$LARQL_HOME`, else
/// `$XDG_DATA_HOME/larql`, else `~/.local/share/larql`, else `/var/lib/larqld`; absolute. The daemon
/// decides alike.
///
/// # Errors
/// A usage message if the working directory cannot be read.
pub fn data_dir(
    flag: Option<&Path>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, Message> {
    let variable = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let chosen = flag
        .map(Path::to_path_buf)
        .or_else(|| variable("LARQLD_DATA_DIR"))
        .or_else(|| variable("LARQL_HOME"))
        // Relative paths are invalid there, says the XDG base directory specification.
        .or_else(|| variable("XDG_DATA_HOME").filter(|p| p.is_absolute()).map(|p| p.join("larql")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/share/larql")))
        .unwrap_or_else(|| PathBuf::from("/var/lib/larqld"));
    std::path::absolute(&chosen).map_err(|error| {
        Message::new("58030", format!("could not resolve {}: {error}", chosen.display()))
    })
}

/// Returns the socket of the daemon that holds a data directory.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("run").join("larqld.sock")
}

/// Returns the data directory whose daemon listens at this target, if a daemon can be started so
/// that it does.
fn data_dir_of(target: &Target) -> Option<PathBuf> {
    let Target::Unix(path) = target else { return None };
    let data_dir = path.parent()?.parent()?;
    (socket_path(data_dir) == *path).then(|| data_dir.to_path_buf())
}

/// Which daemon to talk to, and whether it may be started.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where it listens.
    pub target: Target,
    /// Start one if nobody listens and the target is local.
    pub may_start: bool,
    /// Say nothing about it.
    pub quiet: bool,
    /// Who calls, for daemons that want to know.
    pub token: Option<Token>,
}

impl Access {
    /// Opens a session, starting a daemon if that is needed and allowed.
    ///
    /// # Errors
    /// Why there is none, with what to do.
    pub async fn connect(&self) -> Result<Client, Message> {
        let error = match self.try_connect().await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let startable = data_dir_of(&self.target).filter(|_| error.nobody_listens());
        let Some(data_dir) = startable else { return Err(error.into()) };
        if !self.may_start {
            let hint =
                format!("leave out --no-start, or run: larqld --data-dir {}", data_dir.display());
            return Err(Message::from(error).with_hint(hint));
        }
        self.start(&data_dir).await
    }

    /// Connects once; more often while the daemon at a socket of ours ends in that moment, so that a
    /// new one can be started.
    async fn try_connect(&self) -> Result<Client, ConnectError> {
        let began = Instant::now();
        loop {
            match self.connect_once().await {
                Err(
                    ConnectError::Handshake { .. }
                    | ConnectError::Unreachable { nobody_listens: false, .. },
                ) if data_dir_of(&self.target).is_some() && began.elapsed() < LEAVING_TIME_MAX => {
                    tokio::time::sleep(POLL).await;
                }
                ended => return ended,
            }
        }
    }

    async fn connect_once(&self) -> Result<Client, ConnectError> {
        let options = ConnectOptions { token: self.token.clone(), ..ConnectOptions::default() };
        Client::connect(&self.target, options).await
    }

    async fn start(&self, data_dir: &Path) -> Result<Client, Message> {
        create_private(&data_dir.join("run"))
            .map_err(|error| cannot("create", &data_dir.join("run"), &error))?;
        // Blocks until the other clients that start this daemon are done; closing it unlocks.
        let lock_path = data_dir.join("run").join("start.lock");
        let locked = {
            let path = lock_path.clone();
            tokio::task::spawn_blocking(move || lock(&path)).await
        };
        let _lock = match locked {
            Ok(Ok(lock)) => lock,
            Ok(Err(error)) => return Err(cannot("lock", &lock_path, &error)),
            Err(error) => return Err(Message::new("XX000", error.to_string())),
        };
        if let Ok(client) = self.try_connect().await {
            return Ok(client);
        }
        if !self.quiet {
            let _ = writeln!(io::stderr(), "larql: starting larqld for {}", data_dir.display());
        }
        let mut daemon = Daemon::spawn(data_dir, Lifetime::Independent)?;
        daemon.wait_until_it_answers(&self.target).await
    }
}

/// Creates a directory and its parents for this user alone; existing ones stay as they are.
fn create_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).append(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

fn cannot(action: &str, path: &Path, error: &io::Error) -> Message {
    Message::new("58030", format!("could not {action} {}: {error}", path.display()))
}

/// Returns the daemon's program: beside this program, else the first on PATH.
///
/// # Errors
/// What to do if there is none.
pub fn find_daemon() -> Result<PathBuf, Message> {
    let sibling = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("larqld")));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join("larqld"));
    sibling.into_iter().chain(on_path).find(|path| is_executable(path)).ok_or_else(|| {
        Message::new("58P01", "there is no larqld beside larql nor on PATH")
            .with_hint("install larqld next to larql, or name a running one with --host")
    })
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whether a daemon outlives the program that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It stays, for the next client.
    Independent,
    /// It is stopped with us, even if we are killed.
    Private,
}

/// A daemon that we started.
pub struct Daemon {
    child: Child,
    lifetime: Lifetime,
    log_path: PathBuf,
    /// Where its output begins in the log.
    log_offset: u64,
}

impl Daemon {
    /// Starts `larqld --data-dir DIR` in the background, its output in `DIR/log/larqld.out`.
    ///
    /// # Errors
    /// If there is no such program, or the log cannot be written.
    pub fn spawn(data_dir: &Path, lifetime: Lifetime) -> Result<Daemon, Message> {
        let program = find_daemon()?;
        let log_dir = data_dir.join("log");
        create_private(&log_dir).map_err(|error| cannot("create", &log_dir, &error))?;
        let log_path = log_dir.join("larqld.out");
        let log = File::options().create(true).append(true).mode(0o600).open(&log_path);
        let log = log.map_err(|error| cannot("open", &log_path, &error))?;
        let log_offset = log.metadata().map_or(0, |found| found.len());
        let again = log.try_clone().map_err(|error| cannot("open", &log_path, &error))?;
        let mut command = Command::new(&program);
        command.arg("--data-dir").arg(data_dir).current_dir(data_dir);
        command.stdin(Stdio::null()).stdout(log).stderr(again);
        let parent = std::process::id();
        // SAFETY: between fork and exec only setsid, prctl, getppid and _exit run, all of which are
        // async-signal-safe; nothing is allocated and no lock is taken.
        unsafe {
            command.pre_exec(move || {
                if libc::setsid() == -1 {
                    return Err(io::Error::last_os_error());
                }
                #[cfg(target_os = "linux")]
                if lifetime == Lifetime::Private {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                    // The parent may have died before the line above.
                    if libc::getppid() as u32 != parent {
                        libc::_exit(1);
                    }
                }
                Ok(())
            });
        }
        let child = command.spawn().map_err(|error| cannot("run", &program, &error))?;
        Ok(Daemon { child, lifetime, log_path, log_offset })
    }

    /// Polls the target until a session opens there.
    ///
    /// # Errors
    /// If the daemon leaves (the end of its output is in the message) or takes too long.
    pub async fn wait_until_it_answers(&mut self, target: &Target) -> Result<Client, Message> {
        let began = Instant::now();
        let mut left: Option<(ExitStatus, Instant)> = None;
        loop {
            let error = match Client::connect(target, ConnectOptions::default()).await {
                Ok(client) => return Ok(client),
                Err(error) if error.nobody_listens() => error,
                Err(error) => return Err(error.into()),
            };
            if left.is_none() {
                left = self.child.try_wait().ok().flatten().map(|status| (status, Instant::now()));
            }
            match left {
                Some((status, at)) if at.elapsed() > LOSER_GRACE => {
                    return Err(self.failure(format!("larqld stopped at once ({status})")));
                }
                None if began.elapsed() > START_TIME_MAX => {
                    let seconds = START_TIME_MAX.as_secs();
                    let message = format!("larqld did not answer within {seconds} s: {error}");
                    return Err(self.failure(message));
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    fn failure(&self, message: String) -> Message {
        let tail = self.log_tail().unwrap_or_default();
        let message = match tail.trim() {
            "" => message,
            tail => format!("{message}; it said:\n{tail}"),
        };
        Message::new("08001", message).with_hint(format!("its log is {}", self.log_path.display()))
    }

    /// The end of what this daemon, and no earlier one, wrote.
    fn log_tail(&self) -> io::Result<String> {
        let mut file = File::open(&self.log_path)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(self.log_offset.max(end.saturating_sub(LOG_TAIL_BYTES))))?;
        let mut tail = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    }

    /// Asks the daemon to leave, and makes it after a while.
    pub fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Ok(pid) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: the child was not waited for yet, so the pid is still its own.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let began = Instant::now();
        while began.elapsed() < STOP_TIME_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Private {
            self.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(
        set: &'static [(&'static str, &'static str)],
    ) -> impl Fn(&str) -> Option<OsString> {
        move |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    }

    #[test]
    fn the_data_directory_is_the_flag_then_larql_home_then_xdg_then_home() {
        let all = &[("LARQL_HOME", "/l"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(data_dir(Some(Path::new("/f")), environment(all)).unwrap(), Path::new("/f"));
        assert_eq!(data_dir(None, environment(all)).unwrap(), Path::new("/l"));
        assert_eq!(data_dir(None, environment(&all[1..])).unwrap(), Path::new("/x/larql"));
        let home = data_dir(None, environment(&all[2..])).unwrap();
        assert_eq!(home, Path::new("/h/.local/share/larql"));
        let daemon = &[("LARQLD_DATA_DIR", "/d"), ("LARQL_HOME", "/l")];
        assert_eq!(data_dir(None, environment(daemon)).unwrap(), Path::new("/d"));
        let service = data_dir(None, environment(&[("LARQL_HOME", "")])).unwrap();
        assert_eq!(service, Path::new("/var/lib/larqld"));
    }

    #[test]
    fn a_relative_data_directory_becomes_absolute_and_a_relative_xdg_is_ignored() {
        assert!(data_dir(Some(Path::new("d")), environment(&[])).unwrap().is_absolute());
        let set = &[("XDG_DATA_HOME", "x"), ("HOME", "/h")];
        assert_eq!(data_dir(None, environment(set)).unwrap(), Path::new("/h/.local/share/larql"));
    }

    #[test]
    fn only_the_socket_of_a_data_directory_can_be_started() {
        let data_dir = PathBuf::from("/d");
        assert_eq!(data_dir_of(&Target::Unix(socket_path(&data_dir))), Some(data_dir));
        assert_eq!(data_dir_of(&Target::Unix("/tmp/other.sock".into())), None);
        assert_eq!(data_dir_of(&"grpc://localhost".parse().unwrap()), None);
    }

    #[tokio::test]
    async fn without_leave_to_start_one_a_missing_daemon_is_an_error_that_says_how() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::Unix(socket_path(directory.path()));
        let access = Access { target, may_start: false, quiet: true, token: None };
        let Err(error) = access.connect().await else { panic!("somebody answered") };
        assert_eq!(error.code, "08001");
        assert!(error.hint.contains("larqld --data-dir"), "{}", error.hint);
        assert!(!directory.path().join("run").exists(), "the data directory was touched");
    }
}
