//! The commands of the `larql` program: what each does with its arguments, and how it exits.
//!
//! Most are statements in disguise (`statements`); the others have a file each. All talk to the
//! daemon through `shell::Shell` and its session.

mod args;
mod bench;
mod build;
mod demo;
mod dev;
mod generate;
mod serve;
mod statements;

use std::io::{self, IsTerminal as _, Read as _};
use std::process::ExitCode;

use clap::Parser as _;

use crate::error::CallError;
use crate::shell::render::{Expanded, Message, Script};
use crate::shell::{Display, Outcome, ProgressMode, Shell, ShellError, read_script, tell};
use crate::start::{self, Access};
use crate::target::Target;
use crate::token::Token;
use args::{Admin, Arguments, Command, Dev, Global};

/// Everything succeeded.
const EXIT_OK: u8 = 0;
/// The client or its usage failed.
const EXIT_CLIENT: u8 = 1;
/// No connection.
const EXIT_CONNECTION: u8 = 2;
/// A statement failed.
const EXIT_STATEMENT: u8 = 3;
/// Ctrl-C was pressed twice: what a shell reports for a program that SIGINT ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Why a command ends without success.
#[derive(Debug)]
enum Failure {
    /// The shell failed on our side, or has no connection.
    Shell(ShellError),
    /// A call that is no statement failed in the daemon.
    Call(Message),
    /// It was told already, or needs no word.
    Ended(Outcome),
}

impl From<ShellError> for Failure {
    fn from(error: ShellError) -> Failure {
        Failure::Shell(error)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        Failure::Call(error.into())
    }
}

impl Failure {
    /// A mistake on our side or in the arguments.
    fn client(message: Message) -> Failure {
        Failure::Shell(ShellError::Client(message))
    }

    /// What writing to stdout said; a closed pipe is none.
    fn output(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Ended(Outcome::Closed),
            _ => Failure::client(Message::new("58030", format!("could not write: {error}"))),
        }
    }

    /// What to tell, and the exit code.
    fn report(self) -> (Option<Message>, u8) {
        match self {
            Failure::Shell(ShellError::Connection(message)) => (Some(message), EXIT_CONNECTION),
            Failure::Shell(ShellError::Client(message)) => (Some(message), EXIT_CLIENT),
            Failure::Call(message) if message.code == "08006" => (Some(message), EXIT_CONNECTION),
            Failure::Call(message) => (Some(message), EXIT_STATEMENT),
            Failure::Ended(outcome) => (None, exit_code(outcome)),
        }
    }
}

fn exit_code(outcome: Outcome) -> u8 {
    match outcome {
        // Whoever read our output has seen enough: not an error.
        Outcome::Done | Outcome::Closed => EXIT_OK,
        Outcome::Failed => EXIT_STATEMENT,
        Outcome::Lost => EXIT_CONNECTION,
        Outcome::Abandoned => EXIT_INTERRUPTED,
    }
}

/// Runs the program with the process's own arguments and environment.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and the version are answers; everything else is a usage error.
            let code = if error.use_stderr() { EXIT_CLIENT } else { EXIT_OK };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let display = display(&arguments.global);
    // One worker keeps the connection alive while this thread waits for somebody to type.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(dispatch(arguments, display));
            // Whatever is still asked beside the dialogue may stay unanswered.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::client(Message::new("58030", format!("no runtime: {error}")))),
    };
    let (message, code) = match result {
        Ok(()) => (None, EXIT_OK),
        Err(failure) => failure.report(),
    };
    if let Some(message) = message {
        tell(&display, "ERROR", &message, Script::default());
    }
    ExitCode::from(code)
}

fn display(global: &Global) -> Display {
    let no_color = global.no_color || std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    Display {
        format: global.format,
        // A table that the terminal would wrap is no table.
        expanded: if io::stdout().is_terminal() { Expanded::Auto } else { Expanded::Off },
        quiet: global.quiet,
        timing: false,
        pager: true,
        color: !no_color && io::stdout().is_terminal(),
        progress: ProgressMode::for_terminal(global.quiet),
    }
}

/// Which daemon the global flags mean.
fn access(global: &Global) -> Result<Access, Failure> {
    let target = match &global.host {
        Some(target) => target.clone(),
        None => Target::Unix(start::socket_path(&data_dir(global)?)),
    };
    let token = global.token_file.as_deref().map(Token::read).transpose();
    let token = token.map_err(|error| Failure::client(Message::new("28000", error.to_string())))?;
    Ok(Access { target, may_start: !global.no_start, quiet: global.quiet, token })
}

