//! A model's own chat template, run in a sandbox.
//!
//! The template comes with the checkpoint, so it runs in a `sandbox`. Rendering follows what
//! `transformers` offers a template: `messages`, `bos_token`, `eos_token`, `add_generation_prompt`,
//! `raise_exception`, `strftime_now` left out, Python's string methods, and its white-space rules.

use std::collections::BTreeMap;

use minijinja::Value;
use minijinja::value::Serde;
use serde::Serialize;

use super::sandbox::Sandbox;

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
    sandbox: Sandbox,
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
        Ok(Self { sandbox: Sandbox::new(source)?, markers })
    }

    /// The prompt that a chat makes; with `generation` it ends where the model should speak.
    ///
    /// # Errors
    /// [`ChatTemplateError::Refused`] with the template's own words,
    /// [`ChatTemplateError::Limit`] when it does not come to an end, `NoThinking` and `NoTools` for
    /// what the template has no variable for.
    pub fn render(&self, chat: &Chat, generation: bool) -> Result<String, ChatTemplateError> {
        let asks = self.sandbox.variables();
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
        self.sandbox.render(Value::from(variables))
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

    /// Each is stopped by a limit, at once.
    #[test]
    fn hostile_templates_are_stopped_before_they_take_memory_or_time() {
        let double = "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}";
        for source in [
            &format!("{double}{{% set ns.x = ns.x ~ ns.x %}}{{% endfor %}}"),
            &format!("{double}{{% set ns.x = ns.x + ns.x %}}{{% endfor %}}"),
            &format!("{double}{{% set ns.x = ns.x|replace('a', ns.x) %}}{{% endfor %}}"),
            &format!("{double}{{% set ns.x = ns.x.replace('a', ns.x) %}}{{% endfor %}}"),
            &format!("{double}{{% set ns.x = ns.x.join([ns.x, ns.x, ns.x]) %}}{{% endfor %}}"),
            &format!("{double}{{% set ns.x = [ns.x, ns.x, ns.x]|join(ns.x) %}}{{% endfor %}}"),
            &format!("{double}{{% set ns.x = [ns.x, ns.x] %}}{{% endfor %}}"),
            &format!("{double}{{% set ns.x = {{'a': ns.x, 'b': ns.x}} %}}{{% endfor %}}"),
            &format!("{double}{{% set ns.x = (ns.x, ns.x) %}}{{% endfor %}}"),
            &format!(
                "{double}{{% set y %}}{{{{ ns.x }}}}{{{{ ns.x }}}}{{% endset %}}{{% set ns.x = y %}}{{% endfor %}}"
            ),
            &format!("{double}{{% set ns.x = ns.x|indent(99999999) %}}{{% endfor %}}"),
            &format!("{double}{{% set ns.x = ns.x|tojson %}}{{% endfor %}}"),
            &format!("{double}{{% set ns.x = ns.x * 99999 %}}{{% endfor %}}"),
            "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}",
            "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = namespace(y=ns.x) %}{% endfor %}",
            "{% set x = 'a' * 1000000 %}{% for a in range(9999) %}{{ x }}{% endfor %}",
            "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
            "{{ 'a' * 99999999 * 9999 * 99999 * 9999999 }}",
            "{{ 'a'|format(1) }}",
        ] {
            let began = std::time::Instant::now();
            let ended = ChatTemplate::new(source.to_string(), BTreeMap::new())
                .and_then(|template| template.render(&messages(), true));
            match ended {
                Err(ChatTemplateError::Limit(_) | ChatTemplateError::Template(_)) => {}
                other => panic!("{source} ended with {other:?}"),
            }
            assert!(began.elapsed().as_secs() < 20, "{source}");
        }
    }

    #[test]
    fn metered_operators_mean_what_the_engines_do() {
        for (source, expected) in [
            ("{{ 1 + 2 * 3 }} {{ 'a' + 'b' }} {{ [1] + [2] }} {{ 7 % 4 }}", "7 ab [1, 2] 3"),
            ("{{ 'a' ~ 1 ~ none ~ missing }}", "a1None"),
            ("{{ 'b' in 'abc' }} {{ 'x' not in ['y'] }} {{ 'k' in {'k': 1} }}", "True True True"),
            ("{{ 1 == 1.0 }} {{ 'a' != 'b' }} {{ 2 > 1 }} {{ 'a' <= 'a' }}", "True True True True"),
            ("{{ 'abcdef'[1:4] }} {{ [1, 2, 3][::-1] }} {{ 'ab'[:-1] }}", "bcd [3, 2, 1] a"),
            ("{{ {'b': 1, 'a': [2]}|tojson }}", "{\"b\": 1, \"a\": [2]}"),
            ("{{ ['x', 'y']|join('-') }} {{ ' z '|trim }} {{ 'a,b'.split(',')|last }}", "x-y z b"),
            ("{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}", "2"),
            ("{{ 'x'|upper|replace('X', 'yy') }} {{ 'a\nb'|indent(2) }}", "yy a\n  b"),
            (
                "{{ messages|map(attribute='role')|list|length }} {{ messages[0]['content'][0:1] }}",
                "1 H",
            ),
            ("{% for k, v in {'a': 1}|items %}{{ k }}{{ v }}{% endfor %}", "a1"),
            ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "a1"),
            ("{% for m in messages if m.role == 'user' %}{{ loop.last }}{% endfor %}", "True"),
            ("{{ 'abc'.startswith('a') and not 'abc'.endswith('x') }}", "True"),
        ] {
            assert_eq!(template(source).render(&messages(), true).unwrap(), expected, "{source}");
        }
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
