//! The `larql` program: a shell, one-shot statements and commands, all run through the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    larql_client::cli::main()
}
