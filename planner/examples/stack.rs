use larql_planner::syntax::parse_script;
fn main() {
    let kind: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let size: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let pats = [("(", ")"), ("NOT ", ""), ("- ", ""), ("abs(", ")"), ("1 IN (", ")"), ("1 + (2 * ", ")")];
    let text = if kind < pats.len() {
        let (o, c) = pats[kind];
        format!("SELECT * FROM EDGES WHERE {}1{}", o.repeat(1000), c.repeat(1000))
    } else { ["EXPLAIN ", "PREPARE p AS ", "COPY (", "SELECT * FROM ("][kind - pats.len()].repeat(1000) };
    std::thread::Builder::new().stack_size(size << 10).spawn(move || { println!("{:?}", parse_script(&text).unwrap_err().code); }).unwrap().join().unwrap();
}
