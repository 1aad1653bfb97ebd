//! From the vectors of a position to the numbers of its rows.

use std::cmp::Ordering;

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    CaptureTrace, Decoder, DecoderOptions, Ffn, PassMeters, Precision, TokenReadout,
};
use larql_compute::sample::{greedy, rank_and_probability};
use larql_planner::layers::LayerSet;
use larql_planner::value::Value;

use super::Row;
use crate::failure::Failure;
use crate::mounts::Model;
use crate::text::Tokenizer;

/// The vectors of one position, each `[hidden]`.
pub(super) struct Stream<'a> {
    /// What entered layer 0.
    pub(super) input: &'a [f32],
    /// Of each layer what attention added, what the rest added, and what left it.
    pub(super) layers: Vec<[&'a [f32]; 3]>,
}

impl<'a> Stream<'a> {
    /// A position of a block.
    pub(super) fn of(capture: &'a CaptureTrace, index: usize, hidden: usize) -> Self {
        let at = |rows: &'a [f32]| &rows[index * hidden..(index + 1) * hidden];
        let layers = capture.layers().iter();
        Self {
            input: at(capture.input()),
            layers: layers
                .map(|layer| [at(&layer.attention), at(&layer.network), at(&layer.residual)])
                .collect(),
        }
    }

    /// The vectors that a reading of that layer is about: attention's, the network's, the stream's.
    fn at(&self, layer: Option<u32>) -> [&'a [f32]; 3] {
        layer.map_or([&[], &[], self.input], |layer| self.layers[layer as usize])
    }
}

/// What one row says; what it does not say is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reading {
    /// The layer; `None` for what enters layer 0.
    pub(super) layer: Option<u32>,
    pub(super) rank: Option<i64>,
    pub(super) probability: Option<f32>,
    pub(super) attention_logit: Option<f64>,
    pub(super) network_logit: Option<f64>,
    pub(super) residual_norm: Option<f64>,
    pub(super) attention_norm: Option<f64>,
    pub(super) network_norm: Option<f64>,
    pub(super) top: Option<u32>,
    /// The other prompt's best token, in a row of differences.
    pub(super) other_top: Option<u32>,
}

impl Reading {
    /// One prompt's reading less the other's; norms are those of differences of vectors.
    pub(super) fn difference(
        first: &Self,
        other: &Self,
        stream: &Stream<'_>,
        other_stream: &Stream<'_>,
    ) -> Self {
        let less = |first: Option<f64>, other: Option<f64>| Some(first? - other?);
        let (vectors, others) = (stream.at(first.layer), other_stream.at(first.layer));
        let apart = |index: usize| {
            let differences = vectors[index].iter().zip(others[index]);
            let squares = differences.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
            squares.sum::<f64>().sqrt()
        };
        Self {
            layer: first.layer,
            rank: first.rank.zip(other.rank).map(|(first, other)| first - other),
            probability: first.probability.zip(other.probability).map(|(a, b)| a - b),
            attention_logit: less(first.attention_logit, other.attention_logit),
            network_logit: less(first.network_logit, other.network_logit),
            residual_norm: first.residual_norm.map(|_| apart(2)),
            attention_norm: first.attention_norm.map(|_| apart(0)),
            network_norm: first.network_norm.map(|_| apart(1)),
            top: first.top,
            other_top: other.top,
        }
    }
}

/// The length of a vector.
pub(super) fn norm(vector: &[f32]) -> f64 {
    vector.iter().map(|&number| f64::from(number).powi(2)).sum::<f64>().sqrt()
}

/// A reading as a row of TRACE.
pub(super) fn row(position: usize, reading: &Reading, tokenizer: &Tokenizer) -> Row {
    let integer = |number: i64| Value::Integer(number);
    let score = |number: Option<f64>| number.map_or(Value::Null, |x| Value::Score(x as f32));
    let top_token = match (reading.top, reading.other_top) {
        (None, _) => Value::Null,
        (Some(top), Some(other)) if other != top => {
            Value::text(format!("{} ≠ {}", tokenizer.word(top), tokenizer.word(other)))
        }
        (Some(top), _) => Value::Text(tokenizer.word(top)),
    };
    vec![
        integer(position as i64),
        integer(reading.layer.map_or(-1, i64::from)),
        reading.rank.map_or(Value::Null, integer),
        reading.probability.map_or(Value::Null, Value::Score),
        score(reading.attention_logit),
        score(reading.network_logit),
        score(reading.residual_norm),
        score(reading.attention_norm),
        score(reading.network_norm),
        top_token,
    ]
}

/// The end of the model, which makes tokens of the stream.
pub(super) struct Readout<'m> {
    decoder: Decoder<'m>,
    hidden: usize,
    /// For each layer, what is left at the end of the model of what is in the stream before the layer's
    /// own scalar: the scalars of this and all later layers; 1 after the last.
    kept: Vec<f64>,
}

