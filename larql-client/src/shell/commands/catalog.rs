//! Commands about what is mounted: each is a statement in fewer letters.

use super::{Action, Command};
use crate::quote::quote;

pub(super) const LIST: Command = Command {
    name: "l",
    arguments: "",
    short: "list what is mounted",
    long: "Runs SHOW MOUNTS.",
    run: |_, _| Ok(Action::Statement("SHOW MOUNTS".to_owned())),
};

pub(super) const DETAIL: Command = Command {
    name: "d",
    arguments: "[NAME]",
    short: "describe a mount, or the layers of the one in use",
    long: "With a name, runs STATS \"NAME\"; without one, SHOW LAYERS.",
    run: |_, name| {
        Ok(Action::Statement(match name {
            "" => "SHOW LAYERS".to_owned(),
            name => format!("STATS {}", quote(name)),
        }))
    },
};

/// A command that shows a system table.
const fn table(
    name: &'static str,
    short: &'static str,
    long: &'static str,
    run: fn(&mut super::Display, &str) -> Result<Action, String>,
) -> Command {
    Command { name, arguments: "", short, long, run }
}

pub(super) const MOUNTS: Command =
    table("dm", "mounts, as a table to select from", "Runs SELECT * FROM larql.mounts.", |_, _| {
        Ok(Action::Statement("SELECT * FROM larql.mounts".to_owned()))
    });

pub(super) const INDEXES: Command =
    table("di", "indexes of the mount in use", "Runs SELECT * FROM larql.indexes.", |_, _| {
        Ok(Action::Statement("SELECT * FROM larql.indexes".to_owned()))
    });

pub(super) const RELATIONS: Command = table(
    "dr",
    "relations of the mount in use, with their counts",
    "Runs SELECT * FROM larql.relations.",
    |_, _| Ok(Action::Statement("SELECT * FROM larql.relations".to_owned())),
);

pub(super) const SESSIONS: Command = table(
    "ds",
    "who is connected and what runs",
    "Runs SELECT * FROM larql.sessions. KILL ends one by its number.",
    |_, _| Ok(Action::Statement("SELECT * FROM larql.sessions".to_owned())),
);

pub(super) const STATEMENTS: Command = table(
    "dq",
    "statements that run or ran lately",
    "Runs SELECT * FROM larql.statements.",
    |_, _| Ok(Action::Statement("SELECT * FROM larql.statements".to_owned())),
);

pub(super) const SETTINGS: Command =
    table("dv", "settings of the session", "Runs SELECT * FROM larql.settings.", |_, _| {
        Ok(Action::Statement("SELECT * FROM larql.settings".to_owned()))
    });

pub(super) const TABLES: Command = table(
    "dt",
    "tables of facts",
    "Runs SELECT * FROM larql.tables. CREATE TABLE makes one of a file.",
    |_, _| Ok(Action::Statement("SELECT * FROM larql.tables".to_owned())),
);

pub(super) const USE: Command = Command {
    name: "c",
    arguments: "NAME",
    short: "use a mount or a path",
    long: "Runs USE \"NAME\"; the prompt shows the mount that answers.",
    run: |_, name| match name {
        "" => Err("\\c wants the name of a mount; \\l lists them".to_owned()),
        name => Ok(Action::Statement(format!("USE {}", quote(name)))),
    },
};
