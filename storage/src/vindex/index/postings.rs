//! Posting lists: for each text the features that have it, in order of layer and feature.
//!
//! Three sections: `texts`, all texts in order, one after another; `keys`, for each text where it ends
//! and where its features end, two little-endian `u64`; `features`, twelve bytes each: layer and
//! feature (`u32`), score (`f32`).
//!
//! Promises: lists that parse have texts in strictly ascending order, and each list's features in
//! strictly ascending order, all of them features of the model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{IndexError, IndexFile, IndexHeader, IndexWriter};
use crate::file::Files;

/// Bytes of a record of the section `keys`.
const KEY_BYTES: usize = 16;
/// Bytes of a record of the section `features`.
const FEATURE_BYTES: usize = 12;
/// Most bytes of a section that is read into memory.
const SECTION_BYTES_MAX: u64 = 1 << 30;
/// The sections, in order.
const SECTIONS: [&str; 3] = ["texts", "keys", "features"];

/// A feature in a list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Posting {
    /// Its layer.
    pub layer: u32,
    /// Its index in the layer.
    pub feature: u32,
    /// What it has of the text: a logit, or 0.
    pub score: f32,
}

/// Posting lists by text.
#[derive(Debug, Default)]
pub struct Postings {
    texts: String,
    /// Where each text, and its list, ends.
    ends: Vec<(usize, usize)>,
    postings: Vec<Posting>,
}

impl Postings {
    /// Reads the sections of a file. `features`: the number of features of each layer.
    ///
    /// # Errors
    /// What is wrong with them, by the first thing that is.
    pub fn read(file: &IndexFile, features: &[u64]) -> Result<Self, IndexError> {
        let refuse = |problem: &str| IndexError::format(file.path(), problem);
        let header = file.header();
        let names: Vec<&str> = header.sections.iter().map(|one| one.name.as_str()).collect();
        if names != SECTIONS || header.sections.iter().any(|one| one.bytes > SECTION_BYTES_MAX) {
            return Err(refuse("its sections are not those of posting lists"));
        }
        let texts = std::str::from_utf8(file.section(0)?)
            .map_err(|_| refuse("its texts are not UTF-8"))?
            .to_owned();
        let (keys, keys_rest) = file.section(1)?.as_chunks::<KEY_BYTES>();
        let (records, records_rest) = file.section(2)?.as_chunks::<FEATURE_BYTES>();
        if !keys_rest.is_empty() || !records_rest.is_empty() {
            return Err(refuse("a section ends within a record"));
        }
        let postings: Vec<Posting> = records.iter().map(posting).collect();
        let known = |one: &Posting| {
            features.get(one.layer as usize).is_some_and(|&count| u64::from(one.feature) < count)
        };
        if !postings.iter().all(known) {
            return Err(refuse("it lists a feature that there is not"));
        }
        let mut ends: Vec<(usize, usize)> = Vec::with_capacity(keys.len());
        for key in keys {
            let end = (number(key, 0), number(key, 8));
            let ((Some(text_end), Some(list_end)), (text, list)) =
                (end, ends.last().copied().unwrap_or_default())
            else {
                return Err(refuse("a list ends beyond the file"));
            };
            let is_text = texts.get(text..text_end).is_some_and(|text| !text.is_empty());
            let ascends = |pair: &[Posting]| place(&pair[0]) < place(&pair[1]);
            let is_list = postings
                .get(list..list_end)
                .is_some_and(|found| !found.is_empty() && found.windows(2).all(ascends));
            if !is_text || !is_list {
                return Err(refuse("a list is out of order"));
            }
            ends.push((text_end, list_end));
        }
        if ends.last().copied().unwrap_or_default() != (texts.len(), postings.len()) {
            return Err(refuse("there is more in it than its keys say"));
        }
        let found = Self { texts, ends, postings };
        let ordered = (1..found.keys()).all(|at| found.text(at - 1) < found.text(at));
        match ordered {
            true => {
                file.check()?;
                Ok(found)
            }
            false => Err(refuse("its texts are out of order")),
        }
    }

