//! What a row is made of, on the driver's side of the wire.

/// One cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Nothing known.
    #[default]
    Null,
    /// Text, as the daemon sent it: not escaped for any terminal.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A 64-bit number.
    Real(f64),
    /// A 32-bit number, kept as such so that it prints in its own shortest form.
    Score(f32),
    /// True or false.
    Boolean(bool),
    /// Several values, in order.
    List(Vec<Value>),
    /// Named values, in order.
    Object(Vec<(String, Value)>),
}

/// One row: as many values as the schema has columns.
pub type Row = Vec<Value>;

impl Value {
    /// Returns the text of a [`Value::Text`].
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the number of a [`Value::Integer`], [`Value::Real`] or [`Value::Score`].
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Integer(number) => Some(*number as f64),
            Value::Real(number) => Some(*number),
            Value::Score(number) => Some(f64::from(*number)),
            _ => None,
        }
    }

    /// Returns the number of a [`Value::Integer`].
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns the elements of a [`Value::List`].
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(values) => Some(values),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Integer(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Real(number)
    }
}

impl From<f32> for Value {
    fn from(number: f32) -> Value {
        Value::Score(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Value {
        Value::Boolean(truth)
    }
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, such as `gate_score`.
    pub name: String,
    /// What its cells hold, apart from NULL.
    pub column_type: ColumnType,
}

/// What the cells of a column hold, apart from NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// The daemon did not say.
    Unspecified,
    /// [`Value::Text`].
    Text,
    /// [`Value::Integer`].
    Integer,
    /// [`Value::Real`] or [`Value::Score`].
    Real,
    /// [`Value::Boolean`].
    Boolean,
    /// [`Value::List`].
    List,
    /// [`Value::Object`].
    Object,
}

impl ColumnType {
    /// True for columns that a reader compares by magnitude, which tables align on the right.
    pub fn is_numeric(self) -> bool {
        matches!(self, ColumnType::Integer | ColumnType::Real)
    }
}
