//! COPY and EXPORT: rows into a new file.
//!
//! One file a format, behind [`RowWriter`]. Promises: a file appears whole or not at all, and never in
//! place of another; a row is written before the next batch is asked for, so memory does not grow with
//! rows (graphs remember which nodes they have told, against the statement's bound).

mod graphml;
mod neo4j;
mod parquet;
mod separated;
mod turtle;

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use larql_planner::physical::plan::{FileFormat, Write};
use larql_planner::value::{Column, Value};
use larql_storage::file::{Files, NewFile, NewFileError};

use super::{Operator, Row, Work};
use crate::failure::{Failure, code};

/// Takes the rows of one statement.
trait RowWriter {
    /// Writes a row; returns how many bytes it keeps in memory for good.
    fn row(&mut self, row: &Row) -> Result<usize, WriteError>;
    /// Writes what is left and makes the files durable; returns their length together.
    fn finish(self: Box<Self>) -> Result<u64, WriteError>;
}

/// Why rows could not be written.
#[derive(Debug)]
enum WriteError {
    /// The file itself.
    File(NewFileError),
    /// Writing to it.
    Io(io::Error),
    /// The rows do not fit the format.
    Format(String),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<NewFileError> for WriteError {
    fn from(error: NewFileError) -> Self {
        Self::File(error)
    }
}

impl WriteError {
    fn into_failure(self, path: &Path) -> Failure {
        match self {
            Self::File(error) => error.into(),
            Self::Io(error) => Failure::io(path.display(), &error),
            Self::Format(message) => {
                Failure::new(code::LIMIT, format!("{}: {message}", path.display()))
                    .hint("choose another format")
            }
        }
    }
}

/// Writes all rows of its input and tells of the file.
pub(super) struct WriteRows {
    input: Box<dyn Operator>,
    write: Option<Write>,
}

impl WriteRows {
    pub(super) fn new(input: Box<dyn Operator>, write: Write) -> Self {
        Self { input, write: Some(write) }
    }
}

impl Operator for WriteRows {
    fn next(&mut self, work: &mut Work<'_>) -> Result<Option<Vec<Row>>, Failure> {
        let Some(Write { path, format, columns }) = self.write.take() else { return Ok(None) };
        let path = work.resolve(&path)?;
        let files = work.files();
        let failed = |error: WriteError| error.into_failure(&path);
        let mut writer = writer(&files, &path, format, &columns).map_err(failed)?;
        let mut rows = 0_i64;
        while let Some(batch) = self.input.next(work)? {
            work.cancel.check()?;
            for row in &batch {
                let kept = writer.row(row).map_err(failed)?;
                work.hold(kept)?;
            }
            rows += batch.len() as i64;
        }
        let bytes = writer.finish().map_err(failed)?;
        Ok(Some(vec![vec![
            Value::text(path.display().to_string()),
            Value::text(format.name()),
            Value::Integer(rows),
            Value::Integer(i64::try_from(bytes).unwrap_or(i64::MAX)),
        ]]))
    }
}

fn writer(
    files: &Arc<dyn Files>,
    path: &Path,
    format: FileFormat,
    columns: &[Column],
) -> Result<Box<dyn RowWriter>, WriteError> {
    let file = || NewFile::create(files, path);
    Ok(match format {
        FileFormat::Csv => Box::new(separated::Separated::new(file()?, columns)?),
        FileFormat::Tsv => Box::new(separated::TabSeparated::new(file()?, columns)?),
        FileFormat::Ndjson => {
            Box::new(Ndjson { file: io::BufWriter::new(file()?), keys: keys(columns) })
        }
        FileFormat::Parquet => Box::new(parquet::Parquet::new(file()?, columns)?),
        FileFormat::Turtle => Box::new(turtle::Turtle::new(file()?, columns)?),
        FileFormat::GraphMl => Box::new(graphml::GraphMl::new(file()?, columns)?),
        FileFormat::Neo4j => Box::new(neo4j::Neo4j::new(files, path, columns)?),
    })
}

/// One object a line, its keys in the order of columns.
struct Ndjson {
    file: io::BufWriter<NewFile>,
    /// Each with its colon.
    keys: Vec<String>,
}

fn keys(columns: &[Column]) -> Vec<String> {
    columns.iter().map(|column| format!("{}:", json_text(&column.name))).collect()
}

impl RowWriter for Ndjson {
    fn row(&mut self, row: &Row) -> Result<usize, WriteError> {
        let mut separator = "{";
        for (key, value) in self.keys.iter().zip(row) {
            write!(self.file, "{separator}{key}{}", json(value))?;
            separator = ",";
        }
        writeln!(self.file, "{}", if row.is_empty() { "{}" } else { "}" })?;
        Ok(0)
    }

    fn finish(self: Box<Self>) -> Result<u64, WriteError> {
        Ok(whole(self.file)?.finish()?)
    }
}

/// The file behind a buffer, everything written.
fn whole(buffer: io::BufWriter<NewFile>) -> Result<NewFile, io::Error> {
    buffer.into_inner().map_err(io::IntoInnerError::into_error)
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A value as JSON; what is not finite has none and is null.
fn json(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Real(value) if value.is_finite() => format!("{value:?}"),
        Value::Score(value) if value.is_finite() => format!("{value:?}"),
        Value::Real(_) | Value::Score(_) => "null".to_owned(),
        Value::Text(text) => json_text(text),
        Value::List(values) => {
            let values: Vec<String> = values.iter().map(json).collect();
            format!("[{}]", values.join(","))
        }
    }
}

/// A value as plain text: lists as JSON, NULL as nothing.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Text(text) => text.to_string(),
        Value::Real(value) => format!("{value:?}"),
        Value::Score(value) => format!("{value:?}"),
        other => json(other),
    }
}

