//! COPY and EXPORT against other people's readers of their formats.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use larql_client::{Answer, Value};
use larql_tests::daemon::Daemon;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use quick_xml::events::Event;

const ROWS: &str = "SELECT layer, feature, target, gate_score, relation, top_tokens FROM EDGES \
                    WHERE entity = \"France\" OR layer = 3 ORDER BY layer, feature LIMIT 700";

async fn one(daemon: &Daemon, statement: &str) -> Answer {
    let script = format!("USE \"atlas\"; {statement}");
    let mut answers = daemon.query(&script).await.unwrap_or_else(|error| {
        panic!("{statement}: {error:?}");
    });
    answers.pop().expect("an answer")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Text(text) => text.to_string(),
        Value::Integer(number) => number.to_string(),
        other => panic!("{other:?} is neither text nor whole"),
    }
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Real(number) => *number,
        Value::Score(number) => f64::from(*number),
        Value::Integer(number) => *number as f64,
        other => panic!("{other:?} is no number"),
    }
}

#[tokio::test]
async fn copied_rows_are_the_rows_of_the_statement_in_every_format() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let folder = tempfile::tempdir().unwrap();
    let rows = one(&daemon, ROWS).await.rows;
    assert_eq!(rows.len(), 700);
    for name in ["rows.csv", "rows.tsv", "rows.ndjson", "rows.parquet"] {
        let path = folder.path().join(name);
        let copied = one(&daemon, &format!("COPY ({ROWS}) TO \"{}\"", path.display())).await;
        assert_eq!(copied.tag, "COPY");
        let length = std::fs::metadata(&path).unwrap().len();
        assert_eq!(copied.column("rows").unwrap(), [&Value::Integer(700)]);
        assert_eq!(copied.column("bytes").unwrap(), [&Value::Integer(length as i64)]);
        match name {
            "rows.csv" => comma_separated(&path, &rows),
            "rows.tsv" => tab_separated(&path, &rows),
            "rows.ndjson" => ndjson(&path, &rows),
            _ => in_parquet(&path, &rows),
        }
    }
    let left: HashSet<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

fn comma_separated(path: &Path, rows: &[Vec<Value>]) {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let header = reader.headers().unwrap().clone();
    let found: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    separated(&header, &found, rows);
}

