//! The shell: reads statements, runs them, draws their answers.
//!
//! One `Shell` serves the terminal, `-c`, `-f`, a pipe and the commands of the program that are
//! statements in disguise; `Shell::interact` adds the line editor. Results go to stdout, everything
//! else to stderr.
//!
//! Elsewhere: backslash commands ([`commands`], one table), formats ([`render`], one file each), where
//! statements end ([`split`]).

pub mod commands;
mod editor;
pub mod keywords;
mod progress;
pub mod render;
pub(crate) mod run;
pub mod split;
mod terminal;

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustyline::config::Configurer as _;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Behavior, CompletionType, Config, Editor};

pub use progress::ProgressMode;

use crate::client::{Client, ExecuteOptions};
use crate::start::Access;
use commands::Action;
use editor::{Assistant, Names};
pub(crate) use progress::ProgressView;
use render::{Expanded, FORMATS, Format, Message, Options, Renderer, Script, text};
pub(crate) use run::{Interrupts, Outcome, say, tell};
use split::Completeness;
use terminal::Pager;

/// How deep files may include one another.
const INCLUDE_DEPTH_MAX: usize = 16;
/// How many entries the history keeps.
const HISTORY_ENTRIES_MAX: usize = 10_000;

/// How answers look.
#[derive(Clone, Copy, Debug)]
pub struct Display {
    /// The output format.
    pub format: &'static Format,
    /// Whether tables are drawn one field a line.
    pub expanded: Expanded,
    /// No summaries, no banner, no progress.
    pub quiet: bool,
    /// Show the time as seen from here.
    pub timing: bool,
    /// Page long answers.
    pub pager: bool,
    /// Colours where a terminal shows them.
    pub color: bool,
    /// How progress is shown.
    pub progress: ProgressMode,
}

impl Default for Display {
    fn default() -> Display {
        Display {
            format: &FORMATS[0],
            expanded: Expanded::Off,
            quiet: false,
            timing: false,
            pager: true,
            color: false,
            progress: ProgressMode::Off,
        }
    }
}

/// Why the shell itself failed; a statement that fails is an [`Outcome`].
#[derive(Debug)]
pub(crate) enum ShellError {
    /// No connection.
    Connection(Message),
    /// Anything else on our side.
    Client(Message),
}

impl ShellError {
    /// Ctrl-C was pressed while connecting.
    pub(crate) fn gave_up() -> ShellError {
        ShellError::Connection(Message::new("08001", "gave up connecting"))
    }

    fn no_session() -> ShellError {
        ShellError::Connection(Message::new("08003", "there is no session"))
    }

    fn client(action: &str, error: &io::Error) -> ShellError {
        ShellError::Client(Message::new("58030", format!("could not {action}: {error}")))
    }
}

/// What to do after a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Go on.
    Next,
    /// Something failed; a script ends here, the shell goes on.
    Stop(Outcome),
    /// Leave.
    Quit,
}

/// Reads statements, runs them, draws their answers.
pub(crate) struct Shell {
    access: Access,
    client: Option<Client>,
    display: Display,
    /// Listened to from the first connection on: before it, Ctrl-C just ends the process.
    interrupts: Option<Interrupts>,
    /// The file of `\o`.
    output: Option<File>,
    /// Draws all scripts of a run that is no dialogue, so that they make one document.
    renderer: Option<Box<dyn Renderer>>,
    interactive: bool,
    mount: String,
    names: Arc<Names>,
}

impl Shell {
    /// A shell that has yet to connect.
    pub(crate) fn new(access: Access, display: Display) -> Shell {
        Shell {
            access,
            client: None,
            display,
            interrupts: None,
            output: None,
            renderer: None,
            interactive: false,
            mount: String::new(),
            names: Arc::default(),
        }
    }

    /// Returns the session, opened now if it is not yet, or not any more.
    pub(crate) async fn client(&mut self) -> Result<&mut Client, ShellError> {
        let client = match self.client.take() {
            Some(client) if !client.is_lost() => client,
            lost => {
                if lost.is_some() && !self.display.quiet {
                    say("larql: connecting again");
                }
                let interrupts = match &mut self.interrupts {
                    Some(interrupts) => interrupts,
                    None => self.interrupts.insert(Interrupts::listen()?),
                };
                tokio::select! {
                    connected = self.access.connect() => connected.map_err(ShellError::Connection)?,
                    () = interrupts.next() => return Err(ShellError::gave_up()),
                }
            }
        };
        Ok(self.client.insert(client))
    }

