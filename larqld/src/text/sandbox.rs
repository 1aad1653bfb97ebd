//! Runs a template that nobody vouches for.
//!
//! A template comes with a checkpoint, so it may be hostile. Bounded are: instructions (fuel) and
//! nesting, by the engine; and by this file the *work* that an instruction causes. A string that is
//! joined with itself doubles with every instruction, and so do lists of lists; therefore each
//! instruction that builds or compares values is replaced, one for one, by one of ours that charges
//! the sizes it works on before it works. What is written, into the output or into a variable, is
//! charged as well. A template sees its arguments and nothing else.

use std::cell::Cell;
use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write};
use std::sync::{Arc, LazyLock};

use indexmap::IndexMap;
use minijinja::machinery::{
    CompiledTemplate, Instruction, Instructions, TemplateConfig, Token, eval, make_string_output,
    tokenize,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Serde, ValueKind, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value, context};
use serde::Serialize as _;

use super::chat_template::ChatTemplateError;

/// Instructions that one rendering may take.
const FUEL: u64 = 2_000_000;
/// Macros, loops and blocks within each other.
const NESTING_MAX: usize = 64;
/// Bytes that one rendering may work on in all.
const WORK_BYTES_MAX: u64 = 256 << 20;
/// Bytes of plain text between tags that one rendering may write, in all: the fuel is cut so that its
/// longest piece does not exceed it.
const RAW_BYTES_MAX: u64 = 512 << 20;
/// Bytes that one rendering may produce.
pub const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// Bytes of a template.
pub const TEMPLATE_BYTES_MAX: usize = 1 << 20;
/// Multiplications that a template may have: those of constants are carried out when it is parsed,
/// before anything is charged.
const MULTIPLICATIONS_MAX: usize = 2;
/// What looking at a value costs, beside its bytes.
const NODE_BYTES: u64 = 64;
/// How deep lists and maps may lie in each other.
const VALUE_DEPTH_MAX: usize = 64;

