//! Rotary positions in GGUF metadata, and the tensors of divisors that go with them.

use larql_compute::model::RopeScaling;
use serde_json::{Value, json};

use super::config::{Draft, short};
use super::keys::refuse;
use crate::failure::Failure;

/// Divisors at least this large stop a pair from turning; llama.cpp writes 1e30.
const STILL: f32 = 1e29;

/// Base and scaling of a model whose layers all turn alike.
pub(super) fn plain(draft: &mut Draft<'_>, dims: u64) -> Result<(), Failure> {
    let base = draft.keys.number("rope.freq_base")?.map_or(10000.0, short);
    draft.set("rope_theta", base);
    let scaling = match (scaling(draft)?, divisors(draft, "rope_freqs.weight", dims)?) {
        (scaling, None) => scaling,
        (Value::Null, Some(divisors)) => match llama3(&divisors, base) {
            Some(scaling) => scaling,
            None => json!({"rope_type": "frequency_factors", "factors": divisors}),
        },
        (_, Some(_)) => {
            return Err(refuse("rope_freqs.weight beside rope.scaling.type is not supported"));
        }
    };
    draft.set("rope_scaling", scaling);
    Ok(())
}

/// Numbers of a head that turn, as a part of it.
pub(super) fn partial(draft: &mut Draft<'_>, head_dim: u64) -> Result<(), Failure> {
    let dims = draft.keys.count("rope.dimension_count")?.unwrap_or(head_dim);
    if dims > head_dim {
        return Err(refuse(format!("{dims} of {head_dim} numbers of a head turn")));
    }
    draft.set("partial_rotary_factor", dims as f64 / head_dim as f64);
    Ok(())
}

/// Phi-3: two lists of divisors, for short and for long contexts.
pub(super) fn phi3(draft: &mut Draft<'_>, head_dim: u64) -> Result<(), Failure> {
    let base = draft.keys.number("rope.freq_base")?.map_or(10000.0, short);
    draft.set("rope_theta", base);
    let context = draft.keys.needed("context_length")?;
    let original = draft.keys.count("rope.scaling.original_context_length")?.unwrap_or(context);
    draft.set("original_max_position_embeddings", original);
    let dims = draft.keys.count("rope.dimension_count")?.unwrap_or(head_dim);
    let kind = draft.keys.text("rope.scaling.type")?;
    let factor = draft.keys.number("rope.scaling.attn_factor")?.map(short);
    let long = divisors(draft, "rope_factors_long.weight", dims)?;
    let short_list = divisors(draft, "rope_factors_short.weight", dims)?;
    let scaling = match (long, short_list, kind) {
        (Some(long), Some(short_list), None | Some("longrope")) => {
            let mut scaling = json!({
                "type": "longrope",
                "long_factor": long,
                "short_factor": short_list,
            });
            // What the family computes from the lengths is left to it.
            let ratio = context as f64 / original as f64;
            let usual =
                if ratio > 1.0 { (1.0 + ratio.ln() / (original as f64).ln()).sqrt() } else { 1.0 };
            if let Some(factor) = factor.filter(|factor| (factor - usual).abs() > 1e-5) {
                scaling["attention_factor"] = json!(factor);
            }
            scaling
        }
        (None, None, None | Some("none")) if factor.is_none_or(|factor| factor == 1.0) => {
            Value::Null
        }
        (None, None, Some("longrope")) => {
            return Err(refuse("rope_factors_long.weight is missing"));
        }
        _ => return Err(refuse("the rotary scaling of this phi3 model is not supported")),
    };
    draft.set("rope_scaling", scaling);
    Ok(())
}

/// gpt-oss: YaRN whose ends are not rounded.
pub(super) fn gpt_oss(draft: &mut Draft<'_>, dims: u64) -> Result<(), Failure> {
    plain(draft, dims)?;
    if let Some(Value::Object(scaling)) = draft.config.get_mut("rope_scaling")
        && scaling.get("rope_type").is_some_and(|kind| kind == "yarn")
    {
        scaling.insert("truncate".to_owned(), json!(false));
    }
    Ok(())
}

/// DeepSeek: YaRN with a factor on attention that grows with the context.
pub(super) fn deepseek(draft: &mut Draft<'_>, dims: u64) -> Result<(), Failure> {
    plain(draft, dims)?;
    // The converter writes a tenth of the model's own number.
    let all =
        draft.keys.number("rope.scaling.yarn_log_multiplier")?.map(|tenth| short(tenth) / 0.1);
    if let (Some(all), Some(Value::Object(scaling))) = (all, draft.config.get_mut("rope_scaling")) {
        let all = (all * 1e6).round() / 1e6;
        scaling.insert("mscale_all_dim".to_owned(), json!(all));
        // llama.cpp takes the two to be equal, unless this one is 1.
        scaling.insert("mscale".to_owned(), json!(all));
    }
    Ok(())
}

