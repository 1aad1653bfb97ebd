//! The law of serving: a position's logits are those of its sequence alone, bit for bit, however
//! prompts are cut, whatever shares the pass, and for any number of threads; and they are close to
//! the reference's.

use larql_compute::cpu::{Cancel, Pool};
use larql_compute::model::{
    Architecture, DecodeError, Decoder, DecoderOptions, KvCache, KvPages, KvType, LogitsWanted,
    PAGE_POSITIONS, Precision, Role, Segment,
};
use larql_compute::quant::Dtype;
use larql_compute::sample::greedy;

use crate::architecture::{gemma3, llama, read};
use crate::checkpoint::{Checkpoint, architecture, goldens};
use crate::decoder::prompt;
use crate::goldens::{FAMILIES, golden, numbers, tokens};

const SERVING: DecoderOptions<'static> =
    DecoderOptions { precision: Precision::Serving, ffn: &larql_compute::model::DenseFfn };

/// Numbers below `bound` that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound
    }
}

/// The logits after every token of a sequence that runs alone, one token at a time.
fn alone(
    architecture: &Architecture,
    weights: &Checkpoint,
    kv_type: KvType,
    tokens: &[u32],
    positions_max: usize,
) -> Vec<Vec<f32>> {
    let pool = Pool::new(1);
    let mut decoder = Decoder::new(architecture, weights, &pool, SERVING).unwrap();
    let pages = KvPages::for_positions(architecture, kv_type, positions_max);
    let mut cache = pages.cache(positions_max);
    let run = |&token: &u32| {
        decoder.decode(token, &mut cache, None, &Cancel::new()).unwrap();
        decoder.logits().to_vec()
    };
    tokens.iter().map(run).collect()
}

/// Runs sequences together in random segments, some of them more than they keep, and compares
/// every row of logits with the one that the sequence gets alone.
fn mixed(
    about: &str,
    architecture: &Architecture,
    weights: &Checkpoint,
    kv_type: KvType,
    threads: usize,
    lengths: &[usize],
) {
    let positions_max = lengths.iter().max().unwrap() + 8;
    let sequences: Vec<Vec<u32>> = lengths
        .iter()
        .enumerate()
        .map(|(index, &length)| {
            let tokens = prompt(length + index, architecture.vocabulary_size);
            tokens[index..].to_vec()
        })
        .collect();
    let expected: Vec<Vec<Vec<f32>>> = sequences
        .iter()
        .map(|tokens| alone(architecture, weights, kv_type, tokens, positions_max))
        .collect();
    let pool = Pool::new(threads);
    let mut decoder = Decoder::new(architecture, weights, &pool, SERVING).unwrap();
    let pages = KvPages::new(architecture, kv_type, 64 << 20);
    let mut caches: Vec<KvCache> = sequences.iter().map(|_| pages.cache(positions_max)).collect();
    let mut random = Random(threads as u64 * 77 + lengths.len() as u64);
    while caches.iter().zip(&sequences).any(|(cache, tokens)| cache.len() < tokens.len()) {
        let mut fed = Vec::new();
        let mut segments = Vec::new();
        for (index, cache) in caches.iter_mut().enumerate() {
            let rest = &sequences[index][cache.len()..];
            if rest.is_empty() || random.below(4) == 0 {
                continue;
            }
            // Decode, speculation, or a piece of a prompt.
            let count = [1, 1 + random.below(5), 1 + random.below(70)][random.below(3)];
            let tokens = &rest[..count.min(rest.len())];
            let logits =
                [LogitsWanted::All, LogitsWanted::Last, LogitsWanted::None][random.below(3)];
            fed.push((index, cache.len(), tokens.len(), logits));
            segments.push(Segment { tokens, cache, logits });
        }
        decoder.forward(&mut segments, None, &Cancel::new()).unwrap();
        for (segment, (index, first, count, logits)) in fed.into_iter().enumerate() {
            let rows = match logits {
                LogitsWanted::None => 0..0,
                LogitsWanted::Last => first + count - 1..first + count,
                LogitsWanted::All => first..first + count,
            };
            let found = decoder.segment_logits(segment);
            assert_eq!(found.len(), rows.len() * architecture.vocabulary_size, "{about}");
            for (found, row) in found.chunks(architecture.vocabulary_size).zip(rows) {
                let difference = found.iter().zip(&expected[index][row]).position(|(a, b)| a != b);
                assert_eq!(
                    difference, None,
                    "{about}: sequence {index}, row {row} of {first}+{count}"
                );
            }
            // Some of what was proposed is not kept.
            if count > 1 && random.below(3) == 0 {
                caches[index].truncate(first + 1 + random.below(count));
            }
        }
    }
}

