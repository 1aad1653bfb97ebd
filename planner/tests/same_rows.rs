//! No rule changes a row: random SELECTs give the same rows as they were bound, with every rule
//! applied, and with access paths switched off. The rows come from an interpreter of the operators
//! over a made-up model, written from their documentation.

mod fake;

use std::cmp::Ordering;

use fake::{FACTS, FakeCatalog, MOUNTS};
use larql_planner::bind::expression::Expression;
use larql_planner::bind::{self, Aggregate, AggregateFunction, Context};
use larql_planner::catalog::{Catalog, IndexTarget, Mount};
use larql_planner::layers::{LayerSet, Slot};
use larql_planner::lower::lower;
use larql_planner::physical::plan::{FeatureColumn, GateIndexScan, Node, Operator, SortKey};
use larql_planner::syntax::parse_statement;
use larql_planner::value::Value;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

type Row = Vec<Value>;

/// A number from 0 to 999 that looks random and is not.
fn noise(slot: Slot, salt: u64) -> u64 {
    let mixed = (u64::from(slot.layer) << 32 | slot.feature).wrapping_add(salt << 48);
    let mixed = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32 & 0x3FF
}

fn score(slot: Slot) -> f32 {
    (noise(slot, 1) as f32 - 512.0) / 64.0
}

/// One feature in sixteen writes no token.
fn has_tokens(slot: Slot) -> bool {
    !noise(slot, 2).is_multiple_of(16)
}

fn cell(slot: Slot, column: FeatureColumn, entity: Option<&str>) -> Value {
    let queried = |value: Value| if entity.is_some() { value } else { Value::Null };
    match column {
        FeatureColumn::Layer => Value::Integer(i64::from(slot.layer)),
        FeatureColumn::Feature => Value::Integer(slot.feature as i64),
        FeatureColumn::Entity => match entity {
            Some(entity) => Value::text(entity),
            None => Value::text(["France", "Spain", "Japan"][noise(slot, 3) as usize % 3]),
        },
        FeatureColumn::Relation if noise(slot, 4).is_multiple_of(3) => Value::Null,
        FeatureColumn::Relation => {
            Value::text(["capital", "language"][noise(slot, 5) as usize % 2])
        }
        FeatureColumn::Target => {
            Value::text(["Paris", "Madrid", "Tokyo", "Πάτρα"][noise(slot, 6) as usize % 4])
        }
        FeatureColumn::Logit => Value::Score(noise(slot, 7) as f32 / 100.0),
        FeatureColumn::TopTokens => Value::List([Value::text("x")].into()),
        FeatureColumn::GateScore => queried(Value::Score(score(slot))),
        FeatureColumn::Z => queried(Value::Real(f64::from(score(slot)))),
        FeatureColumn::Source => queried(Value::text("gate")),
        FeatureColumn::Confidence
        | FeatureColumn::Activation
        | FeatureColumn::Head
        | FeatureColumn::Position
        | FeatureColumn::Token
        | FeatureColumn::Weight => Value::Null,
    }
}

fn slots(mount: &dyn Mount, layers: &LayerSet) -> Vec<Slot> {
    let of_layer = |layer| (0..mount.features(layer)).map(move |feature| Slot { layer, feature });
    layers.iter().flat_map(of_layer).collect()
}

fn by_magnitude(a: &Slot, b: &Slot) -> Ordering {
    score(*b).abs().total_cmp(&score(*a).abs()).then(a.feature.cmp(&b.feature))
}

