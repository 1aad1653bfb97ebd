//! `docs/families.md`, printed from the list of what is tested.

use std::fmt::Write as _;

use larql_compute::model::families::FAMILIES;

use crate::goldens::{CASES, Case};

/// The page. It has no line that the tests do not know.
pub fn render() -> String {
    let mut page = HEADER.to_owned();
    let mut families: Vec<&str> = Vec::new();
    for case in CASES {
        if !families.contains(&case.family) {
            families.push(case.family);
        }
    }
    for family in families {
        let _ = write!(page, "\n## {family}\n\n{TABLE}");
        for case in CASES.iter().filter(|case| case.family == family) {
            let Case { format, covers, .. } = case;
            let _ =
                writeln!(page, "| `{}` | {format} | {covers} | {} |", case.name(), checks(case));
        }
    }
    page.push_str(MODEL_TYPES);
    for family in FAMILIES {
        let types: Vec<String> =
            family.model_types.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(page, "- {}: {}", family.name, types.join(", "));
    }
    page
}

fn checks(case: &Case) -> String {
    let mut checks = vec!["arithmetic", "tokenizer"];
    if case.has_chats() {
        checks.push("chats");
    }
    if case.has_transformers5_config() {
        checks.push("both configurations");
    }
    if case.has_long_prompt() {
        checks.push("long prompt");
    }
    checks.join(", ")
}

const HEADER: &str = "\
# Families and formats

Which models are supported, in which formats, and how each was checked. This page is printed from the list of
tests (`tests/src/goldens.rs`; `UPDATE=1 cargo nextest run -p larql-tests --test goldens docs_families`), so a
model stands here only if a test compares it with the reference implementation, Python's `transformers`.

- *arithmetic*: through a running daemon, on the checkpoint as it lies, three prompts: all logits of the last
  position within max(3e-4, 0.1 x the change that disturbing each weight by a relative 1e-5 makes); L2 norm and
  first eight numbers of the residual stream after each layer within 1e-4 of its norm; 16 greedy tokens identical.
- *tokenizer*: token ids with and without special tokens, and the text that they decode to. A GGUF file's
  tokenizer is rebuilt from its metadata.
- *chats*: the rendered text and its tokens; a chat that the model's template refuses is refused.
- *both configurations*: `config.json` as the hub has it and as transformers 5 writes it give the same model.
- *long prompt*: 300 tokens, across every window and tile boundary, also with other options of the family.

A configuration key that changes the arithmetic and is not handled, a rotary scaling or an activation that is
not known, and a model type that is not listed are refused by name.
";

const TABLE: &str = "| checkpoint | format | exercises | checked |\n|---|---|---|---|\n";

const MODEL_TYPES: &str = "
## Model types

The values of `model_type` that are read, by family:

";
