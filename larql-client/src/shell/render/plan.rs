//! Draws the rows of EXPLAIN as a tree: children below their parent, indented.

use std::collections::HashSet;

use crate::value::{Column, Row, Value};

/// True for the columns that EXPLAIN answers: `id`, `parent`, `operator`, then estimates.
pub(super) fn is_plan(columns: &[Column]) -> bool {
    let names: Vec<&str> = columns.iter().take(3).map(|column| column.name.as_str()).collect();
    names == ["id", "parent", "operator"]
}

/// Orders rows depth first, indents `operator` by depth and leaves out `id` and `parent`, and the
/// columns that no row fills (those of ANALYZE, without it).
///
/// Rows that hang in no tree (an unknown parent, a cycle) follow at the end, so none is lost.
pub(super) fn tree(columns: &[Column], rows: Vec<Row>) -> (Vec<Column>, Vec<Row>) {
    let mut order: Vec<(usize, usize)> = Vec::new();
    let mut drawn = HashSet::new();
    let parent = |row: &Row| row.get(1).cloned().unwrap_or_default();
    let roots = (0..rows.len()).filter(|&index| parent(&rows[index]) == Value::Null);
    let mut pending: Vec<(usize, usize)> = roots.rev().map(|index| (index, 0)).collect();
    while let Some((index, depth)) = pending.pop() {
        if !drawn.insert(index) {
            continue;
        }
        order.push((index, depth));
        let Some(id) = rows[index].first().filter(|id| **id != Value::Null) else { continue };
        let children = (0..rows.len()).rev().filter(|&child| parent(&rows[child]) == *id);
        pending.extend(children.map(|child| (child, depth + 1)));
    }
    let strays: Vec<usize> = (0..rows.len()).filter(|index| !drawn.contains(index)).collect();
    order.extend(strays.into_iter().map(|index| (index, 0)));

    let filled = |column: usize| {
        column == 2 || rows.iter().any(|row| row.get(column).is_some_and(|v| *v != Value::Null))
    };
    let kept: Vec<usize> = (2..columns.len()).filter(|&column| filled(column)).collect();
    let drawn_rows = order.into_iter().map(|(index, depth)| {
        let row = &rows[index];
        let cell = |&column: &usize| match (column, row.get(column)) {
            (2, Some(Value::Text(operator))) if depth > 0 => {
                Value::Text(format!("{}└ {operator}", "  ".repeat(depth - 1)))
            }
            (_, value) => value.cloned().unwrap_or_default(),
        };
        kept.iter().map(cell).collect()
    });
    let drawn_rows = drawn_rows.collect();
    (kept.iter().map(|&column| columns[column].clone()).collect(), drawn_rows)
}

#[cfg(test)]
mod tests {
    use crate::shell::render::{Format, Options};
    use crate::value::{Column, ColumnType, Value};

    #[test]
    fn a_plan_is_drawn_as_a_tree_and_a_cycle_loses_no_row() {
        let columns: Vec<Column> = ["id", "parent", "operator", "detail", "rows"]
            .map(|name| Column { name: name.into(), column_type: ColumnType::Text })
            .to_vec();
        let row = |id: i64, parent: Option<i64>, operator: &str| {
            let parent = parent.map_or(Value::Null, Value::Integer);
            vec![id.into(), parent, operator.into(), "x".into(), Value::Null]
        };
        let rows = vec![
            row(3, Some(1), "Scan"),
            row(0, None, "Project"),
            row(1, Some(0), "Filter"),
            row(2, Some(0), "Sort"),
            row(8, Some(9), "Stray"),
            row(9, Some(8), "Stray"),
        ];
        let mut out = Vec::new();
        let mut table = (Format::named("table").unwrap().renderer)(Options::default());
        table.begin("EXPLAIN", &columns, &mut out).unwrap();
        table.rows(rows, &mut out).unwrap();
        table.end(None, &mut out).unwrap();
        let expected = " operator | detail
----------+--------
 Project  | x
 └ Filter | x
   └ Scan | x
 └ Sort   | x
 Stray    | x
 Stray    | x
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
