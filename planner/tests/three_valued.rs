//! Expressions mean what SQL's three-valued logic says: random ones are bound, evaluated, and compared
//! with a model that shares no code with the planner, over NULL, truth values, small integers and texts.

#[allow(dead_code, reason = "of the catalog only planning is used")]
mod fake;

use fake::FakeCatalog;
use larql_planner::physical::plan::Operator;
use larql_planner::value::Value;
use proptest::prelude::*;
use proptest::sample::select;

/// What an expression is worth in the model; `None` is NULL.
#[derive(Debug, Clone, PartialEq)]
enum Worth {
    Truth(Option<bool>),
    Number(Option<i64>),
    Text(Option<String>),
}

/// An expression as text, with its worth.
#[derive(Debug, Clone)]
struct Said {
    text: String,
    worth: Worth,
}

fn truth(said: &Said) -> Option<bool> {
    match said.worth {
        Worth::Truth(truth) => truth,
        _ => unreachable!("a condition is made of truths"),
    }
}

fn number(said: &Said) -> Option<i64> {
    match said.worth {
        Worth::Number(number) => number,
        _ => unreachable!("arithmetic is made of numbers"),
    }
}

fn said(text: String, worth: Worth) -> Said {
    Said { text, worth }
}

/// FALSE, NULL and TRUE in the order in which AND takes the least and OR the greatest.
fn rank(truth: Option<bool>) -> u8 {
    match truth {
        Some(false) => 0,
        None => 1,
        Some(true) => 2,
    }
}

fn of_rank(rank: u8) -> Option<bool> {
    [Some(false), None, Some(true)][usize::from(rank)]
}

fn negated(truth: Option<bool>) -> Option<bool> {
    of_rank(2 - rank(truth))
}

fn all_of(truths: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    of_rank(truths.map(rank).min().unwrap_or(2))
}

fn some_of(truths: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    of_rank(truths.map(rank).max().unwrap_or(0))
}

fn numbers() -> BoxedStrategy<Said> {
    let leaf = prop_oneof![
        1 => Just(said("NULL".to_owned(), Worth::Number(None))),
        4 => (-3i64..4).prop_map(|n| said(format!("({n})"), Worth::Number(Some(n)))),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        let operator = select(vec!['+', '-', '*']);
        let binary = (pair.clone(), operator).prop_map(|((a, b), operator)| {
            let worth = number(&a).zip(number(&b)).map(|(a, b)| match operator {
                '+' => a + b,
                '-' => a - b,
                _ => a * b,
            });
            said(format!("({} {operator} {})", a.text, b.text), Worth::Number(worth))
        });
        let coalesced = pair.prop_map(|(a, b)| {
            let worth = number(&a).or(number(&b));
            said(format!("coalesce({}, {})", a.text, b.text), Worth::Number(worth))
        });
        let unary = (inner, select(vec!["-", "abs"])).prop_map(|(a, function)| {
            let worth = number(&a).map(|n| if function == "-" { -n } else { n.abs() });
            said(format!("{function}({})", a.text), Worth::Number(worth))
        });
        prop_oneof![3 => binary, 1 => coalesced, 1 => unary]
    })
    .boxed()
}

fn texts() -> BoxedStrategy<Said> {
    select(vec![None, Some(""), Some("a"), Some("ab"), Some("Ba"), Some("é%")])
        .prop_map(|text| match text {
            Some(text) => said(format!("'{text}'"), Worth::Text(Some(text.to_owned()))),
            None => said("NULL".to_owned(), Worth::Text(None)),
        })
        .boxed()
}

/// LIKE, by trying every way to match.
fn like(text: &[char], pattern: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('%', rest)) => (0..=text.len()).any(|taken| like(&text[taken..], rest)),
        Some((first, rest)) => text
            .split_first()
            .is_some_and(|(c, others)| (*first == '_' || first == c) && like(others, rest)),
    }
}

fn compared<T: Ord>(a: Option<T>, b: Option<T>, operator: &str) -> Option<bool> {
    let order = a?.cmp(&b?);
    Some(match operator {
        "=" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    })
}