impl<'m> Readout<'m> {
    /// Of a model; `ffn` is not run.
    pub(super) fn new(model: &'m Model, pool: &'m Pool, ffn: &'m dyn Ffn) -> Result<Self, Failure> {
        let options = DecoderOptions { precision: Precision::Serving, ffn };
        let decoder = Decoder::new(model.architecture(), model, pool, options)?;
        let mut kept = vec![1.0];
        let scalars: Vec<f32> = decoder.layer_scalars().collect();
        for scalar in scalars.into_iter().rev() {
            kept.push(kept[kept.len() - 1] * f64::from(scalar));
        }
        kept.reverse();
        Ok(Self { decoder, hidden: model.architecture().hidden_size, kept })
    }

    /// What reading took so far.
    pub(super) fn meters(&self) -> &PassMeters {
        self.decoder.meters()
    }

    /// The scalar of a layer, and what is left of the stream that leaves it.
    pub(super) fn scalar(&self, layer: usize) -> f64 {
        f64::from(self.decoder.layer_scalars().nth(layer).unwrap_or(1.0))
    }

    /// What is left at the end of the model of what leaves a layer.
    pub(super) fn kept_after(&self, layer: usize) -> f64 {
        self.kept[layer + 1]
    }

    /// What is left at the end of the model of what is in the stream before a layer's scalar.
    pub(super) fn kept_in(&self, layer: usize) -> f64 {
        self.kept[layer]
    }

    /// How a token is read.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for one that is none.
    pub(super) fn token(&self, token: u32) -> Result<TokenReadout, Failure> {
        Ok(self.decoder.token_readout(token)?)
    }

    /// The token that the model predicts at each of some ends of the stream: `[n, hidden]`.
    ///
    /// # Errors
    /// `DAMAGED` where the logits are no numbers; when cancelled.
    pub(super) fn predicted(
        &mut self,
        residuals: &[f32],
        cancel: &Cancel,
    ) -> Result<Vec<u32>, Failure> {
        let mut tokens = Vec::with_capacity(residuals.len() / self.hidden);
        self.decoder.read_out(residuals, cancel, &mut |_, logits| tokens.push(greedy(logits)))?;
        Ok(tokens.into_iter().collect::<Result<_, _>>()?)
    }

    /// The readings of one position, by layer; first that of what enters layer 0, where it is wanted.
    ///
    /// # Errors
    /// `DAMAGED` where logits are no numbers; when cancelled.
    pub(super) fn read(
        &mut self,
        stream: &Stream<'_>,
        token: u32,
        layers: &LayerSet,
        decompose: bool,
        cancel: &Cancel,
    ) -> Result<Vec<Reading>, Failure> {
        let places = decompose.then_some(None).into_iter().chain(layers.iter().map(Some));
        let places: Vec<Option<u32>> = places.collect();
        let mut residuals = Vec::with_capacity(places.len() * self.hidden);
        places.iter().for_each(|&layer| residuals.extend_from_slice(stream.at(layer)[2]));
        let looks = self.look(&residuals, token, cancel)?;
        let readout = self.decoder.token_readout(token)?;
        let end = stream.layers.last().map_or(stream.input, |layer| layer[2]);
        let factor = readout.factor(end);
        let mut readings = Vec::with_capacity(places.len());
        for (layer, (rank, probability, top)) in places.into_iter().zip(looks) {
            let [attention, network, residual] = stream.at(layer);
            let mut reading = Reading {
                layer,
                rank: Some(rank as i64),
                probability: Some(probability),
                residual_norm: Some(norm(residual)),
                top: Some(top),
                ..Reading::default()
            };
            match layer {
                Some(layer) => {
                    let kept = self.kept[layer as usize];
                    reading.attention_logit = Some(readout.part(attention, factor) * kept);
                    reading.network_logit = Some(readout.part(network, factor) * kept);
                    reading.attention_norm = Some(norm(attention));
                    reading.network_norm = Some(norm(network));
                }
                None => {
                    let part = readout.part(residual, factor) * self.kept[0];
                    reading.network_logit = Some(part + readout.constant());
                }
            }
            readings.push(reading);
        }
        Ok(readings)
    }

    /// Rank and probability of a token in each of some rows of the stream, and each one's best token.
    ///
    /// # Errors
    /// As [`Readout::predicted`].
    pub(super) fn look(
        &mut self,
        residuals: &[f32],
        token: u32,
        cancel: &Cancel,
    ) -> Result<Vec<(usize, f32, u32)>, Failure> {
        let mut looks = Vec::with_capacity(residuals.len() / self.hidden);
        self.decoder.read_out(residuals, cancel, &mut |_, logits| {
            let (rank, probability) = rank_and_probability(logits, token);
            looks.push(greedy(logits).map(|top| (rank, probability, top)));
        })?;
        Ok(looks.into_iter().collect::<Result<_, _>>()?)
    }
}

/// Rows by layer, as a trace has them.
pub(super) fn by_layer(a: &Reading, b: &Reading) -> Ordering {
    a.layer.cmp(&b.layer)
}
