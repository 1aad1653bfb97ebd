//! Commands about the shell itself.

use std::path::PathBuf;

use super::{Action, COMMANDS, Command};

pub(super) const HELP: Command = Command {
    name: "?",
    arguments: "[COMMAND]",
    short: "list the commands, or explain one",
    long: "Statements end with ; and may span lines. Tab completes, Ctrl-C cancels, Ctrl-D leaves.",
    run: |_, name| {
        if !name.is_empty() {
            let name = name.trim_start_matches('\\');
            let command = COMMANDS.iter().find(|command| command.name == name);
            let Command { arguments, short, long, .. } =
                command.ok_or_else(|| format!("there is no command \\{name}; \\? lists them"))?;
            return Ok(Action::Say(format!("\\{name} {arguments}\n  {short}\n  {long}")));
        }
        let mut text = String::from("Commands (\\? COMMAND explains one):\n");
        for Command { name, arguments, short, .. } in COMMANDS {
            let usage = format!("\\{name} {arguments}");
            text.push_str(&format!("  {usage:<20} {short}\n"));
        }
        text.push_str(
            "Statements end with ; and may span lines:\n  \
             USE \"atlas\";  STATS;  DESCRIBE \"France\";  INFER \"The capital of France is\";\n  \
             WALK \"France\" TOP 5;  SELECT * FROM EDGES WHERE entity = \"France\";  SHOW LAYERS;",
        );
        Ok(Action::Say(text))
    },
};

pub(super) const INCLUDE: Command = Command {
    name: "i",
    arguments: "FILE",
    short: "run the statements of a file",
    long: "The file may hold commands too, a line each. A statement that fails ends it.",
    run: |_, file| match file {
        "" => Err("\\i wants a file".to_owned()),
        file => Ok(Action::Include(PathBuf::from(file))),
    },
};

pub(super) const OUTPUT: Command = Command {
    name: "o",
    arguments: "[FILE]",
    short: "write answers to a file, or to the screen again",
    long: "The file is created anew. Prompts, summaries and errors stay on the screen.",
    run: |_, file| Ok(Action::Output((!file.is_empty()).then(|| PathBuf::from(file)))),
};

pub(super) const QUIT: Command = Command {
    name: "q",
    arguments: "",
    short: "leave",
    long: "So do exit, quit and Ctrl-D.",
    run: |_, _| Ok(Action::Quit),
};
