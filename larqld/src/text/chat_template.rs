//! A model's own chat template, run in a sandbox.
//!
//! The template comes with the checkpoint, so it is hostile: it gets a bounded number of
//! instructions, bounded output and no access to anything but its arguments. Rendering follows what
//! `transformers` offers a template: `messages`, `bos_token`, `eos_token`, `add_generation_prompt`,
//! `raise_exception`, `strftime_now` left out, Python's string methods, and its white-space rules.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value};
use serde::Serialize;

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

/// A chat as a template gets it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chat {
    /// What was said so far.
    pub messages: Vec<ChatMessage>,
    /// Whether the model should think aloud first; `None` leaves it to the template.
    pub think: Option<bool>,
    /// Tools that the model may call: a JSON array.
    pub tools: Option<serde_json::Value>,
}

impl From<Vec<ChatMessage>> for Chat {
    fn from(messages: Vec<ChatMessage>) -> Self {
        Self { messages, ..Self::default() }
    }
}

/// The variables by which templates turn thinking on and off: Qwen, GLM and Gemma; DeepSeek and
/// Granite.
const THINKING: [&str; 2] = ["enable_thinking", "thinking"];

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
    /// The template has no variable that turns thinking on or off.
    #[error("think: the model's chat template has no such toggle")]
    NoThinking,
    /// The template has no place for tools.
    #[error("tools: the model's chat template has no place for them")]
    NoTools,
}

impl ChatTemplateError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Absent | Self::Configuration(_) | Self::Template(_) => {
                "give a prompt instead of a chat"
            }
            Self::Refused(_) | Self::Limit(_) => "the template comes with the model",
            Self::NoThinking => "leave it out, or say in a message whether to think",
            Self::NoTools => "describe the tools in a message",
        }
    }
}

/// A parsed template with the marker tokens it refers to.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    markers: BTreeMap<String, String>,
}

/// The source of a model's chat template: `chat_template.jinja`, else what `tokenizer_config.json`
/// holds, of several templates the one named `default`.
pub fn template_source(tokenizer_config: Option<&[u8]>, jinja: Option<&[u8]>) -> Option<String> {
    if let Some(jinja) = jinja {
        return Some(String::from_utf8_lossy(jinja).into_owned());
    }
    let config: serde_json::Value = serde_json::from_slice(tokenizer_config?).ok()?;
    let template = &config["chat_template"];
    let default = || {
        let named = template.as_array()?.iter().find(|entry| entry["name"] == "default")?;
        named["template"].as_str()
    };
    template.as_str().or_else(default).map(str::to_owned)
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
        let config: serde_json::Map<String, serde_json::Value> = match tokenizer_config {
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|error| ChatTemplateError::Configuration(error.to_string()))?,
            None => serde_json::Map::new(),
        };
        let source = template_source(tokenizer_config, jinja).ok_or(ChatTemplateError::Absent)?;
        let markers = config
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

    /// The prompt that a chat makes; with `generation` it ends where the model should speak.
    ///
    /// # Errors
    /// [`ChatTemplateError::Refused`] with the template's own words,
    /// [`ChatTemplateError::Limit`] when it does not come to an end, `NoThinking` and `NoTools` for
    /// what the template has no variable for.
    pub fn render(&self, chat: &Chat, generation: bool) -> Result<String, ChatTemplateError> {
        let template = self
            .environment
            .get_template("chat")
            .map_err(|error| ChatTemplateError::Template(error.to_string()))?;
        let asks = template.undeclared_variables(false);
        let mut variables: BTreeMap<&str, Value> = self
            .markers
            .iter()
            .map(|(name, text)| (name.as_str(), Value::from(text.as_str())))
            .collect();
        if let Some(think) = chat.think {
            let mut toggles = THINKING.into_iter().filter(|name| asks.contains(*name)).peekable();
            toggles.peek().ok_or(ChatTemplateError::NoThinking)?;
            variables.extend(toggles.map(|name| (name, Value::from(think))));
        }
        if let Some(tools) = &chat.tools {
            if !asks.contains("tools") {
                return Err(ChatTemplateError::NoTools);
            }
            variables.insert("tools", Value::from(Serde(tools)));
        }
        variables.insert("messages", Value::from(Serde(&chat.messages)));
        variables.insert("add_generation_prompt", Value::from(generation));
        let values = Value::from(variables);
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

    fn messages() -> Chat {
        Chat::from(vec![ChatMessage { role: "user".into(), content: "Hi".into() }])
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

    #[test]
    fn thinking_is_switched_by_the_templates_own_variable_and_refused_without_one() {
        let chat = |think| Chat { think, ..messages() };
        for (source, expected) in [
            (
                "{% if enable_thinking is defined and enable_thinking is false %}-{% else %}+{% endif %}",
                ["+", "-", "+"],
            ),
            (
                "{% if not thinking is defined %}{% set thinking = false %}{% endif %}\
                 {{ '+' if thinking else '-' }}",
                ["-", "-", "+"],
            ),
        ] {
            for (think, expected) in [None, Some(false), Some(true)].into_iter().zip(expected) {
                let rendered = template(source).render(&chat(think), true).unwrap();
                assert_eq!(rendered, expected, "{source} with {think:?}");
            }
        }
        let plain = template("{{ messages[0].content }}");
        assert_eq!(plain.render(&chat(None), true).unwrap(), "Hi");
        let error = plain.render(&chat(Some(false)), true).unwrap_err();
        assert!(matches!(error, ChatTemplateError::NoThinking), "{error}");
    }

    #[test]
    fn tools_reach_a_template_that_asks_for_them_and_are_refused_by_others() {
        let tools = serde_json::json!([{"type": "function", "function": {"name": "look"}}]);
        let chat = Chat { tools: Some(tools), ..messages() };
        let asking = template("{% for tool in tools %}{{ tool.function.name }}{% endfor %}");
        assert_eq!(asking.render(&chat, true).unwrap(), "look");
        let error = template("x").render(&chat, true).unwrap_err();
        assert!(matches!(error, ChatTemplateError::NoTools), "{error}");
    }

    #[test]
    fn a_file_of_its_own_comes_first_and_of_named_templates_the_default() {
        let named = br#"{"chat_template": [{"name": "rag", "template": "r"},
                                           {"name": "default", "template": "d"}]}"#;
        assert_eq!(template_source(Some(named), None).as_deref(), Some("d"));
        assert_eq!(template_source(Some(named), Some(b"j")).as_deref(), Some("j"));
        assert_eq!(template_source(Some(br#"{"chat_template": "o"}"#), None).as_deref(), Some("o"));
        assert_eq!(template_source(Some(b"{}"), None), None);
    }
}
