//! Where the tensors of a version 2 vindex lie, file by file.
//!
//! The order below is the order of preference: what an earlier step has found, a later one leaves.

use super::super::layout::Layout;
use super::roles::Roles;
use super::{Assembly, Blocks, Place, experts};
use crate::file::is_plain_name;
use crate::vindex::layout::INDEX;
use crate::vindex::{TensorKey, VindexError};
use serde::Deserialize;
use std::collections::HashMap;

/// An entry of `weight_manifest.json`.
#[derive(Debug, Deserialize)]
struct WeightEntry {
    key: String,
    kind: String,
    shape: Vec<u64>,
    offset: u64,
    length: u64,
    file: String,
}

/// An entry of a manifest of quantised matrices.
#[derive(Debug, Deserialize)]
struct QuantisedEntry {
    key: String,
    /// Rows, and columns as they are padded.
    shape: [u64; 2],
    format: String,
    offset: u64,
    length: u64,
}

const WEIGHTS: &str = "weight_manifest.json";
const GATE_VECTORS: &str = "gate_vectors.bin";
const EMBEDDINGS: &str = "embeddings.bin";
/// Experts in a layer; the most that models have is in the hundreds.
const EXPERTS_MAX: u32 = 4096;
/// Its content is Q4_K, whatever its name says.
const LM_HEAD_Q4: &str = "lm_head_q4.bin";
const ROUTERS: &str = "router_weights.bin";

/// Files of quantised matrices, their manifests, and how `down` lies in them.
const QUANTISED: [(&str, &str, Layout); 3] = [
    ("attn_weights_q4k.bin", "attn_weights_q4k_manifest.json", Layout::RowMajor),
    ("interleaved_q4k.bin", "interleaved_q4k_manifest.json", Layout::RowMajor),
    ("down_features_q4k.bin", "down_features_q4k_manifest.json", Layout::FeatureMajor),
];

/// Adds everything there is.
pub(super) fn add(assembly: &mut Assembly<'_>) -> Result<(), VindexError> {
    fp4_matrices(assembly)?;
    experts::add(assembly)?;
    gate_vectors(assembly)?;
    embeddings(assembly)?;
    weights(assembly)?;
    quantised(assembly)?;
    unembedding_q4k(assembly)?;
    routers(assembly)?;
    feature_major(assembly)
}

/// The matrices that `index.json` lists as FP4 or FP8, layers one after another.
fn fp4_matrices(assembly: &mut Assembly<'_>) -> Result<(), VindexError> {
    let header = assembly.header;
    let Some(fp4) = &header.fp4 else { return Ok(()) };
    let shape = (fp4.fp4_format_version, fp4.block_elements, fp4.sub_block_elements);
    if shape != (1, 256, 32) {
        return Err(assembly.damaged(INDEX, format!("FP4 of the form {shape:?} is not known")));
    }
    for (projection, role) in [("gate", "gate"), ("up", "up"), ("down", "down")] {
        let Some(entry) = fp4.projections.get(projection) else { continue };
        if !is_plain_name(&entry.file) {
            let problem = format!("{:?} is not a plain file name", entry.file);
            return Err(assembly.damaged(INDEX, problem));
        }
        let blocks =
            Blocks::named(&entry.precision).map_err(|problem| assembly.damaged(INDEX, problem))?;
        let layout = if role == "down" { Layout::FeatureMajor } else { Layout::RowMajor };
        concatenated(assembly, &entry.file, role, blocks, layout)?;
    }
    Ok(())
}

/// A matrix of features a layer, layers one after another and nothing between them.
fn concatenated(
    assembly: &mut Assembly<'_>,
    file: &str,
    role: &'static str,
    blocks: Blocks,
    layout: Layout,
) -> Result<(), VindexError> {
    let header = assembly.header;
    if !assembly.list(file)? {
        return Err(VindexError::MissingFile { path: assembly.path(file) });
    }
    let hidden = header.hidden_size;
    if !hidden.is_multiple_of(blocks.elements) {
        let problem = format!("rows of {hidden} are not whole blocks of {}", blocks.elements);
        return Err(assembly.damaged(file, problem));
    }
    let mut offset = 0_u64;
    for info in &header.layers {
        let bytes = blocks.bytes_of(info.num_features, hidden);
        let end = bytes.and_then(|bytes| offset.checked_add(bytes));
        let (Some(bytes), Some(end)) = (bytes, end) else {
            return Err(assembly.damaged(file, "its size overflows"));
        };
        assembly.add(
            file,
            Place {
                name: &format!("layers.{}.{role}", info.layer),
                key: TensorKey::layer(role, info.layer),
                dtype: blocks.tag,
                shape: vec![info.num_features, hidden],
                columns_padded: None,
                layout,
                offset,
                bytes,
            },
        )?;
        offset = end;
    }
    Ok(())
}

