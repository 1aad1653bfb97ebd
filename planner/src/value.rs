//! Values and column types: what a row holds, how values compare and sort.
//!
//! One order is used by comparisons, sorting, grouping and DISTINCT, and it is a total one over values
//! of every kind together. Text orders by code point; integers, reals and scores order by the exact
//! number that they are, with NaN above every number and equal to itself, and both zeros equal. A score
//! is a 32-bit real as the weights' arithmetic made it, and the number that it is here is the one that
//! it prints as: `0.1`, not the 64-bit `0.10000000149` beside it.

use std::cmp::Ordering;
use std::fmt;
use std::io::Write as _;
use std::sync::Arc;

/// A column's type. NULL belongs to every type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// Unicode text.
    Text,
    /// A signed 64-bit integer.
    Integer,
    /// A 64-bit real, or a 32-bit [`Value::Score`].
    Real,
    /// True or false.
    Boolean,
    /// A list of values, such as top tokens.
    List,
}

impl ColumnType {
    /// The type's name in messages, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Boolean => "boolean",
            Self::List => "list",
        }
    }

    /// Whether values of this type are numbers.
    pub fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::Real)
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name, as clients see it.
    pub name: String,
    /// The type of its values.
    pub kind: ColumnType,
}

impl Column {
    /// A column by name and type.
    pub fn new(name: impl Into<String>, kind: ColumnType) -> Self {
        Self { name: name.into(), kind }
    }
}

/// One cell of a row.
#[derive(Debug, Clone)]
pub enum Value {
    /// No value.
    Null,
    /// True or false.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A 64-bit real.
    Real(f64),
    /// A 32-bit score: gate scores, logits.
    Score(f32),
    /// Text, shared because tokens repeat.
    Text(Arc<str>),
    /// A list, such as the top tokens of a feature.
    List(Arc<[Value]>),
}

impl Value {
    /// Text from anything that becomes a shared string.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// Whether this is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The type of this value; NULL has none.
    pub fn kind(&self) -> Option<ColumnType> {
        match self {
            Self::Null => None,
            Self::Boolean(_) => Some(ColumnType::Boolean),
            Self::Integer(_) => Some(ColumnType::Integer),
            Self::Real(_) | Self::Score(_) => Some(ColumnType::Real),
            Self::Text(_) => Some(ColumnType::Text),
            Self::List(_) => Some(ColumnType::List),
        }
    }

    /// The number in this value, if it holds one: a score as the number that it prints as.
    pub fn as_real(&self) -> Option<f64> {
        match self {
            Self::Integer(value) => Some(*value as f64),
            Self::Real(value) => Some(*value),
            Self::Score(value) => Some(as_printed(*value)),
            _ => None,
        }
    }

    /// Compares two values of one kind (numbers are one kind); `None` if either is NULL or the
    /// kinds differ.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Null, _) | (_, Self::Null) => None,
            (Self::Text(a), Self::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Self::Boolean(a), Self::Boolean(b)) => Some(a.cmp(b)),
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(b)),
            (Self::Real(a), Self::Real(b)) => Some(compare_reals(*a, *b)),
            // What two scores print as is in their own order.
            (Self::Score(a), Self::Score(b)) => Some(compare_reals((*a).into(), (*b).into())),
            (Self::Integer(a), Self::Real(b)) => Some(compare_integer(*a, *b)),
            (Self::Real(a), Self::Integer(b)) => Some(compare_integer(*b, *a).reverse()),
            (Self::Integer(a), Self::Score(b)) => Some(compare_integer(*a, as_printed(*b))),
            (Self::Score(a), Self::Integer(b)) => {
                Some(compare_integer(*b, as_printed(*a)).reverse())
            }
            (Self::Score(a), Self::Real(b)) => Some(compare_score(*a, *b)),
            (Self::Real(a), Self::Score(b)) => Some(compare_score(*b, *a).reverse()),
            (Self::List(a), Self::List(b)) => Some(compare_lists(a, b)),
            _ => None,
        }
    }

    /// The total order of sorting: of values of one kind as [`Value::compare`], else by kind: truth
    /// values, numbers, text, lists, NULL.
    pub fn total_order(&self, other: &Self) -> Ordering {
        self.compare(other).unwrap_or_else(|| self.rank().cmp(&other.rank()))
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Boolean(_) => 0,
            Self::Integer(_) | Self::Real(_) | Self::Score(_) => 1,
            Self::Text(_) => 2,
            Self::List(_) => 3,
            Self::Null => 4,
        }
    }
}

