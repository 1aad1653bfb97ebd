//! The page `docs/benchmarks/reference.md`.

use std::fmt::Write as _;
use std::path::Path;

use super::{atlas, gguf, quantisation, safetensors, serving};
use crate::daemon::machine;
use crate::statistics::{self, Interval, Paired};

/// What the checks found; those that failed as sentences.
#[derive(Default)]
pub(super) struct Results {
    pub(super) safetensors: Vec<safetensors::Row>,
    pub(super) gguf: Vec<gguf::Row>,
    pub(super) quantisation: Vec<quantisation::Row>,
    pub(super) serving: Vec<serving::Row>,
    pub(super) failures: Vec<String>,
}

impl Results {
    /// The page.
    pub(super) fn page(&self, root: &Path, versions: &str) -> anyhow::Result<String> {
        let mut page = String::from("# Beside other programs\n\n");
        writeln!(
            page,
            "What transformers and llama.cpp make of the models that larqld writes: printed by \
             `cargo xtask test --reference --record`\non {}. Compared with: {versions}.\n{}.\n",
            super::today()?,
            machine(root)?
        )?;
        writeln!(
            page,
            "The checkpoints are those of `tests/goldens`: small, with random weights, so that \
             logits lie near each other\nand every error shows. Ordinary test runs name these \
             checks as skipped.\n"
        )?;
        self.failures(&mut page)?;
        self.safetensors(&mut page)?;
        self.gguf(&mut page)?;
        self.quantisation(&mut page)?;
        self.serving(&mut page)?;
        Ok(page.trim_end().to_owned() + "\n")
    }

    fn failures(&self, page: &mut String) -> std::fmt::Result {
        if self.failures.is_empty() {
            return Ok(());
        }
        writeln!(page, "## Failed\n")?;
        for failure in &self.failures {
            writeln!(page, "- {failure}")?;
        }
        writeln!(page)
    }

    fn safetensors(&self, page: &mut String) -> std::fmt::Result {
        if self.safetensors.is_empty() {
            return Ok(());
        }
        writeln!(
            page,
            "## safetensors\n\nEach checkpoint is extracted `WITH ALL DTYPE SOURCE` and compiled \
             to safetensors. *Tensors* says how many are the source's\nbit for bit: names, types, shapes, \
             bytes. transformers runs what came out in f32; its logits of the last position\nof \
             three prompts are compared with the golden's. The bound is max(3e-4, 0.1 x what \
             disturbing each weight by a\nrelative 1e-5 changes).\n"
        )?;
        writeln!(
            page,
            "| checkpoint | tensors the same | largest difference of a logit | bound |"
        )?;
        writeln!(page, "|---|---|---|---|")?;
        for safetensors::Row { folder, tensors, different, logits } in &self.safetensors {
            let (difference, bound) = match logits {
                Ok((difference, bound)) => (format!("{difference:.1e}"), format!("{bound:.1e}")),
                Err(why) => (format!("not loaded: {why}"), String::new()),
            };
            let same = tensors.saturating_sub(different.len() as u64);
            writeln!(page, "| `{folder}` | {same} of {tensors} | {difference} | {bound} |")?;
        }
        writeln!(page)
    }

    fn gguf(&self, page: &mut String) -> std::fmt::Result {
        if self.gguf.is_empty() {
            return Ok(());
        }
        let bounds: Vec<_> = gguf::names().map(|(name, bound)| format!("{name} {bound}")).collect();
        writeln!(
            page,
            "## GGUF\n\nEach checkpoint is compiled to GGUF and run by llama.cpp (cache in f32, plain \
             attention). Its logits of three prompts'\nlast positions are compared with those that \
             we compute exactly from the same file: the largest difference, and in\nhow many \
             prompts the likeliest token is the same. llama.cpp rounds activations to f16 or, for \
             quantised weights, to\n8 bits; *widened* is the same file after `llama-quantize` \
             turned its blocks into f32, where nothing is rounded and the\nlikeliest tokens have \
             to be the same. GELU comes from a table of f16 in llama.cpp, which shows in Gemma, \
             GPT-2,\nPhi 2 and StarCoder 2.\n\nBounds: {}, widened {}.\n",
            bounds.join(", "),
            gguf::bound_wide()
        )?;
        let names: Vec<_> = gguf::names().map(|(name, _)| name).collect();
        writeln!(page, "| checkpoint | {} | note |", names.join(" | "))?;
        writeln!(page, "|---|{}---|", "---|".repeat(names.len()))?;
        for row in &self.gguf {
            let figure = |figure: &gguf::Figure| {
                let widened = figure.widened.map(|widened| format!("; widened {widened:.1e}"));
                let same = format!("{} of {}", figure.same_top, row.prompts);
                format!("{:.1e}, {same}{}", figure.served, widened.unwrap_or_default())
            };
            let mut figures: Vec<_> = row.figures.iter().map(figure).collect();
            figures.resize(names.len(), "not run".to_owned());
            writeln!(page, "| `{}` | {} | {} |", row.folder, figures.join(" | "), row.note)?;
        }
        writeln!(page)
    }

