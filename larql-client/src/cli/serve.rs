//! `larql serve`: becomes the daemon, in the foreground, with mounts.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::args::{Global, Serve};
use super::{Failure, data_dir};
use crate::shell::render::Message;
use crate::start::find_daemon;

/// Replaces this process with the daemon; returns only if that fails.
pub(super) fn run(serve: &Serve, global: &Global) -> Failure {
    match command(serve, global) {
        Ok(mut command) => {
            let error = command.exec();
            let program = command.get_program().display();
            Failure::client(Message::new("58030", format!("could not run {program}: {error}")))
        }
        Err(failure) => failure,
    }
}

fn command(serve: &Serve, global: &Global) -> Result<Command, Failure> {
    if let Some(host) = &global.host {
        let message = format!("serve listens, it does not connect: it has no use for {host}");
        return Err(Failure::client(Message::new("22023", message).with_hint("use --port")));
    }
    let mut command = Command::new(find_daemon().map_err(Failure::client)?);
    command.arg("--data-dir").arg(data_dir(global)?);
    for path in &serve.paths {
        command.arg("--mount").arg(path);
    }
    if let Some(port) = serve.port {
        command.arg("--listen").arg(format!("127.0.0.1:{port}"));
    }
    Ok(command)
}
