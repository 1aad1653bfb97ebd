//! Reading metadata so that nothing is overlooked: every key is read or refused by name.

use std::cell::RefCell;
use std::collections::BTreeSet;

use larql_storage::checkpoint::gguf::{GgufMetadata, MetadataTypeError, Value};

use crate::failure::{Failure, code};

/// Metadata with a list of what was asked for.
pub(super) struct Keys<'a> {
    metadata: &'a GgufMetadata,
    architecture: &'a str,
    read: RefCell<BTreeSet<String>>,
}

/// A failure about the file's metadata.
pub(super) fn refuse(message: impl Into<String>) -> Failure {
    Failure::new(code::UNSUPPORTED_FORMAT, message)
}

fn wrong_type(error: MetadataTypeError) -> Failure {
    refuse(error.to_string()).hint("convert the model to GGUF again")
}

/// Readers of the architecture's keys, one for each kind of value.
macro_rules! reader {
    ($($(#[$doc:meta])* $name:ident $kind:ty, $method:ident;)*) => {
        $($(#[$doc])*
        pub(super) fn $name(&self, key: &str) -> Result<Option<$kind>, Failure> {
            self.metadata.$method(&self.own(key)).map_err(wrong_type)
        })*
    };
}

impl<'a> Keys<'a> {
    pub(super) fn new(metadata: &'a GgufMetadata) -> Result<Self, Failure> {
        let architecture = metadata
            .text("general.architecture")
            .map_err(wrong_type)?
            .ok_or_else(|| refuse("the metadata has no general.architecture"))?;
        Ok(Self { metadata, architecture, read: RefCell::default() })
    }

    /// `general.architecture`.
    pub(super) fn architecture(&self) -> &'a str {
        self.architecture
    }

    /// The full name of a key of the architecture, which counts as read from now on.
    fn own(&self, key: &str) -> String {
        let key = format!("{}.{key}", self.architecture);
        self.read.borrow_mut().insert(key.clone());
        key
    }

    reader! {
        /// A count of the architecture's.
        count u64, u64;
        /// A number of the architecture's.
        number f64, f64;
        /// A truth value of the architecture's.
        flag bool, bool;
    }

    /// A text of the architecture's.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, Failure> {
        self.metadata.text(&self.own(key)).map_err(wrong_type)
    }

    /// A count that the architecture cannot do without.
    pub(super) fn needed(&self, key: &str) -> Result<u64, Failure> {
        self.count(key)?.ok_or_else(|| refuse(format!("the metadata has no {}", self.own(key))))
    }

    /// Takes a key as read whose value says nothing that the tensors do not say.
    pub(super) fn skip(&self, key: &str) {
        self.own(key);
    }

    /// A count for each layer, given as one number or as an array of `layers`.
    pub(super) fn per_layer(&self, key: &str, layers: usize) -> Result<Option<Vec<u64>>, Failure> {
        let key = self.own(key);
        match self.metadata.get(&key) {
            None => Ok(None),
            Some(Value::Array(array)) => {
                let wrong = |what: String| refuse(format!("metadata {key} {what}"));
                if array.len() != layers {
                    let found = array.len();
                    return Err(wrong(format!("has {found} entries for {layers} layers")));
                }
                array
                    .typed(|value| value.as_bool().map(u64::from).or(value.as_u64()))
                    .map(|value| {
                        value.map_err(|at| wrong(format!("holds no count at position {at}")))
                    })
                    .collect::<Result<_, _>>()
                    .map(Some)
            }
            Some(_) => {
                let value = self.metadata.u64(&key).map_err(wrong_type)?;
                Ok(value.map(|value| vec![value; layers]))
            }
        }
    }

    /// A number that holds for every layer, given once or as an array of equal ones.
    pub(super) fn uniform(&self, key: &str) -> Result<Option<f64>, Failure> {
        let name = self.own(key);
        let Some(Value::Array(array)) = self.metadata.get(&name) else { return self.number(key) };
        let mut numbers = array.iter().map(Value::as_f64);
        let first = numbers.next().flatten();
        if first.is_none() || numbers.any(|number| number != first) {
            return Err(refuse(format!(
                "metadata {name} gives layers different numbers, or none, which is not supported"
            )));
        }
        Ok(first)
    }

    /// Fails with the first key of the architecture that nothing asked for.
    pub(super) fn check_all_read(&self) -> Result<(), Failure> {
        let prefix = format!("{}.", self.architecture);
        let read = self.read.borrow();
        let unread =
            self.metadata.iter().find(|(key, _)| key.starts_with(&prefix) && !read.contains(*key));
        match unread {
            None => Ok(()),
            Some((key, value)) => Err(refuse(format!(
                "metadata {key} = {value} is not understood, and it could change the model's numbers"
            ))),
        }
    }
}
