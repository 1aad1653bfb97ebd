//! Runs one script: draws its answers, tells its errors, and cancels it on Ctrl-C.

use std::io::{self, Write};
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Display;
use super::progress::ProgressView;
use super::render::{Message, Renderer, Script, summary_text};
use crate::client::{Client, ExecuteOptions};
use crate::event::{Event, StatementError};

/// Ctrl-C, as events. While one of these lives, Ctrl-C does not end the process.
pub(crate) struct Interrupts(Signal);

impl Interrupts {
    /// Begins to listen.
    pub(crate) fn listen() -> io::Result<Interrupts> {
        Ok(Interrupts(signal(SignalKind::interrupt())?))
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // The runtime is going away: nobody will press anything any more.
            std::future::pending::<()>().await;
        }
    }
}

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every statement succeeded.
    Done,
    /// A statement failed; its error was told.
    Failed,
    /// The connection is gone.
    Lost,
    /// Whoever read our output has left.
    Closed,
    /// Ctrl-C was pressed twice: the script was left to itself.
    Abandoned,
}

/// What a script did that the shell wants to know.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// The mount that answered last; empty if the last USE or UNMOUNT left none.
    pub(crate) mount: Option<String>,
}

/// Where the answers of a script go.
pub(crate) struct Page<'a> {
    pub(crate) renderer: &'a mut dyn Renderer,
    pub(crate) out: &'a mut dyn Write,
    pub(crate) progress: &'a mut ProgressView,
}

/// Runs a script to its end.
///
/// # Errors
/// What `out` says, apart from a closed pipe, which is an [`Outcome`].
pub(crate) async fn run(
    client: &mut Client,
    script: Script<'_>,
    options: ExecuteOptions,
    display: &Display,
    page: Page<'_>,
    interrupts: &mut Interrupts,
) -> io::Result<(Outcome, Effects)> {
    let began = Instant::now();
    let mut effects = Effects::default();
    let outcome =
        match drive(client, script, options, display, page, interrupts, &mut effects).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Outcome::Closed,
            other => other?,
        };
    if display.timing && outcome != Outcome::Closed {
        say(&format!("Time: {:.3} ms", began.elapsed().as_secs_f64() * 1000.0));
    }
    Ok((outcome, effects))
}

async fn drive(
    client: &mut Client,
    script: Script<'_>,
    options: ExecuteOptions,
    display: &Display,
    page: Page<'_>,
    interrupts: &mut Interrupts,
    effects: &mut Effects,
) -> io::Result<Outcome> {
    let Page { renderer, out, progress } = page;
    let mut statements = client.execute(script.text, options);
    let mut outcome = Outcome::Done;
    let mut cancelled = false;
    let mut tag_now: Option<String> = None;
    loop {
        let event = tokio::select! {
            biased;
            () = interrupts.next() => {
                if cancelled {
                    progress.clear();
                    return Ok(Outcome::Abandoned);
                }
                cancelled = true;
                statements.cancel();
                continue;
            }
            event = statements.next() => event,
        };
        match event {
            None | Some(Event::Finished { .. }) => break,
            Some(Event::Schema { tag, columns, .. }) => {
                renderer.begin(&tag, &columns, out)?;
                tag_now = Some(tag);
            }
            Some(Event::Rows(rows)) => {
                progress.clear();
                renderer.rows(rows, out)?;
            }
            Some(Event::Progress(now)) => progress.show(&now),
            Some(Event::Notice(notice)) => {
                progress.clear();
                tell(display, "NOTICE", &notice.into(), script);
            }
            Some(Event::Summary(summary)) => {
                progress.clear();
                renderer.end(Some(&summary), out)?;
                out.flush()?;
                if !display.quiet && display.format.name != "json" {
                    say(&summary_text(&summary));
                }
                let leaves = tag_now
                    .take()
                    .is_some_and(|tag| tag.starts_with("USE") || tag.starts_with("UNMOUNT"));
                if leaves || !summary.mount.is_empty() {
                    effects.mount = Some(summary.mount);
                }
            }
            Some(Event::Error(error)) => {
                progress.clear();
                if tag_now.take().is_some() {
                    renderer.end(None, out)?;
                    out.flush()?;
                }
                outcome = outcome_of(&error);
                tell(display, "ERROR", &error.into(), script);
            }
        }
    }
    Ok(outcome)
}

fn outcome_of(error: &StatementError) -> Outcome {
    if error.is_connection_lost() { Outcome::Lost } else { Outcome::Failed }
}

/// Tells the user on stderr: for people, or as one JSON object in the JSON formats.
pub(crate) fn tell(display: &Display, label: &str, message: &Message, script: Script<'_>) {
    say(&match display.format.is_json {
        true => message.to_json(script),
        false => message.to_text(label, script),
    });
}

/// Writes a line to stderr; a closed one is nobody's loss.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