    /// Writes lists as the index `name` of a directory. Lists are put in order.
    ///
    /// # Errors
    /// As [`IndexWriter`].
    pub fn write(
        files: &Arc<dyn Files>,
        (directory, name): (&Path, &str),
        header: IndexHeader,
        lists: &mut BTreeMap<Arc<str>, Vec<Posting>>,
    ) -> Result<(), IndexError> {
        let entries = lists.values().map(|list| list.len() as u64).sum();
        let header = IndexHeader { keys: lists.len() as u64, entries, ..header };
        let mut writer = IndexWriter::create(files, directory, name, header)?;
        writer.begin(SECTIONS[0])?;
        for text in lists.keys() {
            writer.write(text.as_bytes())?;
        }
        writer.begin(SECTIONS[1])?;
        let (mut text_end, mut list_end) = (0_u64, 0_u64);
        for (text, list) in lists.iter_mut() {
            list.sort_by_key(place);
            text_end += text.len() as u64;
            list_end += list.len() as u64;
            writer.write(&[text_end.to_le_bytes(), list_end.to_le_bytes()].concat())?;
        }
        writer.begin(SECTIONS[2])?;
        for list in lists.values() {
            let mut bytes = Vec::with_capacity(list.len() * FEATURE_BYTES);
            for Posting { layer, feature, score } in list {
                bytes.extend_from_slice(&layer.to_le_bytes());
                bytes.extend_from_slice(&feature.to_le_bytes());
                bytes.extend_from_slice(&score.to_le_bytes());
            }
            writer.write(&bytes)?;
        }
        writer.finish()
    }

    /// How many texts have a list.
    pub fn keys(&self) -> usize {
        self.ends.len()
    }

    /// How many features are in all lists.
    pub fn entries(&self) -> usize {
        self.postings.len()
    }

    /// The features of a text, in order of layer and feature; none where no feature has it.
    pub fn list(&self, text: &str) -> &[Posting] {
        let (mut low, mut high) = (0, self.keys());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.text(middle).cmp(text) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return self.list_at(middle),
            }
        }
        &[]
    }

    /// Every text with its features, by text.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Posting])> {
        (0..self.keys()).map(|at| (self.text(at), self.list_at(at)))
    }

    fn start(&self, at: usize) -> (usize, usize) {
        at.checked_sub(1).map_or((0, 0), |before| self.ends[before])
    }

    fn text(&self, at: usize) -> &str {
        &self.texts[self.start(at).0..self.ends[at].0]
    }

    fn list_at(&self, at: usize) -> &[Posting] {
        &self.postings[self.start(at).1..self.ends[at].1]
    }
}

/// By what lists are ordered.
fn place(posting: &Posting) -> (u32, u32) {
    (posting.layer, posting.feature)
}

fn posting(record: &[u8; FEATURE_BYTES]) -> Posting {
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| record[at + byte]));
    Posting { layer: word(0), feature: word(4), score: f32::from_bits(word(8)) }
}

