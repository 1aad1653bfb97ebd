//! Comma- and tab-separated text. The first line names the columns. CSV quotes with `"` (RFC 4180);
//! TSV escapes (`tab_separated`).
//!
//! An empty field is NULL. A column whose fields are all whole numbers in their plain form (no leading
//! zero, no `+`) that fit in 64 bits is integer; all numbers, real; all `true` or `false`, boolean;
//! anything else, and nothing at all, is text. The file is read twice: for the types, then for the
//! cells.

use std::borrow::Cow;

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use larql_compute::cpu::Cancel;
use larql_planner::value::{ColumnType, Value};

use super::table::{Builder, FactsTable};
use super::{Budget, ROWS_BETWEEN_CHECKS, bad_file, column_names, tab_separated};
use crate::failure::{Failure, code};

/// The longest field, in bytes.
const FIELD_BYTES_MAX: usize = 1 << 20;

/// Reads the rows of a text.
pub(super) fn read(
    bytes: &[u8],
    delimiter: u8,
    name: &str,
    budget: &Budget,
    cancel: &Cancel,
) -> Result<FactsTable, Failure> {
    let mut header = reader(bytes, delimiter);
    let first = header.byte_headers().map_err(|error| unreadable(&error))?.clone();
    let said: fn(&str) -> Option<Cow<'_, str>> = match delimiter {
        b'\t' => tab_separated::unescape,
        _ => |field| (!field.is_empty()).then_some(Cow::Borrowed(field)),
    };
    let name_of = |field: &str| said(field).unwrap_or_default().trim().to_owned();
    let names = first.iter().map(|field| Ok(name_of(text(field, 1, 0)?)));
    let names = column_names(names.collect::<Result<Vec<_>, Failure>>()?.into_iter())?;
    let mut kinds = vec![Kinds::ALL; names.len()];
    each_record(bytes, delimiter, cancel, |record, line| {
        for (at, (field, kinds)) in record.iter().zip(&mut kinds).enumerate() {
            if let Some(field) = said(text(field, line, at)?) {
                kinds.meet(&field);
            }
        }
        Ok(())
    })?;
    let kinds: Vec<ColumnType> = kinds.into_iter().map(Kinds::column_type).collect();
    let mut builder = Builder::new(budget);
    each_record(bytes, delimiter, cancel, |record, line| {
        for (at, (field, kind)) in record.iter().zip(&kinds).enumerate() {
            let value = match (said(text(field, line, at)?), kind) {
                (None, _) => Value::Null,
                (Some(said), ColumnType::Integer) => {
                    said.parse().map_or(Value::Null, Value::Integer)
                }
                (Some(said), ColumnType::Real) => said.parse().map_or(Value::Null, Value::Real),
                (Some(said), ColumnType::Boolean) => {
                    Value::Boolean(said.eq_ignore_ascii_case("true"))
                }
                (Some(said), ColumnType::Text | ColumnType::List) => builder.text(&said),
            };
            builder.push(value)?;
        }
        Ok(())
    })?;
    Ok(builder.finish(name, names.into_iter().zip(kinds).collect()))
}

fn reader(bytes: &[u8], delimiter: u8) -> Reader<&[u8]> {
    ReaderBuilder::new().delimiter(delimiter).quoting(delimiter == b',').from_reader(bytes)
}

/// Visits the records after the header with the number of the line that each begins in.
fn each_record(
    bytes: &[u8],
    delimiter: u8,
    cancel: &Cancel,
    mut see: impl FnMut(&ByteRecord, u64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut reader = reader(bytes, delimiter);
    let mut record = ByteRecord::new();
    let mut rows = 0_usize;
    while reader.read_byte_record(&mut record).map_err(|error| unreadable(&error))? {
        if rows.is_multiple_of(ROWS_BETWEEN_CHECKS) {
            cancel.check()?;
        }
        rows += 1;
        see(&record, record.position().map_or(0, csv::Position::line))?;
    }
    Ok(())
}

fn text(field: &[u8], line: u64, at: usize) -> Result<&str, Failure> {
    if field.len() > FIELD_BYTES_MAX {
        let message = format!("line {line}: field {} has {} bytes", at + 1, field.len());
        let hint = format!("a field has at most {FIELD_BYTES_MAX}; is a quote left open?");
        return Err(Failure::new(code::LIMIT, message).hint(hint));
    }
    std::str::from_utf8(field).map_err(|_| {
        bad_file(format!("line {line}: field {} is not UTF-8", at + 1), "convert the file to UTF-8")
    })
}

fn unreadable(error: &csv::Error) -> Failure {
    match error.kind() {
        ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            let message =
                format!("line {line} has {len} fields, the first line has {expected_len}");
            bad_file(message, "each row has as many fields as there are columns")
        }
        _ => bad_file(format!("the file cannot be read: {error}"), "check the file"),
    }
}

/// The types that all fields of a column have so far.
#[derive(Debug, Clone, Copy)]
struct Kinds {
    integer: bool,
    real: bool,
    boolean: bool,
    any: bool,
}

impl Kinds {
    const ALL: Self = Self { integer: true, real: true, boolean: true, any: false };

    fn meet(&mut self, field: &str) {
        self.any = true;
        self.integer = self.integer && is_plain_integer(field);
        self.real = self.real && is_plain_number(field);
        self.boolean = self.boolean
            && (field.eq_ignore_ascii_case("true") || field.eq_ignore_ascii_case("false"));
    }

    fn column_type(self) -> ColumnType {
        match self {
            Self { any: false, .. } => ColumnType::Text,
            Self { integer: true, .. } => ColumnType::Integer,
            Self { real: true, .. } => ColumnType::Real,
            Self { boolean: true, .. } => ColumnType::Boolean,
            _ => ColumnType::Text,
        }
    }
}

/// Whether a field is an integer that is written back as it stands: `007` is an identifier.
fn is_plain_integer(field: &str) -> bool {
    let digits = field.strip_prefix('-').unwrap_or(field);
    let plain = digits.len() == 1 || !digits.starts_with('0');
    plain && digits.bytes().all(|byte| byte.is_ascii_digit()) && field.parse::<i64>().is_ok()
}

/// Whether a field is a finite number in digits, without the leading zeros of an identifier.
fn is_plain_number(field: &str) -> bool {
    let digits = field.strip_prefix('-').unwrap_or(field);
    let mut characters = digits.chars();
    let starts = match (characters.next(), characters.next()) {
        (Some('0'), next) => next.is_none_or(|next| !next.is_ascii_digit()),
        (Some(first), _) => first.is_ascii_digit() || first == '.',
        (None, _) => false,
    };
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    starts
        && digits.chars().all(numeric)
        && field.parse::<f64>().is_ok_and(|number| number.is_finite())
}
