//! Parquet files of flat columns. Numbers, truth values and text keep their types; dates and times
//! become text as the format prints them, decimals reals, and so does a column of unsigned
//! numbers of which one is above every integer. Nested columns are refused by name.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use ::parquet::basic::{Compression, ConvertedType, Type as Physical};
use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
use ::parquet::record::Field;
use ::parquet::schema::types::Type;
use bytes::Bytes;
use larql_compute::cpu::Cancel;
use larql_planner::value::{ColumnType, Value};
use larql_storage::file::Mapping;

use super::table::{Builder, FactsTable};
use super::{Budget, ROWS_BETWEEN_CHECKS, TABLE_BYTES_MAX, bad_file, column_names, parquet_pages};
use crate::failure::{Failure, code};

/// The bytes of a mapping, for a reader that wants to share them.
struct Mapped(Arc<dyn Mapping>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// Reads the rows of a file.
pub(super) fn read(
    mapping: Arc<dyn Mapping>,
    name: &str,
    budget: &Budget,
    cancel: &Cancel,
) -> Result<FactsTable, Failure> {
    // The reader trusts some of what a file says about itself: a file that lies may make it panic,
    // which is then the file's failure, not the daemon's.
    let bytes = Bytes::from_owner(Mapped(mapping));
    let read = AssertUnwindSafe(|| read_rows(bytes, name, budget, cancel));
    std::panic::catch_unwind(read)
        .unwrap_or_else(|_| Err(bad_file("the parquet file contradicts itself", "check the file")))
}

fn read_rows(
    bytes: Bytes,
    name: &str,
    budget: &Budget,
    cancel: &Cancel,
) -> Result<FactsTable, Failure> {
    let file = SerializedFileReader::new(bytes.clone()).map_err(|error| unreadable(&error))?;
    let metadata = file.metadata();
    let unpacked: i128 =
        metadata.row_groups().iter().map(|group| i128::from(group.total_byte_size())).sum();
    if unpacked > TABLE_BYTES_MAX as i128 {
        let message = format!("the file unpacks to {unpacked} bytes");
        let hint = format!("a table takes at most {TABLE_BYTES_MAX}; split the file");
        return Err(Failure::new(code::LIMIT, message).hint(hint));
    }
    let packings = metadata.row_groups().iter().flat_map(|group| group.columns());
    let unknown = |packing: &Compression| {
        !matches!(
            packing,
            Compression::UNCOMPRESSED
                | Compression::SNAPPY
                | Compression::GZIP(_)
                | Compression::LZ4
                | Compression::LZ4_RAW
                | Compression::ZSTD(_)
        )
    };
    if let Some(packing) = packings.map(|column| column.compression()).find(unknown) {
        let hint = "write it with Zstandard, Snappy, gzip, LZ4 or no compression";
        return Err(bad_file(format!("the file is compressed with {packing}"), hint));
    }
    let fields = metadata.file_metadata().schema_descr().root_schema().get_fields();
    if let Some(nested) = fields.iter().find(|field| !field.is_primitive()) {
        let message = format!("the column {:?} holds records or lists", nested.name());
        return Err(bad_file(message, "write its parts as columns of their own"));
    }
    parquet_pages::check(&bytes, metadata, cancel)?;
    let names = column_names(fields.iter().map(|field| field.name().to_owned()))?;
    let mut kinds: Vec<Option<ColumnType>> = vec![None; names.len()];
    let mut builder = Builder::new(budget);
    let rows = file.get_row_iter(None).map_err(|error| unreadable(&error))?;
    for (at, row) in rows.enumerate() {
        if at.is_multiple_of(ROWS_BETWEEN_CHECKS) {
            cancel.check()?;
        }
        let row = row.map_err(|error| unreadable(&error))?;
        let mut width = 0;
        for ((column, field), kind) in row.get_column_iter().zip(&mut kinds) {
            let value = value(field, &mut builder).ok_or_else(|| {
                bad_file(
                    format!("row {}: {column:?} holds bytes that are no text", at + 1),
                    "write the column as text or numbers",
                )
            })?;
            *kind = match (*kind, value.kind()) {
                // An unsigned number above every integer, among smaller ones.
                (Some(ColumnType::Integer), Some(ColumnType::Real)) => Some(ColumnType::Real),
                (kind, new) => kind.or(new),
            };
            builder.push(value)?;
            width += 1;
        }
        if width != names.len() {
            let message = format!("row {} has {width} fields of {}", at + 1, names.len());
            return Err(bad_file(message, "check the file"));
        }
    }
    for (column, kind) in kinds.iter().enumerate() {
        if *kind == Some(ColumnType::Real) {
            builder.widen(column, names.len());
        }
    }
    let declared = fields.iter().map(|field| declared(field));
    let kinds = kinds.into_iter().zip(declared).map(|(kind, declared)| kind.unwrap_or(declared));
    Ok(builder.finish(name, names.into_iter().zip(kinds).collect()))
}

/// The type of a column that holds nothing but NULL, by what the file says of it.
fn declared(field: &Type) -> ColumnType {
    let is_plain = matches!(
        field.get_basic_info().converted_type(),
        ConvertedType::NONE
            | ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::INT_64
            | ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64
    );
    match field.get_physical_type() {
        Physical::BOOLEAN => ColumnType::Boolean,
        Physical::FLOAT | Physical::DOUBLE => ColumnType::Real,
        Physical::INT32 | Physical::INT64 if is_plain => ColumnType::Integer,
        _ if field.get_basic_info().converted_type() == ConvertedType::DECIMAL => ColumnType::Real,
        _ => ColumnType::Text,
    }
}

/// What a field is here; `None` for what is none of our values.
fn value(field: &Field, builder: &mut Builder) -> Option<Value> {
    Some(match field {
        Field::Null => Value::Null,
        Field::Bool(truth) => Value::Boolean(*truth),
        Field::Byte(number) => Value::Integer((*number).into()),
        Field::Short(number) => Value::Integer((*number).into()),
        Field::Int(number) => Value::Integer((*number).into()),
        Field::Long(number) => Value::Integer(*number),
        Field::UByte(number) => Value::Integer((*number).into()),
        Field::UShort(number) => Value::Integer((*number).into()),
        Field::UInt(number) => Value::Integer((*number).into()),
        Field::ULong(number) => {
            i64::try_from(*number).map_or(Value::Real(*number as f64), Value::Integer)
        }
        Field::Float16(number) => Value::Real(f64::from(*number)),
        Field::Float(number) => Value::Score(*number),
        Field::Double(number) => Value::Real(*number),
        Field::Decimal(_) => field.to_string().parse().map(Value::Real).ok()?,
        Field::Str(text) => builder.text(text),
        Field::Bytes(bytes) => builder.text(std::str::from_utf8(bytes.data()).ok()?),
        Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => builder.text(&field.to_string()),
        Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => return None,
    })
}

fn unreadable(error: &::parquet::errors::ParquetError) -> Failure {
    bad_file(format!("the parquet file cannot be read: {error}"), "check the file")
}
