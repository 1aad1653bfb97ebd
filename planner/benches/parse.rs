//! Parser speed on one core: `cargo bench -p larql-planner --bench parse` prints statements a second
//! over a mixed script, the median of several runs.

use std::hint::black_box;
use std::time::Instant;

use larql_planner::syntax::parse_script;

const STATEMENTS: [&str; 16] = [
    "USE \"atlas\"",
    "STATS",
    "DESCRIBE \"France\"",
    "DESCRIBE \"Marie Curie\" ALL LAYERS VERBOSE LIMIT 20",
    "WALK \"The capital of France is\" TOP 5 LAYERS 3-6",
    "INFER \"The capital of France is\" TOP 3",
    "SELECT * FROM EDGES WHERE entity = 'France' LIMIT 10",
    "SELECT target, gate_score FROM EDGES WHERE layer = 4 AND feature = 17",
    "SELECT entity, count FROM ENTITIES WHERE count > 2 ORDER BY max_logit DESC LIMIT 5",
    "SELECT target FROM EDGES NEAREST TO \"Paris\" AT LAYER 5 LIMIT 3",
    "SELECT layer, target FROM FEATURES WHERE NOT (logit < 1.5 OR target LIKE 'P%') ORDER BY logit",
    "EXPLAIN SELECT target FROM EDGES WHERE layer BETWEEN 2 AND 4",
    "EXPLAIN INFER \"The capital of France is\" TOP 2",
    "SHOW FEATURES 3 LIMIT 10",
    "SHOW RELATIONS WITH EXAMPLES",
    "SET walk_k = 64",
];

const REPEATS: usize = 2_000;
const RUNS: usize = 11;

fn main() {
    let script = STATEMENTS.join(";\n");
    let scripts: Vec<&str> = std::iter::repeat_n(script.as_str(), REPEATS).collect();
    let mut rates: Vec<f64> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            for script in &scripts {
                let statements = parse_script(black_box(script)).expect("the script is valid");
                assert_eq!(black_box(statements).len(), STATEMENTS.len());
            }
            (REPEATS * STATEMENTS.len()) as f64 / started.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    println!("{:.0} statements/s (median of {RUNS} runs)", rates[RUNS / 2]);
}