/// The gates of every layer, where `index.json` says; of every expert, in a mixture.
fn gate_vectors(assembly: &mut Assembly<'_>) -> Result<(), VindexError> {
    let header = assembly.header;
    if !assembly.list(GATE_VECTORS)? {
        return Ok(());
    }
    let (hidden, there) = (header.hidden_size, assembly.found[GATE_VECTORS].0);
    for info in &header.layers {
        let layer = info.layer;
        let dtype = plain(info.length, [info.num_features, hidden]).map_err(|problem| {
            assembly.damaged(INDEX, format!("gates of layer {layer}: {problem}"))
        })?;
        if info.offset.checked_add(info.length).is_none_or(|end| end > there) {
            let (offset, length) = (info.offset, info.length);
            let problem = format!(
                "gates of layer {layer}: {length} bytes at {offset} reach beyond the {there} of \
                 {GATE_VECTORS}"
            );
            return Err(assembly.damaged(INDEX, problem));
        }
        let experts = info.num_experts.filter(|&experts| experts > 1);
        let networks = experts.unwrap_or(1);
        let features = info.num_features / u64::from(networks);
        if experts.and(info.num_features_per_expert).is_some_and(|given| given != features)
            || features * u64::from(networks) != info.num_features
            || networks > EXPERTS_MAX
        {
            let problem = format!(
                "layer {layer}: {networks} experts of {features} features, the most is \
                 {EXPERTS_MAX} and together they have {}",
                info.num_features
            );
            return Err(assembly.damaged(INDEX, problem));
        }
        let mut offset = info.offset;
        for number in 0..networks {
            let expert = experts.map(|_| number);
            // The sum was compared with the length above.
            let bytes = dtype.bytes_of(features, hidden).unwrap_or(0);
            let key = TensorKey { role: "gate".into(), layer: Some(layer), expert };
            assembly.add(
                GATE_VECTORS,
                Place {
                    name: &key.to_string(),
                    key: key.clone(),
                    dtype: dtype.tag,
                    shape: vec![features, hidden],
                    columns_padded: None,
                    layout: Layout::RowMajor,
                    offset,
                    bytes,
                },
            )?;
            offset = offset.saturating_add(bytes);
        }
    }
    Ok(())
}

/// f16 or f32, whichever `length` bytes of a tensor of that shape are.
fn plain(length: u64, shape: impl IntoIterator<Item = u64>) -> Result<Blocks, String> {
    let elements = shape.into_iter().try_fold(1_u64, |product, size| product.checked_mul(size));
    let elements = elements.ok_or_else(|| "its size overflows".to_owned())?;
    for name in ["f16", "f32"] {
        let blocks = Blocks::named(name)?;
        if elements.checked_mul(blocks.bytes) == Some(length) {
            return Ok(blocks);
        }
    }
    Err(format!("{length} bytes are neither f16 nor f32 of {elements} elements"))
}

fn embeddings(assembly: &mut Assembly<'_>) -> Result<(), VindexError> {
    let header = assembly.header;
    if !assembly.list(EMBEDDINGS)? {
        return Ok(());
    }
    let length = assembly.found[EMBEDDINGS].0;
    let shape = [header.vocab_size, header.hidden_size];
    let blocks = plain(length, shape).map_err(|problem| assembly.damaged(EMBEDDINGS, problem))?;
    assembly.add(
        EMBEDDINGS,
        Place {
            name: "embed_tokens.weight",
            key: TensorKey::model("embedding"),
            dtype: blocks.tag,
            shape: shape.to_vec(),
            columns_padded: None,
            layout: Layout::RowMajor,
            offset: 0,
            bytes: length,
        },
    )?;
    Ok(())
}