thread_local! {
    /// Bytes that the rendering on this thread may still work on; `None` when they are used up.
    static WORK: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Filters that only read what they are given, each with the name of its metered twin.
const FILTERS: &[(&str, &str)] = &[
    ("abs", "metered:abs"),
    ("attr", "metered:attr"),
    ("bool", "metered:bool"),
    ("capitalize", "metered:capitalize"),
    ("dictsort", "metered:dictsort"),
    ("e", "metered:e"),
    ("escape", "metered:escape"),
    ("float", "metered:float"),
    ("groupby", "metered:groupby"),
    ("int", "metered:int"),
    ("items", "metered:items"),
    ("lines", "metered:lines"),
    ("list", "metered:list"),
    ("lower", "metered:lower"),
    ("map", "metered:map"),
    ("max", "metered:max"),
    ("min", "metered:min"),
    ("reject", "metered:reject"),
    ("rejectattr", "metered:rejectattr"),
    ("reverse", "metered:reverse"),
    ("round", "metered:round"),
    ("safe", "metered:safe"),
    ("select", "metered:select"),
    ("selectattr", "metered:selectattr"),
    ("sort", "metered:sort"),
    ("split", "metered:split"),
    ("string", "metered:string"),
    ("sum", "metered:sum"),
    ("title", "metered:title"),
    ("trim", "metered:trim"),
    ("unique", "metered:unique"),
    ("upper", "metered:upper"),
    ("urlencode", "metered:urlencode"),
];
/// Filters that do not look into what they are given.
const FREE_FILTERS: [&str; 7] = ["count", "d", "default", "defined", "first", "last", "length"];
/// Filters whose results may be as large as the product of what they are given.
const GROWING_FILTERS: [(&str, &str); 4] = [
    ("indent", "metered:indent"),
    ("join", "metered:join"),
    ("replace", "metered:replace"),
    ("tojson", "metered:tojson"),
];
/// String methods of the same kind.
const GROWING_METHODS: [&str; 2] = ["join", "replace"];

/// The engine without meters, for the meaning of operators.
static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(Environment::new);

/// Prefix of the names of growing filters without meter, which no template knows.
static UNMETERED: LazyLock<String> =
    LazyLock::new(|| format!("unmetered:{:016x}:", RandomState::new().hash_one("filters")));

/// A template that can be run.
#[derive(Debug)]
pub(super) struct Sandbox {
    environment: Environment<'static>,
    source: String,
    variables: HashSet<String>,
}

impl Sandbox {
    /// Parses a template.
    ///
    /// # Errors
    /// `Template` with what is wrong with it.
    pub(super) fn new(source: String) -> Result<Self, ChatTemplateError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            let reason = format!("it has more than {TEMPLATE_BYTES_MAX} bytes");
            return Err(ChatTemplateError::Template(reason));
        }
        let multiplies = |token: Result<_, Error>| matches!(token, Ok((Token::Mul, _)));
        let multiplications =
            tokenize(&source, false, syntax()).map(multiplies).filter(|yes| *yes).count();
        if multiplications > MULTIPLICATIONS_MAX {
            let reason = format!("it multiplies more than {MULTIPLICATIONS_MAX} times");
            return Err(ChatTemplateError::Template(reason));
        }
        let compiled = compile(&source)?;
        let raw = std::iter::once(&compiled.instructions)
            .chain(compiled.blocks.values())
            .flat_map(|instructions| (0..).map_while(|index| instructions.get(index)))
            .map(|instruction| match instruction {
                Instruction::EmitRaw(text) => text.len() as u64,
                _ => 0,
            });
        let longest = raw.max().unwrap_or(0).max(1);
        let mut environment = environment();
        environment.set_fuel(Some(FUEL.min(RAW_BYTES_MAX / longest)));
        let unparsable = |error: Error| ChatTemplateError::Template(error.to_string());
        let variables =
            environment.template_from_str(&source).map_err(unparsable)?.undeclared_variables(false);
        drop(compiled);
        Ok(Self { environment, source, variables })
    }

    /// The variables that the template asks for.
    pub(super) fn variables(&self) -> &HashSet<String> {
        &self.variables
    }

    /// Runs the template.
    ///
    /// # Errors
    /// `Refused` with its own words, `Limit` when it takes too much.
    pub(super) fn render(&self, values: Value) -> Result<String, ChatTemplateError> {
        let compiled = compile(&self.source)?;
        let mut output = String::new();
        WORK.set(Some(WORK_BYTES_MAX));
        let ended = {
            let mut out = make_string_output(&mut output);
            let CompiledTemplate { instructions, blocks, .. } = &compiled;
            let none = AutoEscape::None;
            eval(&self.environment, instructions, values, blocks, &mut out, none).map(drop)
        };
        match ended {
            Ok(()) if output.len() <= OUTPUT_BYTES_MAX => Ok(output),
            Ok(()) => Err(ChatTemplateError::Limit("output")),
            Err(_) if WORK.take().is_none() => Err(ChatTemplateError::Limit("work")),
            Err(error) if error.kind() == ErrorKind::OutOfFuel => {
                Err(ChatTemplateError::Limit("instructions"))
            }
            Err(error) if error.detail() == Some("recursion limit exceeded") => {
                Err(ChatTemplateError::Limit("nesting"))
            }
            Err(error) => {
                Err(ChatTemplateError::Refused(error.detail().unwrap_or("it fails").to_owned()))
            }
        }
    }
}

/// White space as `transformers` has it.
fn syntax() -> SyntaxConfig {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    syntax.expect("the default delimiters are valid")
}

/// The template's instructions, those that build or compare values replaced by metered ones.
fn compile(source: &str) -> Result<CompiledTemplate<'_>, ChatTemplateError> {
    let config = TemplateConfig {
        syntax_config: syntax(),
        default_auto_escape: Arc::new(|_: &str| AutoEscape::None),
    };
    let mut compiled = CompiledTemplate::new("chat", source, &config)
        .map_err(|error| ChatTemplateError::Template(error.to_string()))?;
    let CompiledTemplate { instructions, blocks, .. } = &mut compiled;
    for instructions in std::iter::once(instructions).chain(blocks.values_mut()) {
        meter(instructions).map_err(ChatTemplateError::Template)?;
    }
    Ok(compiled)
}