    /// Returns the open session, and Ctrl-C, for work beside statements.
    pub(crate) fn client_and_interrupts(
        &mut self,
    ) -> Result<(&mut Client, &mut Interrupts), ShellError> {
        match (&mut self.client, &mut self.interrupts) {
            (Some(client), Some(interrupts)) => Ok((client, interrupts)),
            _ => Err(ShellError::no_session()),
        }
    }

    /// How answers look.
    pub(crate) fn display(&self) -> &Display {
        &self.display
    }

    /// Runs one script as it is.
    pub(crate) async fn send(&mut self, script: Script<'_>) -> Result<Outcome, ShellError> {
        self.client().await?;
        let (Some(client), Some(interrupts)) = (&mut self.client, &mut self.interrupts) else {
            return Err(ShellError::no_session());
        };
        let terminal = self.output.is_none() && io::stdout().is_terminal();
        let size = terminal.then(terminal::size).flatten();
        let mut renderer = match self.renderer.take() {
            Some(renderer) => renderer,
            None => (self.display.format.renderer)(Options {
                terminal,
                columns: size.map(|(_, columns)| columns),
                expanded: self.display.expanded,
            }),
        };
        let paged = self.interactive && self.display.pager && terminal;
        let mut progress = ProgressView::new(self.display.progress);
        let mut pager = Pager::new(size.filter(|_| paged).map(|(rows, _)| rows));
        let out: &mut dyn Write = match &mut self.output {
            Some(file) => file,
            None => &mut pager,
        };
        // What the pager holds back comes first, then what there is to say about it.
        let mut notes = Vec::new();
        let page = run::Page {
            renderer: &mut *renderer,
            out,
            progress: &mut progress,
            notes: self.interactive.then_some(&mut notes),
        };
        let options = ExecuteOptions::here();
        let ran = run::run(client, script, options, &self.display, page, interrupts).await;
        let result = ran.and_then(|(outcome, effects)| {
            if self.interactive {
                // Each answer of a dialogue stands for itself.
                renderer.finish(match &mut self.output {
                    Some(file) => file,
                    None => &mut pager,
                })?;
            } else {
                self.renderer = Some(renderer);
            }
            Ok((outcome, effects))
        });
        let closed = pager.close();
        notes.iter().for_each(|note| say(note));
        let (outcome, effects) = match result.and_then(|ran| closed.map(|()| ran)) {
            Ok(ran) => ran,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                (Outcome::Closed, run::Effects::default())
            }
            Err(error) => return Err(ShellError::client("write the answer", &error)),
        };
        if let Some(mount) = effects.mount {
            self.mount = mount;
        }
        match outcome {
            // The daemon did not react to the first Ctrl-C: leave that session behind.
            Outcome::Abandoned => {
                self.client = None;
                self.mount.clear();
            }
            Outcome::Lost if self.interactive => {
                self.mount.clear();
                say("larql: the next statement connects again, without the USE and SET of before");
            }
            _ => {}
        }
        Ok(outcome)
    }

    /// Runs a text that may hold commands, a line each; stops at the first failure.
    pub(crate) async fn feed(&mut self, text: &str) -> Result<Outcome, ShellError> {
        match self.feed_at(text, 0).await? {
            Flow::Stop(outcome) => Ok(outcome),
            Flow::Next | Flow::Quit => Ok(Outcome::Done),
        }
    }

    /// Runs a text with its answers in a file, as one document of a format.
    pub(crate) async fn feed_into(
        &mut self,
        file: File,
        format: &'static Format,
        text: &str,
    ) -> Result<Outcome, ShellError> {
        let format = std::mem::replace(&mut self.display.format, format);
        let output = self.output.replace(file);
        let renderer = self.renderer.take();
        let fed = self.feed(text).await;
        let finished = self.finish();
        self.display.format = format;
        self.output = output;
        self.renderer = renderer;
        let outcome = fed?;
        finished.map(|()| outcome)
    }

    async fn feed_at(&mut self, text: &str, depth: usize) -> Result<Flow, ShellError> {
        // Almost every script has no command in it and goes out whole, as it is.
        let mut pending = 0..0;
        let mut lines_before = 0;
        let mut lines = 0;
        for line in text.split_inclusive('\n') {
            let command = line.trim_start().starts_with('\\')
                && !split::ends_in_string(&text[pending.clone()]);
            if command {
                let flow = self.send_pending(&text[pending.clone()], lines_before).await?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let flow = self.command(line, depth).await?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
            }
            lines += 1;
            pending.end += line.len();
            if command {
                pending.start = pending.end;
                lines_before = lines;
            }
        }
        self.send_pending(&text[pending], lines_before).await
    }

    async fn send_pending(&mut self, text: &str, lines_before: u32) -> Result<Flow, ShellError> {
        if split::completeness(text) == Completeness::Empty {
            return Ok(Flow::Next);
        }
        match self.send(Script { text, lines_before }).await? {
            Outcome::Done => Ok(Flow::Next),
            outcome => Ok(Flow::Stop(outcome)),
        }
    }

    /// Runs a command line.
    async fn command(&mut self, line: &str, depth: usize) -> Result<Flow, ShellError> {
        let Some((name, arguments)) = commands::parse(line) else { return Ok(Flow::Next) };
        let format = self.display.format.name;
        let action = commands::run(name, arguments, &mut self.display);
        if self.display.format.name != format {
            self.finish()?;
        }
        let refuse = |shell: &Shell, message: String| {
            tell(&shell.display, "ERROR", &Message::new("22023", message), Script::default());
            Ok(Flow::Stop(Outcome::Failed))
        };
        match action {
            Err(message) => refuse(self, message),
            Ok(Action::Nothing) => Ok(Flow::Next),
            Ok(Action::Say(text)) => {
                say(&text);
                Ok(Flow::Next)
            }
            Ok(Action::Statement(statement)) => self.send_pending(&statement, 0).await,
            Ok(Action::Include(_)) if depth >= INCLUDE_DEPTH_MAX => refuse(
                self,
                format!("files include one another more than {INCLUDE_DEPTH_MAX} deep"),
            ),
            Ok(Action::Include(path)) => match read_script(&path) {
                Ok(text) => Box::pin(self.feed_at(&text, depth + 1)).await,
                Err(error) => refuse(self, error),
            },
            Ok(Action::Output(None)) => {
                self.finish()?;
                self.output = None;
                Ok(Flow::Next)
            }
            Ok(Action::Output(Some(path))) => {
                self.finish()?;
                match File::create(&path) {
                    Ok(file) => {
                        self.output = Some(file);
                        Ok(Flow::Next)
                    }
                    Err(error) => {
                        refuse(self, format!("could not create {}: {error}", path.display()))
                    }
                }
            }
            Ok(Action::Quit) => Ok(Flow::Quit),
        }
    }

    /// Ends the document that the renderer may have open.
    pub(crate) fn finish(&mut self) -> Result<(), ShellError> {
        let Some(mut renderer) = self.renderer.take() else { return Ok(()) };
        let finished = match &mut self.output {
            Some(file) => renderer.finish(file),
            None => renderer.finish(&mut io::stdout()).and_then(|()| io::stdout().flush()),
        };
        match finished {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(ShellError::client("write the answer", &error))
            }
            _ => Ok(()),
        }
    }

    /// Talks with the person at the terminal until they leave.
    pub(crate) async fn interact(&mut self, history: &Path) -> Result<(), ShellError> {
        self.finish()?;
        self.interactive = true;
        self.client().await?;
        if !self.display.quiet {
            self.greet();
        }
        let mut editor = self.editor(history).map_err(|error| {
            ShellError::Client(Message::new("58030", format!("no line editor: {error}")))
        })?;
        let mut pending = String::new();
        loop {
            self.refresh_names();
            let prompt = prompt(&self.mount, !pending.is_empty());
            // Blocks this thread only: the connection lives on the runtime's worker.
            let line = match editor.readline(&prompt) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => {
                    pending.clear();
                    continue;
                }
                Err(ReadlineError::Signal(_)) => continue,
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => {
                    let message = format!("could not read the terminal: {error}");
                    return Err(ShellError::Client(Message::new("58030", message)));
                }
            };
            let command = match pending.is_empty() {
                true => commands::parse(&line).is_some(),
                false => line.trim_start().starts_with('\\') && !split::ends_in_string(&pending),
            };
            if command {
                remember(&mut editor, history, line.trim());
                match self.survive(|shell| Box::pin(shell.command(&line, 0))).await? {
                    Flow::Quit => return Ok(()),
                    Flow::Next | Flow::Stop(_) => continue,
                }
            }
            pending.push_str(&line);
            pending.push('\n');
            match split::completeness(&pending) {
                Completeness::Empty => pending.clear(),
                Completeness::Open => {}
                Completeness::Complete => {
                    let script = std::mem::take(&mut pending);
                    remember(&mut editor, history, script.trim());
                    self.survive(|shell| Box::pin(shell.send_pending(&script, 0))).await?;
                }
            }
        }
    }

    /// Runs one step of the dialogue; a daemon that is gone, or a full disk, does not end it.
    async fn survive<'a, F>(&'a mut self, step: F) -> Result<Flow, ShellError>
    where
        F: FnOnce(
            &'a mut Shell,
        )
            -> std::pin::Pin<Box<dyn Future<Output = Result<Flow, ShellError>> + 'a>>,
    {
        let display = self.display;
        match step(self).await {
            Ok(flow) => Ok(flow),
            Err(ShellError::Connection(message) | ShellError::Client(message)) => {
                tell(&display, "ERROR", &message, Script::default());
                Ok(Flow::Next)
            }
        }
    }

    fn greet(&self) {
        let Some(client) = &self.client else { return };
        say(&format!(
            "larql {}, connected to {} at {}\nType \\? for help, \\q to leave; a statement ends with ;",
            env!("CARGO_PKG_VERSION"),
            text::escape(&client.welcome().server),
            self.access.target
        ));
    }

    fn editor(&self, history: &Path) -> rustyline::Result<Editor<Assistant, FileHistory>> {
        let behavior = match io::stdout().is_terminal() {
            true => Behavior::Stdio,
            // Answers go to a file: talk through the terminal itself.
            false => Behavior::PreferTerm,
        };
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .behavior(behavior)
            .max_history_size(HISTORY_ENTRIES_MAX)?
            .history_ignore_dups(true)?
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_auto_add_history(false);
        editor.set_helper(Some(Assistant::new(Arc::clone(&self.names), self.display.color)));
        // The first time there is no history, and a damaged one is no reason not to start.
        let _ = editor.load_history(history);
        Ok(editor)
    }

    /// Asks for the names of mounts beside the dialogue; the last answer serves until the next.
    fn refresh_names(&self) {
        let Some(client) = self.client.as_ref().filter(|client| !client.is_lost()) else { return };
        let (link, names) = (client.link(), Arc::clone(&self.names));
        tokio::spawn(async move {
            if let Ok(found) = link.names().await {
                names.hear(found);
            }
        });
    }
}

/// Keeps an entry at once, so that a shell that is killed loses none.
fn remember(editor: &mut Editor<Assistant, FileHistory>, path: &Path, entry: &str) {
    if editor.add_history_entry(entry).unwrap_or(false) {
        // A history that cannot be written is not worth an error a statement.
        let _ = editor.append_history(path);
    }
}

/// `atlas=> ` where a statement begins, `atlas-> ` where it goes on.
fn prompt(mount: &str, continued: bool) -> String {
    let name = if mount.is_empty() { "larql" } else { mount };
    format!("{}{} ", text::escape(name), if continued { "->" } else { "=>" })
}

/// Reads a script from a file.
///
/// # Errors
/// What to tell the user.
pub(crate) fn read_script(path: &PathBuf) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("could not read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_shows_the_mount_and_whether_a_statement_goes_on() {
        assert_eq!(prompt("", false), "larql=> ");
        assert_eq!(prompt("atlas", true), "atlas-> ");
        assert_eq!(prompt("a\u{1b}[2J", false), "a\\u{1b}[2J=> ");
    }
}
