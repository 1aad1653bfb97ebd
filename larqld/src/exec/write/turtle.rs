//! RDF 1.1 Turtle. An edge is an `rdf:Statement` with what is known of it, and, where entity and
//! relation are known, the triple itself too. Nodes and relations are IRIs below `urn:larql:`.

use std::collections::HashSet;
use std::io::BufWriter;

use larql_planner::value::{Column, Value};
use larql_storage::file::NewFile;
use oxrdf::vocab::{rdf, rdfs};
use oxrdf::{Literal, NamedNode, NamedNodeRef, TripleRef};
use oxttl::TurtleSerializer;
use oxttl::turtle::WriterTurtleSerializer;

use super::{EdgeColumns, GraphNode, RowWriter, WriteError, plain, whole};
use crate::exec::Row;

const PREFIX: &str = "urn:larql:";

/// A Turtle file.
pub(super) struct Turtle {
    writer: WriterTurtleSerializer<BufWriter<NewFile>>,
    columns: EdgeColumns,
    told: HashSet<GraphNode>,
    edges: u64,
}

fn iri(id: &str) -> Result<NamedNode, WriteError> {
    NamedNode::new(format!("{PREFIX}{id}")).map_err(|error| WriteError::Format(error.to_string()))
}

impl Turtle {
    pub(super) fn new(file: NewFile, columns: &[Column]) -> Result<Self, WriteError> {
        let prefixed = |serializer: TurtleSerializer, prefix: &str, iri: &str| {
            let result = serializer.with_prefix(prefix, iri);
            result.map_err(|error| WriteError::Format(error.to_string()))
        };
        let serializer = prefixed(TurtleSerializer::new(), "larql", PREFIX)?;
        let serializer =
            prefixed(serializer, "rdf", "http://www.w3.org/1999/02/22-rdf-syntax-ns#")?;
        let serializer = prefixed(serializer, "rdfs", "http://www.w3.org/2000/01/rdf-schema#")?;
        Ok(Self {
            writer: serializer.for_writer(BufWriter::new(file)),
            columns: EdgeColumns::of(columns)?,
            told: HashSet::new(),
            edges: 0,
        })
    }
}

fn literal(value: &Value) -> Literal {
    match value {
        Value::Boolean(value) => Literal::from(*value),
        Value::Integer(value) => Literal::from(*value),
        Value::Real(value) => Literal::from(*value),
        Value::Score(value) => Literal::from(*value),
        other => Literal::new_simple_literal(plain(other)),
    }
}

impl RowWriter for Turtle {
    fn row(&mut self, row: &Row) -> Result<usize, WriteError> {
        let Self { writer, columns, told, edges } = self;
        let Some(edge) = columns.edge(row) else { return Ok(0) };
        let (from, to) = (iri(&edge.from.id())?, iri(&edge.to.id())?);
        let mut kept = 0;
        for (node, node_iri) in [(&edge.from, &from), (&edge.to, &to)] {
            // A node's name is told the first time.
            if told.insert(node.clone()) {
                kept += node.bytes();
                let name = Literal::new_simple_literal(node.name());
                writer.serialize_triple(TripleRef::new(node_iri, rdfs::LABEL, &name))?;
            }
        }
        let relation = match edge.relation {
            Some(relation) => {
                let id = GraphNode::Text(relation.into()).id().replacen("token:", "relation:", 1);
                iri(&id)?
            }
            None => iri("writes")?,
        };
        let subject = iri(&format!("edge:{edges}"))?;
        *edges += 1;
        let mut tell = |predicate: NamedNodeRef<'_>, object: oxrdf::TermRef<'_>| {
            writer.serialize_triple(TripleRef::new(&subject, predicate, object))
        };
        tell(rdf::TYPE, rdf::STATEMENT.into())?;
        tell(rdf::SUBJECT, from.as_ref().into())?;
        tell(rdf::PREDICATE, relation.as_ref().into())?;
        tell(rdf::OBJECT, to.as_ref().into())?;
        for (name, value) in &edge.attributes {
            let value = literal(value);
            tell(iri(name)?.as_ref(), value.as_ref().into())?;
        }
        if edge.relation.is_some() {
            writer.serialize_triple(TripleRef::new(&from, &relation, &to))?;
        }
        Ok(kept)
    }

    fn finish(self: Box<Self>) -> Result<u64, WriteError> {
        Ok(whole(self.writer.finish()?)?.finish()?)
    }
}