/// Gemma 4: global layers turn a part of each head, local ones turn by another base.
pub(super) fn gemma4(draft: &mut Draft<'_>, head_dim: u64, local_dim: u64) -> Result<(), Failure> {
    let base = draft.keys.number("rope.freq_base")?.map_or(10000.0, short);
    let local = draft.keys.number("rope.freq_base_swa")?.map_or(10000.0, short);
    for (key, expected) in
        [("rope.dimension_count", head_dim), ("rope.dimension_count_swa", local_dim)]
    {
        if draft.keys.count(key)?.is_some_and(|dims| dims != expected) {
            return Err(refuse(format!("gemma4.{key} is not the size of a head")));
        }
    }
    if !scaling(draft)?.is_null() {
        return Err(refuse("gemma4 with rotary scaling is not supported"));
    }
    let part = match divisors(draft, "rope_freqs.weight", head_dim)? {
        None => 1.0,
        Some(divisors) => {
            let turning = divisors.iter().take_while(|&&divisor| divisor == 1.0).count();
            if divisors[turning..].iter().any(|&divisor| divisor < STILL) {
                return Err(refuse(
                    "rope_freqs.weight of gemma4 holds other divisors than 1 and 1e30",
                ));
            }
            turning as f64 / divisors.len() as f64
        }
    };
    draft.set(
        "rope_parameters",
        json!({
            "full_attention": {
                "rope_type": "proportional",
                "partial_rotary_factor": part,
                "rope_theta": base,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        }),
    );
    Ok(())
}

/// The scaling that the metadata names.
fn scaling(draft: &Draft<'_>) -> Result<Value, Failure> {
    let keys = draft.keys;
    let name = keys.architecture();
    // Trained with it or not, it is what the file asks for.
    keys.flag("rope.scaling.finetuned")?;
    let factor = match keys.number("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.number("rope.scale_linear")?,
    };
    let factor = factor.map(short).filter(|&factor| factor != 0.0 && factor != 1.0);
    let original = keys.count("rope.scaling.original_context_length")?;
    let attention = keys.number("rope.scaling.attn_factor")?.map(short);
    let kind = keys.text("rope.scaling.type")?.unwrap_or("linear");
    let unsupported = || refuse(format!("{name}.rope.scaling.type {kind:?} is not supported"));
    if !["none", "linear", "yarn"].contains(&kind) {
        return Err(unsupported());
    }
    match (kind, factor) {
        ("none", _) | (_, None) if attention.is_none_or(|factor| factor == 1.0) => Ok(Value::Null),
        ("linear", Some(factor)) if attention.is_none_or(|factor| factor == 1.0) => {
            Ok(json!({"rope_type": "linear", "factor": factor}))
        }
        ("yarn", Some(factor)) => {
            let original = original.ok_or_else(|| {
                refuse(format!("the metadata has no {name}.rope.scaling.original_context_length"))
            })?;
            let number = |key: &str, default: f64| -> Result<f64, Failure> {
                Ok(keys.number(&format!("rope.scaling.{key}"))?.map_or(default, short))
            };
            if number("yarn_ext_factor", 1.0)? != 1.0 {
                return Err(refuse(format!(
                    "{name}.rope.scaling.yarn_ext_factor is not supported"
                )));
            }
            let mut scaling = json!({
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original,
                "beta_fast": number("yarn_beta_fast", 32.0)?,
                "beta_slow": number("yarn_beta_slow", 1.0)?,
            });
            if let Some(factor) =
                attention.or(keys.number("rope.scaling.yarn_attn_factor")?.map(short))
            {
                scaling["attention_factor"] = json!(factor);
            }
            Ok(scaling)
        }
        _ => Err(unsupported()),
    }
}

/// The numbers of a tensor of divisors, one for each pair that turns.
fn divisors(draft: &Draft<'_>, name: &str, dims: u64) -> Result<Option<Vec<f32>>, Failure> {
    let Some(tensor) = draft.checkpoint.tensor(name) else { return Ok(None) };
    let pairs = usize::try_from(dims / 2).unwrap_or(usize::MAX);
    if tensor.format != "F32" || tensor.shape != [pairs] {
        let (format, shape) = (tensor.format, tensor.shape);
        return Err(refuse(format!("the tensor {name} is {format} {shape:?}, not F32 [{pairs}]")));
    }
    let numbers: Vec<f32> =
        tensor.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    if numbers.iter().any(|number| !(number.is_finite() && *number > 0.0)) {
        return Err(refuse(format!("the tensor {name} holds a divisor that is not positive")));
    }
    Ok(Some(numbers))
}

/// The rule of Llama 3.1 that gives these divisors, if it is that rule with its usual bounds.
fn llama3(divisors: &[f32], base: f64) -> Option<Value> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    let factor = divisors.iter().copied().map(f64::from).fold(1.0, f64::max);
    if factor == 1.0 {
        return Some(Value::Null);
    }
    let dims = 2.0 * divisors.len() as f64;
    let wavelength = |pair: usize| std::f64::consts::TAU * base.powf(2.0 * pair as f64 / dims);
    let numbers = || divisors.iter().copied().map(f64::from).enumerate();
    let blended = numbers().find(|&(_, divisor)| divisor > 1.0 && divisor < factor);
    let original = match blended {
        Some((pair, divisor)) => {
            let smooth = (1.0 / divisor - 1.0 / factor) / (1.0 - 1.0 / factor);
            (wavelength(pair) * (LOW + smooth * (HIGH - LOW))).round()
        }
        // Nothing lies between the bounds: every length that keeps it so does the same. Trained
        // lengths are powers of two.
        None => {
            let (divided, _) = numbers().find(|&(_, divisor)| divisor == factor)?;
            wavelength(divided).log2().floor().exp2()
        }
    };
    let rule = RopeScaling::Llama3 {
        factor,
        low_frequency_factor: LOW,
        high_frequency_factor: HIGH,
        context_original: original,
    };
    let close = |(pair, &divisor): (usize, &f32)| {
        let frequency = std::f64::consts::TAU / wavelength(pair);
        let scaled = rule.scaled(frequency);
        scaled.is_some_and(|scaled| (f64::from(divisor) * scaled / frequency - 1.0).abs() < 2e-6)
    };
    divisors.iter().enumerate().all(close).then(|| {
        json!({
            "rope_type": "llama3",
            "factor": short(factor),
            "low_freq_factor": LOW,
            "high_freq_factor": HIGH,
            "original_max_position_embeddings": original as u64,
        })
    })
}