fn meter(instructions: &mut Instructions<'_>) -> Result<(), String> {
    for index in 0.. {
        let Some(instruction) = instructions.get_mut(index) else { break };
        let count =
            |values: usize| u16::try_from(values).map_err(|_| "a list is too long".to_owned());
        let (name, arguments) = match instruction {
            Instruction::StringConcat => ("metered:~", Some(2)),
            Instruction::Add => ("metered:+", Some(2)),
            Instruction::Mul => ("metered:*", Some(2)),
            Instruction::Rem => ("metered:%", Some(2)),
            Instruction::Eq => ("metered:==", Some(2)),
            Instruction::Ne => ("metered:!=", Some(2)),
            Instruction::Lt => ("metered:<", Some(2)),
            Instruction::Lte => ("metered:<=", Some(2)),
            Instruction::Gt => ("metered:>", Some(2)),
            Instruction::Gte => ("metered:>=", Some(2)),
            Instruction::In => ("metered:in", Some(2)),
            Instruction::Slice => ("metered:slice", Some(4)),
            Instruction::BuildList(Some(values)) | Instruction::BuildTuple(Some(values)) => {
                ("metered:values", Some(count(*values)?))
            }
            Instruction::BuildMap(pairs) => ("metered:pairs", Some(count(*pairs * 2)?)),
            Instruction::BuildKwargs(pairs) => ("metered:arguments", Some(count(*pairs * 2)?)),
            Instruction::ApplyFilter(name, arguments, _) => {
                let metered = FILTERS.iter().chain(&GROWING_FILTERS).find(|(own, _)| own == name);
                match metered {
                    Some((_, metered)) => (*metered, *arguments),
                    None if FREE_FILTERS.contains(name) => continue,
                    None => return Err(format!("the filter {name} is not served")),
                }
            }
            Instruction::CompareAndPreserve(_) => {
                return Err("chained comparisons are not served".to_owned());
            }
            _ => continue,
        };
        *instruction = Instruction::ApplyFilter(name, arguments, !0);
    }
    Ok(())
}

/// Where a template runs: filters with meters, and two functions that templates expect.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax());
    environment.set_recursion_limit(NESTING_MAX);
    environment.set_formatter(|out, state, value| {
        charge(size(value)?)?;
        minijinja::escape_formatter(out, state, value)
    });
    environment.set_unknown_method_callback(|state, value, method, arguments| {
        match GROWING_METHODS.contains(&method) {
            true => charge_product(value, arguments)?,
            false if method == "format" => return Err(Error::from(ErrorKind::UnknownMethod)),
            false => charge(arguments.iter().try_fold(size(value)?, |sum, each| {
                Ok::<_, Error>(sum.saturating_add(size(each)?))
            })?)?,
        }
        minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments)
    });
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_filter("metered:~", |a: &Value, b: &Value| {
        charge(size(a)?.saturating_add(size(b)?))?;
        Ok::<_, Error>(Value::from(format!("{a}{b}")))
    });
    for (name, expression) in [
        ("metered:+", "a + b"),
        ("metered:*", "a * b"),
        ("metered:%", "a % b"),
        ("metered:<", "a < b"),
        ("metered:<=", "a <= b"),
        ("metered:>", "a > b"),
        ("metered:>=", "a >= b"),
        ("metered:in", "a in b"),
    ] {
        let multiplies = expression == "a * b";
        environment.add_filter(name, move |a: &Value, b: &Value| {
            match multiplies {
                true => charge(weight(a)?.max(1).saturating_mul(weight(b)?.max(1)))?,
                false => charge(size(a)?.saturating_add(size(b)?))?,
            }
            let expression = PLAIN.compile_expression(expression)?;
            expression.eval(context! { a, b })
        });
    }
    for (name, equal) in [("metered:==", true), ("metered:!=", false)] {
        environment.add_filter(name, move |a: &Value, b: &Value| {
            charge(size(a)?.saturating_add(size(b)?))?;
            Ok::<_, Error>((a == b) == equal)
        });
    }
    environment.add_filter(
        "metered:slice",
        |a: &Value, start: &Value, stop: &Value, step: &Value| {
            charge(a.as_str().map_or_else(|| a.len().unwrap_or(0), str::len) as u64)?;
            let expression = PLAIN.compile_expression("a[start:stop:step]")?;
            expression.eval(context! { a, start, stop, step })
        },
    );
    environment.add_filter("metered:values", |values: Rest<ValueOrKwargs>| {
        let values = values.into_values();
        let values = Value::from(values);
        charge(size(&values)?)?;
        Ok::<_, Error>(values)
    });
    environment.add_filter("metered:pairs", |values: Rest<ValueOrKwargs>| {
        let values = values.into_values();
        let (pairs, _) = values.as_chunks::<2>();
        let map: IndexMap<Value, Value> =
            pairs.iter().cloned().map(<(Value, Value)>::from).collect();
        let map = Value::from_object(map);
        charge(size(&map)?)?;
        Ok::<_, Error>(map)
    });
    environment.add_filter("metered:arguments", |values: Rest<ValueOrKwargs>| {
        let values = values.into_values();
        let (pairs, _) = values.as_chunks::<2>();
        for [_, value] in pairs {
            charge(size(value)?)?;
        }
        let named = |[name, value]: &[Value; 2]| (name.to_string(), value.clone());
        Ok::<_, Error>(Value::from(pairs.iter().map(named).collect::<Kwargs>()))
    });
    for &(name, metered) in FILTERS {
        environment.add_filter(
            metered,
            move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
                let arguments = arguments.into_values();
                for each in arguments.iter() {
                    charge(size(each)?)?;
                }
                state.apply_filter(name, &arguments)
            },
        );
    }
    let unmetered = |name: &str| format!("{}{name}", *UNMETERED);
    environment.add_filter(unmetered("indent"), minijinja::filters::indent);
    environment.add_filter(unmetered("join"), minijinja::filters::join);
    environment.add_filter(unmetered("replace"), minijinja::filters::replace);
    environment.add_filter(unmetered("tojson"), tojson);
    for (name, metered) in GROWING_FILTERS {
        let own = unmetered(name);
        environment.add_filter(
            metered,
            move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
                let arguments = arguments.into_values();
                let (first, rest) = arguments
                    .split_first()
                    .ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
                charge_product(first, rest)?;
                state.apply_filter(&own, &arguments)
            },
        );
        // `map` would find it by name.
        environment.remove_filter(name);
    }
    for name in ["batch", "chain", "format", "pprint", "slice", "zip"] {
        environment.remove_filter(name);
    }
    environment
}

