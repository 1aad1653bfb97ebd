//! GraphML (graphml.graphdrawing.org): nodes when an edge first names them, then the edge.

use std::collections::HashSet;
use std::io::BufWriter;

use larql_planner::value::{Column, ColumnType};
use larql_storage::file::NewFile;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use super::{EdgeColumns, GraphNode, RowWriter, WriteError, plain, whole};
use crate::exec::Row;

/// A GraphML file.
pub(super) struct GraphMl {
    writer: Writer<BufWriter<NewFile>>,
    columns: EdgeColumns,
    told: HashSet<GraphNode>,
}

impl GraphMl {
    pub(super) fn new(file: NewFile, columns: &[Column]) -> Result<Self, WriteError> {
        let mut writer = Writer::new_with_indent(BufWriter::new(file), b' ', 1);
        writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        let mut root = BytesStart::new("graphml");
        root.push_attribute(("xmlns", "http://graphml.graphdrawing.org/xmlns"));
        writer.write_event(Event::Start(root))?;
        let mut key = |name: &str, of: &str, kind: &str| {
            let mut key = BytesStart::new("key");
            key.push_attribute(("id", name));
            key.push_attribute(("for", of));
            key.push_attribute(("attr.name", name));
            key.push_attribute(("attr.type", kind));
            writer.write_event(Event::Empty(key))
        };
        key("name", "node", "string")?;
        key("kind", "node", "string")?;
        key("relation", "edge", "string")?;
        let edge_columns = EdgeColumns::of(columns)?;
        for (index, name) in &edge_columns.others {
            let kind = match columns[*index].kind {
                ColumnType::Integer => "long",
                ColumnType::Real => "double",
                ColumnType::Boolean => "boolean",
                ColumnType::Text | ColumnType::List => "string",
            };
            key(name, "edge", kind)?;
        }
        let mut graph = BytesStart::new("graph");
        graph.push_attribute(("id", "edges"));
        graph.push_attribute(("edgedefault", "directed"));
        writer.write_event(Event::Start(graph))?;
        Ok(Self { writer, columns: edge_columns, told: HashSet::new() })
    }
}

/// Text without the characters that XML 1.0 cannot hold, even escaped.
fn xml_text(text: &str) -> String {
    let allowed = |c: char| {
        matches!(c, '\t' | '\n' | '\r') || c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}')
    };
    text.chars().map(|c| if allowed(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

fn data(
    writer: &mut Writer<BufWriter<NewFile>>,
    key: &str,
    text: &str,
) -> Result<(), std::io::Error> {
    let mut start = BytesStart::new("data");
    start.push_attribute(("key", key));
    writer.write_event(Event::Start(start))?;
    writer.write_event(Event::Text(BytesText::new(&xml_text(text))))?;
    writer.write_event(Event::End(BytesEnd::new("data")))
}

impl RowWriter for GraphMl {
    fn row(&mut self, row: &Row) -> Result<usize, WriteError> {
        let Self { writer, columns, told } = self;
        let Some(edge) = columns.edge(row) else { return Ok(0) };
        let mut kept = 0;
        for node in [&edge.from, &edge.to] {
            if told.insert(node.clone()) {
                kept += node.bytes();
                let mut start = BytesStart::new("node");
                start.push_attribute(("id", node.id().as_str()));
                writer.write_event(Event::Start(start))?;
                data(writer, "name", &node.name())?;
                data(writer, "kind", node.kind())?;
                writer.write_event(Event::End(BytesEnd::new("node")))?;
            }
        }
        let mut start = BytesStart::new("edge");
        start.push_attribute(("source", edge.from.id().as_str()));
        start.push_attribute(("target", edge.to.id().as_str()));
        writer.write_event(Event::Start(start))?;
        if let Some(relation) = edge.relation {
            data(writer, "relation", relation)?;
        }
        for (name, value) in &edge.attributes {
            data(writer, name, &plain(value))?;
        }
        writer.write_event(Event::End(BytesEnd::new("edge")))?;
        Ok(kept)
    }

    fn finish(mut self: Box<Self>) -> Result<u64, WriteError> {
        for name in ["graph", "graphml"] {
            self.writer.write_event(Event::End(BytesEnd::new(name)))?;
        }
        Ok(whole(self.writer.into_inner())?.finish()?)
    }
}