/// What `weight_manifest.json` lists.
fn weights(assembly: &mut Assembly<'_>) -> Result<(), VindexError> {
    let Some(entries) = assembly.entries::<WeightEntry>(WEIGHTS)? else { return Ok(()) };
    let roles = Roles::new(entries.iter().map(|entry| &*entry.key));
    let mut without_role = Vec::new();
    for WeightEntry { key: name, kind, shape, offset, length, file } in &entries {
        let refuse = |assembly: &Assembly<'_>, problem: String| {
            assembly.damaged(WEIGHTS, format!("{name:?}: {problem}"))
        };
        if !is_plain_name(file) {
            return Err(refuse(assembly, format!("{file:?} is not a plain file name")));
        }
        if !assembly.list(file)? {
            return Err(VindexError::MissingFile { path: assembly.path(file) });
        }
        let &columns = shape.last().unwrap_or(&1);
        let outer = &shape[..shape.len().saturating_sub(1)];
        let rows = outer.iter().try_fold(1_u64, |product, &size| product.checked_mul(size));
        let blocks = match kind.as_str() {
            "vector" | "tensor" | "tensor_f16" => plain(*length, shape.iter().copied()),
            "packed_bf16" => Blocks::named("bf16"),
            "tensor_q4k" => Blocks::named("q4_k"),
            other => Err(format!("kind {other:?} is not known")),
        };
        let blocks = blocks.map_err(|problem| refuse(assembly, problem))?;
        if rows.and_then(|rows| blocks.bytes_of(rows, columns)) != Some(*length) {
            let problem = format!("{length} bytes are not {} of {shape:?}", blocks.tag);
            return Err(refuse(assembly, problem));
        }
        if roles.key(name).is_none() {
            without_role.push(name.as_str());
        }
        assembly.add(
            file,
            Place {
                name,
                key: roles.key_or_source(name),
                dtype: blocks.tag,
                shape: shape.clone(),
                columns_padded: blocks.padding(columns),
                layout: Layout::RowMajor,
                offset: *offset,
                bytes: *length,
            },
        )?;
    }
    match without_role[..] {
        [] => {}
        [name] => assembly.note(format!("{WEIGHTS}: {name} is kept and has no role")),
        [first, ..] => assembly.note(format!(
            "{WEIGHTS}: {} tensors are kept and have no role, {first} is the first of them",
            without_role.len()
        )),
    }
    Ok(())
}

/// The quantised matrices, whose manifests give columns as they are padded.
fn quantised(assembly: &mut Assembly<'_>) -> Result<(), VindexError> {
    for (file, manifest, down_layout) in QUANTISED {
        let Some(entries) = assembly.entries::<QuantisedEntry>(manifest)? else { continue };
        if !assembly.list(file)? {
            return Err(VindexError::MissingFile { path: assembly.path(file) });
        }
        let roles = Roles::new(std::iter::empty());
        let keys: Vec<_> = entries.iter().map(|entry| roles.key_or_source(&entry.key)).collect();
        let rows: HashMap<&TensorKey, u64> =
            keys.iter().zip(&entries).map(|(key, entry)| (key, entry.shape[0])).collect();
        for (key, QuantisedEntry { key: name, shape, format, offset, length }) in
            keys.iter().zip(&entries)
        {
            let &[row_count, padded] = shape;
            let refuse = |assembly: &Assembly<'_>, problem: String| {
                assembly.damaged(manifest, format!("{name:?}: {problem}"))
            };
            let blocks = Blocks::named(format).map_err(|problem| refuse(assembly, problem))?;
            let layout = if key.role == "down" { down_layout } else { Layout::RowMajor };
            // What a matrix reads is as wide as what its neighbour writes.
            let neighbour = |role: &'static str| {
                let neighbour = TensorKey { role: role.into(), ..key.clone() };
                rows.get(&neighbour).copied()
            };
            let columns = match &*key.role {
                "attention_output" => neighbour("attention_query"),
                "down" if layout == Layout::RowMajor => {
                    neighbour("up").or_else(|| neighbour("gate"))
                }
                _ => Some(assembly.header.hidden_size),
            };
            let Some(columns) = columns else {
                return Err(refuse(assembly, "its width is nowhere to be found".to_owned()));
            };
            if columns.checked_next_multiple_of(256) != Some(padded)
                || blocks.bytes_of(row_count, padded) != Some(*length)
            {
                let problem = format!(
                    "{length} bytes are not {} of [{row_count}, {columns}], padded to {padded}",
                    blocks.tag
                );
                return Err(refuse(assembly, problem));
            }
            assembly.add(
                file,
                Place {
                    name,
                    key: key.clone(),
                    dtype: blocks.tag,
                    shape: vec![row_count, columns],
                    columns_padded: (padded != columns).then_some(padded),
                    layout,
                    offset: *offset,
                    bytes: *length,
                },
            )?;
        }
    }
    Ok(())
}

