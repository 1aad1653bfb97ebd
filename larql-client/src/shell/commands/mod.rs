//! Backslash commands: one table, read by dispatch, `\?`, completion and the guide.
//!
//! A command changes the display or returns what the shell should do; it performs no I/O itself.

mod catalog;
mod display;
mod session;

use std::path::PathBuf;

use super::Display;

/// What the shell does after a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing more.
    Nothing,
    /// Tell the user.
    Say(String),
    /// Run this statement.
    Statement(String),
    /// Run the statements of a file.
    Include(PathBuf),
    /// Write answers to a file from now on, or to stdout again.
    Output(Option<PathBuf>),
    /// Leave.
    Quit,
}

/// One backslash command.
pub struct Command {
    /// Its name without the backslash.
    pub name: &'static str,
    /// Its arguments, as `\?` shows them.
    pub arguments: &'static str,
    /// One line for `\?`.
    pub short: &'static str,
    /// What `\? NAME` says.
    pub long: &'static str,
    /// Runs it with what follows its name, trimmed; the error is told to the user.
    pub run: fn(&mut Display, &str) -> Result<Action, String>,
}

/// Every backslash command, in the order of `\?`.
pub static COMMANDS: &[Command] = &[
    session::HELP,
    catalog::USE,
    catalog::DETAIL,
    catalog::LIST,
    catalog::MOUNTS,
    catalog::INDEXES,
    catalog::RELATIONS,
    catalog::SESSIONS,
    catalog::STATEMENTS,
    catalog::SETTINGS,
    catalog::TABLES,
    display::FORMAT,
    display::EXPANDED,
    display::TIMING,
    display::PAGER,
    session::INCLUDE,
    session::OUTPUT,
    session::QUIT,
];

/// Words that are commands without a backslash, when they stand alone on a fresh line.
const BARE_WORDS: [(&str, &str); 3] = [("help", "?"), ("quit", "q"), ("exit", "q")];

/// Returns the name and the arguments of a command line; None if the line is none.
pub fn parse(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if let Some(command) = line.strip_prefix('\\') {
        let (name, arguments) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        return Some((name, arguments.trim()));
    }
    let word = line.strip_suffix(';').unwrap_or(line).trim_end();
    let bare = BARE_WORDS.iter().find(|(bare, _)| word.eq_ignore_ascii_case(bare));
    bare.map(|(_, name)| (*name, ""))
}

/// Runs the command of this name.
///
/// # Errors
/// What to tell the user: there is no such command, or its arguments make no sense.
pub fn run(name: &str, arguments: &str, display: &mut Display) -> Result<Action, String> {
    match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => (command.run)(display, arguments),
        None => Err(format!("there is no command \\{name}; \\? lists them")),
    }
}

/// Reads an argument that is `on`, `off` or nothing, which turns the value around.
fn switch(argument: &str, now: bool) -> Result<bool, String> {
    match argument {
        "" => Ok(!now),
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{argument:?} is neither on nor off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_line(line: &str, display: &mut Display) -> Result<Action, String> {
        let (name, arguments) = parse(line).unwrap();
        run(name, arguments, display)
    }

    #[test]
    fn help_lists_every_command_with_its_arguments() {
        let Ok(Action::Say(help)) = run_line("\\?", &mut Display::default()) else { panic!() };
        for command in COMMANDS {
            assert!(
                help.contains(&format!("\\{} {}", command.name, command.arguments)),
                "{}",
                command.name
            );
            assert!(help.contains(command.short), "{}", command.name);
        }
    }

    #[test]
    fn help_on_a_command_tells_its_long_text() {
        for command in COMMANDS {
            let Ok(Action::Say(help)) =
                run_line(&format!("\\? {}", command.name), &mut Display::default())
            else {
                panic!("{}", command.name)
            };
            assert!(help.contains(command.long), "{}", command.name);
        }
        assert!(run_line("\\? nonsense", &mut Display::default()).is_err());
    }

    #[test]
    fn every_name_stands_once_in_the_table() {
        for (index, command) in COMMANDS.iter().enumerate() {
            assert!(
                COMMANDS[..index].iter().all(|other| other.name != command.name),
                "{}",
                command.name
            );
        }
    }

    #[test]
    fn a_name_in_a_command_cannot_become_a_second_statement() {
        let action = run_line("\\c x\"; UNMOUNT atlas; --", &mut Display::default());
        assert_eq!(action, Ok(Action::Statement("USE \"x\\\"; UNMOUNT atlas; --\"".into())));
    }

    #[test]
    fn words_without_a_backslash_are_commands_only_when_they_stand_alone() {
        assert_eq!(parse("quit"), Some(("q", "")));
        assert_eq!(parse(" EXIT ; "), Some(("q", "")));
        assert_eq!(parse("help;"), Some(("?", "")));
        assert_eq!(parse("quit now"), None);
        assert_eq!(parse("STATS;"), None);
    }

    #[test]
    fn display_commands_change_what_they_say() {
        let mut display = Display::default();
        run_line("\\f ndjson", &mut display).unwrap();
        assert_eq!(display.format.name, "ndjson");
        assert!(run_line("\\f xml", &mut display).is_err());
        run_line("\\x auto", &mut display).unwrap();
        assert_eq!(display.expanded, crate::shell::render::Expanded::Auto);
        run_line("\\timing", &mut display).unwrap();
        assert!(display.timing);
        run_line("\\timing off", &mut display).unwrap();
        assert!(!display.timing);
        assert!(run_line("\\timing maybe", &mut display).is_err());
    }

    #[test]
    fn an_unknown_command_points_to_help() {
        assert!(run_line("\\nonsense", &mut Display::default()).unwrap_err().contains("\\?"));
    }
}
