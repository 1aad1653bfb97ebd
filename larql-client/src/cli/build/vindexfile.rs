//! The text of a Vindexfile: one directive a line, `#` begins a comment outside strings.
//!
//! Promises: what is accepted is understood whole; what is not names its line. Nothing is opened here.

use std::collections::HashSet;

/// Most directives.
const DIRECTIVES_MAX: usize = 10_000;
/// Levels that EXPOSE knows.
const LEVELS: [&str; 4] = ["browse", "attention", "inference", "all"];
/// Columns that DELETE knows.
const COLUMNS: [&str; 3] = ["entity", "relation", "target"];

/// What a line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Directive {
    /// `PATCH ref`
    Patch(String),
    /// `INSERT ("entity", "relation", "target")`
    Insert([String; 3]),
    /// `DELETE ("entity", "relation", "target")`, or conditions
    Delete(Vec<(&'static str, String)>),
    /// `LABELS ref`
    Labels(String),
    /// `EXPOSE level`
    Expose(&'static str),
    /// `ASSERT name "prompt" = "answer" [AT LEAST probability]`
    Assert(Assertion),
}

/// What the product is to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assertion {
    pub(super) name: String,
    pub(super) prompt: String,
    pub(super) expected: String,
    /// As it is written.
    pub(super) at_least: Option<String>,
}

/// A Vindexfile as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vindexfile {
    /// What is built from.
    pub(super) from: String,
    /// Before any stage.
    common: Vec<Directive>,
    /// By name, in order.
    stages: Vec<(String, Vec<Directive>)>,
}

/// Why a file is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParseError {
    /// Where, from 1.
    pub(super) line: usize,
    /// What is wrong.
    pub(super) problem: String,
    /// What to do.
    pub(super) hint: &'static str,
}

const DIRECTIVES: &str = "FROM, PATCH, INSERT, DELETE, ASSERT, LABELS, EXPOSE or STAGE";

impl Vindexfile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is not understood.
    pub(super) fn parse(text: &str) -> Result<Self, ParseError> {
        let mut file = Self { from: String::new(), common: Vec::new(), stages: Vec::new() };
        let mut count = 0;
        let mut names = HashSet::new();
        for (line, text) in (1..).zip(text.lines()) {
            let wrong = |problem: String, hint| ParseError { line, problem, hint };
            let words = words(text).map_err(|problem| {
                wrong(problem, "a string is \"…\", with \\\" and \\\\ inside")
            })?;
            let Some((Word::Bare(directive), rest)) = words.split_first() else {
                match words.first() {
                    None => continue,
                    Some(_) => {
                        return Err(wrong("a line begins with a directive".into(), DIRECTIVES));
                    }
                }
            };
            count += 1;
            if count > DIRECTIVES_MAX {
                return Err(wrong(format!("there are more than {DIRECTIVES_MAX} directives"), ""));
            }
            let one = || match rest {
                [Word::Bare(text) | Word::Text(text)] if !text.is_empty() => Ok(text.clone()),
                _ => Err(wrong(
                    format!("{directive} takes one name or path"),
                    "write it after the word",
                )),
            };
            let parsed = match directive.to_ascii_uppercase().as_str() {
                "FROM" => {
                    if !file.stages.is_empty() {
                        return Err(wrong("FROM stands before every STAGE".into(), "move it up"));
                    }
                    if !file.from.is_empty() {
                        return Err(wrong("there are two FROM".into(), "a vindex has one base"));
                    }
                    file.from = one()?;
                    continue;
                }
                "STAGE" => {
                    let name = one()?;
                    if file.stages.iter().any(|(known, _)| *known == name) {
                        let problem = format!("there are two stages {name:?}");
                        return Err(wrong(problem, "give each a name of its own"));
                    }
                    file.stages.push((name, Vec::new()));
                    continue;
                }
                "PATCH" => Directive::Patch(one()?),
                "LABELS" => Directive::Labels(one()?),
                "EXPOSE" => {
                    let name = one()?;
                    let level = LEVELS.into_iter().find(|level| name.eq_ignore_ascii_case(level));
                    Directive::Expose(level.ok_or_else(|| {
                        wrong(
                            format!("{name:?} is no level"),
                            "browse, attention, inference or all",
                        )
                    })?)
                }
                "INSERT" => Directive::Insert(fact(rest).ok_or_else(|| {
                    wrong(
                        "INSERT takes a fact".into(),
                        "INSERT (\"entity\", \"relation\", \"target\")",
                    )
                })?),
                "DELETE" => {
                    let by_fact = || Some(COLUMNS.into_iter().zip(fact(rest)?).collect());
                    Directive::Delete(by_fact().or_else(|| conditions(rest)).ok_or_else(|| {
                        wrong(
                            "DELETE takes a fact or conditions".into(),
                            "DELETE (\"e\", \"r\", \"t\"), or DELETE entity = \"e\" AND relation = \"r\"",
                        )
                    })?)
                }
                "ASSERT" => {
                    let assertion = assertion(rest).ok_or_else(|| {
                        wrong(
                            "ASSERT takes a name, a prompt and its answer".into(),
                            "ASSERT name \"prompt\" = \"answer\" [AT LEAST 0.5]",
                        )
                    })?;
                    if !names.insert(assertion.name.clone()) {
                        let problem = format!("there are two assertions {:?}", assertion.name);
                        return Err(wrong(problem, "give each a name of its own"));
                    }
                    Directive::Assert(assertion)
                }
                _ => return Err(wrong(format!("{directive:?} is no directive"), DIRECTIVES)),
            };
            match file.stages.last_mut() {
                Some((_, directives)) => directives.push(parsed),
                None => file.common.push(parsed),
            }
        }
        if file.from.is_empty() {
            let (line, problem) = (text.lines().count().max(1), "there is no FROM".to_owned());
            return Err(ParseError { line, problem, hint: "FROM names the vindex to build from" });
        }
        Ok(file)
    }

    /// What is said before any stage, and in the one that is asked for.
    ///
    /// # Errors
    /// The stages that there are, where it is none of them.
    pub(super) fn of_stage(&self, stage: Option<&str>) -> Result<Vec<&Directive>, Vec<&str>> {
        let of_stage = match stage {
            None => &[][..],
            Some(name) => match self.stages.iter().find(|(known, _)| known == name) {
                Some((_, directives)) => directives,
                None => return Err(self.stages.iter().map(|(known, _)| &**known).collect()),
            },
        };
        Ok(self.common.iter().chain(of_stage).collect())
    }
}

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Bare(String),
    Text(String),
    Symbol(char),
}