/// The output matrix of a quantised vindex.
fn unembedding_q4k(assembly: &mut Assembly<'_>) -> Result<(), VindexError> {
    let (rows, columns) = (assembly.header.vocab_size, assembly.header.hidden_size);
    let key = TensorKey::model("unembedding");
    if assembly.has(&key) || !assembly.list(LM_HEAD_Q4)? {
        return Ok(());
    }
    let length = assembly.found[LM_HEAD_Q4].0;
    let blocks = Blocks::named("q4_k").map_err(|problem| assembly.damaged(LM_HEAD_Q4, problem))?;
    if blocks.bytes_of(rows, columns) != Some(length) {
        let problem = format!("{length} bytes are not {} of [{rows}, {columns}]", blocks.tag);
        return Err(assembly.damaged(LM_HEAD_Q4, problem));
    }
    let (shape, columns_padded) = (vec![rows, columns], blocks.padding(columns));
    let (layout, dtype, name) = (Layout::RowMajor, blocks.tag, "lm_head.weight");
    let place = Place { name, key, dtype, shape, columns_padded, layout, offset: 0, bytes: length };
    assembly.add(LM_HEAD_Q4, place)
}

/// The routers of a mixture, layer by layer, each with its bias where it has one.
fn routers(assembly: &mut Assembly<'_>) -> Result<(), VindexError> {
    let header = assembly.header;
    let experts = header.model_config.as_ref().and_then(|config| config.moe.as_ref());
    let Some(experts) = experts.map(|experts| u64::from(experts.num_experts)) else {
        return Ok(());
    };
    if !assembly.list(ROUTERS)? {
        return Ok(());
    }
    let length = assembly.found[ROUTERS].0;
    let (hidden, layers) = (header.hidden_size, u64::from(header.num_layers));
    let with_bias = plain(length, [layers, experts, hidden.saturating_add(1)]);
    let blocks = match &with_bias {
        Ok(blocks) => Ok(*blocks),
        Err(_) => plain(length, [layers, experts, hidden]),
    };
    let blocks = blocks.map_err(|problem| assembly.damaged(ROUTERS, problem))?;
    // Without layers their product says nothing about one of them.
    let (Some(matrix), Some(bias)) =
        (blocks.bytes_of(experts, hidden), blocks.bytes_of(1, experts))
    else {
        return Err(assembly.damaged(ROUTERS, "its size overflows"));
    };
    let mut offset = 0;
    for layer in 0..header.num_layers {
        let parts =
            [("router", vec![experts, hidden], matrix), ("router_bias", vec![experts], bias)];
        for (role, shape, bytes) in parts.into_iter().take(1 + usize::from(with_bias.is_ok())) {
            let key = TensorKey::layer(role, layer);
            assembly.add(
                ROUTERS,
                Place {
                    name: &key.to_string(),
                    key: key.clone(),
                    dtype: blocks.tag,
                    shape,
                    columns_padded: None,
                    layout: Layout::RowMajor,
                    offset,
                    bytes,
                },
            )?;
            offset += bytes;
        }
    }
    Ok(())
}

/// Feature-major copies that a tool of the ancestor's makes, where there is nothing else.
fn feature_major(assembly: &mut Assembly<'_>) -> Result<(), VindexError> {
    let Some(first) = assembly.header.layers.first().map(|info| info.layer) else { return Ok(()) };
    for (file, role, layout) in [
        ("up_features.bin", "up", Layout::RowMajor),
        ("down_features.bin", "down", Layout::FeatureMajor),
    ] {
        if !assembly.has(&TensorKey::layer(role, first)) && assembly.length(file)?.is_some() {
            let blocks = Blocks::named("f32").map_err(|problem| assembly.damaged(file, problem))?;
            concatenated(assembly, file, role, blocks, layout)?;
        }
    }
    Ok(())
}
