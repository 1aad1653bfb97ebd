//! The `larql` program.

fn main() {}