impl PartialEq for Value {
    /// Equality of cells for DISTINCT and tests: NULL equals NULL.
    fn eq(&self, other: &Self) -> bool {
        self.total_order(other) == Ordering::Equal
    }
}

fn compare_reals(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Compares an integer with a real, neither rounded to the other's type.
fn compare_integer(integer: i64, real: f64) -> Ordering {
    /// 2⁶³: the first real above every integer; its negative is the least integer.
    const ABOVE: f64 = 9_223_372_036_854_775_808.0;
    if real.is_nan() || real >= ABOVE {
        return Ordering::Less;
    }
    if real < -ABOVE {
        return Ordering::Greater;
    }
    integer.cmp(&(real.trunc() as i64)).then_with(|| compare_reals(0.0, real.fract()))
}

/// Compares what a score prints as with a real.
fn compare_score(score: f32, real: f64) -> Ordering {
    let wide = f64::from(score);
    // What it prints as is nearer to a score than its neighbours are, so that the digits decide only
    // where the two numbers are that near.
    let is_apart = score.is_normal() && (wide - real).abs() > wide.abs() * f64::from(f32::EPSILON);
    if is_apart {
        return compare_reals(wide, real);
    }
    compare_reals(as_printed(score), real)
}

/// The number whose digits a score prints: the shortest that only this score is nearest to. Different
/// scores have different digits, nine at most, so that they stay different here.
fn as_printed(score: f32) -> f64 {
    /// Up to here every integer is a score, and prints as what it is.
    const EXACT_MAX: f32 = 16_777_216.0;
    let wide = f64::from(score);
    if !score.is_finite() || (score.fract() == 0.0 && score.abs() <= EXACT_MAX) {
        return wide;
    }
    // A sign, nine digits, a point, an exponent.
    let mut digits = [0; 24];
    let mut rest = &mut digits[..];
    let written = write!(rest, "{score:e}").map(|()| rest.len());
    let length = written.map_or(0, |left| digits.len() - left);
    let printed = std::str::from_utf8(&digits[..length]).ok().and_then(|text| text.parse().ok());
    printed.unwrap_or(wide)
}

fn compare_lists(a: &[Value], b: &[Value]) -> Ordering {
    let first_difference =
        a.iter().zip(b).map(|(x, y)| x.total_order(y)).find(|order| order.is_ne());
    first_difference.unwrap_or_else(|| a.len().cmp(&b.len()))
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("NULL"),
            Self::Boolean(value) => formatter.write_str(if *value { "TRUE" } else { "FALSE" }),
            Self::Integer(value) => write!(formatter, "{value}"),
            Self::Real(value) => write!(formatter, "{value:?}"),
            Self::Score(value) => write!(formatter, "{value:?}"),
            Self::Text(value) => crate::syntax::print::quoted(formatter, value),
            Self::List(values) => {
                formatter.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(formatter, "{separator}{value}")?;
                }
                formatter.write_str("]")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nulls_sort_after_every_value() {
        let mut values = [Value::Null, Value::text("b"), Value::Integer(2), Value::Real(1.5)];
        values.sort_by(Value::total_order);
        assert!(values[3].is_null());
        assert_eq!(values[0], Value::Real(1.5));
    }

    #[test]
    fn a_score_equals_the_number_it_prints_as() {
        let score = Value::Score(0.1);
        assert_eq!(score.compare(&Value::Real(0.1)), Some(Ordering::Equal));
        assert_eq!(Value::Real(0.1).compare(&score), Some(Ordering::Equal));
        assert_eq!(score.to_string(), "0.1");
    }

    #[test]
    fn not_a_number_sorts_above_numbers_and_equals_itself() {
        let nan = Value::Real(f64::NAN);
        assert_eq!(nan.compare(&Value::Real(f64::INFINITY)), Some(Ordering::Greater));
        assert_eq!(nan.compare(&nan.clone()), Some(Ordering::Equal));
    }

    #[test]
    fn no_two_numbers_are_rounded_to_one_another() {
        const ODD: i64 = (1 << 53) + 1;
        let even = Value::Real((ODD - 1) as f64);
        assert_eq!(Value::Integer(ODD).compare(&even), Some(Ordering::Greater));
        assert_eq!(even.compare(&Value::Integer(ODD)), Some(Ordering::Less));
        assert_eq!(Value::Integer(ODD - 1).compare(&even), Some(Ordering::Equal));
        let above = Value::Real(9_223_372_036_854_775_808.0);
        assert_eq!(Value::Integer(i64::MAX).compare(&above), Some(Ordering::Less));
        let least = Value::Real(-9_223_372_036_854_775_808.0);
        assert_eq!(Value::Integer(i64::MIN).compare(&least), Some(Ordering::Equal));
        assert_eq!(Value::Integer(-1).compare(&Value::Real(-1.5)), Some(Ordering::Greater));
        let beside = Value::Real(f64::from(0.1_f32));
        assert_eq!(Value::Score(0.1).compare(&beside), Some(Ordering::Less));
    }

    /// Numbers that stand close to one another in different kinds, and values that are no numbers.
    fn any_value() -> impl Strategy<Value = Value> {
        let near = prop_oneof![
            Just(0_i64),
            Just(1 << 24),
            Just(1 << 53),
            Just(-(1 << 53)),
            Just(i64::MAX - 2),
            Just(i64::MIN + 2),
        ];
        let integer = (near, -2_i64..=2).prop_map(|(near, by)| near + by);
        let score = prop_oneof![
            any::<f32>(),
            integer.clone().prop_map(|integer| integer as f32),
            (-3_i8..=3).prop_map(|tenths| f32::from(tenths) / 10.0),
            Just(f32::NAN),
            Just(f32::INFINITY),
            Just(f32::MIN_POSITIVE / 3.0),
        ];
        let beside = (score.clone(), -2_i64..=2).prop_map(|(score, by)| {
            let printed = as_printed(score);
            f64::from_bits(printed.to_bits().wrapping_add_signed(by))
        });
        let real = prop_oneof![
            any::<f64>(),
            integer.clone().prop_map(|integer| integer as f64),
            score.clone().prop_map(f64::from),
            beside,
            Just(-0.0),
        ];
        let plain = prop_oneof![
            3 => integer.prop_map(Value::Integer),
            4 => real.prop_map(Value::Real),
            4 => score.prop_map(Value::Score),
            1 => any::<bool>().prop_map(Value::Boolean),
            1 => "[ab]{0,2}".prop_map(Value::text),
            1 => Just(Value::Null),
        ];
        let list = proptest::collection::vec(plain.clone(), 0..3);
        prop_oneof![12 => plain, 1 => list.prop_map(|values| Value::List(values.into()))]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn the_order_of_sorting_is_total(a in any_value(), b in any_value(), c in any_value()) {
            prop_assert_eq!(a.total_order(&a), Ordering::Equal);
            prop_assert_eq!(a.total_order(&b), b.total_order(&a).reverse());
            let mut values = [&a, &b, &c];
            values.sort_by(|a, b| a.total_order(b));
            let [a, b, c] = values;
            prop_assert!(a.total_order(b).is_le() && b.total_order(c).is_le());
            prop_assert!(a.total_order(c).is_le(), "{a} {b} {c}");
            if a.total_order(c).is_eq() {
                prop_assert!(a == b && b == c, "{a} {b} {c}");
            }
        }

        #[test]
        fn a_score_is_the_number_whose_digits_it_prints(score in any::<f32>(), other in any::<f32>()) {
            let printed: f64 = format!("{score:?}").parse().unwrap();
            let (score, printed) = (Value::Score(score), Value::Real(printed));
            prop_assert_eq!(score.compare(&printed), Some(Ordering::Equal));
            let other = Value::Score(other);
            prop_assert_eq!(score.compare(&other), printed.compare(&other));
        }
    }
}