    fn quantisation(&self, page: &mut String) -> std::fmt::Result {
        if self.quantisation.is_empty() {
            return Ok(());
        }
        writeln!(
            page,
            "## Quantisation\n\nOf the bundled model, atlas: every matrix from the same f32 file by \
             us and by `llama-quantize` (`--pure`, but for\nQ4_K_M). *Error* is the root mean \
             square over tensors of each one's relative error, decoded by the `gguf` package.\n"
        )?;
        writeln!(
            page,
            "| type | error, ours | error, llama-quantize | tensors no worse | tensors of other types |\n\
             |---|---|---|---|---|"
        )?;
        for row in &self.quantisation {
            writeln!(
                page,
                "| {} | {:.4e} | {:.4e} | {} of {} | {} |",
                row.kind, row.rms.ours, row.rms.theirs, row.no_worse, row.tensors, row.other_type
            )?;
        }
        writeln!(
            page,
            "\nWhat that does to the next token: the Kullback-Leibler divergence of its distribution \
             from that of the f32 file, in\n10^-6 nats, over {} probes of facts, all computed by our exact \
             arithmetic. *Spread* is the 10th to the 90th percentile\nof probes; a probe on a knife's edge \
             can dominate a mean and make its interval too narrow. *Ratio* is ours over theirs,\nprobe by \
             probe: the median, and the interval that holds it with 95 %. One rounding of the weights is one \
             draw, which\nmoves all probes together: ratios away from 1 where errors are equal are its luck.\n",
            atlas::PROMPTS
        )?;
        let rows = self.quantisation.iter().map(|row| (row.kind, &row.divergence, String::new()));
        divergences(page, "type", "llama-quantize", "", rows)
    }

    fn serving(&self, page: &mut String) -> std::fmt::Result {
        if self.serving.is_empty() {
            return Ok(());
        }
        writeln!(
            page,
            "## Serving\n\nThe same file served by us and by llama.cpp, each as it does by default \
             (activations in 8 bits, cache in f16), against\nexact arithmetic over its dequantised \
             weights: types are files of the bundled model by our quantisers on {} probes of\nfacts, \
             `llama_k_quants` is the golden of that name. Divergences in 10^-6 nats, as above; *top* says in \
             how many probes the\nlikeliest token is that of exact arithmetic.\n",
            atlas::PROMPTS
        )?;
        let rows = self.serving.iter().map(|row| {
            let (probes, [ours, theirs]) = (row.divergence.ours.len(), row.same_top);
            let top = format!(" {ours} of {probes} | {theirs} of {probes} |");
            (row.name, &row.divergence, top)
        });
        divergences(page, "file", "llama.cpp", " top, ours | top, llama.cpp |", rows)
    }
}

/// A table of divergences, with more columns at the end.
fn divergences<'a>(
    page: &mut String,
    first: &str,
    theirs: &str,
    more: &str,
    rows: impl Iterator<Item = (&'static str, &'a Paired, String)>,
) -> std::fmt::Result {
    writeln!(
        page,
        "| {first} | median, ours | spread | mean | median, {theirs} | spread | mean | ratio | interval | \
         geometric mean of ratios | interval | difference of means, interval |{more}"
    )?;
    writeln!(page, "|{}", "---|".repeat(12 + more.matches('|').count()))?;
    for (name, paired, more) in rows {
        let figures = |values: &[f64]| {
            let at = |share| 1e6 * statistics::quantile(values, share);
            let mean = 1e6 * statistics::mean(values);
            format!("{:.2} | {:.2} to {:.1} | {mean:.1}", at(0.5), at(0.1), at(0.9))
        };
        let Interval { low, median, high } = paired.ratio();
        let (geometric, difference) = (paired.geometric_ratio(), paired.difference());
        writeln!(
            page,
            "| {name} | {} | {} | {median:.2} | {low:.2} to {high:.2} | {:.2} | {:.2} to {:.2} | {:.1} to {:.1} |{more}",
            figures(&paired.ours),
            figures(&paired.theirs),
            geometric.median,
            geometric.low,
            geometric.high,
            1e6 * difference.low,
            1e6 * difference.high
        )?;
    }
    writeln!(page)
}