/// Reads by the dialect as the reference describes it, without quotes.
fn tab_separated(path: &Path, rows: &[Vec<Value>]) {
    let text = std::fs::read_to_string(path).unwrap();
    let field = |field: &str| {
        let parts = field.split(r"\\");
        let parts =
            parts.map(|part| part.replace(r"\t", "\t").replace(r"\n", "\n").replace(r"\r", "\r"));
        parts.collect::<Vec<_>>().join(r"\")
    };
    let mut lines = text.split_terminator('\n').map(|line| line.split('\t').map(field).collect());
    let header: csv::StringRecord = lines.next().unwrap();
    separated(&header, &lines.collect::<Vec<_>>(), rows);
}

fn separated(header: &csv::StringRecord, found: &[csv::StringRecord], rows: &[Vec<Value>]) {
    let header: Vec<&str> = header.iter().collect();
    assert_eq!(header.join(" "), "layer feature target gate_score relation top_tokens");
    assert_eq!(found.len(), rows.len());
    for (found, row) in found.iter().zip(rows) {
        for index in [0, 1, 2, 4] {
            assert_eq!(found[index], *text(&row[index]));
        }
        match &row[3] {
            Value::Null => assert_eq!(&found[3], ""),
            score => assert_eq!(found[3].parse::<f32>().unwrap(), number(score) as f32),
        }
        let Value::List(tokens) = &row[5] else { panic!("a list of tokens") };
        let tokens: Vec<String> = tokens.iter().map(text).collect();
        assert_eq!(serde_json::from_str::<Vec<String>>(&found[5]).unwrap(), tokens);
    }
}

fn ndjson(path: &Path, rows: &[Vec<Value>]) {
    let lines = std::fs::read_to_string(path).unwrap();
    assert_eq!(lines.lines().count(), rows.len());
    for (line, row) in lines.lines().zip(rows) {
        let found: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        let keys: Vec<&String> = found.keys().collect();
        assert_eq!(keys, ["layer", "feature", "target", "gate_score", "relation", "top_tokens"]);
        assert_eq!(found["layer"].as_f64().unwrap(), number(&row[0]));
        assert_eq!(found["target"].as_str().unwrap(), text(&row[2]));
        assert_eq!(found["relation"].is_null(), row[4] == Value::Null);
        assert!(found["top_tokens"].is_array());
    }
}

fn in_parquet(path: &Path, rows: &[Vec<Value>]) {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let found: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(found.len(), rows.len());
    for (found, row) in found.iter().zip(rows) {
        let fields: Vec<&Field> = found.get_column_iter().map(|(_, field)| field).collect();
        assert_eq!(*fields[0], Field::Long(number(&row[0]) as i64));
        assert_eq!(*fields[2], Field::Str(text(&row[2])));
        match &row[3] {
            Value::Null => assert_eq!(*fields[3], Field::Null),
            // A score is the number that it prints as.
            Value::Score(score) => {
                assert_eq!(*fields[3], Field::Double(format!("{score:?}").parse().unwrap()));
            }
            other => panic!("{other:?} is no score"),
        }
    }
}

/// Texts that mean something in one of the formats, NULL, and numbers.
fn hostile_table() -> String {
    let texts = [
        "a\tb", "a\nb", "a\r\nb", "\r", "\t", "\n", "\"", "\"\"", "'", "a,b", "\\", "\\t", "\\\\",
        "\\N", "\\\tx", "x\\", " x ", "#x", "東京", "-- x", "NULL", "a\"b\"", ",,", "",
    ];
    let mut table = String::from("number,score,text,other\n");
    for (at, text) in texts.iter().enumerate() {
        let quoted = |text: &str| match text {
            "" => String::new(),
            text => format!("\"{}\"", text.replace('"', "\"\"")),
        };
        let other = texts[(at * 7 + 3) % texts.len()];
        let score = if at % 5 == 0 { String::new() } else { format!("{}.25", at as i64 - 9) };
        table += &format!("{at},{score},{},{}\n", quoted(text), quoted(other));
    }
    table
}

#[tokio::test]
async fn what_is_copied_reads_back_as_the_same_table() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.csv");
    std::fs::write(&source, hostile_table()).unwrap();
    let query = async |script: String| {
        let mut answers = daemon.query(&script).await.unwrap_or_else(|error| {
            panic!("{script}: {error} ({})", error.hint);
        });
        answers.pop().expect("an answer")
    };
    query(format!("CREATE TABLE source FROM \"{}\"", source.display())).await;
    let rows = query("SELECT * FROM source".to_owned()).await;
    assert_eq!(rows.rows.len(), 24);
    for ending in ["csv", "tsv", "parquet"] {
        let path = folder.path().join(format!("copy.{ending}"));
        query(format!("COPY (SELECT * FROM source) TO \"{}\"", path.display())).await;
        query(format!("CREATE TABLE {ending} FROM \"{}\"", path.display())).await;
        let back = query(format!("SELECT * FROM {ending}")).await;
        assert_eq!(back.columns, rows.columns, "{ending}");
        assert_eq!(back.rows, rows.rows, "{ending}");
        // One column, whose NULL would be an empty line.
        let path = folder.path().join(format!("one.{ending}"));
        query(format!("COPY (SELECT text FROM source) TO \"{}\"", path.display())).await;
        query(format!("CREATE TABLE one_{ending} FROM \"{}\"", path.display())).await;
        let one: Vec<Vec<Value>> = rows.rows.iter().map(|row| vec![row[2].clone()]).collect();
        assert_eq!(query(format!("SELECT * FROM one_{ending}")).await.rows, one, "{ending}");
        // Text formats have one way to write nothing.
        let path = folder.path().join(format!("empty.{ending}"));
        query(format!(
            "COPY (SELECT number, coalesce(text, \"\") AS text FROM source) TO \"{}\"",
            path.display()
        ))
        .await;
        query(format!("CREATE TABLE empty_{ending} FROM \"{}\"", path.display())).await;
        let empty = query(format!("SELECT text FROM empty_{ending} WHERE number = 23")).await;
        let expected = if ending == "parquet" { Value::from("") } else { Value::Null };
        assert_eq!(empty.rows, [[expected]], "{ending}");
    }
}