#[test]
fn every_family_gives_the_same_bits_alone_and_in_any_company() {
    for (index, name) in FAMILIES.into_iter().enumerate() {
        let folder = goldens(name);
        let architecture = architecture(&folder);
        let weights = Checkpoint::open(&folder, &architecture);
        let kv_type = [KvType::F16, KvType::Q8][index % 2];
        let lengths = [9, 75, 40].map(|length: usize| length.min(architecture.context_max - 8));
        mixed(name, &architecture, &weights, kv_type, 1 + index % 3, &lengths);
    }
}

#[test]
fn quantised_weights_give_the_same_bits_alone_and_in_any_company() {
    // Formats in blocks of 256 take wider rows.
    let narrow = [Dtype::F32, Dtype::BF16, Dtype::Q8_0, Dtype::Q4_0].map(|dtype| (dtype, 64, 96));
    let wide = [Dtype::Q2K, Dtype::Q3K, Dtype::Q4K, Dtype::Q5K, Dtype::Q6K];
    for (dtype, hidden, features) in narrow.into_iter().chain(wide.map(|wide| (wide, 256, 512))) {
        for (threads, kv_type) in [(1, KvType::F16), (2, KvType::Q8), (3, KvType::F16)] {
            for transposed in [None, Some(Role::Down)] {
                let mut config = llama();
                config["hidden_size"] = hidden.into();
                config["intermediate_size"] = features.into();
                config["vocab_size"] = 96.into();
                let architecture = read(&config);
                let mut weights = Checkpoint::random(&architecture, dtype, 3);
                if let Some(role) = transposed {
                    if !dtype.is_plain() {
                        continue;
                    }
                    weights = weights.transposed(role);
                }
                let about = format!("{dtype} {threads} {kv_type:?} {transposed:?}");
                mixed(&about, &architecture, &weights, kv_type, threads, &[310, 33, 5, 64]);
            }
        }
    }
}

#[test]
fn long_contexts_are_the_same_by_ranges_on_many_threads_and_alone_on_one() {
    let architecture = read(&gemma3());
    let weights = Checkpoint::random(&architecture, Dtype::F32, 9);
    mixed("gemma3", &architecture, &weights, KvType::F16, 3, &[560, 300]);
}

#[test]
fn logits_of_every_family_in_pages_are_close_to_the_reference() {
    let pool = Pool::new(2);
    let mut worst = [(0.0, ""); 2];
    for name in FAMILIES {
        let golden = golden(name);
        for (kind, kv_type) in [KvType::F16, KvType::Q8].into_iter().enumerate() {
            for prompt in golden.expected["prompts"].as_array().unwrap() {
                let about = format!("{name} {} {kv_type:?}", prompt["name"]);
                let ids = tokens(&prompt["input_ids"]);
                let positions_max = ids.len() + 16;
                let pages = KvPages::for_positions(&golden.architecture, kv_type, positions_max);
                let mut cache = pages.cache(positions_max);
                let mut decoder =
                    Decoder::new(&golden.architecture, &golden.weights, &pool, SERVING).unwrap();
                decoder.prefill(&ids, &mut cache, None, &Cancel::new()).unwrap();
                let expected = numbers(&prompt["last_logits"]);
                let size = expected.iter().fold(0.0, |size: f64, logit| size.max(logit.abs()));
                let distance = crate::reference::distance(decoder.logits(), &expected) / size;
                // Rounded to 8 bits, a router may choose other experts.
                let mut layers = 0..golden.architecture.layers();
                let experts = |layer| golden.architecture.layer(layer).ffn.experts.is_some();
                if kind == 1 && layers.any(experts) {
                    continue;
                }
                if distance > worst[kind].0 {
                    worst[kind] = (distance, name);
                }
                assert!(distance < [2e-2, 2e-1][kind], "{about}: {distance:e}");
                if kv_type == KvType::Q8 {
                    continue;
                }
                let mut found = vec![greedy(decoder.logits()).unwrap()];
                while found.len() < 16 {
                    let token = *found.last().unwrap();
                    decoder.decode(token, &mut cache, None, &Cancel::new()).unwrap();
                    found.push(greedy(decoder.logits()).unwrap());
                }
                assert_eq!(found, tokens(&prompt["greedy16"]), "{about}");
            }
        }
    }
    println!("largest distance, in parts of the largest logit: {worst:?}");
}

