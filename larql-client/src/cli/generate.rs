//! `larql run`: streams a generation, or chats.

use std::io::{self, IsTerminal as _, Write};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::Failure;
use super::args::Run;
use crate::client::working_directory;
use crate::event::{ChatMessage, GenerateEvent, GenerateRequest, GenerationSummary};
use crate::shell::render::{Message, Script, text};
use crate::shell::{Outcome, Shell, say, tell};

/// Generates from the prompt; without one, talks.
pub(super) async fn run(run: &Run, shell: &mut Shell) -> Result<(), Failure> {
    shell.client().await?;
    match &run.prompt {
        Some(prompt) => {
            let request = GenerateRequest { prompt: prompt.clone(), ..request(run) };
            let generated = stream(request, run.stats, shell).await?;
            match generated.stopped {
                true => Err(Failure::Ended(Outcome::Failed)),
                false => Ok(()),
            }
        }
        None => chat(run, shell).await,
    }
}

fn request(run: &Run) -> GenerateRequest {
    GenerateRequest {
        model: run.model.clone(),
        working_directory: working_directory(),
        tokens_max: run.tokens,
        temperature: run.temperature,
        top_k: run.top_k,
        top_p: run.top_p,
        seed: run.seed,
        ..GenerateRequest::default()
    }
}

async fn chat(run: &Run, shell: &mut Shell) -> Result<(), Failure> {
    let mut editor = DefaultEditor::new().map_err(|error| unreadable(&error))?;
    if !shell.display().quiet && io::stdin().is_terminal() {
        say("Ctrl-C stops an answer, Ctrl-D leaves.");
    }
    let prompt = if io::stdin().is_terminal() { "> " } else { "" };
    let mut messages: Vec<ChatMessage> = Vec::new();
    loop {
        let line = match editor.readline(prompt) {
            Ok(line) if line.trim().is_empty() => continue,
            Ok(line) => line,
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(unreadable(&error)),
        };
        let _ = editor.add_history_entry(&line);
        messages.push(ChatMessage { role: "user".to_owned(), content: line });
        let request = GenerateRequest { messages: messages.clone(), ..request(run) };
        match stream(request, run.stats, shell).await {
            Ok(generated) => {
                messages
                    .push(ChatMessage { role: "assistant".to_owned(), content: generated.text });
            }
            // A model that cannot chat, or a context that is full, ends a talk that a pipe leads.
            Err(Failure::Call(message)) if io::stdin().is_terminal() && message.code != "08006" => {
                messages.pop();
                tell(shell.display(), "ERROR", &message, Script::default());
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn unreadable(error: &ReadlineError) -> Failure {
    Failure::client(Message::new("58030", format!("could not read the terminal: {error}")))
}

/// What a generation gave.
struct Generated {
    text: String,
    /// Ctrl-C ended it.
    stopped: bool,
}

async fn stream(
    request: GenerateRequest,
    stats: bool,
    shell: &mut Shell,
) -> Result<Generated, Failure> {
    shell.client().await?;
    let (client, interrupts) = shell.client_and_interrupts()?;
    let mut out = io::stdout();
    let terminal = out.is_terminal();
    let mut generated = Generated { text: String::new(), stopped: false };
    let mut summary: Option<GenerationSummary> = None;
    let mut tokens = tokio::select! {
        tokens = client.generate(request) => tokens?,
        () = interrupts.next() => return Ok(Generated { stopped: true, ..generated }),
    };
    loop {
        let event = tokio::select! {
            biased;
            () = interrupts.next() => {
                generated.stopped = true;
                break;
            }
            event = tokens.next() => event,
        };
        match event {
            Ok(Some(GenerateEvent::Token { text, .. })) => {
                write_token(&mut out, &text, terminal).map_err(|error| Failure::output(&error))?;
                generated.text.push_str(&text);
            }
            Ok(Some(GenerateEvent::Done(done))) => summary = Some(done),
            Ok(None) => break,
            Err(error) => {
                let _ = writeln!(out);
                return Err(error.into());
            }
        }
    }
    // Dropping the stream stops the computation.
    drop(tokens);
    writeln!(out).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))?;
    if let Some(summary) = summary.filter(|_| stats) {
        say(&summary_text(&summary));
    }
    Ok(generated)
}

fn write_token(out: &mut impl Write, token: &str, terminal: bool) -> io::Result<()> {
    match terminal {
        true => out.write_all(text::escape_lines(token).as_bytes())?,
        false => out.write_all(token.as_bytes())?,
    }
    out.flush()
}

/// `(8 prompt tokens in 3.1 ms, 40 tokens in 120.0 ms, 333.3 tokens/s, stop)`.
fn summary_text(done: &GenerationSummary) -> String {
    // The first token comes out of the prefill, so that decoding took one step less.
    let steps = done.generated_tokens.saturating_sub(1);
    let rate = match done.decode_ms > 0.0 && steps > 0 {
        true => format!("{:.1} tokens/s, ", f64::from(steps) * 1000.0 / done.decode_ms),
        false => String::new(),
    };
    format!(
        "({} prompt tokens in {:.1} ms, {} tokens in {:.1} ms, {rate}{})",
        done.prompt_tokens,
        done.prefill_ms,
        done.generated_tokens,
        done.decode_ms,
        text::escape(&done.reason)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_decoding_steps_only() {
        let done = GenerationSummary {
            reason: "length".into(),
            prompt_tokens: 6,
            generated_tokens: 11,
            prefill_ms: 3.0,
            decode_ms: 20.0,
            base_hash: String::new(),
        };
        let expected = "(6 prompt tokens in 3.0 ms, 11 tokens in 20.0 ms, 500.0 tokens/s, length)";
        assert_eq!(summary_text(&done), expected);
    }

    #[test]
    fn a_token_cannot_drive_the_terminal_but_keeps_its_lines_elsewhere() {
        let mut out = Vec::new();
        write_token(&mut out, "a\n\u{1b}[2J", true).unwrap();
        write_token(&mut out, "\u{1b}", false).unwrap();
        assert_eq!(out, b"a\n\\u{1b}[2J\x1b");
    }
}
