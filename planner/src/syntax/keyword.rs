//! The words of the language. None of them is reserved.

macro_rules! keywords {
    ($($variant:ident $text:literal,)*) => {
        /// A word with a meaning somewhere in the grammar.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each variant is the word it is named after")]
        pub enum Keyword { $($variant,)* }

        impl Keyword {
            /// Every keyword, in alphabetical order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            const TEXTS: &'static [&'static str] = &[$($text,)*];
        }
    };
}

keywords! {
    All "ALL", Alpha "ALPHA", Analyze "ANALYZE", And "AND", Apply "APPLY", Approx "APPROX",
    As "AS", Asc "ASC", Assertion "ASSERTION", Assertions "ASSERTIONS", At "AT",
    Attention "ATTENTION", AttnOv "ATTN_OV", AttnQk "ATTN_QK", AutoExtract "AUTO_EXTRACT",
    Begin "BEGIN", Between "BETWEEN", Blame "BLAME", Branch "BRANCH", Branches "BRANCHES",
    Brief "BRIEF", By "BY", Ceiling "CEILING", Check "CHECK", Commit "COMMIT", Compact "COMPACT",
    Compare "COMPARE", Compile "COMPILE", Components "COMPONENTS", Compose "COMPOSE",
    Confidence "CONFIDENCE", Conflict "CONFLICT", Converged "CONVERGED", Copy "COPY",
    Create "CREATE", Current "CURRENT", Deallocate "DEALLOCATE", Decompose "DECOMPOSE",
    Default "DEFAULT", Delete "DELETE", Dense "DENSE", Desc "DESC", Describe "DESCRIBE",
    Diff "DIFF", Distinct "DISTINCT", Down "DOWN", Drop "DROP", Dtype "DTYPE", Edge "EDGE", Edges "EDGES",
    Embeddings "EMBEDDINGS", Entities "ENTITIES", Examples "EXAMPLES", Execute "EXECUTE",
    Explain "EXPLAIN", Export "EXPORT", Extract "EXTRACT", F16 "F16", F32 "F32", Facts "FACTS",
    Fail "FAIL", False "FALSE", Features "FEATURES", FfnDown "FFN_DOWN", FfnGate "FFN_GATE",
    FfnUp "FFN_UP", Floor "FLOOR", For "FOR", Force "FORCE", Format "FORMAT", Fp4 "FP4", Fp8 "FP8", From "FROM",
    Full "FULL", Gate "GATE", Gates "GATES", Generate "GENERATE", Gguf "GGUF", Group "GROUP", Harm "HARM",
    Having "HAVING", HighestConfidence "HIGHEST_CONFIDENCE", Hybrid "HYBRID", In "IN",
    Index "INDEX", Indexes "INDEXES", Infer "INFER", Inference "INFERENCE", Insert "INSERT",
    Into "INTO", Is "IS", Join "JOIN", Json "JSON", KeepSource "KEEP_SOURCE",
    KeepTarget "KEEP_TARGET", Kill "KILL", Knn "KNN", Knowledge "KNOWLEDGE", Label "LABEL",
    Labels "LABELS", Lambda "LAMBDA", Last "LAST", LastWins "LAST_WINS", Layer "LAYER",
    Layers "LAYERS", Least "LEAST", Like "LIKE", Limit "LIMIT", Lsn "LSN", Major "MAJOR",
    Max "MAX", Memit "MEMIT", Merge "MERGE", Minor "MINOR", Mode "MODE", Model "MODEL",
    Models "MODELS", Mount "MOUNT", Mounts "MOUNTS", Nearest "NEAREST", Not "NOT", Null "NULL",
    Of "OF", Offset "OFFSET", On "ON", Only "ONLY", Open "OPEN", Or "OR", Order "ORDER",
    Output "OUTPUT", Overwrite "OVERWRITE", Patch "PATCH", Patches "PATCHES", Points "POINTS",
    Positions "POSITIONS", Prepare "PREPARE", Pure "PURE", Q4K "Q4K", Q4Underscore "Q4_K", Q8_0 "Q8_0", Quant "QUANT", Range "RANGE", Raw "RAW",
    Rebalance "REBALANCE", Receipt "RECEIPT", Relation "RELATION", Relations "RELATIONS",
    Remote "REMOTE", Remove "REMOVE", Reset "RESET", Resume "RESUME", Rollback "ROLLBACK",
    Rules "RULES", Safetensors "SAFETENSORS", Save "SAVE", Savepoint "SAVEPOINT", Seed "SEED",
    Select "SELECT", Sessions "SESSIONS", Set "SET", Show "SHOW", Source "SOURCE", Stats "STATS",
    Status "STATUS", Stop "STOP", Stream "STREAM", Syntax "SYNTAX", Table "TABLE",
    Targets "TARGETS", Temperature "TEMPERATURE", Text "TEXT", To "TO", Top "TOP", TopK "TOP_K",
    TopP "TOP_P", Trace "TRACE", Transaction "TRANSACTION", True "TRUE", Unmount "UNMOUNT",
    Until "UNTIL", Update "UPDATE", Use "USE", Using "USING", Values "VALUES", Vectors "VECTORS", Verbose "VERBOSE",
    Verify "VERIFY", Vindex "VINDEX", Walk "WALK", Weights "WEIGHTS", Where "WHERE", With "WITH",
    Without "WITHOUT",
}

