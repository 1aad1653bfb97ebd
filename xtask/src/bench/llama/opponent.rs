//! llama.cpp's own measuring programs: `llama-bench` for one sequence, `llama-server` for several.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::daemon::output;
use crate::llama_cpp::LlamaCpp;

/// A prompt longer than this is not run once before it is timed: what that spares is lost in its time.
const WARM_UP_MAX: u32 = 512;
/// How long a server may take to load a model, or a generation to say something.
const PATIENCE: Duration = Duration::from_secs(120);

/// The other engine.
pub(super) struct Opponent {
    bench: PathBuf,
    server: PathBuf,
    threads: u64,
}

/// What all clients saw together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    /// Tokens in a second, prompts included in the time.
    pub(super) rate: f64,
    /// Tokens in a second while every client was decoding.
    pub(super) decoding: f64,
}

impl Opponent {
    pub(super) fn new(llama: &LlamaCpp, threads: u64) -> Self {
        let (bench, server) = (llama.program("llama-bench"), llama.program("llama-server"));
        Self { bench, server, threads }
    }

    /// Tokens in a second of a prompt, or of tokens one after the other.
    pub(super) fn rate(&self, model: &Path, prompt: u32, decoded: u32) -> anyhow::Result<f64> {
        let mut command = Command::new(&self.bench);
        command.arg("-m").arg(model).args(["-t", &self.threads.to_string(), "-r", "1"]);
        command.args(["-p", &prompt.to_string(), "-n", &decoded.to_string(), "-o", "json"]);
        if prompt > WARM_UP_MAX {
            command.arg("--no-warmup");
        }
        let text = output(&mut command)?;
        let answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        answer[0]["avg_ts"].as_f64().with_context(|| format!("llama-bench printed {text}"))
    }

    /// Clients that generate at the same time from different prompts, a slot each.
    pub(super) fn serve(
        &self,
        model: &Path,
        clients: u32,
        prompt: u32,
        tokens: u32,
    ) -> anyhow::Result<Served> {
        let server = Server::start(self, model, clients, prompt + tokens)?;
        // One request to touch the weights.
        server.generate(1, prompt, 2)?;
        let began = Instant::now();
        let clients: Vec<anyhow::Result<Vec<Duration>>> = std::thread::scope(|scope| {
            let generate = |client| server.generate_from(2 + client, prompt, tokens, began);
            let running: Vec<_> =
                (0..clients).map(|client| scope.spawn(move || generate(client))).collect();
            running
                .into_iter()
                .map(|client| client.join().unwrap_or_else(|_| bail!("a client panicked")))
                .collect()
        });
        let clients = clients.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let made: usize = clients.iter().map(Vec::len).sum();
        let end = clients.iter().filter_map(|arrivals| arrivals.last()).max();
        let from = clients.iter().filter_map(|arrivals| arrivals.first()).max();
        let to = clients.iter().filter_map(|arrivals| arrivals.last()).min();
        let (Some(end), Some(&from), Some(&to)) = (end, from, to) else {
            bail!("llama-server made no token");
        };
        let within = |at: &&Duration| from < **at && **at <= to;
        let decoded = clients.iter().flatten().filter(within).count();
        let decoding = decoded as f64 / to.saturating_sub(from).as_secs_f64();
        Ok(Served { rate: made as f64 / end.as_secs_f64(), decoding })
    }
}

/// A server on a port of this machine; killed when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(
        opponent: &Opponent,
        model: &Path,
        clients: u32,
        positions: u32,
    ) -> anyhow::Result<Self> {
        // Free a moment ago, and a benchmark has the machine for itself.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let context = clients * positions.next_multiple_of(256);
        let threads = opponent.threads.to_string();
        let mut command = Command::new(&opponent.server);
        command.arg("-m").arg(model).args(["-t", &threads, "-tb", &threads]);
        command.args(["-np", &clients.to_string(), "-c", &context.to_string()]);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("llama-server")?;
        let mut server = Self { child, port };
        let began = Instant::now();
        while !server.is_ready() {
            if let Some(status) = server.child.try_wait()? {
                bail!("llama-server ended with {status}");
            }
            ensure!(began.elapsed() < PATIENCE, "llama-server does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }

    /// Sends a request and returns what is left to read of the answer, if it is a good one.
    fn request(&self, head: &str, body: &str) -> anyhow::Result<BufReader<TcpStream>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(
            stream,
            "{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = BufReader::new(stream);
        let mut status = String::new();
        answer.read_line(&mut status)?;
        ensure!(status.starts_with("HTTP/1.1 200"), "{head}: {}", status.trim());
        Ok(answer)
    }

    fn is_ready(&self) -> bool {
        self.request("GET /health", "").is_ok()
    }

    fn generate(&self, seed: u32, prompt: u32, tokens: u32) -> anyhow::Result<Vec<Duration>> {
        self.generate_from(seed, prompt, tokens, Instant::now())
    }

    /// Generates greedily whatever the model says of its text's end; when each token came.
    fn generate_from(
        &self,
        seed: u32,
        prompt: u32,
        tokens: u32,
        began: Instant,
    ) -> anyhow::Result<Vec<Duration>> {
        // Ids that every vocabulary has, another sequence for each seed.
        let prompt: Vec<u32> = (0..prompt).map(|at| 3 + (at * 31 + seed * 57) % 197).collect();
        let body = json!({
            "prompt": prompt, "n_predict": tokens, "stream": true, "ignore_eos": true,
            "cache_prompt": false, "temperature": 0, "samplers": ["top_k"], "top_k": 1,
        });
        let answer = self.request("POST /completion", &body.to_string())?;
        let mut arrivals = Vec::new();
        let mut told = 0;
        for line in answer.lines() {
            let line = line?;
            let Some(event) = line.strip_prefix("data: ") else { continue };
            let event: Value = serde_json::from_str(event).with_context(|| event.to_owned())?;
            let predicted = event["tokens_predicted"].as_u64().unwrap_or(0);
            // Text that is no whole character yet comes with the next token.
            for _ in told..predicted {
                arrivals.push(began.elapsed());
            }
            told = told.max(predicted);
            if event["stop"] == true {
                break;
            }
        }
        ensure!(told == u64::from(tokens), "llama-server made {told} of {tokens} tokens");
        Ok(arrivals)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
