//! `larql run`: streams a generation, or chats.

use std::fs;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::Failure;
use super::args::Run;
use crate::client::working_directory;
use crate::event::{
    Alternative, ChatMessage, Constraint, GenerateEvent, GenerateRequest, GenerationSummary,
    Speculation,
};
use crate::shell::render::{Message, Script, text};
use crate::shell::{Outcome, Shell, say, tell};

/// Generates from the prompt; without one, talks.
pub(super) async fn run(run: &Run, shell: &mut Shell) -> Result<(), Failure> {
    shell.client().await?;
    match &run.prompt {
        Some(prompt) => {
            let request = GenerateRequest { prompt: prompt.clone(), ..request(run)? };
            let generated = stream(request, run.stats, shell).await?;
            match generated.stopped {
                true => Err(Failure::Ended(Outcome::Failed)),
                false => Ok(()),
            }
        }
        None => chat(run, shell).await,
    }
}

fn request(run: &Run) -> Result<GenerateRequest, Failure> {
    let constraint = match (&run.json_schema, &run.grammar) {
        (Some(path), _) => Some(Constraint::JsonSchema(read(path)?)),
        (None, Some(path)) => Some(Constraint::Grammar(read(path)?)),
        (None, None) => None,
    };
    let speculation = run.speculate.as_deref().map(|who| Speculation {
        draft_model: if who == "ngram" { String::new() } else { who.to_owned() },
        ..Speculation::default()
    });
    Ok(GenerateRequest {
        model: run.model.clone(),
        working_directory: working_directory(),
        tokens_max: run.tokens,
        temperature: run.temperature,
        top_k: run.top_k,
        top_p: run.top_p,
        min_p: run.min_p,
        repetition_penalty: run.repetition_penalty,
        presence_penalty: run.presence_penalty,
        frequency_penalty: run.frequency_penalty,
        seed: run.seed,
        stop: run.stop.clone(),
        logprobs: run.logprobs,
        think: (run.think || run.no_think).then_some(run.think),
        constraint,
        speculation,
        ..GenerateRequest::default()
    })
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| {
        let message = format!("{} could not be read: {error}", path.display());
        Failure::client(Message::new("58030", message))
    })
}

async fn chat(run: &Run, shell: &mut Shell) -> Result<(), Failure> {
    let mut editor = DefaultEditor::new().map_err(|error| unreadable(&error))?;
    if !shell.display().quiet && io::stdin().is_terminal() {
        say("Ctrl-C stops an answer, Ctrl-D leaves.");
    }
    let options = request(run)?;
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
        let request = GenerateRequest { messages: messages.clone(), ..options.clone() };
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
    let mut logprobs = Vec::new();
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
            Ok(Some(GenerateEvent::Token { text, logprob, alternatives, .. })) => {
                logprobs.extend(logprob.map(|own| logprobs_text(&text, own, &alternatives)));
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
    logprobs.iter().for_each(|line| say(line));
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

/// ` -0.0123 " Paris"  of " Paris" -0.0123, " Lyon" -4.5000`.
fn logprobs_text(text: &str, own: f32, alternatives: &[Alternative]) -> String {
    let each = alternatives
        .iter()
        .map(|each| format!("\"{}\" {:.4}", text::escape(&each.text), each.logprob))
        .collect::<Vec<_>>();
    let of = if each.is_empty() { String::new() } else { format!("  of {}", each.join(", ")) };
    format!("{own:8.4} \"{}\"{of}", text::escape(text))
}

/// `(8 prompt tokens in 3.1 ms, 40 tokens in 120.0 ms, 333.3 tokens/s, stop)`; with speculation also
/// `12 of 20 guesses right`.
fn summary_text(done: &GenerationSummary) -> String {
    // The first token comes out of the prefill, so that decoding took one step less.
    let steps = done.generated_tokens.saturating_sub(1);
    let rate = match done.decode_ms > 0.0 && steps > 0 {
        true => format!("{:.1} tokens/s, ", f64::from(steps) * 1000.0 / done.decode_ms),
        false => String::new(),
    };
    let guesses = match done.proposed_tokens {
        0 => String::new(),
        proposed => format!("{} of {proposed} guesses right, ", done.accepted_tokens),
    };
    format!(
        "({} prompt tokens in {:.1} ms, {} tokens in {:.1} ms, {rate}{guesses}{})",
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
            ..GenerationSummary::default()
        };
        let expected = "(6 prompt tokens in 3.0 ms, 11 tokens in 20.0 ms, 500.0 tokens/s, length)";
        assert_eq!(summary_text(&done), expected);
        let done = GenerationSummary { proposed_tokens: 9, accepted_tokens: 4, ..done };
        assert!(summary_text(&done).contains(" tokens/s, 4 of 9 guesses right, length)"));
    }

    #[test]
    fn log_probabilities_name_the_token_and_what_else_was_likely() {
        assert_eq!(logprobs_text(" a\n", -0.5, &[]), " -0.5000 \" a\\n\"");
        let other = Alternative { id: 1, text: "b".into(), logprob: -1.25 };
        assert_eq!(logprobs_text("a", -0.5, &[other]), " -0.5000 \"a\"  of \"b\" -1.2500");
    }

    #[test]
    fn a_token_cannot_drive_the_terminal_but_keeps_its_lines_elsewhere() {
        let mut out = Vec::new();
        write_token(&mut out, "a\n\u{1b}[2J", true).unwrap();
        write_token(&mut out, "\u{1b}", false).unwrap();
        assert_eq!(out, b"a\n\\u{1b}[2J\x1b");
    }
}
