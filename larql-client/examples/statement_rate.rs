//! How many statements a second a daemon answers to clients that each wait for their answer before they
//! ask again; prints one JSON object.
//!
//!     cargo run --release -p larql-client --example statement_rate -- SOCKET CLIENTS SECONDS SETUP < statements
//!
//! `SETUP` is a script that each session begins with; standard input has a statement a line, which
//! clients ask for in turn, each from another place on.

use std::io::BufRead as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use larql_client::{Client, ConnectOptions, ExecuteOptions, Target};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, clients, seconds, setup] = &arguments[..] else {
        bail!("usage: statement_rate SOCKET CLIENTS SECONDS SETUP");
    };
    let (clients, seconds): (usize, f64) = (clients.parse()?, seconds.parse()?);
    let statements: Vec<String> = std::io::stdin().lock().lines().collect::<Result<_, _>>()?;
    if statements.is_empty() || clients == 0 {
        bail!("nobody asks for anything");
    }
    let statements = Arc::new(statements);
    let mut sessions = Vec::new();
    for _ in 0..clients {
        let target = Target::Unix(socket.into());
        let mut client = Client::connect(&target, ConnectOptions::default()).await?;
        client.query(setup.clone(), ExecuteOptions::here()).await.context("setup")?;
        sessions.push(client);
    }
    // What is asked for once is kept, or at least read.
    for statement in statements.iter() {
        let answered = sessions[0].query(statement.clone(), ExecuteOptions::here()).await;
        answered.with_context(|| statement.clone())?;
    }
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(seconds);
    let tasks: Vec<_> = sessions
        .into_iter()
        .enumerate()
        .map(|(first, mut client)| {
            let statements = statements.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                let mut at = first * 7;
                while Instant::now() < until {
                    let asked = Instant::now();
                    let statement = statements[at % statements.len()].clone();
                    client.query(statement, ExecuteOptions::default()).await?;
                    times.push(asked.elapsed().as_secs_f64() * 1e3);
                    at += 1;
                }
                anyhow::Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{{\"per_s\": {rate:.1}, \"statements\": {}, \"p50_ms\": {:.4}, \"p99_ms\": {:.4}}}",
        times.len(),
        at(0.5),
        at(0.99)
    );
    Ok(())
}
