//! Commands about how answers look.

use super::{Action, Command, switch};
use crate::shell::render::{Expanded, FORMATS, Format};

pub(super) const FORMAT: Command = Command {
    name: "f",
    arguments: "[FORMAT]",
    short: "choose the output format",
    long: "One of table, vertical, json, ndjson, csv, markdown and junit; without a format, lists them.",
    run: |display, name| {
        if name.is_empty() {
            let line = |format: &Format| {
                let mark = if format.name == display.format.name { '*' } else { ' ' };
                format!("{mark} {:<10} {}", format.name, format.help)
            };
            return Ok(Action::Say(FORMATS.iter().map(line).collect::<Vec<_>>().join("\n")));
        }
        display.format = Format::named(name)?;
        Ok(Action::Say(format!("format is {name}")))
    },
};

pub(super) const EXPANDED: Command = Command {
    name: "x",
    arguments: "[on|off|auto]",
    short: "draw one field a line",
    long: "auto, as at the start, does so where a table would be wider than the terminal. Without an \
           argument, changes between on and auto. It concerns the format table only.",
    run: |display, argument| {
        display.expanded = match argument {
            "auto" => Expanded::Auto,
            "" if display.expanded == Expanded::On => Expanded::Auto,
            _ if switch(argument, false)? => Expanded::On,
            _ => Expanded::Off,
        };
        let shown = match display.expanded {
            Expanded::On => "on",
            Expanded::Off => "off",
            Expanded::Auto => "auto",
        };
        Ok(Action::Say(format!("expanded display is {shown}")))
    },
};

pub(super) const TIMING: Command = Command {
    name: "timing",
    arguments: "[on|off]",
    short: "show how long an answer took from here",
    long: "The time is this program's, so it has the way to the daemon and the drawing in it; the \
           summary's is the daemon's own.",
    run: |display, argument| {
        display.timing = switch(argument, display.timing)?;
        Ok(Action::Say(format!("timing is {}", if display.timing { "on" } else { "off" })))
    },
};

pub(super) const PAGER: Command = Command {
    name: "pager",
    arguments: "[on|off]",
    short: "page answers that are longer than the screen",
    long: "The pager is $PAGER, else less. It is on at the start.",
    run: |display, argument| {
        display.pager = switch(argument, display.pager)?;
        Ok(Action::Say(format!("pager is {}", if display.pager { "on" } else { "off" })))
    },
};
