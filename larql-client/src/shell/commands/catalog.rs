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
