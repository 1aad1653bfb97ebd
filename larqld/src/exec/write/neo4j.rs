//! A folder of `nodes.csv` and `relationships.csv`, with the headers of
//! `neo4j-admin database import full`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larql_planner::value::{Column, ColumnType};
use larql_storage::file::{Files, NewFile, NewFileError};

use super::separated::{failed, whole};
use super::{EdgeColumns, GraphNode, RowWriter, WriteError, plain};
use crate::exec::Row;

/// The type of a relationship whose relation is not known.
const UNLABELLED: &str = "WRITES";

/// Both files, and the folder that was made for them.
pub(super) struct Neo4j {
    /// Until all is written, both; dropped before the folder goes.
    files: Option<(csv::Writer<NewFile>, csv::Writer<NewFile>)>,
    columns: EdgeColumns,
    told: HashSet<GraphNode>,
    folder: Folder,
}

/// A folder that goes with what is in it unless it is kept.
struct Folder {
    files: Arc<dyn Files>,
    path: PathBuf,
    kept: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            // What stays is in the way of the next export, which says so.
            let _ = self.files.remove_dir_all(&self.path);
        }
    }
}

impl Neo4j {
    pub(super) fn new(
        files: &Arc<dyn Files>,
        path: &Path,
        columns: &[Column],
    ) -> Result<Self, WriteError> {
        let edge_columns = EdgeColumns::of(columns)?;
        if files.metadata(path).is_ok() {
            return Err(NewFileError::Exists { path: path.to_path_buf() }.into());
        }
        files.create_dir_all(path)?;
        let folder = Folder { files: files.clone(), path: path.to_path_buf(), kept: false };
        let open =
            |name: &str| NewFile::create(files, &path.join(name)).map(csv::Writer::from_writer);
        let (mut nodes, mut edges) = (open("nodes.csv")?, open("relationships.csv")?);
        nodes.write_record(["id:ID", "name", ":LABEL"]).map_err(failed)?;
        let mut header = vec![":START_ID".to_owned(), ":END_ID".to_owned(), ":TYPE".to_owned()];
        for (index, name) in &edge_columns.others {
            let kind = match columns[*index].kind {
                ColumnType::Integer => "long",
                ColumnType::Real => "double",
                ColumnType::Boolean => "boolean",
                ColumnType::Text | ColumnType::List => "string",
            };
            header.push(format!("{name}:{kind}"));
        }
        edges.write_record(&header).map_err(failed)?;
        let files = Some((nodes, edges));
        Ok(Self { files, columns: edge_columns, told: HashSet::new(), folder })
    }
}

impl RowWriter for Neo4j {
    fn row(&mut self, row: &Row) -> Result<usize, WriteError> {
        let Self { files: Some((nodes, edges)), columns, told, .. } = self else { return Ok(0) };
        let Some(edge) = columns.edge(row) else { return Ok(0) };
        let mut kept = 0;
        for node in [&edge.from, &edge.to] {
            if told.insert(node.clone()) {
                kept += node.bytes();
                let name = node.name();
                nodes.write_record([node.id().as_str(), &name, node.kind()]).map_err(failed)?;
            }
        }
        let relation = edge.relation.unwrap_or(UNLABELLED);
        let mut record = vec![edge.from.id(), edge.to.id(), relation.to_owned()];
        let mut attributes = edge.attributes.iter().peekable();
        for (_, name) in &columns.others {
            let value = attributes.next_if(|(other, _)| other == name);
            record.push(value.map(|(_, value)| plain(value)).unwrap_or_default());
        }
        edges.write_record(&record).map_err(failed)?;
        Ok(kept)
    }

    fn finish(mut self: Box<Self>) -> Result<u64, WriteError> {
        let Some((nodes, edges)) = self.files.take() else { return Ok(0) };
        let bytes = whole(nodes)?.finish()? + whole(edges)?.finish()?;
        self.folder.kept = true;
        Ok(bytes)
    }
}
