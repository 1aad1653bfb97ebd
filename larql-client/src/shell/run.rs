//! Runs one script: draws its answers, tells its errors, and cancels it on Ctrl-C.

use std::io::{self, Write};
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::progress::ProgressView;
use super::render::{Message, Renderer, Script, summary_text};
use super::{Display, ShellError};
use crate::client::{Client, ExecuteOptions};
use crate::event::{Event, StatementError};

/// Ctrl-C, as events. While one of these lives, Ctrl-C does not end the process.
pub(crate) struct Interrupts(Signal);

impl Interrupts {
    /// Begins to listen.
    pub(crate) fn listen() -> Result<Interrupts, ShellError> {
        let listening = signal(SignalKind::interrupt());
        Ok(Interrupts(listening.map_err(|error| ShellError::client("listen for Ctrl-C", &error))?))
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
    /// The mount that the last USE or UNMOUNT left in use; empty if it left none.
    pub(crate) mount: Option<String>,
}

/// Where the answers of a script go.
pub(crate) struct Page<'a> {
    pub(crate) renderer: &'a mut dyn Renderer,
    pub(crate) out: &'a mut dyn Write,
    pub(crate) progress: &'a mut ProgressView,
    /// What is to be told once the page is drawn; None: everything is told at once.
    pub(crate) notes: Option<&'a mut Vec<String>>,
}

impl Page<'_> {
    fn note(&mut self, line: String) {
        match &mut self.notes {
            Some(notes) => notes.push(line),
            None => say(&line),
        }
    }
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
    mut page: Page<'_>,
    interrupts: &mut Interrupts,
) -> io::Result<(Outcome, Effects)> {
    let began = Instant::now();
    let mut effects = Effects::default();
    let driven = drive(client, script, options, display, &mut page, interrupts, &mut effects).await;
    let outcome = match driven {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Outcome::Closed,
        other => other?,
    };
    if display.timing && outcome != Outcome::Closed {
        page.note(format!("Time: {:.3} ms", began.elapsed().as_secs_f64() * 1000.0));
    }
    Ok((outcome, effects))
}

async fn drive(
    client: &mut Client,
    script: Script<'_>,
    options: ExecuteOptions,
    display: &Display,
    page: &mut Page<'_>,
    interrupts: &mut Interrupts,
    effects: &mut Effects,
) -> io::Result<Outcome> {
    let mut statements = client.execute(script.text, options);
    let mut outcome = Outcome::Done;
    let mut cancelled = false;
    let mut tag_now: Option<String> = None;
    let mut is_command = false;
    loop {
        let event = tokio::select! {
            biased;
            () = interrupts.next() => {
                if cancelled {
                    page.progress.clear();
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
                page.renderer.begin(&tag, &columns, page.out)?;
                is_command = columns.is_empty();
                tag_now = Some(tag);
            }
            Some(Event::Rows(rows)) => {
                page.progress.clear();
                page.renderer.rows(rows, page.out)?;
                page.out.flush()?;
            }
            Some(Event::Progress(now)) => page.progress.show(&now),
            Some(Event::Notice(notice)) => {
                page.progress.clear();
                page.note(told(display, "NOTICE", &notice.into(), script));
            }
            Some(Event::Summary(summary)) => {
                page.progress.clear();
                page.renderer.end(Some(&summary), page.out)?;
                page.out.flush()?;
                if !display.quiet && display.format.name != "json" {
                    page.note(summary_text(&summary, is_command));
                }
                // Other statements may answer from a mount without putting it in use.
                let moves = |tag: &String| tag.starts_with("USE") || tag.starts_with("UNMOUNT");
                if tag_now.take().as_ref().is_some_and(moves) {
                    effects.mount = Some(summary.mount);
                }
            }
            Some(Event::Error(error)) => {
                page.progress.clear();
                if tag_now.take().is_some() {
                    page.renderer.end(None, page.out)?;
                    page.out.flush()?;
                }
                outcome = outcome_of(&error);
                page.note(told(display, "ERROR", &error.into(), script));
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
    say(&told(display, label, message, script));
}

fn told(display: &Display, label: &str, message: &Message, script: Script<'_>) -> String {
    match display.format.is_json {
        true => message.to_json(script),
        false => message.to_text(label, script),
    }
}

/// Writes a line to stderr; a closed one is nobody's loss.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
