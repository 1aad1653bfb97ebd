//! Checkpoints as mlx-lm converts them: other names, experts stacked, projections turned or taken
//! apart, and its packed groups.
//!
//! Source: what `sanitize` of mlx-lm's models makes of each family's published tensors.

use std::collections::{BTreeMap, HashMap};

use half::f16;
use safetensors::Dtype;

use crate::checkpoint::Raw;
use crate::random_checkpoint::Random;

/// Elements of a group here; the goldens' rows are too short for mlx-lm's own 32 and more.
pub const GROUP: usize = 8;

/// Gives the tensors of a published checkpoint mlx-lm's names and shapes. `heads` is for DeepSeek V3,
/// whose projection to keys and values is taken apart: heads, and a head's keys and values.
pub fn convert(tensors: &mut HashMap<String, Raw>, heads: Option<(usize, usize, usize)>) {
    stack_experts(tensors);
    let names: Vec<String> = tensors.keys().cloned().collect();
    let is_gpt2 = names.iter().any(|name| name == "wte.weight");
    for name in names {
        let renamed = |from: &str, to: &str| name.replace(from, to);
        if name.ends_with("_blocks") {
            packed_blocks(tensors, &name);
        } else if name.ends_with("mlp.experts.gate_up_proj_bias") {
            let (gate, up) = alternating(&take(tensors, &name), 1);
            tensors.insert(renamed("gate_up_proj_bias", "gate_proj.bias"), gate);
            tensors.insert(renamed("gate_up_proj_bias", "up_proj.bias"), up);
        } else if name.ends_with("mlp.experts.down_proj_bias") {
            let bias = take(tensors, &name);
            tensors.insert(renamed("down_proj_bias", "down_proj.bias"), bias);
        } else if name.ends_with(".experts.gate_up_proj") {
            let (gate, up) = halves(&take(tensors, &name));
            tensors.insert(renamed("gate_up_proj", "switch_glu.gate_proj.weight"), gate);
            tensors.insert(renamed("gate_up_proj", "switch_glu.up_proj.weight"), up);
        } else if name.ends_with(".experts.down_proj") {
            let down = take(tensors, &name);
            tensors.insert(renamed("down_proj", "switch_glu.down_proj.weight"), down);
        } else if let (true, Some(heads)) = (name.ends_with(".kv_b_proj.weight"), heads) {
            let (keys, values) = latent(&take(tensors, &name), heads);
            tensors.insert(renamed("kv_b_proj", "embed_q"), keys);
            tensors.insert(renamed("kv_b_proj", "unembed_out"), values);
        } else if is_gpt2 {
            let mut raw = take(tensors, &name);
            if name.contains(".c_") && raw.shape.len() == 2 {
                raw = turned(&raw);
            }
            tensors.insert(format!("model.{name}"), raw);
        }
    }
}

/// Packs every matrix whose rows are whole groups, with codes by chance, and returns the numbers that
/// they stand for.
pub fn pack(
    tensors: &mut HashMap<String, Raw>,
    bits: usize,
    seed: u64,
) -> HashMap<String, Vec<f32>> {
    let mut random = Random(seed | 1);
    let mut meant = HashMap::new();
    let mut names: Vec<String> = tensors.keys().cloned().collect();
    names.sort_unstable();
    for name in names {
        let Some(module) = name.strip_suffix(".weight") else { continue };
        let shape = tensors[&name].shape.clone();
        let columns = shape[shape.len() - 1];
        if shape.len() < 2 || !columns.is_multiple_of(GROUP) || name.contains("norm") {
            continue;
        }
        let count: usize = shape.iter().product();
        let codes: Vec<usize> = (0..count).map(|_| random.below(1 << bits)).collect();
        let mut factors = || -> Vec<f16> {
            let values = (0..count / GROUP).map(|_| random.below(64) as f32 / 4096.0 - 0.0078125);
            values.map(f16::from_f32).collect()
        };
        let (scales, biases) = (factors(), factors());
        // MLX rounds the product and the sum to the scales' type.
        let number = |(at, code): (usize, &usize)| {
            let scaled = f16::from_f32(*code as f32 * scales[at / GROUP].to_f32());
            f16::from_f32(scaled.to_f32() + biases[at / GROUP].to_f32()).to_f32()
        };
        meant.insert(name.clone(), codes.iter().enumerate().map(number).collect());
        let each = 32 / bits;
        let word = |codes: &[usize]| {
            codes.iter().rev().fold(0_u32, |word, &code| word << bits | code as u32).to_le_bytes()
        };
        let with_last = |last: usize| [&shape[..shape.len() - 1], &[last]].concat();
        let halves = |values: &[f16]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let of_groups = |values: &[f16]| Raw {
            dtype: Dtype::F16,
            shape: with_last(columns / GROUP),
            bytes: halves(values),
        };
        tensors.insert(format!("{module}.scales"), of_groups(&scales));
        tensors.insert(format!("{module}.biases"), of_groups(&biases));
        let bytes = codes.chunks(each).flat_map(word).collect();
        let packed = Raw { dtype: Dtype::U32, shape: with_last(columns / each), bytes };
        tensors.insert(name, packed);
    }
    meant
}

