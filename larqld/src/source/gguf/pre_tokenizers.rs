//! Pre-tokenizers: how text is cut into words before merges run, by the names GGUF files use.
//!
//! A GGUF names its pre-tokenizer in `tokenizer.ggml.pre`; a `tokenizer.json` spells it out. One table
//! says which name means which rules, and is read both ways. Names that llama.cpp knows and this table
//! does not are refused by name: another cut of the same text gives other tokens without any error.
//!
//! The patterns are those of the families' own `tokenizer.json`, which llama.cpp's are rewritings of.

use serde_json::{Value, json};

/// One way of cutting text, each piece by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cut {
    /// What the regular expression matches is a piece, and so is what lies between matches.
    Pattern(String),
    /// Digits, one by one.
    Digits,
}

/// What one name means.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    /// The names it goes by; the first is the one that is written.
    pub(super) names: &'static [&'static str],
    cuts: &'static [ConstCut],
    /// Whether GPT-2's own expression cuts what the cuts above leave.
    gpt2: bool,
    /// Whether text is brought to Unicode's composed form first.
    pub(super) composed: bool,
    /// Whether a word that is a token is that token, whatever merges say.
    pub(super) ignore_merges: bool,
    /// Whether BOS goes before a text unless the file says otherwise.
    pub(super) add_bos: bool,
}

#[derive(Debug)]
enum ConstCut {
    Pattern(&'static str),
    Digits,
}

use ConstCut::{Digits, Pattern};

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const CJK: &str = "[一-龥\u{3040}-ゟ゠-ヿ]+";
const DEEPSEEK_V3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const DEFAULT_PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|]+";

const PLAIN: PreTokenizer = PreTokenizer {
    names: &[],
    cuts: &[],
    gpt2: false,
    composed: false,
    ignore_merges: false,
    add_bos: false,
};

/// Every pre-tokenizer of byte-level vocabularies that is known here.
const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral"],
        cuts: &[Pattern(LLAMA3)],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["dbrx", "smaug-bpe"], cuts: &[Pattern(LLAMA3)], ..PLAIN },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen", "megrez"],
        cuts: &[Pattern(QWEN2)],
        composed: true,
        ..PLAIN
    },
    PreTokenizer { names: &["stablelm2"], cuts: &[Pattern(QWEN2)], ..PLAIN },
    PreTokenizer { names: &["gpt-4o", "llama4", "kanana2"], cuts: &[Pattern(GPT4O)], ..PLAIN },
    PreTokenizer {
        names: &["tekken"],
        cuts: &[Pattern(TEKKEN)],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense"],
        cuts: &[Pattern(r"\p{N}{1,3}"), Pattern(CJK), Pattern(DEEPSEEK_V3)],
        ..PLAIN
    },
    PreTokenizer {
        names: &["starcoder", "refact", "smollm", "command-r", "codeshell", "minerva-7b"],
        cuts: &[Digits],
        gpt2: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["gpt-2", "phi-2", "olmo", "mpt", "granite-docling", "trillion"],
        gpt2: true,
        ..PLAIN
    },
    PreTokenizer {
        names: &["default"],
        cuts: &[
            Pattern(DEFAULT_PUNCTUATION),
            Pattern(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
            Pattern(r"\p{N}+"),
            Pattern("[0-9][0-9][0-9]"),
        ],
        ..PLAIN
    },
];