#[test]
fn shared_pages_give_the_bits_of_a_cache_of_ones_own_and_stay_as_they_are() {
    for config in [llama(), gemma3()] {
        let architecture = read(&config);
        let weights = Checkpoint::random(&architecture, Dtype::F32, 5);
        let tokens = prompt(100, 50);
        let expected = alone(&architecture, &weights, KvType::F16, &tokens, 200);
        let pool = Pool::new(2);
        let mut decoder = Decoder::new(&architecture, &weights, &pool, SERVING).unwrap();
        let pages = KvPages::new(&architecture, KvType::F16, 10 << 20);
        let mut first = pages.cache(200);
        decoder.prefill(&tokens, &mut first, None, &Cancel::new()).unwrap();
        assert_eq!(first.whole_pages().len(), 3);
        assert_eq!(pages.pages_used(), 4);
        let mut second = pages.cache_from(first.whole_pages(), 200);
        assert_eq!((second.len(), pages.pages_used()), (96, 4));
        decoder.prefill(&tokens[96..], &mut second, None, &Cancel::new()).unwrap();
        assert_eq!(decoder.logits(), expected[99]);
        // Cut back into a page that the first one holds too, and written anew.
        second.truncate(70);
        assert_eq!((second.pages_needed(1), second.pages_needed(40)), (1, 2));
        let other: Vec<u32> = tokens[70..].iter().map(|token| (token + 7) % 50).collect();
        decoder.prefill(&other, &mut second, None, &Cancel::new()).unwrap();
        let mut whole = tokens[..70].to_vec();
        whole.extend(other);
        let changed = alone(&architecture, &weights, KvType::F16, &whole, 200);
        assert_eq!(decoder.logits(), changed[99]);
        first.truncate(99);
        decoder.decode(tokens[99], &mut first, None, &Cancel::new()).unwrap();
        assert_eq!(decoder.logits(), expected[99]);
        drop(first);
        assert_eq!(pages.pages_used(), 4);
        drop(second);
        assert_eq!(pages.pages_used(), 0);
    }
}

#[test]
fn pages_of_another_model_or_rotation_are_not_taken() {
    let architecture = read(&llama());
    let weights = Checkpoint::random(&architecture, Dtype::F32, 5);
    let pool = Pool::new(1);
    let mut decoder = Decoder::new(&architecture, &weights, &pool, SERVING).unwrap();
    let pages = KvPages::new(&architecture, KvType::F16, 10 << 20);
    let mut cache = pages.cache(200);
    decoder.prefill(&prompt(70, 50), &mut cache, None, &Cancel::new()).unwrap();
    let others = KvPages::new(&architecture, KvType::F16, 10 << 20);
    assert_eq!(others.cache_from(cache.whole_pages(), 200).len(), 0);
    assert_eq!(pages.cache_from(cache.whole_pages(), 40).len(), PAGE_POSITIONS);
    let mut config = llama();
    config["rope_scaling"] = serde_json::json!({
        "type": "longrope", "short_factor": vec![1.0; 3], "long_factor": vec![2.0; 3]
    });
    config["model_type"] = "phi3".into();
    config["original_max_position_embeddings"] = 100.into();
    let long = read(&config);
    let weights = Checkpoint::random(&long, Dtype::F32, 5);
    let mut decoder = Decoder::new(&long, &weights, &pool, SERVING).unwrap();
    let pages = KvPages::new(&long, KvType::F16, 10 << 20);
    let mut short = pages.cache(100);
    decoder.prefill(&prompt(70, 50), &mut short, None, &Cancel::new()).unwrap();
    assert_eq!(pages.cache_from(short.whole_pages(), 90).len(), 64);
    assert_eq!(pages.cache_from(short.whole_pages(), 101).len(), 0);
    mixed("longrope", &long, &weights, KvType::F16, 2, &[150, 20]);
}