fn take(tensors: &mut HashMap<String, Raw>, name: &str) -> Raw {
    tensors.remove(name).expect("a tensor")
}

/// `P.experts.E.W.weight` for all `E` becomes `P.switch_mlp.W.weight`.
fn stack_experts(tensors: &mut HashMap<String, Raw>) {
    let mut stacks: BTreeMap<String, BTreeMap<usize, String>> = BTreeMap::new();
    for name in tensors.keys() {
        let Some((prefix, rest)) = name.split_once(".experts.") else { continue };
        let Some((expert, matrix)) = rest.split_once('.') else { continue };
        let Ok(expert) = expert.parse::<usize>() else { continue };
        let matrix = match matrix {
            "w1.weight" => "gate_proj.weight",
            "w2.weight" => "down_proj.weight",
            "w3.weight" => "up_proj.weight",
            other => other,
        };
        let stack = stacks.entry(format!("{prefix}.switch_mlp.{matrix}")).or_default();
        stack.insert(expert, name.clone());
    }
    for (name, experts) in stacks {
        let experts: Vec<Raw> = experts.values().map(|name| take(tensors, name)).collect();
        let shape = [&[experts.len()], &experts[0].shape[..]].concat();
        let bytes = experts.iter().flat_map(|expert| expert.bytes.clone()).collect();
        tensors.insert(name, Raw { dtype: experts[0].dtype, shape, bytes });
    }
}

/// MXFP4: words instead of bytes, gate and up apart.
fn packed_blocks(tensors: &mut HashMap<String, Raw>, name: &str) {
    let stem = name.strip_suffix("_blocks").expect("blocks");
    let (mut blocks, scales) = (take(tensors, name), take(tensors, &format!("{stem}_scales")));
    let rows = blocks.shape.len() - 2;
    let groups = blocks.shape[rows];
    blocks.shape.truncate(rows);
    blocks.shape.push(groups * 4);
    blocks.dtype = Dtype::U32;
    let mut put = |stem: &str, blocks: Raw, scales: Raw| {
        tensors.insert(format!("{stem}.weight"), blocks);
        tensors.insert(format!("{stem}.scales"), scales);
    };
    match stem.strip_suffix("gate_up_proj") {
        None => put(stem, blocks, scales),
        Some(prefix) => {
            let ((gate, up), (gate_scales, up_scales)) =
                (alternating(&blocks, 1), alternating(&scales, 1));
            put(&format!("{prefix}gate_proj"), gate, gate_scales);
            put(&format!("{prefix}up_proj"), up, up_scales);
        }
    }
}

/// The even and the odd entries along an axis.
fn alternating(raw: &Raw, axis: usize) -> (Raw, Raw) {
    let axis = axis.min(raw.shape.len() - 1);
    let inner: usize = raw.shape[axis + 1..].iter().product();
    let piece = inner.max(1) * width(raw);
    let every_other = |first: usize| {
        let mut shape = raw.shape.clone();
        shape[axis] /= 2;
        let pieces = raw.bytes.chunks(piece).skip(first).step_by(2);
        Raw { dtype: raw.dtype, shape, bytes: pieces.flatten().copied().collect() }
    };
    // Axes before this one have even lengths in all, since this one has.
    (every_other(0), every_other(1))
}

/// The first and the second half of the rows of each matrix of a stack.
fn halves(raw: &Raw) -> (Raw, Raw) {
    let &[count, rows, columns] = &raw.shape[..] else { panic!("no stack") };
    let half = |which: usize| {
        let each = rows / 2 * columns * width(raw);
        let pieces = raw.bytes.chunks(each).skip(which).step_by(2);
        let bytes = pieces.flatten().copied().collect();
        Raw { dtype: raw.dtype, shape: vec![count, rows / 2, columns], bytes }
    };
    (half(0), half(1))
}

fn turned(raw: &Raw) -> Raw {
    let &[rows, columns] = &raw.shape[..] else { panic!("no matrix") };
    let width = width(raw);
    let numbers = (0..rows * columns).map(|at| (at % rows) * columns + at / rows);
    let bytes = numbers.flat_map(|at| raw.bytes[at * width..][..width].to_vec()).collect();
    Raw { dtype: raw.dtype, shape: vec![columns, rows], bytes }
}

/// Keys of each head turned around, and values.
fn latent(raw: &Raw, (heads, keys, values): (usize, usize, usize)) -> (Raw, Raw) {
    let inputs = raw.shape[1];
    let row = inputs * width(raw);
    let (mut of_keys, mut of_values) = (Vec::new(), Vec::new());
    for head in raw.bytes.chunks((keys + values) * row) {
        let (first, second) = head.split_at(keys * row);
        let first = Raw { dtype: raw.dtype, shape: vec![keys, inputs], bytes: first.to_vec() };
        of_keys.extend(turned(&first).bytes);
        of_values.extend_from_slice(second);
    }
    let with = |shape: [usize; 3], bytes| Raw { dtype: raw.dtype, shape: shape.to_vec(), bytes };
    (with([heads, inputs, keys], of_keys), with([heads, values, inputs], of_values))
}

fn width(raw: &Raw) -> usize {
    raw.bytes.len() / raw.shape.iter().product::<usize>().max(1)
}