/// Cuts a line; what follows `#` outside a string is no part of it.
fn words(line: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut characters = line.chars().peekable();
    while let Some(&first) = characters.peek() {
        match first {
            '#' => break,
            _ if first.is_whitespace() => _ = characters.next(),
            '(' | ')' | ',' | '=' => {
                words.push(Word::Symbol(first));
                characters.next();
            }
            '"' | '\'' => {
                characters.next();
                let mut text = String::new();
                loop {
                    match characters.next() {
                        None => return Err("a string does not end".to_owned()),
                        Some('\0') => return Err("a string holds a NUL character".to_owned()),
                        Some('\\') => match characters.next() {
                            Some('n') => text.push('\n'),
                            Some('t') => text.push('\t'),
                            Some(other) => text.push(other),
                            None => return Err("a string does not end".to_owned()),
                        },
                        Some(end) if end == first => break,
                        Some(other) => text.push(other),
                    }
                }
                words.push(Word::Text(text));
            }
            _ => {
                let mut text = String::new();
                while let Some(&next) = characters.peek() {
                    if next.is_whitespace() || "(),=\"'#".contains(next) {
                        break;
                    }
                    text.push(next);
                    characters.next();
                }
                words.push(Word::Bare(text));
            }
        }
    }
    Ok(words)
}

fn fact(words: &[Word]) -> Option<[String; 3]> {
    use Word::{Symbol, Text};
    match words {
        [
            Symbol('('),
            Text(entity),
            Symbol(','),
            Text(relation),
            Symbol(','),
            Text(target),
            Symbol(')'),
        ] if [entity, relation, target].iter().all(|text| !text.trim().is_empty()) => {
            Some([entity.clone(), relation.clone(), target.clone()])
        }
        _ => None,
    }
}

