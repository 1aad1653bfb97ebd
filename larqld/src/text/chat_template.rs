//! A model's own chat template, run in a sandbox.
//!
//! The template comes with the checkpoint, so it is hostile: it gets a bounded number of
//! instructions, bounded output and no access to anything but its arguments. Rendering follows what
//! `transformers` offers a template: `messages`, `bos_token`, `eos_token`, `add_generation_prompt`,
//! `raise_exception`, `strftime_now` left out, Python's string methods, and its white-space rules.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

/// Instructions that one rendering may take.
const FUEL: u64 = 2_000_000;
/// Bytes that one rendering may produce.
pub const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// One turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` …
    pub role: String,
    /// What was said.
    pub content: String,
}

/// Why a chat could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChatTemplateError {
    /// The model ships no template.
    #[error("the model has no chat template")]
    Absent,
    /// `tokenizer_config.json` is not what it should be.
    #[error("tokenizer_config.json cannot be read: {0}")]
    Configuration(String),
    /// The template does not parse.
    #[error("the chat template does not parse: {0}")]
    Template(String),
    /// The template refused these messages.
    #[error("the chat template refuses these messages: {0}")]
    Refused(String),
    /// The template took too long or wrote too much.
    #[error("the chat template exceeds its limits ({0})")]
    Limit(&'static str),
}

/// A parsed template with the marker tokens it refers to.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    markers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct TokenizerConfig {
    chat_template: Option<TemplateField>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TemplateField {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl ChatTemplate {
    /// Reads the template from `tokenizer_config.json`, or from `chat_template.jinja` where the
    /// model has one.
    ///
    /// # Errors
    /// [`ChatTemplateError::Absent`] where neither holds a template; the others as they say.
    pub fn from_files(
        tokenizer_config: Option<&[u8]>,
        jinja: Option<&[u8]>,
    ) -> Result<Self, ChatTemplateError> {
        let config: TokenizerConfig = match tokenizer_config {
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|error| ChatTemplateError::Configuration(error.to_string()))?,
            None => TokenizerConfig::default(),
        };
        let own_file = jinja.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let source = own_file
            .or(match config.chat_template {
                Some(TemplateField::One(source)) => Some(source),
                Some(TemplateField::Named(list)) => list
                    .into_iter()
                    .find(|entry| entry.name == "default")
                    .map(|entry| entry.template),
                None => None,
            })
            .ok_or(ChatTemplateError::Absent)?;
        let markers = config
            .rest
            .iter()
            .filter(|(name, _)| name.ends_with("_token"))
            .filter_map(|(name, value)| {
                let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
                Some((name.clone(), text.to_owned()))
            })
            .collect();
        Self::new(source, markers)
    }

    fn new(source: String, markers: BTreeMap<String, String>) -> Result<Self, ChatTemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment
            .set_syntax(syntax.map_err(|error| ChatTemplateError::Template(error.to_string()))?);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(64);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment
            .add_template_owned("chat", source)
            .map_err(|error| ChatTemplateError::Template(error.to_string()))?;
        Ok(Self { environment, markers })
    }

    /// The prompt that these messages make; with `generation` it ends where the model should speak.
    ///
    /// # Errors
    /// [`ChatTemplateError::Refused`] with the template's own words,
    /// [`ChatTemplateError::Limit`] when it does not come to an end.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        generation: bool,
    ) -> Result<String, ChatTemplateError> {
        let template = self
            .environment
            .get_template("chat")
            .map_err(|error| ChatTemplateError::Template(error.to_string()))?;
        let messages = Value::from(Serde(messages));
        let markers = Value::from(Serde(&self.markers));
        let values = context! { messages, add_generation_prompt => generation, ..markers };
        let mut output = Bounded { bytes: Vec::new(), full: false };
        match template.render_captured_to(values, &mut output) {
            Ok(_) => String::from_utf8(output.bytes)
                .map_err(|error| ChatTemplateError::Refused(error.to_string())),
            Err(_) if output.full => Err(ChatTemplateError::Limit("output")),
            Err(error) if error.kind() == ErrorKind::OutOfFuel => {
                Err(ChatTemplateError::Limit("instructions"))
            }
            Err(error) => {
                Err(ChatTemplateError::Refused(error.detail().unwrap_or("it fails").to_owned()))
            }
        }
    }
}

struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > OUTPUT_BYTES_MAX {
            self.full = true;
            return Err(std::io::Error::other("too much output"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source.to_owned(), BTreeMap::new()).unwrap()
    }

    fn messages() -> Vec<ChatMessage> {
        vec![ChatMessage { role: "user".into(), content: "Hi".into() }]
    }

    #[test]
    fn an_endless_template_is_stopped() {
        let endless = template(
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        );
        assert!(matches!(
            endless.render(&messages(), true),
            Err(ChatTemplateError::Limit("instructions"))
        ));
    }

    #[test]
    fn a_template_that_writes_without_end_is_stopped() {
        let loud =
            template("{% set x = 'a' * 1000000 %}{% for a in range(9999) %}{{ x }}{% endfor %}");
        assert!(matches!(
            loud.render(&messages(), true),
            Err(ChatTemplateError::Limit(_) | ChatTemplateError::Refused(_))
        ));
    }

    #[test]
    fn a_refusal_is_told_in_the_templates_words() {
        let picky = template("{{ raise_exception('only systems may speak') }}");
        let error = picky.render(&messages(), true).unwrap_err();
        assert!(error.to_string().contains("only systems may speak"), "{error}");
    }

    #[test]
    fn a_model_without_template_says_so() {
        assert!(matches!(
            ChatTemplate::from_files(Some(b"{}"), None),
            Err(ChatTemplateError::Absent)
        ));
    }
}