fn number(key: &[u8; KEY_BYTES], at: usize) -> Option<usize> {
    let eight = [0, 1, 2, 3, 4, 5, 6, 7].map(|byte| key[at + byte]);
    usize::try_from(u64::from_le_bytes(eight)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::MemoryFiles;
    use crate::vindex::index::index_path;

    const FEATURES: [u64; 2] = [4, 4];

    fn header() -> IndexHeader {
        IndexHeader {
            target: "targets".to_owned(),
            method: "postings".to_owned(),
            base_hash: "abc".to_owned(),
            made_from: "1".to_owned(),
            generator: "test".to_owned(),
            keys: 0,
            entries: 0,
            recall: None,
            sections: Vec::new(),
        }
    }

    fn one(layer: u32, feature: u32, score: f32) -> Posting {
        Posting { layer, feature, score }
    }

    fn open(files: &Arc<dyn Files>) -> Result<Postings, IndexError> {
        let file = IndexFile::open(files, &index_path(Path::new("/v"), "one"))?;
        Postings::read(&file, &FEATURES)
    }

    fn directory() -> Arc<dyn Files> {
        let files: Arc<dyn Files> = Arc::new(MemoryFiles::new());
        files.create_dir_all(Path::new("/v")).unwrap();
        files
    }

    #[test]
    fn lists_are_found_by_their_text_in_order() {
        let files = directory();
        let mut lists: BTreeMap<Arc<str>, Vec<Posting>> = BTreeMap::new();
        lists.insert("Paris".into(), vec![one(1, 2, 0.5), one(0, 3, 2.0)]);
        lists.insert("Πάτρα".into(), vec![one(1, 0, -1.0)]);
        lists.insert("Oslo".into(), vec![one(0, 0, 0.0)]);
        Postings::write(&files, (Path::new("/v"), "one"), header(), &mut lists).unwrap();
        let found = open(&files).unwrap();
        assert_eq!(found.list("Paris"), [one(0, 3, 2.0), one(1, 2, 0.5)]);
        assert_eq!(found.list("Πάτρα"), [one(1, 0, -1.0)]);
        for missing in ["", "A", "Paris ", "Pari", "ω", "\u{10FFFF}"] {
            assert!(found.list(missing).is_empty(), "{missing:?}");
        }
        let texts: Vec<&str> = found.iter().map(|(text, _)| text).collect();
        assert_eq!(texts, ["Oslo", "Paris", "Πάτρα"]);
    }

    #[test]
    fn an_index_of_nothing_is_empty() {
        let files = directory();
        Postings::write(&files, (Path::new("/v"), "one"), header(), &mut BTreeMap::new()).unwrap();
        assert_eq!(open(&files).unwrap().keys(), 0);
    }

    /// A file whose checksums are right, whatever its sections say.
    fn forged(
        texts: &[u8],
        keys: &[(u64, u64)],
        postings: &[Posting],
    ) -> Result<Postings, IndexError> {
        let files = directory();
        let mut writer = IndexWriter::create(&files, Path::new("/v"), "one", header()).unwrap();
        writer.section("texts", texts).unwrap();
        let pair = |&(a, b): &(u64, u64)| [a.to_le_bytes(), b.to_le_bytes()].concat();
        writer.section("keys", &keys.iter().flat_map(pair).collect::<Vec<u8>>()).unwrap();
        let record = |one: &Posting| {
            let words = [one.layer, one.feature, one.score.to_bits()];
            words.map(u32::to_le_bytes).concat()
        };
        writer.section("features", &postings.iter().flat_map(record).collect::<Vec<u8>>()).unwrap();
        writer.finish().unwrap();
        open(&files)
    }

    #[test]
    fn whatever_points_nowhere_or_is_out_of_order_is_refused() {
        let two = [one(0, 1, 1.0), one(1, 1, 1.0)];
        assert!(forged(b"ab", &[(1, 1), (2, 2)], &two).is_ok());
        type Forged<'a> = (&'a [u8], &'a [(u64, u64)], &'a [Posting]);
        let bad: [Forged<'_>; 10] = [
            (b"ba", &[(1, 1), (2, 2)], &two),
            (b"aa", &[(1, 1), (2, 2)], &two),
            (b"ab", &[(1, 1), (2, 3)], &two),
            (b"ab", &[(1, 1), (u64::MAX, 2)], &two),
            (b"ab", &[(2, 2), (1, 2)], &two),
            (b"ab", &[(1, 2)], &two),
            (b"\xFFb", &[(1, 1), (2, 2)], &two),
            ("é".as_bytes(), &[(1, 1), (2, 2)], &two),
            (b"a", &[(1, 2)], &[one(0, 1, 1.0), one(0, 1, 1.0)]),
            (b"a", &[(1, 1)], &[one(2, 0, 1.0)]),
        ];
        for (texts, keys, postings) in bad {
            let result = forged(texts, keys, postings);
            assert!(matches!(result, Err(IndexError::Format { .. })), "{texts:?} {keys:?}");
        }
    }
}