#[test]
fn a_batch_that_does_not_fit_is_refused_before_anything_is_written() {
    let architecture = read(&llama());
    let weights = Checkpoint::random(&architecture, Dtype::F32, 5);
    let pool = Pool::new(1);
    let mut decoder = Decoder::new(&architecture, &weights, &pool, SERVING).unwrap();
    let page = KvPages::new(&architecture, KvType::F16, 0).page_bytes();
    // Two layers, keys and values, 2 heads of 6 numbers of 2 bytes.
    assert_eq!(page, 32 * 2 * 2 * 2 * 6 * 2);
    let pages = KvPages::new(&architecture, KvType::F16, 5 * page + 1);
    assert_eq!(pages.pages_max(), 5);
    let (mut a, mut b) = (pages.cache(600), pages.cache(600));
    let cancel = Cancel::new();
    decoder.prefill(&prompt(33, 50), &mut a, None, &cancel).unwrap();
    let tokens = prompt(96, 50);
    let mut segments = [
        Segment { tokens: &tokens[..40], cache: &mut a, logits: LogitsWanted::Last },
        Segment { tokens: &tokens, cache: &mut b, logits: LogitsWanted::Last },
    ];
    let error = decoder.forward(&mut segments, None, &cancel).unwrap_err();
    assert_eq!(error, DecodeError::PagesExhausted { needed: 4, free: 3 });
    assert!(decoder.logits().is_empty() && decoder.segment_logits(0).is_empty());
    assert_eq!((a.len(), b.len(), pages.pages_used()), (33, 0, 2));
    let stopped = Cancel::new();
    stopped.cancel();
    let mut segments = [Segment { tokens: &tokens, cache: &mut b, logits: LogitsWanted::Last }];
    assert!(decoder.forward(&mut segments, None, &stopped).is_err());
    assert_eq!((b.len(), pages.pages_used()), (0, 2));
    decoder.prefill(&tokens, &mut b, None, &cancel).unwrap();
    assert_eq!(pages.pages_used(), 5);
    decoder.forward(&mut [], None, &cancel).unwrap();
    assert!(decoder.logits().is_empty());
}

#[test]
fn pages_of_two_models_beside_each_other_stay_within_one_bound() {
    let (small, large) = (read(&llama()), read(&gemma3()));
    let pool = Pool::new(1);
    let weights = [&small, &large].map(|model| Checkpoint::random(model, Dtype::F32, 5));
    let page = KvPages::new(&large, KvType::F16, 0).page_bytes();
    let pages = KvPages::new(&large, KvType::F16, 4 * page);
    let beside = pages.beside(&small);
    let per_page = beside.page_bytes();
    let cancel = Cancel::new();
    let mut decoder = Decoder::new(&large, &weights[1], &pool, SERVING).unwrap();
    let mut draft = Decoder::new(&small, &weights[0], &pool, SERVING).unwrap();
    let (mut own, mut guest) = (pages.cache(600), beside.cache(600));
    decoder.prefill(&prompt(40, 50), &mut own, None, &cancel).unwrap();
    assert_eq!((pages.pages_used(), pages.pages_free()), (2, 2));
    draft.prefill(&prompt(33, 50), &mut guest, None, &cancel).unwrap();
    assert_eq!((beside.pages_used(), pages.pages_used()), (2, 2));
    assert_eq!(pages.bytes_free(), 2 * (page - per_page));
    // What one takes the other lacks, until it is given back.
    let most = pages.bytes_free() / per_page;
    let error = draft.prefill(&prompt(32 * (most + 2), 50), &mut guest, None, &cancel).unwrap_err();
    assert!(matches!(error, DecodeError::PagesExhausted { free, .. } if free == most), "{error}");
    let lacking = (pages.pages_free() + 1) * 32;
    let error = decoder.prefill(&prompt(24 + lacking, 50), &mut own, None, &cancel).unwrap_err();
    assert!(matches!(error, DecodeError::PagesExhausted { .. }), "{error}");
    guest.truncate(0);
    assert_eq!((beside.pages_used(), pages.bytes_free()), (0, 2 * page));
    decoder.prefill(&prompt(88, 50), &mut own, None, &cancel).unwrap();
    assert_eq!((pages.pages_used(), beside.pages_free()), (4, 0));
    drop(own);
    assert_eq!(pages.bytes_free(), pages.bytes_max());
    // Pages of another shape are not each other's.
    draft.prefill(&prompt(64, 50), &mut guest, None, &cancel).unwrap();
    assert_eq!(pages.cache_from(guest.whole_pages(), 600).len(), 0);
}