fn assertion(words: &[Word]) -> Option<Assertion> {
    use Word::{Bare, Symbol, Text};
    let [Bare(name), Text(prompt), Symbol('='), Text(expected), rest @ ..] = words else {
        return None;
    };
    let at_least = match rest {
        [] => None,
        [Bare(at), Bare(least), Bare(number)]
            if at.eq_ignore_ascii_case("at") && least.eq_ignore_ascii_case("least") =>
        {
            let number: f64 = number.parse().ok().filter(|number| (0.0..=1.0).contains(number))?;
            Some(number.to_string())
        }
        _ => return None,
    };
    // A name of LQL.
    let is_name = |name: &str| {
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
    };
    let texts = [prompt, expected].iter().all(|text| !text.trim().is_empty());
    (is_name(name) && texts).then(|| Assertion {
        name: name.clone(),
        prompt: prompt.clone(),
        expected: expected.clone(),
        at_least,
    })
}

fn conditions(words: &[Word]) -> Option<Vec<(&'static str, String)>> {
    let mut conditions = Vec::new();
    for (index, condition) in words.chunks(4).enumerate() {
        let (joined, last) = (condition.len() == 4, 4 * index + condition.len() == words.len());
        let [Word::Bare(column), Word::Symbol('='), Word::Text(text), rest @ ..] = condition else {
            return None;
        };
        let is_and = matches!(rest, [Word::Bare(and)] if and.eq_ignore_ascii_case("and"));
        if joined == last || joined != is_and {
            return None;
        }
        let column = COLUMNS.into_iter().find(|known| column.eq_ignore_ascii_case(known))?;
        if conditions.iter().any(|(known, _)| *known == column) {
            return None;
        }
        conditions.push((column, text.clone()));
    }
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrong(text: &str) -> (usize, String) {
        let error = Vindexfile::parse(text).unwrap_err();
        (error.line, error.problem)
    }

    #[test]
    fn what_is_wrong_names_its_line() {
        for (text, line, part) in [
            ("", 1, "no FROM"),
            ("FROM a\nFROM b", 2, "two FROM"),
            ("FROM a\nSTAGE s\nFROM b", 3, "before every STAGE"),
            ("FROM a\nSTAGE s\nSTAGE s", 3, "two stages"),
            ("FROM a\nEXPOSE everything", 2, "no level"),
            ("FROM a\nINSERT (\"a\", \"b\")", 2, "takes a fact"),
            ("FROM a\nINSERT (\"a\", \"b\", \" \")", 2, "takes a fact"),
            ("FROM a\nDELETE layer = \"1\"", 2, "fact or conditions"),
            ("FROM a\nDELETE entity = \"1\" AND", 2, "fact or conditions"),
            ("FROM a\nDELETE entity = \"1\" AND entity = \"2\"", 2, "fact or conditions"),
            ("FROM a\nCOPY x", 2, "no directive"),
            ("FROM a b", 1, "one name or path"),
            ("FROM \"a", 1, "does not end"),
            ("FROM a\nASSERT \"p\" = \"a\"", 2, "takes a name"),
            ("FROM a\nASSERT 1x \"p\" = \"a\"", 2, "takes a name"),
            ("FROM a\nASSERT x \"p\" = \"\"", 2, "takes a name"),
            ("FROM a\nASSERT x \"p\" = \"a\" AT LEAST 2", 2, "takes a name"),
            (
                "FROM a\nASSERT x \"p\" = \"a\"\nSTAGE s\nASSERT x \"q\" = \"b\"",
                4,
                "two assertions",
            ),
        ] {
            let (found, problem) = wrong(text);
            assert!(found == line && problem.contains(part), "{text}: {found}: {problem}");
        }
    }

    #[test]
    fn commas_quotes_and_comments_in_strings_are_text() {
        let text = "from \"a b\" # base\ninsert (\"a, #b\", 'r\\'s', \"t\")\ndelete TARGET = \"x\"";
        let file = Vindexfile::parse(text).unwrap();
        assert_eq!(file.from, "a b");
        let fact = ["a, #b", "r's", "t"].map(str::to_owned);
        let delete = Directive::Delete(vec![("target", "x".to_owned())]);
        assert_eq!(file.common, [Directive::Insert(fact), delete]);
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "(FROM|INSERT|DELETE|STAGE|EXPOSE|PATCH|ASSERT|[ a-z\"'\\\\(),=#\n\u{0}é]){0,60}") {
            let _ = Vindexfile::parse(&text);
        }
    }
}
