//! The larqld program: arguments, then the daemon.

use std::process::ExitCode;

use clap::Parser as _;
use larqld::config::{Arguments, Config};
use larqld::daemon;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = Config::load(&arguments).and_then(|config| daemon::run(config, &arguments));
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larqld: {error:#}");
            ExitCode::FAILURE
        }
    }
}
