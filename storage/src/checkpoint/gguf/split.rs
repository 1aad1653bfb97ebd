//! A model in several GGUF files: names `NAME-00001-of-00003.gguf`, and metadata that agrees.
//!
//! The first part has the model's metadata; each part has its number, the number of parts and the
//! number of tensors in all of them.

use super::GgufMetadata;

/// The file name of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::checkpoint) struct SplitName<'a> {
    /// What the parts have in common.
    prefix: &'a str,
    /// Its number, from 1.
    pub(in crate::checkpoint) part: u32,
    /// Number of parts, at least 1.
    pub(in crate::checkpoint) count: u32,
}

impl<'a> SplitName<'a> {
    /// Reads a file name, if it is one of a part.
    pub(in crate::checkpoint) fn parse(name: &'a str) -> Option<Self> {
        let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (prefix, part) = rest.rsplit_once('-')?;
        let number = |digits: &str| {
            let plain = digits.len() == 5 && digits.bytes().all(|digit| digit.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        let (part, count): (u32, u32) = (number(part)?, number(count)?);
        (1..=count).contains(&part).then_some(Self { prefix, part, count })
    }

    /// The file names of all parts, in order.
    pub(in crate::checkpoint) fn all(&self) -> impl Iterator<Item = String> {
        let Self { prefix, count, .. } = self;
        (1..=*count).map(move |part| format!("{prefix}-{part:05}-of-{count:05}.gguf"))
    }

    /// Whether both are parts of one model.
    pub(in crate::checkpoint) fn is_beside(&self, other: &Self) -> bool {
        (self.prefix, self.count) == (other.prefix, other.count)
    }
}

/// Checks what the parts of a model, in order, say of themselves; `tensors` is how many there are in
/// all of them.
///
/// # Errors
/// The position of a part, and a sentence fragment saying what is wrong with it.
pub(in crate::checkpoint) fn check_parts(
    parts: &[GgufMetadata],
    tensors: usize,
) -> Result<(), (usize, String)> {
    for (position, metadata) in parts.iter().enumerate() {
        let expect = |key: &str, expected: usize, otherwise: Option<usize>| {
            let found = metadata.u64(key).map_err(|error| error.to_string())?;
            match found.or(otherwise.map(|value| value as u64)) {
                Some(found) if found == expected as u64 => Ok(()),
                Some(found) => Err(format!("its {key} is {found}, it should be {expected}")),
                None => Err(format!("it is named like a part of a model, but has no {key}")),
            }
        };
        let check = || match parts.len() {
            // A whole model says nothing of parts, or that it is the only one.
            1 => match metadata.u64("split.count").map_err(|error| error.to_string())? {
                None | Some(0 | 1) => Ok(()),
                Some(count) => Err(format!(
                    "it is one of {count} parts of a model, but not named -00001-of-{count:05}.gguf"
                )),
            },
            count => {
                expect("split.count", count, None)?;
                expect("split.no", position, None)?;
                // Older writers gave the total in the first part only.
                expect("split.tensors.count", tensors, (position > 0).then_some(tensors))
            }
        };
        check().map_err(|problem| (position, problem))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_are_told_from_other_names() {
        let name = SplitName::parse("a-of-b-00002-of-00003.gguf").unwrap();
        assert_eq!((name.prefix, name.part, name.count), ("a-of-b", 2, 3));
        let all: Vec<_> = name.all().collect();
        assert_eq!(all[0], "a-of-b-00001-of-00003.gguf");
        assert_eq!(all.len(), 3);
        for other in [
            "model.gguf",
            "m-00000-of-00003.gguf",
            "m-00004-of-00003.gguf",
            "m-1-of-3.gguf",
            "m-00001-of-+0003.gguf",
            "m-00001-of-00003.safetensors",
        ] {
            assert_eq!(SplitName::parse(other), None, "{other}");
        }
    }
}