/// JSON as Python's `json.dumps` writes it without escaping what is not ASCII, which is what
/// `transformers` gives templates.
fn tojson(value: &Value, indent: Option<usize>, arguments: Kwargs) -> Result<Value, Error> {
    let indent = match arguments.get::<Option<usize>>("indent")? {
        Some(indent) => Some(indent),
        None => indent,
    };
    let mut bytes = Vec::new();
    let written = match indent {
        Some(indent) => {
            let indent = " ".repeat(indent.min(64));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            Serde(value).serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, pretty))
        }
        None => {
            Serde(value).serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Spaced))
        }
    };
    let failed = |error: String| Error::new(ErrorKind::BadSerialization, error);
    written.map_err(|error| failed(error.to_string()))?;
    Ok(Value::from(String::from_utf8(bytes).map_err(|error| failed(error.to_string()))?))
}

/// A space after each comma and colon.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// Takes work off what is left.
fn charge(bytes: u64) -> Result<(), Error> {
    let left = WORK.get().and_then(|left| left.checked_sub(bytes.saturating_add(1)));
    WORK.set(left);
    left.map(drop).ok_or_else(exhausted)
}

/// Charges for a result that may be as large as the product of what it is made of.
fn charge_product(first: &Value, rest: &[Value]) -> Result<(), Error> {
    let mut factor = 1_u64;
    for each in rest {
        factor = factor.saturating_add(weight(each)?);
    }
    charge(size(first)?.max(1).saturating_mul(factor))
}

fn exhausted() -> Error {
    WORK.set(None);
    Error::new(ErrorKind::OutOfFuel, "the template takes too much work")
}

/// A number's value, or the size of anything else: how much it can make of something.
fn weight(value: &Value) -> Result<u64, Error> {
    match value.kind() {
        ValueKind::Number => Ok(value.as_i64().map_or(u64::MAX, i64::unsigned_abs)),
        ValueKind::Map => {
            let mut sum = 0_u64;
            for key in value.try_iter()? {
                sum = sum.saturating_add(weight(&value.get_item(&key)?)?);
            }
            Ok(sum)
        }
        _ => size(value),
    }
}

/// The bytes of a value, written out; an error when that is more than what is left, or too deep.
fn size(value: &Value) -> Result<u64, Error> {
    let most = WORK.get().ok_or_else(exhausted)?;
    let mut left = most;
    match measure(value, &mut left, VALUE_DEPTH_MAX) {
        Some(()) => Ok(most - left),
        None => Err(exhausted()),
    }
}

fn measure(value: &Value, left: &mut u64, depth: usize) -> Option<()> {
    *left = left.checked_sub(NODE_BYTES)?;
    match value.kind() {
        ValueKind::String | ValueKind::Bytes => {
            *left = left.checked_sub(value.as_bytes().map_or(0, <[u8]>::len) as u64)?;
        }
        ValueKind::Seq => {
            let depth = depth.checked_sub(1)?;
            for item in value.try_iter().ok()? {
                measure(&item, left, depth)?;
            }
        }
        ValueKind::Map => {
            let depth = depth.checked_sub(1)?;
            for key in value.try_iter().ok()? {
                measure(&value.get_item(&key).ok()?, left, depth)?;
                measure(&key, left, depth)?;
            }
        }
        _ => {}
    }
    Some(())
}