impl PreTokenizer {
    /// What a name in `tokenizer.ggml.pre` means.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        PRE_TOKENIZERS.iter().find(|known| known.names.contains(&name))
    }

    /// The one that does what a `tokenizer.json` spells out, in what GGUF can say.
    ///
    /// One that composes, or does not, as asked is preferred: llama.cpp itself never composes.
    pub(super) fn matching(
        pre_tokenizer: &Value,
        composed: bool,
        ignore_merges: bool,
    ) -> Option<&'static Self> {
        let (cuts, gpt2) = read(pre_tokenizer)?;
        let candidates = || {
            PRE_TOKENIZERS.iter().filter(|known| {
                known.gpt2 == gpt2 && known.ignore_merges == ignore_merges && known.cuts() == cuts
            })
        };
        candidates().find(|known| known.composed == composed).or_else(|| candidates().next())
    }

    /// Whether GPT-2's expression is all there is.
    pub(super) fn has_no_cuts(&self) -> bool {
        self.cuts.is_empty()
    }

    fn cuts(&self) -> Vec<Cut> {
        let own = |cut: &ConstCut| match cut {
            Pattern(pattern) => Cut::Pattern((*pattern).to_owned()),
            Digits => Cut::Digits,
        };
        self.cuts.iter().map(own).collect()
    }

    /// The same as `tokenizer.json` spells it; with `space_prefix`, a space goes before a text that begins
    /// without one.
    pub(super) fn json(&self, space_prefix: bool) -> Value {
        let mut steps: Vec<Value> = self
            .cuts()
            .into_iter()
            .map(|cut| match cut {
                Cut::Pattern(pattern) => json!({
                    "type": "Split",
                    "pattern": {"Regex": pattern},
                    "behavior": "Isolated",
                    "invert": false,
                }),
                Cut::Digits => json!({"type": "Digits", "individual_digits": true}),
            })
            .collect();
        steps.push(json!({
            "type": "ByteLevel",
            "add_prefix_space": space_prefix,
            "trim_offsets": true,
            "use_regex": self.gpt2,
        }));
        match steps.len() {
            1 => steps.remove(0),
            _ => json!({"type": "Sequence", "pretokenizers": steps}),
        }
    }
}

/// Whether a byte-level pre-tokenizer puts a space before a text that begins without one. Where cuts come
/// before, it would do so to each piece.
pub(super) fn has_space_prefix(pre_tokenizer: &Value) -> bool {
    let last = pre_tokenizer["pretokenizers"].as_array().and_then(|steps| steps.last());
    // The default of the format.
    last.unwrap_or(pre_tokenizer)["add_prefix_space"].as_bool().unwrap_or(true)
}

/// The cuts of a byte-level pre-tokenizer, and whether GPT-2's expression follows them; `None` for
/// anything else.
fn read(pre_tokenizer: &Value) -> Option<(Vec<Cut>, bool)> {
    let steps = match pre_tokenizer["type"].as_str()? {
        "Sequence" => pre_tokenizer["pretokenizers"].as_array()?.as_slice(),
        _ => std::slice::from_ref(pre_tokenizer),
    };
    let (last, cuts) = steps.split_last()?;
    if last["type"] != "ByteLevel" || (has_space_prefix(pre_tokenizer) && !cuts.is_empty()) {
        return None;
    }
    let cut = |step: &Value| match step["type"].as_str()? {
        "Split" if step["behavior"] == "Isolated" && step["invert"] == false => {
            Some(Cut::Pattern(step["pattern"]["Regex"].as_str()?.to_owned()))
        }
        "Digits" if step["individual_digits"] == true => Some(Cut::Digits),
        _ => None,
    };
    let gpt2 = last["use_regex"].as_bool().unwrap_or(true);
    Some((cuts.iter().map(cut).collect::<Option<_>>()?, gpt2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_again_from_what_it_means() {
        for known in PRE_TOKENIZERS {
            for name in known.names {
                assert_eq!(PreTokenizer::named(name).unwrap().names, known.names);
            }
            let found =
                PreTokenizer::matching(&known.json(false), known.composed, known.ignore_merges);
            assert_eq!(found.unwrap().names, known.names);
        }
    }

    #[test]
    fn a_prefix_space_has_no_name_of_its_own_and_none_at_all_after_cuts() {
        let gpt2 = PreTokenizer::named("gpt-2").unwrap();
        let with = gpt2.json(true);
        assert!(has_space_prefix(&with) && !has_space_prefix(&gpt2.json(false)));
        assert_eq!(PreTokenizer::matching(&with, false, false).unwrap().names, gpt2.names);
        let after_cuts = PreTokenizer::named("starcoder").unwrap().json(true);
        assert!(PreTokenizer::matching(&after_cuts, false, false).is_none());
    }

    #[test]
    fn another_expression_has_no_name() {
        let mut other = PreTokenizer::named("qwen2").unwrap().json(false);
        other["pretokenizers"][0]["pattern"]["Regex"] = json!(r"\w+");
        assert!(PreTokenizer::matching(&other, false, false).is_none());
        assert!(PreTokenizer::matching(&Value::Null, false, false).is_none());
    }
}
