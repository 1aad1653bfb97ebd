//! How many mixed statements one core parses in a second; prints one JSON object.
//!
//!     cargo run --release -p larql-planner --example parser_rate

use std::hint::black_box;
use std::time::{Duration, Instant};

use larql_planner::syntax::parse_script;

const STATEMENTS: [&str; 12] = [
    "DESCRIBE \"France\";",
    "USE \"atlas\";",
    "WALK \"The capital of France is\" TOP 5 LAYERS 2-5;",
    "INFER \"The capital of France is\" TOP 3;",
    "SELECT target, gate_score FROM EDGES WHERE entity = 'France' AND layer >= 3 ORDER BY gate_score DESC LIMIT 10;",
    "SELECT * FROM FEATURES WHERE layer = 3 AND feature = 42;",
    "SHOW LAYERS;",
    "SELECT layer, feature FROM EDGES NEAREST TO \"Paris\" AT LAYER 4 LIMIT 5;",
    "EXPLAIN ANALYZE SELECT entity FROM ENTITIES LIMIT 3;",
    "SET describe_z = 2.5;",
    "STATS;",
    "INSERT INTO EDGES (entity, relation, target) VALUES (\"Atlantis\", \"capital\", \"Poseidonis\") AT LAYER 3;",
];

fn main() {
    let script = STATEMENTS.join("\n");
    let mut rates = Vec::new();
    for _ in 0..21 {
        let (began, mut count) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_millis(50) {
            for _ in 0..20 {
                count += black_box(parse_script(black_box(&script))).expect("it parses").len();
            }
        }
        rates.push(count as f64 / began.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    let bytes = script.len() as f64 / STATEMENTS.len() as f64;
    println!(
        "{{\"median\": {:.0}, \"p10\": {:.0}, \"p90\": {:.0}, \"bytes_per_statement\": {bytes:.1}}}",
        rates[10], rates[2], rates[18]
    );
}