/// An edge as graphs tell it: two nodes, what joins them, and what else is known of it.
struct Edge<'r> {
    /// The entity, or the feature itself where no entity stands out.
    from: GraphNode,
    to: GraphNode,
    relation: Option<&'r str>,
    /// The other columns that have a value.
    attributes: Vec<(&'r str, &'r Value)>,
}

/// A node of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum GraphNode {
    /// An entity or a target.
    Text(Arc<str>),
    /// A feature: layer and number.
    Feature(i64, i64),
}

impl GraphNode {
    /// Its identity in files: letters, digits, `-`, `.`, `_`, `:` and percent signs.
    fn id(&self) -> String {
        match self {
            Self::Text(text) => {
                let mut id = String::from("token:");
                for byte in text.bytes() {
                    match byte {
                        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' => {
                            id.push(byte.into());
                        }
                        _ => id.push_str(&format!("%{byte:02X}")),
                    }
                }
                id
            }
            Self::Feature(layer, feature) => format!("feature:{layer}:{feature}"),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Text(text) => text.to_string(),
            Self::Feature(layer, feature) => format!("layer {layer} feature {feature}"),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "Token",
            Self::Feature(..) => "Feature",
        }
    }

    /// Bytes that remembering it takes, roughly.
    fn bytes(&self) -> usize {
        64 + match self {
            Self::Text(text) => text.len(),
            Self::Feature(..) => 0,
        }
    }
}

/// Where the parts of an edge are among the columns of EDGES.
struct EdgeColumns {
    entity: usize,
    relation: usize,
    target: usize,
    layer: usize,
    feature: usize,
    others: Vec<(usize, String)>,
}

impl EdgeColumns {
    fn of(columns: &[Column]) -> Result<Self, WriteError> {
        let find = |name: &str| {
            let found = columns.iter().position(|column| column.name == name);
            found.ok_or_else(|| WriteError::Format(format!("rows without {name} are no edges")))
        };
        let others = columns.iter().enumerate().filter(|(_, column)| {
            !["entity", "relation", "target"].contains(&column.name.as_str())
        });
        Ok(Self {
            entity: find("entity")?,
            relation: find("relation")?,
            target: find("target")?,
            layer: find("layer")?,
            feature: find("feature")?,
            others: others.map(|(index, column)| (index, column.name.clone())).collect(),
        })
    }

    /// The edge of a row; `None` for one without a target.
    fn edge<'r>(&'r self, row: &'r Row) -> Option<Edge<'r>> {
        let text = |index: usize| match row.get(index) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        };
        let integer = |index: usize| match row.get(index) {
            Some(Value::Integer(number)) => *number,
            _ => -1,
        };
        let to = GraphNode::Text(text(self.target)?.clone());
        let from = match text(self.entity) {
            Some(entity) => GraphNode::Text(entity.clone()),
            None => GraphNode::Feature(integer(self.layer), integer(self.feature)),
        };
        let others = self.others.iter().filter_map(|(index, name)| {
            let value = row.get(*index).filter(|value| !value.is_null())?;
            Some((name.as_str(), value))
        });
        let relation = text(self.relation).map(|relation| &**relation);
        Some(Edge { from, to, relation, attributes: others.collect() })
    }
}

#[cfg(test)]
mod tests {
    use larql_compute::cpu::Cancel;
    use larql_planner::catalog::Table as _;
    use larql_planner::value::ColumnType;
    use larql_storage::file::DiskFiles;
    use proptest::prelude::*;

    use super::*;
    use crate::tables::read_file;

    fn cell() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(r#"[abN0"',\\\t\n\r #é-]{1,6}"#)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn texts_read_back_from_every_format_that_makes_tables(
            rows in proptest::collection::vec((cell(), cell()), 1..6),
            width in 1_usize..=2,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let files: Arc<dyn Files> = Arc::new(DiskFiles);
            let columns: Vec<Column> =
                ["a", "b"][..width].iter().map(|name| Column::new(*name, ColumnType::Text)).collect();
            let value = |cell: &Option<String>| cell.as_deref().map_or(Value::Null, Value::text);
            // A word in each column keeps texts that look like numbers texts.
            let mut rows: Vec<Row> = rows.iter().map(|(a, b)| vec![value(a), value(b)]).collect();
            rows.push(vec![Value::text("x"), Value::text("x")]);
            rows.iter_mut().for_each(|row| row.truncate(width));
            for (format, ending) in [
                (FileFormat::Csv, "csv"),
                (FileFormat::Tsv, "tsv"),
                (FileFormat::Parquet, "parquet"),
            ] {
                let path = folder.path().join(format!("rows.{ending}"));
                let mut writer = writer(&files, &path, format, &columns).unwrap();
                for row in &rows {
                    writer.row(row).unwrap();
                }
                writer.finish().unwrap();
                let table = read_file(&*files, &path, "t", &Cancel::new()).unwrap();
                prop_assert_eq!(table.columns(), &columns, "{}", ending);
                let found: Vec<Row> =
                    (0..).map_while(|at| table.row(at).map(<[Value]>::to_vec)).collect();
                prop_assert_eq!(&found, &rows, "{}", ending);
            }
        }
    }
}