fn compare(keys: &[SortKey], a: &Row, b: &Row) -> Ordering {
    for key in keys {
        let (x, y) = (
            key.expression.evaluate(&|at| a[at].clone()),
            key.expression.evaluate(&|at| b[at].clone()),
        );
        let order = match (x.is_null(), y.is_null()) {
            (false, false) if key.descending => y.total_order(&x),
            (false, false) => x.total_order(&y),
            (x, y) => x.cmp(&y),
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn passes(slot: Slot, z_min: Option<f64>, tokens_required: bool) -> bool {
    z_min.is_none_or(|z| score(slot) > 0.0 && f64::from(score(slot)) >= z)
        && (!tokens_required || has_tokens(slot))
}

fn rows(node: &Node, mount: &dyn Mount) -> Vec<Row> {
    let read = |found: Vec<Slot>, columns: &[FeatureColumn], entity: Option<&str>| -> Vec<Row> {
        let row = |slot: Slot| columns.iter().map(|column| cell(slot, *column, entity)).collect();
        found.into_iter().map(row).collect()
    };
    if let Operator::NestedLoopJoin { .. } | Operator::HashJoin(_) = &node.operator {
        let (left, right) = (rows(&node.children[0], mount), rows(&node.children[1], mount));
        let equal = |a: &Row, b: &Row| match &node.operator {
            Operator::HashJoin(join) => join.keys.iter().all(|(x, y)| {
                let order =
                    x.evaluate(&|at| a[at].clone()).compare(&y.evaluate(&|at| b[at].clone()));
                order == Some(Ordering::Equal)
            }),
            _ => true,
        };
        let on = match &node.operator {
            Operator::HashJoin(join) => join.rest.as_ref(),
            Operator::NestedLoopJoin { on } => on.as_ref(),
            _ => None,
        };
        let pairs = left.iter().flat_map(|a| right.iter().map(move |b| (a, b)));
        let found = pairs.filter(|(a, b)| equal(a, b)).map(|(a, b)| [&a[..], &b[..]].concat());
        return found.filter(|row| on.is_none_or(|on| on.is_true(&|at| row[at].clone()))).collect();
    }
    let mut input = node.children.iter().flat_map(|child| rows(child, mount)).collect::<Vec<Row>>();
    match &node.operator {
        Operator::FeatureScan(scan) => {
            let mut found = slots(mount, &scan.layers);
            found.retain(|slot| has_tokens(*slot));
            found.truncate(scan.rows_max.map_or(usize::MAX, |rows| rows as usize));
            read(found, &scan.columns, None)
        }
        Operator::SlotLookup(lookup) => {
            let mut found = lookup.slots.clone();
            found.retain(|slot| has_tokens(*slot));
            read(found, &lookup.columns, None)
        }
        Operator::PostingLookup(lookup) => {
            let column = match lookup.of {
                IndexTarget::Labels => FeatureColumn::Relation,
                _ => FeatureColumn::Target,
            };
            let listed = |slot: &Slot| match cell(*slot, column, None) {
                Value::Text(text) => lookup.texts.contains(&text),
                _ => false,
            };
            let mut found = slots(mount, &lookup.layers);
            found.retain(|slot| has_tokens(*slot) && listed(slot));
            read(found, &lookup.columns, None)
        }
        Operator::GateScan(scan) | Operator::GateIndexScan(GateIndexScan { scan, .. }) => {
            let mut found = Vec::new();
            for layer in scan.layers.iter() {
                let mut hits = slots(mount, &LayerSet::one(layer));
                hits.sort_by(by_magnitude);
                hits.truncate(scan.k.map_or(usize::MAX, |k| k as usize));
                hits.retain(|slot| passes(*slot, scan.z_min, scan.tokens_required));
                found.extend(hits);
            }
            read(found, &scan.columns, Some("France"))
        }
        Operator::GateSlots(scan) => {
            let mut found = scan.slots.clone();
            found.retain(|slot| passes(*slot, scan.z_min, scan.tokens_required));
            found.sort_by(|a, b| a.layer.cmp(&b.layer).then_with(|| by_magnitude(a, b)));
            read(found, &scan.columns, Some("France"))
        }
        Operator::Nearest(nearest) => {
            let mut found = slots(mount, &LayerSet::one(nearest.layer));
            found.retain(|slot| has_tokens(*slot));
            found.sort_by(by_magnitude);
            found.truncate(nearest.k.map_or(usize::MAX, |k| k as usize));
            read(found, &nearest.columns, Some("France"))
        }
        Operator::KnownEdges(known) => {
            let asked = |entity: &str| known.entity.as_deref().is_none_or(|asked| asked == entity);
            let edges = (0..12).map(known_edge).filter(|(entity, _)| asked(entity));
            edges.map(|(_, cells)| known.columns.iter().map(cells).collect()).collect()
        }
        Operator::Concatenate => input,
        Operator::OneRow => vec![Row::new()],
        Operator::TableScan(scan) => {
            let fact = |at: u64| scan.columns.iter().map(|column| fact(at, *column)).collect();
            (0..FACTS).map(fact).collect()
        }
        Operator::Aggregate { keys, aggregates } => grouped(&input, keys, aggregates),
        Operator::Filter { predicate } => {
            input.retain(|row| predicate.is_true(&|at| row[at].clone()));
            input
        }
        Operator::Project { expressions } => {
            let compute = |row: Row| -> Row {
                expressions.iter().map(|one| one.evaluate(&|at| row[at].clone())).collect()
            };
            input.into_iter().map(compute).collect()
        }
        Operator::Sort { keys } => {
            input.sort_by(|a, b| compare(keys, a, b));
            input
        }
        Operator::TopN { keys, count, offset } => {
            input.sort_by(|a, b| compare(keys, a, b));
            input.into_iter().skip(*offset as usize).take(*count as usize).collect()
        }
        Operator::Limit { count, offset } => {
            let count = count.map_or(usize::MAX, |count| count as usize);
            input.into_iter().skip(*offset as usize).take(count).collect()
        }
        Operator::Distinct => {
            let mut seen: Vec<Row> = Vec::new();
            for row in input {
                if !seen.contains(&row) {
                    seen.push(row);
                }
            }
            seen
        }
        other => panic!("no SELECT here needs {}", other.name()),
    }
}

/// An edge that labels know: its entity, and its cells.
fn known_edge(number: u64) -> (&'static str, impl Fn(&FeatureColumn) -> Value) {
    let slot = Slot { layer: (number % 8) as u32, feature: number % 5 };
    let entity = ["France", "Spain"][number as usize % 2];
    let cells = move |column: &FeatureColumn| match column {
        FeatureColumn::Entity => Value::text(entity),
        FeatureColumn::GateScore => Value::Score(score(slot)),
        FeatureColumn::Confidence => Value::Real(noise(slot, 14) as f64 / 1024.0),
        FeatureColumn::Source => Value::text("probe"),
        FeatureColumn::Layer
        | FeatureColumn::Feature
        | FeatureColumn::Relation
        | FeatureColumn::Target => cell(slot, *column, None),
        _ => Value::Null,
    };
    (entity, cells)
}

/// A cell of the table of facts: entity, relation, object, year.
fn fact(row: u64, column: usize) -> Value {
    let slot = Slot { layer: 0, feature: row };
    let of = |words: [&str; 3], salt| Value::text(words[noise(slot, salt) as usize % 3]);
    match column {
        0 => of(["France", "Spain", "Japan"], 8),
        1 if noise(slot, 9).is_multiple_of(4) => Value::Null,
        1 => of(["capital", "language", "currency"], 10),
        2 => of(["Paris", "Madrid", "Tokyo"], 11),
        _ if noise(slot, 12).is_multiple_of(4) => Value::Null,
        _ => Value::Integer(noise(slot, 13) as i64 % 9),
    }
}

fn grouped(input: &[Row], keys: &[Expression], aggregates: &[Aggregate]) -> Vec<Row> {
    let key =
        |row: &Row| -> Row { keys.iter().map(|key| key.evaluate(&|at| row[at].clone())).collect() };
    let mut groups: Vec<Row> = if keys.is_empty() { vec![Row::new()] } else { Vec::new() };
    for row in input {
        if !groups.contains(&key(row)) {
            groups.push(key(row));
        }
    }
    groups.sort_by(|a, b| {
        let orders = a.iter().zip(b).map(|(x, y)| x.total_order(y));
        orders.fold(Ordering::Equal, Ordering::then)
    });
    let aggregated = |group: Row| {
        let rows = input.iter().filter(|row| key(row) == group);
        let values = aggregates.iter().map(|aggregate| {
            let value = |row: &&Row| match &aggregate.argument {
                Some(argument) => argument.evaluate(&|at| row[at].clone()),
                None => Value::Boolean(true),
            };
            let mut values: Vec<Value> = rows.clone().map(|row| value(&row)).collect();
            values.retain(|value| !value.is_null());
            values.sort_by(Value::total_order);
            if aggregate.distinct {
                values.dedup();
            }
            match aggregate.function {
                AggregateFunction::Count => Value::Integer(values.len() as i64),
                AggregateFunction::Min => values.first().cloned().unwrap_or(Value::Null),
                AggregateFunction::Max => values.last().cloned().unwrap_or(Value::Null),
                // Of small integers only, so that the order of adding does not matter.
                AggregateFunction::Sum | AggregateFunction::Avg => {
                    let sum: f64 = values.iter().filter_map(Value::as_real).sum();
                    match aggregate.function {
                        _ if values.is_empty() => Value::Null,
                        AggregateFunction::Avg => Value::Real(sum / values.len() as f64),
                        _ => Value::Real(sum),
                    }
                }
            }
        });
        let values: Row = values.collect();
        [group.clone(), values].concat()
    };
    groups.iter().cloned().map(aggregated).collect()
}

fn predicate() -> BoxedStrategy<String> {
    let layer = 0u32..10;
    let feature = prop_oneof![0u32..20, Just(1_500_000)];
    let leaf = prop_oneof![
        layer.clone().prop_map(|layer| format!("layer = {layer}")),
        (select(vec!["<", "<=", ">", ">=", "!="]), layer.clone())
            .prop_map(|(operator, layer)| format!("layer {operator} {layer}")),
        vec(layer.clone(), 1..4).prop_map(|layers| format!("layer IN ({})", list(&layers))),
        (layer.clone(), layer).prop_map(|(a, b)| format!("layer BETWEEN {a} AND {b}")),
        feature.clone().prop_map(|feature| format!("feature = {feature}")),
        feature.clone().prop_map(|feature| format!("{feature} = feature")),
        vec(feature, 1..4).prop_map(|features| format!("feature IN ({})", list(&features))),
        Just("layer * 2 > feature".to_owned()),
        Just("target LIKE 'P%'".to_owned()),
        Just("relation IS NULL".to_owned()),
        Just("relation = 'capital'".to_owned()),
        Just("relation IN ('language', NULL, 'none')".to_owned()),
        Just("target = 'Paris'".to_owned()),
        Just("'Πάτρα' = target".to_owned()),
        Just("target IN ('Tokyo', 'Paris', 'Tokyo')".to_owned()),
        Just("target = NULL".to_owned()),
        Just("entity = 'France'".to_owned()),
        Just("entity != 'France'".to_owned()),
        (0u32..10).prop_map(|logit| format!("logit >= {logit}.5")),
        Just("layer = NULL".to_owned()),
        Just("feature = NULL".to_owned()),
    ];
    leaf.prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            3 => vec(inner.clone(), 2..4).prop_map(|all| format!("({})", all.join(" AND "))),
            1 => vec(inner.clone(), 2..4).prop_map(|any| format!("({})", any.join(" OR "))),
            1 => inner.prop_map(|one| format!("NOT ({one})")),
        ]
    })
    .boxed()
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn statement() -> BoxedStrategy<String> {
    let items = select(vec![
        "*",
        "target",
        "layer, feature",
        "DISTINCT target",
        "DISTINCT relation, layer",
        "upper(target) AS target, logit * 2 AS double",
    ]);
    let from = select(vec!["EDGES", "FEATURES", "EDGES NEAREST TO 'France' AT LAYER 3"]);
    let order =
        select(vec!["", " ORDER BY target", " ORDER BY target DESC, layer", " ORDER BY 1 DESC"]);
    let limit = select(vec!["", " LIMIT 3", " LIMIT 4 OFFSET 2", " LIMIT 0"]);
    // Conditions joined by AND, which is what rules take apart; often those that choose a path.
    let entity = select(vec!["", "entity = 'France'"]).prop_map(str::to_owned);
    let pinned = prop_oneof![
        Just(String::new()),
        vec(0u32..20, 1..4).prop_map(|some| format!("feature IN ({}, {})", list(&some), some[0])),
    ];
    let conditions =
        (entity, pinned, vec(predicate(), 0..3)).prop_map(|(entity, pinned, others)| {
            let all = [entity, pinned].into_iter().chain(others);
            all.filter(|condition| !condition.is_empty()).collect::<Vec<_>>()
        });
    (items, from, conditions, order, limit)
        .prop_map(|(items, from, conditions, order, limit)| {
            let distinct = items.starts_with("DISTINCT");
            let order = if distinct && order.contains("layer") { " ORDER BY 1" } else { order };
            let order = if items.contains("relation") { " ORDER BY 1" } else { order };
            let words = if conditions.is_empty() { "" } else { " WHERE " };
            format!("SELECT {items} FROM {from}{words}{}{order}{limit}", conditions.join(" AND "))
        })
        .boxed()
}

/// SELECTs over joins, sub-queries and groups.
fn relational() -> BoxedStrategy<String> {
    let source = select(vec![
        "EDGES AS a",
        "facts AS a",
        "(SELECT layer, feature, target, entity FROM FEATURES WHERE layer < 3) AS a",
        "(SELECT object AS target, entity, year AS layer, 1 AS feature FROM facts ORDER BY 1 LIMIT 9) AS a",
    ]);
    let joined = select(vec![
        "",
        " JOIN facts AS f ON f.entity = a.entity",
        " JOIN facts AS f ON a.entity = f.entity AND f.year > 3 AND f.relation IS NOT NULL",
        " JOIN facts AS f ON f.year < 2 AND lower(f.object) = lower(a.entity)",
        " JOIN facts AS f ON f.object != a.entity AND f.year = 4",
        " JOIN EDGES AS f ON f.entity = 'France' AND f.entity = a.entity AND f.layer = 2",
    ]);
    let items =
        select(vec!["*", "a.entity", "DISTINCT a.entity", "count(*)", "a.entity, count(*)"]);
    let condition = select(vec![
        "",
        " WHERE a.entity = 'France'",
        " WHERE a.entity IN ('France', 'Spain') AND a.entity != 'Spain'",
        " WHERE NOT (a.entity = 'Japan') OR a.entity IS NULL",
    ]);
    let limit = select(vec!["", " LIMIT 5", " LIMIT 3 OFFSET 4"]);
    (source, joined, items, condition, limit)
        .prop_map(|(source, joined, items, condition, limit)| {
            let group = match items {
                "a.entity, count(*)" => " GROUP BY a.entity HAVING count(*) > 1 ORDER BY 2 DESC, 1",
                _ => "",
            };
            format!("SELECT {items} FROM {source}{joined}{condition}{group}{limit}")
        })
        .boxed()
}

/// The rows of a statement as bound, with every rule, and with access paths switched off.
fn check(text: &str, mount: usize) -> Result<(), TestCaseError> {
    let current = MOUNTS[[0, 2, 4, 5][mount]].clone();
    let mut catalog = FakeCatalog { current: Some(current.clone()), ..FakeCatalog::default() };
    let parsed = parse_statement(text).expect("a valid statement");
    let context = Context { catalog: &catalog as &dyn Catalog };
    let bound = bind::bind(&parsed.statement, parsed.span, &context).expect("it binds");
    let expected = rows(&lower(bound.plan), &current);
    let with_rules = catalog.plan(text).expect("it plans");
    prop_assert_eq!(rows(&with_rules.physical, &current), expected.clone(), "{}", text);
    for path in ["slot_lookup", "gate_slots", "hash_join"] {
        let planned = catalog.plan(&format!("SET enable_{path} = off")).expect("a setting");
        catalog.run(&planned);
    }
    for path in ["auto", "scan", "slots", "postings", "gate_index"] {
        let planned = catalog.plan(&format!("SET access_path = {path}")).expect("a setting");
        catalog.run(&planned);
        let with_path = catalog.plan(text).expect("it plans");
        let found = rows(&with_path.physical, &current);
        prop_assert_eq!(found, expected.clone(), "{} by {}", text, path);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_rule_and_no_access_path_changes_a_row(text in statement(), mount in 0usize..4) {
        check(&text, mount)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_rule_changes_a_row_of_joins_sub_queries_and_groups(text in relational()) {
        // The smaller model, since every pair is compared here.
        check(&text, 1)?;
    }
}
