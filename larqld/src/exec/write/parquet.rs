//! Apache Parquet: text as strings, numbers as they are, lists as JSON text; every column may be NULL.

use std::sync::Arc;

use larql_planner::value::{Column, ColumnType, Value};
use larql_storage::file::NewFile;
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

use super::{RowWriter, WriteError, plain};
use crate::exec::Row;
use crate::exec::work::row_bytes;

/// The most rows of a row group.
const GROUP_ROWS: usize = 16 << 10;
/// Bytes of rows at which a group is written.
const GROUP_BYTES: usize = 16 << 20;

/// A Parquet file; rows of a group are kept until it is full, in rows or in bytes.
pub(super) struct Parquet {
    writer: SerializedFileWriter<NewFile>,
    kinds: Vec<ColumnType>,
    rows: Vec<Row>,
    /// Of the rows.
    bytes: usize,
}

fn failed(error: ParquetError) -> WriteError {
    match error {
        ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(error) => WriteError::Io(*error),
            Err(other) => WriteError::Format(other.to_string()),
        },
        other => WriteError::Format(other.to_string()),
    }
}

impl Parquet {
    pub(super) fn new(file: NewFile, columns: &[Column]) -> Result<Self, WriteError> {
        let field = |column: &Column| {
            let physical = match column.kind {
                ColumnType::Text | ColumnType::List => Physical::BYTE_ARRAY,
                ColumnType::Integer => Physical::INT64,
                ColumnType::Real => Physical::DOUBLE,
                ColumnType::Boolean => Physical::BOOLEAN,
            };
            let logical = match column.kind {
                ColumnType::Text => Some(LogicalType::String),
                ColumnType::List => Some(LogicalType::Json),
                _ => None,
            };
            Type::primitive_type_builder(&column.name, physical)
                .with_repetition(Repetition::OPTIONAL)
                .with_logical_type(logical)
                .build()
                .map(Arc::new)
        };
        let fields = columns.iter().map(field).collect::<Result<_, _>>().map_err(failed)?;
        let schema = Type::group_type_builder("rows").with_fields(fields).build();
        let schema = Arc::new(schema.map_err(failed)?);
        let properties = Arc::new(WriterProperties::builder().build());
        let writer = SerializedFileWriter::new(file, schema, properties).map_err(failed)?;
        let kinds = columns.iter().map(|column| column.kind).collect();
        Ok(Self { writer, kinds, rows: Vec::new(), bytes: 0 })
    }

    fn write_group(&mut self) -> Result<(), WriteError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group().map_err(failed)?;
        for (index, kind) in self.kinds.iter().enumerate() {
            write_column(&mut group, *kind, &self.rows, index).map_err(failed)?;
        }
        group.close().map_err(failed)?;
        self.rows.clear();
        self.bytes = 0;
        Ok(())
    }
}

fn write_column(
    group: &mut SerializedRowGroupWriter<'_, NewFile>,
    kind: ColumnType,
    rows: &[Row],
    index: usize,
) -> Result<(), ParquetError> {
    let values = || rows.iter().map(|row| row.get(index).unwrap_or(&Value::Null));
    let there: Vec<i16> = values().map(|value| i16::from(!value.is_null())).collect();
    let present = || values().filter(|value| !value.is_null());
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("more values than columns".to_owned()));
    };
    match kind {
        ColumnType::Text | ColumnType::List => {
            let texts: Vec<ByteArray> =
                present().map(|value| ByteArray::from(plain(value).into_bytes())).collect();
            column.typed::<ByteArrayType>().write_batch(&texts, Some(&there), None)?;
        }
        ColumnType::Integer => {
            let numbers: Vec<i64> = present().map(integer).collect::<Result<_, _>>()?;
            column.typed::<Int64Type>().write_batch(&numbers, Some(&there), None)?;
        }
        ColumnType::Real => {
            let numbers: Vec<f64> = present().map(real).collect::<Result<_, _>>()?;
            column.typed::<DoubleType>().write_batch(&numbers, Some(&there), None)?;
        }
        ColumnType::Boolean => {
            let truths: Vec<bool> = present().map(truth).collect::<Result<_, _>>()?;
            column.typed::<BoolType>().write_batch(&truths, Some(&there), None)?;
        }
    }
    column.close()
}

fn other(value: &Value) -> ParquetError {
    ParquetError::General(format!("{value} is not of its column's type"))
}

fn integer(value: &Value) -> Result<i64, ParquetError> {
    if let Value::Integer(number) = value { Ok(*number) } else { Err(other(value)) }
}

fn real(value: &Value) -> Result<f64, ParquetError> {
    value.as_real().ok_or_else(|| other(value))
}

fn truth(value: &Value) -> Result<bool, ParquetError> {
    if let Value::Boolean(truth) = value { Ok(*truth) } else { Err(other(value)) }
}

impl RowWriter for Parquet {
    fn row(&mut self, row: &Row) -> Result<usize, WriteError> {
        self.bytes += row_bytes(row);
        self.rows.push(row.clone());
        if self.rows.len() == GROUP_ROWS || self.bytes >= GROUP_BYTES {
            self.write_group()?;
        }
        Ok(0)
    }

    fn finish(mut self: Box<Self>) -> Result<u64, WriteError> {
        self.write_group()?;
        Ok(self.writer.into_inner().map_err(failed)?.finish()?)
    }
}