fn conditions() -> BoxedStrategy<Said> {
    let operator = || select(vec!["=", "!=", "<", "<=", ">", ">="]);
    let word = |not: bool| if not { "NOT " } else { "" };
    let or_not = |not: bool, truth| if not { negated(truth) } else { truth };
    let constant = select(vec![None, Some(false), Some(true)]).prop_map(|truth| {
        let text = truth.map_or("NULL".to_owned(), |truth| truth.to_string().to_uppercase());
        said(text, Worth::Truth(truth))
    });
    let of_numbers = (numbers(), operator(), numbers()).prop_map(|(a, operator, b)| {
        let worth = compared(number(&a), number(&b), operator);
        said(format!("({} {operator} {})", a.text, b.text), Worth::Truth(worth))
    });
    let of_texts = (texts(), operator(), texts()).prop_map(|(a, operator, b)| {
        let (Worth::Text(x), Worth::Text(y)) = (&a.worth, &b.worth) else { unreachable!() };
        let worth = compared(x.as_ref(), y.as_ref(), operator);
        said(format!("({} {operator} {})", a.text, b.text), Worth::Truth(worth))
    });
    let matched = (texts(), select(vec!["%", "a%", "_b", "%a", "é_", ""]), any::<bool>());
    let matched = matched.prop_map(move |(a, pattern, not)| {
        let Worth::Text(text) = &a.worth else { unreachable!() };
        let characters = |text: &str| text.chars().collect::<Vec<char>>();
        let found = text.as_ref().map(|text| like(&characters(text), &characters(pattern)));
        let text = format!("({} {}LIKE '{pattern}')", a.text, word(not));
        said(text, Worth::Truth(or_not(not, found)))
    });
    let listed = (numbers(), proptest::collection::vec(numbers(), 1..4), any::<bool>());
    let listed = listed.prop_map(move |(a, list, not)| {
        let equal = list.iter().map(|item| compared(number(&a), number(item), "="));
        let found = some_of(equal);
        let items: Vec<&str> = list.iter().map(|item| item.text.as_str()).collect();
        let text = format!("({} {}IN ({}))", a.text, word(not), items.join(", "));
        said(text, Worth::Truth(or_not(not, found)))
    });
    let between = (numbers(), numbers(), numbers(), any::<bool>());
    let between = between.prop_map(move |(a, low, high, not)| {
        let above = compared(number(&a), number(&low), ">=");
        let below = compared(number(&a), number(&high), "<=");
        let found = all_of([above, below].into_iter());
        let text = format!("({} {}BETWEEN {} AND {})", a.text, word(not), low.text, high.text);
        said(text, Worth::Truth(or_not(not, found)))
    });
    let null = (numbers(), any::<bool>()).prop_map(move |(a, not)| {
        let text = format!("({} IS {}NULL)", a.text, word(not));
        said(text, Worth::Truth(Some(number(&a).is_none() != not)))
    });
    let leaf = prop_oneof![constant, of_numbers, of_texts, matched, listed, between, null];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let several = proptest::collection::vec(inner.clone(), 2..4);
        let joined = (several, any::<bool>()).prop_map(|(operands, and)| {
            let truths = operands.iter().map(truth);
            let worth = if and { all_of(truths) } else { some_of(truths) };
            let texts: Vec<&str> = operands.iter().map(|operand| operand.text.as_str()).collect();
            let text = format!("({})", texts.join(if and { " AND " } else { " OR " }));
            said(text, Worth::Truth(worth))
        });
        let not =
            inner.prop_map(|a| said(format!("(NOT {})", a.text), Worth::Truth(negated(truth(&a)))));
        prop_oneof![3 => joined, 1 => not]
    })
    .boxed()
}

fn evaluate(expression: &str) -> Value {
    let planned = FakeCatalog::default()
        .plan(&format!("SELECT {expression} AS x"))
        .unwrap_or_else(|error| panic!("{expression}: {error}"));
    let Operator::Project { expressions } = &planned.physical.operator else {
        panic!("{expression}: no projection")
    };
    expressions[0].evaluate(&|_| Value::Null)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn conditions_are_true_false_or_unknown_as_the_model_says(said in conditions()) {
        let found = match evaluate(&said.text) {
            Value::Null => None,
            Value::Boolean(truth) => Some(truth),
            other => panic!("{}: {other}", said.text),
        };
        prop_assert_eq!(found, truth(&said), "{}", &said.text);
    }

    #[test]
    fn arithmetic_is_null_where_an_operand_is(said in numbers()) {
        let found = match evaluate(&said.text) {
            Value::Null => None,
            Value::Integer(number) => Some(number),
            other => panic!("{}: {other}", said.text),
        };
        prop_assert_eq!(found, number(&said), "{}", &said.text);
    }
}