/// The longest keyword, in bytes.
const KEYWORD_BYTES_MAX: usize = 18;

/// Slots of the lookup table: a power of two well above the number of keywords.
const SLOTS: usize = 1024;

/// Keyword number plus one, by hash with linear probing; 0 is empty.
static TABLE: [u8; SLOTS] = table();

const fn table() -> [u8; SLOTS] {
    let mut table = [0u8; SLOTS];
    let mut index = 0;
    while index < Keyword::TEXTS.len() {
        let mut slot = hash(Keyword::TEXTS[index].as_bytes());
        while table[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = (index + 1) as u8;
        index += 1;
    }
    table
}

/// Mixes length and three letters without regard to case. `word` is not empty.
const fn hash(word: &[u8]) -> usize {
    let length = word.len();
    let first = (word[0] | 0x20) as usize;
    let last = (word[length - 1] | 0x20) as usize;
    let middle = (word[length / 2] | 0x20) as usize;
    let second = (word[if length > 1 { 1 } else { 0 }] | 0x20) as usize;
    let mixed = (first * 31) ^ (last * 127) ^ (middle * 523) ^ (second * 7) ^ (length * 67);
    mixed % SLOTS
}

impl Keyword {
    /// The keyword that `word` spells in any case, if it is one.
    pub fn from_word(word: &str) -> Option<Self> {
        let bytes = word.as_bytes();
        if bytes.is_empty() || bytes.len() > KEYWORD_BYTES_MAX {
            return None;
        }
        let mut slot = hash(bytes);
        loop {
            let index = usize::from(TABLE[slot]).checked_sub(1)?;
            if Self::TEXTS[index].eq_ignore_ascii_case(word) {
                return Some(Self::ALL[index]);
            }
            slot = (slot + 1) % SLOTS;
        }
    }

    /// The keyword in upper case.
    pub fn text(self) -> &'static str {
        Self::TEXTS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_keyword_is_found_in_any_case_and_nothing_else_is() {
        for keyword in Keyword::ALL {
            assert_eq!(Keyword::from_word(keyword.text()), Some(*keyword));
            assert_eq!(Keyword::from_word(&keyword.text().to_lowercase()), Some(*keyword));
        }
        assert_eq!(Keyword::from_word("SELECTS"), None);
        assert_eq!(Keyword::from_word("x"), None);
        assert_eq!(Keyword::from_word(&"A".repeat(100)), None);
    }

    #[test]
    fn keywords_are_listed_in_order_and_the_longest_fits() {
        assert!(Keyword::TEXTS.is_sorted());
        let longest = Keyword::TEXTS.iter().map(|text| text.len()).max();
        assert_eq!(longest, Some(KEYWORD_BYTES_MAX));
    }
}