#[tokio::test]
async fn an_exported_graph_has_every_edge_in_every_format() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let folder = tempfile::tempdir().unwrap();
    let edges = one(&daemon, "SELECT * FROM EDGES").await.rows;
    let targets: HashSet<String> = edges.iter().map(|row| text(&row[2])).collect();
    let export = |name: &str, format: &str| {
        let path = folder.path().join(name);
        (format!("EXPORT CURRENT INTO \"{}\" FORMAT {format}", path.display()), path)
    };

    let (statement, path) = export("edges.ttl", "turtle");
    let exported = one(&daemon, &statement).await;
    assert_eq!(exported.column("rows").unwrap(), [&Value::Integer(edges.len() as i64)]);
    let mut statements = 0;
    let mut labels = HashSet::new();
    for triple in oxttl::TurtleParser::new().for_reader(File::open(path).unwrap()) {
        let triple = triple.unwrap();
        match triple.predicate.as_str() {
            "http://www.w3.org/1999/02/22-rdf-syntax-ns#object" => statements += 1,
            "http://www.w3.org/2000/01/rdf-schema#label" => {
                let oxttl_literal = triple.object.to_string();
                labels.insert(oxttl_literal);
            }
            _ => {}
        }
    }
    assert_eq!(statements, edges.len());
    assert!(labels.len() >= targets.len());

    let (statement, path) = export("edges.graphml", "graphml");
    one(&daemon, &statement).await;
    let mut reader = quick_xml::Reader::from_file(path).unwrap();
    let (mut nodes, mut found) = (HashSet::new(), 0);
    let mut buffer = Vec::new();
    loop {
        match reader.read_event_into(&mut buffer).unwrap() {
            Event::Start(start) if start.name().as_ref() == "node" => {
                let id = start.try_get_attribute("id").unwrap().unwrap();
                assert!(nodes.insert(id.value.into_owned()), "a node is told once");
            }
            Event::Start(start) if start.name().as_ref() == "edge" => {
                for end in ["source", "target"] {
                    let end = start.try_get_attribute(end).unwrap().unwrap();
                    assert!(nodes.contains(&*end.value), "an edge of nodes that were told");
                }
                found += 1;
            }
            Event::Eof => break,
            _ => {}
        }
        buffer.clear();
    }
    assert_eq!(found, edges.len());

    let (statement, path) = export("neo4j", "neo4j");
    one(&daemon, &statement).await;
    let read = |name: &str| -> Vec<csv::StringRecord> {
        let mut reader = csv::Reader::from_path(path.join(name)).unwrap();
        reader.records().map(Result::unwrap).collect()
    };
    let names: HashMap<String, String> =
        read("nodes.csv").iter().map(|node| (node[0].to_owned(), node[1].to_owned())).collect();
    let relationships = read("relationships.csv");
    assert_eq!(relationships.len(), edges.len());
    for (edge, row) in relationships.iter().zip(&edges) {
        assert!(names.contains_key(&edge[0]));
        assert_eq!(names[&edge[1]], text(&row[2]));
    }
}

#[tokio::test]
async fn what_is_there_is_never_written_over_and_a_failure_leaves_nothing() {
    let daemon = Daemon::start();
    daemon.extract_atlas("").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, "mine").unwrap();
    let script = format!("USE \"atlas\"; COPY (STATS) TO \"{}\"", path.display());
    let error = daemon.query(&script).await.unwrap_err();
    assert!(format!("{error:?}").contains("42P07"), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    for format in ["turtle", "graphml", "neo4j"] {
        let script =
            format!("USE \"atlas\"; EXPORT CURRENT INTO \"{}\" FORMAT {format}", path.display());
        assert!(daemon.query(&script).await.is_err());
    }
    // A row that fails after the file was begun.
    let other = folder.path().join("b.csv");
    let script = format!(
        "USE \"atlas\"; COPY (SELECT layer FROM EDGES |> INFER $layer) TO \"{}\"",
        other.display()
    );
    assert!(daemon.query(&script).await.is_err());
    let left: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["a.csv"]);
}
