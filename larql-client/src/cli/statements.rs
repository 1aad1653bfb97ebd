//! Commands that are one statement: what each says in LQL.
//!
//! Every text from the command line enters through [`quote`] or
//! [`mount_name`].

use super::args::{Admin, Command, Convert, Dev, Dtype, Extract, Level, Quant, Walk};
use crate::quote::{mount_name, quote};
use crate::shell::render::Message;

/// Returns the statements that a command stands for.
///
/// # Errors
/// A usage message if a name is none, or the command is no statement.
pub(super) fn statement(command: &Command) -> Result<String, Message> {
    Ok(match command {
        Command::Extract(extract) | Command::Convert(Convert::GgufToVindex(extract)) => {
            self::extract(extract)
        }
        Command::Verify { vindex } => format!("VERIFY VINDEX {}", quote(vindex)),
        Command::Label { vindex, facts, resume } => {
            let facts = facts
                .as_ref()
                .map_or("DEFAULT".to_owned(), |path| format!("FACTS {}", quote(path)));
            let resume = if *resume { " RESUME" } else { "" };
            format!("USE {}; LABEL CURRENT FROM {facts}{resume}", quote(vindex))
        }
        Command::Mount { path, name: None } => format!("MOUNT {}", quote(path)),
        Command::Mount { path, name: Some(alias) } => {
            format!("MOUNT {} AS {}", quote(path), mount_name(alias))
        }
        Command::Unmount { name } => format!("UNMOUNT {}", mount_name(name)),
        Command::List => "SHOW MOUNTS".to_owned(),
        Command::Admin(Admin::Sessions) => "SHOW SESSIONS".to_owned(),
        Command::Admin(Admin::Kill { session }) => format!("KILL {session}"),
        Command::Show { name } => format!("STATS {}", quote(name)),
        Command::Walk(walk) | Command::Dev(Dev::Walk(walk)) => self::walk(walk),
        other => return Err(Message::new("XX000", format!("{other:?} is no statement"))),
    })
}

fn extract(extract: &Extract) -> String {
    let mut statement =
        format!("EXTRACT MODEL {} INTO {}", quote(&extract.source), quote(&extract.output));
    if let Some((first, last)) = extract.layers {
        statement.push_str(&format!(" LAYERS {first}-{last}"));
    }
    statement.push_str(match extract.level {
        Level::Browse => "",
        Level::Attention => " WITH ATTENTION",
        Level::Inference => " WITH INFERENCE",
        Level::All => " WITH ALL",
    });
    let dtype = match (extract.dtype, extract.f16, extract.f32) {
        (Some(dtype), ..) => Some(dtype),
        (None, true, _) => Some(Dtype::F16),
        (None, _, true) => Some(Dtype::F32),
        (None, false, false) => None,
    };
    statement.push_str(match dtype {
        Some(Dtype::F16) => " DTYPE F16",
        Some(Dtype::F32) => " DTYPE F32",
        Some(Dtype::Source) => " DTYPE SOURCE",
        None => "",
    });
    statement.push_str(match extract.quant {
        Some(Quant::Q4K) => " QUANT Q4K",
        Some(Quant::Q8_0) => " QUANT Q8_0",
        Some(Quant::Fp4) => " QUANT FP4",
        Some(Quant::Fp8) => " QUANT FP8",
        None => "",
    });
    for (asked, words) in [
        (extract.down_q4k, " DOWN Q4K"),
        (extract.drop_gate_vectors, " DROP GATE VECTORS"),
        (extract.resume, " RESUME"),
        (extract.overwrite, " OVERWRITE"),
        (extract.no_labels, " WITHOUT LABELS"),
    ] {
        statement.push_str(if asked { words } else { "" });
    }
    statement
}

fn walk(walk: &Walk) -> String {
    format!("USE {}; WALK {}", quote(&walk.index), quote(&walk.prompt))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::args::Arguments;
    use super::*;

    fn said(line: &[&str]) -> Result<String, Message> {
        let line = ["larql"].iter().chain(line);
        statement(&Arguments::try_parse_from(line).unwrap().command.unwrap())
    }

    #[test]
    fn each_command_says_its_statement() {
        for (line, expected) in [
            ("extract m -o v", "EXTRACT MODEL \"m\" INTO \"v\" WITH INFERENCE"),
            ("extract-index m -o v --level browse", "EXTRACT MODEL \"m\" INTO \"v\""),
            (
                "extract m -o v --level all --f32 --layers 2-5 --resume --overwrite --no-labels",
                "EXTRACT MODEL \"m\" INTO \"v\" LAYERS 2-5 WITH ALL DTYPE F32 RESUME OVERWRITE \
                 WITHOUT LABELS",
            ),
            (
                "extract m -o v --level attention --dtype source",
                "EXTRACT MODEL \"m\" INTO \"v\" WITH ATTENTION DTYPE SOURCE",
            ),
            (
                "extract m -o v --quant q4k --down-q4k --drop-gate-vectors",
                "EXTRACT MODEL \"m\" INTO \"v\" WITH INFERENCE QUANT Q4K DOWN Q4K DROP GATE VECTORS",
            ),
            (
                "convert gguf-to-vindex m.gguf -o v --dtype source",
                "EXTRACT MODEL \"m.gguf\" INTO \"v\" WITH INFERENCE DTYPE SOURCE",
            ),
            (
                "convert gguf-to-vindex m.gguf -o v --quant q8_0",
                "EXTRACT MODEL \"m.gguf\" INTO \"v\" WITH INFERENCE QUANT Q8_0",
            ),
            ("verify v", "VERIFY VINDEX \"v\""),
            ("label v", "USE \"v\"; LABEL CURRENT FROM DEFAULT"),
            (
                "label v --facts f.tsv --resume",
                "USE \"v\"; LABEL CURRENT FROM FACTS \"f.tsv\" RESUME",
            ),
            ("mount v", "MOUNT \"v\""),
            ("link v --as atlas", "MOUNT \"v\" AS atlas"),
            ("unmount atlas", "UNMOUNT atlas"),
            ("unmount Llama-3.2-1B", "UNMOUNT \"Llama-3.2-1B\""),
            ("list", "SHOW MOUNTS"),
            ("admin sessions", "SHOW SESSIONS"),
            ("admin kill 7", "KILL 7"),
            ("show atlas", "STATS \"atlas\""),
            ("dev walk --prompt p --index v", "USE \"v\"; WALK \"p\""),
            ("walk --prompt p --index v", "USE \"v\"; WALK \"p\""),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(said(&words).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn no_argument_becomes_a_second_statement() {
        let hostile = "x\"; UNMOUNT atlas; --";
        for line in [
            vec!["verify", hostile],
            vec!["mount", hostile],
            vec!["mount", "v", "--as", hostile],
            vec!["unmount", hostile],
            vec!["show", hostile],
            vec!["extract", hostile, "-o", hostile],
        ] {
            let script = said(&line).unwrap();
            assert_eq!(crate::shell::split::statements(&script).len(), 1, "{script}");
        }
    }
}