fn data_dir(global: &Global) -> Result<std::path::PathBuf, Failure> {
    start::data_dir(global.data_dir.as_deref(), |name| std::env::var_os(name))
        .map_err(Failure::client)
}

async fn dispatch(arguments: Arguments, display: Display) -> Result<(), Failure> {
    let Arguments { global, statements, file, command } = arguments;
    if command.is_some() && (!statements.is_empty() || file.is_some()) {
        let message = Message::new("22023", "-c and -f go without a command");
        return Err(Failure::client(message.with_hint("leave out one of them")));
    }
    // The two commands that begin without a session.
    let command = match command {
        Some(Command::Serve(serve)) => return Err(serve::run(&serve, &global)),
        Some(Command::Demo(demo)) => return demo::run(&demo, &global, display).await,
        other => other,
    };
    let mut shell = Shell::new(access(&global)?, display);
    match command {
        None if !statements.is_empty() => feed(&mut shell, statements).await,
        None => match file {
            Some(path) if path.as_os_str() == "-" => feed(&mut shell, vec![read_stdin()?]).await,
            Some(path) => {
                let script = read_script(&path);
                let script =
                    script.map_err(|error| Failure::client(Message::new("58030", error)))?;
                feed(&mut shell, vec![script]).await
            }
            None => dialogue(&mut shell, &global).await,
        },
        Some(Command::Repl) => dialogue(&mut shell, &global).await,
        Some(Command::Lql { text }) => feed(&mut shell, vec![text]).await,
        Some(Command::Stdin) => feed(&mut shell, vec![read_stdin()?]).await,
        Some(Command::Run(run)) => generate::run(&run, &mut shell).await,
        Some(Command::Build(build)) => build::run(&build, &mut shell).await,
        Some(Command::Bench(bench)) => bench::run(&bench, &mut shell).await,
        Some(Command::Dev(Dev::Logits(logits))) => dev::logits(&logits, &mut shell).await,
        Some(Command::Admin(Admin::Status)) => bench::status(&mut shell).await,
        Some(Command::Admin(Admin::Wal(wal))) => bench::wal(&mut shell, wal).await,
        Some(other) => {
            let script = statements::statement(&other).map_err(Failure::client)?;
            feed(&mut shell, vec![script]).await
        }
    }
}

/// Runs scripts one after the other in one session, until one fails.
async fn feed(shell: &mut Shell, scripts: Vec<String>) -> Result<(), Failure> {
    let mut outcome = Outcome::Done;
    for script in scripts {
        outcome = shell.feed(&script).await?;
        if outcome != Outcome::Done {
            break;
        }
    }
    shell.finish()?;
    match outcome {
        Outcome::Done => Ok(()),
        outcome => Err(Failure::Ended(outcome)),
    }
}

/// The shell at a terminal; a script where stdin is none.
async fn dialogue(shell: &mut Shell, global: &Global) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return feed(shell, vec![read_stdin()?]).await;
    }
    let history = match std::env::var_os("LARQL_HISTORY").filter(|path| !path.is_empty()) {
        Some(path) => path.into(),
        None => data_dir(global)?.join("history"),
    };
    Ok(shell.interact(&history).await?)
}

fn read_stdin() -> Result<String, Failure> {
    let mut script = String::new();
    io::stdin().read_to_string(&mut script).map_err(|error| {
        Failure::client(Message::new("58030", format!("could not read standard input: {error}")))
    })?;
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_end_has_the_exit_code_of_the_contract() {
        let message = || Message::new("XX000", "x");
        let lost = Message::new("08006", "x");
        for (failure, told, code) in [
            (Failure::Shell(ShellError::Connection(message())), true, 2),
            (Failure::Shell(ShellError::Client(message())), true, 1),
            (Failure::Call(message()), true, 3),
            (Failure::Call(lost), true, 2),
            (Failure::Ended(Outcome::Done), false, 0),
            (Failure::Ended(Outcome::Closed), false, 0),
            (Failure::Ended(Outcome::Failed), false, 3),
            (Failure::Ended(Outcome::Lost), false, 2),
            (Failure::output(&io::ErrorKind::BrokenPipe.into()), false, 0),
            (Failure::output(&io::ErrorKind::StorageFull.into()), true, 1),
        ] {
            let name = format!("{failure:?}");
            let (message, exit) = failure.report();
            assert_eq!((message.is_some(), exit), (told, code), "{name}");
        }
    }
}
